"""What the neural baselines share: scikit-learn's protocol around a torch network, and a loop of updates.

N rows of D pixels, B of them at once, K classes.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ssl_dgm.bars import bar
from ssl_dgm.config import UserError
from ssl_dgm.probability.randomness import derived_seed

UNLABELLED = -1  # scikit-learn's mark, in y, of a row whose class is not known
Image = tuple[int, int, int]  # channels, height, width


class NeuralClassifier(ClassifierMixin, BaseEstimator):
    """A torch network with scikit-learn's `fit`, `predict` and `predict_proba`.

    A subclass has the arguments `random_state`, `device` and `verbose`, and says in `_trained` what is fitted. Rows are
    in [0, 1]; others are mapped there by the least and the greatest value of the rows of `fit`. Everything random comes
    from generators that `random_state` seeds: torch's own state is neither read nor changed.

    Attributes:
        classes_: [K], sorted; UNLABELLED, a class by no means, is not among them.
        network_: rows to logits, [B, D] to [B, K].
    """

    random_state: Any
    device: str
    verbose: bool
    uses_unlabelled = False  # whether rows without a class teach it anything

    def fit(self, X: Any, y: Any) -> Self:
        """The estimator itself, fitted.

        Args:
            X: rows [N, D].
            y: their classes [N], numbers or words; -1 is a row without a class.

        Raises:
            UserError: if no row has a class, or an argument does not go with the rows.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        known = y != UNLABELLED if y.dtype.kind in "iuf" else np.ones(len(y), bool)
        if not known.any():
            raise UserError(f"y={UNLABELLED} throughout gives no row a class; label one row of every class at least")
        self.classes_, targets = np.unique(y[known], return_inverse=True)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        self.low_, self.high_ = min(0.0, float(X.min())), max(1.0, float(X.max()))
        if not self.uses_unlabelled:
            X, known = X[known], known[known]
        labelled = torch.from_numpy(np.flatnonzero(known)).to(self.device)
        self.network_ = self._trained(self._inputs(X), labelled, torch.from_numpy(targets).to(self.device))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of `classes_`, float32 [N, K]."""
        check_is_fitted(self)
        rows: Any = validate_data(self, X, dtype=np.float32, reset=False)
        x = self._inputs(rows)
        with torch.no_grad():
            return torch.cat([self.network_(some).softmax(1) for some in x.split(1000)]).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable of `classes_`, [N]."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def _inputs(self, X: np.ndarray) -> Tensor:
        """What the network sees of rows [N, D]."""
        x = torch.from_numpy(np.require(X, requirements=["C", "W"])).to(self.device)
        return x if (self.low_, self.high_) == (0, 1) else (x - self.low_) / (self.high_ - self.low_)

    def _trained(self, x: Tensor, labelled: Tensor, targets: Tensor) -> nn.Module:
        """The network, fitted to inputs [N, D] of which the rows `labelled` [N_l] have the classes `targets` [N_l]."""
        raise NotImplementedError

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(derived_seed(self.seed_, 0, purpose))

    def _minimise(
        self, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, updates: int, what: str = ""
    ) -> None:
        """Nothing, once there were so many updates by the gradient of `loss()`, called anew for each.

        The learning rate falls to 0 along a cosine.

        Raises:
            UserError: if it ends in a loss that is no number.
        """
        rates = [group["lr"] for group in optimizer.param_groups]
        value, title = None, f"{type(self).__name__} {what}".strip()
        for step in bar(title, "up", iterable=range(updates), disable=not self.verbose):
            share = (1 + math.cos(math.pi * step / updates)) / 2
            for group, first in zip(optimizer.param_groups, rates):
                group["lr"] = first * share
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
        if value is not None and not math.isfinite(value.item()):
            raise UserError(f"the loss of {type(self).__name__} came to {value.item()}; use a smaller learning rate")


def batches(num_rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers [B] without end: every pass over the rows has an order of its own, and may end in a smaller batch."""
    while True:
        yield from torch.randperm(num_rows, generator=generator, device=generator.device).split(size)


def built(network: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """A network on the generator's device, its Linears and convolutions drawn by Kaiming's rule and biases 0.

    It is made without memory first, since torch's layers draw their weights from the global state.
    """
    with torch.device("meta"):
        empty = network()
    made = empty.to_empty(device=generator.device)
    for module in made.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return made


def dropped(h: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """`h` with a share of its elements 0 and the others so much larger that the mean stays; `h` without a generator."""
    if generator is None or not share:
        return h
    kept = torch.empty_like(h).bernoulli_(1 - share, generator=generator)
    return h * kept / (1 - share)


def image_of(image: Image | None, num_pixels: int) -> Image:
    """(channels, height, width) of rows [D], the channels of a pixel side by side.

    Without `image` a row is a square grey image, or a single line of pixels where D is no square.

    Raises:
        UserError: if `image` has another number of pixels.
    """
    side = math.isqrt(num_pixels)
    if image is None:
        return (1, side, side) if side**2 == num_pixels else (1, 1, num_pixels)
    if math.prod(image) != num_pixels:
        raise UserError(
            f"image={tuple(image)} has {math.prod(image)} values and a row has {num_pixels}; "
            "use image=(channels, height, width) of the rows"
        )
    return image


def to_maps(x: Tensor, image: Image) -> Tensor:
    """Images [B, channels, height, width] from rows [B, D]."""
    channels, height, width = image
    return x.view(-1, height, width, channels).permute(0, 3, 1, 2)

"""A dense layer on the features of a network that was trained on other images."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.bars import bar
from ssl_dgm.baselines import features
from ssl_dgm.baselines.neural import Image, NeuralClassifier, batches, built, dropped, image_of
from ssl_dgm.config import UserError


class Inception(NeuralClassifier):
    """ "Inception" of Ojha, table 1: ImageNet's Inception v3, frozen, and a dense layer with a softmax on top.

    The recipe is that of the notebook by B. Keng that Ojha describes: 512 ReLU units, dropout, RMSprop, no more updates
    once the training loss has not fallen for `patience` epochs. Only the labelled rows teach it anything.

    Args:
        image: (channels, height, width) of a row; None: a square grey image.
        weights: 'imagenet', which is downloaded once; the path of a state_dict (.pth or .safetensors) of torchvision's
            inception_v3; or 'random', the same for all seeds.
        scaling: 'imagenet', what the network was trained on; or 'paper', see `features.scaled`.
        cache: folder of features that were computed before; None: ~/.cache/ssl_dgm/features.
        hidden: units of the dense layer.
        dropout: share of them that is 0 in an update.
        epochs: passes over the labelled rows, at most.
        patience: of epochs.
        batch_size: labelled rows per update.
        learning_rate: RMSprop's.
    """

    def __init__(
        self,
        image: Image | None = None,
        weights: str = "imagenet",
        scaling: str = "imagenet",
        cache: str | None = None,
        hidden: int = 512,
        dropout: float = 0.5,
        epochs: int = 1000,
        patience: int = 50,
        batch_size: int = 100,
        learning_rate: float = 1e-4,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.image = image
        self.weights = weights
        self.scaling = scaling
        self.cache = cache
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Inception's pooled features, [N, 2048], of rows [N, D] in [0, 1]; from the cache where they are there."""
        image = image_of(self.image, rows.shape[1])
        if self.image is None and image[1] != image[2]:
            raise UserError(
                f"rows of {rows.shape[1]} values are no square grey images; use image=(channels, height, width)"
            )
        return features.extracted(
            rows, image, self.weights, self.scaling, self.cache, self.device, verbose=self.verbose
        )

    def _inputs(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features(super()._inputs(X).cpu().numpy())).to(self.device)

    def _trained(self, x: Tensor, labelled: Tensor, targets: Tensor) -> nn.Module:
        sizes = (x.shape[1], self.hidden, len(self.classes_), self.dropout)
        head = built(lambda: _Head(*sizes), self._generator("weights"))
        order = batches(len(x), self.batch_size, self._generator("order"))
        noise = self._generator("dropout")
        # Keras' RMSprop. Paper: its rate also decays by 1e-6 of itself per update; here: not, at most 1 % in all.
        rmsprop = torch.optim.RMSprop(head.parameters(), self.learning_rate, alpha=0.9, eps=1e-7)
        least, since = float("inf"), 0
        for _ in bar("Inception's dense layer", "epoch", iterable=range(self.epochs), disable=not self.verbose):
            total = 0.0
            for _ in range(-(-len(x) // self.batch_size)):
                rows = next(order)
                loss = F.cross_entropy(head(x[rows], noise), targets[rows])
                rmsprop.zero_grad()
                loss.backward()
                rmsprop.step()
                total += loss.item() * len(rows)
            least, since = (total, 0) if total < least else (least, since + 1)
            if since >= self.patience:
                break
        return head


class _Head(nn.Module):
    def __init__(self, num_features: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.dense = nn.Linear(num_features, hidden)
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.output(dropped(F.relu(self.dense(x)), self.dropout, noise))

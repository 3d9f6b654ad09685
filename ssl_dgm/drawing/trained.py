"""A trained seed as its figures see it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_dgm import records
from ssl_dgm.config import Config, needs_labels
from ssl_dgm.data.inputs import Inputs
from ssl_dgm.data.slots import Slots
from ssl_dgm.data.source import Source
from ssl_dgm.evaluation import generated
from ssl_dgm.models.base import DeepGenerativeModel

MODELS = {"m1m2": "M1+M2", "gmdgm": "GM-DGM", "nn": "Network", "knn": "k-NN"}
DATA = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100", "norb": "NORB", "frey": "Frey faces", "lfw": "LFW"}  # fmt: skip


@dataclass
class Trained:
    """A seed of a run, its rows, and what makes pictures of them.

    Attributes:
        folder: of the run.
        model: of this seed alone, in evaluation mode; None of an estimator.
        train, test: what the model, or the estimator, observes of the rows.
        first: the M1 and its live units [D] under a stacked model or a classifier on features.
        attributes_slots: whether values of y are slots rather than classes.
    """

    config: Config
    source: Source
    slots: Slots
    folder: Path
    seed: int
    model: DeepGenerativeModel | None
    train: Inputs
    test: Inputs
    first: tuple[DeepGenerativeModel, Tensor] | None = None
    attributes_slots: bool = False

    @property
    def name(self) -> str:
        """'M1+M2 on MNIST, 100 labels'."""
        labels = f", {self.config.labels} labels" if needs_labels(self.config) else ""
        return f"{title(self.config)}{labels}"

    @property
    def origin(self) -> str:
        """The last sentence of a caption: which run and seed it is of."""
        return f"Run {self.folder.name}, seed {self.seed}{self._length}."

    @property
    def origin_of_all(self) -> str:
        """As `origin`, of what is drawn of all seeds."""
        return f"Run {self.folder.name}{self._length}."

    @property
    def as_seen(self) -> str:
        """A sentence of a caption that shows images of the data; '' where they are shown as they are."""
        if self.source.whitening is not None:
            return " Images are shown as their whitened principal components give them back."
        return "" if self.source.kept is None else " Pixels that were dropped from all images are black."

    @property
    def _length(self) -> str:
        return f", budget={self.config.budget.name}, {self.config.budget.epochs} epochs" if self.model else ""

    def per_seed(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function` with this seed's parameters in place."""
        assert self.model is not None
        with torch.no_grad():
            return self.model.per_seed(function, *(_in_front(arg) for arg in args))

    def images(self, observed: Tensor) -> np.ndarray:
        """Images [..., H, W] or [..., H, W, 3] in [0, 1] of what the model observes or generates [..., D]."""
        pixels = generated.through_first(self.first, observed)
        return self._shown(pixels.cpu().numpy())

    def originals(self, rows: Tensor) -> np.ndarray:
        """Images of test rows [R], as the model sees them (see `as_seen`)."""
        values = self.source.values(self.source.test_x[rows.cpu().numpy()])
        return self._shown(values)

    def _shown(self, values: np.ndarray) -> np.ndarray:
        images = self.source.to_images(values).clip(0, 1)
        return images[..., 0] if len(self.source.shape) == 3 and self.source.shape[2] == 1 else images

    def one_of_each(self, number: int) -> Tensor:
        """So many test rows: the first of every class in turn, then the second, ...; the first ones without classes."""
        y = self.source.test_y
        if not self.source.num_classes:
            return torch.arange(min(number, len(y)))
        place = np.zeros(len(y), int)
        for c in np.unique(y):
            place[y == c] = np.arange((y == c).sum())
        return torch.from_numpy(np.lexsort((y, place))[:number].copy())


def title(config: Config) -> str:
    """'M1+M2 on MNIST'."""
    model = records.model_name(config)
    data = config.data.title or DATA.get(config.data.name, config.data.name.replace("_", " "))
    return f"{MODELS.get(model, model.upper())} on {data}"


def _in_front(arg: Any) -> Any:
    return arg[None] if isinstance(arg, Tensor) else arg

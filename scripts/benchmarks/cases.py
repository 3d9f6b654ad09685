"""What is trained: a model of the zoo with the settings of budget=paper, on rows that it can learn from or on bytes."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_dgm import models
from ssl_dgm.compose import choices, compose
from ssl_dgm.config import Config, DataConfig, ObjectiveConfig, UserError
from ssl_dgm.data import idx, sources
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.data.inputs import Inputs, Pixels, Posteriors
from ssl_dgm.data.splits import Split
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import BernoulliFactor
from ssl_dgm.training.fit import find_device

LABELS, LABELLED, UNLABELLED = 100, 10, 100  # labelled rows; labelled and unlabelled rows of an update
PIXELS, FEATURES = 784, 50
HAS_THRESHOLD = "class_threshold" in {field.name for field in dataclasses.fields(ObjectiveConfig)}


@dataclass(frozen=True)
class Case:
    """One training; picklable, since it is carried out in another process."""

    model: str
    device: str
    threads: int
    precision: str = "32"
    seeds: int = 1
    classes: int = 10
    rows: int = 10_000
    content: str = "images"  # images: of classes that can be learnt; bytes: random, as many rows and classes as asked
    class_threshold: float = 0.0
    compile: str = "never"
    warm: int = 0  # updates that fit q(y | x) to the labels of all rows first

    @property
    def epoch(self) -> int:
        """Updates of an epoch."""
        return (self.rows - LABELS) // UNLABELLED


def model_names() -> list[str]:
    """Every name of conf/model that is a deep generative model."""
    folder = Path(models.__file__).parent
    return [name for name in choices()["model"] if (folder / f"{name}.py").is_file()]


def settings(case: Case) -> Config:
    """The run that it is: budget=paper, cut into updates of 10 labelled and 100 unlabelled rows, never validated."""
    words = [
        f"model={case.model}", "data=mnist", "budget=paper", f"budget.precision={case.precision}",
        f"budget.updates_per_epoch={case.epoch}", f"budget.labelled_per_step={LABELLED}",
        f"seeds={list(range(case.seeds))}", f"device={case.device}", "trainer.progress=false",
        f"trainer.compile={case.compile}",
        f"trainer.validate_every={10**9}",
    ]  # fmt: skip
    words += [f"objective.class_threshold={case.class_threshold}"] if case.class_threshold else []
    # Steps so small that q(y | x) stays as sure as it was made: unlearnt generative networks would undo it.
    words += ["optimizer.lr=1e-9"] if case.warm else []
    return compose(words)


def build(case: Case, config: Config) -> tuple[DeepGenerativeModel, SeededDataModule]:
    """The model, untrained, and its batches."""
    device = find_device(case.device)
    inputs, targets = rows(case)
    sizes = {"x_dim": inputs.x_dim, "num_classes": case.classes, "seeds": config.seeds}
    model = models.create(config, **sizes, num_labelled=0, num_unlabelled=case.rows)
    splits = None
    if model.has_classes:
        split = _split(targets.numpy(), case.classes)
        splits = [split] * case.seeds
        model = models.create(config, **sizes, num_labelled=LABELS, num_unlabelled=len(split.unlabelled))
    data = SeededDataModule(inputs, targets, case.classes, splits, case.rows, config.seeds, config.budget, device)
    return model, data


def rows(case: Case) -> tuple[Inputs, Tensor]:
    """What the model observes of every row, and the rows' classes [N]."""
    if case.content == "images":
        images, y = _images(case.rows)
    else:
        generator = np.random.default_rng(0)
        images = np.frombuffer(generator.bytes(case.rows * PIXELS), np.uint8).reshape(-1, PIXELS).copy()
        y = np.arange(case.rows) % case.classes
    if observes_bits(case.model):
        return Pixels(torch.from_numpy(images)), torch.from_numpy(y)
    means = torch.from_numpy(_principal_components(images))
    return Posteriors(means, torch.full_like(means, -2.0)), torch.from_numpy(y)


@cache
def observes_bits(model: str) -> bool:
    """Whether a model observes pixels, or else the Gaussian latents of another."""
    config = compose([f"model={model}", "data=mnist", "budget=paper"])
    small = models.create(config, x_dim=1, num_classes=2, seeds=[0], num_labelled=0, num_unlabelled=1)
    f = small.factorisation
    return isinstance(f.p[f.observed], BernoulliFactor)


def content() -> str:
    """Which images there are."""
    return "MNIST" if _mnist_is_there() else "scikit-learn's digits, enlarged and repeated"


def _mnist_is_there() -> bool:
    try:
        # With the folder named, nothing is downloaded.
        sources.check_available(DataConfig("mnist", folder=str(idx.locate("mnist").parent.parent)))
    except UserError:
        return False
    return True


def _images(count: int) -> tuple[np.ndarray, np.ndarray]:
    if _mnist_is_there():
        source = sources.load("mnist")
        assert isinstance(source.train_x, np.ndarray)
        return np.resize(source.train_x, (count, PIXELS)), np.resize(source.train_y, count)
    source = sources.load("digits")
    assert isinstance(source.train_x, np.ndarray)
    large = np.kron(source.to_images(source.train_x), np.ones((1, 3, 3), np.uint8))
    large = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, PIXELS)
    return np.resize(large, (count, PIXELS)), np.resize(source.train_y, count)


def _principal_components(images: np.ndarray) -> np.ndarray:
    """Float32 [N, 50] of unit variance: what an M1 makes of images, near enough."""
    x = images.astype(np.float32) / 255
    x -= x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return (x @ vectors[:, -FEATURES:] / np.sqrt(values[-FEATURES:])).astype(np.float32)


def _split(y: np.ndarray, classes: int) -> Split:
    each = LABELS // classes
    labelled = np.concatenate([np.flatnonzero(y == c)[:each] for c in range(classes)])
    unlabelled = np.setdiff1d(np.arange(len(y)), labelled)
    return Split(labelled, unlabelled, "benchmark", "", classes, (each,) * classes, 0)

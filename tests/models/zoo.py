"""Every model that the package defines, small, with batches and noise for it."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_dgm import models
from ssl_dgm.config import BudgetConfig, ModelConfig, NetworkConfig, Stage
from ssl_dgm.data.datamodule import Batch
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import BernoulliFactor, Factorisation
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.probability.replicas import one_seed

D, K, SEEDS = 6, 3, (4, 0, 7)
NUM_TRAIN, NUM_LABELLED = 36, 6


def found() -> Iterator[str]:
    """Names of the modules that define a model."""
    for info in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"{models.__name__}.{info.name}")
        of_module = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        if any(issubclass(c, DeepGenerativeModel) and c is not DeepGenerativeModel for c in of_module):
            yield info.name


NAMES = sorted(found())
every_model = pytest.mark.parametrize("name", NAMES)
every_mode = pytest.mark.parametrize("mode", ["loop", "vmap"])


def make(
    name: str,
    seeds: tuple[int, ...] = SEEDS,
    mode: str = "loop",
    x_dim: int = D,
    num_labelled: int = NUM_LABELLED,
    prior: tuple[float, ...] | None = None,
    model_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> DeepGenerativeModel:
    """A small model; settings are those of the stage."""
    settings = {"network": NetworkConfig(hidden=[8]), "budget": BudgetConfig(epochs=4, updates_per_epoch=5)} | settings
    stage = Stage(model=ModelConfig(name, z_dim=2, a_dim=3, h_dim=4, **(model_settings or {})), **settings)
    sizes = {"x_dim": x_dim, "num_classes": K, "seeds": seeds, "replicas_mode": mode, "prior": prior}
    if name == "cvae":
        sizes["condition"] = torch.arange(x_dim) % 3 == 0
    model = models.create(stage, **sizes, num_labelled=0, num_unlabelled=NUM_TRAIN)
    if model.has_classes:
        sizes |= {"num_labelled": num_labelled, "num_unlabelled": NUM_TRAIN - num_labelled}
        model = models.create(stage, **sizes)
    return model


def observes_bits(model: DeepGenerativeModel) -> bool:
    f = model.factorisation
    return isinstance(f.p[f.observed], BernoulliFactor)


def is_relaxed(name: str) -> bool:
    return make(name).factorisation.relaxed


SUMMED = [name for name in NAMES if not is_relaxed(name)]  # y, if there is one, is summed out
every_summed_model = pytest.mark.parametrize("name", SUMMED)


def make_batch(model: DeepGenerativeModel, num_labelled: int = 4, num_unlabelled: int = 5) -> Batch:
    """Other rows for every seed."""
    streams = Streams(model.seeds, "test batch")

    def x(rows: int) -> Tensor:
        values = streams.normal((rows, model.x_dim))
        return (values > 0).float() if observes_bits(model) else values

    y = torch.eye(K)[streams.bytes_below(K, (num_labelled,)).long()]
    return Batch(x(num_labelled), y, x(num_unlabelled))


def make_noise(model: DeepGenerativeModel, batch: Batch, draws: int = 1) -> dict[str, dict[str, Tensor]]:
    objective = dataclasses.replace(model.objective, settings=dataclasses.replace(model.stage.objective, draws=draws))
    shapes = objective.noise_shapes(model.factorisation, batch.x_labelled.shape[1], batch.x_unlabelled.shape[1])
    return model.noise(Streams(model.seeds, "test noise"), **shapes)


def roughen(model: DeepGenerativeModel) -> None:
    """Weights so large that classes, draws and rows all matter."""
    for i, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(i)
        parameter.data = 0.6 * torch.randn(parameter.shape, generator=generator)


def losses_of(model: DeepGenerativeModel, batch: Batch, noise: Any, passed: float = 1.0) -> dict[str, Tensor]:
    return model.per_seed(model.losses, batch, noise, torch.full((len(model.seeds),), passed))


def replica(model: DeepGenerativeModel, s: int) -> Factorisation:
    """The factorisation of one seed as a plain module."""
    f = model.build()
    f.load_state_dict(one_seed(model.factorisation.state_dict(), s))
    return f

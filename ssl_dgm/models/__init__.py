"""One file per model, each reading like its equations; `create` finds a model by its name on the command line."""

import importlib
import pkgutil
from typing import Any

from ssl_dgm.config import Stage
from ssl_dgm.models.base import DeepGenerativeModel


def names() -> list[str]:
    """Every model's name, in the order of the alphabet: that of the module that defines it."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if _kinds(info.name))


def create(stage: Stage, **sizes: Any) -> DeepGenerativeModel:
    """The model `stage.model.name`: the one subclass that the module of that name defines."""
    (kind,) = _kinds(stage.model.name)
    return kind(stage, **sizes)


def _kinds(name: str) -> list[type[DeepGenerativeModel]]:
    module = importlib.import_module(f"{__name__}.{name}")
    return [
        c for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, DeepGenerativeModel) and c.__module__ == module.__name__
        and c is not DeepGenerativeModel
    ]  # fmt: skip

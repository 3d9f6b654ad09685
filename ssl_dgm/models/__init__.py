"""One file per model, each reading like its equations; `create` finds a model by its name on the command line."""

import importlib
from typing import Any

from ssl_dgm.config import Stage
from ssl_dgm.models.base import DeepGenerativeModel


def create(stage: Stage, **sizes: Any) -> DeepGenerativeModel:
    """The model `stage.model.name`: the one subclass that the module of that name defines."""
    module = importlib.import_module(f"ssl_dgm.models.{stage.model.name}")
    (kind,) = (
        c for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, DeepGenerativeModel) and c is not DeepGenerativeModel
    )  # fmt: skip
    return kind(stage, **sizes)

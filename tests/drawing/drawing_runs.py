"""Small runs of which figures are drawn."""

from pathlib import Path

from conftest import SMOKE

import ssl_dgm
from ssl_dgm.api import Fitted

TINY = (*SMOKE, "network.hidden=[16,16]", "budget.updates_per_epoch=3", "prediction_draws=3", "trainer.figures=none")


def fit(folder: Path, *words: str) -> Fitted:
    """A run in `folder` that has drawn nothing."""
    return ssl_dgm.fit(*TINY, *words, f"runs={folder}", verbose=False)

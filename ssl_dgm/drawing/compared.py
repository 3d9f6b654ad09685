"""Several runs in one figure."""

import string
from collections.abc import Callable, Sequence

import numpy as np

from ssl_dgm.config import UserError
from ssl_dgm.drawing import curves, grids, units
from ssl_dgm.drawing.style import PAGE, Drawn, new, plain
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import generated

Runs = Sequence[tuple[str, Trained]]  # what each is called, and a seed of it
ACROSS = 4  # panels beside each other


def draws(runs: Runs) -> Drawn:
    """Draws from the prior of several models, a panel each (AEVB, fig. 5)."""
    rows = -(-len(runs) // ACROSS)
    columns = min(ACROSS, len(runs))
    images = [_drawn(t) for _, t in runs]
    each = PAGE / columns
    figure, axes = new(PAGE, rows * (each * images[0].shape[2] / images[0].shape[3] + 0.25), rows, columns)
    for letter, panel, (label, _), shown in zip(string.ascii_lowercase, axes.flat, runs, images):
        grids.grid(panel, shown)
        panel.set_xlabel(plain(f"({letter}) {label}"))
    for panel in axes.flat[len(runs) :]:
        panel.axis("off")
    about = "Mean images of draws from the prior."
    return Drawn(figure, f"{about} {_origins(runs)}")


def _drawn(t: Trained) -> np.ndarray:
    if t.model is None or not t.source.is_image or t.model.factorisation.conditions:
        raise UserError(f"{t.folder.name} draws no images from its prior; leave it out")
    return t.images(generated.samples(t.model))


def _origins(runs: Runs) -> str:
    return " ".join(f"{label}: {t.origin}" for label, t in runs)


def learning(runs: Runs) -> Drawn:
    """Learning curves over each other, of all seeds of every run."""
    return curves.compared(list({label: (label, t.folder) for label, t in runs}.values()))


COMPARED: dict[str, Callable[[Runs], Drawn]] = {"draws": draws, "learning": learning, "depth": units.compared}

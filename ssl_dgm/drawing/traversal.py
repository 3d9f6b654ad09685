"""Latents on a flight through the prior, as an animation."""

from math import ceil

import numpy as np
import torch

from ssl_dgm.drawing import grids
from ssl_dgm.drawing.pictures import slots
from ssl_dgm.drawing.style import Film
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.probability import bounds
from ssl_dgm.probability.generation import generate
from ssl_dgm.probability.randomness import Streams

FRAMES = 48
STYLES = 4  # flights that all classes share
CLASSES = 20  # shown at most, beside each other
PATHS = (4, 8)  # rows and columns of flights, of a model without classes
SIDE, WIDTH = 56, 600  # pixels of the screen: an image is made as large as this, the whole no wider than that


def traversal(t: Trained) -> Film | None:
    """Images while the latents fly a closed circle through the prior, the same flights in every class (a GIF)."""
    if t.model is None or not t.source.is_image or t.model.factorisation.conditions:
        return None
    images = flight(t)
    rows, columns = images.shape[1:3]
    frames = np.rint(255 * np.stack([grids.joined(frame) for frame in images])).astype(np.uint8)
    about = (
        "Mean images while the noise of all latents flies along a great circle, cos(t) a + sin(t) b with a and b drawn "
        "from N(0, I): a closed path, of which every point is a draw from the prior. "
    )
    if t.model.has_classes:
        names, k = slots(t), t.model.num_classes
        every = "every" if columns == k else f"each of the first {columns} of {k}"
        what = "slot of y" if t.attributes_slots else "class y"
        about += f"A row for each of {rows} flights and a column for {every} {what}: {', '.join(names[:columns])}."
    else:
        about += f"{rows * columns} flights."
    scale = min(ceil(SIDE / images.shape[3]), WIDTH // frames.shape[2])
    return Film(frames, f"{about} {t.origin}", max(1, scale))


@torch.no_grad()
def flight(t: Trained) -> np.ndarray:
    """Images [FRAMES, R, C, H, W] or [FRAMES, R, C, H, W, 3] in [0, 1]: rows are flights and columns classes, or more
    flights of a model without classes."""
    model = t.model
    assert model is not None
    y, (rows, columns) = None, PATHS
    if model.has_classes:
        y = bounds.classes(model.factorisation, next(model.parameters()))[:CLASSES]
        rows, columns = STYLES, len(y)
    shapes = model.factorisation.noise_shapes(rows if model.has_classes else rows * columns)
    ends = (Streams(model.seeds, f"traversal {end}", model.device) for end in "ab")
    a, b = (model.noise(streams, x=shapes)["x"] for streams in ends)
    frames = []
    for angle in 2 * np.pi * np.arange(FRAMES) / FRAMES:
        noise = {name: np.cos(angle) * a[name] + np.sin(angle) * b[name] for name in a}
        means = model.per_seed(lambda one: generate(model.factorisation, y, one), noise)[0, 0]  # [K or 1, rows, D]
        frames.append(t.images(means.transpose(0, 1) if model.has_classes else means.view(rows, columns, -1)))
    return np.stack(frames)

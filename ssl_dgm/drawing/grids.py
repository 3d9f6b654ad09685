"""Images in rows and columns on one axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_dgm.drawing.style import plain, wrapped

GAP = 0.5  # grey between images
WIDE = 5  # characters; longer headings of columns would run into each other


def grid(
    axes: Any, images: np.ndarray, columns: Sequence[str] = (), rows: Sequence[str] = (), gap: int = 1, title: str = ""
) -> None:
    """Draws images [R, C, H, W], or [R, C, H, W, 3], in [0, 1].

    Args:
        columns, rows: headings above and to the left.
        gap: grey pixels between images; 0 for images that continue each other.
    """
    canvas = joined(images, gap)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=1)
    height, width = images.shape[2] + gap, images.shape[3] + gap
    tilted = {"rotation": 45, "ha": "left"} if max(map(len, columns), default=0) > WIDE else {}
    places = [gap + c * width + (width - gap) / 2 - 0.5 for c in range(len(columns))]
    axes.set_xticks(places, [plain(text) for text in columns], **tilted)
    axes.xaxis.tick_top()
    places = [gap + r * height + (height - gap) / 2 - 0.5 for r in range(len(rows))]
    axes.set_yticks(places, [plain(text) for text in rows])
    if title:
        axes.set_title(wrapped(title, axes.figure.get_figwidth()))


def joined(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """One image of images [R, C, H, W, ...], with a grey frame of `gap` pixels around each."""
    padded = np.pad(images, [(0, 0), (0, 0), (gap, 0), (gap, 0), *[(0, 0)] * (images.ndim - 4)], constant_values=GAP)
    r, c, h, w = padded.shape[:4]
    canvas = padded.swapaxes(1, 2).reshape(r * h, c * w, *images.shape[4:])
    return np.pad(canvas, [(0, gap), (0, gap), *[(0, 0)] * (canvas.ndim - 2)], constant_values=GAP)


def size(images: np.ndarray, width: float, extra_height: float, extra_width: float = 0.0) -> tuple[float, float]:
    """Inches of a figure of images [R, C, H, W, ...]: its width, and what keeps pixels square.

    Args:
        extra_height, extra_width: inches that headings take.
    """
    r, c, h, w = images.shape[:4]
    return width, (width - extra_width) * r * h / (c * w) + extra_height

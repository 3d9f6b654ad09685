"""How figures look, and how they are kept: PNG and PDF, or GIF, and the caption beside them as text."""

import io
import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ssl_dgm.files import write_atomic

COLUMN, PAGE = 3.3, 6.8  # inches: a column of two, and both
BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442",
)  # fmt: skip
GREY = "0.6"
CHARACTERS = 16  # of a title, that an inch has room for
PAUSE = 80  # milliseconds between the frames of an animation
LARGEST = 2_000_000  # bytes of one, beyond which its frames are enlarged less
SHEET = Path(__file__).with_name("paper.mplstyle")
NO_DATES: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


@dataclass
class Drawn:
    """A figure, what one has to know to read it, and, where that is worth having, what is drawn as CSV."""

    figure: Figure
    caption: str
    numbers: str = ""


@dataclass
class Film:
    """An animation that begins again at its end, and what one has to know to see it.

    Attributes:
        frames: uint8 [T, H, W] or [T, H, W, 3].
        scale: pixels of the screen, along a side, that one of theirs takes; fewer where the file would be too large.
    """

    frames: np.ndarray
    caption: str
    scale: int = 1


def sheet() -> AbstractContextManager[Any]:
    """Everything that is drawn inside looks as the style sheet says, whatever the user's own settings are."""
    rc = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
    # Not "backend": to ask for it makes matplotlib choose one.
    looks: Any = {k: v for k, v in {**matplotlib.rcParamsDefault, **rc}.items() if k != "backend"}
    return matplotlib.rc_context(looks)


def new(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """An empty figure of so many inches with its axes [rows, columns]; no window ever opens for it.

    Args:
        options: of `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def plain(text: str) -> str:
    """Text of others as it is: between two dollars it would be taken for a formula."""
    return text.replace("$", r"\$")


def wrapped(title: str, width: float) -> str:
    """A title of others in lines that a figure of so many inches has room for."""
    return plain(textwrap.fill(title, max(16, int(width * CHARACTERS))))


def save(drawn: Drawn | Film, folder: Path, name: str) -> Path:
    """Writes <name>.png and <name>.pdf, or <name>.gif, <name>.txt and, of a figure with numbers, <name>.csv.

    The same bytes for the same figure.

    Returns:
        the path of the first.

    Raises:
        UserError: when the folder cannot be written to.
    """
    if isinstance(drawn, Film):
        contents = {"gif": _gif(drawn)}
    else:
        contents = {suffix: _printed(drawn.figure, suffix) for suffix in NO_DATES}
        contents |= {"csv": drawn.numbers.encode()} if drawn.numbers else {}
    for suffix, content in contents.items():
        write_atomic(folder / f"{name}.{suffix}", content)
    paragraphs = (textwrap.fill(part, 100, break_on_hyphens=False) for part in drawn.caption.strip().split("\n"))
    write_atomic(folder / f"{name}.txt", "\n".join(paragraphs) + "\n")
    return folder / f"{name}.{next(iter(contents))}"


def _printed(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, metadata=NO_DATES[suffix])
    return buffer.getvalue()


def _gif(film: Film) -> bytes:
    # One palette for all frames: colours of their own would flicker.
    palette = Image.fromarray(np.concatenate(film.frames)).convert("RGB").quantize()
    frames = [
        Image.fromarray(frame).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in film.frames
    ]
    content = b""
    for scale in range(film.scale, 0, -1):
        first, *others = (frame.resize((scale * frame.width, scale * frame.height)) for frame in frames)
        buffer = io.BytesIO()
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=PAUSE, loop=0)
        content = buffer.getvalue()
        if len(content) <= LARGEST:
            break
    return content

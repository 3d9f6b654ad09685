"""How figures look, and how they are kept: PNG and PDF, and the caption beside them as text."""

import io
import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ssl_dgm.files import write_atomic

COLUMN, PAGE = 3.3, 6.8  # inches: a column of two, and both
BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442",
)  # fmt: skip
GREY = "0.6"
SHEET = Path(__file__).with_name("paper.mplstyle")
NO_DATES: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


@dataclass
class Drawn:
    """A figure and what one has to know to read it."""

    figure: Figure
    caption: str


def sheet() -> AbstractContextManager[Any]:
    """Everything that is drawn inside looks as the style sheet says, whatever the user's own settings are."""
    rc = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **rc, "backend": matplotlib.rcParams["backend"]})


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


def save(drawn: Drawn, folder: Path, name: str) -> Path:
    """Writes <name>.png, <name>.pdf and <name>.txt, the same bytes for the same figure; returns the first.

    Raises:
        UserError: when the folder cannot be written to.
    """
    for suffix, facts in NO_DATES.items():
        buffer = io.BytesIO()
        drawn.figure.savefig(buffer, format=suffix, metadata=facts)
        write_atomic(folder / f"{name}.{suffix}", buffer.getvalue())
    paragraphs = (textwrap.fill(part, 100) for part in drawn.caption.strip().split("\n"))
    write_atomic(folder / f"{name}.txt", "\n".join(paragraphs) + "\n")
    return folder / f"{name}.png"

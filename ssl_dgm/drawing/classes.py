"""Confusion matrices: what the test rows of every class are taken for."""

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ssl_dgm.drawing.style import BLUE, GREY, PAGE, RED, Drawn, new, plain, wrapped
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import clusters

LEGIBLE = 400  # cells, beyond which numbers would run into each other


def confusion(t: Trained) -> Drawn | None:
    """Test rows of every class by predicted class, or slot of y (Willetts et al., fig. 2)."""
    path = t.folder / f"seed-{t.seed}" / "confusion.csv"
    if not path.is_file():
        return None
    counts, attributed = read(path, t.source.class_names)
    if attributed is None:
        figure = matrix(counts, None, (), t.name, t.source.class_names)
        about = "Test rows of every true class by the class that they are taken for, as shares of the true class."
    else:
        figure = matrix(counts, attributed, t.slots.labelled, t.name, t.source.class_names)
        about = (
            "Test rows of every true class by the slot of y that they are in, as shares of the class. Slots are in the "
            "order of the classes that the validation rows attribute them to, which stand under their numbers."
        )
        if t.slots.labelled:
            about += " Classes in blue had labelled rows, those in red had none."
    right = clusters.right(counts, np.arange(len(counts)) if attributed is None else attributed).sum()
    return Drawn(figure, f"{about} {100 * right / counts.sum():.2f} % of {counts.sum():,} rows are right. {t.origin}")


def read(path: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """The counts [C, K] of a run's confusion.csv, and the class of every slot [K], -1 for none, where y has slots."""
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
    counts = np.array([row[1:] for row in rows[: len(names)]], int)
    if len(rows) == len(names):
        return counts, None
    # A run of before its data set's classes had names has their numbers.
    classes = {str(c): c for c in range(len(names))} | {name: c for c, name in enumerate(names)}
    return counts, np.array([classes.get(cell, -1) for cell in rows[-1][1:]])


def matrix(
    counts: np.ndarray,
    attributed: np.ndarray | None,
    labelled: Collection[int],
    title: str,
    names: Sequence[str],
) -> Figure:
    """Rows of every true class as shares of it, slots ordered by the class they are attributed to.

    Args:
        counts: [C, K].
        attributed: class of every slot [K], -1 for none; None where the columns are the classes themselves.
        labelled: classes that had labelled rows, where some had none.
        names: of the classes [C].
    """
    names = [plain(name) for name in names]
    num_classes, num_slots = counts.shape
    of = np.arange(num_slots) if attributed is None else attributed
    # Slots of no class come last.
    order = np.argsort(np.where(of < 0, num_classes, of), kind="stable")
    shares = (counts / counts.sum(1, keepdims=True).clip(1))[:, order]
    longest = max(map(len, names))
    width = min(PAGE, 0.27 * num_slots + 0.07 * longest + (1.1 if labelled else 0.7))
    # Long names stand aslant under the columns, or upright where their slots' numbers are before them.
    under_columns = 0.0 if longest <= 3 else 0.04 * longest if attributed is None else 0.06 * longest
    figure, ((axes,),) = new(width, max(1.5, 0.22 * num_classes + 0.8) + under_columns)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    if counts.size <= LEGIBLE:
        for (c, k), share in np.ndenumerate(shares):
            text = "1" if share > 0.995 else f"{share:.2f}"[1:]
            if share >= 0.005:
                axes.text(k, c, text, ha="center", va="center", fontsize=6, color="white" if share > 0.6 else "black")
    every = range(num_slots)
    if attributed is None:
        long = max(map(len, names)) > 3
        axes.set_xticks(every, names, **({"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}))
        axes.set_xlabel("predicted class")
    else:
        axes.vlines(np.flatnonzero(np.diff(of[order])) + 0.5, -0.5, num_classes - 0.5, color=GREY, linewidth=0.8)
        under = [names[c] if c >= 0 else "–" for c in of[order]]
        if max(map(len, under)) > 3:
            axes.set_xticks(every, [f"{k} {u}" for k, u in zip(order, under)], rotation=90)
        else:
            axes.set_xticks(every, [f"{k}\n{u}" for k, u in zip(order, under)])
        axes.set_xlabel("slot of y, and the class that it is attributed to")
    marks = [
        f"{name}  {'labelled' if c in labelled else 'hidden'}" if labelled else name for c, name in enumerate(names)
    ]
    axes.set_yticks(range(num_classes), marks)
    for c, label in enumerate(axes.get_yticklabels()):
        label.set_color(BLUE if c in labelled else RED if labelled else "black")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_title(wrapped(title, width - 0.07 * longest))  # it is above the columns alone
    return figure

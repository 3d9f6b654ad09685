"""Learning curves, of one run or of several over each other, and how y is used in the course of a training."""

import contextlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ssl_dgm import records
from ssl_dgm.config import UserError
from ssl_dgm.data.slots import LEAST_SHARE
from ssl_dgm.drawing import epochs
from ssl_dgm.drawing.epochs import FEW, Curve
from ssl_dgm.drawing.style import BLACK, BLUE, COLUMN, GREEN, GREY, ORANGE, PINK, RED, SKY, YELLOW, Drawn, new, plain
from ssl_dgm.drawing.trained import Trained

# What panels show, and which columns that is, of which a run's first one is taken.
PANELS = (
    {"validation/error": "validation error (%)"},
    {
        "validation/bound": "bound of validation\nrows (nats)",
        "train/bound_unlabelled": "bound of unlabelled\nrows (nats)",
        "train/bound": "bound of training\nrows (nats)",
    },
    {"train/classification": "log q(y | x) of\nlabelled rows (nats)"},
)
COLORS = (BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK, YELLOW)
PANEL, LINE, AROUND = 1.3, 0.15, 0.5  # inches of height: a panel, a line of the legend, and the rest
WIDE = 46  # characters of a line of the legend


def curves(t: Trained) -> Drawn | None:
    """Validation error, bound and classification term over the epochs: mean over the seeds, and their spread."""
    found = epochs.read(t.folder)
    if not _columns(found):
        return None
    seeds = _seeds(found)
    legend = [(Line2D([], [], color=BLUE), f"mean of {seeds} seeds")]
    legend += [
        (Patch(color=BLUE, alpha=0.25, linewidth=0), "95 % interval") if seeds > FEW
        else (Line2D([], [], color=BLUE, linewidth=0.5, alpha=0.6), "each seed")
    ]  # fmt: skip
    drawn = _over_each_other([found], legend if seeds > 1 else [])
    drawn.figure.axes[0].set_title(plain(t.name))
    return Drawn(drawn.figure, " ".join(filter(None, ["Learning curves.", drawn.caption, t.origin_of_all])))


def compared(runs: Sequence[tuple[str, Path]]) -> Drawn:
    """The learning curves of several runs over each other, a colour for each.

    Bounds are left out where they are of different rows: of pixels and of an M1's latents, say.

    Args:
        runs: what the legend says of every run, and its folder.

    Raises:
        UserError: for a run that has no curves, and for more runs than colours.
    """
    if len(runs) > len(COLORS):
        raise UserError(f"{len(runs)} runs are more than {len(COLORS)} colours can tell apart; draw fewer in a figure")
    found = [epochs.read(folder) for _, folder in runs]
    for (_, folder), curves in zip(runs, found):
        if not _columns(curves):
            raise UserError(f"{folder} has no curves; leave it out")
    alike = len({_rows(folder) for _, folder in runs}) == 1
    if not alike:
        found = [{name: curve for name, curve in of.items() if "bound" not in name} for of in found]
        if lacking := [folder for (_, folder), curves in zip(runs, found) if not _columns(curves)]:
            raise UserError(f"{lacking[0]} has only bounds, and they are of other rows than those beside; leave it out")
    legend = [
        (Line2D([], [], color=color), plain(textwrap.fill(label, WIDE))) for (label, _), color in zip(runs, COLORS)
    ]
    drawn = _over_each_other(found, legend, columns=1)
    every = "; ".join(f"{folder.name} ({label}), n = {_seeds(curves)}" for (label, folder), curves in zip(runs, found))
    apart = "" if alike else "Their bounds are of different rows, and are left out."
    many = len(runs) > 1
    said = [
        f"Learning curves of {len(runs)} runs." if many else "",
        drawn.caption,
        apart,
        f"{'Runs' if many else 'Run'} and seeds: {every}.",
    ]
    return Drawn(drawn.figure, " ".join(filter(None, said)), _numbers([label for label, _ in runs], found))


def _numbers(labels: Sequence[str], runs: Sequence[Mapping[str, Curve]]) -> str:
    """What panels show of several runs, as CSV: a line for every run, seed and epoch, to six digits."""
    tables = []
    for label, found in zip(labels, runs):
        curves = {name: found[name] for name in _columns(found)}
        first = next(iter(curves.values()))
        seeds, at = (of.ravel() for of in np.meshgrid(first.seeds, first.epochs, indexing="ij"))
        values = {name: curve.values.T.ravel() for name, curve in curves.items()}
        table = pd.DataFrame({"run": label, "seed": seeds, "epoch": at} | values)
        tables.append(table.dropna(subset=list(values), how="all"))
    return pd.concat(tables).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _rows(folder: Path) -> str:
    """What the rows are whose bound a run maximises; '' where its settings cannot be read."""
    with contextlib.suppress(UserError):
        config = records.settings(folder)
        m = config.model
        return repr(
            (config.data, m.likelihood, m.mse_scale, config.condition, config.m1 and (config.m1, config.m1_seed, m))
        )
    return ""


def slots(t: Trained) -> Drawn | None:
    """Collapse of y over the epochs: values in use, entropies of q(y | x) and of the shares of the values."""
    found = epochs.read(t.folder)
    names = [f"validation/{name}" for name in ("slots_used", "entropy_slots", "entropy_y")]
    if t.model is None or not set(names) <= found.keys():
        return None
    used, of_slots, of_y = (found[name] for name in names)
    number = t.model.num_classes
    legend = [
        (Line2D([], [], color=RED), "most probable y of the rows"),
        (Line2D([], [], color=BLUE), "q(y | x), mean over the rows"),
        (Line2D([], [], color=GREY, linestyle="--"), f"K = {number} and log K = {math.log(number):.2f}"),
    ]
    figure, (above, below) = _stacked(2, legend, 1, [used])
    for panel, most, label in (
        (above, number, "values of y in use"),
        (below, math.log(number), "entropy (nats)"),
    ):
        panel.axhline(most, color=GREY, linestyle="--", linewidth=1)
        panel.set_ylim(0, 1.08 * most or 1)
        panel.set_ylabel(label)
    above.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    for panel, curve, color in ((above, used, RED), (below, of_slots, RED), (below, of_y, BLUE)):
        epochs.show(panel, curve, color, every=True)
    above.set_title(plain(t.name))
    about = (
        "How y is used on the validation rows. Above, values of y that are the most probable one of "
        f"{100 * LEAST_SHARE:g} % of the rows or more; below, the entropy of the shares of rows they take, and the "
        "mean entropy of q(y | x). Where y collapses, values fall out of use, and the entropy of the shares falls with "
        "them, to 0 when one value takes all rows. Where y is ignored, the entropy of q(y | x) stays near log K; it "
        f"falls as rows become sure of their value. {' '.join(_spread([used], every=True))}"
    )
    return Drawn(figure, f"{about} {t.origin_of_all}")


def _seeds(found: Mapping[str, Curve]) -> int:
    """How many are in the means."""
    return next(iter(found.values())).kept.shape[1]


def _columns(found: Mapping[str, Curve]) -> list[str]:
    """Those of a run's columns that panels show."""
    first = (next((name for name in names if name in found), None) for names in PANELS)
    return [name for name in first if name is not None]


def _over_each_other(runs: Sequence[Mapping[str, Curve]], legend: list[tuple[Any, str]], columns: int = 2) -> Drawn:
    """A panel for every column that a run shows, and what a caption says of them."""
    shown = {name for found in runs for name in _columns(found)}
    labels = {name: label for names in PANELS for name, label in names.items() if name in shown}
    every = [found[name] for found in runs for name in _columns(found)]
    figure, panels = _stacked(len(labels), legend, columns, every)
    early: list[str] = []
    for panel, (name, label) in zip(panels, labels.items()):
        is_share = name.endswith("error")
        scale = 100 if is_share else 1
        there = [(found[name], color) for found, color in zip(runs, COLORS) if name in _columns(found)]
        for curve, color in there:
            epochs.show(panel, curve, color, scale)
        low, high = epochs.limits([curve for curve, _ in there], scale, zero=is_share)
        panel.set_ylim(low, high)
        panel.set_ylabel(label)
        if epochs.hides_early([curve for curve, _ in there], scale, zero=is_share):
            early = ["Values of the first epochs that are far from the others are not shown."]
    return Drawn(figure, " ".join(_spread(every) + early))


def _stacked(
    number: int, legend: list[tuple[Any, str]], columns: int, curves: Sequence[Curve]
) -> tuple[Figure, list[Any]]:
    """So many panels over the epochs of these curves, with the legend under them, where it hides nothing."""
    lines = sum(1 + text.count("\n") for _, text in legend[::columns])
    figure, axes = new(COLUMN, PANEL * number + LINE * lines + AROUND, number, sharex=True)
    panels = list(axes[:, 0])
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0, max(2, *(curve.epochs[-1] for curve in curves)))
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if legend:
        handles, labels = zip(*legend)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    figure.align_ylabels()
    return figure, panels


def _spread(curves: Sequence[Curve], every: bool = False) -> list[str]:
    """What is drawn of the seeds, in sentences."""
    numbers = {curve.kept.shape[1] for curve in curves}
    said = []
    if max(numbers) > 1:
        said.append("Thick lines are means over seeds.")
    if any(n > 1 and (every or n <= FEW) for n in numbers):
        said.append("Thin lines are seeds.")
    if not every and max(numbers) > FEW:
        said.append("Bands are 95 % intervals of the mean (Student's t).")
    if any(curve.lost.any() for curve in curves):
        said.append("A cross is where a seed became non-finite; it is in no mean.")
    return said

"""A run's epochs as arrays, and how a panel shows them: seeds, their mean, its interval, and limits.

Shape legend: E epochs, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dgm.records import read_curves
from ssl_dgm.tables.statistics import summarise

FEW = 3  # seeds whose lines can be told apart; of more, the interval of their mean is drawn
EARLY = 0.1  # of the epochs, whose values a panel may leave out
SQUEEZED = 0.5  # of a panel's height, that the other epochs have at least
MARGIN = 0.06  # of it, above and below the values


@dataclass(frozen=True, eq=False)
class Curve:
    """A column of metrics.csv.

    Attributes:
        epochs: [E], ascending.
        seeds: [S], ascending.
        values: [E, S]; nan where a seed has none: without validation, not there yet, or lost.
        lost: whether a seed has become non-finite, [S].
    """

    epochs: np.ndarray
    seeds: np.ndarray
    values: np.ndarray
    lost: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Values of the seeds that are not lost, [E, S or fewer]."""
        return self.values[:, ~self.lost]

    @cached_property
    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Epochs, mean and 95 % interval (low, high), where every seed that is not lost has a value, [E or fewer] each.

        The interval is Student's of the mean; nan of one seed.
        """
        whole = np.isfinite(self.kept).all(1) & (self.kept.shape[1] > 0)
        found = [s for row in self.kept[whole].tolist() if (s := summarise(row)) is not None]
        mean, low, high = np.array([(s.mean, s.low, s.high) for s in found], float).reshape(-1, 3).T
        return self.epochs[whole], mean, low, high


def read(folder: Path) -> dict[str, Curve]:
    """The columns of a run's curves by name, those left out that nothing stands in; empty of a run without curves.

    A seed that was trained anew in another group is as the newest file has it.
    """
    of_seed: dict[int, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("group-*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        rows = read_curves(path)
        of_seed |= {seed: {row["epoch"]: row for row in rows if row["seed"] == seed} for seed in _of(rows, "seed")}
    every = [row for rows in of_seed.values() for row in rows.values()]
    seeds, epochs = sorted(of_seed), sorted(_of(every, "epoch"))
    names = dict.fromkeys(name for row in every for name in row if name not in ("epoch", "seed", "seconds"))
    columns = {name: np.full((len(epochs), len(seeds)), np.nan) for name in names}
    lost = np.zeros(len(seeds), bool)
    for s, seed in enumerate(seeds):
        for e, epoch in enumerate(epochs):
            row = {n: v for n, v in of_seed[seed].get(epoch, {}).items() if n in columns and v != ""}
            # From its first term that is not finite on nothing of a seed means anything, its error neither.
            lost[s] |= not all(map(math.isfinite, row.values()))
            for name, value in () if lost[s] else row.items():
                columns[name][e, s] = value
    at, of = np.array(epochs), np.array(seeds)
    return {name: Curve(at, of, values, lost) for name, values in columns.items() if np.isfinite(values).any()}


def show(panel: Any, curve: Curve, color: str, scale: float = 1, every: bool = False) -> None:
    """Draws the mean over seeds, and each of up to `FEW` seeds or the interval of more.

    Args:
        scale: of the values: 100 for shares.
        every: draw each seed, however many there are.
    """
    lines = every or curve.kept.shape[1] <= FEW
    for s in np.flatnonzero(curve.lost | lines):
        there = np.isfinite(curve.values[:, s])
        points = curve.epochs[there], scale * curve.values[there, s]
        panel.plot(*points, color=color, linewidth=0.5, alpha=0.6, **_alone(points[0]))
        if curve.lost[s]:
            panel.plot(*(of[-1:] for of in points), "x", color=color)
    epochs, mean, low, high = curve.band
    panel.plot(epochs, scale * mean, color=color, **_alone(epochs))
    if not lines and len(epochs) > 1:
        panel.fill_between(epochs, scale * low, scale * high, color=color, alpha=0.25, linewidth=0)
    elif not lines:
        panel.vlines(epochs, scale * low, scale * high, color=color, alpha=0.5)


def limits(curves: Sequence[Curve], scale: float = 1, zero: bool = False) -> tuple[float, float]:
    """The lowest and the highest value that a panel of these curves shows.

    All of them; but not the first tenth of a curve's epochs where that would take more than half of the height from
    the others, nor those of lost seeds.

    Args:
        zero: whether the panel begins at 0.
    """
    (low, high), _ = _range(curves, scale, zero)
    room = MARGIN * (high - low) or 0.5
    return (0.0 if zero else low - room), high + room


def hides_early(curves: Sequence[Curve], scale: float = 1, zero: bool = False) -> bool:
    """Whether `limits` leaves out values of the first epochs."""
    return _range(curves, scale, zero)[1]


def _range(curves: Sequence[Curve], scale: float, zero: bool) -> tuple[tuple[float, float], bool]:
    every = np.concatenate([_after(curve, 0) for curve in curves])
    late = np.concatenate([_after(curve, EARLY * curve.epochs[-1]) for curve in curves])
    whole, others = (
        (0.0 if zero else scale * float(values.min()), scale * float(values.max()))
        for values in (every, late if late.size else every)
    )
    is_late = others[1] - others[0] < SQUEEZED * (whole[1] - whole[0])
    return (others, True) if is_late else (whole, False)


def _after(curve: Curve, epoch: float) -> np.ndarray:
    """All that is drawn of a curve after an epoch."""
    seeds = curve.kept if np.isfinite(curve.kept).any() else curve.values
    values = seeds[curve.epochs > epoch].ravel()
    if curve.kept.shape[1] > FEW:
        epochs, _, low, high = curve.band
        values = np.concatenate([values, low[epochs > epoch], high[epochs > epoch]])
    return values[np.isfinite(values)]


def _of(rows: Sequence[dict[str, Any]], name: str) -> set[int]:
    return {row[name] for row in rows}


def _alone(epochs: np.ndarray) -> dict[str, Any]:
    """A line through one point is not seen."""
    return {"marker": "o"} if len(epochs) == 1 else {}

"""Tables of numbers, whose columns name their units, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

Row = dict[str, Any]


@dataclass
class Table:
    """Rows of named values; what a row lacks is blank."""

    title: str
    rows: list[Row]
    note: str = ""

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        cells = [[text(row.get(name)) for name in names] for row in self.rows]
        right = ["left" if any(isinstance(row.get(n), str) for row in self.rows) else "right" for n in names]
        body = tabulate(cells, names, disable_numparse=True, colalign=right)
        return "\n".join([self.title, body, *([self.note] if self.note else [])])


def text(value: Any) -> str:
    """Three figures; a range as 'low to high'."""
    if value is None or value != value:
        return ""
    if isinstance(value, tuple):
        return " to ".join(text(v) for v in value)
    if isinstance(value, str | bool | int):
        return f"{value:,}" if isinstance(value, int) else str(value)
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{places}f}"


def middle(values: Sequence[float] | np.ndarray) -> float:
    """The median."""
    return float(np.median(values))


def spread(values: np.ndarray) -> tuple[float, float]:
    """Where the middle 80 % lie."""
    low, high = np.quantile(values, [0.1, 0.9])
    return float(low), float(high)


def ratio(name: str, times: np.ndarray, base: np.ndarray) -> Row:
    """Of two loops' times, round by round: '<name>' and its range."""
    ratios = times / base
    return {name: middle(ratios), f"{name}, 80 %": spread(ratios)}


def timing(times: Sequence[float] | np.ndarray) -> Row:
    """Milliseconds of an update, from seconds."""
    milliseconds = 1e3 * np.asarray(times)
    return {"ms/update": middle(milliseconds), "80 % of blocks": spread(milliseconds)}

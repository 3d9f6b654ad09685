"""A table as series: a row's values along columns that differ in a number, of labels or of latents for example."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_dgm.config import UserError
from ssl_dgm.tables import grid
from ssl_dgm.tables.report import Made
from ssl_dgm.tables.spec import Table


@dataclass(frozen=True)
class Axis:
    """Columns of a table that differ in one number.

    Attributes:
        name: what the number counts, 'labels' for example.
        title: what else the columns' names say, 'Fashion-MNIST' for example.
        numbers: by column.
    """

    name: str
    metric: str
    title: str
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class Point:
    """A value in the table's unit at a number on the axis; low and high are None of what has no bar."""

    at: int
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0  # seeds; 0 of a published value


@dataclass(frozen=True)
class Series:
    """What a row has along an axis: finite points of our own, and the published ones."""

    row: str
    label: str
    ours: list[Point]
    published: list[Point]
    lost: list[int]  # numbers at which a seed's value is not finite

    @property
    def is_run(self) -> bool:
        """Whether it has results here."""
        return bool(self.ours or self.lost)


def axes(table: Table) -> list[Axis]:
    """The axes along which a table's columns lie, each of two numbers or more.

    A column is at the number of labels that it sets, or else at the number that is its name: of what the corner says.

    Raises:
        UserError: for a table without such columns.
    """
    found: dict[tuple, dict[str, int]] = {}
    for name, column in table.columns.items():
        labels = [word for word in column.overrides if re.fullmatch(r"labels=\d+", word)]
        number = labels[-1].removeprefix("labels=") if labels else name
        others = tuple(word for word in column.overrides if word not in labels) if labels else ()
        if number.isdecimal() and int(number):  # the axis is logarithmic
            key = ("labels" if labels else table.corner, table.metric_of(name), others)
            found.setdefault(key, {})[name] = int(number)
    made = [
        Axis(name, metric, _shared(table, numbers), numbers)
        for (name, metric, _), numbers in found.items()
        if len(set(numbers.values())) > 1
    ]
    if not made:
        raise UserError(f"{table.name} has no columns that differ in a number alone; draw one like table1")
    return made


def of(made: Made, axis: Axis, rows: Sequence[str] = ()) -> list[Series]:
    """The series of a table along an axis, in the table's order.

    Args:
        rows: those wanted, measured or quoted, with results here or only published. None named: all with results.
    """
    table, found = made.table, []
    for name in (name for name in (*table.rows, *table.quoted) if not rows or name in rows):
        row = table.rows.get(name) or table.quoted[name]
        printed = table.rows[name].published if name in table.rows else table.quoted[name].values
        ours, published = [], []
        for column, at in axis.numbers.items():
            state = made.by_place.get((name, column))
            if state and (s := grid.summary(table, column, state)):
                ours.append(Point(at, s.mean, s.low, s.high, s.n))
            if column in printed:
                value, *spread = printed[column]
                low, high = (value - spread[0], value + spread[0]) if spread else (None, None)
                published.append(Point(at, value, low, high))
        finite = [point for point in ours if math.isfinite(point.value)]
        one = Series(name, row.label or name, finite, published, [p.at for p in ours if p not in finite])
        if one.is_run or (rows and published):
            found.append(one)
    return found


def _shared(table: Table, columns: Mapping[str, int]) -> str:
    """What the names of columns have in common: 'Fashion-MNIST' of 'Fashion-MNIST, 100 labels' and the like."""
    parts = [table.columns[column].label.split(", ") for column in columns]
    return ", ".join(part for part in parts[0] if all(part in other for other in parts))

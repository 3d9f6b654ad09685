"""conf/table/<name>.yaml: the rows and columns of a paper's table, as overrides, with the numbers that it prints.

conf/sweep/<name>.yaml has the same form: trials of settings, scored by a validation metric instead of a test metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import compose, records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError

BUDGETS = ("paper", "short", "smoke")
METRICS = (
    "test/error", "test/bound", "test/log_likelihood", "test/cluster_accuracy", "test/nmi", "test/entropy_y",
    *(
        f"test/accuracy{rows}{attributed}"
        for rows, attributed in product(("", "_labelled_classes", "_hidden_classes"), ("", "_test_attributed"))
    ),
)  # fmt: skip
BEST_BY = ("validation/error", "validation/bound", "validation/accuracy", "validation/cluster_accuracy")
LOWER_IS_BETTER = ("error", "entropy_y")


@dataclass
class Column:
    """A column: what it adds to every row's settings, and what it shows of the run."""

    overrides: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)  # what it adds at a budget
    label: str = ""
    metric: str = ""  # the table's where it names none


@dataclass
class Confusion:
    """A confusion matrix as a paper prints it: shares of every true class's rows, slots merged into their classes."""

    source: str = ""
    printed: dict[str, list[float]] = field(default_factory=dict)  # by true class, shares of classes 0, 1, ...


@dataclass
class Measured:
    """A row that is run here."""

    overrides: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] | None = None  # those that it has, and what it adds to them; null: all
    at: dict[str, list[str]] = field(default_factory=dict)  # what it adds at a budget
    label: str = ""
    published: dict[str, list[float]] = field(default_factory=dict)  # by column: [value] or [value, spread], as printed
    published_best: dict[str, list[float]] = field(default_factory=dict)  # of the paper's best run
    published_as: str = ""  # the name it has in the paper, where that is another
    unverified: bool = False  # its published numbers were not found in a text at hand
    confusion: Confusion | None = None
    note: str = ""


@dataclass
class Quoted:
    """A row that stands in the paper and is not run here."""

    values: dict[str, list[float]] = field(default_factory=dict)
    label: str = ""
    source: str = ""  # where another paper than the table's prints it
    note: str = ""
    unverified: bool = False  # not found in a text at hand


@dataclass
class Table:
    """A table: its cells are base + row + column, at one budget."""

    title: str = MISSING
    source: str = MISSING  # who published the numbers
    order: int = 100  # among the tables, where several are made or reported
    corner: str = ""  # above the rows' names
    metric: str = "test/error"
    digits: int = 2
    seeds: dict[str, list[int]] = field(default_factory=dict)  # by budget
    base: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)  # what every cell adds at a budget
    columns: dict[str, Column] = field(default_factory=dict)
    rows: dict[str, Measured] = field(default_factory=dict)
    quoted: dict[str, Quoted] = field(default_factory=dict)
    reference: str | None = None  # the row from which the others' paired differences are taken
    best_by: str | None = None  # a validation metric: the paper prints its best run, so the best of ours by it is shown
    headline: list[str] = field(default_factory=list)  # cells that the README shows
    reading: dict[str, str] = field(default_factory=dict)  # by budget: what people made of the numbers
    name: str = ""

    @property
    def is_sweep(self) -> bool:
        """Whether its cells are trials, from which settings are chosen: its rows have no test metric."""
        return self.metric in BEST_BY

    def metric_of(self, column: str) -> str:
        """What a column shows."""
        return self.columns[column].metric or self.metric

    def columns_of(self, row: str) -> list[str]:
        """The columns that a row has, in the table's order."""
        own = self.rows[row].columns
        return [column for column in self.columns if own is None or column in own]

    def words(self, row: str, column: str, budget: str) -> tuple[str, ...]:
        """The overrides of a cell."""
        r = self.rows[row]
        c, own = self.columns[column], (r.columns or {}).get(column, [])
        all_here, column_here, here = (part.at.get(budget, []) for part in (self, c, r))
        return (*self.base, *all_here, *r.overrides, *c.overrides, *own, *column_here, *here, f"budget={budget}")


def scale(metric: str) -> float:
    """From a record's value to a table's unit: percent for shares, nats otherwise."""
    return 100.0 if records.unit(metric) == "%" else 1.0


def lower_is_better(metric: str) -> bool:
    """Whether a smaller number wins."""
    return metric.endswith(LOWER_IS_BETTER)


def find(name: str) -> Path:
    """The file of a table: conf/table/<name>.yaml, that of a sweep for sweep/<name>, or the path itself.

    Raises:
        UserError: when there is none.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise UserError(f"there is no file {name}; name a table ({', '.join(names())}) or an existing YAML file")
        path, own = Path(name), compose.config_folder() / "table" / f"{Path(name).stem}.yaml"
        if own.is_file() and not own.samefile(path):
            raise UserError(f"{name} has the name of a table of conf/table, whose rows it would replace; rename it")
        return path
    kind, _, stem = name.rpartition("/")
    if name not in (known := [*names(), *sweeps()]):
        raise UserError(f"table '{name}' is unknown; {nearest(name, known)}")
    return compose.config_folder() / (kind or "table") / f"{stem}.yaml"


def names() -> list[str]:
    """The tables of conf/table/."""
    return compose.choices().get("table", [])


def sweeps() -> list[str]:
    """The sweeps of conf/sweep/, as `find` takes them."""
    return [f"sweep/{name}" for name in compose.choices().get("sweep", [])]


def in_order() -> list[Table]:
    """The tables of conf/table/ as they are made and reported one after the other."""
    return sorted((read(find(name)) for name in names()), key=lambda table: (table.order, table.name))


def read(path: Path) -> Table:
    """The table in a YAML file.

    Raises:
        UserError: for what is no such table, in one sentence with the file's name.
    """
    try:
        content = _as_in_schema(OmegaConf.to_container(OmegaConf.load(path)))
        table = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Table), content))
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split()).replace(f'in "{path.absolute()}", ', "at ")
        raise UserError(f"{path} is no table: {why[:200]}") from error
    assert isinstance(table, Table)
    table.name = path.stem
    check(path, table)
    return table


def _as_in_schema(content: Any, printed: bool = False) -> Any:
    """The same content with a text for a column like 100, and a float for a printed number like 82."""
    if isinstance(content, Mapping):
        return {
            str(k): _as_in_schema(v, printed or k in ("published", "published_best", "values", "printed"))
            for k, v in content.items()
        }
    if isinstance(content, list):
        return [_as_in_schema(value, printed) for value in content]
    return float(content) if printed and isinstance(content, int) else content


def check(path: Path, table: Table) -> None:
    """Refuses a table that is none.

    Raises:
        UserError: with the file's name.
    """
    if not table.rows or not table.columns or not table.seeds:
        raise UserError(f"{path} is no table: it needs rows, columns and seeds")
    for budget, seeds in table.seeds.items():
        if budget not in BUDGETS or not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"{path}: seeds.{budget}={list(seeds)} is not usable; list different seeds per budget")
    if table.reference is not None and table.reference not in table.rows:
        raise UserError(f"{path}: reference={table.reference} is no row; {nearest(table.reference, list(table.rows))}")
    if table.is_sweep and any(row.published for row in table.rows.values()):
        raise UserError(f"{path}: metric={table.metric} is of the validation rows; compare test/error with a paper's")
    for metric in (table.metric, *(column.metric for column in table.columns.values())):
        known = BEST_BY if table.is_sweep else METRICS
        if metric and metric not in known:
            raise UserError(f"{path}: metric={metric} is no metric; {nearest(metric, list(known))}")
    if table.digits < 0:
        raise UserError(f"{path}: digits={table.digits} is negative; use for example 2")
    if table.best_by is not None and table.best_by not in BEST_BY:
        raise UserError(f"{path}: best_by={table.best_by} would choose on the test rows; use validation/error")
    if both := set(table.rows) & set(table.quoted):
        raise UserError(f"{path}: '{both.pop()}' is both a row and a quoted one; rename one")
    budgets = {"reading": table.reading, "at": table.at}
    for kind, parts in (("row", table.rows), ("column", table.columns)):
        budgets |= {f"{kind} {name}": part.at for name, part in parts.items()}
    for where, of in budgets.items():
        if unknown := [budget for budget in of if budget not in BUDGETS]:
            raise UserError(f"{path}: {where} names budget {unknown[0]}; there are {', '.join(BUDGETS)}")
    if strange := [cell for cell in table.headline if not _is_cell(table, cell)]:
        raise UserError(f"{path}: headline {strange[0]} is no cell; write row@column")
    _check_numbers(path, table)
    _check_words(path, table)


def _is_cell(table: Table, cell: str) -> bool:
    row, _, column = cell.rpartition("@")
    return row in table.rows and column in table.columns_of(row)


def _check_numbers(path: Path, table: Table) -> None:
    known = ", ".join(table.columns)
    for key, row in {**table.rows, **table.quoted}.items():
        if isinstance(row, Quoted):
            printed, has = [row.values], list(table.columns)
        else:
            if unknown := [column for column in row.columns or () if column not in table.columns]:
                raise UserError(f"{path}: row {key} has a column {unknown[0]}; there are {known}")
            printed, has = [row.published, row.published_best], table.columns_of(key)
        for column, numbers in ((column, numbers) for of in printed for column, numbers in of.items()):
            if column not in has:
                raise UserError(f"{path}: row {key} has a number for column {column}; there are {', '.join(has)}")
            if len(numbers) not in (1, 2):
                raise UserError(f"{path}: row {key}, column {column}: write [value] or [value, spread]")
    for key, row in table.rows.items():
        if row.published_best and table.best_by is None:
            raise UserError(f"{path}: row {key} has published_best; name the metric that picks our best by best_by")
        printed = {} if row.confusion is None else row.confusion.printed
        for name, shares in printed.items():
            if len(shares) != len(printed) or not all(0 <= share <= 1 for share in shares):
                raise UserError(f"{path}: row {key}, confusion of class {name}: write a share in [0, 1] per class")


def _check_words(path: Path, table: Table) -> None:
    own = (*table.rows.values(), *table.columns.values())
    parts = [part.overrides for part in own] + [words for part in (table, *own) for words in part.at.values()]
    parts += [words for row in table.rows.values() for words in (row.columns or {}).values()]
    for word in (*table.base, *(word for part in parts for word in part)):
        if not isinstance(word, str):
            raise UserError(f"{path}: {word} is no override; write for example labels=100")
        if word.startswith(("seeds=", "budget=", "runs=")):
            raise UserError(f"{path}: '{word}' is set by the command; leave it out of the table")

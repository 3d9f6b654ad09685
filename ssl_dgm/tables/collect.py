"""Records to tidy CSV rows: one per run, seed and metric, each with a checksum of its own."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ssl_dgm.config import UserError
from ssl_dgm.files import locked, write_atomic

COLUMNS: tuple[str, ...] = (
    "table", "row", "column", "model", "data", "labels", "validation_labels", "pool", "order", "split_seed", "seed",
    "selection", "metric", "value", "n_test", "epochs", "updates", "train_seconds", "live_units", "device", "torch",
    "git_commit", "config_hash", "data_sha256", "split_sha256", "m1_sha256", "budget", "finished", "checksum",
)  # fmt: skip
ADDED = ("pool", "order")  # since the first files: rows made before have them empty, and their own checksums
FIRST = tuple(name for name in COLUMNS if name not in ADDED)
MOST_NAMED = 10  # damaged lines, by their numbers
Row = dict[str, str]


def rows(record: Mapping[str, Any], table: str = "", row: str = "", column: str = "") -> list[Row]:
    """The tidy rows of one record; values are fractions (0.0333), bounds are nats.

    Args:
        record: of one seed.
        table, row, column: the cell of a table that it belongs to, if any.
    """
    place = {"table": table, "row": row, "column": column, "config_hash": record["key"].rpartition("-")[2]}
    facts = {name: record.get(name) for name in COLUMNS} | place
    cells = {name: "" if value is None else str(value) for name, value in facts.items()}
    made = []
    for name, value in sorted(record["metrics"].items()):
        one = cells | {"metric": name, "value": repr(float(value))}
        made.append(one | {"checksum": _checksum(one)})
    return made


def values(rows: Iterable[Row], metric: str) -> dict[int, float]:
    """The metric by seed; an accuracy that a run doesn't record is one less its error."""
    rows = list(rows)
    found = {int(row["seed"]): float(row["value"]) for row in rows if row["metric"] == metric}
    if found or metric not in ("test/accuracy", "validation/accuracy"):
        return found
    return {seed: 1 - error for seed, error in values(rows, metric.replace("accuracy", "error")).items()}


def placed(row: Row, table: str, name: str, column: str) -> Row:
    """A row of the same run as one of a table's cell."""
    moved = row | {"table": table, "row": name, "column": column}
    return moved | {"checksum": _checksum(moved)}


def append(path: Path, new: Iterable[Row], say: Callable[[str], None]) -> None:
    """Adds rows to a CSV, replacing those of the same run, or cell, and seed and metric; others keep their place.

    Several processes may do so at once. Where rows are damaged, the file is first copied beside itself.

    Raises:
        UserError: for a file of another kind.
    """
    check_ours(path)
    with locked(path.with_name(f".{path.name}.lock"), path.name, say):
        found, damaged = _parse(path)
        if damaged:
            aside = path.with_name(f"{path.name}.damaged-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}")
            write_atomic(aside, path.read_bytes())
            say(f"{path} has {_lines(damaged)}; kept as {aside.name}, and left out of {path.name}")
        new = list(new)
        # A cell of a table has one configuration: no row of an edited one stays beside those of the new.
        settings = {_cell(row): row["config_hash"] for row in new if row["table"]}
        found = [row for row in found if settings.get(_cell(row), row["config_hash"]) == row["config_hash"]]
        table = {_identity(row): row for row in found} | {_identity(row): row for row in new}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
        if not path.exists() or text.getvalue().encode() != path.read_bytes():
            write_atomic(path, text.getvalue())


def check_ours(path: Path) -> None:
    """Nothing, unless the file is of another kind, in whose place rows would be.

    Raises:
        UserError: then.
    """
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline().rstrip("\n")
    # A header that is torn or damaged is ours all the same, and so are whole rows below another one.
    if not ",".join(COLUMNS).startswith(first) and len({*first.split(",")} & {*COLUMNS}) < 5 and not _parse(path)[0]:
        raise UserError(f"{path} holds something else than the rows of runs; name another file with csv=...")


def read(path: Path, say: Callable[[str], None]) -> list[Row]:
    """The whole rows of a CSV that `append` wrote; a damaged one is left out with a word."""
    found, damaged = _parse(path)
    if damaged:
        say(f"{path} has {_lines(damaged)}, left out; collecting again from the records of the runs repairs it")
    return found


def _cell(row: Row) -> tuple[str, ...]:
    return (row["table"], row["row"], row["column"])


def _identity(row: Row) -> tuple[str, ...]:
    return (*_cell(row), row["config_hash"], row["seed"], row["metric"])


def _parse(path: Path) -> tuple[list[Row], list[int]]:
    """Whole rows, and the numbers of the lines that are not."""
    if not path.exists():
        return [], []
    whole, damaged = [], []
    # A line at a time: a stray quote must not swallow the lines that follow it.
    for number, line in enumerate(path.read_bytes().decode(errors="replace").split("\n"), start=1):
        try:
            cells = next(csv.reader([line]), [])
        except csv.Error:  # a carriage return within a row
            cells = []
        if number == 1 and line in (",".join(COLUMNS), ",".join(FIRST)):
            continue
        known = FIRST if len(cells) == len(FIRST) else COLUMNS
        row = dict.fromkeys(COLUMNS, "") | dict(zip(known, cells))
        if number > 1 and len(cells) == len(known) and row["checksum"] == _checksum(row):
            whole.append(row)
        elif line:
            damaged.append(number)
    return whole, damaged


def _lines(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"a damaged line ({numbers[0]})"
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    return f"damaged lines ({', '.join(map(str, numbers[:MOST_NAMED]))}{more})"


def _checksum(row: Row) -> str:
    cells = [row[name] for name in FIRST if name != "checksum"]
    cells += [f"{name}={row[name]}" for name in ADDED if row[name]]
    return hashlib.sha256("\n".join(cells).encode(errors="replace")).hexdigest()[:12]

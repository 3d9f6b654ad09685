"""Records to tidy CSV rows: one per run, seed and metric."""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ssl_dgm.files import locked, write_atomic

COLUMNS: tuple[str, ...] = (
    "table", "row", "column", "model", "data", "labels", "validation_labels", "split_seed", "seed", "selection",
    "metric", "value", "n_test", "epochs", "updates", "train_seconds", "live_units", "device", "torch", "git_commit",
    "config_hash", "data_sha256", "split_sha256", "m1_sha256", "budget", "finished",
)  # fmt: skip
IDENTITY = ("table", "row", "column", "config_hash", "seed", "metric")


def rows(record: dict[str, Any]) -> list[dict[str, str]]:
    """The tidy rows of one record; values are fractions (0.0333), bounds are nats."""
    facts = {name: record.get(name) for name in COLUMNS} | {"config_hash": record["key"].rpartition("-")[2]}
    cells = {name: "" if value is None else str(value) for name, value in facts.items()}
    return [cells | {"metric": name, "value": repr(float(value))} for name, value in sorted(record["metrics"].items())]


def append(path: Path, new: Iterable[dict[str, str]], say: Callable[[str], None]) -> None:
    """Adds rows to a CSV, replacing those of the same run, seed and metric; other rows keep their place.

    Several processes may do so at once. A row that is damaged is dropped with a word: its run's record still has it.
    """
    with locked(path.with_name(f".{path.name}.lock"), path.name, say):
        table = {tuple(row[name] for name in IDENTITY): row for row in read(path, say)}
        table |= {tuple(row[name] for name in IDENTITY): row for row in new}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
        write_atomic(path, text.getvalue())


def read(path: Path, say: Callable[[str], None]) -> list[dict[str, str]]:
    """The whole rows of a CSV that `append` wrote."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    whole = [row for row in found if set(row) == set(COLUMNS) and None not in row.values()]
    if len(whole) < len(found):
        say(f"{path} has {len(found) - len(whole)} damaged rows; they are left out")
    return whole

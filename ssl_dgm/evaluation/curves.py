"""The learning curves that a training writes, read back."""

import csv
from pathlib import Path
from typing import Any


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv with numbers as numbers, '' where an epoch had no validation, torn lines left out."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values() and None not in row]
    integers = ("epoch", "seed")
    return [{n: v if v == "" else int(v) if n in integers else float(v) for n, v in row.items()} for row in rows]

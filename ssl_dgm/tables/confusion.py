"""A row's confusion matrix beside the one that its paper prints, as a grid of its own."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ssl_dgm.files import write_atomic
from ssl_dgm.tables.cells import Cell, State
from ssl_dgm.tables.grid import Grid, Line, best_seed
from ssl_dgm.tables.spec import Table


def copy(cell: Cell, state: State, folder: Path) -> None:
    """Brings the matrices of a cell's finished seeds from its run to a table's folder, where they stay."""
    for seed in {row["seed"] for row in state.rows}:
        made, kept = cell.folder / f"seed-{seed}" / "confusion.csv", _path(cell, seed, folder)
        if made.is_file() and not (kept.is_file() and kept.read_bytes() == made.read_bytes()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(kept, made.read_bytes())


def build(table: Table, budget: str, cell: Cell, state: State, folder: Path) -> Grid | None:
    """The matrix of the best seed by validation, or of the first, beside the printed one; None where there is no file.

    Args:
        cell: of a row that tells what is printed.
        folder: where the table's CSV is.
    """
    row = table.rows[cell.row]
    finished = sorted({int(r["seed"]) for r in state.rows})
    best = best_seed(table, state)
    seed = min(finished, default=-1) if best is None else best
    path = _path(cell, seed, folder)
    if row.confusion is None or not path.is_file():
        return None
    ours = shares(path.read_text(encoding="utf-8"))
    header = ["true class", *map(str, range(len(ours)))]
    if without_class := any(of[-1] for of in ours):
        header.append("none")
    chosen = "" if best is None else f"the best of {len(finished)} seeds by {table.best_by}"
    says = f"Here: seed {seed}{chosen and f', {chosen}'}; slots are attributed to classes by the validation rows."
    title = f"{row.label or cell.row}: shares of every class's test rows by the class of their slot, budget={budget}"
    grid = Grid(f"{table.name}_{cell.row}_confusion", title, tuple(header), caption=[says])
    grid.caption.append(f"Paper: {row.confusion.source or table.source}.")
    for number, of in enumerate(ours):
        grid.lines.append(Line("row", str(number), _texts(of if without_class else of[:-1])))
        if theirs := row.confusion.printed.get(str(number)):
            grid.lines.append(Line("detail", "paper", (*_texts(theirs), *[""] * without_class)))
    return grid


def _path(cell: Cell, seed: int | str, folder: Path) -> Path:
    return folder / "confusion" / f"{cell.key}-seed-{seed}.csv"


def shares(text: str) -> list[list[float]]:
    """[C, C + 1] of what `Clusters.to_csv` writes: a class's test rows by the class of their slot, the last of none."""
    _, *lines, last = csv.reader(text.splitlines())
    names, num_classes = [line[0] for line in lines], len(lines)
    attributed = [names.index(text) if text in names else -1 for text in last[1:]]
    made = []
    for _, *texts in lines:
        counts = [0] * (num_classes + 1)
        for slot_class, text in zip(attributed, texts):
            counts[slot_class] += int(text)  # -1, of no class, is the last
        made.append([count / max(1, sum(counts)) for count in counts])
    return made


def _texts(values: Sequence[float]) -> tuple[str, ...]:
    """Two significant digits, as the published matrices have."""
    return tuple(f"{share:.2g}" for share in values)

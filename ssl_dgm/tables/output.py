"""What a table leaves: the CSV of its rows, and the rendered table and the confusion matrices beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_dgm.config import UserError
from ssl_dgm.files import write_atomic
from ssl_dgm.tables import cells as cells_of
from ssl_dgm.tables import collect, confusion, grid, render
from ssl_dgm.tables.cells import Cell, Say, State
from ssl_dgm.tables.collect import Row
from ssl_dgm.tables.spec import Table


def path(results: Path, runs: str, budget: str, table: Table) -> Path:
    """Of a table's CSV: smoke rows show nothing but that the code works, and stay with the runs."""
    folder = results if budget == "paper" else results / budget
    folder = Path(runs) / "smoke" if budget == "smoke" else results / "sweeps" if table.is_sweep else folder
    return folder / f"{table.name}.csv"


def from_elsewhere(paths: Sequence[Path], table: Table, cells: Sequence[Cell], say: Say) -> list[Row]:
    """The rows in other files that are of the cells' runs.

    Raises:
        UserError: for a file that is not there.
    """
    by_hash, found = {cell.config_hash: cell for cell in cells}, []
    for file in paths:
        if not file.is_file():
            raise UserError(f"--rows {file}: there is no such file; name CSV files of rows")
        for row in collect.read(file, say):
            if (cell := by_hash.get(row["config_hash"])) is not None:
                found.append(collect.placed(row, table.name, cell.row, cell.column))
    return found


def bring(table: Table, cells: Sequence[Cell], csv: Path, say: Say, others: Sequence[Row] = ()) -> dict[Cell, State]:
    """Brings the rows of all finished seeds into the CSV; returns how far every cell is."""
    # Of a seed in both, the table's own row wins.
    own = collect.read(csv, lambda line: None)
    listed = {(row["row"], row["column"], row["config_hash"], row["seed"]) for row in own}
    known = own + [row for row in others if (row["row"], row["column"], row["config_hash"], row["seed"]) not in listed]
    states = {cell: cells_of.look(table, cell, known, say) for cell in cells}
    rows = [row for state in states.values() for row in state.rows]
    collect.append(csv, [row for row in rows if not table.is_sweep or row["metric"].startswith("validation/")], say)
    return states


def write(table: Table, budget: str, states: Mapping[Cell, State], csv: Path) -> str:
    """Renders the table beside its CSV, as .md, .tex and .html; returns the Markdown."""
    pages = [grid.build(table, budget, by_place(states))]
    for row in (name for name, row in table.rows.items() if row.confusion):
        cell, state = next((cell, state) for cell, state in states.items() if cell.row == row)
        confusion.copy(cell, state, csv.parent)
        matrix = confusion.build(table, budget, cell, state, csv.parent)
        pages += [matrix] if matrix else []
    markdown = render.to_markdown(*pages)
    for suffix, text in ((".md", markdown), (".tex", render.to_latex(*pages)), (".html", render.to_html(*pages))):
        file = csv.with_suffix(suffix)
        if not file.exists() or file.read_bytes() != text.encode():
            write_atomic(file, text)
    return markdown


def by_place(states: Mapping[Cell, State]) -> dict[tuple[str, str], State]:
    """By (row, column), for every column that shows a cell."""
    return {(cell.row, column): state for cell, state in states.items() for column in cell.columns}

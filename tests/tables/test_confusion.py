"""A confusion matrix beside the printed one: slots merged into classes, the best seed by validation, no runs needed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dgm import records
from ssl_dgm.evaluation.clusters import Clusters
from ssl_dgm.tables import collect, confusion, spec
from ssl_dgm.tables.cells import Cell, State, cells

GOLDEN = Path(__file__).parent / "golden" / "columns.yaml"
COUNTS = np.array([[8, 1, 0, 1], [0, 5, 5, 0], [2, 0, 2, 6]])


@pytest.fixture
def table() -> spec.Table:
    return spec.read(GOLDEN)


@pytest.fixture
def cell(table: spec.Table, tmp_path: Path) -> Cell:
    return cells(table, "short", str(tmp_path / "runs"))[0]


def state(cell: Cell, validation: dict[int, float]) -> State:
    made = []
    for seed, error in validation.items():
        made += collect.rows(records.new(cell.config, cell.key, seed, {"test/error": 0.5, "validation/error": error}))
    return State("done", made)


def write(folder: Path, seed: int, counts: np.ndarray, attribution: list[int]) -> Path:
    path = folder / f"seed-{seed}" / "confusion.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Clusters(np.array(attribution), counts, {}).to_csv(["0", "1", "2"]))
    return path


def test_the_best_seed_by_validation_is_shown_beside_what_is_printed(
    table: spec.Table, cell: Cell, tmp_path: Path
) -> None:
    of_run, results = state(cell, {0: 0.3, 1: 0.2}), tmp_path / "results"
    write(cell.folder, 0, COUNTS[::-1], [0, 1, 2, 2])
    written = write(cell.folder, 1, COUNTS, [0, 1, 2, 2])
    confusion.copy(cell, of_run, results)
    for path in (written, written.parent):  # what is shown is the copy, which is committed
        path.unlink() if path.is_file() else path.rmdir()
    made = confusion.build(table, "short", cell, of_run, results)
    assert made is not None
    assert made.header == ("true class", "0", "1", "2")
    assert [(line.kind, line.label, line.texts) for line in made.lines[:4]] == [
        ("row", "0", ("0.8", "0.1", "0.1")),
        ("detail", "paper", ("0.97", "0.0051", "0.025")),
        ("row", "1", ("0", "0.5", "0.5")),
        ("detail", "paper", ("0", "0.00088", "1")),
    ]
    assert made.caption[0].startswith("Here: seed 1, the best of 2 seeds by validation/accuracy;")
    assert made.caption[1] == "Paper: figure 2a."


def test_no_matrix_without_a_file_or_for_a_row_that_prints_none(table: spec.Table, cell: Cell, tmp_path: Path) -> None:
    of_run = state(cell, {0: 0.3})
    assert confusion.build(table, "short", cell, of_run, tmp_path) is None
    assert confusion.build(table, "short", cell, State("missing"), tmp_path) is None
    table.rows["m2"].confusion = None
    write(cell.folder, 0, COUNTS, [0, 1, 2, 2])
    confusion.copy(cell, of_run, tmp_path)
    assert confusion.build(table, "short", cell, of_run, tmp_path) is None


@settings(max_examples=30)
@given(st.data())
def test_shares_are_of_every_class_and_add_up_to_one(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(1, 4))
    num_slots = data.draw(st.integers(num_classes, 6))
    row = st.lists(st.integers(0, 50), min_size=num_slots, max_size=num_slots)
    counts = np.array(data.draw(st.lists(row, min_size=num_classes, max_size=num_classes))) + np.eye(
        num_classes, num_slots, dtype=int
    )
    attribution = data.draw(st.lists(st.integers(-1, num_classes - 1), min_size=num_slots, max_size=num_slots))
    shares = np.array(confusion.shares(Clusters(np.array(attribution), counts, {}).to_csv("abcd"[:num_classes])))
    merged = np.eye(num_classes + 1)[np.array(attribution)]  # -1: the last column, of no class
    np.testing.assert_allclose(shares, (counts @ merged) / counts.sum(1, keepdims=True))

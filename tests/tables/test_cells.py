"""How far a cell is: from its run's folder first, then from rows that came without it."""

from pathlib import Path
from typing import Any

import pytest

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.config import UserError
from ssl_dgm.data import published
from ssl_dgm.files import locked
from ssl_dgm.tables import collect, spec
from ssl_dgm.tables.cells import Cell, State, cells, fetch, look, status

TABLE = """
title: Small
source: nobody
seeds: {smoke: [0, 1]}
base: [data=digits]
columns: {a: {overrides: [labels=20]}}
rows:
  nn: {overrides: [model=nn]}
  m1m2: {overrides: [model=m1m2]}
"""


@pytest.fixture
def table(tmp_path: Path) -> spec.Table:
    (tmp_path / "small.yaml").write_text(TABLE)
    return spec.read(tmp_path / "small.yaml")


@pytest.fixture
def made(table: spec.Table, tmp_path: Path) -> dict[str, Cell]:
    return {cell.row: cell for cell in cells(table, "smoke", str(tmp_path / "runs"))}


def save(cell: Cell, seed: int, metrics: dict[str, float]) -> dict[str, Any]:
    facts = {"train_seconds": 3.0, "updates": 0, "n_test": 500, "validation_labels": 0}
    record = records.new(cell.config, cell.key, seed, metrics, **facts)
    records.save(cell.folder, record)
    return record


def values(state: State) -> list[str]:
    return [row["value"] for row in state.rows if row["metric"] == "test/error"]


def test_missing_partial_done(table: spec.Table, made: dict[str, Cell]) -> None:
    cell = made["nn"]
    assert look(table, cell, [], print).name == "missing"
    save(cell, 0, {"test/error": 0.25})
    state = look(table, cell, [], print)
    assert (state.name, state.missing, state.note) == ("partial", [1], "1 of 2 seeds")
    save(cell, 1, {"test/error": 0.5})
    state = look(table, cell, [], print)
    assert (state.name, values(state), state.seconds) == ("done", ["0.25", "0.5"], 6.0)


def test_a_group_s_seconds_count_once_and_groups_add_up() -> None:
    def row(seed: int, seconds: float, updates: int) -> dict[str, str]:
        return {"seed": str(seed), "train_seconds": str(seconds), "updates": str(updates)}

    together = [row(0, 40.5, 100), row(1, 40.5, 100)]
    assert State("done", together).seconds == 40.5
    assert State("done", [*together, row(2, 30.0, 100)]).seconds == 70.5
    assert State("done", [row(0, 3.0, 0), row(1, 3.0, 0)]).seconds == 6.0


def test_rows_stand_for_a_run_that_is_not_here(table: spec.Table, made: dict[str, Cell]) -> None:
    cell = made["nn"]
    record = records.new(cell.config, cell.key, 0, {"test/error": 0.25})
    rows = collect.rows(record, "small", "nn", "a")
    state = look(table, cell, rows, print)
    assert (state.name, values(state), state.missing) == ("partial", ["0.25"], [1])
    others = [row | {"config_hash": "0123456789"} for row in rows]
    state = look(table, cell, others, print)
    assert (state.name, state.rows, state.missing) == ("stale", [], [0, 1])


def test_a_run_that_was_forced_replaces_what_was_collected_of_it(table: spec.Table, made: dict[str, Cell]) -> None:
    cell = made["nn"]
    rows = collect.rows(save(cell, 0, {"test/error": 0.25}), "small", "nn", "a")
    save(cell, 0, {"test/error": 0.5})
    assert values(look(table, cell, rows, print)) == ["0.5"]


def test_a_run_without_the_tables_metric_fails_with_a_reason(table: spec.Table, made: dict[str, Cell]) -> None:
    save(made["nn"], 0, {"test/bound": -90.0})
    state = look(table, made["nn"], [], print)
    assert (state.name, state.note) == ("failed", "its run has no test/error, only test/bound")


def test_a_cell_is_done_when_it_has_what_all_its_columns_show(tmp_path: Path) -> None:
    text = TABLE.replace("rows:", "  b: {overrides: [labels=20], metric: test/bound}\nrows:").replace(
        "columns: {a:", "columns:\n  a:"
    )
    (tmp_path / "two.yaml").write_text(text.replace("[labels=20]}}", "[labels=20]}"))
    table = spec.read(tmp_path / "two.yaml")
    (cell, *_) = cells(table, "smoke", str(tmp_path / "runs"))
    save(cell, 0, {"test/error": 0.25})
    assert look(table, cell, [], print).note == "its run has no test/bound, only test/error"
    save(cell, 0, {"test/error": 0.25, "test/bound": -90.0})
    save(cell, 1, {"test/error": 0.25, "test/bound": -90.0})
    assert look(table, cell, [], print).name == "done"


ELSEWHERE = """
title: Elsewhere
source: nobody
seeds: {smoke: [0, 1]}
columns:
  mnist: {overrides: [data=mnist]}
  own: {overrides: [data=memmap, data.folder=nowhere]}
rows: {m2: {overrides: [model=m2]}}
"""


def test_cells_whose_data_are_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path))
    (tmp_path / "elsewhere.yaml").write_text(ELSEWHERE)
    table, runs = spec.read(tmp_path / "elsewhere.yaml"), str(tmp_path / "runs")
    mnist, own = cells(table, "smoke", runs)
    state = look(table, mnist, [], print)
    assert (state.name, state.missing) == ("no data", [0, 1])
    assert "is missing from $SSL_DGM_DATA/MNIST/raw; put it there" in state.note
    assert str(tmp_path) not in state.note, "a published table names no folder of this machine"
    assert look(table, own, [], print).note.startswith("data.folder=nowhere is no folder")
    text = status([mnist, own], [look(table, cell, [], print) for cell in (mnist, own)])
    assert text.count("put it there") == 1 and "2 cells: 2 no data\nno data: " in text
    # Rows that were made where the data are say which data the cell is of.
    key = schema.key(own.config, "ab" * 32)
    made = [records.new(own.config, key, seed, {"test/error": 0.25}, data_sha256="ab" * 32) for seed in (0, 1)]
    rows = [row for record in made for row in collect.rows(record, table.name, "m2", "own")]
    _, own = cells(table, "smoke", runs, rows)
    assert look(table, own, rows, print).name == "done"
    assert look(table, own, rows[:1], print).name == "no data", "the seed that lacks can't be trained here"
    assert len(look(table, own, rows[:1], print).rows) == 1
    assert [cell.name for cell in cells(table, "smoke", runs, rows, only_known=True)] == ["m2@own"]


@pytest.mark.parametrize("data_dir", ["", "data", "/an/absolute/data"])
def test_why_a_file_of_ones_own_is_missing_names_no_folder_of_this_machine(
    data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_DGM_DATA", data_dir)
    own = ELSEWHERE.replace("data=memmap, data.folder=nowhere", "data=npz, data.file=own.npz")
    (tmp_path / "elsewhere.yaml").write_text(own)
    table = spec.read(tmp_path / "elsewhere.yaml")
    state = look(table, cells(table, "smoke", str(tmp_path / "runs"))[1], [], print)
    where = ". and $SSL_DGM_DATA" if data_dir else "."
    assert state.note == f"data.file=own.npz is not there (looked in {where}); check the path"


def test_looking_at_a_table_downloads_nothing_and_making_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_DGM_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    asked, said = [], []

    def download(url: str, path: Path, md5: str) -> None:
        asked.append(path.name)
        raise UserError(f"{url} could not be downloaded (no network)")

    monkeypatch.setattr(published, "download", download)
    (tmp_path / "far.yaml").write_text(ELSEWHERE.replace("data=mnist", "data=svhn"))
    table = spec.read(tmp_path / "far.yaml")
    svhn, own = cells(table, "smoke", str(tmp_path / "runs"))
    state = look(table, svhn, [], print)
    assert (state.name, state.note) == ("no data", "svhn is not on this machine yet; making the table downloads it")
    assert not asked
    assert not fetch([svhn, own], said.append)
    assert asked == ["train_32x32.mat"]
    assert len(said) == 2 and "could not be downloaded" in said[1], "of rows that nobody can download nothing is said"


def test_failed_and_running(table: spec.Table, made: dict[str, Cell]) -> None:
    cell = made["m1m2"]
    records.fail(cell.folder, "the disk is full")
    assert cell.first_folder is not None
    cell.first_folder.mkdir()
    with locked(cell.first_folder / ".lock", "its M1", print):
        state = look(table, cell, [], print)
        assert (state.name, state.note) == ("failed", "the disk is full"), "that another trains its M1 hides nothing"
        records.clear_failure(cell.folder)
        state = look(table, cell, [], print)
        assert (state.name, state.note) == ("missing", "its M1 is at epoch 0 of 2")
    with locked(cell.folder / ".lock", "it", print):
        assert look(table, cell, [], print).name == "running"


def test_the_status_adds_up_what_is_left(table: spec.Table, made: dict[str, Cell]) -> None:
    for seed in (0, 1):
        save(made["nn"], seed, {"test/error": 0.25})
    group = made["m1m2"].folder / "group-0-1"
    group.mkdir(parents=True)
    (group / "metrics.csv").write_text("epoch,seed,seconds\n1,0,40.0\n1,1,40.0\n")
    listed = list(made.values())
    text = " ".join(status(listed, [look(table, cell, [], print) for cell in listed]).split())
    assert "nn@a done 2 of 2 nn-digits-20" in text
    assert "m1m2@a missing 0 of 2 40 s epoch 1 of 2 m1m2-digits-20" in text
    assert "2 cells: 1 done, 1 missing; about 40 s of training left in 1 of 1 cells" in text

"""Records to tidy rows, rows to a CSV that several processes may add to, and the closing table."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from ssl_dgm.config import UserError
from ssl_dgm.tables.collect import COLUMNS, append, read, rows, values
from ssl_dgm.tables.render import closing_table, mean_and_spread

# As it was written before there were the columns pool and order.
OLD = """\
table,row,column,model,data,labels,validation_labels,split_seed,seed,selection,metric,value,n_test,epochs,updates,\
train_seconds,live_units,device,torch,git_commit,config_hash,data_sha256,split_sha256,m1_sha256,budget,finished,checksum
,,,m2,,100,,,0,,test/error,0.0333,,,,,,,,,0123456789,,,,,,333f46c8a54a
"""


def record(seed: int, error: float = 0.0333, key: str = "m2-mnist-100-short-0123456789") -> dict[str, Any]:
    metrics = {"test/error": error, "validation/error": 0.04}
    return {"key": key, "seed": seed, "model": "m2", "metrics": metrics, "split_seed": None, "labels": 100}


def test_a_row_per_metric_with_every_column() -> None:
    made = rows(record(3))
    assert [row["metric"] for row in made] == ["test/error", "validation/error"]
    assert all(tuple(row) == COLUMNS for row in made)
    assert (made[0]["value"], made[0]["seed"], made[0]["config_hash"]) == ("0.0333", "3", "0123456789")
    assert made[0]["split_seed"] == "", "what a run does not have is empty"


def test_an_accuracy_that_is_not_recorded_is_one_less_the_error() -> None:
    made = rows(record(0)) + rows(record(1, error=0.25))
    assert values(made, "test/error") == {0: 0.0333, 1: 0.25}
    assert values(made, "test/accuracy") == {0: 1 - 0.0333, 1: 0.75}
    assert values(made, "validation/accuracy") == {0: 0.96, 1: 0.96}
    assert values(made, "test/accuracy_hidden_classes") == {}, "of a part of the classes an error says nothing"
    recorded = made + [
        row | {"metric": "test/accuracy", "value": "0.5"} for row in made if row["metric"] == "test/error"
    ]
    assert values(recorded, "test/accuracy") == {0: 0.5, 1: 0.5}


def test_appending_replaces_the_same_run_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    append(path, rows(record(0)) + rows(record(1)), print)
    append(path, rows(record(0, error=0.5)) + rows(record(0, key="m2-x-9876543210")), print)
    found = {(r["config_hash"], r["seed"], r["metric"]): r["value"] for r in read(path, print)}
    assert len(found) == 6
    assert found["0123456789", "0", "test/error"] == "0.5"
    assert found["0123456789", "1", "test/error"] == "0.0333"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "# Notes\n", "table,mine\n"])
def test_a_file_of_another_kind_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="holds something else than the rows of runs; name another file"):
        append(path, rows(record(0)), print)
    assert path.read_text() == text and [*tmp_path.iterdir()] == [path]


def test_many_damaged_lines_are_counted(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.csv", []
    append(path, rows(record(0)), print)
    path.write_text(path.read_text() + "x\n" * 30)
    read(path, said.append)
    assert "damaged lines (4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 20 more)" in said[0]


def test_damaged_rows_are_left_out_with_a_word(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.csv", []
    append(path, rows(record(0)), print)
    path.write_text(path.read_text()[:-40])
    assert len(read(path, said.append)) == 1
    assert "damaged line" in said[0]
    append(path, rows(record(0)), print)
    assert len(read(path, said.append)) == 2, "collecting again repairs it"


def test_files_of_before_there_were_pools_are_read_and_added_to(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.csv", []
    path.write_text(OLD)
    (old,) = read(path, said.append)
    assert (old["pool"], old["order"], old["value"], old["checksum"]) == ("", "", "0.0333", "333f46c8a54a")
    append(path, rows(record(3) | {"pool": 49_900, "order": "shuffled"}), said.append)
    assert [(row["seed"], row["pool"]) for row in read(path, said.append)] == [
        ("0", ""),
        ("3", "49900"),
        ("3", "49900"),
    ]
    assert not said
    path.write_text(path.read_text().replace("49900", "49901", 1))
    assert len(read(path, said.append)) == 2 and said, "checksums are of the new columns too"


def _append(path: Path, seed: int) -> None:
    append(path, rows(record(seed)), print)


def test_many_processes_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(_append, [(path, seed) for seed in range(12)] * 2)
    found = [(row["seed"], row["metric"]) for row in read(path, print)]
    assert len(found) == len(set(found)) == 24


def test_the_closing_table() -> None:
    table = closing_table([("m2", "test/error", [0.03, 0.05]), ("m2", "test/bound", [-90.0])])
    assert "m2       test error (%)     4.00 ± 1.41 (n = 2)" in table
    assert "test bound (nats)  -90.00 (n = 1)" in table
    assert mean_and_spread([]) == "-"


def test_rows_of_an_edited_cell_give_way_to_those_of_its_new_settings(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    old = [row for column in ("100", "600") for seed in (0, 1) for row in rows(record(seed), "t", "m2", column)]
    append(path, old, print)
    append(path, rows(record(0, key="m2-x-9876543210"), "t", "m2", "100"), print)
    found = {(row["column"], row["config_hash"], row["seed"]) for row in read(path, print)}
    assert found == {("100", "9876543210", "0"), ("600", "0123456789", "0"), ("600", "0123456789", "1")}

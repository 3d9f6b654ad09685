"""Data of users' own from files to records and predictions: what was trained on is what is predicted from."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from own_files import CLASSES, arrays, put_csv, put_npz, put_pictures

import ssl_dgm
from ssl_dgm import UserError, runs
from ssl_dgm.tables import collect

Command = Callable[..., Outcome]
TINY = ("budget=smoke", "network.hidden=[16]", "trainer.progress=false", "trainer.compile=never", "baseline=null")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_arrays_from_a_file_and_from_memory_are_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_npz(Path("data"), classes=np.array(["null", "one", "two"]))
    words = ("model=m2", *TINY, "data.title=Bars (8 x 8), made up")
    fitted = ssl_dgm.fit(*words, "data=npz", "data.file=data/my.npz", verbose=False)
    given = arrays()
    assert fitted.folder.name.startswith("m2-bars_8_x_8_made_up-all-smoke-")
    assert (fitted.record["data"], fitted.record["labels"]) == ("Bars (8 x 8), made up", 54)
    error = np.mean(fitted.predict(given["x_test"]) != given["y_test"])
    assert error == pytest.approx(fitted.metrics["test/error"], abs=1e-7)
    names = fitted.classes[fitted.predict(given["x_test"])]
    assert set(names) <= {"null", "one", "two"} and names.shape == (30,)
    np.testing.assert_array_equal(fitted.sample(2, y="two"), fitted.sample(2, y=2))
    readme = (fitted.folder / "README.md").read_text()
    assert "Bars (8 x 8), made up: 114 training, 6 validation and 30 test images of 8 x 8" in readme
    assert "(null 18, one 18, two 18)" in readme
    row = collect.read(Path("runs/rows.csv"), print)[0]
    assert (row["data"], row["labels"]) == ("Bars (8 x 8), made up", "54")

    of_arrays = {
        "x": given["x_train"],
        "y": given["y_train"].tolist(),
        "x_test": given["x_test"],
        "y_test": given["y_test"],
    }
    before = fitted.record["finished"]
    same = ssl_dgm.fit(*words, **of_arrays, verbose=False)
    assert same.folder == fitted.folder and same.record["finished"] == before, "named by content: not trained again"
    monkeypatch.chdir("/")
    again = ssl_dgm.load(tmp_path / fitted.folder)
    np.testing.assert_array_equal(again.predict(given["x_test"]), fitted.predict(given["x_test"]))


def test_arrays_that_are_not_given_or_not_known_are_named() -> None:
    x, y = np.zeros((4, 2)), [0, 1, 0, 1]
    for given, sentence in (
        ({"x": x, "y": y, "x_test": x}, "ssl_dgm.fit has no y_test; give x, y, x_test and y_test"),
        ({"x": x, "y": y, "x_tets": x}, "ssl_dgm.fit takes no x_tets; the nearest is x_test"),
        ({"x": np.array([x, "a"], object), "y": y, "x_test": x, "y_test": y}, "^x holds Python objects"),
        ({"x": [[1.0, 2.0], [1.0]], "y": y, "x_test": x, "y_test": y}, "^x makes no array .*; give rows of one length"),
        ({"x": x, "y": np.array(y, float), "x_test": x, "y_test": y}, "^y is 4 of float64; save a whole number"),
        ({"x": x, "y": y[:3], "x_test": x, "y_test": y}, "^x has 4 rows but 3 labels"),
        ({"x": x, "y": y, "x_test": x[:, :1], "y_test": y}, "^x_test has rows of 1 but x of 2"),
    ):
        with pytest.raises(UserError, match=sentence):
            ssl_dgm.fit("model=m2", *TINY, **given)
    assert not Path("runs").exists()
    with pytest.raises(UserError, match="labels=3 is not a multiple of the 2 classes"):
        ssl_dgm.fit("model=m2", *TINY, "labels=3", x=np.random.rand(40, 2), y=y * 10, x_test=x, y_test=y)
    assert not [*Path("runs").rglob("*.npz")], "arrays of what was refused are not kept"


def test_arrays_move_with_their_runs_and_other_rows_are_not_taken_for_them(tmp_path: Path) -> None:
    given = arrays()
    given = {"x": given["x_train"], "y": given["y_train"], "x_test": given["x_test"], "y_test": given["y_test"]}
    fitted = ssl_dgm.fit("model=nn", *TINY, **given, verbose=False)
    told = fitted.predict(given["x_test"])
    Path("runs").rename("moved")
    moved = tmp_path / "moved" / fitted.folder.name
    np.testing.assert_array_equal(ssl_dgm.load(moved).predict(given["x_test"]), told)
    (kept,) = Path("moved/arrays").iterdir()
    np.savez(kept, **(arrays() | {"x_test": given["x_test"][::-1].copy()}))
    with pytest.raises(UserError, match=r"are not those that .* was trained on"):
        ssl_dgm.load(moved)
    kept.unlink()
    with pytest.raises(
        UserError,
        match=r"the rows it was trained on: data.file=.* is not there .*README.md with their new place",
    ):
        ssl_dgm.load(moved)


def test_a_csv_that_holds_something_else_is_no_place_for_rows(command: Command) -> None:
    Path("mine.csv").write_text("a,b,label\n1,2,x\n" * 3)
    refused = command("model=nn", "data=digits", "labels=10", *TINY, "csv=mine.csv")
    assert refused.code == 2 and "mine.csv holds something else than the rows of runs" in refused.err
    assert not Path("runs").exists() and Path("mine.csv").read_text() == "a,b,label\n1,2,x\n" * 3


def test_a_folder_of_pictures_is_trained_on_and_classes_keep_their_names(command: Command) -> None:
    put_pictures(Path("pictures"), colour=True)
    ran = command(
        "model=gmdgm", "data=folder", "data.folder=pictures", "classes.hidden=[2]", "classes.extra=1", *TINY
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "folder: 84 training, 6 validation and 15 test images of 8 x 8 x 3, 3 classes" in ran.out
    (folder,) = Path("runs").glob("gmdgm-folder-all-smoke-*")
    lines = list(csv.reader((folder / "seed-0" / "confusion.csv").open()))
    assert [line[0] for line in lines[1:-1]] == list(CLASSES)
    assert set(lines[-1][1:]) <= {*CLASSES, "-1"}
    assert {path.name for path in folder.glob("figures/*.png")} >= {"samples.png", "confusion.png", "curves.png"}
    fitted = ssl_dgm.load(folder)
    assert fitted.sample(2).shape == (2, 8, 8, 3) and list(fitted.classes) == list(CLASSES)


@pytest.mark.parametrize(
    "words", [("model=m2",), ("model=m1m2", "m1.network.hidden=[16]"), ("model=nn",)], ids=" ".join
)
def test_a_table_is_predicted_from_in_its_own_units(words: tuple[str, ...]) -> None:
    put_csv(Path("train.csv"))
    put_csv(Path("test.csv"), 40, every=1, seed=1)
    fitted = ssl_dgm.fit(
        *words, "data=csv", "data.file=train.csv", "data.test_file=test.csv", "data.target=label", *TINY, verbose=False
    )  # fmt: skip
    test = pd.read_csv("test.csv")
    names = fitted.classes[fitted.predict(test)]
    assert np.mean(names != test["label"]) == pytest.approx(fitted.metrics["test/error"], abs=1e-7)
    np.testing.assert_array_equal(
        fitted.predict(test[["label", "b", "a"]]), fitted.predict(test[["a", "b"]].to_numpy())
    )
    with pytest.raises(UserError, match="x has no column b; give all that the model was trained on"):
        fitted.predict(test[["a"]])
    if words != ("model=nn",):
        assert 300 < fitted.sample(200)[:, 1].mean() < 1300, "samples have the units of the table"


def test_wrong_files_end_with_exit_code_2_and_no_run(command: Command) -> None:
    Path("empty.npz").write_bytes(b"")
    for words, sentence in (
        (("data=npz", "data.file=empty.npz"), "is no .npz file of arrays"),
        (("data=npz",), "name it with data.file=..."),
        (("data=csv", "data.file=empty.npz", "data.target=y"), "is empty; its first row names the columns"),
        (("data=folder", "data.folder=empty.npz"), "data.folder=empty.npz is no folder"),
        (("data=mnist", "data.file=empty.npz"), "data.file=empty.npz is for data=npz or data=csv, not for"),
        (("data=npz", "data.folder=."), "or data=lfw, not for data=npz; use data.file=..."),
    ):
        ran = command("model=m2", *words, *TINY)
        assert (ran.code, ran.out) == (2, ""), ran.out
        assert sentence in ran.err and ran.err.count("\n") == 1
    assert not list(Path().glob("runs/*/config.json"))


def test_runs_whose_file_is_gone_are_told_so_and_can_be_deleted(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put_csv(Path("train.csv"))
    words = ("data=csv", "data.file=train.csv", "data.target=label", "m1.network.hidden=[8]")
    assert command("model=m1m2", *words, *TINY).code == 0
    Path("train.csv").unlink()
    with pytest.raises(UserError, match=r"train.csv is not there"):
        ssl_dgm.load("runs/m1m2-csv")
    (first,) = Path("runs").glob("m1-csv-*")
    monkeypatch.setattr(sys, "argv", ["ssl_dgm.runs", "rm", first.name, "--yes"])
    runs.main()
    assert "1 runs build on it" in capfd.readouterr().out and not first.exists()


def test_equal_rows_under_other_names_are_another_run(tmp_path: Path) -> None:
    text = "a,b,label\n" + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(60))
    made = []
    for name, content in (
        ("t", text),
        ("again", text),
        ("classes", text.replace("y\n", "z\n")),
        ("columns", "c" + text[1:]),
    ):
        (tmp_path / f"{name}.csv").write_text(content)
        words = (
            "model=knn",
            "data=csv",
            f"data.file={name}.csv",
            "data.target=label",
            "labels=20",
            "trainer.figures=none",
        )
        made.append(ssl_dgm.fit(*words, verbose=False).folder.name)
    assert made[0] == made[1] and len(set(made)) == 3
    assert ssl_dgm.load(Path("runs") / made[0]).classes.tolist() == ["x", "y"]

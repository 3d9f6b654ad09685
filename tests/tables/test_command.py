"""The command over several tables, and where data sets are not on this machine; what it trains is real."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_dgm import table
from ssl_dgm.tables import collect, output, spec

Outcome = tuple[int, str]
TABLE = """
title: Small
source: nobody
seeds: {smoke: [0]}
base: [baseline=null, model=nn, labels=20]
columns:
  digits: {overrides: [data=digits]}
  mnist: {overrides: [data=mnist]}
rows: {nn: {}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`python -m ssl_dgm.table` with these words where no data set is; returns the exit code and all that it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "empty"))
    (tmp_path / "small.yaml").write_text(TABLE)
    (tmp_path / "other.yaml").write_text(TABLE.replace("data=digits", "data=digits, split_seed=3"))
    (tmp_path / "broken.yaml").write_text(TABLE.replace("labels=20", "lables=20"))

    def command(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ssl_dgm.table", *words, "--budget", "smoke"])
        with pytest.raises(SystemExit) as ended:
            table.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return command


def test_what_has_no_data_is_told_and_the_rest_is_trained(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, said = run("small.yaml", "--status")
    assert (code, "2 cells: 1 missing, 1 no data" in said) == (0, True), said
    code, said = run("small.yaml", "--dry-run")
    assert (code, said.count("python -m ssl_dgm.train"), said.count("data=mnist")) == (0, 2, 1)
    code, said = run("small.yaml")
    assert code == 0, said
    sentence = "train-images-idx3-ubyte of mnist is missing from $SSL_DGM_DATA/MNIST/raw; put it there"
    assert f"no data   1 cells: {sentence}" in said
    markdown = (tmp_path / "runs" / "smoke" / "small.md").read_text()
    assert "| no data [1] |" in markdown and f"[1] {sentence}".replace("$", "\\$") in markdown
    assert not list((tmp_path / "runs").glob("nn-mnist-*")), "nothing was started that could not be read"
    code, said = run("small.yaml", "--status")
    assert "2 cells: 1 done, 1 no data" in said


def test_several_tables_go_on_after_one_that_fails(run: Callable[..., Outcome]) -> None:
    code, said = run("broken.yaml", "small.yaml", "--status")
    assert code == 1
    summary = said.strip().splitlines()[-2:]
    assert summary[0].startswith("broken:") and "not made: cell nn@digits of broken: 'lables' is not" in summary[0]
    assert summary[1].split() == ["small:", "1", "missing,", "1", "no", "data"]
    code, said = run("broken.yaml", "--status")
    assert (code, said.startswith("ssl_dgm: cell nn@digits of broken:")) == (2, True), "alone, it is a usage error"


def test_a_sweep_keeps_nothing_of_the_test_rows(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(TABLE + "metric: validation/error\nreading: {smoke: The first is best.}\n")
    code, said = run("sweep.yaml")
    assert code == 0, said
    made = tmp_path / "runs" / "smoke" / "sweep.csv"
    rows = collect.read(made, print)
    assert rows and {row["metric"].split("/")[0] for row in rows} == {"validation"}
    page = made.with_suffix(".md").read_text()
    assert "no row here has a test metric. The first is best." in page and "Paper:" not in page
    own = spec.read(tmp_path / "sweep.yaml")
    assert output.path(Path("results"), "runs", "short", own) == Path("results/sweeps/sweep.csv")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no table is named; name "),
        (("small.yaml", "other.yaml", "--only", "nn"), "--only nn is a cell of one table, and 2 are named; name one"),
        (("small.yaml", "--report"), "--report is of all tables; leave small.yaml out"),
    ],
)
def test_words_that_contradict_are_refused(words: tuple[str, ...], sentence: str, run: Callable[..., Outcome]) -> None:
    code, said = run(*words)
    assert code == 2 and sentence in said


def test_all_are_the_tables_of_conf_in_their_order(run: Callable[..., Outcome]) -> None:
    tables = spec.in_order()
    assert sorted(table.name for table in tables) == sorted(spec.names())
    assert tables[0].name == "table1"
    assert [t.name for t in table._tables(table._parser().parse_args(["all"]))] == [t.name for t in tables]

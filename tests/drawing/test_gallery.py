"""Figures that are shown: their YAML, what they lack, and what the command says."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_dgm import gallery
from ssl_dgm.config import UserError
from ssl_dgm.tables import series, spec
from ssl_dgm.tables.cells import cells

SHOWN = Path(__file__).parent.parent.parent / "results" / "figures"
NO_DATA = {"aevb_faces"}  # of files that can't be had everywhere
SMALL = """
title: Small
source: Nobody, figure 1
draw: {draw}
base: [data=digits, labels=100, "network.hidden=[16]", trainer.figures=none]
runs:
  m2: {{label: M2, overrides: [model=m2, model.z_dim=2]}}
  m1: {{label: M1, overrides: [model=m1, classifier=none, model.z_dim=3]}}
caption: Look closely.
"""


def written(folder: Path, draw: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL.format(draw=draw))
    return path


def figures(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ssl_dgm.figures", *words], cwd=folder, text=True, capture_output=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("name", gallery.names())
def test_every_figure_reads_and_its_runs_compose(name: str) -> None:
    figure = gallery.read(gallery.find(name))
    assert figure.name == name and figure.budget in spec.BUDGETS
    if figure.draw == "table":
        assert series.axes(spec.read(spec.find(figure.table)))
        return
    for budget in spec.BUDGETS:
        made = cells(figure.as_table(), budget, "elsewhere")
        assert {cell.row for cell in made} == set(figure.runs)
        assert len({cell.key for cell in made}) == len(made)


def test_the_committed_page_shows_every_figure_that_is_committed(tmp_path: Path) -> None:
    shutil.copytree(SHOWN, tmp_path / "figures")
    every = [gallery.read(gallery.find(name)) for name in gallery.names()]
    gallery.page(tmp_path / "figures", every)
    page = (SHOWN / "README.md").read_text()
    assert (tmp_path / "figures" / "README.md").read_text() == page
    wanted = {figure.file(run) for figure in every for run in figure.runs}
    wanted -= NO_DATA
    wanted |= {figure.name for figure in every if figure.draw == "table"}
    assert {path.stem for path in SHOWN.glob("*.txt")} == wanted
    for name in wanted:
        assert (SHOWN / f"{name}.gif").exists() or {".png", ".pdf"} <= {p.suffix for p in SHOWN.glob(f"{name}.*")}
        assert f"![{name}]({name}." in page


def test_what_is_missing_is_trained_and_drawn_and_never_twice(tmp_path: Path) -> None:
    path = written(tmp_path, "draws")
    done = figures(tmp_path, f"figure={path}", "budget=smoke", "out=shown")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "m2@run: started" in done.stdout and "picture   shown/small.png" in done.stdout
    assert (tmp_path / "shown/small.pdf").stat().st_size > 1000
    caption = " ".join((tmp_path / "shown/small.txt").read_text().split())
    assert caption.startswith("Small (after Nobody, figure 1). Mean images of draws") and caption.endswith(
        "Look closely."
    )
    page = (tmp_path / "shown/README.md").read_text()
    assert "![small](small.png)" in page and caption in page
    first = (tmp_path / "shown/small.png").read_bytes()
    again = figures(tmp_path, f"figure={path}", "budget=smoke", "out=shown")
    assert "started" not in again.stdout and (tmp_path / "shown/small.png").read_bytes() == first


def test_runs_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "units")
    done = figures(tmp_path, f"figure={path}", "budget=smoke", "out=shown", "train=false")
    assert done.returncode == 1
    assert "not drawn small: m2 is missing" in done.stdout and not list(tmp_path.glob("shown/*.png"))


def test_a_figure_of_one_kind_and_several_runs_is_several_files() -> None:
    figure = gallery.Figure(draw="units", name="few", runs={"a": gallery.Run(), "b": gallery.Run()})
    assert [figure.file(run) for run in figure.runs] == ["few_a", "few_b"]
    assert gallery.Figure(draw="draws", name="few", runs=figure.runs).file("a") == "few"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALL.format(draw="unit"), "the nearest is units"),
        (SMALL.format(draw="units") + "colour: red\n", "is no figure"),
        ("title: [", "is no figure"),
        (SMALL.format(draw="units").replace("model=m2,", "'seeds=[3]',"), "is set by the command"),
        (SMALL.format(draw="units") + "at: {long: []}\n", "budget long"),
        (SMALL.format(draw="units").replace("{label: M2,", "{cell: table1/m3@100,"), "m3@100 is no cell of table1"),
        (SMALL.format(draw="units").replace("{label: M2,", "{cell: sweep/m2/m3@20,"), "m3@20 is no cell of sweep/m2"),
    ],
)
def test_what_is_no_figure_is_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"small\.yaml") as caught:
        gallery.read(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run=nowhere",), "nowhere is no run"),
        (("figure=nothing",), "figure=nothing is unknown"),
        (("only=units",), "one of run=, figure= and table= is needed, and only=units is given"),
        (("run=a", "figure=b"), "and run= and figure= are given"),
        (("run=a", "onyl=units"), "the nearest is only"),
        (("figure=all", "budget=long"), "budget=long is unknown"),
        (("figure=all", "minutes=soon"), "minutes=soon is no positive number"),
        (("run=",), "has no value"),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = figures(tmp_path, *words)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_help_names_every_figure(tmp_path: Path) -> None:
    done = figures(tmp_path, "--help")
    assert done.returncode == 0
    for name in (*gallery.names(), "analogies", "units", "figure=<name>"):
        assert name in done.stdout


def test_help_that_nobody_reads_to_its_end_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        done = subprocess.run(
            [sys.executable, "-m", "ssl_dgm.figures", "--help"], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr == ""


def test_ctrl_c_ends_the_training_of_all_figures(tmp_path: Path) -> None:
    path = written(tmp_path, "units")
    path.write_text(path.read_text().replace("trainer.figures=none", "trainer.figures=none, budget.epochs=100000"))
    started = subprocess.Popen(
        [sys.executable, "-m", "ssl_dgm.figures", f"figure={path}", "budget=smoke", "out=shown"], cwd=tmp_path,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    curve = "runs/m2-digits-100-smoke-*/group-0/metrics.csv"
    for _ in range(1200):
        if any(file.stat().st_size for file in tmp_path.glob(curve)):
            break
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert started.returncode == 130, out + err
    assert "interrupted; the same command continues" in err and "m1@run: started" not in out
    assert list(tmp_path.glob("runs/m2-*/group-0/epoch-*.ckpt")), "it is continued from here"

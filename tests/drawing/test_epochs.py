"""Figures over epochs: what validation records of y, and what panels show of it, as data and never as pixels."""

import contextlib
import csv
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMOKE
from matplotlib.figure import Figure
from scipy import stats

import ssl_dgm
from ssl_dgm import figures
from ssl_dgm.compose import compose
from ssl_dgm.config import Stopped, UserError
from ssl_dgm.data import sources
from ssl_dgm.drawing import curves, epochs, style
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.files import write_json
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.training.jobs import trained

# Values of y that are no class, and an epoch of every two without validation.
WORDS = (
    *SMOKE, "seeds=[0,1]", "labels=48", "classes.hidden=[3,4]", "classes.extra=2", "budget.epochs=4",
    "trainer.validate_every=2", "trainer.checkpoint_every=1", "trainer.figures=none", "optimizer.lr=0.005",
    "objective.classification=10",
)  # fmt: skip
OF_Y = ("validation/entropy_y", "validation/entropy_slots", "validation/slots_used")
BOUND, ERROR = "train/bound_unlabelled", "validation/error"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `WORDS`."""
    return ssl_dgm.fit(*WORDS, f"runs={tmp_path_factory.mktemp('runs')}", verbose=False).folder


@pytest.fixture(scope="module")
def seen(run: Path) -> Trained:
    fitted = ssl_dgm.load(run, 1)
    return trained(fitted._job, fitted._network, 1)


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("group-*/metrics.csv")
    return [{n: v for n, v in row.items() if n != "seconds"} for row in csv.DictReader(path.read_text().splitlines())]


def written(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A run's folder with these rows of metrics.csv."""
    lines = [{"epoch": 1, "seed": 0, "seconds": 1.0} | dict(row) for row in rows]
    path = folder / "group-0" / "metrics.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return folder


def drawn(*folders: Path) -> Figure:
    with style.sheet():
        return curves.compared([(f"run {i}", folder) for i, folder in enumerate(folders)]).figure


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), round(float(y), 6)) for x, y in zip(*line.get_data(), strict=True)]


# --- What validation records


def test_validation_says_how_y_is_used(run: Path) -> None:
    digits = sources.load("digits")
    validation = digits.train_x[digits.num_train :]
    for seed in (0, 1):
        own = [row for row in rows_of(run) if row["seed"] == str(seed)]
        assert [row[name] for row in own for name in OF_Y if row["epoch"] in "13"] == [""] * 6
        q = ssl_dgm.load(run, seed).predict_proba(validation)
        counts = np.bincount(q.argmax(1), minlength=12)
        expected = stats.entropy(q, axis=1).mean(), stats.entropy(counts), (counts > 0).sum()  # 0.1 % of 200: one row
        np.testing.assert_allclose([float(own[-1][name]) for name in OF_Y], expected, rtol=1e-4)
        assert 1 < expected[-1] < 12, "or the test would not tell values in use from others"


@pytest.mark.parametrize(("weight", "expected"), [(0.0, (np.log(12), 0, 1)), (np.nan, (np.nan,) * 3)])
def test_a_collapsed_and_a_lost_seed(run: Path, weight: float, expected: Sequence[float]) -> None:
    model = ssl_dgm.load(run).model
    assert isinstance(model, DeepGenerativeModel)
    for parameter in model.parameters():
        parameter.data.fill_(weight)
    model.on_validation_epoch_start()
    model.validation_step((torch.rand(2000, 64), torch.eye(12)[torch.arange(2000) % 10]), 0)
    model.on_validation_epoch_end()
    found = [model.validation[name.removeprefix("validation/")].item() for name in OF_Y]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_older_version", [False, True])
def test_a_stopped_run_goes_on_with_the_columns_that_it_began_with(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], by_older_version: bool
) -> None:
    words = (*WORDS, f"runs={tmp_path}")
    with contextlib.suppress(Stopped):
        ssl_dgm.fit(*words, "time_limit=0.01s", verbose=False)
    (path,) = tmp_path.glob("*/group-0-1/metrics.csv")
    begun, expected = rows_of(path.parent.parent), rows_of(run)
    assert begun == expected[: len(begun)] and len(begun) < len(expected)
    if by_older_version:
        lines = [",".join(line.split(",")[: -len(OF_Y)]) for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
        expected = [{n: v for n, v in row.items() if n not in OF_Y} for row in expected]
    ssl_dgm.fit(*words, "trainer.progress=true")
    assert rows_of(path.parent.parent) == expected
    bar = capsys.readouterr().err
    assert "val_error=" in bar and "slots" not in bar and "entropy" not in bar
    assert epochs.read(path.parent.parent).keys() >= {BOUND, ERROR}


# --- Learning curves


def test_many_seeds_are_a_mean_and_its_interval_at_the_epochs_that_were_validated(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0.1, 0.2, (6, 5))
    rows = [
        {"epoch": e + 1, "seed": s, BOUND: -1.0, ERROR: v if e % 2 else "", "test/error": 0.5}
        for (e, s), v in np.ndenumerate(values)
    ]
    figure = drawn(written(tmp_path, rows))
    assert [panel.get_ylabel().replace("\n", " ") for panel in figure.axes] == [
        "validation error (%)", "bound of unlabelled rows (nats)",
    ]  # fmt: skip
    (mean,), (band,) = figure.axes[0].lines, list[Any](figure.axes[0].collections)
    at, shown = np.array([2, 4, 6]), 100 * values[1::2]
    assert points(mean) == list(zip(at, shown.mean(1).round(6)))
    low, high = stats.t.interval(0.95, 4, shown.mean(1), stats.sem(shown, axis=1))
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices.tolist()}
    assert corners == {(x, round(y, 6)) for edge in (low, high) for x, y in zip(at, edge)}
    assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[0].get_ylim()[1] > high.max()


def test_few_seeds_are_lines_and_one_epoch_is_a_point(tmp_path: Path) -> None:
    rows = [{"epoch": e, "seed": s, ERROR: (s + e) / 100} for e in (1, 2) for s in (0, 1, 2)]
    *seeds, mean = drawn(written(tmp_path / "few", rows)).axes[0].lines
    assert [points(line) for line in seeds] == [[(1, s + 1), (2, s + 2)] for s in (0, 1, 2)]
    assert points(mean) == [(1, 2), (2, 3)]
    assert mean.get_linewidth() > 2 * seeds[0].get_linewidth()
    assert mean.axes is not None and mean.axes.get_ylim()[1] < 5, "no interval is there to make room for"
    (panel,) = drawn(written(tmp_path / "one", rows[:1])).axes
    assert {tuple(points(line)) for line in panel.lines} == {((1, 1),)} and panel.lines[-1].get_marker() == "o"
    (panel,) = drawn(written(tmp_path / "many", [{"seed": s, ERROR: s / 100} for s in range(4)])).axes
    low, high = stats.t.interval(0.95, 3, 1.5, stats.sem(range(4)))
    (interval,) = list[Any](panel.collections)
    assert interval.get_segments()[0].tolist() == pytest.approx(np.array([[1, low], [1, high]]))


def test_a_lost_seed_ends_in_a_cross_and_is_in_no_mean(tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "seed": s, BOUND: "nan" if s == 2 and e > 3 else -s, ERROR: 0.9 if s == 2 else 0.1}
        for e in range(1, 6) for s in range(3)
    ]  # fmt: skip
    panel = drawn(written(tmp_path, rows)).axes[0]
    lost, cross = panel.lines[2:4]
    assert points(lost) == [(1, 90), (2, 90), (3, 90)] and (points(cross), cross.get_marker()) == ([(3, 90)], "x")
    assert points(panel.lines[-1]) == [(e, 10) for e in range(1, 6)]
    assert panel.get_ylim()[1] < 20, "a lost seed does not squeeze the others"
    every = [row | {BOUND: "nan" if int(row["epoch"]) > 1 else -1} for row in rows]
    panel = drawn(written(tmp_path, every)).axes[0]
    assert [points(line) for line in panel.lines[1::2]] == [[(1, 10)], [(1, 10)], [(1, 90)]]
    assert panel.get_ylim()[1] > 90


def test_a_mean_is_over_epochs_that_all_seeds_have_reached_and_of_the_newest_group(tmp_path: Path) -> None:
    written(tmp_path, [{"epoch": e, "seed": s, ERROR: 0.1} for e in (1, 2, 3) for s in (0, 1)])
    newer = written(tmp_path / "newer", [{"epoch": e, "seed": 1, ERROR: 0.3} for e in (1, 2)])
    (newer / "group-0").rename(tmp_path / "group-1")
    assert points(drawn(tmp_path).axes[0].lines[-1]) == [(1, 20), (2, 20)]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([-1000.0] + [-100.0 - e for e in range(19)], (-118, -101)),  # far off at first
        ([-130.0] + [-100.0 - e for e in range(19)], (-130, -100)),  # there is room for it
        ([-101.0] * 10 + [-1000.0] + [-100.0] * 9, (-1000, -100)),  # a collapse is not left out
        ([-1000.0, -100.0], (-1000, -100)),
    ],
)
def test_first_epochs_do_not_squeeze_the_others(
    tmp_path: Path, bounds: Sequence[float], expected: tuple[float, float]
) -> None:
    found = epochs.read(written(tmp_path, [{"epoch": e + 1, BOUND: bound} for e, bound in enumerate(bounds)]))
    room = epochs.MARGIN * (expected[1] - expected[0])
    assert epochs.limits([found[BOUND]]) == pytest.approx((expected[0] - room, expected[1] + room))


# --- Several runs


def test_several_runs_have_a_colour_each_and_every_panel_that_one_of_them_has(tmp_path: Path) -> None:
    of_y = written(tmp_path / "a", [{"epoch": e, BOUND: -e, ERROR: 0.1} for e in (1, 2)])
    of_x = written(tmp_path / "b", [{"epoch": e, "validation/bound": -5.0 * e} for e in (1, 2, 3)])
    with style.sheet():
        made = curves.compared(
            [("labels=100", of_y), ("model=m1, a title between $ and $, " + "model=m1m2, " * 9, of_x)]
        )
        figure = made.figure
        figure.draw_without_rendering()
    error, of_rows, unlabelled = figure.axes
    assert (points(of_rows.lines[-1])[-1], points(unlabelled.lines[-1])[-1]) == ((3, -15), (2, -2))
    assert error.lines[-1].get_color() == unlabelled.lines[-1].get_color() != of_rows.lines[-1].get_color()
    (legend,) = figure.legends
    assert [handle.get_color() for handle in legend.get_lines()] == [
        error.lines[-1].get_color(), of_rows.lines[-1].get_color(),
    ]  # fmt: skip
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
    assert box.y1 < min(panel.get_tightbbox().y0 for panel in list[Any](figure.axes)), "it stands under all panels"
    assert "a (labels=100), n = 1" in made.caption


def test_what_is_drawn_of_several_runs_is_written_beside_it(tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "seed": s, ERROR: 0.1 * s + 0.01 / e if e > 1 else "", "z": 1} for e in (1, 2, 3) for s in (4, 2)
    ]
    runs = [(name, written(tmp_path / name, rows)) for name in ("a", "b, c")]
    with style.sheet():
        style.save(curves.compared(runs), tmp_path, "both")
    assert (
        (tmp_path / "both.csv").read_text()
        == f"""run,seed,epoch,{ERROR}
a,2,2,0.205
a,2,3,0.203333
a,4,2,0.405
a,4,3,0.403333
"b, c",2,2,0.205
"b, c",2,3,0.203333
"b, c",4,2,0.405
"b, c",4,3,0.403333
"""
    )


@pytest.mark.parametrize(("model", "panels"), [("sdgm", 1), ("m1m2", 1), ("avae", 2)])
def test_bounds_of_different_rows_are_not_compared(model: str, panels: int, tmp_path: Path) -> None:
    folders = []
    for words in (["model=adgm"], [f"model={model}", *(["data=mnist"] if model == "sdgm" else [])]):
        folders.append(written(tmp_path / words[0], [{BOUND: -9.0, ERROR: 0.1}]))
        write_json(folders[-1] / "config.json", {"settings": dataclasses.asdict(compose(words))})
    with style.sheet():
        made = curves.compared([(folder.name, folder) for folder in folders])
    assert len(made.figure.axes) == panels and ("are left out" in made.caption) == (panels == 1)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    there = written(tmp_path / "there", [{ERROR: 0.1}])
    with pytest.raises(UserError, match="nothing has no curves; leave it out"):
        drawn(there, tmp_path / "nothing")
    with pytest.raises(UserError, match="9 runs are more than 8 colours can tell apart"):
        drawn(*[there] * 9)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ssl_dgm.figures", *words])
    with pytest.raises(SystemExit) as ended:
        figures.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_draws_several_runs_and_says_what_differs(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = [word for word in WORDS if not word.startswith(("seeds", "budget.epochs", "optimizer"))]
    other = ssl_dgm.fit(*short, "budget.epochs=1", "optimizer.lr=0.01", "runs=others", verbose=False).folder
    capsys.readouterr()
    assert command(monkeypatch, f"run={run}", f"run={other}") == 0
    assert capsys.readouterr().out == "picture   figures/curves.png\n"
    caption = " ".join((tmp_path / "figures" / "curves.txt").read_text().split())
    assert f"{run.name} (budget.epochs=4, optimizer.lr=0.005), n = 2" in caption
    assert f"{other.name} (budget.epochs=1, optimizer.lr=0.01), n = 1" in caption
    assert "test error" not in caption
    both = (f"run={run}", f"run={other}")
    for words, sentence in (
        ((*both, "only=units"), "only=units is of one run; several share only=curves"),
        ((*both, "seed=1"), "seed=1 has no use for the curves of several runs; leave it out"),
        ((*both, both[0]), f"{run} is named twice; leave one out"),
        ((*both, "out=a", "out=b"), "out= is given twice; leave one out"),
    ):
        assert command(monkeypatch, *words) == 2
        assert capsys.readouterr().err == f"ssl_dgm: {sentence}\n"


# --- Collapse of y


def test_the_use_of_y_is_drawn_of_every_seed_beside_what_it_is_at_most(run: Path, seen: Trained) -> None:
    with style.sheet():
        made = curves.slots(seen)
    assert made is not None
    above, below = made.figure.axes
    found = [
        [[float(row[name]) for row in rows_of(run) if row["seed"] == seed and row[name]] for seed in "01"]
        for name in (OF_Y[2], OF_Y[1], OF_Y[0])
    ]
    for lines, seeds in ((above.lines[1:], found[0]), (below.lines[1:4], found[1]), (below.lines[4:], found[2])):
        expected = [[(2, round(a, 6)), (4, round(b, 6))] for a, b in [*seeds, np.mean(seeds, 0)]]
        assert [points(line) for line in lines] == expected
    for panel, most in ((above, 12), (below, np.log(12))):
        assert {y for _, y in points(panel.lines[0])} == {round(most, 6)} and panel.lines[0].get_linestyle() == "--"
        assert panel.get_ylim() == pytest.approx((0, 1.08 * most))


def test_older_runs_and_models_without_classes_have_no_use_of_y(seen: Trained, tmp_path: Path) -> None:
    older = written(tmp_path, [{"epoch": e, ERROR: 0.1, BOUND: -1.0} for e in (1, 2)])
    assert curves.slots(dataclasses.replace(seen, folder=older)) is None
    assert curves.curves(dataclasses.replace(seen, folder=older)) is not None
    assert curves.curves(dataclasses.replace(seen, folder=tmp_path / "estimator")) is None


def test_runs_with_nothing_but_bounds_of_different_rows_are_refused(tmp_path: Path) -> None:
    folders = []
    for words in (["model=m1", "classifier=none"], ["model=m1", "classifier=none", "data=mnist"]):
        folders.append(written(tmp_path / str(len(words)), [{"validation/bound": -9.0}]))
        write_json(folders[-1] / "config.json", {"settings": dataclasses.asdict(compose(words))})
    with pytest.raises(UserError, match="has only bounds, and they are of other rows"):
        drawn(*folders)


def test_a_band_that_is_cut_is_no_early_epoch(tmp_path: Path) -> None:
    errors = [0.2, 0.02, 0.02, 0.02]
    rows = [{"epoch": e, "seed": s, ERROR: error} for e in range(1, 31) for s, error in enumerate(errors)]
    folder = written(tmp_path, rows)
    with style.sheet():
        assert "first epochs" not in curves.compared([("a run", folder)]).caption

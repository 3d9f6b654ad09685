"""Figures of tables: what stands where in them, against the rows that they are drawn of."""

import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from ssl_dgm import figures
from ssl_dgm.config import Config, UserError
from ssl_dgm.drawing import style, tables
from ssl_dgm.drawing.style import Drawn
from ssl_dgm.tables import collect, report, series, spec
from ssl_dgm.tables.cells import Cell, State, cells
from ssl_dgm.tables.report import Made
from ssl_dgm.tables.series import Axis, Point

ROOT = Path(__file__).parents[2]
PLACES = [(row, column) for row in ("m1m2", "m1+svm") for column in ("100", "600", "1000", "3000")]
Values = Mapping[tuple[str, str], Sequence[float]]  # of seeds, by row and column
TABLE = """
title: Test error (%) of things
source: Somebody 1999
corner: labels
seeds: {paper: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
base: [baseline=null, data=digits]
columns:
  20: {overrides: [labels=20]}
  50: {overrides: [labels=50]}
  400: {overrides: [labels=400]}
rows:
  svm: {label: SVM, overrides: [model=svm], published: {20: [24.0, 3.0], 400: [5.0]}}
  knn: {label: k-NN of $1, overrides: [model=knn]}
  nn: {overrides: [model=nn], published: {50: [8.0, 0.5]}, unverified: true}
quoted:
  old: {label: An old one, values: {20: [30.0]}}
"""
LATENTS = """
title: Bound
source: Somebody 1999
corner: latents
metric: test/bound
seeds: {paper: [0, 1]}
columns: {3: {overrides: [model.z_dim=3]}, 200: {overrides: [model.z_dim=200]}, 20: {overrides: [model.z_dim=20]}}
rows: {m1: {overrides: [model=m1]}}
"""


@pytest.fixture(scope="module")
def table1() -> Made:
    table, csv = spec.read(spec.find("table1")), ROOT / "results" / "short" / "table1.csv"
    made = report.of(table, "short", csv, print)
    assert made is not None
    return made


def made_of(folder: Path, values: Values, text: str = TABLE) -> Made:
    """A table with these values, read back from a CSV of them."""
    (folder / "small.yaml").write_text(text)
    table, csv = spec.read(folder / "small.yaml"), folder / "small.csv"
    states = {}
    for (row, column), of_seeds in values.items():
        metric, key = table.metric_of(column), f"{row}-{column}-0"
        for seed, value in enumerate(of_seeds):
            record = {"key": key, "seed": seed, "metrics": {metric: value}}
            collect.append(csv, collect.rows(record, table.name, row, column), print)
        rows = [r for r in collect.read(csv, print) if (r["row"], r["column"]) == (row, column)]
        # What the cell runs is not drawn, and takes a fifth of a second to compose.
        states[Cell(row, (column,), (metric,), (), Config(), key, None)] = State("done", rows)
    return Made(table, "paper", csv, states)


def draw(made: Made, *rows: str) -> Drawn:
    with style.sheet():
        drawn = tables.against(made, series.axes(made.table), rows)
        drawn.figure.draw_without_rendering()
        return drawn


def lines(drawn: Drawn) -> dict[str, Any]:
    return {line.get_label(): line for line in drawn.figure.axes[0].lines if not line.get_label().startswith("_")}


def bars(drawn: Drawn, colour: str) -> list[tuple[float, float]]:
    """Lower and upper ends of the error bars of a colour."""
    found = [container[2][0] for container in drawn.figure.axes[0].containers]
    ends = [bar.get_segments()[0][:, 1] for bar in found if to_hex(bar.get_color()[0]) == colour.lower()]
    return [(float(low), float(high)) for low, high in ends]


def legend(drawn: Drawn) -> dict[str, Any]:
    (box,) = drawn.figure.legends
    return {text.get_text(): handle for text, handle in zip(box.get_texts(), box.legend_handles)}


def test_committed_rows_are_drawn_with_their_means_and_intervals(table1: Made) -> None:
    drawn = draw(table1, "m1m2", "m1+svm")
    rows = [r for r in collect.read(table1.csv, print) if (r["row"], r["metric"]) == ("m1+svm", "test/error")]
    means, intervals = [], []
    for number in (100, 600, 1000, 3000):
        errors = 100 * np.array([float(r["value"]) for r in rows if r["column"] == str(number)])
        means.append(errors.mean())
        intervals.append(stats.t.interval(0.95, len(errors) - 1, errors.mean(), stats.sem(errors)))
    assert lines(drawn)["m1+svm"].get_ydata() == pytest.approx(means)
    assert np.array(bars(drawn, style.BLUE)) == pytest.approx(np.array(intervals))
    panel = drawn.figure.axes[0]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["100", "600", "1,000", "3,000"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("number of labels", "test error (%)")
    counts = sorted({len(collect.values(table1.by_place[place].rows, "test/error")) for place in PLACES})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    assert f"the mean over {seeds} seeds, with Student's 95 % interval" in drawn.caption
    assert "Half filled" not in drawn.caption


def test_published_numbers_stand_beside_in_the_rows_colour_hollow_and_dotted(table1: Made) -> None:
    places = {cell: state for cell, state in table1.states.items() if cell.column in ("100", "600")}
    drawn = draw(dataclasses.replace(table1, states=places), "m1m2")
    ours, published = lines(drawn)["m1m2"], lines(drawn)["m1m2, published"]
    assert published.get_ydata() == pytest.approx([3.33, 2.59, 2.40, 2.18])
    assert published.get_color() == ours.get_color() == style.BLUE
    assert (published.get_linestyle(), published.get_markerfacecolor()) == (":", "white")
    assert any(pair == pytest.approx((2.38, 2.42)) for pair in bars(drawn, style.BLUE)), "the spread as it is printed"
    assert np.isnan(ours.get_ydata()).tolist() == [False, False, True, True], "nothing was run there"
    assert list(legend(drawn)) == ["M1+M2", "published"]


def test_all_rows_with_results_are_told_apart_without_colour_and_nothing_is_covered(table1: Made) -> None:
    drawn = draw(table1)
    run = {row["row"] for row in collect.read(table1.csv, print)}
    single = any(len(collect.values(state.rows, "test/error")) == 1 for state in table1.by_place.values())
    names = [row.label for name, row in table1.table.rows.items() if name in run]
    assert {"M1 + SVM", "M1+M2"} <= set(names)
    handles = legend(drawn)
    assert list(handles) == [*names, *["one seed"] * single, "published"], (
        "rows without results and quoted ones are left out"
    )
    assert len({handles[name].get_marker() for name in names}) == len(names)
    panel, (box,) = drawn.figure.axes[0], drawn.figure.legends
    assert panel.get_yscale() == "log" and "logarithmic, for it spans more than a decade" in drawn.caption
    assert not panel.get_window_extent().overlaps(box.get_window_extent())
    assert drawn.figure.bbox.x1 >= box.get_window_extent().x1, "nothing is cut off"


def test_points_stand_at_their_number_and_those_that_would_hide_each_other_beside_it(tmp_path: Path) -> None:
    same = [0.10, 0.11, 0.12]
    drawn = draw(made_of(tmp_path, {("svm", "50"): same, ("knn", "50"): same, ("nn", "50"): [0.50]}))
    at = {row: lines(drawn)[row].get_xdata()[1] for row in ("svm", "knn", "nn")}
    assert at["svm"] == at["nn"] == 50 and 50 < at["knn"] < 60


def test_every_kind_of_cell(tmp_path: Path) -> None:
    ten = [0.20 + 0.01 * seed for seed in range(10)]
    values = {("svm", "20"): ten, ("svm", "400"): [0.06]}
    values |= {("knn", "20"): [0.2, float("nan")], ("knn", "50"): [0.15, 0.17]}
    drawn = draw(made_of(tmp_path, values))
    found = lines(drawn)
    assert found["svm"].get_ydata() == pytest.approx([24.5, np.nan, 6.0], nan_ok=True)
    assert found["knn"].get_ydata() == pytest.approx([np.nan, 16.0, np.nan], nan_ok=True)
    interval = stats.t.interval(0.95, 9, 24.5, stats.sem(100 * np.array(ten)))
    assert bars(drawn, style.BLUE) == [pytest.approx(interval), pytest.approx((21.0, 27.0))], "none of a single seed"
    assert found["svm, n = 10"].get_fillstyle() == "full"
    assert (found["svm, n = 1"].get_fillstyle(), *found["svm, n = 1"].get_ydata()) == ("left", pytest.approx(6.0))
    assert list(legend(drawn)) == ["SVM", r"k-NN of \$1", "one seed", "published"]
    for sentence in (
        "the mean over 2 to 10 seeds", "Half filled: one seed", "Hollow and dotted: Somebody 1999",
        "Not drawn, since a seed's value is not finite: k-NN of $1 at 20 labels.",
    ):  # fmt: skip
        assert sentence in drawn.caption


@pytest.mark.parametrize(
    ("values", "scale", "says"),
    [
        ({("svm", "20"): [0.2, 0.21], ("svm", "50"): [0.1]}, "linear", "The axis of test error begins at 0."),
        ({("knn", "20"): [0.3], ("knn", "50"): [0.02]}, "log", "is logarithmic, for it spans more than a decade."),
        ({("knn", "20"): [0.3], ("knn", "50"): [0.001, 0.03]}, "log", "; bars that reach its end go on beyond it."),
        ({("knn", "20"): [0.3], ("knn", "50"): [0.0]}, "linear", "The axis of test error begins at 0."),
    ],
)
def test_errors_begin_at_0_unless_they_span_a_decade(values: Values, scale: str, says: str, tmp_path: Path) -> None:
    drawn = draw(made_of(tmp_path, values))
    panel = drawn.figure.axes[0]
    assert panel.get_yscale() == scale and says in drawn.caption
    bottom, top = panel.get_ylim()
    assert (bottom == 0) == (scale == "linear")
    shown = [y for line in lines(drawn).values() for y in line.get_ydata() if np.isfinite(y)]
    assert all(bottom <= y <= top for y in shown) and len(shown) > 2


def test_a_row_that_was_not_run_is_drawn_in_grey_where_it_is_asked_for(tmp_path: Path) -> None:
    made = made_of(tmp_path, {("svm", "20"): [0.2, 0.21]})
    assert list(legend(draw(made))) == ["SVM", "published"]
    drawn = draw(made, "svm", "nn", "old")
    colours = {name: handle.get_color() for name, handle in legend(drawn).items()}
    assert colours == {"SVM": style.BLUE, "nn": "0.45", "An old one": "0.45", "published": "black"}
    assert "Grey: nn, An old one, not run here. Unverified, not found in a text at hand: what is" in drawn.caption
    with pytest.raises(UserError, match=r"small.csv has nothing to draw of knn; .* small --only knn makes it"):
        draw(made, "svm", "knn")


def test_bounds_are_drawn_against_latents_on_an_axis_of_their_own_range(tmp_path: Path) -> None:
    values = {("m1", "3"): [-130, -131], ("m1", "20"): [-99, -100], ("m1", "200"): [-100, -101]}
    drawn = draw(made_of(tmp_path, values, LATENTS))
    panel, line = drawn.figure.axes[0], lines(drawn)["m1"]
    assert line.get_xdata() == pytest.approx([3, 20, 200]), "in the order of the numbers"
    assert line.get_ydata() == pytest.approx([-130.5, -99.5, -100.5])
    assert (panel.get_xscale(), panel.get_xlabel()) == ("log", "number of latents")
    assert panel.get_ylabel() == "test bound (nats)"
    assert panel.get_ylim()[1] < 0 and "The axis of test bound does not begin at 0" in drawn.caption


def test_accuracies_are_shares_however_long_their_intervals(tmp_path: Path) -> None:
    text = TABLE.replace("corner: labels", "corner: labels\nmetric: test/accuracy")
    drawn = draw(made_of(tmp_path, {("knn", "20"): [0.6], ("knn", "50"): [0.8, 0.99]}, text))
    bottom, top = drawn.figure.axes[0].get_ylim()
    assert bottom == 0 and 100 < top < 110
    assert "The axis of test accuracy begins at 0; bars that reach its end go on beyond it." in drawn.caption


def test_columns_of_several_data_sets_have_an_axis_each() -> None:
    (axis,) = series.axes(spec.read(spec.find("figueroa_table1")))
    assert axis == Axis("labels", "test/error", "Fashion-MNIST", {"fashion_100": 100, "fashion_1000": 1000})


def test_the_points_of_a_series(tmp_path: Path) -> None:
    made = made_of(tmp_path, {("svm", "400"): [0.06]})
    (one,) = series.of(made, *series.axes(made.table))
    assert one.ours == [Point(400, 6.0, n=1)]
    assert one.published == [Point(20, 24.0, 21.0, 27.0), Point(400, 5.0)]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`python -m ssl_dgm.figures` with these words; returns the exit code and all that it said."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ssl_dgm.figures", *words])
        with pytest.raises(SystemExit) as ended:
            figures.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


def test_the_command_draws_what_the_rows_say(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    made = made_of(tmp_path, {("knn", "20"): [0.2, 0.22], ("knn", "50"): [0.1, 0.12]})
    known, results = collect.read(made.csv, print), tmp_path / "results"
    words = [f"table={tmp_path / 'small.yaml'}", f"results={results}"]
    hashes = {c.column: c.config_hash for c in cells(made.table, "paper", "nowhere", known, only_known=True)}
    rows = [row | {"config_hash": hashes[row["column"]]} for row in known]
    collect.append(results / "small.csv", [collect.placed(r, "small", "knn", r["column"]) for r in rows], print)
    assert command(*words) == (0, f"picture   {results / 'figures' / 'small_paper.png'}\n")
    files = sorted((results / "figures").iterdir())
    assert [file.name for file in files] == ["small_paper.pdf", "small_paper.png", "small_paper.txt"]
    assert files[2].read_text().startswith("Test error (%) of things, budget=paper. Filled: the mean over 2 seeds")
    code, said = command(*words, "rows=knn,svn")
    assert code == 2 and said.endswith("small has no row svn; the nearest is svm\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table=tabel1"], "table 'tabel1' is unknown; the nearest is table1"),
        (["table=density"], "density has no columns that differ in a number alone; draw one like table1"),
        (["table=kingma_table2"], "kingma_table2 has no columns that differ in a number alone"),
        (["table=table1", "budget=long"], "budget=long is none of table1; there are paper, short, smoke"),
        (["table=table1", "seed=1"], "'seed' is no setting of table=; there are budget, out, results, rows, table"),
        (["tabel=table1"], "one of run=, figure= and table= is needed, and tabel=table1"),
        (
            ["table=table1", "budget=short"],
            "results/short/table1.csv has no rows of table1 as it is set; "
            "'python -m ssl_dgm.table table1 --budget short' makes them\n",
        ),
        (
            ["table=table1", "results=short_alone"],
            "'python -m ssl_dgm.table table1 --budget paper' makes them, and budget=short has some",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_sentence(
    words: list[str], sentence: str, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short_alone" / "short").mkdir(parents=True)
    shutil.copy(ROOT / "results" / "short" / "table1.csv", tmp_path / "short_alone" / "short")
    before = sorted(tmp_path.rglob("*"))
    code, said = command(*words)
    assert code == 2 and sentence in said
    assert sorted(tmp_path.rglob("*")) == before

"""The YAML of a table: what is read, what is refused, and which runs its cells are."""

import shutil
from pathlib import Path

import pytest
import yaml

from ssl_dgm.config import UserError
from ssl_dgm.tables import spec
from ssl_dgm.tables.cells import cells

TABLES = [*spec.names(), *spec.sweeps()]
SEEDS = [(name, budget) for name in TABLES for budget in spec.read(spec.find(name)).seeds]
SMALL = """
title: Small
source: Nobody 2014
seeds: {smoke: [0, 1]}
base: [data=digits]
columns:
  20: {overrides: [labels=20]}
  b: {overrides: [labels=50]}
rows:
  m2: {overrides: [model=m2]}
  nn: {overrides: [model=nn], published: {20: [7, 1], b: [6.5]}}
quoted:
  TSVM: {values: {b: [6]}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def keys(path: Path, budget: str = "smoke") -> dict[tuple[str, str], str]:
    return {(cell.row, cell.column): cell.key for cell in cells(spec.read(path), budget, "runs")}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_reads_and_is_named_by_its_file(name: str) -> None:
    table = spec.read(spec.find(name))
    assert table.name == name.removeprefix("sweep/")
    assert table.is_sweep == name.startswith("sweep/")
    assert set(table.seeds) <= set(spec.BUDGETS)


@pytest.mark.parametrize(("name", "budget"), SEEDS)
def test_every_cell_composes_and_is_a_run_of_its_own(name: str, budget: str) -> None:
    table = spec.read(spec.find(name))
    made = cells(table, budget, "elsewhere")
    shown = {(cell.row, column): metric for cell in made for column, metric in zip(cell.columns, cell.metrics)}
    assert shown == {(r, c): table.metric_of(c) for r in table.rows for c in table.columns_of(r)}
    assert len({cell.key for cell in made}) == len(made)
    for cell in made:
        assert cell.config.seeds == table.seeds[budget]
        assert cell.config.budget.name == budget
        assert cell.folder == Path("elsewhere") / cell.key


def test_a_cell_is_base_row_and_column_at_a_budget(tmp_path: Path) -> None:
    first, *_, last = cells(spec.read(written(tmp_path, SMALL)), "smoke", "runs")
    assert first.name == "m2@20"
    assert first.command([0]) == ["data=digits", "model=m2", "labels=20", "budget=smoke", "seeds=[0]"]
    assert (last.name, last.config.model.name, last.config.labels) == ("nn@b", "nn", 50)
    assert first.key.endswith(first.config_hash)


def test_the_m1_that_a_cell_builds_on_is_a_run_too(tmp_path: Path) -> None:
    text = SMALL.replace("model=m2]", "model=m1m2]")
    made = {cell.name: cell for cell in cells(spec.read(written(tmp_path, text)), "smoke", "runs")}
    assert made["m2@20"].first_key is not None
    assert made["m2@20"].first_key == made["m2@b"].first_key, "an M1 reads no label, and is trained once"
    assert made["nn@20"].first_key is made["nn@20"].first_folder is None


def test_columns_and_numbers_may_be_numbers(tmp_path: Path) -> None:
    table = spec.read(written(tmp_path, SMALL))
    assert list(table.columns) == ["20", "b"]
    assert table.rows["nn"].published == {"20": [7.0, 1.0], "b": [6.5]}
    assert isinstance(table.rows["nn"].published["20"][0], float)
    assert table.quoted["TSVM"].values == {"b": [6.0]}


MORE = SMALL.replace("nn: {", "nn: {columns: {20: ['network.hidden=[9]']}, at: {smoke: [split_seed=3]}, ").replace(
    ", b: [6.5]", ""
)


def test_a_row_may_lack_columns_and_adds_settings_to_a_column_and_at_a_budget(tmp_path: Path) -> None:
    table = spec.read(written(tmp_path, MORE))
    assert (table.columns_of("m2"), table.columns_of("nn")) == (["20", "b"], ["20"])
    made = {cell.name: cell for cell in cells(table, "smoke", "runs")}
    assert list(made) == ["m2@20", "m2@b", "nn@20"]
    assert (made["nn@20"].config.network.hidden, made["nn@20"].config.split_seed) == ([9], 3)
    assert made["m2@20"].config.split_seed is None


def test_a_column_adds_settings_at_a_budget_which_a_row_s_may_replace(tmp_path: Path) -> None:
    at = "{smoke: [split_seed=4, optimizer.lr=1e-2], short: [split_seed=5]}"
    text = SMALL.replace("  b: {", f"  b: {{at: {at}, ").replace("nn: {", "nn: {at: {smoke: [split_seed=3]}, ")
    made = {cell.name: cell.config for cell in cells(spec.read(written(tmp_path, text)), "smoke", "runs")}
    assert {name: config.split_seed for name, config in made.items()} == {
        "m2@20": None, "m2@b": 4, "nn@20": 3, "nn@b": 3,
    }  # fmt: skip
    assert [name for name, config in made.items() if config.optimizer.lr == 1e-2] == ["m2@b", "nn@b"]


def test_columns_of_other_metrics_of_a_run_are_one_cell(tmp_path: Path) -> None:
    text = SMALL.replace("  b:", "  bound: {overrides: [labels=20], metric: test/bound}\n  b:")
    table = spec.read(written(tmp_path, text))
    first, second, *_ = cells(table, "smoke", "runs")
    assert (first.columns, first.metrics) == (("20", "bound"), ("test/error", "test/bound"))
    assert (first.name, second.name) == ("m2@20", "m2@b")


def test_settings_of_another_budget_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL.replace("model=m2]", "model=m2, budget.name=paper]"))
    with pytest.raises(UserError) as refused:
        keys(path)
    assert str(refused.value) == ("cell m2@20 of small: its settings are of budget.name=paper; shorten them under `at`")


@pytest.mark.parametrize(
    ("metric", "scale", "lower"),
    [
        ("test/error", 100.0, True),
        ("test/bound", 1.0, False),
        ("test/nmi", 100.0, False),
        ("test/entropy_y", 1.0, True),
    ],
)
def test_units_and_directions(metric: str, scale: float, lower: bool) -> None:
    assert (spec.scale(metric), spec.lower_is_better(metric)) == (scale, lower)


@pytest.mark.parametrize("name", ["maaloe_table1", "willetts_table1"])
def test_editing_a_row_renames_the_runs_of_that_row_alone(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    shutil.copy(spec.find(name), copy)
    budget = next(iter(spec.read(copy).seeds))
    before = keys(copy, budget)
    content = yaml.safe_load(copy.read_text())
    edited = list(content["rows"])[-1]
    content["rows"][edited].setdefault("overrides", []).append("network.hidden=[7]")
    content["rows"][edited]["note"] = "Another."
    copy.write_text(yaml.safe_dump(content, sort_keys=False))
    after = keys(copy, budget)
    assert before.keys() == after.keys()
    assert {cell for cell in before if before[cell] != after[cell]} == {cell for cell in before if cell[0] == edited}


def test_labels_notes_and_numbers_are_no_part_of_a_run(tmp_path: Path) -> None:
    before = keys(written(tmp_path, SMALL))
    text = SMALL.replace("[7, 1]", "[8.5]").replace("model=m2]", "model=m2], label: M2, note: Long")
    assert keys(written(tmp_path, f"{text}reference: m2\ndigits: 1")) == before


REFUSED: list[tuple[str, str, str]] = [
    ("title: Small\n", "", "is no table: Structured config of type `Table` has missing mandatory value: title"),
    ("title: Small", "titel: Small", "is no table: Key 'titel' not in 'Table'"),
    ("{overrides: [model=m2]}", "{override: [model=m2]}", "is no table: Key 'override' not in 'Measured'"),
    ("rows:\n", "rows: [\n", "is no table: while parsing a flow"),
    ("  nn: {", "  m2: {", "found duplicate key m2"),
    ("[7, 1]", "[seven]", "is no table: Value 'seven' (str)"),
    ("seeds: {smoke: [0, 1]}", "", "is no table: it needs rows, columns and seeds"),
    ("{smoke: [0, 1]}", "{smoke: []}", "seeds.smoke=[] is not usable; list different seeds per budget"),
    ("[0, 1]", "[1, 1]", "seeds.smoke=[1, 1] is not usable"),
    ("smoke:", "long:", "seeds.long=[0, 1] is not usable"),
    ("base:", "reference: m3\nbase:", "reference=m3 is no row; the nearest is m2"),
    ("base:", "metric: test/eror\nbase:", "metric=test/eror is no metric; the nearest is test/error"),
    (
        "base:",
        "metric: validation/error\nbase:",
        "metric=validation/error is of the validation rows; compare test/error",
    ),
    ("base:", "digits: -1\nbase:", "digits=-1 is negative"),
    ("base:", "best_by: test/error\nbase:", "best_by=test/error would choose on the test rows; use validation/error"),
    ("TSVM:", "nn:", "'nn' is both a row and a quoted one; rename one"),
    ("{20: [7, 1]", "{200: [7, 1]", "row nn has a number for column 200; there are 20, b"),
    ("{b: [6]}", "{c: [6]}", "row TSVM has a number for column c; there are 20, b"),
    ("[7, 1]", "[7, 1, 3]", "row nn, column 20: write [value] or [value, spread]"),
    ("[7, 1]", "[]", "row nn, column 20: write [value] or [value, spread]"),
    ("{overrides: [labels=50]}", "{metric: test/eror}", "metric=test/eror is no metric; the nearest is test/error"),
    ("nn: {", "nn: {columns: {c: []}, ", "row nn has a column c; there are 20, b"),
    ("nn: {", "nn: {columns: {b: []}, ", "row nn has a number for column 20; there are b"),
    ("nn: {", "nn: {at: {long: []}, ", "row nn names budget long; there are paper, short, smoke"),
    ("nn: {", "nn: {published_best: {b: [6]}, ", "row nn has published_best; name the metric that picks our best"),
    ("nn: {", "nn: {confusion: {printed: {0: [1.5]}}, ", "confusion of class 0: write a share in [0, 1] per class"),
    ("nn: {", "nn: {at: {smoke: [seeds=3]}, ", "'seeds=3' is set by the command; leave it out of the table"),
    ("base:", "headline: [nn@c]\nbase:", "headline nn@c is no cell; write row@column"),
    ("  b: {", "  b: {at: {long: []}, ", "column b names budget long; there are paper, short, smoke"),
    ("  b: {", "  b: {at: {short: [seeds=3]}, ", "'seeds=3' is set by the command; leave it out of the table"),
    ("base:", "reading: {long: Well}\nbase:", "reading names budget long; there are paper, short, smoke"),
    ("data=digits", "data: digits", "{'data': 'digits'} is no override; write for example labels=100"),
    ("data=digits", "seeds=3", "'seeds=3' is set by the command; leave it out of the table"),
    ("model=m2", "budget=paper", "'budget=paper' is set by the command"),
    ("labels=50", "runs=there", "'runs=there' is set by the command"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), REFUSED)
def test_what_is_no_table_is_refused_with_a_sentence(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    assert old in SMALL
    path = written(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(UserError) as refused:
        spec.read(path)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path)), "the sentence says which file"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"a word", b"\xff\xfe\x00", b"title: Small\nsource: x"])
def test_any_other_file_is_refused_with_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.yaml is no table: "):
        spec.read(path)


def test_a_slip_in_the_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL.replace("TSVM:", "TSVM"))
    with pytest.raises(UserError) as refused:
        spec.read(path)
    assert "at line 13, column " in str(refused.value)
    assert str(refused.value).count(path.name) == 1


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("labels=20", "lables=20", "cell m2@20 of small: 'lables' is not a setting; the nearest is labels"),
        ("labels=50", "labels=-1", "cell m2@b of small: labels=-1 is not positive"),
        ("model=nn", "model=nnn", "cell nn@20 of small: model=nnn is unknown"),
    ],
)
def test_an_override_that_does_not_compose_names_its_cell(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        keys(written(tmp_path, SMALL.replace(old, new)))
    assert str(refused.value).startswith(sentence)


def test_a_budget_without_seeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="budget=paper has no seeds in small; there are smoke"):
        keys(written(tmp_path, SMALL), "paper")


def test_tables_are_found_by_name_or_path(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL)
    assert spec.find(str(path)) == path
    assert all(spec.find(name).stem == name.removeprefix("sweep/") for name in TABLES)
    with pytest.raises(UserError, match="table 'tabel1' is unknown; the nearest is table1"):
        spec.find("tabel1")
    with pytest.raises(UserError, match="table 'sweep/m3' is unknown; the nearest is sweep/m2"):
        spec.find("sweep/m3")
    with pytest.raises(UserError, match=r"there is no file nowhere\.yaml; name a table \(.*table1.*\) or"):
        spec.find("nowhere.yaml")

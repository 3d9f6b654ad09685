"""The pages of results: made of rows alone, and the committed ones are what the committed rows make."""

from pathlib import Path

import pytest

from ssl_dgm import records
from ssl_dgm.compose import compose
from ssl_dgm.tables import collect, grid, output, render, report, spec
from ssl_dgm.tables.cells import cells, look

ROOT = Path(__file__).parents[2]
NAME, ROW, COLUMN = "maaloe_table1", "sdgm", "mnist"  # 1.32 ± 0.07 are published
SHORT = compose(["model=sdgm", "data=mnist", "labels=100"]).budget.epochs  # of 1,000


def add(results: Path, budget: str, errors: list[float], key: str | None = None) -> None:
    """Rows of so many seeds to the CSV of the table at a budget."""
    table = spec.read(spec.find(NAME))
    place = [dict.fromkeys(collect.COLUMNS, "") | {"row": ROW, "column": COLUMN}]
    (cell,) = cells(table, budget, "nowhere", place, only_known=True)
    facts = {"epochs": cell.config.budget.epochs, "updates": 1, "train_seconds": 1200.0, "device": "cpu"}
    facts |= {"git_commit": "0123456789ab", "data_sha256": "", "split_seed": 0}
    rows = []
    for seed, error in enumerate(errors):
        record = records.new(cell.config, key or cell.key, seed, {"test/error": error}, **facts)
        rows += collect.rows(record | {"finished": "2026-01-02T03:04:05+00:00"}, NAME, ROW, COLUMN)
    path = results / ("" if budget == "paper" else budget) / f"{NAME}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    collect.append(path, rows, print)


def page(results: Path) -> str:
    return report.page(report.tables(results, print), results)


def test_the_committed_pages_are_made_of_the_committed_rows() -> None:
    made = report.tables(ROOT / "results", print)
    remedy = "run `python -m ssl_dgm.table --report`"
    assert report.page(made, ROOT / "results") == (ROOT / "results" / "README.md").read_text(), remedy
    readme = (ROOT / "README.md").read_text()
    assert report.with_state(readme, made) == readme, remedy


@pytest.mark.parametrize(
    "name", [s for s in spec.sweeps() if (ROOT / f"results/sweeps/{s.removeprefix('sweep/')}.csv").is_file()]
)
def test_the_committed_pages_of_sweeps_are_made_of_their_rows(name: str) -> None:
    table = spec.read(spec.find(name))
    (budget,) = set(table.seeds) - {"smoke"}
    csv = output.path(ROOT / "results", "", budget, table)
    known = collect.read(csv, print)
    assert known and all(row["metric"].startswith("validation/") for row in known)
    states = {cell: look(table, cell, known, print) for cell in cells(table, budget, "nowhere", known)}
    made = render.to_markdown(grid.build(table, budget, output.by_place(states)))
    assert made == csv.with_suffix(".md").read_text(), (
        f"run `python -m ssl_dgm.table {name} --budget {budget} --render-only`"
    )


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([0.0487], "one seed, +3.55 from 1.32 ± 0.07."),
        ([0.0487, 0.0485], "two seeds, +3.54 from 1.32 ± 0.07."),
        ([0.0487, 0.0485, 0.0489], "misses 1.32 ± 0.07 by 3.55, n = 3."),
        ([0.0132, 0.0142, 0.0131], "within the noise of 1.32 ± 0.07 (+0.03), n = 3."),
        ([0.0050, 0.0051, 0.0052], "beats 1.32 ± 0.07 by 0.81, n = 3."),
    ],
)
def test_a_row_is_read_beside_what_is_published(errors: list[float], sentence: str, tmp_path: Path) -> None:
    add(tmp_path, "short", errors)
    text = page(tmp_path)
    assert f"- **SDGM** ({SHORT} of 1,000 epochs): MNIST, 100 labels: {sentence}" in text
    assert "2026-01-02; cpu; 20 min of training; commit 0123456789ab." in text
    assert "python -m ssl_dgm.table maaloe_table1 --budget short\n" in text
    assert "`table1`" in text.split("## Without rows")[1], "the other tables have none"


@pytest.mark.parametrize(
    ("errors", "counts"),
    [
        ([0.0487, 0.0485, 0.0489], ["", "", "1", ""]),
        ([0.0132, 0.0142, 0.0131], ["", "1", "", ""]),
        ([0.0050, 0.0051, 0.0052], ["1", "", "", ""]),
        ([0.0487, 0.0485], ["", "", "", "1"]),
    ],
)
def test_the_page_begins_with_what_every_table_says(errors: list[float], counts: list[str], tmp_path: Path) -> None:
    add(tmp_path, "short", errors)
    text = page(tmp_path)
    (line,) = (line for line in text.splitlines() if line.startswith("| Maaløe et al. 2016, table 1"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:] == counts
    heading = next(line for line in text.splitlines() if line.startswith("## Maaløe")).removeprefix("## ")
    slug = "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c == "-")  # as GitHub makes them
    assert cells[2] == f"[short](#{slug})"


def test_rows_of_other_settings_are_not_reported(tmp_path: Path) -> None:
    add(tmp_path, "short", [0.01], key="sdgm-mnist-100-short-0123456789")
    assert not report.tables(tmp_path, print)
    add(tmp_path, "short", [0.02])
    assert "2.00 (n = 1 of 3)" in page(tmp_path)


def test_the_readme_beside_takes_the_longest_rows_between_its_marks(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results"
    before, after = "# Mine\n\n", "\n\nThe end.\n"
    readme.write_text(f"{before}{report.BEGIN}\nold\n{report.END}{after}")
    add(results, "short", [0.0487])
    report.write(results, print)
    assert f"| 4.87 (n = 1 of 3) | 1.32 ± 0.07 | one seed  | {SHORT} of 1,000 epochs |" in readme.read_text()
    add(results, "paper", [0.0139])
    report.write(results, print)
    text = readme.read_text()
    assert text.startswith(before) and text.endswith(after) and "old" not in text
    assert "| 1.39 (n = 1 of 10) | 1.32 ± 0.07 | one seed  | 1,000 epochs |" in text and "4.87" not in text
    assert (results / "README.md").read_text().index("1.39") < (results / "README.md").read_text().index("4.87")
    report.write(results, print)
    assert readme.read_text() == text, "made again, it is the same"


def test_a_readme_without_a_place_for_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    add(tmp_path / "results", "short", [0.0487])
    report.write(tmp_path / "results", print)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
    assert (tmp_path / "results" / "README.md").is_file()


def test_a_page_of_results_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    mine, said = tmp_path / "results" / "README.md", []
    add(mine.parent, "short", [0.0487])
    mine.write_text("# What I found\n")
    report.write(mine.parent, said.append)
    assert mine.read_text() == "# What I found\n"
    assert said == [f"{mine} is a page of your own and left as it is; rename it to have the report of the rows there"]
    mine.unlink()
    for _ in range(2):
        report.write(mine.parent, print)
        assert "4.87" in mine.read_text(), "ours is made again"


def test_what_stands_beside_the_tables_is_listed_by_its_heading(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "svm.md").write_text("# How C was chosen\n\nText.\n")
    add(tmp_path, "short", [0.0487])
    (tmp_path / "short" / f"{NAME}.md").write_text("the table")
    assert page(tmp_path).endswith("## Beside the tables\n\n- [How C was chosen](sweeps/svm.md)\n")

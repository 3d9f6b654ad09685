"""A table in three formats: golden files, and what must hold of any; see the last lines for how to renew the files."""

import re
import shutil
import string
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_dgm.tables import collect, grid, spec
from ssl_dgm.tables.cells import State
from ssl_dgm.tables.grid import Grid, Line
from ssl_dgm.tables.render import to_html, to_latex, to_markdown

PUNCTUATION = string.punctuation
GOLDEN = Path(__file__).parent / "golden"
WRITE = {"md": to_markdown, "tex": to_latex, "html": to_html}
SPECIAL = r"50% of a_b & <x> | #1 {y} ~ ^ \ $ -- _so_ &amp; `it` [is](here)"
TEXTS = st.text("".join(map(chr, range(32, 127))) + "±−×é", min_size=1, max_size=12).map(str.strip).filter(bool)
LATEX = {"{[}": "[", "{*}": "*", "{}": "", r"$\pm$": "±", "$-$": "−", r"$\times$": "×"}
LATEX |= {rf"\{sign}": sign for sign in "&%$#_{}"}
LATEX |= {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textasciigrave{}": "`"}
LATEX |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|"}
Lines = list[list[str]]  # the header, then per line of a table its label and texts; of a section only its label


def rows(values: dict[int, float], metric: str = "error", split: str = "s", **validation: float) -> list[collect.Row]:
    """The rows of seeds with these test values, and validation values by 'seed_<n>'."""
    made = []
    for seed, value in values.items():
        metrics = {f"test/{metric}": value}
        if f"seed_{seed}" in validation:
            metrics[f"validation/{metric}"] = validation[f"seed_{seed}"]
        record = {"key": "m2-digits-20-short-0123456789", "seed": seed, "split_seed": seed, "metrics": metrics}
        record |= {"selection": "last", "validation_labels": 0, "split_sha256": f"{split}{seed}"}
        made += collect.rows(record)
    return made


def errors() -> Grid:
    """Every state of a cell, with paired differences."""
    table = spec.read(GOLDEN / "table.yaml")
    states = {
        ("nn", "20"): State("done", rows({0: 0.2175, 1: 0.2399, 2: 0.2284})),
        ("nn", "50"): State("done", rows({0: 0.1105})),
        ("nn", "100"): State("stale", [], [0, 1, 2], "its rows are of other settings"),
        ("m1", "20"): State("running", rows({0: 0.12}), [1, 2], "epoch 3 of 9"),
        ("m1", "50"): State("failed", rows({0: 0.056, 2: 0.058}), [1], SPECIAL),
        ("m1", "100"): State("failed", [], [0, 1, 2], "out of memory,\n  twice."),
        ("m1+knn", "20"): State("running", [], [0, 1, 2]),
        ("m1+knn", "50"): State("done", rows({0: 0.1, 1: 0.1, 2: 0.1}, split="other")),
        ("m1+knn", "100"): State("failed", [], [0, 1, 2], "out of memory,\n  twice."),
        ("m2", "20"): State("done", rows({0: 0.0333, 1: 0.0341, 2: 0.0347})),
        ("m2", "50"): State("done", rows({0: 0.02, 1: 0.03, 2: 0.04})),
        ("m2", "100"): State("partial", rows({0: 0.028, 1: 0.029}), [2], "2 of 3 seeds"),
        ("m1m2", "20"): State("done", rows({0: 0.0113, 1: 0.0111, 2: 0.0127})),
        ("m1m2", "50"): State("done", rows({0: 0.02, 1: 0.03, 2: 0.04})),
    }
    return grid.build(table, "short", states)


def bounds() -> Grid:
    """Negative numbers of which higher is better, beside a paper's best run."""
    table = spec.read(GOLDEN / "bounds.yaml")
    three = rows({0: -97.92, 1: -98.61, 2: -98.04}, "bound", seed_0=-99.0, seed_1=-98.0, seed_2=-98.5)
    states = {
        ("m2", "1"): State("done", three),
        ("m2", "5"): State("partial", rows({0: -96.5}, "bound", seed_0=-97.0), [1, 2]),
        ("m1", "1"): State("done", rows({0: -99.5, 1: -99.4, 2: -99.6}, "bound")),
    }
    return grid.build(table, "short", states)


def columns() -> Grid:
    """Columns of several metrics, one that a row has not, accuracies of errors, and data that are elsewhere."""
    table = spec.read(GOLDEN / "columns.yaml")
    seeds = {0: 0.2, 1: 0.3, 2: 0.25}
    shared = rows(seeds, seed_0=0.21, seed_1=0.19, seed_2=0.22)
    hidden = [row for row in rows({0: 0.6, 1: 0.5, 2: 0.7}, "accuracy_hidden_classes") if row["metric"][:4] == "test"]
    m2 = State("done", [*shared, *hidden])
    states = {
        ("m2", "overall"): m2,
        ("m2", "hidden"): m2,
        ("m2", "elsewhere"): State("no data", [], [0, 1, 2], "nowhere/MNIST/raw is missing; put it there."),
        ("gmdgm", "overall"): State("partial", rows({0: 0.1}), [1, 2]),
        ("gmdgm", "hidden"): State("partial", [], [0, 1, 2]),
    }
    return grid.build(table, "short", states)


def punctuation() -> Grid:
    """Lines that begin with what a format may take for its own."""
    lines = [Line("row", f"{sign}x{sign}{sign}", (sign, f"a{sign}b")) for sign in PUNCTUATION]
    caption, note = " ".join(PUNCTUATION), f"{PUNCTUATION} ± − ×"
    return Grid("punctuation", caption, ("[t]", "*", "\\"), [*lines, Line("section", PUNCTUATION)], [caption], [note])


GRIDS = {"table": errors, "bounds": bounds, "columns": columns, "punctuation": punctuation}
GOLDEN_GRIDS = ("table", "bounds", "columns")


class Page(HTMLParser):
    """The lines and notes of an HTML table; asserts that every tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.lines: Lines = []
        self.notes: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("th", "td"):
            self.lines[-1].append("")
        elif tag == "li":
            self.notes.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["th"], ["td"]):
            self.lines[-1][-1] += data
        elif self.open[-1:] == ["li"]:
            self.notes[-1] += data


def unlatex(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], text)


def from_latex(text: str) -> tuple[Lines, list[str]]:
    """The lines of the tabular, and the notes."""
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    found = []
    for line in re.sub(r"\\(toprule|midrule|addlinespace)\n", "", body).splitlines():
        assert line.endswith(r" \\"), line
        cells = [re.sub(r"^(\\quad)?(\\footnotesize )?", "", cell.strip()) for cell in cells_of_latex(line)]
        if section := re.fullmatch(r"\\multicolumn\{\d+\}\{l\}\{\\textit\{(.*)\}\}", cells[0]):
            cells = [section[1]]
        found.append([unlatex(cell) for cell in cells])
    return found, [unlatex(note) for note in re.findall(r"^\{\[\}\d+\] (.*)\\par$", text, re.MULTILINE)]


def cells_of_latex(line: str) -> list[str]:
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


def from_markdown(text: str) -> tuple[Lines, list[str]]:
    """The lines of the pipe table, and the notes."""
    found = []
    for number, line in enumerate(line for line in text.splitlines() if line.startswith("|")):
        label, *texts = (cell.strip() for cell in cells_of_markdown(line))
        if number > 1:
            kind = re.fullmatch(r"\*\*(?P<row>.*)\*\*|\*(?P<section>.*)\*|· (?P<detail>.*)", label)
            assert kind, label
            label = kind[kind.lastgroup or 0]
            texts = [] if kind.lastgroup == "section" else texts
        if number != 1:
            found.append([re.sub(r"\\(.)", r"\1", cell) for cell in (label, *texts)])
    notes = re.findall(r"^\[\d+\] (.*)$", text, re.MULTILINE)
    return found, [re.sub(r"\\(.)", r"\1", note) for note in notes]


def cells_of_markdown(line: str) -> list[str]:
    return re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])


def check_all_formats_say(made: Grid) -> None:
    said = [list(made.header), *([line.label, *line.texts] for line in made.lines)]
    page = Page(to_html(made))
    assert (page.lines, page.notes) == (said, made.notes)
    assert from_latex(to_latex(made)) == (said, made.notes)
    assert from_markdown(to_markdown(made)) == (said, made.notes)


@pytest.mark.parametrize("suffix", WRITE)
@pytest.mark.parametrize("name", GOLDEN_GRIDS)
def test_tables_look_as_they_did(name: str, suffix: str) -> None:
    assert WRITE[suffix](GRIDS[name]()) == (GOLDEN / f"{name}.{suffix}").read_text()


@pytest.mark.parametrize("name", GRIDS)
def test_all_formats_say_the_same(name: str) -> None:
    check_all_formats_say(GRIDS[name]())


@given(st.lists(TEXTS, min_size=8, max_size=8))
def test_all_formats_say_any_text(texts: list[str]) -> None:
    corner, column, label, cell, detail, of_detail, section, note = texts
    lines = [Line("row", label, (cell,)), Line("detail", detail, (of_detail,)), Line("section", section)]
    check_all_formats_say(Grid("any", note, (corner, column), lines, [note], [note]))


@pytest.mark.parametrize("name", GRIDS)
def test_every_line_has_a_cell_per_column(name: str) -> None:
    made = GRIDS[name]()
    width = len(made.header)
    lines = [line for line in to_markdown(made).splitlines() if line.startswith("|")]
    assert {len(cells_of_markdown(line)) for line in lines} == {width}
    text = to_latex(made)
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(cells_of_latex(line)) for line in lines} == {width}
    assert text.count(f"\\multicolumn{{{width}}}") == sum(line.kind == "section" for line in made.lines)
    assert all(len(line.texts) in (0, width - 1) for line in made.lines)


@pytest.mark.parametrize("name", GRIDS)
def test_braces_and_environments_of_latex_are_closed(name: str) -> None:
    text = to_latex(GRIDS[name]())
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", re.sub(r"(?m)(?<!\\)%.*$", "", text)):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened = []
    for what, environment in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert what == "begin" or opened.pop() == environment
        opened += [environment] if what == "begin" else []
    assert not opened


@pytest.mark.parametrize("made", [errors(), bounds(), columns()], ids=GOLDEN_GRIDS)
def test_every_mark_has_a_note_and_every_note_a_mark(made: Grid) -> None:
    cells = [text for line in made.lines for text in (line.label, *line.texts)]
    marks = {int(mark) for text in cells for mark in re.findall(r" \[(\d+)\]", text)}
    assert marks == set(range(1, len(made.notes) + 1))
    assert len(set(made.notes)) == len(made.notes), "a note that two cells have stands once"


def test_a_best_run_is_the_validation_rows_choice() -> None:
    found = {line.label: line.texts for line in bounds().lines[:5]}
    assert found["best by validation bound"] == ("−98.6 (of 3)", ""), "seed 1, the worst on the test rows"
    assert found["difference of the best"] == ("−0.3", ""), "one seed is no choice"


def test_a_row_says_nothing_in_a_column_that_it_has_not() -> None:
    texts = {(line.label, line.kind): line.texts for line in reversed(columns().lines)}
    assert texts["M2", "row"] == ("75.0 ± 5.0 (n = 3)", "60.0 ± 10.0 (n = 3)", "no data [1]")
    assert texts["GM-DGM", "row"] == ("90.0 (n = 1 of 3)", "partial", "")
    assert texts["best by validation accuracy", "detail"][:2] == ("70.0 (of 3)", "50.0 (of 3)"), "the same seed's, 1"


def test_pages_hold_several_tables() -> None:
    one, two = errors(), bounds()
    assert to_markdown(one, two) == f"{to_markdown(one)}\n{to_markdown(two)}"
    assert to_latex(one, two) == f"{to_latex(one)}\n{to_latex(two)}"
    both, alone = Page(to_html(one, two)), Page(to_html(two))
    assert both.lines == Page(to_html(one)).lines + alone.lines
    assert both.notes == one.notes + two.notes


def test_a_cell_that_is_not_finite_is_shown_as_it_is() -> None:
    table = spec.read(GOLDEN / "bounds.yaml")
    made = grid.build(table, "short", {("m2", "1"): State("done", rows({0: -97.0, 1: float("-inf")}, "bound"))})
    assert made.lines[0].texts == ("−inf (n = 2)", "not run")


def test_nothing_is_minus_zero() -> None:
    near_zero = State("done", rows({0: -0.012, 1: -0.01, 2: 0.011}, "bound"))
    made = grid.build(spec.read(GOLDEN / "bounds.yaml"), "short", {("m2", "1"): near_zero})
    assert [line.texts[0] for line in made.lines[:2]] == ["0.0 ± 0.0 (n = 3)", "0.0 to 0.0"]
    made = grid.build(spec.read(GOLDEN / "table.yaml"), "short", {("m2", "20"): State("done", rows({0: 0.033299}))})
    assert "+0.00, one seed" in [line.texts[0] for line in made.lines if line.label == "difference"]


def test_an_empty_table_is_one_too() -> None:
    made = grid.build(spec.read(GOLDEN / "table.yaml"), "short", {})
    assert {text for line in made.lines[:4] if line.kind == "row" for text in line.texts} == {"not run"}
    check_all_formats_say(made)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_and_fits_the_page(tmp_path: Path) -> None:
    for name, build in GRIDS.items():
        (tmp_path / f"{name}.tex").write_text(to_latex(build()))
    inputs = "".join(f"\\input{{{name}}}\\clearpage\n" for name in GRIDS)
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    (tmp_path / "page.tex").write_text(f"{packages}\n\\begin{{document}}\n{inputs}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert not re.findall("Overfull.*|.*too large.*|Missing character.*", log)


def test_the_command_starts_without_torch() -> None:
    code = "import ssl_dgm.table; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if __name__ == "__main__":  # python tests/tables/test_rendering.py: then read the difference before it is committed
    for name in GOLDEN_GRIDS:
        for suffix, write in WRITE.items():
            (GOLDEN / f"{name}.{suffix}").write_text(write(GRIDS[name]()))

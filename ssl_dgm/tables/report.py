"""results/README.md and the state in README.md: what the committed rows say of every table, and what to make of it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tabulate import tabulate

from ssl_dgm import records
from ssl_dgm.config import ends_in_estimator
from ssl_dgm.files import write_atomic
from ssl_dgm.tables import cells as cells_of
from ssl_dgm.tables import collect, grid, output, spec
from ssl_dgm.tables.cells import Cell, State, duration
from ssl_dgm.tables.render import in_pipes
from ssl_dgm.tables.spec import Table
from ssl_dgm.tables.statistics import Summary

BUDGETS = ("paper", "short")  # smoke rows stay with the runs
BEGIN = "<!-- made by python -m ssl_dgm.table --report -->"
END = "<!-- until here -->"
MADE = "This page is made by `python -m ssl_dgm.table --report`"
PREFACE = f"""# Results

{MADE} of the rows beside it; what people made of them stands in the
tables' files (`reading` in `conf/table/*.yaml`). Every row comes from a run of committed code: `git_commit` and
`config_hash` say which, `device`, `train_seconds` and `finished` where, how long and when; every column is explained in
[docs/protocol.md](../docs/protocol.md). Values are fractions (0.0333 is 3.33 %) or nats per row. `budget=short` is what
two CPU cores can do; its lengths are beside those of the papers.
"""
HEADER = ("paper", "what", "on the test rows", "here", "published", "verdict", "length")
OUTCOMES = {"better": "beats", "within": "within the noise", "worse": "misses"}
SAYS = {
    "better": "beats {theirs} by {gap}",
    "worse": "misses {theirs} by {gap}",
    "within": "within the noise of {theirs} ({signed})",
}


@dataclass(frozen=True)
class Made:
    """A table at a budget with the cells that have rows, from its CSV alone: runs in progress are no result."""

    table: Table
    budget: str
    csv: Path
    states: dict[Cell, State]

    @cached_property
    def by_place(self) -> dict[tuple[str, str], State]:
        """The states by row and column."""
        return output.by_place(self.states)

    def label(self, column: str) -> str:
        """A column's name in a sentence: '100 labels' under a corner 'labels'."""
        label = self.table.columns[column].label or column
        return f"{label} {self.table.corner}" if label.isdigit() else label


def write(results: Path, say: Callable[[str], None]) -> None:
    """Writes README.md of the results, and the state in the README.md beside their folder, where that has a place."""
    made, ours = tables(results, say), results / "README.md"
    if ours.is_file() and MADE not in ours.read_text(encoding="utf-8", errors="replace"):
        say(f"{ours} is a page of your own and left as it is; rename it to have the report of the rows there")
    else:
        _replace(ours, page(made, results))
    beside = results.parent / "README.md"
    if beside.is_file() and BEGIN in (text := beside.read_text(encoding="utf-8", errors="replace")):
        _replace(beside, with_state(text, made))


def tables(results: Path, say: Callable[[str], None]) -> list[Made]:
    """The tables of conf/table/ with their rows in a folder of results, those of budget=paper first."""
    made = []
    for table in spec.in_order():
        for budget in BUDGETS:
            one = of(table, budget, output.path(results, "", budget, table), say)
            made += [one] if one else []
    return made


def of(table: Table, budget: str, csv: Path, say: Callable[[str], None]) -> Made | None:
    """What a CSV says of a table at a budget; None where it has no row of its cells as they are set now."""
    known = collect.read(csv, say)
    if not known or budget not in table.seeds:
        return None
    cells = cells_of.cells(table, budget, str(csv.parent / "no runs"), known, only_known=True)
    states = {cell: cells_of.look(table, cell, known, say) for cell in cells}
    states = {cell: state for cell, state in states.items() if state.rows}
    return Made(table, budget, csv, states) if states else None


def page(made: Sequence[Made], results: Path) -> str:
    """The text of the README.md of the results."""
    parts = [PREFACE, _overview(made), *(_section(one, results) for one in made)]
    reported = {one.table.name for one in made}
    if without := [f"`{name}`" for name in spec.names() if name not in reported]:
        parts.append(f"## Without rows\n\nNothing was run yet for {', '.join(without)}.\n")
    files = [*results.glob("*.md"), *results.glob("sweeps/*.md"), *results.glob("benchmark/*.txt")]
    others = [file for file in sorted(files) if file.name != "README.md"]
    others = [file for file in others if file.with_suffix("") not in {one.csv.with_suffix("") for one in made}]
    lines = [f"- [{_heading(file)}]({file.relative_to(results).as_posix()})" for file in others]
    return "\n".join([*parts, "## Beside the tables\n", *lines]) + "\n"


def with_state(text: str, made: Sequence[Made]) -> str:
    """A README's text with the tables' headlines between the two marks, at the paper's length where that was run."""
    lines: dict[tuple[str, str], tuple[str, ...]] = {}
    for one in made:
        for row, _, column in (cell.rpartition("@") for cell in one.table.headline):
            if (found := _found(one, row, column)) and (one.table.name, f"{row}@{column}") not in lines:
                lines[one.table.name, f"{row}@{column}"] = _headline(one, row, column, found)
    body = tabulate(list(lines.values()), HEADER, tablefmt="pipe", disable_numparse=True) if lines else "No rows yet."
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{body}\n\n{END}{after}"


def _headline(one: Made, row: str, column: str, found: Summary) -> tuple[str, ...]:
    t, r = one.table, one.table.rows[row]
    metric = t.metric_of(column).removeprefix("test/").replace("_", " ").replace("nmi", "NMI")
    unit = records.unit(t.metric_of(column))
    metric += f" ({unit})" if unit else ""
    here = grid.cell_text(grid.Grid("", "", ()), t, column, one.by_place[row, column])
    return (
        t.source,
        in_pipes(f"{r.label or row}, {one.label(column)}"),
        metric,
        here,
        _theirs(t, row, column),
        _outcome(one, row, column, found),
        _length(one, row, column),
    )


def _overview(made: Sequence[Made]) -> str:
    """How many of a table's published numbers ours beat, meet or miss; the budget leads to the table."""
    lines = []
    for one in made:
        places = [place for place in one.by_place if place[1] in one.table.rows[place[0]].published]
        outcomes = [_outcome(one, *place, found) for place in places if (found := _found(one, *place))]
        counts = [outcomes.count(outcome) for outcome in OUTCOMES.values()]
        counts.append(len(outcomes) - sum(counts))
        anchor = re.sub(r"[^\w -]", "", _title(one).lower()).replace(" ", "-")
        what = (in_pipes(one.table.source), in_pipes(one.table.title), f"[{one.budget}](#{anchor})")
        lines.append([*what, *(str(count or "") for count in counts)])
    if not lines:
        return ""
    header = ("source", "table", "budget", *OUTCOMES.values(), "one or two seeds")
    body = tabulate(lines, header, tablefmt="pipe", disable_numparse=True, colalign=(*("left",) * 3, *("right",) * 4))
    return (
        "So many published numbers of each table ours beat, meet or miss; [docs/protocol.md](../docs/protocol.md) says"
        f" when they do.\n\n{body}\n"
    )


def _title(one: Made) -> str:
    return f"{one.table.source}: {one.table.title}, budget={one.budget}"


def _section(one: Made, results: Path) -> str:
    t, rows = one.table, [row for state in one.states.values() for row in state.rows]
    days = sorted({row["finished"][:10] for row in rows if row["finished"]})
    devices, commits = (sorted({row[name] for row in rows if row[name]}) for name in ("device", "git_commit"))
    seconds = sum(state.seconds for state in one.states.values())
    links = ", ".join(
        f"[{kind}]({one.csv.with_suffix(suffix).relative_to(results).as_posix()})"
        for kind, suffix in (("table", ".md"), ("LaTeX", ".tex"), ("HTML", ".html"), ("rows", ".csv"))
    )
    short = "" if one.budget == "paper" else f" --budget {one.budget}"
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "unknown"
    without = ", that of M1s not counted" if any(cell.first_key for cell in one.states) else ""
    of_code = f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}"
    facts = f"{when}; {', '.join(devices)}; {duration(seconds)} of training{without}; {of_code}"
    parts = [
        f"## {_title(one)}",
        f"{links}",
        f"```\npython -m ssl_dgm.table {t.name}{short}\n```",
        f"{facts}.",
        _main_rows(one),
        *(["\n".join(sentences)] if (sentences := _sentences(one)) else []),
        *([t.reading[one.budget].strip()] if one.budget in t.reading else []),
    ]
    return "\n\n".join(parts) + "\n"


def _main_rows(one: Made) -> str:
    """What was measured beside what was published, without intervals: the whole table is a link away."""
    t, lines, nothing = one.table, [], grid.Grid("", "", ())
    columns = [column for column in t.columns if any(place[1] == column for place in one.by_place)]
    for name, row in t.rows.items():
        if not any((name, column) in one.by_place for column in columns):
            continue
        states = [one.by_place.get((name, column)) for column in columns]
        ours = ["" if state is None else grid.cell_text(nothing, t, c, state) for c, state in zip(columns, states)]
        lines.append([in_pipes(row.label or name), *ours])
        theirs = [_theirs(t, name, column) for column in columns]
        lines += [["· paper", *theirs]] if any(theirs) else []
    header = ["", *(in_pipes(one.label(column)) for column in columns)]
    align = ("left", *("right" for _ in columns))
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True, colalign=align)


def _sentences(one: Made) -> list[str]:
    """A line per row that has a published number: what the numbers beside each other say, and at what length."""
    made = []
    for name, row in one.table.rows.items():
        clauses = []
        for column in row.published:
            if found := _found(one, name, column):
                clauses.append(f"{one.label(column)}: {_reading(one, name, column, found)}")
        if clauses:
            length = _length(one, name, next(c for c in row.published if (name, c) in one.by_place))
            made.append(f"- **{row.label or name}**{length and f' ({length})'}: {'; '.join(clauses)}.")
    return made


def _reading(one: Made, row: str, column: str, found: Summary) -> str:
    numbers, theirs = one.table.rows[row].published[column], _theirs(one.table, row, column)
    signed = grid.signed(found.mean - numbers[0], one.table.digits)
    verdict = grid.verdict(one.table, column, found, numbers)
    if verdict not in SAYS:
        return f"{verdict}, {signed} from {theirs}"
    return f"{SAYS[verdict].format(theirs=theirs, gap=signed.lstrip(f'+{grid.MINUS}'), signed=signed)}, n = {found.n}"


def _outcome(one: Made, row: str, column: str, found: Summary) -> str:
    """'beats', 'within the noise', 'misses', 'one seed' or 'two seeds'; '' where nothing is published."""
    numbers = one.table.rows[row].published.get(column)
    verdict = grid.verdict(one.table, column, found, numbers) if numbers else ""
    return OUTCOMES.get(verdict, verdict)


def _theirs(table: Table, row: str, column: str) -> str:
    """What is published of a cell, as printed; '' where nothing is."""
    numbers = table.rows[row].published.get(column)
    mark = " (unverified)" if table.rows[row].unverified else ""
    return "" if numbers is None else grid.printed(numbers, table.digits) + mark


def _length(one: Made, row: str, column: str) -> str:
    """'80 of 3,000 epochs' against the same cell at the paper's length; '' of what has no epochs, or is that cell."""
    cell = next(cell for cell in one.states if cell.row == row and column in cell.columns)
    if ends_in_estimator(cell.config):
        return ""
    rows = one.states[cell].rows
    ours = max(int(r["epochs"]) for r in rows)
    if one.budget == "paper" or "paper" not in one.table.seeds:
        return f"{ours:,} epochs"
    whole = cells_of.cells(one.table, "paper", "no runs", rows, only_known=True)[0].config.budget.epochs
    return f"{ours:,} epochs" if ours == whole else f"{ours:,} of {whole:,} epochs"


def _found(one: Made, row: str, column: str) -> Summary | None:
    state = one.by_place.get((row, column))
    return None if state is None else grid.summary(one.table, column, state)


def _heading(file: Path) -> str:
    heading = r"^(?:# |\*\*)(.+?)(?:, budget=\w+\.\*\*.*)?$"  # or what a rendered table has above it
    found = re.search(heading, file.read_text(encoding="utf-8"), re.MULTILINE) if file.suffix == ".md" else None
    return found[1] if found else f"{file.parent.name}/{file.name}"


def _replace(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        write_atomic(path, text)

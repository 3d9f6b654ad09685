"""A table as texts: every format shows the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssl_dgm.tables import statistics
from ssl_dgm.tables.cells import State
from ssl_dgm.tables.render import mean_and_spread
from ssl_dgm.tables.spec import Measured, Table
from ssl_dgm.tables.statistics import Summary

MINUS = "−"


@dataclass(frozen=True)
class Line:
    """A line of a table: 'section' (a heading), 'row' (a method) or 'detail' (of the row above)."""

    kind: str
    label: str
    texts: tuple[str, ...] = ()


@dataclass
class Grid:
    """Everything that is printed of a table."""

    name: str
    title: str
    header: tuple[str, ...]
    lines: list[Line] = field(default_factory=list)
    caption: list[str] = field(default_factory=list)  # sentences
    notes: list[str] = field(default_factory=list)  # [1], [2], ... in this order

    def mark(self, note: str) -> str:
        """' [k]', for a note that stands under the table."""
        note = " ".join(note.split())
        if note not in self.notes:
            self.notes.append(note)
        return f" [{self.notes.index(note) + 1}]"


def build(table: Table, budget: str, states: Mapping[tuple[str, str], State]) -> Grid:
    """The grid of a table.

    Args:
        states: by (row, column); a cell without one is left out of `--only` and shown as not run.
    """
    header = (table.corner, *(column.label or name for name, column in table.columns.items()))
    grid = Grid(table.name, "", header)
    missing = State("missing")
    of_row = {row: [states.get((row, column), missing) for column in table.columns] for row in table.rows}
    for name, row in table.rows.items():
        _measured(grid, table, name, row, of_row[name])
    if table.reference is not None:
        _paired(grid, table, of_row)
    if table.quoted:
        grid.lines.append(Line("section", f"Quoted from {table.source}, not run here"))
    for name, quoted in table.quoted.items():
        notes = [f"From {quoted.source}." if quoted.source else "", quoted.note]
        notes.append("Unverified: not found in a text at hand." if quoted.unverified else "")
        label = (quoted.label or name) + "".join(grid.mark(note) for note in notes if note)
        texts = [_printed(quoted.values.get(column), table.digits) for column in table.columns]
        if quoted.unverified:
            texts = [f"{text} (unverified)" if text else "" for text in texts]
        grid.lines.append(Line("row", label, tuple(texts)))
    grid.title, *grid.caption = _caption(table, budget, [state for row in of_row.values() for state in row])
    return grid


def _measured(grid: Grid, table: Table, name: str, row: Measured, states: Sequence[State]) -> None:
    """The lines of a row that is run here: mean and spread, interval, the paper's number, the difference from it."""
    label = (row.label or name) + (grid.mark(row.note) if row.note else "")
    grid.lines.append(Line("row", label, tuple(_cell(grid, table, state) for state in states)))
    found = [statistics.summarise(list(_values(table, state).values())) for state in states]
    grid.lines += _intervals(table, found)
    ours = [None if summary is None else summary.mean for summary in found]
    if table.best_by is not None:
        ours = [_best(table, state) for state in states]
        texts = [
            "" if summary is None or value is None else f"{_plain(value, table.digits)} (of {summary.n})"
            for value, summary in zip(ours, found)
        ]
        if any(texts):
            grid.lines.append(Line("detail", f"best by {table.best_by.replace('/', ' ')}", tuple(texts)))
    if not row.published:
        return
    printed = [row.published.get(column) for column in table.columns]
    paper = f"paper ({row.published_as})" if row.published_as else "paper"
    grid.lines.append(Line("detail", paper, tuple(_printed(numbers, table.digits) for numbers in printed)))
    texts = []
    for summary, value, numbers in zip(found, ours, printed):
        if summary is None or value is None or numbers is None:
            texts.append("")
            continue
        how = "" if table.best_by else _verdict(table, summary, numbers)
        texts.append(f"{_signed(value - numbers[0], table.digits)}{how}")
    if any(texts):
        grid.lines.append(Line("detail", "difference", tuple(texts)))


def _verdict(table: Table, summary: Summary, numbers: Sequence[float]) -> str:
    spread = numbers[1] if len(numbers) > 1 else None
    return f", {statistics.verdict(summary, numbers[0], spread, table.lower_is_better)}"


def _paired(grid: Grid, table: Table, of_row: Mapping[str, Sequence[State]]) -> None:
    """The lines of every other row's differences from the reference, split by split."""
    assert table.reference is not None
    lines = []
    theirs = [_by_split(table, state) for state in of_row[table.reference]]
    for name, states in of_row.items():
        if name == table.reference:
            continue
        ours = [_by_split(table, state) for state in states]
        if not any(mine and other for mine, other in zip(ours, theirs)):
            continue
        found = [statistics.paired(mine, other) for mine, other in zip(ours, theirs)]
        texts = [_difference(s, table.digits, bool(mine and other)) for s, mine, other in zip(found, ours, theirs)]
        lines += [Line("row", table.rows[name].label or name, tuple(texts)), *_intervals(table, found, signed=True)]
    if lines:
        reference = table.rows[table.reference].label or table.reference
        grid.lines += [Line("section", f"Minus {reference}, on the same splits"), *lines]


def _difference(difference: Summary | None, digits: int, both_ran: bool) -> str:
    if difference is None:
        return "no common splits" if both_ran else "not run"
    return f"{_signed(difference.mean, digits)} (n = {difference.n})"


def _cell(grid: Grid, table: Table, state: State) -> str:
    values = list(_values(table, state).values())
    of = len(values) + len(state.missing) if state.missing else None
    text = mean_and_spread(values, 1, table.digits, of).replace("-", MINUS)
    if state.name in ("failed", "stale"):
        mark = grid.mark(f"{state.name.capitalize()}: {state.note.rstrip('.')}.")
        return f"{text}, {state.name}{mark}" if values else f"{state.name}{mark}"
    if not values:
        return {"missing": "not run", "done": "not run"}.get(state.name, state.name)
    return f"{text}, running" if state.name == "running" else text


def _values(table: Table, state: State) -> dict[int, float]:
    """By seed, in the table's unit."""
    return {int(row["seed"]): table.scale * float(row["value"]) for row in state.rows if row["metric"] == table.metric}


def _by_split(table: Table, state: State) -> dict[tuple, float]:
    rows = [row for row in state.rows if row["metric"] == table.metric and row["split_sha256"]]
    return {(row["split_sha256"], row["seed"]): table.scale * float(row["value"]) for row in rows}


def _best(table: Table, state: State) -> float | None:
    assert table.best_by is not None
    validation = {int(row["seed"]): float(row["value"]) for row in state.rows if row["metric"] == table.best_by}
    return statistics.best(_values(table, state), validation, lower=table.best_by.endswith("error"))


def _printed(numbers: Sequence[float] | None, digits: int) -> str:
    """A published value, and its spread, with all digits that were printed, or more."""
    texts = [max(f"{number:.{digits}f}", repr(number), key=len).replace("-", MINUS) for number in numbers or ()]
    return " ± ".join(texts)


def _intervals(table: Table, found: Sequence[Summary | None], signed: bool = False) -> list[Line]:
    """The line of the intervals, if there is any."""
    texts = tuple(_interval(summary, table.digits, signed) for summary in found)
    return [Line("detail", "95 % interval", texts)] if any(texts) else []


def _interval(summary: Summary | None, digits: int, signed: bool = False) -> str:
    if summary is None or summary.low is None or summary.high is None:
        return ""
    low, high = (_signed(v, digits) if signed else _plain(v, digits) for v in (summary.low, summary.high))
    return f"{low} to {high}"


def _plain(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS)


def _signed(value: float, digits: int) -> str:
    return f"{value:+z.{digits}f}".replace("-", MINUS)


def _caption(table: Table, budget: str, states: Sequence[State]) -> list[str]:
    """What a reader must know to use the numbers."""
    rows = [row for state in states for row in state.rows if row["metric"] == table.metric]
    says = [f"{table.title}, budget={budget}"]
    drawn = [row["split_seed"] == row["seed"] for row in rows if row["split_sha256"]]
    labels = ", each with labels of its own draw" if all(drawn) else ", some of which share their labels"
    labels = labels if drawn else ""
    says.append(f"Here: mean ± sample standard deviation (ddof = 1) over n seeds{labels};")
    says.append("the interval is Student's t for the mean.")
    rules = {"last": "the weights after the last epoch", "best_validation": "the weights of the best validation epoch"}
    kinds = sorted({rules.get(row["selection"], row["selection"]) for row in rows})
    used = sorted({int(row["validation_labels"] or 0) for row in rows})
    if rows:
        says.append(f"Selection: {' or '.join(kinds)}; validation labels used: {' or '.join(map(str, used))}.")
    says.append(f"Paper: {table.source}, ± as printed there.")
    if table.best_by:
        says.append(f"Difference: the best of n seeds, picked by {table.best_by}, minus the paper's best.")
    else:
        says.append(
            "Difference: ours minus theirs; within: our interval and the published value ± its spread overlap; better "
            "and worse: they do not."
        )
    if table.reference:
        says.append("Paired differences: mean and interval over the seeds that both rows have.")
    return says

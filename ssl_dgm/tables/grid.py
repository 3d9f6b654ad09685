"""A table as texts: every format shows the same ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssl_dgm.tables import collect, statistics
from ssl_dgm.tables.cells import State
from ssl_dgm.tables.render import mean_and_spread
from ssl_dgm.tables.spec import Measured, Table, lower_is_better, scale
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
    of_row = {
        row: {column: states.get((row, column), missing) for column in table.columns_of(row)} for row in table.rows
    }
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
        grid.lines.append(Line("row", label, _all_printed(table, quoted.values, quoted.unverified)))
    grid.title, *grid.caption = _caption(table, budget, [state for row in of_row.values() for state in row.values()])
    return grid


def _measured(grid: Grid, table: Table, name: str, row: Measured, states: Mapping[str, State]) -> None:
    """The lines of a row that is run here: mean and spread, interval, the paper's number, the difference from it."""
    label = (row.label or name) + (grid.mark(row.note) if row.note else "")
    shown = {column: cell_text(grid, table, column, state) for column, state in states.items()}
    grid.lines.append(Line("row", label, _by_column(table, shown)))
    found = {column: summary(table, column, state) for column, state in states.items()}
    _intervals(grid, table, found)
    if row.published:
        _beside(grid, table, row, "", row.published, {c: s.mean for c, s in found.items() if s}, found)
    if table.best_by is None:
        return
    ours = {column: value for column, state in states.items() if (value := _best(table, column, state)) is not None}
    texts = {c: f"{_plain(value, table.digits)} (of {len(values(table, c, states[c]))})" for c, value in ours.items()}
    _detail(grid, table, f"best by {re.sub('[/_]', ' ', table.best_by)}", texts)
    if row.published_best:
        _beside(grid, table, row, ", its best", row.published_best, ours, {})


def _beside(
    grid: Grid, table: Table, row: Measured, what: str, published: Mapping[str, Sequence[float]],
    ours: Mapping[str, float], found: Mapping[str, Summary | None],
) -> None:  # fmt: skip
    """The lines of the published numbers and of ours minus them, with verdicts where there are summaries."""
    name = f" ({row.published_as})" if row.published_as else ""
    grid.lines.append(Line("detail", f"paper{name}{what}", _all_printed(table, published, row.unverified)))
    texts = {}
    for column, numbers in published.items():
        if column in ours:
            of = found.get(column)
            says = f", {verdict(table, column, of, numbers)}" if of else ""
            texts[column] = f"{signed(ours[column] - numbers[0], table.digits)}{says}"
    _detail(grid, table, f"difference{what and ' of the best'}", texts)


def verdict(table: Table, column: str, found: Summary, numbers: Sequence[float]) -> str:
    """As `statistics.verdict`, of a column's metric and a published [value] or [value, spread]."""
    spread = numbers[1] if len(numbers) > 1 else None
    return statistics.verdict(found, numbers[0], spread, lower_is_better(table.metric_of(column)))


def _paired(grid: Grid, table: Table, of_row: Mapping[str, Mapping[str, State]]) -> None:
    """The lines of every other row's differences from the reference, split by split."""
    assert table.reference is not None
    lines = Grid("", "", ())
    theirs = {column: _by_split(table, column, state) for column, state in of_row[table.reference].items()}
    for name, states in of_row.items():
        ours = {column: _by_split(table, column, states[column]) for column in states if column in theirs}
        if name == table.reference or not any(mine and theirs[column] for column, mine in ours.items()):
            continue
        found = {column: statistics.paired(mine, theirs[column]) for column, mine in ours.items()}
        texts = {c: _difference(s, table.digits, bool(ours[c] and theirs[c])) for c, s in found.items()}
        lines.lines.append(Line("row", table.rows[name].label or name, _by_column(table, texts)))
        _intervals(lines, table, found, is_difference=True)
    if lines.lines:
        reference = table.rows[table.reference].label or table.reference
        grid.lines += [Line("section", f"Minus {reference}, on the same splits"), *lines.lines]


def _difference(difference: Summary | None, digits: int, both_ran: bool) -> str:
    if difference is None:
        return "no common splits" if both_ran else "not run"
    return f"{signed(difference.mean, digits)} (n = {difference.n})"


def cell_text(grid: Grid, table: Table, column: str, state: State) -> str:
    """Mean, spread and n of a cell's seeds, or what it is instead; a reason becomes a note of the grid."""
    found = list(values(table, column, state).values())
    of = len(found) + len(state.missing) if state.missing else None
    text = mean_and_spread(found, 1, table.digits, of).replace("-", MINUS)
    if state.name in ("failed", "stale"):
        mark = grid.mark(f"{state.name.capitalize()}: {state.note.rstrip('.')}.")
        return f"{text}, {state.name}{mark}" if found else f"{state.name}{mark}"
    if found:
        return f"{text}, running" if state.name == "running" else text
    if state.name == "no data":
        return "no data" + grid.mark(f"{state.note.rstrip('.')}.")
    return {"missing": "not run", "done": "not run"}.get(state.name, state.name)


def values(table: Table, column: str, state: State) -> dict[int, float]:
    """What a column shows, by seed, in its unit."""
    metric = table.metric_of(column)
    return {seed: scale(metric) * value for seed, value in collect.values(state.rows, metric).items()}


def summary(table: Table, column: str, state: State) -> Summary | None:
    """Of what a column shows over the seeds that are finished; None where none is."""
    return statistics.summarise(list(values(table, column, state).values()))


def _by_split(table: Table, column: str, state: State) -> dict[tuple, float]:
    split = {int(row["seed"]): row["split_sha256"] for row in state.rows}
    return {(split[seed], seed): value for seed, value in values(table, column, state).items() if split[seed]}


def _best(table: Table, column: str, state: State) -> float | None:
    seed = best_seed(table, state)
    return None if seed is None else values(table, column, state).get(seed)


def best_seed(table: Table, state: State) -> int | None:
    """The seed with the best validation metric by `best_by`; None where a seed lacks it, or there is but one."""
    seeds = {int(row["seed"]) for row in state.rows}
    if table.best_by is None or len(seeds) < 2:
        return None
    return statistics.best(seeds, collect.values(state.rows, table.best_by), lower_is_better(table.best_by))


def _by_column(table: Table, texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(texts.get(column, "") for column in table.columns)


def _detail(grid: Grid, table: Table, label: str, texts: Mapping[str, str]) -> None:
    """Adds a line of the row above, if it says anything."""
    if any(texts.values()):
        grid.lines.append(Line("detail", label, _by_column(table, texts)))


def _all_printed(table: Table, numbers: Mapping[str, Sequence[float]], unverified: bool) -> tuple[str, ...]:
    mark = " (unverified)" if unverified else ""
    return _by_column(table, {column: printed(of, table.digits) + mark for column, of in numbers.items()})


def printed(numbers: Sequence[float], digits: int) -> str:
    """A published value, and its spread, with all digits that were printed, or more."""
    texts = [max(f"{number:.{digits}f}", repr(number), key=len).replace("-", MINUS) for number in numbers]
    return " ± ".join(texts)


def _intervals(grid: Grid, table: Table, found: Mapping[str, Summary | None], is_difference: bool = False) -> None:
    texts = {column: _interval(of, table.digits, is_difference) for column, of in found.items()}
    _detail(grid, table, "95 % interval", texts)


def _interval(found: Summary | None, digits: int, is_difference: bool) -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    low, high = (signed(v, digits) if is_difference else _plain(v, digits) for v in (found.low, found.high))
    return f"{low} to {high}"


def _plain(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int) -> str:
    """+0.73 or −0.73, never −0.00."""
    return f"{value:+z.{digits}f}".replace("-", MINUS)


def _caption(table: Table, budget: str, states: Sequence[State]) -> list[str]:
    """What a reader must know to use the numbers."""
    rows = [row for state in states for row in state.rows]
    says = [f"{table.title}, budget={budget}"]
    drawn = [row["split_seed"] == row["seed"] for row in rows if row["split_sha256"] and row["labels"] != "0"]
    labels = ", each with labels of its own draw" if all(drawn) else ", some of which share their labels"
    labels = labels if drawn else ""
    says.append(f"Here: mean ± sample standard deviation (ddof = 1) over n seeds{labels};")
    says.append("the interval is Student's t for the mean.")
    if table.is_sweep:
        says.append("Trials, scored on the validation rows; no row here has a test metric.")
        return says + ([table.reading[budget]] if budget in table.reading else [])
    rules = {"last": "the weights after the last epoch", "best_validation": "the weights of the best validation epoch"}
    kinds = sorted({rules.get(row["selection"], row["selection"]) for row in rows})
    used = sorted({int(row["validation_labels"] or 0) for row in rows})
    if rows:
        says.append(f"Selection: {' or '.join(kinds)}; validation labels used: {' or '.join(map(str, used))}.")
    says.append(f"Paper: {table.source}, ± as printed there.")
    if any(row.published for row in table.rows.values()):
        says.append(
            "Difference: ours minus theirs; within: our interval and the published value ± its spread overlap; better "
            "and worse: they do not."
        )
    if table.best_by:
        says.append(f"Best: the one of n seeds that {table.best_by} picks; theirs as their paper picked it.")
    if table.reference:
        says.append("Paired differences: mean and interval over the seeds that both rows have.")
    return says

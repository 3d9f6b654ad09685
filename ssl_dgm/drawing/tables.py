"""A table's numbers as curves: what was measured against the number of labels, of latents, of rows."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.drawing import style
from ssl_dgm.drawing.style import COLUMN, PAGE, Drawn, new, plain
from ssl_dgm.tables import output, report, series, spec
from ssl_dgm.tables.report import Made
from ssl_dgm.tables.series import Axis, Point, Series
from ssl_dgm.tables.spec import lower_is_better

COLOURS = (style.BLUE, style.RED, style.GREEN, style.PINK, style.SKY, style.ORANGE, style.BLACK)
MARKERS = "os^Dv<>phPX*"  # each can be hollow, and half filled
PUBLISHED: dict[str, Any] = {"linestyle": ":", "linewidth": 0.9, "markerfacecolor": "white", "markeredgewidth": 0.8}
ONE_SEED: dict[str, Any] = {"fillstyle": "left", "markerfacecoloralt": "white", "markeredgewidth": 0.8}
SEVERAL = 5  # rows, beyond which a legend under a column is as high as what it explains
DECADE = 10.0
MARGIN = 0.06  # of an axis, beyond its first and last points
ABOVE = 0.02  # of an axis: half a marker
STEP = 0.09  # inches: from a marker to one beside it

Places = Mapping[tuple[str, Point], float]  # on the axis, by row and point


def of(
    name: str, budget: str, results: Path, rows: Sequence[str], say: Callable[[str], None], runs: str = "runs"
) -> Drawn:
    """What a table's rows say, drawn by `against`.

    Args:
        name: of conf/table/, or a YAML file.
        results, runs: folders of the tables' CSVs, and of those of budget=smoke.

    Raises:
        UserError: as `against`, for a table whose columns are no numbers, and for one that has no rows yet.
    """
    table = spec.read(spec.find(name))
    if budget not in table.seeds:
        raise UserError(f"budget={budget} is none of {table.name}; there are {', '.join(table.seeds)}")
    axes, csv = series.axes(table), output.path(results, runs, budget, table)
    made = report.of(table, budget, csv, say)
    if made is None:
        others = [b for b in table.seeds if output.path(results, runs, b, table).is_file()]
        also = f", and budget={others[0]} has some" if others and budget not in others else ""
        makes = f"python -m ssl_dgm.table {name} --budget {budget}"
        raise UserError(f"{csv} has no rows of {table.name} as it is set; '{makes}' makes them{also}")
    return against(made, axes, rows)


def against(made: Made, axes: Sequence[Axis], rows: Sequence[str] = ()) -> Drawn:
    """A table's metric against the numbers of its columns: a panel per axis, a line per row.

    Means over seeds have Student's 95 % interval, single seeds none; published numbers stand beside in the same colour.

    Args:
        axes: as `series.axes` finds them.
        rows: those wanted, measured or quoted: one that was not run here is drawn in grey as published. None named: all
            that were run here.

    Raises:
        UserError: for a row that the table has not, and for one of which there is nothing to draw.
    """
    known = [*made.table.rows, *made.table.quoted]
    for row in rows:
        if row not in known:
            raise UserError(f"{made.table.name} has no row {row}; {nearest(row, known)}")
    panels = [(axis, drawn) for axis in axes if (drawn := series.of(made, axis, rows))]
    shown = {one.row: one for _, drawn in panels for one in drawn}
    if absent := [row for row in rows if row not in shown] or ([] if shown else list(made.table.rows)):
        raise UserError(f"{made.csv} has nothing to draw of {', '.join(absent)}; {_command(made, absent)} makes it")
    wide = len(panels) > 1 or len(shown) > SEVERAL
    looks = _looks(list(shown.values()), {one.row for _, drawn in panels for one in drawn if one.is_run})
    handles = [Line2D([], [], label=plain(shown[row].label), **look) for row, look in looks.items()]
    points = [point for _, drawn in panels for one in drawn for point in (*one.ours, *one.published)]
    key: dict[str, Any] = {"color": "black", "marker": MARKERS[0]}
    if any(point.n == 1 for point in points):
        handles.append(Line2D([], [], label="one seed", linestyle="", **key, **ONE_SEED))
    if any(not point.n for point in points):
        handles.append(Line2D([], [], label="published", **key | PUBLISHED))
    figure, places = new(PAGE if wide else COLUMN, 2.6 if wide else 2.1 + 0.07 * len(handles), 1, len(panels))
    says = [_panel(panel, axis, drawn, looks) for panel, (axis, drawn) in zip(places[0], panels)]
    where: dict[str, Any] = {"loc": "outside right center"} if wide else {"loc": "outside lower center", "ncols": 2}
    figure.legend(handles=handles, handlelength=2.6, **where)
    return Drawn(figure, _caption(made, panels, says))


def _command(made: Made, rows: Sequence[str] = ()) -> str:
    """What makes the rows of a table at a budget."""
    budget = "" if made.budget == "paper" else f" --budget {made.budget}"
    only = f" --only {' '.join(rows)}" if rows and list(rows) != list(made.table.rows) else ""
    return f"python -m ssl_dgm.table {made.table.name}{budget}{only}"


def _looks(shown: Sequence[Series], run_here: set[str]) -> dict[str, dict[str, Any]]:
    """By row: a colour and a marker, which tell rows apart without the colour; grey and hollow is what was not run."""
    looks, colour = {}, 0
    for place, one in enumerate(shown):
        marker = MARKERS[place % len(MARKERS)]
        if one.row not in run_here:
            looks[one.row] = {"color": "0.45", "marker": marker} | PUBLISHED
            continue
        again, which = divmod(colour, len(COLOURS))
        looks[one.row] = {"color": COLOURS[which], "marker": marker, "linestyle": "--" if again else "-"}
        colour += 1
    return looks


def _panel(panel: Any, axis: Axis, drawn: Sequence[Series], looks: Mapping[str, dict[str, Any]]) -> str:
    """Draws an axis; returns what the caption says of its scale."""
    says = _scaled(panel, axis, [point for one in drawn for point in (*one.ours, *one.published)])
    numbers = sorted(set(axis.numbers.values()))
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(numbers))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel(plain(axis.name and f"number of {axis.name}"))
    panel.set_ylabel(plain(f"{_name(axis.metric)} ({records.unit(axis.metric)})"))
    panel.set_title(plain(axis.title))
    places = _beside(panel, numbers, drawn)
    stand, room = [*numbers, *places.values()], (numbers[-1] / numbers[0]) ** MARGIN
    panel.set_xlim(min(stand) / room, max(stand) * room)
    for one in drawn:
        look = looks[one.row]
        published = look | PUBLISHED | {"label": f"{one.row}, published", "zorder": 2.5}
        at = {point: places[one.row, point] for point in (*one.ours, *one.published)}
        _line(panel, numbers, one.published, at, **published)
        _line(panel, numbers, one.ours, at, **look | {"marker": "", "label": one.row, "zorder": 3})
        for point in one.ours:
            on_top = look | {"linestyle": "", "zorder": 3.5, "label": f"{one.row}, n = {point.n}"}
            panel.plot(at[point], point.value, **on_top | (ONE_SEED if point.n == 1 else {}))
        for point in (*one.ours, *one.published):
            if point.low is not None and point.high is not None:
                ends = [[point.value - point.low], [point.high - point.value]]
                thin = {"elinewidth": 0.9 if point.n else 0.7, "capsize": 1.5, "capthick": 0.7, "zorder": 2}
                panel.errorbar(at[point], point.value, ends, fmt="none", ecolor=look["color"], **thin)
    return says


def _line(panel: Any, numbers: Sequence[int], points: Sequence[Point], at: Mapping[Point, float], **look: Any) -> None:
    """A line that breaks where a number has no point: nothing is known there."""
    found = {point.at: (at[point], point.value) for point in points}
    panel.plot(*zip(*(found.get(number, (math.nan, math.nan)) for number in numbers)), **look)


def _scaled(panel: Any, axis: Axis, points: Sequence[Point]) -> str:
    """Sets the scale of the metric: errors from 0, or logarithmic where they span more than a decade."""
    name, share = _name(axis.metric), records.unit(axis.metric) == "%"
    values = [point.value for point in points]
    bars = [end for point in points for end in (point.low, point.high) if end is not None]
    # There is no share outside, whatever Student says.
    ends = [*values, *(min(max(end, 0.0), 100.0) if share else end for end in bars)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if not lower_is_better(axis.metric):
        room = MARGIN * (high - low) or 1.0
        panel.set_ylim(max(low - room, 0.0) if share else low - room, high + room)
        says = "begins at 0" if panel.get_ylim()[0] == 0 else "does not begin at 0"
    elif min(values, default=0.0) > 0 and max(values) / min(values) > DECADE:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        # An interval of few seeds may reach down to 0, for which this axis has no place.
        panel.set_ylim(max(low / 1.15, min(values) / 2), 1.15 * high)
        says = "is logarithmic, for it spans more than a decade"
    else:
        panel.set_ylim(0, (1 + MARGIN) * high or 1)
        says = "begins at 0"
    bottom, top = panel.get_ylim()
    cut = any(not bottom <= end <= top for end in bars)
    of = f"{name} ({axis.title})" if axis.title else name
    return f"The axis of {of} {says}{'; bars that reach its end go on beyond it' if cut else ''}."


def _beside(panel: Any, numbers: Sequence[int], drawn: Sequence[Series]) -> Places:
    """Where points stand on the axis: at their number, or a step or more beside it where they would hide each other."""
    to_axes = panel.transScale + panel.transLimits
    lanes: dict[tuple[str, Point], int] = {}
    taken: dict[tuple[int, int], list[tuple[float, float]]] = {}
    ours = [(one.row, point) for one in drawn for point in one.ours]
    for row, point in (*ours, *((one.row, point) for one in drawn for point in one.published)):
        ends = (point.value if end is None else end for end in (point.low, point.high))
        low, high = (float(to_axes.transform((point.at, end))[1]) for end in ends)
        low, high, lane = low - ABOVE, high + ABOVE, 0
        while any(low < top and bottom < high for bottom, top in taken.get((point.at, lane), ())):
            lane += 1
        taken.setdefault((point.at, lane), []).append((low, high))
        lanes[row, point] = lane
    steps = {key: (lane + 1) // 2 * (1 if lane % 2 else -1) for key, lane in lanes.items()}
    closest = min(math.log10(b / a) for a, b in itertools.pairwise(numbers))
    inches = panel.get_position().width * panel.get_figure().get_figwidth()
    step = min(STEP / inches * math.log10(numbers[-1] / numbers[0]), 0.4 * closest / max(1, *steps.values()))
    return {key: key[1].at * 10 ** (step * steps[key]) for key in lanes}


def _name(metric: str) -> str:
    return re.sub("[/_]", " ", metric).replace("nmi", "NMI").replace("test log likelihood", "test log p(x)")


def _caption(made: Made, panels: Sequence[tuple[Axis, Sequence[Series]]], says: Sequence[str]) -> str:
    table, every = made.table, [one for _, drawn in panels for one in drawn]
    counts = sorted({point.n for one in every for point in one.ours})
    several = [n for n in counts if n > 1]
    parts = [f"{table.title}, budget={made.budget}."]
    if several:
        n = str(several[0]) if len(several) == 1 else f"{several[0]} to {several[-1]}"
        parts.append(f"Filled: the mean over {n} seeds, with Student's 95 % interval for the mean.")
    if 1 in counts:
        parts.append("Half filled: one seed, which has no interval.")
    if any(one.published for one in every):
        parts.append(f"Hollow and dotted: {table.source}, bars as ± is printed there.")
    run_here = {one.row for one in every if one.is_run}
    if alone := list(dict.fromkeys(one.label for one in every if one.row not in run_here)):
        parts.append(f"Grey: {', '.join(alone)}, not run here.")
    doubtful = {**table.rows, **table.quoted}
    if unverified := list(dict.fromkeys(one.label for one in every if one.published and doubtful[one.row].unverified)):
        parts.append(f"Unverified, not found in a text at hand: what is published of {', '.join(unverified)}.")
    parts += dict.fromkeys(says)
    parts.append("Points that would hide each other stand beside their number; lines break where nothing was run.")
    lost = [f"{one.label} at {at:,} {axis.name}".strip() for axis, drawn in panels for one in drawn for at in one.lost]
    if lost:
        parts.append(f"Not drawn, since a seed's value is not finite: {', '.join(lost)}.")
    drawn_columns = {column for axis, _ in panels for column in axis.numbers}
    if left := [table.columns[column].label or column for column in table.columns if column not in drawn_columns]:
        parts.append(f"Left out: {'; '.join(left)}.")
    return f"{' '.join(parts)} Rows: {made.csv.as_posix()}."

"""conf/figure/<name>.yaml: figures that are shown, the runs that they are of, and drawing them into results/figures/.

A figure of one kind and one run is a file; of several runs, a file each, or one for all where the kind compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import api, compose
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.drawing import compared, kinds, style, tables
from ssl_dgm.drawing.style import Drawn, Film
from ssl_dgm.files import write_atomic
from ssl_dgm.tables import cells as cells_of
from ssl_dgm.tables import schedule, spec
from ssl_dgm.tables.cells import DONE_HERE, Cell, Say, State
from ssl_dgm.tables.spec import Column, Measured, Table

METRIC = "test/bound"  # that a run has when it is finished; every model that generates has it
PAGE = """# Figures

Every figure is drawn from the checkpoints of runs that `conf/figure/<name>.yaml` names, or from a table's rows, by

    make figures

which first trains the runs that are not there. Beside each picture are a PDF and the caption as text, and
beside learning curves their numbers as CSV.
"""


@dataclass
class Run:
    """A run that a figure is of: what it adds to the figure's settings."""

    overrides: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)  # what it adds at a budget
    cell: str = ""  # of a table or sweep, whose run it is: table1/m1m2@100, sweep/ojha/adgm_weight@adgm
    label: str = ""

    def as_row(self) -> Measured:
        """Of a table.

        Raises:
            UserError: for a cell that is none.
        """
        if not self.cell:
            return Measured(overrides=self.overrides, at=self.at, label=self.label)
        name, _, place = self.cell.rpartition("/")
        table, (row, _, column) = spec.read(spec.find(name)), place.rpartition("@")
        if row not in table.rows or column not in table.columns_of(row):
            raise UserError(f"{place} is no cell of {name}; write for example table1/m1m2@100")
        words = {budget: table.words(row, column, budget)[:-1] for budget in spec.BUDGETS}
        at = {budget: [*own, *self.overrides, *self.at.get(budget, [])] for budget, own in words.items()}
        return Measured(at=at, label=self.label)


@dataclass
class Figure:
    """A figure that is shown: a kind of `drawing`, and the runs or the table that it is drawn from."""

    title: str = MISSING
    source: str = ""  # the figure that it is after, and whose
    draw: str = MISSING  # one of `drawing.kinds.KINDS`, or of `drawing.compared.COMPARED`, or table
    caption: str = ""  # what to see in it; what it is, its kind says
    order: int = 100
    budget: str = "short"  # of the runs that it is shown of
    seeds: dict[str, list[int]] = field(default_factory=lambda: {budget: [0] for budget in spec.BUDGETS})
    base: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)  # what every run adds at a budget
    runs: dict[str, Run] = field(default_factory=dict)
    table: str = ""  # draw=table: the table whose rows are drawn
    rows: list[str] = field(default_factory=list)  # those of them; none: all that were run
    name: str = ""

    @property
    def compares(self) -> bool:
        """Whether all runs are in one picture."""
        return self.draw in compared.COMPARED

    def as_table(self) -> Table:
        """A row for every run, for the machinery that trains what is missing."""
        rows = {name: run.as_row() for name, run in self.runs.items()}
        return Table(
            title=self.title, source=self.source, metric=METRIC, seeds=self.seeds, base=["baseline=null", *self.base],
            at=self.at, columns={"run": Column()}, rows=rows, name=self.name,
        )  # fmt: skip

    def file(self, run: str) -> str:
        """The name of the picture of a run."""
        return self.name if self.compares or len(self.runs) == 1 else f"{self.name}_{run}"


def names() -> list[str]:
    """The figures of conf/figure/."""
    return compose.choices().get("figure", [])


def find(name: str) -> Path:
    """The file of a figure: conf/figure/<name>.yaml, or the path itself.

    Raises:
        UserError: when there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else compose.config_folder() / "figure" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"figure={name} is unknown; {nearest(name, [*names(), 'all'])}")
    return path


def read(path: Path) -> Figure:
    """The figure in a YAML file.

    Raises:
        UserError: for what is no such figure, in one sentence with the file's name.
    """
    try:
        figure = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Figure), OmegaConf.load(path)))
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no figure: {' '.join(str(error).split())[:200]}") from error
    assert isinstance(figure, Figure)
    figure.name = path.stem
    known = [*kinds.KINDS, *compared.COMPARED, "table"]
    if figure.draw not in known:
        raise UserError(f"{path}: draw={figure.draw} is no kind of figure; {nearest(figure.draw, known)}")
    try:
        if figure.draw == "table":
            spec.find(figure.table)
        else:
            spec.check(path, figure.as_table())
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return figure


def carry_out(
    figures: Sequence[Figure],
    budget: str | None,
    runs: str,
    out: Path,
    say: Say,
    deadline: float | None = None,
    device: str = "auto",
    train: bool = True,
    results: Path = Path("results"),
) -> list[str]:
    """Trains the runs that are missing and draws the figures.

    Args:
        budget: of the runs; None: that of every figure as it is shown.
        runs, out: folders of the runs, and of the pictures.
        deadline: of time.monotonic().
        device: on which runs are trained and drawn.
        results: the folder of the tables' rows.
        train: whether anything is trained; otherwise only what is finished is drawn.

    Returns:
        Why figures could not be drawn, a sentence each; those alone excepted whose data are not on this machine, which
        is said.

    Raises:
        KeyboardInterrupt: when a signal ended a training.
    """
    lacking = []
    usual = ("runs=runs", "device=auto")
    words = [word for word in (f"runs={runs}", f"device={device}") if word not in usual]
    for figure in figures:
        if figure.draw == "table":
            try:
                with style.sheet():
                    drawn = tables.of(figure.table, budget or figure.budget, results, figure.rows, say, runs)
                    say(f"picture   {_save(figure, drawn, out, figure.name)}")
            except UserError as error:
                lacking.append(f"{figure.name}: {error}")
            continue
        table = figure.as_table()
        every = cells_of.cells(table, budget or figure.budget, runs)
        if train and cells_of.fetch(every, say):
            every = cells_of.cells(table, budget or figure.budget, runs)

        def look(cell: Cell, table: Table = table) -> State:
            return cells_of.look(table, cell, [], say)

        if train and any(look(cell).name not in DONE_HERE for cell in every):
            say(f"\n{figure.name}: {figure.title}")
            work = schedule.Schedule(look, lambda cell, state: None, say, deadline=deadline, words=words)
            work.carry_out(every)
            if work.stopping.startswith("SIG"):
                raise KeyboardInterrupt
        states = {cell: look(cell) for cell in every}
        done = [cell for cell in every if states[cell].name == "done"]
        if len(done) < len(every):
            cell, state = next((cell, state) for cell, state in states.items() if state.name != "done")
            if state.name == "no data":
                say(f"no data   {figure.name}: {state.note}")
            else:
                lacking.append(f"{figure.name}: {cell.row} is {state.name}{f', {state.note}' if state.note else ''}")
        if done and (len(done) == len(every) or not figure.compares):
            try:
                for path in _draw(figure, done, out, say, device):
                    say(f"picture   {path}")
            except UserError as error:
                lacking.append(f"{figure.name}: {error}")
    return lacking


def _draw(figure: Figure, done: Sequence[Cell], out: Path, say: Say, device: str) -> list[Path]:
    made = []
    label = {name: run.label or name for name, run in figure.runs.items()}
    with style.sheet():
        if figure.compares:
            runs = [
                (label[cell.row], api.load(cell.folder, seed, device)) for cell in done for seed in cell.config.seeds
            ]
            drawn = compared.COMPARED[figure.draw]([(name, fitted.trained) for name, fitted in runs])
            made.append(_save(figure, drawn, out, figure.name))
        for cell in () if figure.compares else done:
            if figure.draw in kinds.SLOW:
                say(f"{figure.file(cell.row)}: {kinds.SLOW[figure.draw]}")
            drawn = kinds.KINDS[figure.draw](api.load(cell.folder, device=device).trained)
            if drawn is None:
                raise UserError(f"{cell.folder.name} has no figure {figure.draw}; choose another for {figure.name}")
            made.append(_save(figure, drawn, out, figure.file(cell.row)))
    return made


def _save(figure: Figure, drawn: Drawn | Film, out: Path, name: str) -> Path:
    said = " ".join(figure.caption.split())
    after = f" (after {figure.source})" if figure.source else ""
    drawn.caption = f"{figure.title}{after}. {drawn.caption}{f' {said}' if said else ''}"
    return style.save(drawn, out, name)


def page(out: Path, every: Sequence[Figure]) -> None:
    """README.md of the pictures in a folder: each with its caption and its numbers, in the figures' order."""
    parts = [PAGE]
    pictures = {path.stem: path for path in out.glob("*.txt")}
    longest_first = sorted(every, key=lambda figure: len(figure.name), reverse=True)

    def place(name: str) -> tuple[int, str]:
        return next((figure.order for figure in longest_first if name.startswith(figure.name)), 1000), name

    for name in sorted(pictures, key=place):
        file = next((f"{name}{end}" for end in (".gif", ".png") if (out / f"{name}{end}").exists()), None)
        if file is not None:
            caption = " ".join(pictures[name].read_text(encoding="utf-8").split())
            numbers = f" [Its numbers]({name}.csv)." if (out / f"{name}.csv").exists() else ""
            parts.append(f"## {name}\n\n![{name}]({file})\n\n{caption}{numbers}\n")
    write_atomic(out / "README.md", "\n".join(parts))

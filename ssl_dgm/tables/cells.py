"""The cells of a table: which run each one is, and how far that run has come."""

import contextlib
import dataclasses
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tabulate import tabulate

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.compose import compose
from ssl_dgm.config import Config, DataConfig, UserError
from ssl_dgm.data import sources, splits
from ssl_dgm.tables import collect
from ssl_dgm.tables.collect import Row
from ssl_dgm.tables.spec import Table

Say = Callable[[str], None]
STATES = ("done", "running", "failed", "partial", "stale", "missing", "no data")
DONE_HERE = ("done", "no data")  # nothing that this machine could train


@dataclass(frozen=True, eq=False)
class Cell:
    """A run in a table: a row and a column at a budget, and the columns that show other metrics of the same run."""

    row: str
    columns: tuple[str, ...]  # its rows of the CSV are under the first
    metrics: tuple[str, ...]  # that these show
    words: tuple[str, ...]  # of the command line, without seeds
    config: Config
    key: str
    first_key: str | None  # of the M1 that it builds on
    absent: str = ""  # why its data can't be read here

    @property
    def column(self) -> str:
        """The first of its columns."""
        return self.columns[0]

    @property
    def name(self) -> str:
        """As messages and --only have it."""
        return f"{self.row}@{self.column}"

    @property
    def config_hash(self) -> str:
        """As in the CSV."""
        return self.key.rpartition("-")[2]

    @property
    def folder(self) -> Path:
        """Of its run."""
        return Path(self.config.runs) / self.key

    @property
    def first_folder(self) -> Path | None:
        """Of the run of its M1."""
        return None if self.first_key is None else Path(self.config.runs) / self.first_key

    def command(self, seeds: Sequence[int]) -> list[str]:
        """The words after `python -m ssl_dgm.train` that make these seeds."""
        return [*self.words, f"seeds=[{','.join(map(str, seeds))}]"]


@dataclass(frozen=True)
class State:
    """How far a cell is."""

    name: str  # one of STATES
    rows: list[Row] = field(default_factory=list)  # of its finished seeds
    missing: list[int] = field(default_factory=list)
    note: str = ""
    seconds_left: float | None = None  # None: not known
    seconds_whole: float | None = None  # all epochs at the speed of the last ones
    seconds_first: float = 0.0  # left of its M1, which other cells may wait for too

    @cached_property
    def seconds(self) -> float:
        """What its finished seeds took: those of a group, trained together, tell the same; estimators their own."""
        spent = {row["seed"]: (float(row["train_seconds"] or 0), row["updates"]) for row in self.rows}
        groups = {seconds for seconds, updates in spent.values() if updates not in ("", "0")}
        return sum(groups) + sum(s for s, updates in spent.values() if updates in ("", "0"))


def cells(table: Table, budget: str, runs: str, known: Sequence[Row] = (), only_known: bool = False) -> list[Cell]:
    """The cells of a table in reading order; columns that show metrics of one run are one cell.

    Args:
        known: rows of the table's CSV, which tell what data a cell is of that can't be read here.
        only_known: only cells with rows among these: composing the others takes time.

    Raises:
        UserError: for an override that does not compose, with the cell's name.
    """
    if budget not in table.seeds:
        raise UserError(f"budget={budget} has no seeds in {table.name}; there are {', '.join(table.seeds)}")
    seeds = f"seeds=[{','.join(map(str, table.seeds[budget]))}]"
    made, read = [], {}
    for row in table.rows:
        shown: dict[tuple[str, ...], list[str]] = {}
        for column in table.columns_of(row):
            shown.setdefault(table.words(row, column, budget), []).append(column)
        for words, columns in shown.items():
            here = [r for r in known if r["row"] == row and r["column"] in columns]
            if only_known and not here:
                continue
            try:
                config = _with_published_split(compose([*words, seeds, f"runs={runs}"]))
                if config.budget.name != budget:
                    raise UserError(f"its settings are of budget.name={config.budget.name}; shorten them under `at`")
                sha256, absent = _data(config.data, here, read)
            except UserError as error:
                raise UserError(f"cell {row}@{columns[0]} of {table.name}: {error}") from error
            first = schema.first_stage(config)
            first_key = None if first is None else schema.key(first, sha256)
            metrics = tuple(table.metric_of(column) for column in columns)
            key = schema.key(config, sha256)
            made.append(Cell(row, tuple(columns), metrics, words, config, key, first_key, absent))
    return made


def _data(data: DataConfig, known: Sequence[Row], read: dict[str, str]) -> tuple[str, str]:
    """The SHA-256 of a run's data, and why they can't be read here; what rows made elsewhere say, where that is so.

    Args:
        read: the SHA-256 of data that earlier cells have too, by their settings: it may take reading them all.
    """
    try:
        sources.check_available(data)
        if not sources.is_here(data):
            raise UserError(f"{data.name} is not on this machine yet; making the table downloads it")
    except UserError as error:
        sentence = str(error)
        # It stands under tables that are published, where no reader has this machine's folders.
        folder, data_dir = Path.cwd(), os.environ.get("SSL_DGM_DATA") or ""
        names = dict.fromkeys((str(folder / data_dir), data_dir), "$SSL_DGM_DATA") if data_dir else {}
        for path, name in {**names, str(folder): ".", str(Path.home()): "~"}.items():
            sentence = sentence.replace(path, name) if "/" in path and len(path) > 1 else sentence
        return sources.DIGESTS.get(data.name) or next((row["data_sha256"] for row in known), ""), sentence
    if repr(data) not in read:
        read[repr(data)] = sources.digest_of(data)
    return read[repr(data)], ""


def fetch(cells: Iterable[Cell], say: Say) -> bool:
    """Downloads what these cells lack where it may be downloaded; whether any of it came."""
    came = False
    for data in {repr(cell.config.data): cell.config.data for cell in cells if cell.absent}.values():
        with contextlib.suppress(UserError):
            sources.check_available(data)
            say(f"{data.name} is not on this machine yet; downloading it")
            try:
                sources.digest_of(data)
                came = True
            except UserError as error:
                say(str(error))
    return came


def _with_published_split(config: Config) -> Config:
    """The same with the checksum of the manifest it names, as its run has it: the key is of that, not of the path."""
    if config.split.file is None or not schema.needs_labels(config):
        return config
    published = splits.load_manifest(Path(config.split.file), sources.load(config.data))
    return dataclasses.replace(config, split=dataclasses.replace(config.split, sha256=published.sha256))


def look(table: Table, cell: Cell, known: Sequence[Row], say: Say) -> State:
    """How far a cell is, from its run's folder and from the rows of the table's CSV.

    Args:
        known: whole rows of the CSV, which stand for seeds that the folder has not; those of another configuration
            count as stale.
    """
    seeds = cell.config.seeds
    here = [row for row in known if row["row"] == cell.row and row["column"] in cell.columns]
    of_seed: dict[int, list[Row]] = {}
    for row in here:
        if row["config_hash"] == cell.config_hash:
            of_seed.setdefault(int(row["seed"]), []).append(row)
    for seed in seeds:
        # A record before the rows of one: a run that was forced replaces what was collected of it.
        if record := records.load(cell.folder, seed, say):
            of_seed[seed] = collect.rows(record, table.name, cell.row, cell.column)
    lacks = {seed: [m for m in cell.metrics if not collect.values(of_seed.get(seed, ()), m)] for seed in seeds}
    missing = [seed for seed in seeds if lacks[seed]]
    rows = [row for seed in seeds if not lacks[seed] for row in of_seed[seed]]
    if not missing:
        return State("done", rows, seconds_left=0.0)
    if without := [seed for seed in missing if seed in of_seed]:
        has = ", ".join(sorted({row["metric"] for row in of_seed[without[0]]}))
        return State("failed", rows, missing, f"its run has no {lacks[without[0]][0]}, only {has}")
    if cell.absent:
        return State("no data", rows, missing, cell.absent)
    progress = records.progress(cell.folder, missing, cell.config.budget.epochs, say)
    note, left = f"epoch {progress.epoch} of {progress.epochs}" if progress.epoch else "", progress.seconds_left
    whole = None if progress.seconds_per_epoch is None else progress.seconds_per_epoch * progress.epochs
    if progress.running:
        return State("running", rows, missing, note, left, whole)
    waits, first_left = _first_stage(cell, say)
    if reason := records.failure(cell.folder):
        return State("failed", rows, missing, reason, None, whole, first_left)
    if rows:
        note = waits or note or f"{len(seeds) - len(missing)} of {len(seeds)} seeds"
        return State("partial", rows, missing, note, left, whole, first_left)
    if here and not progress.epoch:
        return State("stale", [], missing, waits or "its rows are of other settings", None, None, first_left)
    return State("missing", [], missing, waits or note, left, whole, first_left)


def _first_stage(cell: Cell, say: Say) -> tuple[str, float]:
    """How far the M1 of a cell is that is in training, and the seconds that are left of it."""
    folder, config = cell.first_folder, schema.first_stage(cell.config)
    if folder is None or config is None:
        return "", 0.0
    progress = records.progress(folder, config.seeds, config.budget.epochs, say)
    left = progress.seconds_left or 0.0 if len(progress.finished) < len(config.seeds) else 0.0
    return f"its M1 is at epoch {progress.epoch} of {progress.epochs}" if progress.running else "", left


def with_estimates(cells: Sequence[Cell], states: Sequence[State]) -> list[State]:
    """The states with a time left for those that have none: what the other cells of the row take, on average."""
    takes: dict[str, list[float]] = {}
    for cell, state in zip(cells, states):
        if seconds := state.seconds_whole or (state.seconds if state.name == "done" else None):
            takes.setdefault(cell.row, []).append(seconds)
    return [
        dataclasses.replace(state, seconds_left=statistics.fmean(takes[cell.row]))
        if state.seconds_left is None and cell.row in takes and state.name not in DONE_HERE
        else state
        for cell, state in zip(cells, states)
    ]


def status(cells: Sequence[Cell], states: Sequence[State]) -> str:
    """The cells with their states and the time left, as text for the screen."""
    states = with_estimates(cells, states)
    lines = []
    for cell, state in zip(cells, states):
        seeds = f"{len(cell.config.seeds) - len(state.missing)} of {len(cell.config.seeds)}"
        left = "?" if state.seconds_left is None else duration(state.seconds_left + state.seconds_first)
        left = "" if state.name in DONE_HERE else left
        note = "" if state.name == "no data" else state.note
        lines.append((cell.name, state.name, seeds, left, note, cell.key))
    counts = Counter(state.name for state in states)
    unfinished = [state for state in states if state.name not in DONE_HERE]
    known = [state.seconds_left for state in unfinished if state.seconds_left is not None]
    firsts = {cell.first_key: state.seconds_first for cell, state in zip(cells, states)}
    total = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    if known:
        left = duration(sum(known) + sum(firsts.values()))
        total += f"; about {left} of training left in {len(known)} of {len(unfinished)} cells"
    table = tabulate(lines, headers=("cell", "state", "seeds", "left", "", "run"), disable_numparse=True)
    absent = "".join(f"\nno data: {reason}" for reason in dict.fromkeys(s.note for s in states if s.name == "no data"))
    return f"{table}\n\n{len(cells)} cells: {total}{absent}"


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

"""python -m ssl_dgm.table: trains what a table lacks, collects its rows and renders it beside the published numbers."""

import argparse
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_dgm.config import UserError
from ssl_dgm.data import sources
from ssl_dgm.files import write_atomic
from ssl_dgm.tables import cells as cells_of
from ssl_dgm.tables import collect, grid, render, schedule, spec
from ssl_dgm.tables.cells import Cell, State
from ssl_dgm.tables.collect import Row
from ssl_dgm.tables.spec import Table

EPILOG = """\
  python -m ssl_dgm.table table1                          trains what is missing (days on a CPU: the paper's lengths)
  python -m ssl_dgm.table table1 --budget short --jobs 2  what a laptop can do, two cells at a time
  python -m ssl_dgm.table table1 --status                 how far every cell is, and the time left
  python -m ssl_dgm.table table1 --only m1m2@100 --minutes 100

What is finished is never trained again; after --minutes, Ctrl-C or a crash the same command continues. The rows go to
results/<name>.csv (short: results/short/; smoke: <runs>/smoke/), and the table to .md, .tex and .html beside it.
Exit code: 0, 1 when a cell failed or could not be finished, 2 for a usage error, 130 after Ctrl-C.
"""


def say(line: str) -> None:
    """A line on the screen, at once, above a progress bar if there is one."""
    schedule.tqdm.write(line)
    sys.stdout.flush()


def main() -> None:
    """Runs the command line."""
    try:
        sys.exit(_run(_parser().parse_args()))
    except UserError as error:
        print(f"ssl_dgm: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("ssl_dgm: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ssl_dgm.table", description=__doc__, epilog=EPILOG, formatter_class=raw)
    add = parser.add_argument
    add("table", help=f"a table of conf/table/ ({', '.join(spec.names())}), or the path of a YAML file like those")
    add("--budget", choices=spec.BUDGETS, default="paper", help="how long every cell is trained (default: paper)")
    what = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--status", "print how far every cell is, and the time left"),
        ("--dry-run", "print the commands of the cells that are not done"),
        ("--render-only", "collect and render what is there, train nothing"),
    ):
        what.add_argument(flag, action="store_true", help=text)
    add("--only", nargs="+", metavar="CELL", default=[], help="train only these rows (m2) or cells (m2@100)")
    add("--jobs", type=_positive, default=1, metavar="N", help="cells trained at once, each by its own process")
    add("--minutes", type=_minutes, metavar="M", help="stop cleanly after so long, between or inside runs")
    add(
        "--rows",
        nargs="+",
        type=Path,
        default=[],
        metavar="CSV",
        help="take rows of the same runs from these files too",
    )
    add("--runs", default="runs", metavar="DIR", help="where runs are kept (default: runs)")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where the table goes (default: results)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--logger", choices=("csv", "wandb", "tensorboard"), default="csv", help="also log there (default: csv)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no positive whole number")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return minutes


def _run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    table = spec.read(spec.find(arguments.table))
    if Path(arguments.runs).exists() and not Path(arguments.runs).is_dir():
        raise UserError(f"--runs {arguments.runs} is no folder; name one")
    cells = cells_of.cells(table, arguments.budget, arguments.runs)
    chosen = [cell for cell in cells if _is_chosen(table, cell, arguments.only)]
    csv = _folder(arguments) / f"{table.name}.csv"
    if arguments.status or arguments.dry_run:
        known = [*collect.read(csv, say), *_rows(arguments.rows, table, cells)]
        states = [cells_of.look(table, cell, known, say) for cell in chosen]
        say(cells_of.status(chosen, states) if arguments.status else _commands(chosen, states, arguments, table))
        return 0
    states = _collect(table, cells, csv, _rows(arguments.rows, table, cells))
    if arguments.render_only:
        _write(table, arguments.budget, states, csv, show=True)
        return 0
    stopped = ""
    if any(states[cell].name != "done" for cell in chosen):
        for cell in chosen:
            sources.check_available(cell.config.data)
        minutes = arguments.minutes
        work = schedule.Schedule(
            look=lambda cell: cells_of.look(table, cell, collect.read(csv, say), say),
            finished=lambda cell, state: _keep(table, arguments.budget, cells, csv),
            say=say,
            jobs=arguments.jobs,
            deadline=None if minutes is None else started + 60 * minutes,
            words=_words(arguments, table),
        )
        work.carry_out(chosen)
        stopped = work.stopping or ("" if minutes is None else "the time is up")
        states = _collect(table, cells, csv)
    _write(table, arguments.budget, states, csv, show=True)
    return _conclude([(cell, states[cell]) for cell in chosen], stopped)


def _is_chosen(table: Table, cell: Cell, only: Sequence[str]) -> bool:
    names = [f"{row}@{column}" for row in table.rows for column in table.columns] + list(table.rows)
    for name in only:
        if name not in names:
            raise UserError(
                f"--only {name} is no cell of {table.name}; write a row ({', '.join(table.rows)}) or row@column"
            )
    return not only or cell.name in only or cell.row in only


def _folder(arguments: argparse.Namespace) -> Path:
    """Of the table's files: smoke rows show nothing but that the code works, and stay with the runs."""
    if arguments.budget == "smoke":
        return Path(arguments.runs) / "smoke"
    return arguments.results if arguments.budget == "paper" else arguments.results / arguments.budget


def _words(arguments: argparse.Namespace, table: Table) -> list[str]:
    """What every command gets besides its cell's settings."""
    words = [] if arguments.runs == "runs" else [f"runs={arguments.runs}"]
    if arguments.device != "auto":
        words.append(f"device={arguments.device}")
    if arguments.logger != "csv":
        words += [f"logger={arguments.logger}", f"logger.group={table.name}"]
    return words


def _commands(cells: Sequence[Cell], states: Sequence[State], arguments: argparse.Namespace, table: Table) -> str:
    words = _words(arguments, table)
    unfinished = [(cell, state) for cell, state in zip(cells, states) if state.name != "done"]
    lines = [
        shlex.join(["python", "-m", "ssl_dgm.train", *cell.command(state.missing), *words])
        for cell, state in unfinished
    ]
    return "\n".join(lines) or "nothing to do: every cell is done"


def _rows(paths: Sequence[Path], table: Table, cells: Sequence[Cell]) -> list[Row]:
    """The rows in other files that are of the cells' runs."""
    by_hash, found = {cell.config_hash: cell for cell in cells}, []
    for path in paths:
        if not path.is_file():
            raise UserError(f"--rows {path}: there is no such file; name CSV files of rows")
        for row in collect.read(path, say):
            if (cell := by_hash.get(row["config_hash"])) is not None:
                found.append(collect.placed(row, table.name, cell.row, cell.column))
    return found


def _collect(table: Table, cells: Sequence[Cell], csv: Path, others: Sequence[Row] = ()) -> dict[Cell, State]:
    """Brings the rows of all finished seeds into the CSV; returns how far every cell is."""
    # Of a seed in both, the table's own row wins.
    own = collect.read(csv, lambda line: None)
    listed = {(row["row"], row["column"], row["config_hash"], row["seed"]) for row in own}
    known = own + [row for row in others if (row["row"], row["column"], row["config_hash"], row["seed"]) not in listed]
    states = {cell: cells_of.look(table, cell, known, say) for cell in cells}
    collect.append(csv, [row for state in states.values() for row in state.rows], say)
    return states


def _keep(table: Table, budget: str, cells: Sequence[Cell], csv: Path) -> None:
    """After every cell: whoever looks, or a crash, finds the table as far as it is."""
    _write(table, budget, _collect(table, cells, csv), csv, show=False)


def _write(table: Table, budget: str, states: Mapping[Cell, State], csv: Path, show: bool) -> None:
    made = grid.build(table, budget, {(cell.row, cell.column): state for cell, state in states.items()})
    markdown = render.to_markdown(made)
    for suffix, text in ((".md", markdown), (".tex", render.to_latex(made)), (".html", render.to_html(made))):
        path = csv.with_suffix(suffix)
        if not path.exists() or path.read_bytes() != text.encode():
            write_atomic(path, text)
    if not show:
        return
    say(f"\n{markdown}\nrows      {csv}\ntable     {csv.with_suffix('.md')}, .tex, .html")
    dirty = sum(row["git_commit"].endswith("-dirty") for state in states.values() for row in state.rows)
    if dirty:
        say(f"warning   {dirty} rows come from code with uncommitted changes; such numbers cannot be run again")


def _conclude(states: Sequence[tuple[Cell, State]], stopped: str) -> int:
    unfinished = [(cell, state) for cell, state in states if state.name != "done"]
    failed = [(cell, state) for cell, state in unfinished if state.name == "failed"]
    for cell, state in failed:
        say(f"failed    {cell.name}: {state.note} ({cell.folder})")
    if stopped and unfinished:
        say(f"{stopped}: {len(unfinished)} cells are not done; the same command continues")
    elif len(unfinished) > len(failed):
        say(f"{len(unfinished) - len(failed)} cells were not finished; the same command continues")
    if stopped.startswith("SIG"):
        return 130
    return 1 if failed or (unfinished and not stopped) else 0


if __name__ == "__main__":
    main()

"""python -m ssl_dgm.table: trains what tables lack, and renders their rows beside the published numbers."""

import argparse
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssl_dgm.config import UserError
from ssl_dgm.files import forget_stdout, speak_plainly
from ssl_dgm.tables import cells as cells_of
from ssl_dgm.tables import collect, output, report, schedule, spec
from ssl_dgm.tables.cells import DONE_HERE, STATES, Cell, State
from ssl_dgm.tables.spec import Table

EPILOG = """\
  python -m ssl_dgm.table table1                          trains what is missing (days on a CPU: the paper's lengths)
  python -m ssl_dgm.table table1 --budget short --jobs 2  what a laptop can do, two cells at a time
  python -m ssl_dgm.table table1 --status                 how far every cell is, and the time left
  python -m ssl_dgm.table table1 --only m1m2@100 --minutes 100
  python -m ssl_dgm.table sweep/m2 --budget short         trials of settings, scored on the validation rows alone
  python -m ssl_dgm.table all --budget short              every table, one after the other
  python -m ssl_dgm.table --report                        results/README.md and README.md's state, of the rows there are

What is finished is never trained again; after --minutes, Ctrl-C or a crash the same command continues. The rows go to
results/<name>.csv (short: results/short/; sweeps: results/sweeps/; smoke: <runs>/smoke/), and the table to .md, .tex
and .html beside it. Cells whose data are not on this machine say so and what to fetch; the others are trained.
Exit code: 0, 1 when a cell failed or could not be finished, 2 for a usage error, 130 after Ctrl-C.
"""


def say(line: str) -> None:
    """A line on the screen, at once, above a progress bar if there is one."""
    schedule.tqdm.write(line)
    sys.stdout.flush()


def main() -> None:
    """Runs the command line."""
    speak_plainly()
    try:
        sys.exit(_run(_parser().parse_args()))
    except UserError as error:
        print(f"ssl_dgm: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        forget_stdout()
        sys.exit(1)
    except KeyboardInterrupt:
        print("ssl_dgm: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ssl_dgm.table", description=__doc__, epilog=EPILOG, formatter_class=raw)
    add = parser.add_argument
    names = ", ".join(spec.names())
    add(
        "tables",
        nargs="*",
        metavar="table",
        help=f"of conf/table/ ({names}), sweep/<name> of conf/sweep/, a YAML file like those, or all",
    )
    add("--budget", choices=spec.BUDGETS, default="paper", help="how long every cell is trained (default: paper)")
    what = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--status", "print how far every cell is, and the time left"),
        ("--dry-run", "print the commands of the cells that are not done"),
        ("--render-only", "collect and render what is there, train nothing"),
        ("--report", "write results/README.md and the state in README.md, of the rows that are there"),
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
    if Path(arguments.runs).exists() and not Path(arguments.runs).is_dir():
        raise UserError(f"--runs {arguments.runs} is no folder; name one")
    if arguments.report:
        if arguments.tables:
            raise UserError(f"--report is of all tables; leave {' '.join(arguments.tables)} out")
        report.write(arguments.results, say)
        return 0
    tables = _tables(arguments)
    deadline = None if arguments.minutes is None else started + 60 * arguments.minutes
    codes, summary = [], []
    for table in tables:
        if len(tables) > 1 and not arguments.dry_run:
            say(f"\n{table.name}: {table.title} ({table.source})")
        try:
            code, says = _one(table, arguments, deadline)
        except UserError as error:
            if len(tables) == 1:
                raise
            code, says = 1, f"not made: {error}"
        codes.append(code)
        summary.append(f"{table.name + ':':<24}{says}")
        if code == 130:
            break
    if len(tables) > 1 and not arguments.dry_run:
        say("\n" + "\n".join(summary))
    if not (arguments.status or arguments.dry_run or arguments.budget == "smoke"):
        report.write(arguments.results, say)
    return max(codes)


def _tables(arguments: argparse.Namespace) -> list[Table]:
    if not arguments.tables:
        raise UserError(f"no table is named; name {', '.join(spec.names())}, or all")
    if arguments.tables == ["all"]:
        tables = [table for table in spec.in_order() if arguments.budget in table.seeds]
    else:
        tables = [spec.read(spec.find(name)) for name in arguments.tables]
    if len(tables) > 1 and arguments.only:
        raise UserError(f"--only {arguments.only[0]} is a cell of one table, and {len(tables)} are named; name one")
    return tables


def _one(table: Table, arguments: argparse.Namespace, deadline: float | None) -> tuple[int, str]:
    """Carries the command out for one table; returns the exit code and how far its cells are."""
    csv = output.path(arguments.results, arguments.runs, arguments.budget, table)
    known = collect.read(csv, say)
    cells = cells_of.cells(table, arguments.budget, arguments.runs, known)
    others = output.from_elsewhere(arguments.rows, table, cells, say)
    chosen = [cell for cell in cells if _is_chosen(table, cell, arguments.only)]
    only_looks = arguments.status or arguments.dry_run or arguments.render_only
    if not only_looks and cells_of.fetch(chosen, say):
        cells = cells_of.cells(table, arguments.budget, arguments.runs, known)
        chosen = [cell for cell in cells if _is_chosen(table, cell, arguments.only)]
    if arguments.status or arguments.dry_run:
        states = [cells_of.look(table, cell, [*known, *others], say) for cell in chosen]
        say(cells_of.status(chosen, states) if arguments.status else _commands(chosen, states, arguments, table))
        return 0, _counts(states)
    states = output.bring(table, cells, csv, say, others)
    stopped = ""
    if not arguments.render_only and any(states[cell].name not in DONE_HERE for cell in chosen):

        def keep(cell: Cell, state: State) -> None:
            # After every cell: whoever looks, or a crash, finds the table as far as it is.
            output.write(table, arguments.budget, output.bring(table, cells, csv, say), csv)

        work = schedule.Schedule(
            look=lambda cell: cells_of.look(table, cell, collect.read(csv, say), say),
            finished=keep,
            say=say,
            jobs=arguments.jobs,
            deadline=deadline,
            words=_words(arguments, table),
        )
        work.carry_out(chosen)
        stopped = work.stopping or ("" if deadline is None else "the time is up")
        states = output.bring(table, cells, csv, say)
    markdown = output.write(table, arguments.budget, states, csv)
    say(f"\n{markdown}\nrows      {csv}\ntable     {csv.with_suffix('.md')}, .tex, .html")
    dirty = sum(row["git_commit"].endswith("-dirty") for state in states.values() for row in state.rows)
    if dirty:
        say(f"warning   {dirty} rows come from code with uncommitted changes; such numbers cannot be run again")
    counts = _counts([states[cell] for cell in chosen])
    return 0 if arguments.render_only else _conclude([(cell, states[cell]) for cell in chosen], stopped), counts


def _is_chosen(table: Table, cell: Cell, only: Sequence[str]) -> bool:
    names = [f"{row}@{column}" for row in table.rows for column in table.columns_of(row)] + list(table.rows)
    for name in only:
        if name not in names:
            raise UserError(
                f"--only {name} is no cell of {table.name}; write a row ({', '.join(table.rows)}) or row@column"
            )
    return not only or cell.row in only or any(f"{cell.row}@{column}" in only for column in cell.columns)


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


def _counts(states: Sequence[State]) -> str:
    found = Counter(state.name for state in states)
    return ", ".join(f"{found[name]} {name}" for name in STATES if found[name])


def _conclude(states: Sequence[tuple[Cell, State]], stopped: str) -> int:
    unfinished = [(cell, state) for cell, state in states if state.name not in DONE_HERE]
    failed = [(cell, state) for cell, state in unfinished if state.name == "failed"]
    for cell, state in failed:
        say(f"failed    {cell.name}: {state.note} ({cell.folder})")
    for reason, number in Counter(state.note for _, state in states if state.name == "no data").items():
        say(f"no data   {number} cells: {reason}")
    if stopped and unfinished:
        say(f"{stopped}: {len(unfinished)} cells are not done; the same command continues")
    elif len(unfinished) > len(failed):
        say(f"{len(unfinished) - len(failed)} cells were not finished; the same command continues")
    if stopped.startswith("SIG"):
        return 130
    return 1 if failed or (unfinished and not stopped) else 0


if __name__ == "__main__":
    main()

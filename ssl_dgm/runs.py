"""python -m ssl_dgm.runs: what the runs folder holds, what differs between two runs, and how to be rid of one."""

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.config import Config, UserError
from ssl_dgm.files import is_locked, locked, speak_plainly
from ssl_dgm.tables.render import closing_table, mean_and_spread

EPILOG = """\
A run is named by its folder in --runs, or by the beginning of that name if no other begins so.

  python -m ssl_dgm.runs ls
  python -m ssl_dgm.runs show m1m2-mnist-100
  python -m ssl_dgm.runs diff m2-mnist-100-short-f7 m2-mnist-100-paper-03
  python -m ssl_dgm.runs rm m2-digits-100-smoke-9a --yes
"""
HEADLINES = ("test/error", "test/bound")


def main() -> None:
    """Runs the command line: exit code 0, or 2 for a usage error."""
    speak_plainly()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ssl_dgm.runs", description=__doc__, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="ls|show|diff|rm")
    for name, function, text in (
        ("ls", _ls, "list the runs: state, seeds, headline number, disk use"),
        ("show", _show, "a run's settings and the metrics of its seeds"),
        ("diff", _diff, "the settings and numbers in which two runs differ"),
        ("rm", _rm, "delete runs, after a question"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
        if name != "ls":
            command.add_argument("run", nargs={"show": 1, "diff": 2, "rm": "+"}[name])
        if name == "rm":
            command.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args()
    try:
        names = [Path(name) for name in getattr(arguments, "run", [])]
        found = [records.find(name if name.is_dir() else arguments.runs / name) for name in names]
        arguments.function(arguments, list(dict.fromkeys(found)) if arguments.function is _rm else found)
    except (KeyboardInterrupt, EOFError):
        print("\nnothing was deleted")
        sys.exit(130)
    except UserError as error:
        print(f"ssl_dgm: {error}", file=sys.stderr)
        sys.exit(2)


def _ls(arguments: argparse.Namespace, _: Sequence[Path]) -> None:
    found = records.folders(arguments.runs)
    if not found:
        print(f"{arguments.runs} holds no run")
        return
    sizes = [_size(folder) for folder in found]
    lines = [
        (folder.name, _model(folder), _state(folder), len(records.seeds(folder)), _headline(folder), _bytes(size))
        for folder, size in zip(found, sizes)
    ]
    print(tabulate(lines, headers=("run", "model", "state", "seeds", "mean ± sd", "disk"), disable_numparse=True))
    print(f"\n{len(found)} runs, {_bytes(sum(sizes))}")


def _show(arguments: argparse.Namespace, folders: Sequence[Path]) -> None:
    (folder,) = folders
    print(f"{folder}\nstate     {_state(folder)}\ndisk      {_bytes(_size(folder))}")
    if reason := records.failure(folder):
        print(f"failed    {reason}")
    if not (folder / "config.json").exists():
        return
    config = records.settings(folder)
    print(f"model     {records.model_name(config)}\n\nsettings that differ from the schema's defaults")
    print(tabulate([(f"  {key}", value) for key, value in schema.departures(config).items()], tablefmt="plain"))
    kept = _records(folder)
    if kept:
        names = sorted(kept[0]["metrics"])
        lines = [
            (record["seed"], *(f"{record['metrics'][name]:.4f}" for name in names), record["train_seconds"],
             record["git_commit"], record["finished"]) for record in kept
        ]  # fmt: skip
        print()
        print(tabulate(lines, headers=("seed", *names, "seconds", "code", "finished"), disable_numparse=True))
        print()
        metrics = [(kept[0]["model"], name, [record["metrics"][name] for record in kept]) for name in names]
        print(closing_table(metrics))
    for picture in records.pictures(folder):
        print(f"picture   {picture}")


def _diff(arguments: argparse.Namespace, folders: Sequence[Path]) -> None:
    ours, theirs = (dict(schema.departures(records.settings(folder))) for folder in folders)
    default = "(default)"
    lines = [
        (key, ours.get(key, default), theirs.get(key, default))
        for key in sorted(ours | theirs)
        if ours.get(key, default) != theirs.get(key, default)
    ]
    a, b = folders
    lines += [("", "", ""), ("seeds", len(records.seeds(a)), len(records.seeds(b)))]
    lines.append(("mean ± sd", _headline(a), _headline(b)))
    print(tabulate(lines, headers=("", a.name, b.name), disable_numparse=True))


def _rm(arguments: argparse.Namespace, folders: Sequence[Path]) -> None:
    for folder in folders:
        if is_locked(folder / ".lock"):
            raise UserError(f"{folder} is being trained; stop that process first")
    others = [folder for folder in records.folders(arguments.runs) if folder not in folders]
    for folder in folders:
        print(f"{folder}: {_state(folder)}, {len(records.seeds(folder))} seeds, {_bytes(_size(folder))}")
        if above := [other.name for other in others if _first_stage(other) == folder.name]:
            print(f"  {len(above)} runs build on it, which could then not be loaded: {', '.join(above)}")
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was deleted; add --yes to delete without a question")
        if input("delete? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return
    for folder in folders:
        # A training that began during the question is waited for, not deleted under itself.
        with locked(folder / ".lock", folder.name, print):
            shutil.rmtree(folder)
        print(f"deleted {folder}")


def _records(folder: Path) -> list[dict]:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    found = (records.load(folder, seed, say) for seed in records.seeds(folder))
    return [record for record in found if record is not None]


def _state(folder: Path) -> str:
    if is_locked(folder / ".lock"):
        return "running"
    if records.failure(folder):
        return "failed"
    under_way = next(iter(folder.glob("group-*/epoch-*.ckpt")), None)
    if under_way is None:
        return "done" if records.seeds(folder) else "empty"
    curves = records.read_curves(under_way.parent / "metrics.csv")
    return f"stopped at epoch {curves[-1]['epoch']}" if curves else "stopped"


def _headline(folder: Path) -> str:
    kept = _records(folder)
    for metric in HEADLINES:
        values = [record["metrics"][metric] for record in kept if metric in record["metrics"]]
        if values:
            unit = records.unit(metric)
            text = mean_and_spread(values, 100 if unit == "%" else 1)
            return f"{metric.replace('/', ' ')} {text.replace(' (', f' {unit} (')}"
    return ""


def _settings(folder: Path) -> Config | None:
    """None where they are damaged, of another version, or of a run that failed before it had any."""
    try:
        return records.settings(folder)
    except UserError:
        return None


def _model(folder: Path) -> str:
    config = _settings(folder)
    return "?" if config is None else records.model_name(config)


def _first_stage(folder: Path) -> str | None:
    """The name of the run of the M1 that a run builds on."""
    config = _settings(folder)
    first = None if config is None else schema.first_stage(config)
    return None if config is None or first is None else schema.key(first, records.data_sha256(folder))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


if __name__ == "__main__":
    main()

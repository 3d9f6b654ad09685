"""python -m ssl_dgm.figures: draws the figures of finished runs, from their checkpoints, and of tables' rows."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.files import forget_stdout, speak_plainly

HELP = """\
python -m ssl_dgm.figures run=<folder> [run=<folder> ...] [name=value ...]
python -m ssl_dgm.figures figure=<name> [name=value ...]
python -m ssl_dgm.figures table=<name> [name=value ...]

Draws what a run's checkpoint, curves and records show: <name>.png and <name>.pdf, of an animation <name>.gif, and the
caption in <name>.txt. A run ends with the quick ones of itself; here they are drawn again, with those that take
minutes.

  run=<folder>      or the beginning of its name
  only=units,curves these alone, or a set: few, quick, all (default: all)
  seed=0            which seed's weights (default: the smallest that is finished)
  out=<folder>      where to (default: <run>/figures)
  device=auto       auto, cpu, cuda, ...

{kinds}

Several runs share a figure, their learning curves over each other, with what is drawn in <name>.csv: only=curves, and
out=figures unless told otherwise.

figure=<name> is a figure that results/ shows, of conf/figure/, a YAML file like those, or all: what its runs lack is
trained first.

{figures}

  budget=short      how long its runs are trained: paper, short or smoke (default: as results/figures shows it)
  runs=runs         where runs are kept
  out=<folder>      where to (default: results/figures; of budget=smoke <runs>/smoke/figures)
  minutes=100       stops training cleanly after so long; the same command continues
  train=false       draws what is finished, and trains nothing
  device=auto       on which runs are trained and drawn

Of a table whose columns are numbers of labels, latents, ..., what its rows say against these, beside what is published:

  table=<name>      or its YAML file
  budget=paper      paper, short, smoke
  rows=m2,m1m2      these alone, in grey where they are only published (default: all that were run)
  results=<folder>  where its rows are (default: results)
  out=<folder>      where to (default: <results>/figures); its name is <table>_<budget>

  python -m ssl_dgm.figures run=runs/m2-mnist-100
  python -m ssl_dgm.figures run=runs/m2-mnist-100 run=runs/m1m2-mnist-100 out=paper
  python -m ssl_dgm.figures run=runs/m1-mnist only=manifold,units out=paper
  python -m ssl_dgm.figures figure=all minutes=60
  python -m ssl_dgm.figures table=table1 budget=short

Exit code: 0, 1 when a figure could not be drawn for want of a run, 2 for a usage error, 130 after Ctrl-C.
"""
NAMES = {
    "run": ("run", "only", "seed", "out", "device"),
    "figure": ("figure", "budget", "runs", "out", "minutes", "train", "device"),
    "table": ("table", "budget", "rows", "results", "out"),
}


def main() -> None:
    """Runs the command line."""
    speak_plainly()
    try:
        sys.exit(_run(sys.argv[1:]))
    except UserError as error:
        print(f"ssl_dgm: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        forget_stdout()
        sys.exit(1)
    except KeyboardInterrupt:
        print("ssl_dgm: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


def _run(words: Sequence[str]) -> int:
    if not words or {"-h", "--help"} & set(words):
        _help()
        return 0 if words else 2
    runs, given = _parsed(words)
    if runs:
        folders = [records.find(Path(run)) for run in runs]
        return _of_run(folders[0], given) if len(folders) == 1 else _compare(folders, given)
    return _of_table(given) if "table" in given else _shown(given)


def _help() -> None:
    from ssl_dgm import gallery
    from ssl_dgm.drawing import kinds

    of_runs = (f"  {name:<16}{_first_sentence(kind.__doc__)}" for name, kind in kinds.KINDS.items())
    wide = 2 + max(map(len, gallery.names()))
    shown = (f"  {name:<{wide}}{gallery.read(gallery.find(name)).title}" for name in gallery.names())
    print(HELP.format(kinds="\n".join(of_runs), figures="\n".join(shown)), flush=True)


def _of_run(folder: Path, given: Mapping[str, str]) -> int:
    seed = given.get("seed")
    if seed is not None and not seed.isdecimal():
        raise UserError(f"seed={seed} is no seed; use one of {', '.join(map(str, records.seeds(folder)))}")

    from ssl_dgm import api
    from ssl_dgm.drawing import kinds

    names = kinds.named(given.get("only", "all").split(","))
    fitted = api.load(folder, None if seed is None else int(seed), given.get("device", "auto"))
    out = Path(given.get("out", folder / "figures"))
    made = []
    for name in names:
        if name in kinds.SLOW:
            print(f"drawing   {name}: {kinds.SLOW[name]}", flush=True)
        for picture in fitted.draw(name, folder=out):
            print(f"picture   {picture}", flush=True)
            made.append(picture)
    if not made:
        raise UserError(f"{folder.name} has no figure {', '.join(names)}; leave only= out for those that it has")
    return 0


def _compare(folders: Sequence[Path], given: Mapping[str, str]) -> int:
    """Draws the learning curves of several runs over each other."""
    if twice := [folder for i, folder in enumerate(folders) if folder in folders[:i]]:
        raise UserError(f"{twice[0]} is named twice; leave one out")
    if given.get("only", "curves") != "curves":
        raise UserError(f"only={given['only']} is of one run; several share only=curves")
    for name in ("seed", "device"):
        if name in given:
            raise UserError(f"{name}={given[name]} has no use for the curves of several runs; leave it out")
    from ssl_dgm.drawing import curves, style
    from ssl_dgm.drawing.names import differences

    with style.sheet():
        drawn = curves.compared(list(zip(differences(folders), folders)))
        print(f"picture   {style.save(drawn, Path(given.get('out', 'figures')), 'curves')}", flush=True)
    return 0


def _shown(given: Mapping[str, str]) -> int:
    """Figures of conf/figure/."""
    from ssl_dgm import gallery
    from ssl_dgm.tables import schedule, spec

    budget, runs, train = given.get("budget"), given.get("runs", "runs"), given.get("train", "true")
    if budget is not None and budget not in spec.BUDGETS:
        raise UserError(f"budget={budget} is unknown; {nearest(budget, list(spec.BUDGETS))}")
    if train not in ("true", "false"):
        raise UserError(f"train={train} is neither true nor false; use train=false to draw what is finished alone")
    every = [gallery.read(gallery.find(name)) for name in gallery.names()]
    figures = every if given["figure"] == "all" else [gallery.read(gallery.find(given["figure"]))]
    out = Path(given.get("out", Path(runs) / "smoke" / "figures" if budget == "smoke" else "results/figures"))

    def say(line: str) -> None:
        schedule.tqdm.write(line)
        sys.stdout.flush()

    deadline = time.monotonic() + 60 * _minutes(given["minutes"]) if "minutes" in given else None
    lacking = gallery.carry_out(figures, budget, runs, out, say, deadline, given.get("device", "auto"), train == "true")
    gallery.page(out, every)
    say(f"page      {out}/README.md")
    for sentence in lacking:
        say(f"not drawn {sentence}")
    return 1 if lacking else 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise UserError(f"minutes={text} is no positive number; use for example minutes=60")
    return minutes


def _of_table(given: Mapping[str, str]) -> int:
    from ssl_dgm.drawing import style, tables

    budget, results = given.get("budget", "paper"), Path(given.get("results", "results"))
    rows = given["rows"].split(",") if "rows" in given else ()
    with style.sheet():
        drawn = tables.of(given["table"], budget, results, rows, lambda line: print(line, file=sys.stderr))
        name = f"{Path(given['table']).stem}_{budget}"
        picture = style.save(drawn, Path(given.get("out", results / "figures")), name)
    print(f"picture   {picture}")
    return 0


def _parsed(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The runs, and the other settings."""
    runs: list[str] = []
    given: dict[str, str] = {}
    asked = [name for name in NAMES if any(word.startswith(f"{name}=") for word in words)]
    if len(asked) != 1:
        now = f"{' and '.join(f'{name}=' for name in asked)} are" if asked else f"{words[0]} is"
        raise UserError(f"one of run=, figure= and table= is needed, and {now} given; --help tells more")
    for word in words:
        name, equals, value = word.partition("=")
        if name not in NAMES[asked[0]]:
            raise UserError(f"'{name}' is no setting of {asked[0]}=; {nearest(name, list(NAMES[asked[0]]))}")
        if not equals or not value:
            raise UserError(f"'{word}' has no value; write {name}=...")
        if name == "run":
            runs.append(value)
            continue
        if name in given:
            raise UserError(f"{name}= is given twice; leave one out")
        given[name] = value
    return runs, given


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split()).split(". ")[0].split(" (")[0].rstrip(".")


if __name__ == "__main__":
    main()

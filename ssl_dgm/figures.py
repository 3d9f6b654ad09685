"""python -m ssl_dgm.figures: draws the figures of finished runs, from their checkpoints, and of tables' rows."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.tables import output, report, series, spec

HELP = """\
python -m ssl_dgm.figures run=<folder> [name=value ...]

Draws what a run's checkpoint, curves and records show: <name>.png, <name>.pdf, and the caption in <name>.txt. A run
ends with the quick ones of itself; here they are drawn again, with those that take minutes.

  run=<folder>      or the beginning of its name
  only=units,curves these alone, or a set: few, quick, all (default: all)
  seed=0            which seed's weights (default: the smallest that is finished)
  out=<folder>      where to (default: <run>/figures)
  device=auto       auto, cpu, cuda, ...

{kinds}

  python -m ssl_dgm.figures run=runs/m2-mnist-100
  python -m ssl_dgm.figures run=runs/m1-mnist only=manifold,units out=paper

Of a table whose columns are numbers of labels, latents, ..., what its rows say against these, beside what is published:

  table=<name>      or its YAML file
  budget=paper      paper, short, smoke
  rows=m2,m1m2      these alone, in grey where they are only published (default: all that were run)
  results=<folder>  where its rows are (default: results)
  out=<folder>      where to (default: <results>/figures); its name is <table>_<budget>

  python -m ssl_dgm.figures table=table1 budget=short

Exit code: 0, or 2 for a usage error.
"""
NAMES = ("run", "only", "seed", "out", "device")
OF_TABLES = ("table", "budget", "rows", "results", "out")


def main() -> None:
    """Runs the command line."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except UserError as error:
        print(f"ssl_dgm: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ssl_dgm: interrupted; figures are drawn again by the same command", file=sys.stderr)
        sys.exit(130)


def _run(words: Sequence[str]) -> int:
    if not words or {"-h", "--help"} & set(words):
        from ssl_dgm.drawing import kinds

        lines = (f"  {name:<16}{_first_sentence(kind.__doc__)}" for name, kind in kinds.KINDS.items())
        print(HELP.format(kinds="\n".join(lines)))
        return 0 if words else 2
    if any(word.startswith("table=") for word in words):
        return _table(_parsed(words, OF_TABLES))
    given = _parsed(words)
    if "run" not in given:
        raise UserError("no run is named; use run=<folder>, which 'python -m ssl_dgm.runs ls' lists")
    folder, seed = records.find(Path(given["run"])), given.get("seed")
    if seed is not None and not seed.isdigit():
        raise UserError(f"seed={seed} is no seed; use one of {', '.join(map(str, records.seeds(folder)))}")

    from ssl_dgm import api
    from ssl_dgm.drawing import kinds

    names = kinds.named(given.get("only", "all").split(","))
    fitted = api.load(folder, None if seed is None else int(seed), given.get("device", "auto"))
    out = Path(given.get("out", folder / "figures"))
    made = []
    for name in names:
        for picture in fitted.draw(name, folder=out):
            print(f"picture   {picture}", flush=True)
            made.append(picture)
    if not made:
        raise UserError(f"{folder.name} has no figure {', '.join(names)}; leave only= out for those that it has")
    return 0


def _table(given: dict[str, str]) -> int:
    table, budget = spec.read(spec.find(given["table"])), given.get("budget", "paper")
    if budget not in table.seeds:
        raise UserError(f"budget={budget} is none of {table.name}; there are {', '.join(table.seeds)}")
    axes, results = series.axes(table), Path(given.get("results", "results"))
    csv = output.path(results, "runs", budget, table.name)
    made = report.of(table, budget, csv, lambda line: print(line, file=sys.stderr))
    if made is None:
        others = [name for name in table.seeds if output.path(results, "runs", name, table.name).is_file()]
        also = f", and budget={others[0]} has some" if others and budget not in others else ""
        makes = f"python -m ssl_dgm.table {given['table']} --budget {budget}"
        raise UserError(f"{csv} has no rows of {table.name} as it is set; '{makes}' makes them{also}")

    from ssl_dgm.drawing import style, tables

    with style.sheet():
        drawn = tables.against(made, axes, given["rows"].split(",") if "rows" in given else ())
        picture = style.save(drawn, Path(given.get("out", results / "figures")), f"{table.name}_{budget}")
    print(f"picture   {picture}")
    return 0


def _parsed(words: Sequence[str], names: Sequence[str] = NAMES) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in names:
            raise UserError(f"'{name}' is no setting of figures; {nearest(name, list({*names, 'table'}))}")
        if not equals or not value:
            raise UserError(f"'{word}' has no value; write {name}=...")
        if name in given:
            raise UserError(f"{name}= is given twice; leave one out")
        given[name] = value
    return given


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split()).split(". ")[0].split(" (")[0].rstrip(".")


if __name__ == "__main__":
    main()

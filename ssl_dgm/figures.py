"""python -m ssl_dgm.figures: draws the figures of finished runs, from their checkpoints."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError

HELP = """\
python -m ssl_dgm.figures run=<folder> [name=value ...]

Draws what a run's checkpoint, curves and records show: <name>.png and <name>.pdf, of an animation <name>.gif, and the
caption in <name>.txt. A run ends with the quick ones of itself; here they are drawn again, with those that take
minutes.

  run=<folder>      or the beginning of its name
  only=units,curves these alone, or a set: few, quick, all (default: all)
  seed=0            which seed's weights (default: the smallest that is finished)
  out=<folder>      where to (default: <run>/figures)
  device=auto       auto, cpu, cuda, ...

{kinds}

  python -m ssl_dgm.figures run=runs/m2-mnist-100
  python -m ssl_dgm.figures run=runs/m1-mnist only=manifold,units out=paper

Exit code: 0, or 2 for a usage error.
"""
NAMES = ("run", "only", "seed", "out", "device")


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
        if name in kinds.SLOW:
            print(f"drawing   {name}: {kinds.SLOW[name]}", flush=True)
        for picture in fitted.draw(name, folder=out):
            print(f"picture   {picture}", flush=True)
            made.append(picture)
    if not made:
        raise UserError(f"{folder.name} has no figure {', '.join(names)}; leave only= out for those that it has")
    return 0


def _parsed(words: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in NAMES:
            raise UserError(f"'{name}' is no setting of figures; {nearest(name, list(NAMES))}")
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

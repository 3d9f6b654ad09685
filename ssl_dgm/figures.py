"""python -m ssl_dgm.figures: draws the figures of finished runs, from their checkpoints."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError

HELP = """\
python -m ssl_dgm.figures run=<folder> [run=<folder> ...] [name=value ...]

Draws what a run's checkpoint, curves and records show: <name>.png, <name>.pdf, and the caption in <name>.txt. A run
ends with the quick ones of itself; here they are drawn again, with those that take minutes.

  run=<folder>      or the beginning of its name
  only=units,curves these alone, or a set: few, quick, all (default: all)
  seed=0            which seed's weights (default: the smallest that is finished)
  out=<folder>      where to (default: <run>/figures)
  device=auto       auto, cpu, cuda, ...

{kinds}

Several runs share a figure, their learning curves over each other: only=curves, and out=figures unless told otherwise.

  python -m ssl_dgm.figures run=runs/m2-mnist-100
  python -m ssl_dgm.figures run=runs/m2-mnist-100 run=runs/m1m2-mnist-100 out=paper
  python -m ssl_dgm.figures run=runs/m1-mnist only=manifold,units out=paper

Exit code: 0, or 2 for a usage error.
"""
NAMES = ("run", "only", "seed", "out", "device")
MOST = 3  # settings that a legend names


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
    runs, given = _parsed(words)
    if not runs:
        raise UserError("no run is named; use run=<folder>, which 'python -m ssl_dgm.runs ls' lists")
    folders = [records.find(Path(run)) for run in runs]
    if len(folders) > 1:
        return _compare(folders, given)
    (folder,), seed = folders, given.get("seed")
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


def _compare(folders: Sequence[Path], given: Mapping[str, str]) -> int:
    """Draws the learning curves of several runs over each other."""
    if twice := [folder for i, folder in enumerate(folders) if folder in folders[:i]]:
        raise UserError(f"{twice[0]} is named twice; leave one out")
    if given.get("only", "curves") != "curves":
        raise UserError(f"only={given['only']} is of one run; several share only=curves")
    for name in ("seed", "device"):
        if name in given:
            raise UserError(f"{name}={given[name]} has no use for the curves of several runs; leave it out")
    labels = _differences(folders)

    from ssl_dgm.drawing import curves, style

    with style.sheet():
        drawn = curves.compared(list(zip(labels, folders)))
        print(f"picture   {style.save(drawn, Path(given.get('out', 'figures')), 'curves')}", flush=True)
    return 0


def _differences(folders: Sequence[Path]) -> list[str]:
    """The settings in which runs differ, in few words for each; the folders' names where that does not tell them apart.

    Names of models, data and the like come first, then labels, and of more than `MOST` settings those are left out that
    tell no further runs apart.
    """
    configs = [records.settings(folder) for folder in folders]
    departing = [schema.departures(config) for config in configs]
    every = [dict(schema.flatten(dataclasses.asdict(config))) for config in configs]
    # Not those of a first stage, which not every run has: the model says so.
    shared = {key for one in departing for key in one if all(key in of for of in every)}
    settings = {key for key in shared if len({_word(of[key]) for of in every}) > 1}
    chosen: list[str] = []
    said: list[tuple[str, ...]] = [() for _ in folders]
    for key in sorted(settings, key=lambda key: (not key.endswith(".name"), key != "labels", key.count("."), key)):
        longer = [
            (*words, "" if key == "labels" and not reads_labels else f"{key.removesuffix('.name')}={_word(of[key])}")
            for words, of, reads_labels in zip(said, every, map(schema.needs_labels, configs))
        ]
        if len(chosen) < MOST or len(set(longer)) > len(set(said)):
            chosen, said = [*chosen, key], longer
    if len(set(said)) < len(said):
        names = [folder.name for folder in folders]
        return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    more = ", ..." if len(chosen) < len(settings) else ""
    return [", ".join(filter(None, words)) + more for words in said]


def _word(value: Any) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _parsed(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The runs, and the other settings."""
    runs: list[str] = []
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in NAMES:
            raise UserError(f"'{name}' is no setting of figures; {nearest(name, list(NAMES))}")
        if not equals or not value:
            raise UserError(f"'{word}' has no value; write {name}=...")
        if name in given:
            raise UserError(f"{name}= is given twice; leave one out")
        if name == "run":
            runs.append(value)
        else:
            given[name] = value
    return runs, given


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split()).split(". ")[0].split(" (")[0].rstrip(".")


if __name__ == "__main__":
    main()

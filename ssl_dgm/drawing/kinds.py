"""Every figure of a run by its name, and drawing those that a run has."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.drawing import style
from ssl_dgm.drawing.classes import confusion
from ssl_dgm.drawing.curves import curves, slots
from ssl_dgm.drawing.features import features
from ssl_dgm.drawing.pictures import analogies, completions, manifold, reconstructions, samples, styles
from ssl_dgm.drawing.style import Drawn, Film
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.drawing.traversal import traversal
from ssl_dgm.drawing.units import units

Kind = Callable[[Trained], Drawn | Film | None]
KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        samples, reconstructions, completions, manifold, styles, analogies, traversal, confusion, curves, slots, units,
        features,
    )
}  # fmt: skip
FEW = ("samples", "completions", "curves", "confusion")
# Minutes, where the others take seconds at most, and what is said before.
SLOW = {"features": "t-SNE of up to 10,000 test rows takes a minute or two"}
SETS = {"none": (), "few": FEW, "quick": tuple(name for name in KINDS if name not in SLOW), "all": tuple(KINDS)}


def draw(t: Trained, folder: Path, names: Collection[str]) -> list[Path]:
    """Draws those of these figures that the run has; returns the PNGs and GIFs.

    Raises:
        UserError: when the folder cannot be written to.
    """
    made = []
    with style.sheet():
        for name in names:
            if (drawn := KINDS[name](t)) is not None:
                made.append(style.save(drawn, folder, name))
    return made


def at_end(t: Trained, which: str, say: Callable[[str], None]) -> None:
    """Draws a run's figures into its folder `figures`; what goes wrong is told, and costs nothing else.

    Args:
        which: the set, as `trainer.figures` names it.
    """
    for name in SETS[which]:
        if name in SLOW:
            say(f"figure {name}: {SLOW[name]}")
        try:
            draw(t, t.folder / "figures", [name])
        except Exception as error:
            why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            again = f"python -m ssl_dgm.figures run={t.folder} draws it again"
            say(f"figure {name} could not be drawn ({why.splitlines()[0]}); {again}")


def named(words: Sequence[str]) -> tuple[str, ...]:
    """The figures that words name: their names, or a set's.

    Raises:
        UserError: for a name that is none.
    """
    found = []
    for word in words:
        if word not in KINDS and word not in SETS:
            raise UserError(f"there is no figure {word}; {nearest(word, [*KINDS, *SETS])}")
        found += SETS.get(word, (word,))
    return tuple(dict.fromkeys(found))

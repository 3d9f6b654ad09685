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
from ssl_dgm.files import locked, remove_torn, write_atomic

Kind = Callable[[Trained], Drawn | Film | None]
KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        samples, reconstructions, completions, manifold, styles, analogies, traversal, confusion, curves, slots, units,
        features,
    )
}  # fmt: skip
SHOWN = "seed.txt"  # whose pictures a run's are
OF_ALL_SEEDS = ("curves", "slots")  # of a run; the others are of one seed
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


def at_end(
    make: Callable[[], Trained], folder: Path, seed: int, names: Sequence[str], say: Callable[[str], None]
) -> None:
    """Draws a run's figures into its folder `figures`; what goes wrong is told, and costs nothing else.

    Where a smaller seed has its figures already, only those that all seeds share are drawn again. Groups of seeds that
    end at the same time draw one after the other.

    Args:
        make: the seed, which may take memory of its own.
        folder: of the run.
    """
    if not names:
        return
    figures = folder / "figures"
    try:
        with locked(figures / ".lock", f"the figures of {folder.name}", lambda line: None):
            remove_torn(figures)
            t, shown = make(), figures / SHOWN
            if shown.exists() and int(shown.read_text()) < seed:
                names = [name for name in names if name in OF_ALL_SEEDS]
            else:
                write_atomic(shown, f"{seed}\n")
            for name in names:
                if name in SLOW:
                    say(f"figure {name}: {SLOW[name]}")
                try:
                    draw(t, figures, [name])
                except Exception as error:
                    _tell(name, error, folder, say)
    except Exception as error:
        _tell(", ".join(names), error, folder, say)


def _tell(name: str, error: Exception, folder: Path, say: Callable[[str], None]) -> None:
    why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    again = f"python -m ssl_dgm.figures run={folder} draws it again"
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

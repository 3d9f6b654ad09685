"""Draws every model as a graphical model, p on the left and q on the right: docs/models/<name>.svg.

    python scripts/draw_models.py              # all of them
    python scripts/draw_models.py m2 sdgm

What is drawn is read from a model's factor lists. Circles are random variables: shaded where they are observed, half
shaded where labelled rows alone show them; diamonds are functions of what points at them, shaded where p is given their
value. Arrows of p are solid, those of q are dashed. Everything in a picture carries its name, so that a test can read
it back.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Wedge

from ssl_dgm import models
from ssl_dgm.config import ModelConfig, NetworkConfig, Stage
from ssl_dgm.models.base import DeepGenerativeModel

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "models"
COLOURS = {"p": "#0072B2", "q": "#D55E00"}  # Okabe and Ito's, which colour-blind readers can tell apart
TITLES = {"p": "generative model $p$", "q": "inference model $q$"}
SHADE, RADIUS, INCH = "0.78", 0.29, 0.55  # of an observed variable; of a circle; of a unit of length
PLACES = {"x": (0.0, 0.0), "y": (-1.05, 2.0), "z": (1.05, 2.0)}  # what has no place of its own is in the middle
LIKE = {"z2": "z", "c": "y"}  # variables in the place of others
MIDDLE, TOP = (0.0, 1.12), (0.0, 2.0)
PANEL = (-1.6, -0.6, 3.2, 3.1)  # left, bottom, width and height of the plate around them


class Graph(NamedTuple):
    """Variables with what is known of them, and the arrows (parent, child) of p and q."""

    kinds: dict[str, str]  # observed, partly (observed), latent, function, or given: a function's value that p is given
    arrows: dict[str, list[tuple[str, str]]]


def small(name: str) -> DeepGenerativeModel:
    """A model of one unit of everything: its lists are those of any size."""
    stage = Stage(model=ModelConfig(name, z_dim=1, a_dim=1, h_dim=1), network=NetworkConfig(hidden=[1]))
    return models.create(stage, x_dim=1, num_classes=2, seeds=(0,), num_labelled=1, num_unlabelled=1)


def graph(model: DeepGenerativeModel) -> Graph:
    """What there is to draw of a model, with the M1 under a stack."""
    f = model.factorisation
    kinds, arrows = {f.observed: "observed"}, {"p": [], "q": []}
    for name in f.q:
        if name in f.latents:
            kinds[name] = "partly" if name == "y" and not f.relaxed else "latent"
        else:
            kinds[name] = "given" if name in f.conditions else "function"
    for side, factors in (("p", f.p), ("q", f.q)):
        arrows[side] += [(parent, name) for name, factor in factors.items() for parent in factor.parents]
    if f.observed != "x":
        below = graph(small("m1"))
        kinds |= {"x": "observed", f.observed: "latent"}
        for side, of_m1 in below.arrows.items():
            arrows[side] += [tuple(f.observed if name == "z" else name for name in arrow) for arrow in of_m1]
    return Graph(kinds, arrows)


def draw(g: Graph, path: Path) -> None:
    """Writes the picture, as SVG or what else the ending of `path` says."""
    left, bottom, width, height = PANEL
    gap, head, edge = 0.3, 0.4, 0.05
    size = (2 * (width + edge) + gap, height + head + edge)
    fonts: dict[Any, Any] = {"font.family": "STIXGeneral", "mathtext.fontset": "stix"}
    with plt.rc_context({**fonts, "svg.hashsalt": path.stem}):
        figure = plt.figure(figsize=(size[0] * INCH, size[1] * INCH))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        for i, side in enumerate("pq"):
            shift = i * (width + gap)
            axes.add_patch(
                FancyBboxPatch(
                    (left + shift, bottom),
                    width,
                    height,
                    "round,pad=0,rounding_size=0.12",
                    fill=False,
                    lw=0.8,
                    ec="0.35",
                )
            )
            axes.text(left + shift + width - 0.12, bottom + 0.1, "$N$", ha="right", fontsize=11, color="0.25")
            middle = {"ha": "center", "fontsize": 11, "color": COLOURS[side]}
            axes.text(left + shift + width / 2, bottom + height + 0.12, TITLES[side], **middle)
            _panel(axes, g, side, shift)
        axes.set_xlim(left - edge, left - edge + size[0])
        axes.set_ylim(bottom - edge, bottom - edge + size[1])
        # Without a date or a version, so that the same picture is the same file.
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)
        plt.close(figure)


def place(name: str, g: Graph) -> tuple[float, float]:
    """x at the bottom, y and z at the top, anything else between; z above x where there is nothing else."""
    if name == "z" and set(g.kinds) == {"x", "z"}:
        return TOP
    return PLACES.get(LIKE.get(name, name), MIDDLE)


def _panel(axes: Any, g: Graph, side: str, shift: float) -> None:
    shapes, places = {}, {name: place(name, g) for name in g.kinds}
    places = {name: (x + shift, y) for name, (x, y) in places.items()}
    for name, kind in g.kinds.items():
        if kind == "function" and not any(name in arrow for arrow in g.arrows[side]):
            continue
        (x, y), line = places[name], {"lw": 1.1, "ec": "black", "zorder": 3}
        line["fc"] = SHADE if kind in ("observed", "given") else "white"
        if kind in ("function", "given"):
            r = 1.2 * RADIUS
            shape = Polygon([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], closed=True, **line)
        else:
            shape = Circle((x, y), RADIUS, **line)
        if kind == "partly":
            axes.add_patch(Wedge((x, y), RADIUS, 135, 315, fc=SHADE, lw=0, zorder=4))
            axes.add_patch(Circle((x, y), RADIUS, **(line | {"fc": "none", "zorder": 5})))
        shape.set_gid(f"{side}.{name}.{kind}")
        shapes[name] = axes.add_patch(shape)
        letter, number = name[:1], name[1:]
        label = f"${letter}_{{{number}}}$" if number else f"${letter}$"
        axes.text(x, y, label, ha="center", va="center", fontsize=14, zorder=6)
    for parent, child in g.arrows[side]:
        arrow = FancyArrowPatch(
            places[parent], places[child], patchA=shapes[parent], patchB=shapes[child], shrinkA=1, shrinkB=1.5,
            arrowstyle="-|>", mutation_scale=10, lw=1.3, color=COLOURS[side], zorder=2,
            linestyle="-" if side == "p" else (0, (2.6, 1.4)),
        )  # fmt: skip
        arrow.set_gid(f"{side}.{parent}.{child}")
        axes.add_patch(arrow)


def main() -> None:
    """Draws the models that are named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or models.names():
        draw(graph(small(name)), FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()

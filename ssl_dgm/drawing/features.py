"""The test rows as a model sees them, on a map of two dimensions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.patheffects import withStroke
from torch import Tensor

from ssl_dgm.drawing.style import COLUMN, Drawn, new, plain
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import scores
from ssl_dgm.probability.distributions import Categorical
from ssl_dgm.probability.factors import Factorisation

ROWS = 10_000  # test rows; about a minute and a half of one core
PERPLEXITY = 30
NAMED = 20  # classes, beyond which names would hide the points
# Petroff (2021), ten colours that people of every colour vision can tell apart.
TEN = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def features(t: Trained) -> Drawn | None:
    """t-SNE of the features of the test rows, coloured by their true class (Figueroa, fig. 4)."""
    if not t.source.num_classes or (t.model is None and t.first is None):
        return None
    known = np.flatnonzero(t.source.test_y >= 0)
    some = np.sort(np.random.default_rng(0).permutation(known)[:ROWS])
    found, what = of_rows(t, torch.from_numpy(some))
    if found.std(0).max() == 0:
        return None  # a model that sees no difference has no map
    number = f"{len(some):,}" if len(some) == len(t.source.test_y) else f"{len(some):,} of {len(t.source.test_y):,}"
    y, about = t.source.test_y[some], f"{what[0].upper()}{what[1:]}, of {number} test rows"
    figure, ((axes,),) = new(COLUMN, COLUMN)
    if found.shape[1] == 2:
        points = found
        axes.set_xlabel("first feature")
        axes.set_ylabel("second feature")
        about += ", as they are"
    else:
        perplexity = min(PERPLEXITY, max(1, (len(some) - 1) // 3))
        points = mapped(found, perplexity)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        about += (
            f", mapped from {found.shape[1]} dimensions to two by t-SNE (perplexity {perplexity}). Its axes have no "
            "unit, and distances between groups that lie apart mean little"
        )
    scatter(axes, points, y, t.source.class_names)
    axes.set_title(plain(t.name))
    return Drawn(figure, f"{about}. Colours are the true classes, which the map does not know. {t.origin}")


def of_rows(t: Trained, rows: Tensor) -> tuple[np.ndarray, str]:
    """Features [N, D] of test rows [N], and what they are in words.

    They are h = g(x) of a model that has it; the means of q(z | x) of an M1, as a classifier or a stack sees them, and
    of other models without y; else the last hidden layer of q(y | .), what q draws before y being at its mean.
    """
    if t.first is not None:
        return t.test.mean(rows.to(t.first[1].device)).cpu().numpy(), "means of q(z | x), the live units of the M1"
    model = t.model
    assert model is not None
    blocks = (rows[block] for block in scores.blocks(len(rows), model.widest, torch.device("cpu")))
    f = model.factorisation
    parts = [t.per_seed(partial(_features, f), t.test.mean(block.to(model.device)))[0] for block in blocks]
    found = torch.cat(parts).cpu().numpy()
    if "h" in f.q:
        return found, f"features {f.q['h'].label('q')}"
    return found, f"the last hidden layer of {f.q['y'].label('q')}" if "y" in f.q else f"means of {f.q['z'].label('q')}"


def _features(f: Factorisation, x: Tensor) -> Tensor:
    """Of rows x [B, D], for one seed, [B, H]."""
    values = {f.observed: x}
    for name, factor in f.q.items():
        found = factor(values)
        if isinstance(found, Categorical):
            assert found.features is not None
            return found.features
        values[name] = found if isinstance(found, Tensor) else found.mean
        if name == "h":
            break
    return values[name]


def mapped(features: np.ndarray, perplexity: float) -> np.ndarray:
    """Points [N, 2] by t-SNE of rows [N, D], the same for the same rows."""
    from sklearn.manifold import TSNE

    init = "pca" if min(features.shape) > 1 else "random"
    return TSNE(init=init, perplexity=perplexity, random_state=0).fit_transform(features)


def scatter(axes: Any, points: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Draws points [N, 2] in the colours of their classes [N], each class's name at the median of its points."""
    colours = palette(len(names))
    # Neighbouring rows are often of one class, which would lie on top of the others.
    order = np.random.default_rng(0).permutation(len(y))
    size = float(np.clip(8e3 / len(y), 1.5, 12))
    axes.scatter(*points[order].T, s=size, c=[colours[c] for c in y[order]], linewidths=0, rasterized=True)
    axes.grid(False)
    axes.set_aspect("equal", "datalim")
    if len(names) > NAMED:
        return
    outline = [withStroke(linewidth=2, foreground="white")]
    for c in np.unique(y):
        x1, x2 = np.median(points[y == c], 0)
        axes.text(x1, x2, plain(names[int(c)]), ha="center", va="center", weight="bold", path_effects=outline)


def palette(number: int) -> list[Any]:
    """So many colours; beyond `NAMED` they run through the rainbow, and neighbours look alike."""
    if number <= len(TEN):
        return list(TEN)
    if number <= NAMED:
        return list(matplotlib.colormaps["tab20"](range(NAMED)))
    return list(matplotlib.colormaps["turbo"](np.linspace(0, 1, number)))

"""Images that a model generates, makes of test rows, or completes.

Every function takes a trained seed, and returns None where its model or its rows have no such picture.
Shape legend: K classes, R rows, G points along a side of a grid, D dimensions.
"""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from ssl_dgm.drawing import grids
from ssl_dgm.drawing.style import COLUMN, PAGE, Drawn, new, wrapped
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import generated
from ssl_dgm.probability import bounds
from ssl_dgm.probability.generation import infer

MANIFOLD = 20  # points along a side, as in AEVB's figure
STYLE = 15  # and of a class with its style varied
REACH = 5.0  # of the latents of a style: -5 to 5
PANELS = (2, 3, 4)  # classes whose style is varied, those of the paper's figure
ROWS = 10  # test images that are reconstructed, or whose class is changed
SMALL = 1.8  # inches


def samples(t: Trained) -> Drawn | None:
    """Draws of the generative model: class-conditional, the same latents for all classes, or plain (Figueroa, fig. 3;
    Ojha, fig. 4; AEVB, fig. 5)."""
    if t.model is None or not t.source.is_image or t.model.factorisation.conditions:
        return None
    images = t.images(generated.samples(t.model))
    if not t.model.has_classes:
        figure, axes = new(*grids.size(images, COLUMN, 0.25))
        grids.grid(axes[0, 0], images, title=t.name)
        return Drawn(figure, f"Mean images of {images.shape[0] * images.shape[1]} draws from the prior. {t.origin}")
    figure, axes = new(*grids.size(images, _width(images.shape[1]), 0.5))
    grids.grid(axes[0, 0], images, slots(t), title=t.name)
    what = "slot of y" if t.attributes_slots else "class y"
    about = f"Mean images of draws from the generative model, a column for every {what} and a row for every draw of "
    return Drawn(figure, f"{about}the latents, which all columns share. {t.origin}")


def slots(t: Trained) -> list[str]:
    """Headings of the values of y."""
    if t.attributes_slots or t.source.classes is None:
        assert t.model is not None
        return [str(k) for k in range(t.model.num_classes)]
    return list(t.source.classes)


def reconstructions(t: Trained) -> Drawn | None:
    """Test images over what the generative model makes of the means of their latents."""
    if t.model is None or not t.source.is_image or t.model.factorisation.conditions:
        return None
    f, rows = t.model.factorisation, t.one_of_each(ROWS)

    def remade(x: Tensor) -> Tensor:
        values = infer(f, x)
        return f.p[f.observed](values).mean

    again = t.images(t.per_seed(remade, t.test.mean(rows.to(t.model.device)))[0])
    images = np.stack([t.originals(rows), again])
    figure, axes = new(*grids.size(images, COLUMN, 0.25, 0.5))
    grids.grid(axes[0, 0], images, rows=["image", "mean"], title=t.name)
    y = ", the most probable class" if t.model.has_classes else ""
    turn = ", the first of every class in turn," if t.source.num_classes else ""
    about = f"Test images{turn} and the mean of p(x | ...) at the posterior means of the "
    return Drawn(figure, f"{about}latents{y}.{t.as_seen} {t.origin}")


def completions(t: Trained) -> Drawn | None:
    """Validation images, the part of them that is given, and draws of the rest (the slides on AEVB)."""
    if t.model is None or not t.model.factorisation.conditions or not t.source.is_image:
        return None
    last = min(t.source.num_train + generated.STYLES, len(t.source.train_y))
    rows = torch.arange(t.source.num_train, last, device=t.model.device)
    images = t.images(generated.completions(t.model, t.train.mean(rows)))
    figure, axes = new(*grids.size(images, COLUMN, 0.55))
    columns = ["image", "given", *[""] * (images.shape[1] - 2)]
    grids.grid(axes[0, 0], images, columns, title=t.name)
    about = "Validation images, the central pixels that the model is given, and mean images of draws of the rest."
    return Drawn(figure, f"{about} {t.origin}")


def manifold(t: Trained) -> Drawn | None:
    """Images over the plane of two latents, through the Gaussian's inverse distribution function (AEVB, fig. 4)."""
    if t.model is None or not t.source.is_image or _plane(t) is None or t.model.has_classes:
        return None
    steps = (np.arange(MANIFOLD) + 0.5) / MANIFOLD
    images = t.images(_decoded(t, _square(ndtri(steps)), None))[0]
    images = images.reshape(MANIFOLD, MANIFOLD, *images.shape[1:])
    figure, axes = new(*grids.size(images, COLUMN, 0.45, 0.2))
    grids.grid(axes[0, 0], images, gap=0, title=t.name)
    axes[0, 0].set_xlabel("$z_1$", labelpad=2)
    axes[0, 0].set_ylabel("$z_2$", labelpad=2)
    about = (
        f"Mean images p(x | z) over two latents. Their values are the {100 * steps[0]:.1f} %, {100 * steps[1]:.1f} %, "
        f"..., {100 * steps[-1]:.1f} % quantiles of N(0, 1), {ndtri(steps[0]):.2f} to {ndtri(steps[-1]):.2f}, so that "
        "every image stands for the same share of the prior."
    )
    return Drawn(figure, f"{about} {t.origin}")


def styles(t: Trained) -> Drawn | None:
    """The class fixed and two latents varied from -5 to 5 (Kingma et al. 2014, fig. 1a)."""
    if t.model is None or not t.source.is_image or _plane(t) is None or not t.model.has_classes:
        return None
    chosen = [c for c in PANELS if c < t.model.num_classes] or [0]
    side = np.linspace(-REACH, REACH, STYLE)
    images = t.images(_decoded(t, _square(side), bounds.classes(t.model.factorisation, next(t.model.parameters()))))
    figure, axes = new(PAGE, PAGE / 3 + 0.45, 1, len(chosen))
    for panel, c in zip(axes[0], chosen):
        grids.grid(panel, images[c].reshape(STYLE, STYLE, *images.shape[2:]), gap=0, title=f"y = {slots(t)[c]}")
        at = np.array([0, STYLE // 2, STYLE - 1]) + 0.5
        panel.set_xticks(at * images.shape[3], ["–5", "0", "5"])
        panel.set_yticks(at * images.shape[2], ["5", "0", "–5"])
        panel.tick_params(top=False, labeltop=False, bottom=False, labelbottom=True)
        panel.set_xlabel("$z_1$", labelpad=2)
    axes[0, 0].set_ylabel("$z_2$", labelpad=2)
    figure.suptitle(wrapped(t.name, figure.get_figwidth()))
    about = "Mean images with y fixed and the two latents varied linearly from -5 to 5, the same in every panel."
    return Drawn(figure, f"{about} {t.origin}")


def analogies(t: Trained) -> Drawn | None:
    """The style of test images in every class: z inferred from the image, y varied (Kingma et al. 2014, fig. 1b)."""
    if t.model is None or not t.source.is_image or "y" not in t.model.factorisation.p[_observed(t)].parents:
        return None
    f, rows = t.model.factorisation, t.one_of_each(ROWS)

    def varied(x: Tensor) -> Tensor:
        values, changed = infer(f, x) | {"y": bounds.classes(f, x)}, {"y"}
        for name, factor in list(f.p.items())[: list(f.p).index(f.observed)]:
            if changed & set(factor.parents):  # as a of SDGM, which would keep the class
                values[name] = factor(values).mean
                changed.add(name)
        return f.p[f.observed](values).mean

    images = t.images(t.per_seed(varied, t.test.mean(rows.to(t.model.device)))[0]).swapaxes(0, 1)  # [R, K, ...]
    images = np.concatenate([t.originals(rows)[:, None], images], 1)
    figure, axes = new(*grids.size(images, _width(images.shape[1]), 0.5))
    grids.grid(axes[0, 0], images, ["image", *slots(t)], title=t.name)
    gap, width = 1, images.shape[3] + 1
    axes[0, 0].axvline(width + gap / 2 - 0.5, color="white", linewidth=2)
    about = (
        "Analogies: on the left a test image, the first of every class in turn; right of it the mean images of every "
        "class y with the style kept: latents that p draws without y stay at their posterior means given the image "
        "and its most probable class."
    )
    return Drawn(figure, f"{about}{t.as_seen} {t.origin}")


def _width(columns: int) -> float:
    return float(np.clip(0.27 * columns, SMALL, PAGE))


def _observed(t: Trained) -> str:
    assert t.model is not None
    return t.model.factorisation.observed


def _plane(t: Trained) -> str | None:
    """The latent of two dimensions that, with y, is all that the model's rows depend on."""
    assert t.model is not None
    p = t.model.factorisation.p
    free = [name for name in p[_observed(t)].parents if name != "y"]
    is_plane = len(free) == 1 and free[0] in p and not p[free[0]].parents and t.model.factorisation.q[free[0]].dim == 2
    return free[0] if is_plane else None


def _square(values: np.ndarray) -> Tensor:
    """Points [G * G, 2] in the order of reading: the first coordinate grows to the right, the second upwards."""
    x, y = np.meshgrid(values, values[::-1])
    return torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1)).float()


def _decoded(t: Trained, z: Tensor, y: Tensor | None) -> Tensor:
    """Means [K or 1, R, D] at points [R, 2] of the plane, for classes [K, 1, K]."""
    assert t.model is not None
    name, factor = _plane(t), t.model.factorisation.p[_observed(t)]
    values = {name: z.to(t.model.device)} | ({} if y is None else {"y": y})
    found = t.per_seed(lambda: factor(values).mean)[0]
    return found if y is not None else found[None]

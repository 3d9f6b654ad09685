"""What a trained model generates: mean images of its first seed, [..., D] as the model sees or its M1 makes them.

Shape legend: K classes, R rows, D dimensions.
"""

from typing import cast

import torch
from torch import Tensor

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import bounds
from ssl_dgm.probability.factors import Part
from ssl_dgm.probability.generation import generate
from ssl_dgm.probability.randomness import Streams

STYLES = 8  # draws of the latents that all classes share
First = tuple[DeepGenerativeModel, Tensor]  # the M1 and its live units [D] under a stacked model


@torch.no_grad()
def samples(model: DeepGenerativeModel) -> Tensor:
    """Of the model's own rows, [STYLES, columns, D]: columns are classes, or more draws for a model without y."""
    streams = Streams(model.seeds, "samples", model.device)
    if not model.has_classes:
        return draw(model, None, STYLES * STYLES, None, streams).view(STYLES, STYLES, -1)
    y = bounds.classes(model.factorisation, next(model.parameters()))
    return draw(model, None, STYLES, y, streams).transpose(0, 1)


@torch.no_grad()
def completions(model: DeepGenerativeModel, x: Tensor) -> Tensor:
    """Of every row x [R, D]: itself, what of it is given, and images that complete it, [R, 2 + STYLES, D].

    Of a conditional model.
    """
    f = model.factorisation
    given = {name: f.q[name]({f.observed: x}) for name in f.conditions}
    part = torch.zeros_like(x)
    for name in f.conditions:
        part[:, cast(Part, f.q[name]).index] = cast(Tensor, given[name])
    noise = model.noise(Streams(model.seeds, "samples", model.device), x=f.noise_shapes(len(x), STYLES))["x"]
    completed = model.per_seed(lambda one: generate(f, None, one, given), noise)[0, :, 0]  # [STYLES, R, D]
    return torch.cat([x[:, None], part[:, None], completed.transpose(0, 1)], 1)


def draw(model: DeepGenerativeModel, first: First | None, rows: int, y: Tensor | None, streams: Streams) -> Tensor:
    """Ancestral samples, [K or 1, rows, D].

    Args:
        y: one-hot classes, [K, 1, K] for all of them or [rows, K]; None for a model without y.
    """
    f = model.factorisation
    noise = model.noise(streams, x=f.noise_shapes(rows))["x"]
    return through_first(first, model.per_seed(lambda one: generate(f, y, one), noise)[0, 0])


@torch.no_grad()
def through_first(first: First | None, x: Tensor) -> Tensor:
    """Pixels [..., D] of what a stacked model generates, [..., live units]; x itself where there is no M1.

    Units that were dropped take their prior mean, 0.
    """
    if first is None:
        return x
    m1, live = first
    z1 = torch.zeros(*x.shape[:-1], len(live), device=x.device)
    z1[..., live] = x
    return m1.per_seed(lambda: m1.factorisation.p["x"]({"z": z1}).mean)[0]

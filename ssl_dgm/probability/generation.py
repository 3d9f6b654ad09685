"""Ancestral sampling from the generative list, and what the inference list makes of a row."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_dgm.probability.factors import Factorisation


def generate(
    f: Factorisation, y: Tensor | None, noise: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The mean of p(x | ...) with its latents drawn from their conditionals, in the order of the list.

    Args:
        y: one-hot classes, [K, 1, K] for all of them or [B, K]; None for a model without y.
        noise: standard-normal draws [M, 1, B, D] by latent; a draw shared by all classes keeps the style the same.
        given: values that are not drawn: what p is conditioned on, [B, C] by name (see `Factorisation.conditions`), or
            latents.
    """
    values, names = dict(given or {}) | ({} if y is None else {"y": y}), list(f.p)
    for name in names[: names.index(f.observed)]:
        if name not in values:
            values[name] = f.p[name](values).rsample(noise[name])
    return f.p[f.observed](values).mean


def infer(f: Factorisation, x: Tensor, noise: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Values of all that q gives of x [B, D]: latents [B, D], y as its most probable class, one-hot [B, K].

    Args:
        noise: standard-normal draws [B, D] by latent; None: the means.
    """
    values = {f.observed: x}
    for name, factor in f.q.items():
        found = factor(values)
        if isinstance(found, Tensor):
            values[name] = found
        elif name == "y":
            values[name] = torch.eye(f.num_classes, dtype=x.dtype, device=x.device)[found.log_probs.argmax(-1)]
        else:
            values[name] = found.mean if noise is None else found.rsample(noise[name])
    return values

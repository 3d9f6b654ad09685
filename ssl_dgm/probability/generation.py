"""Ancestral sampling from the generative list."""

from collections.abc import Mapping

from torch import Tensor

from ssl_dgm.probability.factors import Factorisation


def generate(
    f: Factorisation, y: Tensor | None, noise: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The mean of p(x | ...) with its latents drawn from their conditionals, in the order of the list.

    Args:
        y: one-hot classes, [K, 1, K] for all of them or [B, K]; None for a model without y.
        noise: standard-normal draws [M, 1, B, D] by latent; a draw shared by all classes keeps the style the same.
        given: what p is conditioned on, [B, C] by name (see `Factorisation.conditions`).
    """
    values, names = dict(given or {}) | ({} if y is None else {"y": y}), list(f.p)
    for name in names[: names.index(f.observed)]:
        if name not in values:
            values[name] = f.p[name](values).rsample(noise[name])
    return f.p[f.observed](values).mean

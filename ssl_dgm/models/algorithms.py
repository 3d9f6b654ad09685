"""How a model without classes learns when not by its bound: wake-sleep and Monte-Carlo EM, as compared in AEVB.

Shape legend: S seeds, M draws, B rows, N rows of the data, D dimensions.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_dgm.probability import hmc
from ssl_dgm.probability.factors import Factor, Factorisation
from ssl_dgm.probability.randomness import Streams

GAIN = 0.1  # of the logarithm of the step size, by how far a batch's acceptance is from the aim
FIRST_STEP = 0.1


def wake_sleep(
    f: Factorisation, x: Tensor, noise: Mapping[str, Tensor], dreams: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Loss -(mean log p(x, z), z ~ q(z | x) + mean log q(z | x), (x, z) ~ p), whose draws no gradient passes.

    So the first term teaches p alone and the second q alone (Hinton et al. 1995). Scalars by name; 'bound' is that of
    the rows, for the curve.

    Args:
        x: [B, D].
        noise: of the latents of the rows, [M, 1, B, D].
        dreams: of all variables, of as many rows that p draws.
    """
    awake, asleep = _drawn(f.q, {f.observed: x}, noise), _drawn(f.p, {}, dreams)
    p, log_q = _log_densities(f.p, awake), _total(_log_densities(f.q, asleep))
    with torch.no_grad():
        q = _log_densities(f.q, awake)
    log_p = _total(p)
    terms = {"bound": (log_p.detach() - _total(q)), "dreams": log_q, **_named(p, q)}
    return {"loss": -(log_p.mean() + log_q.mean()), **{name: term.mean() for name, term in terms.items()}}


def monte_carlo_em(f: Factorisation, x: Tensor, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss -mean log p(x, z) of latents z that a chain drew from p(z | x): the M-step. Scalars by name.

    q(z | x) is no part of the algorithm, and nothing of it reaches p. It is fitted to the same z beside, by
    -mean log q(z | x), so that validation has a bound and the model features.
    """
    values = {f.observed: x, **z}
    p, q = _log_densities(f.p, values), _log_densities(f.q, values)
    log_p, log_q = _total(p).mean(), _total(q).mean()
    terms = {"joint": log_p, "posterior": log_q, **_named(p, q)}
    return {"loss": -(log_p + log_q), **{name: term.mean() for name, term in terms.items()}}


class Chains:
    """The E-step of Monte-Carlo EM: a chain for every row of the data, which is moved when its row comes up.

    Attributes:
        z: where they are, [S, N, D]; at first draws of p(z).
        step: of the trajectories of a seed, [S], which follow the acceptance of its own proposals.
    """

    def __init__(self, z: Tensor, step: Tensor) -> None:
        self.z, self.step = z, step

    @classmethod
    def begun(cls, model: Any) -> "Chains":
        """Of the model's rows, at draws of p(z), which are a function of the seed."""
        z = Streams(model.seeds, "chains").normal((model.num_unlabelled, model.stage.model.z_dim))
        return cls(z, torch.full((len(model.seeds),), FIRST_STEP))

    def to(self, device: torch.device) -> "Chains":
        """The same on a device."""
        return Chains(self.z.to(device), self.step.to(device))

    def move(self, model: Any, x: Tensor, rows: Tensor, noise: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """One transition of the chains of `rows` [S, B], towards p(z | x) of x [S, B, D]: their z, [S, 1, 1, B, D]."""
        f, name = model.factorisation, model.factorisation.latents[0]
        seeds = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        (momentum,), (decision,) = noise["unlabelled"].values(), noise["decisions"].values()
        moved = hmc.transition(
            partial(model.per_seed, partial(log_joint, f, name), x), self.z[seeds, rows], self.step.unsqueeze(1),
            momentum[:, 0, 0], decision[:, 0, 0, :, 0], model.stage.objective.leapfrogs,
        )  # fmt: skip
        self.z[seeds, rows] = moved.z
        self.step = hmc.adapted(self.step, moved.acceptance.mean(1), GAIN)
        return moved.z[:, None, None]


def log_joint(f: Factorisation, name: str, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) of one seed's rows: [B, D] of the observed variable and of its only latent's `name` -> [B]."""
    return _total(_log_densities(f.p, {f.observed: x, name: z}))


@torch.no_grad()
def _drawn(factors: Mapping[str, Factor], values: dict[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values and what the factors draw after them, one after the other."""
    for name, factor in factors.items():
        values = values | {name: factor(values).sample(noise[name])}
    return values


def _log_densities(factors: Mapping[str, Factor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: factor(values).log_prob(values[name]) for name, factor in factors.items()}


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*terms.values())).sum(0)


def _named(p: Mapping[str, Tensor], q: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As 'p_x' and the like: to name the first that is not finite."""
    sides = (("p", p), ("q", q))
    return {f"{side}_{name}": term.detach() for side, terms in sides for name, term in terms.items()}

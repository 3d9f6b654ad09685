"""Hamiltonian Monte Carlo for many chains at once, each moved by noise that it is given.

Shape legend: leading dimensions are chains, D dimensions of a state.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

ACCEPTANCE = 0.9  # AEVB, appendix E


class Moved(NamedTuple):
    """Where chains are after a transition, and the probabilities with which their proposals were accepted."""

    z: Tensor  # [..., D]
    acceptance: Tensor  # [...]


def transition(
    log_density: Callable[[Tensor], Tensor], z: Tensor, step: Tensor, momentum: Tensor, noise: Tensor, leapfrogs: int
) -> Moved:
    """One proposal of every chain, a trajectory of leapfrog steps, accepted or not (Neal 2011, section 5.3).

    Args:
        log_density: up to a constant, [..., D] -> [...]; no chain's value may depend on another's state.
        z: where the chains are, [..., D].
        step: the trajectories' step sizes, in units of z, broadcast to [...].
        momentum: standard normal, [..., D].
        noise: standard normal, [...]; its distribution function is the uniform draw that decides.
        leapfrogs: steps of a trajectory, each of which takes one gradient.
    """
    size = step.unsqueeze(-1)
    before, gradient = _with_gradient(log_density, z)
    end, v, after = z, momentum + 0.5 * size * gradient, before
    for left in reversed(range(leapfrogs)):
        end = end + size * v
        after, gradient = _with_gradient(log_density, end)
        v = v + (size if left else 0.5 * size) * gradient
    log_ratio = after - before + 0.5 * (momentum.square().sum(-1) - v.square().sum(-1))
    # A trajectory that left for infinity has no density there: it is rejected.
    acceptance = log_ratio.nan_to_num(-torch.inf).clamp(max=0).exp()
    accepted = torch.special.ndtr(noise) < acceptance
    return Moved(torch.where(accepted.unsqueeze(-1), end, z), acceptance)


def adapted(step: Tensor, acceptance: Tensor, gain: float) -> Tensor:
    """Step sizes that are longer where proposals are accepted too often, and shorter where too seldom."""
    return step * torch.exp(gain * (acceptance - ACCEPTANCE))


def _with_gradient(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient

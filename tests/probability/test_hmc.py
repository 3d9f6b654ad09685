"""Chains against densities whose moments are known."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from ssl_dgm.probability import hmc

TARGET = td.MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.3], [0.3, 0.25]]))


def chains(
    number: int, transitions: int, step: float = 0.3, leapfrogs: int = 7, adapt: bool = False, first: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """States [T, number, 2], acceptance [T, number] and the last steps [number]; noise is of the chain's own number."""
    generators = [torch.Generator().manual_seed(first + c) for c in range(number)]
    z, steps, states, accepted = torch.zeros(number, 2), torch.full((number,), step), [], []
    for _ in range(transitions):
        noise = torch.stack([torch.randn(3, generator=g) for g in generators])
        z, acceptance = hmc.transition(TARGET.log_prob, z, steps, noise[:, :2], noise[:, 2], leapfrogs)
        steps = hmc.adapted(steps, acceptance, 0.1) if adapt else steps
        states.append(z)
        accepted.append(acceptance)
    return torch.stack(states), torch.stack(accepted), steps


@pytest.mark.parametrize("step", [0.3, 0.55])
def test_chains_visit_their_target_whatever_the_step(step: float) -> None:
    states, accepted, _ = chains(400, 60, step)
    late = states[20:].flatten(0, 1)
    assert accepted.mean() > 0.95 if step == 0.3 else 0.5 < accepted.mean() < 0.95
    torch.testing.assert_close(late.mean(0), TARGET.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(late.T.cov(), TARGET.covariance_matrix, atol=0.06, rtol=0)


@pytest.mark.parametrize("first", [0.1, 2.0])
def test_steps_are_found_that_accept_nine_of_ten(first: float) -> None:
    _, accepted, steps = chains(60, 300, first, adapt=True)
    assert accepted[-100:].mean() == pytest.approx(hmc.ACCEPTANCE, abs=0.02)
    assert steps.log().std() < 0.3


def test_a_chain_is_the_same_alone_and_beside_others() -> None:
    together, _, steps = chains(3, 20, adapt=True)
    alone, _, own = chains(1, 20, adapt=True, first=2)
    torch.testing.assert_close(alone[:, 0], together[:, 2])
    torch.testing.assert_close(own[0], steps[2])


def test_a_trajectory_to_where_there_is_no_density_is_rejected() -> None:
    z = torch.tensor([[0.5]])
    away = torch.full((1, 1), 20.0)
    broken = hmc.transition(lambda z: (1 - z).log().sum(-1), z, torch.tensor([9.0]), away, torch.zeros(1), 3)
    assert torch.equal(broken.z, z) and broken.acceptance.item() == 0
    sure = hmc.transition(TARGET.log_prob, torch.zeros(1, 2), torch.tensor([1e-3]), torch.ones(1, 2), torch.zeros(1), 1)
    assert sure.acceptance.item() == pytest.approx(1, abs=1e-3)
    assert math.isclose(sure.z[0, 0].item(), 1e-3, rel_tol=0.1)

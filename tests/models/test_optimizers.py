"""Update rules against their transcription, and one optimiser over a stack against one per seed."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_dgm.config import OptimizerConfig
from ssl_dgm.models.optimizers import Adam, AdamUncorrected, create

SHAPES, STEPS = ((3, 2), (4,)), 7
SETTINGS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}
NAMES = ("adam", "adam_uncorrected", "adagrad")
every_rule = pytest.mark.parametrize("name", NAMES)


def optimizer_of(name: str, parameters: Sequence[Tensor], decay: float = 0.1) -> torch.optim.Optimizer:
    return create(parameters, OptimizerConfig(name, lr=0.03, beta1=0.8, beta2=0.95, eps=1e-4), decay)


def numbers(seed: int, *lead: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*lead, *shape, generator=generator) for shape in SHAPES]


def run(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Sequence[Tensor]]) -> None:
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_without_correction_is_its_transcription(decay: float) -> None:
    parameters = [nn.Parameter(w) for w in numbers(0)]
    gradients = [numbers(10 + step) for step in range(STEPS)]
    lr, (b1, b2), eps = SETTINGS["lr"], SETTINGS["betas"], SETTINGS["eps"]
    expected = [w.detach().double().numpy().copy() for w in parameters]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in expected]
    for step in gradients:
        for i, gradient in enumerate(step):
            (m, v), g = moments[i], gradient.double().numpy() + decay * expected[i]
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            expected[i], moments[i] = expected[i] - lr * m / (np.sqrt(v) + eps), (m, v)
    run(AdamUncorrected(parameters, **{**SETTINGS, "weight_decay": decay}), parameters, gradients)
    for parameter, weights in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weights, rtol=1e-5, atol=1e-6)


def test_adam_without_correction_takes_longer_first_steps() -> None:
    first = {}
    for kind in (Adam, AdamUncorrected):
        w = nn.Parameter(torch.zeros(1))
        run(kind([w], lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0), [w], [[torch.ones(1)]])
        first[kind] = -w.item()
    assert first[Adam] == pytest.approx(1, rel=1e-4)
    assert first[AdamUncorrected] == pytest.approx((1 - 0.9) / (1 - 0.999) ** 0.5, rel=1e-4)


@every_rule
def test_one_optimiser_over_a_stack_is_one_per_seed(name: str) -> None:
    stacked = [nn.Parameter(w) for w in numbers(0, 3)]
    singles = [[nn.Parameter(w.detach()[s].clone()) for w in stacked] for s in range(3)]
    gradients = [numbers(10 + step, 3) for step in range(STEPS)]
    for step in gradients:
        for g in step:
            g.mul_(torch.tensor([1e-3, 1.0, 1e3]).view(3, *[1] * (g.dim() - 1)))  # very different seeds
    run(optimizer_of(name, stacked), stacked, gradients)
    for s, single in enumerate(singles):
        alone = torch.optim.Adam(single, **SETTINGS) if name == "adam" else optimizer_of(name, single)
        run(alone, single, [[g[s] for g in step] for step in gradients])
        for together, own in zip(stacked, single, strict=True):
            torch.testing.assert_close(together.detach()[s], own.detach(), rtol=1e-5, atol=1e-7)


@every_rule
def test_a_seed_that_turns_nan_leaves_the_others_bit_equal(name: str) -> None:
    outcomes = []
    for value in (0.0, torch.nan):
        stacked = [nn.Parameter(w) for w in numbers(0, 3)]
        gradients = [numbers(10 + step, 3) for step in range(STEPS)]
        for g in gradients[2]:
            g[1] = value
        run(optimizer_of(name, stacked), stacked, gradients)
        outcomes.append([w.detach() for w in stacked])
    for healthy, ill in zip(*outcomes, strict=True):
        assert ill[1].isnan().all() and torch.equal(healthy[[0, 2]], ill[[0, 2]])


@every_rule
def test_a_restored_optimiser_continues_as_if_never_stopped(name: str) -> None:
    gradients = [numbers(10 + step) for step in range(STEPS)]
    whole = [nn.Parameter(w) for w in numbers(0)]
    run(optimizer_of(name, whole), whole, gradients)
    parts = [nn.Parameter(w) for w in numbers(0)]
    before = optimizer_of(name, parts)
    run(before, parts, gradients[:3])
    after = optimizer_of(name, parts)
    after.load_state_dict(before.state_dict())
    run(after, parts, gradients[3:])
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adagrad_is_that_of_torch(decay: float) -> None:
    ours, theirs = ([nn.Parameter(w) for w in numbers(0)] for _ in range(2))
    gradients = [numbers(10 + step) for step in range(STEPS)]
    run(optimizer_of("adagrad", ours, decay), ours, gradients)
    run(torch.optim.Adagrad(theirs, lr=0.03, eps=1e-4, weight_decay=decay), theirs, gradients)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.detach(), other.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adam_uncorrected", "adagrad"])
def test_parameters_without_gradient_stay(name: str) -> None:
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optimizer_of(name, [moved, still])
    moved.grad = torch.ones(2)
    optimizer.step()
    assert (moved < 1).all() and torch.equal(still, torch.ones(2))

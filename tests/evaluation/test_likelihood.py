"""Estimates of log p(x) against probabilistic PCA and against sums over grids of the latents."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from ssl_dgm import models
from ssl_dgm.config import ModelConfig, NetworkConfig, Stage
from ssl_dgm.data.inputs import Pixels
from ssl_dgm.evaluation import likelihood, scores
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.randomness import Streams

D, K = 12, 3
GRID = torch.linspace(-6, 6, 241)
LOG_MASS = -0.5 * GRID.square() - 0.5 * math.log(2 * math.pi) + math.log(12 / 240)  # of N(0, 1) around every point


def make(name: str, seeds: tuple[int, ...] = (0, 1), x_dim: int = D, **settings: Any) -> DeepGenerativeModel:
    """A model with weights so large that its latents matter, and a q that is nearly N(0, 1)."""
    stage = Stage(model=ModelConfig(name, **settings), network=NetworkConfig(hidden=[8], activation="tanh"))
    model = models.create(stage, x_dim=x_dim, num_classes=K, seeds=seeds, num_labelled=0, num_unlabelled=9)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.8 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    for factor in [*model.factorisation.q.values(), *[f for v, f in model.factorisation.p.items() if v == "a"]]:
        for parameter in factor.parameters():
            parameter.data *= 0.1
    return model.eval()


def rows(number: int) -> Pixels:
    """Binary images, which every binarisation leaves as they are."""
    drawn = torch.rand(number, D, generator=torch.Generator().manual_seed(5)) < 0.5
    return Pixels(255 * drawn.to(torch.uint8))


def summed(model: DeepGenerativeModel, x: Tensor) -> Tensor:
    """log p(x) of a model of one z, by the grid and by all classes, [S, N]."""

    def of_one(x: Tensor) -> Tensor:
        f = model.factorisation
        z = GRID.view(-1, 1, 1, 1)
        if not model.has_classes:
            return (f.p["x"]({"z": z}).log_prob(x)[:, 0] + LOG_MASS[:, None]).logsumexp(0)
        y = torch.eye(K).unsqueeze(1)
        of_z = f.p["z"]({"y": y}).log_prob(z) + math.log(12 / 240)
        terms = f.p["x"]({"y": y, "z": z}).log_prob(x) + of_z + f.p["y"]({}).log_prob(y)
        return terms.logsumexp((0, 1))

    return model.per_seed(of_one, x.expand(len(model.seeds), -1, -1)).detach()


@pytest.mark.parametrize("name", ["m1", "m2", "gmdgm", "gmvae"])
def test_importance_samples_sum_out_latents_and_classes(name: str) -> None:
    model, x = make(name, z_dim=1), rows(7)
    exact = summed(model, x.images.float() / 255)
    assert exact.std() > 0.5
    torch.testing.assert_close(likelihood.by_q(model, x, 7, 30_000), exact, atol=0.06, rtol=0)


def test_an_auxiliary_variable_leaves_the_density_of_x_as_it_is() -> None:
    model, x = make("avae", z_dim=1, a_dim=2), rows(5)
    exact = summed(model, x.images.float() / 255)
    torch.testing.assert_close(likelihood.by_q(model, x, 5, 30_000), exact, atol=0.15, rtol=0)


def test_blocks_of_rows_and_of_samples_change_nothing_but_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make("m2", z_dim=1), rows(7)
    whole = likelihood.by_q(model, x, 7, 4000)
    monkeypatch.setattr(likelihood, "ELEMENTS_PER_BLOCK", 4000 * K * D // 3)
    monkeypatch.setattr("ssl_dgm.evaluation.scores.ELEMENTS_PER_BLOCK", 4000 * K * D // 3)
    parts = likelihood.by_q(model, x, 7, 4000)
    assert parts.shape == whole.shape == (2, 7) and not torch.equal(parts, whole)
    torch.testing.assert_close(parts, whole, atol=0.12, rtol=0)


def test_a_bar_counts_every_draw_of_every_row_where_it_is_wished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, x = make("m2", z_dim=1), rows(7)
    monkeypatch.setattr("ssl_dgm.evaluation.scores.ELEMENTS_PER_BLOCK", 3 * 40 * K * D)
    likelihood.by_q(model, x, 7, 40)
    assert capsys.readouterr().err == ""
    likelihood.by_q(model, x, 7, 40, verbose=True)
    assert "280/280" in capsys.readouterr().err


def test_the_bound_of_many_rows_has_a_bar_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, x = make("m2", z_dim=1), rows(7)
    scores.sampled(model, model.bound, x, 7, 1, draw_inputs=True, verbose=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(scores, "PATIENCE", 0)
    scores.sampled(model, model.bound, x, 7, 1, draw_inputs=True)
    assert capsys.readouterr().err == ""
    scores.sampled(model, model.bound, x, 7, 1, draw_inputs=True, first=3, verbose=True)
    assert "4/4" in capsys.readouterr().err


# --- Proposals fitted to chains


def test_chains_find_the_density_that_a_grid_has() -> None:
    model, x = make("m1", z_dim=1), rows(7)
    exact = summed(model, x.images.float() / 255)
    torch.testing.assert_close(likelihood.by_chains(model, x, 7, 3000), exact, atol=0.03, rtol=0)


def test_chains_do_not_look_at_q() -> None:
    model, x = make("m1", z_dim=2), rows(3)
    before = likelihood.by_chains(model, x, 3, 50)
    for parameter in model.factorisation.q.parameters():  # type: ignore[attr-defined]
        parameter.data.mul_(-3)
    assert torch.equal(likelihood.by_chains(model, x, 3, 50), before)


def test_a_seed_s_chains_are_the_same_alone_and_in_a_group() -> None:
    x, group, alone = rows(4), make("m1", (3, 8), z_dim=2), make("m1", (8,), z_dim=2)
    weights = {name: value[1:] for name, value in group.state_dict().items()}
    alone.load_state_dict(weights)
    torch.testing.assert_close(likelihood.by_chains(alone, x, 4, 40)[0], likelihood.by_chains(group, x, 4, 40)[1])


def test_chains_and_importance_samples_give_the_likelihood_of_probabilistic_pca() -> None:
    rng, dim = np.random.default_rng(0), 3
    x = rng.normal(size=(60, dim)) @ rng.normal(size=(dim, D)) + 0.5 * rng.normal(size=(60, D)) + rng.normal(size=D)
    pca = PCA(dim).fit(x)
    w = torch.tensor(pca.components_.T) * (torch.tensor(pca.explained_variance_) - pca.noise_variance_).sqrt()
    mean, sd = torch.tensor(pca.mean_), math.sqrt(pca.noise_variance_)
    data = torch.tensor(x)[None]

    def target(z: Tensor) -> Tensor:
        """log p(x, z) up to the constant of p(z), z being [1, ..., B, 3]."""
        errors = ((data - mean - z.double() @ w.T) / sd).square().sum(-1)
        return -0.5 * (errors + D * math.log(2 * math.pi * sd**2) + z.square().sum(-1))

    streams = likelihood.Streams([0], "test")
    fitted = likelihood.fit(target, (1, len(x), dim), streams)
    z, log_g = fitted.draw(streams.normal((2000, len(x), dim)).double())
    weights = target(z) - 0.5 * dim * math.log(2 * math.pi) - log_g
    found = weights.logsumexp(1) - math.log(2000)
    exact = torch.tensor(pca.score_samples(x))
    torch.testing.assert_close(found[0], exact, atol=0.1, rtol=0)
    assert (found[0] - exact).mean().abs() < 0.01


# --- The stack


class Stack:
    """An M1 with two units, one of which is dropped, and a second stage on the other."""

    def __init__(self) -> None:
        self.m1, self.live = make("m1", (5,), z_dim=2), torch.tensor([True, False])
        self.model = make("m1m2", x_dim=1, z_dim=1)
        self.first = (self.m1, self.live)

    def log_prior(self) -> Tensor:
        """log p(z1) of the live unit on the grid, y and z2 summed out by classes and by a grid, [S, G]."""

        def of_one(z1: Tensor) -> Tensor:
            f, y = self.model.factorisation, torch.eye(K).unsqueeze(1)
            z2 = GRID.view(-1, 1, 1, 1)
            terms = f.p["z1"]({"y": y, "z2": z2}).log_prob(z1) + f.p["y"]({}).log_prob(y) + LOG_MASS.view(-1, 1, 1)
            return terms.logsumexp((0, 1))

        return self.model.per_seed(of_one, GRID.view(1, -1, 1).expand(2, -1, -1)).detach()

    def summed(self, x: Tensor) -> Tensor:
        """log p(x), [S, N], by a grid over both units of z1."""
        pairs = torch.cartesian_prod(GRID, GRID).unsqueeze(1)
        of_x = self.m1.per_seed(lambda z: self.m1.factorisation.p["x"]({"z": z}).log_prob(x), pairs[None])[0].detach()
        of_live = (self.log_prior() + math.log(12 / 240)).unsqueeze(-1) + LOG_MASS  # [S, G, G]
        return (of_x + of_live.flatten(1).unsqueeze(-1)).logsumexp(1)


def test_the_likelihood_of_a_stack_is_the_sum_over_all_its_latents() -> None:
    stack, x = Stack(), rows(5)
    estimate = partial(likelihood.of_stack, stack.model, stack.first, x, 5)
    exact = stack.summed(x.images.float() / 255)
    torch.testing.assert_close(estimate(40_000, stack.model.importance_weighted), exact, atol=0.12, rtol=0)
    bound = estimate(1, stack.model.bound)
    assert bound.shape == (2, 5) and bound.mean() < exact.mean() - 0.05


def test_a_stack_whose_second_stage_is_the_prior_has_the_likelihood_of_its_m1() -> None:
    stack, x = Stack(), rows(5)
    for parameter in stack.model.factorisation.p["z1"].parameters():
        parameter.data.zero_()  # N(0, 1), whatever y and z2 are
    of_stack = likelihood.of_stack(stack.model, stack.first, x, 5, 20_000, stack.model.importance_weighted)
    alone = likelihood.by_q(stack.m1, x, 5, 20_000)
    torch.testing.assert_close(of_stack, alone.expand(2, -1), atol=0.15, rtol=0)


def test_rows_are_scored_in_their_order() -> None:
    model, x = make("m1", z_dim=1), rows(9)
    first = likelihood.by_q(model, x, 4, 2000)
    torch.testing.assert_close(first, likelihood.by_q(model, x, 9, 2000)[:, :4], atol=0.2, rtol=0)


def test_pixels_and_latents_are_drawn_by_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    purposes: list[str] = []

    class Noted(Streams):
        def __init__(self, seeds: Sequence[int], purpose: str, *device: Any) -> None:
            purposes.append(purpose)
            super().__init__(seeds, purpose, *device)

    for module in (scores, likelihood):
        monkeypatch.setattr(module, "Streams", Noted)
    for name in ("WARM_UP", "KEPT"):
        monkeypatch.setattr(likelihood, name, 2)
    stack, model, x = Stack(), make("m1", z_dim=1), rows(3)
    for estimate in (
        partial(scores.sampled, model, model.bound, x, 3, 1, draw_inputs=True),
        partial(likelihood.by_q, model, x, 3, 2),
        partial(likelihood.by_chains, model, x, 3, 2),
        partial(likelihood.of_stack, stack.model, stack.first, x, 3, 2, stack.model.importance_weighted),
    ):
        purposes.clear()
        estimate()
        assert len(purposes) == len(set(purposes)) == 2

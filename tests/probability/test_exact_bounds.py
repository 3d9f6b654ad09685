"""Bounds where everything is known: tight with the exact posterior, below the log-densities with another."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from seeded import B, D, K, L, agree, noise_of, one_hot, randn
from sklearn.decomposition import PCA
from torch import Tensor
from torch import distributions as td

from ssl_dgm.probability import bounds
from ssl_dgm.probability.bounds import Trace, trace
from ssl_dgm.probability.factors import (
    CategoricalFactor,
    Factorisation,
    GivenCategorical,
    NetworkFactor,
    NormalFactor,
    StandardNormal,
)
from ssl_dgm.probability.networks import Architecture

# --- A mixture of probabilistic PCAs: everything about it is known


def affine(
    kind: type[NetworkFactor], name: str, maps: dict[str, Tensor], bias: Tensor, log_var: Tensor | None = None
) -> NetworkFactor:
    """A factor whose mean (or logits) is exactly sum_p A_p value_p + bias, since relu(u) - relu(-u) = u."""
    dim = len(bias)
    factor = kind(name, dim, {p: a.shape[1] for p, a in maps.items()}, Architecture((2 * dim,), "relu")).double()
    network = factor.network
    for parent, a in maps.items():
        network.inputs[parent].weight.data = torch.cat([a, -a])
    next(iter(network.inputs.values())).bias.data = torch.cat([bias, -bias])
    mean = network.heads["logits" if kind is CategoricalFactor else "mean"]
    mean.weight.data, mean.bias.data = torch.cat([torch.eye(dim), -torch.eye(dim)], 1).double(), torch.zeros_like(bias)
    if log_var is not None:
        network.heads["log_var"].weight.data.zero_()
        network.heads["log_var"].bias.data = log_var
    return factor


class Mixture:
    """p(y) = 1/K, p(z) = N(0, I), p(x | y, z) = N(U y + W z + b, s^2 I), with W'W diagonal, and its exact posterior.

    `shift` and `widen` spoil q(z | x, y) by moving its mean and its log-variance.
    """

    def __init__(self, shift: float = 0.0, widen: float = 0.0) -> None:
        w = torch.linalg.qr(randn(0, D, L)).Q * torch.tensor([1.3, 0.6], dtype=torch.float64)
        u, b, s2 = randn(1, D, K), randn(2, D), 0.4
        precision = 1 + w.square().sum(0) / s2  # diagonal
        to_mean = w.T / s2 / precision[:, None]
        covariance = w @ w.T + s2 * torch.eye(D, dtype=torch.float64)
        means = u + b[:, None]  # [D, K]
        self.marginals = [td.MultivariateNormal(m, covariance) for m in means.T]
        to_logits = torch.linalg.solve(covariance, means).T  # linear, since the classes share a covariance
        self.x = randn(3, B, D)
        self.f = Factorisation(
            p=[
                GivenCategorical("y", [1 / K] * K).double(),
                StandardNormal("z").double(),
                affine(NormalFactor, "x", {"y": u, "z": w}, b, torch.full((D,), s2, dtype=torch.float64).log()),
            ],
            q=[
                affine(CategoricalFactor, "y", {"x": to_logits}, -0.5 * (to_logits * means.T).sum(1)),
                affine(
                    NormalFactor, "z", {"x": to_mean, "y": -to_mean @ u}, shift - to_mean @ b, widen - precision.log()
                ),
            ],
        )

    def log_joint(self) -> Tensor:
        """log p(x, y) of every class, [K, B]."""
        return torch.stack([m.log_prob(self.x) for m in self.marginals]) - math.log(K)

    def enumerated(self, draws: int = 1, seed: int = 9) -> Trace:
        noise = noise_of(self.f, B, draws, seed=seed)
        return trace(self.f, self.x, bounds.classes(self.f, self.x), noise)


@pytest.mark.parametrize("seed", [9, 99])
@pytest.mark.parametrize("draws", [1, 4])
def test_with_the_exact_posterior_the_bounds_are_the_log_densities(seed: int, draws: int) -> None:
    m = Mixture()
    t = m.enumerated(draws, seed)
    log_px = m.log_joint().logsumexp(0)
    agree(bounds.unlabelled(t), log_px)
    agree(bounds.importance_weighted(t), log_px)
    agree(bounds.class_log_joint(t), m.log_joint())
    agree(bounds.log_weight(t), m.log_joint().expand(draws, K, B))  # of every draw
    for c in range(K):
        t = trace(m.f, m.x, one_hot([c] * B), noise_of(m.f, B, draws, enumerate_y=False, seed=seed))
        agree(bounds.labelled(t), m.log_joint()[c])


def test_with_the_exact_posterior_both_classifiers_are_bayes_rule() -> None:
    m = Mixture()
    posterior = m.log_joint().softmax(0)
    assert posterior.std() > 0.05 and not (posterior.max(0).values > 0.999).all()  # something to tell apart
    agree(bounds.class_log_probs(m.f, m.x, {}).exp().T, posterior)
    agree(bounds.class_log_joint(m.enumerated()).softmax(0), posterior)


def test_with_an_inexact_posterior_the_bounds_are_below_and_sampling_makes_up_for_it() -> None:
    m = Mixture(shift=0.3, widen=0.5)
    t = m.enumerated(4000)
    log_joint, log_px = m.log_joint(), m.log_joint().logsumexp(0)
    assert (bounds.unlabelled(t) < log_px - 0.1).all()
    torch.testing.assert_close(bounds.importance_weighted(t), log_px, atol=0.05, rtol=0)
    torch.testing.assert_close(bounds.class_log_joint(t), log_joint, atol=0.1, rtol=0)


def test_jensen_orders_the_bounds_draw_by_draw() -> None:
    t = Mixture(shift=0.3, widen=0.5).enumerated()
    assert (bounds.importance_weighted(t) >= bounds.unlabelled(t)).all()


# --- Probabilistic PCA, fitted by scikit-learn


def test_importance_weighting_rises_with_the_draws_to_the_likelihood_of_probabilistic_pca() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, L)) @ rng.normal(size=(L, D)) + 0.5 * rng.normal(size=(200, D)) + rng.normal(size=D)
    pca = PCA(L).fit(x)
    s2, variance = pca.noise_variance_, torch.tensor(pca.explained_variance_)
    w = torch.tensor(pca.components_.T) * (variance - s2).sqrt()
    mean = torch.tensor(pca.mean_)

    def model(widen: float) -> Factorisation:
        to_mean = w.T / variance[:, None]  # W'W + s2 I = diag(variance)
        return Factorisation(
            p=[
                StandardNormal("z").double(),
                affine(NormalFactor, "x", {"z": w}, mean, torch.full((D,), s2, dtype=torch.float64).log()),
            ],
            q=[affine(NormalFactor, "z", {"x": to_mean}, -to_mean @ mean, widen + (s2 / variance).log())],
        )

    def estimate(f: Factorisation, draws: int) -> Tensor:
        return bounds.importance_weighted(trace(f, torch.tensor(x), None, noise_of(f, len(x), draws)))

    exact = torch.tensor(pca.score_samples(x))
    agree(estimate(model(0.0), 1), exact)
    wide = model(1.5)
    means = [estimate(wide, draws).mean() for draws in (1, 3, 10, 100)]
    assert all(later > earlier + 0.02 for earlier, later in pairwise(means))
    torch.testing.assert_close(estimate(wide, 3000).mean(), exact.mean(), atol=0.005, rtol=0)
    torch.testing.assert_close(estimate(wide, 3000), exact, atol=0.2, rtol=0)

"""Bounds: tight where the posterior is exact, equal to plain loops elsewhere, and their gradients those of differences.

Network heads answer in float32, which sets the tolerances.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
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
from ssl_dgm.probability.notation import Factors

K, B, D, L = 3, 6, 4, 2


def agree(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected.double(), atol=3e-5, rtol=1e-5)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_of(
    f: Factorisation, batch: int, draws: int = 1, enumerate_y: bool = True, seed: int = 9
) -> dict[str, Tensor]:
    shapes = f.noise_shapes(batch, draws, enumerate_y)
    return {name: randn(seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def one_hot(classes: list[int]) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[classes]


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


# --- Any weights


def rough(f: Factorisation) -> Factorisation:
    """Weights large enough that classes, draws and rows all matter."""
    for i, parameter in enumerate(f.parameters()):
        parameter.data = 0.6 * randn(100 + i, *parameter.shape)
    return f.double()


def factors() -> Factors:
    return Factors({"x": D, "y": K, "z": L, "z1": L, "a": 2}, Architecture((5,), "tanh"), "gaussian")


def m1() -> Factorisation:
    f = factors()
    return rough(Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")]))


def ladder() -> Factorisation:
    """Two latents, of which p has one given the other."""
    f = factors()
    p = [f.standard("z"), f.normal("z1 | z"), f.likelihood("x | z1")]
    return rough(Factorisation(p, [f.normal("z | x"), f.normal("z1 | x z")]))


def m2() -> Factorisation:
    f = factors()
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    return rough(Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")]))


def gmdgm() -> Factorisation:
    """The prior of z has the class for a parent."""
    f = factors()
    p = [f.prior("y"), f.normal("z | y"), f.likelihood("x | z")]
    return rough(Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")]))


def adgm() -> Factorisation:
    """An auxiliary latent a is drawn before y."""
    f = factors()
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z"), f.normal("a | x y z")]
    return rough(Factorisation(p, [f.normal("a | x"), f.categorical("y | a x"), f.normal("z | a x y")]))


with_classes = pytest.mark.parametrize("build", [m2, gmdgm, adgm])
every_build = pytest.mark.parametrize("build", [m1, ladder, m2, gmdgm, adgm])
Build = Callable[[], Factorisation]
x = randn(50, B, D)


def enumerated(f: Factorisation, noise: dict[str, Tensor], analytic: tuple[str, ...] = ()) -> Trace:
    return trace(f, x, bounds.classes(f, x) if "y" in f.q else None, noise, analytic)


def log_density(distribution: object, value: Tensor) -> Tensor:
    """The same through torch.distributions."""
    if hasattr(distribution, "log_var"):
        normal = td.Normal(distribution.mean, distribution.log_var.exp().sqrt())
        return normal.log_prob(value).sum(-1)
    return td.OneHotCategorical(logits=distribution.log_probs).log_prob(value)  # type: ignore[attr-defined]


def by_hand(f: Factorisation, row: Tensor, noise: dict[str, Tensor], y: Tensor | None) -> tuple[Tensor, Tensor]:
    """log p(x, y, h) - log q(h | x, y), and log q(y | .), of one row, one draw and one class."""
    values, log_q, log_q_y = {"x": row}, torch.zeros(()).double(), torch.zeros(()).double()
    for name, factor in f.q.items():
        q = factor(values)
        if name == "y":
            values["y"] = y
            log_q_y = log_density(q, y)
        else:
            values[name] = q.mean + q.log_var.exp().sqrt() * noise[name]
            log_q = log_q + log_density(q, values[name])
    log_p = sum(log_density(factor(values), values[name].double()) for name, factor in f.p.items())
    return log_p - log_q, log_q_y


@with_classes
def test_enumeration_is_a_loop_over_draws_classes_and_rows(build: Build) -> None:
    f, draws = build(), 2
    noise = noise_of(f, B, draws)
    t = enumerated(f, noise)
    bound = torch.zeros(B).double()
    weights = torch.zeros(draws, K, B).double()
    for m in range(draws):
        for b in range(B):
            for c, y in enumerate(one_hot([0, 1, 2])):
                # A latent drawn before y has one class: the same draw serves all of them.
                own = {name: n[m, min(c, n.shape[1] - 1), b] for name, n in noise.items()}
                weights[m, c, b], log_q_y = by_hand(f, x[b], own, y)
                bound[b] += log_q_y.exp() * (weights[m, c, b] - log_q_y) / draws
    agree(bounds.log_weight(t), weights)
    agree(bounds.unlabelled(t), bound)
    agree(bounds.class_log_joint(t).exp(), weights.exp().mean(0))
    agree(bounds.importance_weighted(t).exp(), weights.exp().sum(1).mean(0))
    assert bound.std() > 0.1 and weights.std(0).min() > 1e-3 and weights.std(1).min() > 1e-3


@every_build
def test_the_bound_of_given_labels_is_a_loop_over_draws_and_rows(build: Build) -> None:
    f, draws = build(), 3
    labels = one_hot([2, 0, 1, 1, 0, 2]) if "y" in f.q else None
    noise = noise_of(f, B, draws, enumerate_y=False)
    expected = torch.zeros(B).double()
    for m in range(draws):
        for b in range(B):
            own = {name: n[m, 0, b] for name, n in noise.items()}
            expected[b] += by_hand(f, x[b], own, None if labels is None else labels[b])[0] / draws
    agree(bounds.labelled(trace(f, x, labels, noise)), expected)


@with_classes
def test_a_certain_class_turns_the_unlabelled_bound_into_the_labelled_one(build: Build) -> None:
    f = build()
    head = f.q["y"].network.heads["logits"]
    head.weight.data.zero_()
    noise = noise_of(f, B, draws=2)
    for c in range(K):
        head.bias.data = 1000 * one_hot([c])[0]
        own = {name: n[:, min(c, n.shape[1] - 1)].unsqueeze(1) for name, n in noise.items()}
        given = bounds.labelled(trace(f, x, one_hot([c] * B), own))
        agree(bounds.unlabelled(enumerated(f, noise)), given)


@every_build
def test_an_analytic_divergence_is_the_mean_over_draws(build: Build) -> None:
    f, draws = build(), 20_000
    noise = noise_of(f, B, draws)
    sampled, exact = enumerated(f, noise), enumerated(f, noise, f.analytic)
    assert f.analytic and sampled.values.keys() == exact.values.keys()
    for name in f.p:
        if name not in f.analytic:
            assert torch.equal(sampled.p[name], exact.p[name])
            assert name not in f.q or torch.equal(sampled.q[name], exact.q[name])
            continue
        drawn, expected = sampled.q[name] - sampled.p[name], exact.q[name] - exact.p[name]
        error = (drawn - expected).std(0) / math.sqrt(draws)
        assert ((drawn - expected).mean(0).abs() < 4.5 * error).all()
        assert (expected > -1e-5).all()


def test_an_analytic_divergence_needs_no_draw_of_its_latent() -> None:
    f = m2()
    one, other = (enumerated(f, noise_of(f, B, seed=seed), f.analytic) for seed in (1, 2))
    assert torch.equal(one.p["z"], other.p["z"]) and torch.equal(one.q["z"], other.q["z"])
    assert not torch.equal(one.p["x"], other.p["x"])


# --- Classification


def test_class_probabilities_are_averaged_over_the_draws_before_y() -> None:
    f, draws = adgm(), 5
    noise = {"a": 3 * noise_of(f, B, draws)["a"]}
    a = f.q["a"]({"x": x})
    probabilities = [
        f.q["y"]({"x": x, "a": a.mean + a.log_var.exp().sqrt() * noise["a"][m, 0]}).log_probs.exp()
        for m in range(draws)
    ]
    assert torch.stack(probabilities).std(0).max() > 0.05  # the draws disagree
    expected = torch.stack(probabilities).mean(0)
    agree(bounds.class_log_probs(f, x, noise).exp(), expected)
    labels = [2, 0, 1, 1, 0, 2]
    noise["z"] = noise_of(f, B, draws, enumerate_y=False)["z"]
    t = trace(f, x, one_hot(labels), noise)
    agree(bounds.classification(t).exp(), expected[range(B), labels])


def test_class_probabilities_without_draws_before_y_are_q_of_y() -> None:
    f, labels = m2(), [2, 0, 1, 1, 0, 2]
    log_q_y = f.q["y"]({"x": x}).log_probs
    torch.testing.assert_close(bounds.class_log_probs(f, x, {}), log_q_y)
    t = trace(f, x, one_hot(labels), noise_of(f, B, 3, enumerate_y=False))
    agree(bounds.classification(t), log_q_y[range(B), labels].double())


# --- Weights of single terms


def test_scaling_weights_the_named_terms_only() -> None:
    t = enumerated(f := m2(), noise_of(f, B, 2))
    scaled = t.scaled({"z": torch.tensor(0.25)})
    for side in ("p", "q"):
        for name, term in getattr(t, side).items():
            assert torch.equal(getattr(scaled, side)[name], term * (0.25 if name == "z" else 1))
    assert scaled.values is t.values
    without = bounds.log_weight(t.scaled({"z": 0.0}))
    agree(without, t.p["x"] + t.p["y"])
    torch.testing.assert_close(bounds.log_weight(t.scaled({"z": 1.0})), bounds.log_weight(t))


# --- Gradients


@every_build
@pytest.mark.parametrize("analytic", [False, True])
def test_gradients_are_those_of_finite_differences(build: Build, analytic: bool) -> None:
    f = build()
    unlabelled, given = noise_of(f, B, 2), noise_of(f, B, 2, enumerate_y=False)
    names = f.analytic if analytic else ()
    labels = one_hot([2, 0, 1, 1, 0, 2]) if "y" in f.q else None

    def total() -> Tensor:
        t = trace(f, x, labels, given, names)
        if labels is None:
            return bounds.labelled(t).mean() + bounds.importance_weighted(t).mean()
        u = enumerated(f, unlabelled, names)
        sums = bounds.labelled(t) + bounds.classification(t) + bounds.unlabelled(u) + bounds.importance_weighted(u)
        return sums.mean()

    def at(parameter: Tensor, step: Tensor) -> float:
        with torch.no_grad():
            parameter.add_(step)
            value = total().item()
            parameter.sub_(step)
        return value

    parameters = list(f.parameters())
    gradients = torch.autograd.grad(total(), parameters)
    h = 0.03
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        direction = randn(200 + i, *parameter.shape)
        direction /= direction.norm()
        near = at(parameter, h * direction) - at(parameter, -h * direction)
        far = at(parameter, 2 * h * direction) - at(parameter, -2 * h * direction)
        difference = (8 * near - far) / (12 * h)  # its error is of order h^4
        assert (gradient * direction).sum().item() == pytest.approx(difference, rel=5e-3, abs=5e-3)
    assert all(g.norm() > 0.01 for g in gradients)

"""Bounds of any weights: equal to plain loops, and their gradients those of differences."""

import math
from collections.abc import Callable

import pytest
import torch
from seeded import B, D, K, L, agree, noise_of, one_hot, randn
from torch import Tensor
from torch import distributions as td

from ssl_dgm.probability import bounds
from ssl_dgm.probability.bounds import Trace, trace
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.notation import Factors


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


@every_build
def test_a_divergence_is_weighted_by_the_probabilities_of_the_classes(build: Build) -> None:
    f = build()
    t = enumerated(f, noise_of(f, B, 3))
    for name in (name for name in f.q if name != "y"):
        kl = t.q[name] - t.p[name]  # [M, K, B]
        expected = kl.mean(0) if "y" not in f.q else kl * t.q["y"].exp()
        agree(bounds.divergence(t, name), expected.sum(-2).mean())


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

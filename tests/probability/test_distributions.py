"""Densities against torch.distributions; closed-form expectations against its divergences and against sampling."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from ssl_dgm.probability.distributions import LOG_VAR_LIMIT, Bernoulli, Categorical, Gaussian

# Leading dimensions of a parameter and of a value that meet by broadcasting, as in a trace: M, K, B.
shapes = st.sampled_from([((5,), (5,)), ((3, 5), (5,)), ((3, 1), (5,)), ((2, 3, 5), (3, 1)), ((), (2, 1, 5))])
seeds = st.integers(0, 2**31)
quick = settings(deadline=None, max_examples=25)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(seed: int, *shape: int) -> Gaussian:
    return Gaussian(normal(seed, *shape), 1.5 * normal(seed + 1, *shape))


def reference(g: Gaussian) -> td.Distribution:
    return td.Independent(td.Normal(g.mean, g.log_var.exp().sqrt()), 1)


# --- Gaussian


@quick
@given(seeds, shapes)
def test_gaussian_density_is_that_of_torch(seed: int, lead: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    g, x = gaussian(seed, *lead[0], 4), normal(seed + 2, *lead[1], 4)
    torch.testing.assert_close(g.log_prob(x), reference(g).log_prob(x))


@quick
@given(seeds)
def test_a_gaussian_draw_is_its_mean_plus_sd_times_noise(seed: int) -> None:
    g, noise = gaussian(seed, 3, 1, 4), normal(seed + 2, 2, 1, 5, 4)
    standardised = (g.rsample(noise) - g.mean) / reference(g).stddev
    torch.testing.assert_close(standardised, noise.expand(2, 3, 5, 4))


def test_a_gaussian_draw_passes_gradients_to_both_parameters() -> None:
    mean, log_var, noise = normal(0, 3).requires_grad_(), normal(1, 3).requires_grad_(), normal(2, 3)
    Gaussian(mean, log_var).rsample(noise).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(log_var.grad, 0.5 * (0.5 * log_var.detach()).exp() * noise)


@quick
@given(seeds, shapes)
def test_expected_log_densities_make_the_entropy_and_the_divergence(
    seed: int, lead: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    p, q = gaussian(seed, *lead[0], 4), gaussian(seed + 2, *lead[1], 4)
    torch.testing.assert_close(-q.expected_log_prob(q), reference(q).entropy())
    divergence = q.expected_log_prob(q) - p.expected_log_prob(q)
    torch.testing.assert_close(divergence, td.kl_divergence(reference(q), reference(p)))


def test_expected_log_density_is_the_mean_over_draws() -> None:
    p, q = gaussian(0, 3, 4), gaussian(2, 3, 4)
    draws = p.log_prob(q.rsample(normal(4, 100_000, 3, 4)))
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - p.expected_log_prob(q)).abs() < 4 * standard_error).all()


def test_log_variances_beyond_the_limit_count_as_the_limit() -> None:
    x, noise, limit = normal(0, 4), normal(1, 4), torch.full((4,), LOG_VAR_LIMIT, dtype=torch.float64)
    for sign in (-1, 1):
        beyond, at = Gaussian(torch.zeros(4), sign * 1e4 * limit), Gaussian(torch.zeros(4), sign * limit)
        assert torch.equal(beyond.log_prob(x), at.log_prob(x)) and beyond.log_prob(x).isfinite()
        assert torch.equal(beyond.rsample(noise), at.rsample(noise))
        assert torch.equal(beyond.expected_log_prob(beyond), at.expected_log_prob(at))
    inside = Gaussian(torch.zeros(4), 0.999 * limit)
    torch.testing.assert_close(inside.log_prob(x), reference(inside).log_prob(x))
    assert not torch.equal(inside.log_prob(x), at.log_prob(x))


# --- Bernoulli


@quick
@given(seeds, shapes)
def test_bernoulli_density_of_binary_pixels_is_that_of_torch(
    seed: int, lead: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    logits, x = 3 * normal(seed, *lead[0], 4), (normal(seed + 1, *lead[1], 4) > 0).double()
    expected = td.Independent(td.Bernoulli(logits=logits), 1).log_prob(x)
    torch.testing.assert_close(Bernoulli(logits).log_prob(x), expected)
    torch.testing.assert_close(Bernoulli(logits).mean, td.Bernoulli(logits=logits).mean)


@quick
@given(seeds)
def test_bernoulli_score_of_grey_pixels_is_the_mean_over_their_binarisations(seed: int) -> None:
    logits, grey = 3 * normal(seed, 4), torch.sigmoid(normal(seed + 1, 4))
    binary = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)  # all 16
    weights = td.Independent(td.Bernoulli(grey), 1).log_prob(binary).exp()
    reference = td.Independent(td.Bernoulli(logits=logits), 1)
    torch.testing.assert_close(Bernoulli(logits).log_prob(grey), (weights * reference.log_prob(binary)).sum())


def test_bernoulli_density_of_certain_pixels_is_finite_and_exact() -> None:
    density = Bernoulli(torch.tensor([[200.0, -200.0]]))
    assert density.log_prob(torch.tensor([1.0, 0.0])).item() == 0
    assert density.log_prob(torch.tensor([0.0, 1.0])).item() == -400


# --- Categorical


@pytest.mark.parametrize("k", [2, 5])
def test_categorical_density_is_that_of_torch(k: int) -> None:
    logits, y = normal(0, 7, 1, k), torch.eye(k, dtype=torch.float64)
    expected = td.OneHotCategorical(logits=logits).log_prob(y)
    torch.testing.assert_close(Categorical(torch.log_softmax(logits, -1)).log_prob(y), expected)


def test_several_trials_are_a_binomial() -> None:
    logits, counts = torch.randn(5, 7), torch.randint(0, 17, (5, 7)).float()
    expected = torch.distributions.Binomial(16, logits=logits).log_prob(counts).sum(-1)
    torch.testing.assert_close(Bernoulli(logits, trials=16).log_prob(counts / 16), expected, rtol=1e-4, atol=1e-4)

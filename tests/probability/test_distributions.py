"""Densities against torch.distributions; closed-form expectations against its divergences and against sampling."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch import distributions as td

from ssl_dgm.probability.distributions import LOG_VAR_LIMIT, Bernoulli, Categorical, Gaussian, Levels, Squared

# Leading dimensions of a parameter and of a value that meet by broadcasting, as in a trace: M, K, B.
shapes = st.sampled_from([((5,), (5,)), ((3, 5), (5,)), ((3, 1), (5,)), ((2, 3, 5), (3, 1)), ((), (2, 1, 5))])
seeds = st.integers(0, 2**31)
quick = settings(max_examples=25)


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


# --- Levels


@quick
@given(seeds, shapes)
def test_the_density_of_levels_is_that_of_torch(seed: int, lead: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    logits = 3 * normal(seed, *lead[0], 4, 256)
    level = torch.randint(256, (*lead[1], 4), generator=torch.Generator().manual_seed(seed))
    expected = td.Independent(td.Categorical(logits=logits), 1).log_prob(level)
    # As they come from the data, in float32.
    torch.testing.assert_close(Levels(logits).log_prob(level.byte().float() / 255), expected)


def test_every_level_is_found_and_their_probabilities_sum_to_one() -> None:
    logits, x = normal(0, 1, 256), torch.arange(256, dtype=torch.uint8)[:, None].float() / 255
    densities = Levels(logits).log_prob(x)
    torch.testing.assert_close(densities, logits[0].log_softmax(0))
    torch.testing.assert_close(densities.exp().sum().item(), 1.0)


def test_the_mean_of_levels_is_their_expectation_in_pixels() -> None:
    logits = normal(0, 3, 4, 256)
    expected = (td.Categorical(logits=logits).probs * torch.arange(256) / 255).sum(-1)
    torch.testing.assert_close(Levels(logits).mean, expected)


def test_sure_levels_are_finite_with_their_gradient() -> None:
    logits = torch.zeros(2, 256)
    logits[0, 0], logits[1, 255] = 1e4, 1e4
    logits.requires_grad_()
    right, wrong = Levels(logits).log_prob(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert (right.item(), wrong.item()) == (0, -2e4)
    wrong.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[0, 255] == 1


# --- Squared


@quick
@given(seeds, shapes)
def test_the_squared_error_is_a_gaussian_of_fixed_variance(
    seed: int, lead: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    logits, x, scale = 2 * normal(seed, *lead[0], 4), normal(seed + 1, *lead[1], 4).sigmoid(), 0.3
    sd = torch.tensor(math.sqrt(1 / (2 * scale)), dtype=torch.float64)
    expected = td.Independent(td.Normal(torch.sigmoid(logits), sd), 1).log_prob(x)
    torch.testing.assert_close(Squared(logits, scale).log_prob(x), expected)
    torch.testing.assert_close(Squared(logits, scale).mean, torch.sigmoid(logits))


def test_its_gradient_is_that_of_the_scaled_squared_error() -> None:
    logits, x = normal(0, 5, 4).requires_grad_(), normal(1, 5, 4).sigmoid()
    (own,) = torch.autograd.grad(-Squared(logits, 0.25).log_prob(x).sum(), logits)
    # With scale = 1 / D, the mean over pixels.
    (mean,) = torch.autograd.grad((x - logits.sigmoid()).square().mean(-1).sum(), logits)
    torch.testing.assert_close(own, mean)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_parameters_are_finite_with_their_gradients(value: float) -> None:
    x = torch.tensor([value, value])
    for sign in (-1e4, 1e4):
        parameter = torch.full((2,), sign, requires_grad=True)
        for density in (Squared(parameter, 0.5), Bernoulli(parameter), Gaussian(x - 0.5, parameter)):
            (gradient,) = torch.autograd.grad(density.log_prob(x), parameter)
            assert density.log_prob(x).isfinite() and gradient.isfinite().all()
    far = torch.full((2,), 30.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(Gaussian(far, torch.full((2,), -1e4)).log_prob(x), far)
    assert gradient.isfinite().all() and gradient.all()


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


# --- Draws by the distribution function


@pytest.mark.parametrize("trials", [1, 16])
def test_bits_are_drawn_by_their_distribution_function(trials: int) -> None:
    logits, noise = 2 * normal(0, 500), normal(1, 500)
    drawn = Bernoulli(logits, trials).sample(noise)
    exact = stats.binom.ppf(torch.special.ndtr(noise).numpy(), trials, torch.sigmoid(logits).numpy())
    np.testing.assert_allclose(drawn.numpy() * trials, exact)
    assert 0.3 < drawn.mean() < 0.7


def test_levels_and_squared_errors_are_drawn_from_their_densities() -> None:
    noise = normal(2, 40_000, 2)
    levels = Levels(3 * normal(3, 2, 256))
    torch.testing.assert_close(levels.sample(noise).mean(0), levels.mean, atol=0.01, rtol=0)
    counts = torch.bincount((levels.sample(noise)[:, 0] * 255).round().long(), minlength=256) / len(noise)
    torch.testing.assert_close(counts.double(), levels.logits[0].softmax(-1), atol=0.01, rtol=0)
    squared = Squared(normal(4, 2), 3.0)
    drawn = squared.sample(noise)
    torch.testing.assert_close(drawn.mean(0), squared.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.full((2,), 1 / 6).double(), atol=0.01, rtol=0)

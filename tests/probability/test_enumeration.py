"""Sums over classes with terms left out: unbiased, whatever is skipped, and the same whether it is skipped or not."""

from itertools import product

import pytest
import torch
from test_bounds import B, Build, D, K, agree, noise_of, one_hot, randn, with_classes, x
from torch import Tensor

from ssl_dgm.probability import bounds
from ssl_dgm.probability.bounds import Trace, trace
from ssl_dgm.probability.enumeration import roulette
from ssl_dgm.probability.factors import Factorisation

THRESHOLD = 0.3
DRAWS = 2


x_given, y_given = randn(60, 4, D), one_hot([2, 0, 1, 2])


def walk(f: Factorisation, noise: dict[str, Tensor], threshold: float, analytic: tuple[str, ...] = ()) -> Trace:
    return trace(f, x, bounds.classes(f, x), noise, analytic, threshold)


def walk_once(
    f: Factorisation, noise: dict[str, Tensor], threshold: float, analytic: tuple[str, ...] = ()
) -> tuple[Trace, Trace]:
    return bounds.traces(f, (x_given, x), y_given, (noise_of(f, 4, DRAWS, False, 80), noise), analytic, threshold)


def noise_with_y(f: Factorisation) -> dict[str, Tensor]:
    shapes = f.noise_shapes(B, DRAWS, enumerate_y=True, incomplete=True)
    assert shapes["y"] == (DRAWS, K, B, 1)
    return {name: randn(70 + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def gradients(f: Factorisation, bound: Tensor) -> Tensor:
    weights = list(f.parameters())
    parts = torch.autograd.grad(bound.sum(), weights, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


@with_classes
@pytest.mark.parametrize("kl", ["monte_carlo", "analytic"])
def test_one_walk_that_skips_classes_is_two_that_do_not(build: Build, kl: str) -> None:
    f = build()
    noise, analytic = noise_with_y(f), f.analytic if kl == "analytic" else ()
    computed = walk(f, noise, THRESHOLD, analytic)
    labelled = trace(f, x_given, y_given, noise_of(f, 4, DRAWS, False, 80), analytic)
    labelled_too, skipped = walk_once(f, noise, THRESHOLD, analytic)
    left_out = computed.weights == 0
    assert left_out.any() and not left_out.all(1).any()
    torch.testing.assert_close(computed.weights, skipped.weights)
    agree(bounds.unlabelled(skipped), bounds.unlabelled(computed))
    agree(gradients(f, bounds.unlabelled(skipped)), gradients(f, bounds.unlabelled(computed)))
    for name in f.p:
        agree(skipped.p[name][~left_out], computed.p[name][~left_out])
        agree(labelled_too.p[name], labelled.p[name].expand_as(labelled_too.p[name]))
    for bound in (bounds.labelled, bounds.classification):
        agree(bound(labelled_too), bound(labelled))
        agree(gradients(f, bound(labelled_too)), gradients(f, bound(labelled)))


@with_classes
def test_the_expectation_over_what_is_left_out_is_the_exact_sum(build: Build) -> None:
    """Every pattern of kept classes, times its probability."""
    f = build()
    noise = noise_with_y(f)
    exact = walk(f, noise, 0.0)
    q = exact.q["y"].exp()
    pi = (q / q.amax(1, keepdim=True).clamp(max=THRESHOLD)).clamp(max=1)
    mean, mean_gradient, total = torch.zeros(B).double(), torch.zeros(()).double(), torch.zeros(())
    for m, b in product(range(DRAWS), range(B)):
        for pattern in product([True, False], repeat=K):
            keep = torch.tensor(pattern)
            probability = torch.where(keep, pi[m, :, b], 1 - pi[m, :, b]).prod().detach()
            if probability == 0:
                continue
            noise["y"] = torch.where(keep, -9.0, 9.0).view(1, K, 1, 1).expand(DRAWS, K, B, 1).double()
            bound = bounds.unlabelled(only(walk_once(f, noise, THRESHOLD)[1], m))[b]
            mean[b] += probability * bound.detach() / DRAWS
            mean_gradient = mean_gradient + probability * gradients(f, bound) / DRAWS
            total = total + probability
    agree(total, torch.tensor(float(DRAWS * B)))
    agree(mean, bounds.unlabelled(exact).detach())
    torch.testing.assert_close(mean_gradient, gradients(f, bounds.unlabelled(exact)), atol=2e-4, rtol=1e-4)


def only(t: Trace, draw: int) -> Trace:
    one = slice(draw, draw + 1)
    assert t.weights is not None
    p, q = ({name: term[one] for name, term in terms.items()} for terms in (t.p, t.q))
    return Trace(p, q, t.values, t.weights[one])


def test_a_class_is_kept_in_proportion_to_its_probability_and_the_likeliest_always() -> None:
    log_q = torch.tensor([0.9, 0.07, 0.03, 0.0]).log().view(1, 4, 1)
    weights = roulette(log_q, torch.randn(200_000, 4, 1, generator=torch.Generator().manual_seed(0)), 0.1)
    kept = (weights > 0).double().mean(0).squeeze(-1)
    torch.testing.assert_close(kept, torch.tensor([1.0, 0.7, 0.3, 0.0]).double(), atol=0.005, rtol=0)
    torch.testing.assert_close(weights.amax(0).squeeze(-1), torch.tensor([1, 1 / 0.7, 1 / 0.3, 0]), rtol=1e-4, atol=0)
    uniform = torch.full((1, 4, 1), 0.25).log()
    assert (roulette(uniform, torch.full((1, 4, 1), 9.0), 0.9) == 1).all()  # none is likelier, so none is left out

"""Sums over classes of which every row has the same number of terms: the likeliest, and one drawn of the others."""

from itertools import product

import pytest
import torch
from test_bounds import B, Build, D, K, agree, factors, one_hot, randn, rough, with_classes, x
from test_enumeration import gradients, only
from torch import Tensor

from ssl_dgm.probability import bounds
from ssl_dgm.probability.bounds import Trace, trace
from ssl_dgm.probability.enumeration import LEAST, likeliest_and_one
from ssl_dgm.probability.factors import Factorisation

DRAWS = 2
of_some = pytest.mark.parametrize("terms", range(2, K))


def walk(f: Factorisation, noise: dict[str, Tensor], terms: int, analytic: tuple[str, ...] = ()) -> Trace:
    return trace(f, x, bounds.classes(f, x), noise, analytic, class_terms=terms)


def every_class(f: Factorisation) -> dict[str, Tensor]:
    """Noise of all classes, y's included."""
    shapes = f.noise_shapes(B, DRAWS, enumerate_y=True, incomplete=True)
    return {name: randn(70 + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def of_those(f: Factorisation, noise: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """The noise that classes `index` [M, C, B] have among that of all."""
    found = dict(noise)
    for name in f.latents[f.latents.index("y") + 1 :]:
        found[name] = noise[name].gather(1, index.unsqueeze(-1).expand(-1, -1, -1, noise[name].shape[-1]))
    return found


def decided(f: Factorisation, noise: dict[str, Tensor], terms: int) -> tuple[Tensor, Tensor]:
    return likeliest_and_one(walk(f, noise, 0).q["y"], noise["y"].squeeze(-1), terms)


@with_classes
@of_some
@pytest.mark.parametrize("kl", ["monte_carlo", "analytic"])
def test_terms_of_the_classes_that_are_kept_are_those_of_the_whole_sum(build: Build, terms: int, kl: str) -> None:
    f = build()
    noise, analytic = every_class(f), f.analytic if kl == "analytic" else ()
    whole, (index, counts) = walk(f, noise, 0, analytic), decided(f, noise, terms)
    few = walk(f, of_those(f, noise, index), terms, analytic)
    assert few.weights is not None
    agree(few.weights.gather(1, index), counts)
    assert ((few.weights > 0).sum(1) == terms).all()
    for name in f.p:
        for found, expected in ((few.p[name], whole.p[name]), (few.q[name], whole.q[name])) if name in f.q else ():
            agree(found.expand_as(few.weights).gather(1, index), expected.expand_as(few.weights).gather(1, index))
    agree(few.q["y"], whole.q["y"].expand_as(few.q["y"]))


@with_classes
@of_some
def test_the_expectation_over_the_class_that_is_drawn_is_the_exact_sum(build: Build, terms: int) -> None:
    f = build()
    noise = every_class(f)
    exact = walk(f, noise, 0)
    q = exact.q["y"].exp().detach().expand(DRAWS, K, B)
    others = q.argsort(1, descending=True)[:, terms - 1 :]
    shares = q.gather(1, others).clamp(min=LEAST)
    shares = shares / shares.sum(1, keepdim=True)
    mean, mean_gradient = torch.zeros(B).double(), torch.zeros(()).double()
    for m, b, i in product(range(DRAWS), range(B), range(K - terms + 1)):
        drawn = one_hot([int(others[m, i, b])])[0]
        noise["y"] = torch.where(drawn > 0, 9.0, -9.0).view(1, K, 1, 1).expand(DRAWS, K, B, 1).double()
        index, _ = decided(f, noise, terms)
        t = walk(f, of_those(f, noise, index), terms)
        assert index[m, -1, b] == others[m, i, b]
        bound = bounds.unlabelled(only(t, m))
        mean[b] += shares[m, i, b] * bound[b].detach() / DRAWS
        mean_gradient = mean_gradient + shares[m, i, b] * gradients(f, bound[b]) / DRAWS
    agree(mean, bounds.unlabelled(exact).detach())
    torch.testing.assert_close(mean_gradient, gradients(f, bounds.unlabelled(exact)), atol=1e-8, rtol=1e-8)


@with_classes
def test_as_many_terms_as_classes_are_the_whole_sum(build: Build) -> None:
    f = build()
    noise = every_class(f)
    index, counts = decided(f, noise, K)
    assert (index.sort(1).values == torch.arange(K).view(1, K, 1)).all()
    torch.testing.assert_close(counts, torch.ones_like(counts))
    agree(bounds.unlabelled(walk(f, of_those(f, noise, index), K)), bounds.unlabelled(walk(f, noise, 0)))


def test_z_that_does_not_depend_on_y_is_drawn_for_every_class_that_is_kept() -> None:
    f = factors()
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    m2 = rough(Factorisation(p, [f.categorical("y | x"), f.normal("z | x")]))
    noise = every_class(m2)
    for analytic in ((), m2.analytic):
        index, _ = decided(m2, noise, K)
        agree(
            bounds.unlabelled(walk(m2, of_those(m2, noise, index), K, analytic)),
            bounds.unlabelled(walk(m2, noise, 0, analytic)),
        )


def test_a_class_is_drawn_in_proportion_to_its_probability_and_no_weight_is_beyond_measure() -> None:
    log_q = torch.tensor([0.9, 0.08, 0.02, 0.0]).log().view(1, 4, 1)
    noise = torch.randn(200_000, 4, 1, generator=torch.Generator().manual_seed(0))
    index, counts = likeliest_and_one(log_q, noise, 2)
    assert (index[:, 0] == 0).all() and (counts[:, 0] == 1).all()
    shares = torch.tensor([0.08, 0.02, LEAST]) / (0.1 + LEAST)
    drawn = torch.stack([(index[:, 1] == k).double().mean() for k in (1, 2, 3)])
    torch.testing.assert_close(drawn, shares.double(), atol=0.003, rtol=0)
    for k, share in zip((1, 2, 3), shares):
        torch.testing.assert_close(counts[:, 1][index[:, 1] == k].unique(), 1 / share.view(1), rtol=1e-4, atol=0)
    sure = likeliest_and_one(torch.tensor([1.0, 0.0, 0.0, 0.0]).log().view(1, 4, 1), noise, 2)[1]
    assert sure.isfinite().all() and sure.max() < 3.01


def test_rows_and_draws_decide_for_themselves() -> None:
    noise = randn(5, DRAWS, K, B)
    log_q = randn(6, 1, K, B).log_softmax(1)
    index, counts = likeliest_and_one(log_q, noise, 2)
    alone, counts_alone = likeliest_and_one(log_q[..., 1:2], noise[1:, :, 1:2], 2)
    assert index.shape == (DRAWS, 2, B) and len(index.unique(dim=0)) > 1
    assert torch.equal(index[1:, :, 1:2], alone) and torch.equal(counts[1:, :, 1:2], counts_alone)
    assert D != K  # or a mistake of dimensions could go unseen

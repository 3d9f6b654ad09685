"""The notation, what a factorisation refuses, and what it derives from the order of its lists."""

import pytest
import torch

from ssl_dgm.probability.distributions import Bernoulli, Categorical, Gaussian
from ssl_dgm.probability.factors import Factor, Factorisation, Factors
from ssl_dgm.probability.networks import Architecture

DIMS = {"x": 6, "y": 3, "z": 2, "z1": 4, "z2": 2, "a": 5}


@pytest.fixture
def f() -> Factors:
    return Factors(DIMS, Architecture((7,)))


def m1(f: Factors) -> Factorisation:
    return Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")])


def m2(f: Factors) -> Factorisation:
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    return Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")])


def adgm(f: Factors) -> Factorisation:
    """An auxiliary latent a is drawn before y, z after it."""
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z"), f.normal("a | x y z")]
    return Factorisation(p, [f.normal("a | x"), f.categorical("y | a x"), f.normal("z | a x y")])


# --- Notation


@pytest.mark.parametrize("notation", ["z | x y", "z|x y", "  z |  x   y "])
def test_notation_names_the_variable_and_its_parents_in_order(f: Factors, notation: str) -> None:
    factor = f.normal(notation)
    assert (factor.name, factor.parents) == ("z", ("x", "y"))
    assert factor.label("q") == "q(z | x, y)"


def test_notation_without_a_bar_has_no_parents(f: Factors) -> None:
    assert f.prior("y").label("p") == "p(y)" and f.standard("z").label("p") == "p(z)"
    assert f.prior("y").parents == f.standard("z").parents == ()


def test_a_factor_of_each_kind_gives_its_distribution_of_the_size_of_its_variable(f: Factors) -> None:
    values = {name: torch.zeros(8, dim) for name, dim in DIMS.items()}
    gaussian, bernoulli = f.normal("z | x")(values), f.likelihood("x | z")(values)
    categorical = f.categorical("y | x")(values)
    assert isinstance(gaussian, Gaussian) and gaussian.mean.shape == gaussian.log_var.shape == (8, 2)
    assert isinstance(bernoulli, Bernoulli) and bernoulli.logits.shape == (8, 6)
    assert isinstance(categorical, Categorical) and categorical.log_probs.shape == (8, 3)
    torch.testing.assert_close(categorical.log_probs.exp().sum(-1), torch.ones(8))


def test_the_likelihood_is_what_the_data_ask_for() -> None:
    values = {"z": torch.zeros(8, 2)}
    assert isinstance(Factors(DIMS, Architecture(), "gaussian").likelihood("x | z")(values), Gaussian)
    for trials in (1, 16):
        density = Factors(DIMS, Architecture(), "bernoulli", trials).likelihood("x | z")(values)
        assert isinstance(density, Bernoulli)
        assert density.trials == trials


def test_the_priors_are_standard_normal_and_uniform(f: Factors) -> None:
    normal, uniform = f.standard("z")({}), f.prior("y")({})
    assert isinstance(normal, Gaussian) and isinstance(uniform, Categorical)
    z, standard = torch.randn(8, 2), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(normal.log_prob(z), standard.log_prob(z).sum(-1))
    torch.testing.assert_close(uniform.log_prob(torch.eye(3)).exp(), torch.full((3,), 1 / 3))


# --- What a factorisation refuses


def test_q_may_not_need_what_is_drawn_later(f: Factors) -> None:
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    with pytest.raises(ValueError, match=r"q\(z \| x, y\) needs \['y'\] before it is drawn"):
        Factorisation(p, [f.normal("z | x y"), f.categorical("y | x")])


def test_q_may_not_need_what_is_drawn_later_anywhere_in_the_list(f: Factors) -> None:
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z"), f.normal("a | x y z")]
    with pytest.raises(ValueError, match=r"q\(z \| a, y\) needs \['y'\] before it is drawn"):
        Factorisation(p, [f.normal("a | x"), f.normal("z | a y"), f.categorical("y | x")])


def test_q_may_not_need_what_it_draws(f: Factors) -> None:
    with pytest.raises(ValueError, match="before it is drawn"):
        Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x z")])


@pytest.mark.parametrize("missing", ["z in q", "a in p", "x in p"])
def test_p_and_q_must_cover_the_same_variables(f: Factors, missing: str) -> None:
    p: list[Factor] = [f.standard("z"), f.likelihood("x | z")]
    q: list[Factor] = [f.normal("z | x")]
    if missing == "z in q":
        q = []
    elif missing == "a in p":
        q.append(f.normal("a | x"))
    else:
        p = [f.standard("z")]
    with pytest.raises(ValueError, match=r"p draws .* but q and x give"):
        Factorisation(p, q)


# --- What it derives from the order


def test_latents_drawn_before_y_are_shared_by_the_classes(f: Factors) -> None:
    assert adgm(f).noise_shapes(9, draws=4, enumerate_y=True) == {"a": (4, 1, 9, 5), "z": (4, 3, 9, 2)}
    assert adgm(f).noise_shapes(9, draws=4) == {"a": (4, 1, 9, 5), "z": (4, 1, 9, 2)}
    assert m2(f).noise_shapes(9, enumerate_y=True) == {"z": (1, 3, 9, 2)}
    assert m1(f).noise_shapes(9, enumerate_y=True) == {"z": (1, 1, 9, 2)}


def test_num_classes_is_the_size_of_y_or_one_without_it(f: Factors) -> None:
    assert (m1(f).num_classes, m2(f).num_classes, adgm(f).num_classes) == (1, 3, 3)


def test_a_divergence_is_analytic_only_if_p_s_parents_come_first(f: Factors) -> None:
    assert m1(f).analytic == m2(f).analytic == ("z",)
    assert adgm(f).analytic == ("z",)  # p(a | x, y, z) waits for y and z, which q draws after a
    p = [f.prior("y"), f.normal("z | y"), f.likelihood("x | z")]
    assert Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")]).analytic == ("z",)
    assert Factorisation(p, [f.normal("z | x"), f.categorical("y | x z")]).analytic == ()
    p = [f.standard("z2"), f.normal("z1 | z2"), f.likelihood("x | z1")]
    assert Factorisation(p, [f.normal("z2 | x"), f.normal("z1 | x z2")]).analytic == ("z2", "z1")
    assert Factorisation(p, [f.normal("z1 | x"), f.normal("z2 | z1")]).analytic == ("z2",)


def test_a_factorisation_prints_as_it_is_written(f: Factors) -> None:
    assert str(m1(f)) == "p(x, z) = p(z) p(x | z)        q(z | x) = q(z | x)"
    assert str(m2(f)) == "p(x, y, z) = p(y) p(z) p(x | y, z)        q(y, z | x) = q(y | x) q(z | x, y)"
    p = [f.prior("y"), f.standard("z2"), f.normal("z1 | y z2")]
    stacked = Factorisation(p, [f.categorical("y | z1"), f.normal("z2 | z1 y")], observed="z1")
    assert str(stacked) == ("p(z1, y, z2) = p(y) p(z2) p(z1 | y, z2)        q(y, z2 | z1) = q(y | z1) q(z2 | z1, y)")

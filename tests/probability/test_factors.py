"""The notation, what a factorisation refuses, and what it derives from the order of its lists."""

import pytest
import torch

from ssl_dgm.probability.distributions import Bernoulli, Categorical, Gaussian, Levels, Squared
from ssl_dgm.probability.factors import Factor, Factorisation
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.norms import BatchNorm, GroupNorm
from ssl_dgm.probability.notation import Factors

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


LIKELIHOODS = {"auto": Bernoulli, "gaussian": Gaussian, "categorical": Levels, "mse": Squared}


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_likelihood_is_what_is_asked_for(name: str, kind: str) -> None:
    images = {} if kind == "mlp" else {"x": (1, 2, 2)}
    architecture = Architecture((7,), kind=kind, images=images)
    density = Factors({"x": 4, "z": 2}, architecture, name).likelihood("x | z")({"z": torch.randn(3, 8, 2)})
    assert isinstance(density, LIKELIHOODS[name])
    assert density.mean.shape == (3, 8, 4)
    assert density.log_prob(torch.rand(8, 4)).shape == (3, 8)


def test_pixels_have_the_trials_and_the_scale_that_they_were_given() -> None:
    for trials in (1, 16):
        density = Factors(DIMS, Architecture(), "auto", trials).likelihood("x | z")({"z": torch.zeros(8, 2)})
        assert isinstance(density, Bernoulli) and density.trials == trials
    for scale, expected in ((0.7, 0.7), (None, 1 / DIMS["x"])):
        density = Factors(DIMS, Architecture(), "mse", mse_scale=scale).likelihood("x | z")({"z": torch.zeros(8, 2)})
        assert isinstance(density, Squared) and density.scale == expected


# --- Which networks are normalised, and how


def norms_of(factor: Factor) -> set[str]:
    kinds = {BatchNorm: "batch", GroupNorm: "group"}
    return {kinds[type(module)] for module in factor.modules() if type(module) in kinds}


def test_batch_norm_stands_where_no_parent_depends_on_the_class() -> None:
    f = Factors(DIMS, Architecture((7,), norm="batch"))
    assert norms_of(f.categorical("y | a x")) == norms_of(f.normal("a | x")) == {"batch"}
    assert (
        norms_of(f.normal("z | x y")) == norms_of(f.likelihood("x | z")) == norms_of(f.normal("a | x y z")) == {"group"}
    )
    assert norms_of(f.likelihood("x | z", norm="batch")) == {"batch"}
    for kind in ("none", "group"):
        of_kind = Factors(DIMS, Architecture((7,), norm=kind))
        for factor in (of_kind.normal("a | x"), of_kind.likelihood("x | z", norm="batch")):
            assert norms_of(factor) == {kind} - {"none"}


def test_a_trunk_sees_rows_alone_and_has_batch_norm_beside_a_class() -> None:
    f = Factors({"x": 144, "y": 3, "z": 2}, Architecture((7,), norm="batch", kind="conv", images={"x": (1, 12, 12)}))
    assert norms_of(f.normal("z | x y")) == {"batch", "group"}
    assert norms_of(f.categorical("y | x")) == {"batch"}
    assert norms_of(f.likelihood("x | y z")) == set()


def test_figueroa_normalises_convolutions_only() -> None:
    f = Factors(
        {"x": 144, "y": 3, "z": 2, "h": 5},
        Architecture((7,), norm="batch", kind="figueroa", images={"x": (1, 12, 12)}),
    )
    assert norms_of(f.categorical("y | h")) == norms_of(f.normal("z | h y")) == set()
    assert norms_of(f.likelihood("x | z", norm="batch")) == {"batch"}


def test_batch_norm_over_classes_is_refused(f: Factors) -> None:
    with pytest.raises(ValueError, match=r"norm='batch' of 'x \| y z' would take the classes of y for rows"):
        f.likelihood("x | y z", norm="batch")


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

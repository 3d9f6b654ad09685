"""The bounds are Pyro's on the same weights and the same noise, gradients included."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor

from ssl_dgm.probability import bounds
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.notation import Factors

K, B, D, L = 3, 6, 5, 2


class Replayed(dist.Normal):
    """A normal whose draw is made of given noise."""

    def __init__(self, mean: Tensor, log_var: Tensor, noise: Tensor) -> None:
        super().__init__(mean, (0.5 * log_var).exp(), validate_args=False)
        self.log_var, self.noise = log_var, noise

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Replayed":
        return Replayed(self.mean.expand(batch_shape), self.log_var.expand(batch_shape), self.noise)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + self.scale * self.noise


class InPyro:
    """p and q of a factorisation of x, z and perhaps y and an auxiliary a, written out as Pyro programs."""

    def __init__(self, f: Factorisation, x: Tensor, noise: dict[str, Tensor], y: Tensor | None = None) -> None:
        self.f, self.x, self.noise, self.y = f, x, noise, y

    def head(self, side: str, name: str, **parents: Tensor) -> dict[str, Tensor]:
        return getattr(self.f, side)[name].network({**parents, "x": self.x} if side == "q" or name == "a" else parents)

    def model(self) -> None:
        with pyro.plate("rows", B):
            given = {}
            if "y" in self.f.p:
                given["y"] = pyro.sample("y", dist.OneHotCategorical(torch.ones(K) / K), obs=self.y)
            given["z"] = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            logits = self.head("p", "x", **given)["logits"]
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=self.x)
            if "a" in self.f.p:
                a = self.head("p", "a", **given)
                pyro.sample("a", dist.Normal(a["mean"], (0.5 * a["log_var"]).exp()).to_event(1))

    def guide(self) -> None:
        with pyro.plate("rows", B):
            given = {}
            if "a" in self.f.q:
                noise = self.noise["a"][0, 0]
                given["a"] = pyro.sample("a", Replayed(**self.head("q", "a"), noise=noise).to_event(1))
            if "y" in self.f.q and self.y is None:
                q_y = dist.OneHotCategorical(logits=self.head("q", "y", **given)["logits"])
                given["y"] = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            elif self.y is not None:
                given["y"] = self.y
            noise = self.noise["z"][0] if "y" in given and self.y is None else self.noise["z"][0, 0]
            pyro.sample("z", Replayed(**self.head("q", "z", **given), noise=noise).to_event(1))


def make(*, classes: bool, auxiliary: bool = False) -> Factorisation:
    torch.manual_seed(0)
    f = Factors({"x": D, "y": K, "z": L, "a": 2}, Architecture((7,), "tanh"))
    if not classes:
        model = Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")])
    elif not auxiliary:
        p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
        model = Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")])
    else:
        p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z"), f.normal("a | x y z")]
        model = Factorisation(p, [f.normal("a | x"), f.categorical("y | a x"), f.normal("z | a x y")])
    for parameter in model.parameters():
        parameter.data = 0.7 * torch.randn_like(parameter)
    return model


def case(f: Factorisation, enumerate_y: bool) -> tuple[Tensor, dict[str, Tensor]]:
    shapes = f.noise_shapes(B, enumerate_y=enumerate_y)
    return (torch.rand(B, D) < 0.5).float(), {name: torch.randn(shape) for name, shape in shapes.items()}


def assert_same(f: Factorisation, ours: Tensor, loss: Tensor, unused: tuple[str, ...] = ()) -> None:
    """Values, and gradients of every parameter."""
    torch.testing.assert_close(ours.sum(), -loss, atol=1e-4, rtol=1e-5)
    parameters = [p for name, p in f.named_parameters() if not name.startswith(unused or "-")]
    expected = torch.autograd.grad(-loss, parameters)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), parameters), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_the_unlabelled_bound_is_pyro_s_enumerated_one(auxiliary: bool) -> None:
    f = make(classes=True, auxiliary=auxiliary)
    x, noise = case(f, enumerate_y=True)
    programs = InPyro(f, x, noise)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(programs.model, programs.guide)
    assert_same(f, bounds.unlabelled(bounds.trace(f, x, bounds.classes(f, x), noise)), loss)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_the_labelled_bound_is_pyro_s_with_y_observed(auxiliary: bool) -> None:
    f = make(classes=True, auxiliary=auxiliary)
    x, noise = case(f, enumerate_y=False)
    y = torch.eye(K)[torch.arange(B) % K]
    programs = InPyro(f, x, noise, y)
    loss = Trace_ELBO(max_plate_nesting=1).differentiable_loss(programs.model, programs.guide)
    assert_same(f, bounds.labelled(bounds.trace(f, x, y, noise)), loss, unused=("q.y",))


@pytest.mark.parametrize("analytic", [False, True])
def test_the_bound_without_classes_is_pyro_s(analytic: bool) -> None:
    f = make(classes=False)
    x, noise = case(f, enumerate_y=False)
    programs = InPyro(f, x, noise)
    elbo = (TraceMeanField_ELBO if analytic else Trace_ELBO)(max_plate_nesting=1)
    loss = elbo.differentiable_loss(programs.model, programs.guide)
    assert_same(f, bounds.labelled(bounds.trace(f, x, None, noise, f.analytic if analytic else ())), loss)

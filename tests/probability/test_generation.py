"""Ancestral sampling, written out."""

import pytest
import torch
from torch import Tensor

from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.generation import generate
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.notation import Factors

K, B, M = 3, 5, 2
DIMS = {"x": 6, "y": K, "z": 2, "a": 4}


@pytest.fixture
def f() -> Factors:
    torch.manual_seed(0)
    return Factors(DIMS, Architecture((7,), "tanh"))


def noise(*names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(M, 1, B, DIMS[name], generator=generator) for name in names}


def head(factor: torch.nn.Module, name: str, **parents: Tensor) -> Tensor:
    """W tanh(sum_p W_p value_p + b) + c of plain matrices."""
    inputs, out = factor.network.inputs, factor.network.heads[name]
    bias = next(layer.bias for layer in inputs.values() if layer.bias is not None)
    return torch.tanh(sum(v @ inputs[p].weight.T for p, v in parents.items()) + bias) @ out.weight.T + out.bias


def test_without_classes_x_is_the_mean_given_the_latent(f: Factors) -> None:
    model = Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")])
    eps = noise("z")
    x = generate(model, None, eps)
    assert x.shape == (M, 1, B, 6)
    torch.testing.assert_close(x, torch.sigmoid(head(model.p["x"], "logits", z=eps["z"])))


def test_latents_are_drawn_from_their_conditionals_in_the_order_of_p(f: Factors) -> None:
    p = [f.prior("y"), f.normal("z | y"), f.normal("a | y z"), f.likelihood("x | a z")]
    model = Factorisation(p, [f.categorical("y | x"), f.normal("a | x y"), f.normal("z | x y a")])
    eps, classes = noise("z", "a"), torch.eye(K)
    x = generate(model, classes.unsqueeze(1), eps)
    assert x.shape == (M, K, B, 6)
    for m in range(M):
        for k, y in enumerate(classes):
            z = head(p[1], "mean", y=y) + (0.5 * head(p[1], "log_var", y=y)).exp() * eps["z"][m, 0]
            a = head(p[2], "mean", y=y, z=z) + (0.5 * head(p[2], "log_var", y=y, z=z)).exp() * eps["a"][m, 0]
            torch.testing.assert_close(x[m, k], torch.sigmoid(head(p[3], "logits", a=a, z=z)))


def test_given_classes_are_those_of_their_rows(f: Factors) -> None:
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    model = Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")])
    eps, labels = noise("z"), [2, 0, 1, 1, 2]
    of_all = generate(model, torch.eye(K).unsqueeze(1), eps)
    of_rows = generate(model, torch.eye(K)[labels], eps)
    torch.testing.assert_close(of_rows[:, 0], of_all[:, labels, range(B)])


def test_a_gaussian_x_is_its_mean() -> None:
    f = Factors(DIMS, Architecture((7,), "tanh"), "gaussian")
    model = Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")])
    eps = noise("z")
    torch.testing.assert_close(generate(model, None, eps), head(model.p["x"], "mean", z=eps["z"]))

"""Stacked replicas are independent replicas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssl_dgm.probability import bounds
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.notation import Factors
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.probability.replicas import clip_per_seed, one_seed, over_seeds, stack

SEEDS = (4, 0, 7)
K, B, D = 3, 5, 6
modes = pytest.mark.parametrize("mode", ["vmap", "loop"])


class Loss(nn.Module):
    """-U(x) - L(x, y) - log q(y | x), or without classes the negative bound, of one replica."""

    def __init__(self, f: Factorisation) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor, labels: Tensor, noise: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        if "y" not in self.f.q:
            return {"loss": -bounds.labelled(bounds.trace(self.f, x, None, noise["unlabelled"])).mean()}
        u = bounds.trace(self.f, x, bounds.classes(self.f, x), noise["unlabelled"])
        l = bounds.trace(self.f, x, labels, noise["labelled"])
        classification = bounds.classification(l).mean()
        bound = bounds.unlabelled(u).mean() + bounds.labelled(l).mean()
        return {"loss": -bound - classification, "classification": classification}


def m1() -> nn.Module:
    f = Factors({"x": D, "z": 2}, Architecture((7, 4)))
    return Loss(Factorisation([f.standard("z"), f.likelihood("x | z")], [f.normal("z | x")]))


def m2() -> nn.Module:
    f = Factors({"x": D, "y": K, "z": 2}, Architecture((7, 4)))
    p = [f.prior("y"), f.standard("z"), f.likelihood("x | y z")]
    return Loss(Factorisation(p, [f.categorical("y | x"), f.normal("z | x y")]))


builds = pytest.mark.parametrize("build", [m1, m2])
Build = Callable[[], nn.Module]


def arguments(f: Factorisation) -> tuple[Tensor, Tensor, dict[str, dict[str, Tensor]]]:
    """Other rows, labels and noise for every seed."""
    streams = Streams(SEEDS, "noise")
    x = (streams.normal((B, D)) > 0).float()
    y = torch.eye(K)[streams.bytes_below(K, (B,)).long()]
    shapes = {"unlabelled": f.noise_shapes(B, 2, enumerate_y=True), "labelled": f.noise_shapes(B, 2)}
    noise = {group: {name: streams.normal(s) for name, s in named.items()} for group, named in shapes.items()}
    return x, y, noise


def losses(stacked: nn.Module, mode: str, *args: object) -> dict[str, Tensor]:
    def one(parameters: dict[str, Tensor], *one_args: object) -> dict[str, Tensor]:
        return functional_call(stacked, parameters, one_args)

    return over_seeds(one, dict(stacked.named_parameters()), *args, mode=mode)


def gradients(stacked: nn.Module, mode: str, *args: object) -> dict[str, Tensor]:
    stacked.zero_grad()
    losses(stacked, mode, *args)["loss"].sum().backward()
    return {name: p.grad.clone() for name, p in stacked.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- stack


@builds
def test_a_seed_starts_the_same_alone_and_in_any_group(build: Build) -> None:
    group = stack(build, SEEDS).state_dict()
    turned = stack(build, SEEDS[::-1]).state_dict()
    for s, seed in enumerate(SEEDS):
        own = one_seed(group, s)
        assert same(own, one_seed(stack(build, [seed]).state_dict(), 0))
        assert same(own, one_seed(turned, len(SEEDS) - 1 - s))


@builds
def test_seeds_start_differently(build: Build) -> None:
    for parameter in stack(build, SEEDS).parameters():
        assert len(parameter.detach().unique(dim=0)) == len(SEEDS)


@builds
def test_stacking_keeps_names_and_puts_the_seeds_in_front(build: Build) -> None:
    plain, stacked = build().state_dict(), stack(build, SEEDS)
    assert {n: p.shape for n, p in stacked.named_parameters()} == {n: (3, *p.shape) for n, p in plain.items()}
    assert all(p.requires_grad and p.is_leaf for p in stacked.parameters())


def test_a_frozen_parameter_stays_frozen() -> None:
    def build() -> nn.Module:
        layer = nn.Linear(2, 3)
        layer.bias.requires_grad_(False)
        return layer

    stacked = stack(build, SEEDS)
    assert stacked.weight.requires_grad and not stacked.bias.requires_grad


def test_stacking_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = stack(m1, SEEDS).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(one, stack(m1, SEEDS).state_dict())


@builds
def test_the_slice_of_a_seed_is_a_module_of_its_own(build: Build) -> None:
    stacked, single = stack(build, SEEDS), build()
    x, y, noise = arguments(stacked.f)
    together = losses(stacked, "loop", x, y, noise)["loss"]
    for s in range(len(SEEDS)):
        state = one_seed(stacked.state_dict(), s)
        single.load_state_dict(state)
        own = {group: {name: n[s] for name, n in named.items()} for group, named in noise.items()}
        assert torch.equal(single(x[s], y[s], own)["loss"], together[s])
        next(iter(state.values())).fill_(0)  # a copy: the stack must not feel it
    assert torch.equal(losses(stacked, "loop", x, y, noise)["loss"], together)


# --- over_seeds


@builds
def test_vmap_is_the_loop_gradients_included(build: Build) -> None:
    stacked = stack(build, SEEDS)
    args = arguments(stacked.f)
    batched, looped = losses(stacked, "vmap", *args), losses(stacked, "loop", *args)
    assert batched.keys() == looped.keys()
    assert all(value.shape == (3,) and value.unique().numel() == 3 for value in looped.values())
    torch.testing.assert_close(batched, looped, rtol=2e-6, atol=0)
    batched, looped = gradients(stacked, "vmap", *args), gradients(stacked, "loop", *args)
    for name, expected in looped.items():
        assert (batched[name] - expected).norm() <= 2e-6 * expected.norm()


@modes
def test_results_keep_their_structure_with_the_seeds_in_front(mode: str) -> None:
    weights, nested = {"w": torch.arange(3.0)}, {"a": {"b": torch.ones(3, 2)}, "c": torch.arange(6.0).view(3, 2)}

    def one(p: dict[str, Tensor], x: dict, shift: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return p["w"] * x["c"], {"sum": x["a"]["b"].sum() + shift}

    product, named = over_seeds(one, weights, nested, torch.tensor([0.0, 10.0, 20.0]), mode=mode)
    assert torch.equal(product, torch.tensor([[0.0, 0.0], [2.0, 3.0], [8.0, 10.0]]))
    assert torch.equal(named["sum"], torch.tensor([2.0, 12.0, 22.0]))


@modes
@builds
def test_a_seed_that_turns_nan_leaves_the_others_gradients_bit_equal(build: Build, mode: str) -> None:
    stacked = stack(build, SEEDS)
    args = arguments(stacked.f)
    healthy = gradients(stacked, mode, *args)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter[1] = torch.nan
    ill = gradients(stacked, mode, *args)
    assert all(torch.equal(ill[name][[0, 2]], gradient[[0, 2]]) for name, gradient in healthy.items())
    assert any(gradient[1].isnan().any() for gradient in ill.values())


# --- clip_per_seed


def with_gradients(norms: list[float]) -> list[nn.Parameter]:
    """Two tensors whose gradients have a given joint norm for every seed, and one without a gradient."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(len(norms), *shape)) for shape in ((4, 3), (4,))]
    grads = [torch.randn_like(p) for p in parameters]
    lengths = torch.cat([g.reshape(len(norms), -1) for g in grads], 1).norm(dim=1)
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g * (torch.tensor(norms) / lengths).view(-1, *[1] * (g.dim() - 1))
    return [*parameters, nn.Parameter(torch.zeros(len(norms), 2))]


def joined(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.reshape(len(p), -1) for p in parameters[:-1]], 1)


def test_clipping_shortens_each_seed_s_own_gradient_and_keeps_its_direction() -> None:
    parameters = with_gradients([0.5, 2.0, 50.0])
    before = joined(parameters)
    clip_per_seed(parameters, 2.5)
    after = joined(parameters)
    torch.testing.assert_close(after.norm(dim=1), torch.tensor([0.5, 2.0, 2.5]))
    torch.testing.assert_close(after, before * (after.norm(dim=1) / before.norm(dim=1))[:, None])
    assert torch.equal(after[:2], before[:2]) and parameters[-1].grad is None


def test_clipping_a_seed_that_is_nan_leaves_the_others_as_they_would_be() -> None:
    healthy, ill = with_gradients([0.5, 2.0, 50.0]), with_gradients([0.5, 2.0, 50.0])
    ill[1].grad[1] = torch.nan
    clip_per_seed(healthy, 1.0)
    clip_per_seed(ill, 1.0)
    assert torch.equal(joined(ill)[[0, 2]], joined(healthy)[[0, 2]])


def test_clipping_counts_parameters_of_a_single_number() -> None:
    scalar, vector = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 1))
    scalar.grad, vector.grad = torch.tensor([3.0, 0.3]), torch.tensor([[4.0], [0.4]])
    clip_per_seed([scalar, vector], 1.0)
    torch.testing.assert_close(scalar.grad, torch.tensor([0.6, 0.3]))
    torch.testing.assert_close(vector.grad, torch.tensor([[0.8], [0.4]]))

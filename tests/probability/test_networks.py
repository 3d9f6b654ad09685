"""One Linear per parent is one Linear on all of them, in its values and in how it is initialised."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.networks import Architecture, Network, Shared

PARENTS = {"x": 5, "y": 3, "z": 2}


def make(seed: int = 0, parents: dict[str, int] | None = None, **settings: object) -> Network:
    torch.manual_seed(seed)
    architecture = Architecture(**{"hidden": (7, 6), "activation": "tanh", **settings})  # type: ignore[arg-type]
    return Network(parents or PARENTS, {"mean": 4, "log_var": 4}, architecture)


def values(*lead: int) -> dict[str, Tensor]:
    return {name: torch.randn(*lead, dim) for name, dim in PARENTS.items()}


def on_concatenation(network: Network, given: dict[str, Tensor], activation: nn.Module) -> dict[str, Tensor]:
    """The same weights in a plain multilayer perceptron."""
    weight = torch.cat([network.inputs[p].weight for p in PARENTS], 1)
    (bias,) = (layer.bias for layer in network.inputs.values() if layer.bias is not None)  # only one
    h = activation(F.linear(torch.cat([given[p] for p in PARENTS], -1), weight, bias))
    for layer in network.hidden:
        h = activation(F.linear(h, layer.weight, layer.bias))
    return {name: F.linear(h, head.weight, head.bias) for name, head in network.heads.items()}


@pytest.mark.parametrize(
    ("name", "activation"),
    [("softplus", nn.Softplus()), ("relu", nn.ReLU()), ("tanh", nn.Tanh()), ("leaky_relu", nn.LeakyReLU(0.01))],
)
def test_parents_are_fed_as_if_concatenated(name: str, activation: nn.Module) -> None:
    network, given = make(activation=name), values(9)
    out, expected = network(given), on_concatenation(network, given, activation)
    assert set(out) == {"mean", "log_var"}
    torch.testing.assert_close(out, expected)


# Leading dimensions of x, y and z: y enumerated or given, z drawn once or M = 2 times.
@pytest.mark.parametrize("lead", [[(9,), (3, 1), (3, 9)], [(9,), (9,), (2, 1, 9)], [(9,), (3, 1), (2, 3, 9)]])
def test_parents_meet_by_broadcasting(lead: list[tuple[int, ...]]) -> None:
    network = make()
    given = {name: torch.randn(*shape, dim) for shape, (name, dim) in zip(lead, PARENTS.items(), strict=True)}
    full = torch.broadcast_shapes(*lead)
    repeated = {name: value.expand(*full, -1) for name, value in given.items()}
    torch.testing.assert_close(network(given), on_concatenation(network, repeated, nn.Tanh()))


def test_without_hidden_layers_every_head_is_linear_in_its_parents() -> None:
    torch.manual_seed(0)
    network = Network(PARENTS, {"mean": 4, "log_var": 2}, Architecture((7,)), hidden=())
    given = {"x": torch.randn(9, 5), "y": torch.eye(3)[:, None], "z": torch.randn(2, 3, 9, 2)}
    for name, out in network(given).items():
        layers = network.heads[name]
        expected = sum(F.linear(given[p], layers[p].weight) for p in PARENTS) + layers["x"].bias
        torch.testing.assert_close(out, expected)
    shared = given | {"x": Shared(given["x"], torch.tensor([0, 0, 8])), "y": torch.eye(3), "z": torch.randn(3, 2)}
    repeated = shared | {"x": given["x"][[0, 0, 8]]}
    torch.testing.assert_close(network(shared), network(repeated))


def test_hidden_sizes_can_be_a_network_s_own() -> None:
    network = Network(PARENTS, {"mean": 4}, Architecture((7,)), hidden=(3, 2))
    assert [layer.out_features for layer in (network.inputs["x"], *network.hidden)] == [3, 2]


def test_heads_answer_in_float32_whatever_the_layers_ran_in() -> None:
    out = make().bfloat16()({name: value.bfloat16() for name, value in values(9).items()})
    assert all(head.dtype == torch.float32 for head in out.values())


# --- Initialisation: sizes are large enough for a standard deviation to be read off within 5 %.

WIDE = {"x": 300, "y": 100}


def wide(init: str) -> Network:
    return make(parents=WIDE, hidden=(500, 400), init=init, init_sd=0.003)


def sd(layer: nn.Module) -> float:
    assert isinstance(layer, nn.Linear) and abs(layer.weight.mean()) < 0.05 * layer.weight.std()
    return layer.weight.std().item()


def test_torch_initialisation_is_that_of_a_linear_on_the_concatenation() -> None:
    network, reference = wide("torch"), nn.Linear(sum(WIDE.values()), 500)
    bound = 1 / math.sqrt(400)
    for parameter in (*reference.parameters(), *(p for layer in network.inputs.values() for p in layer.parameters())):
        assert 0.98 * bound < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)  # uniform
    for layer in (*network.hidden, *network.heads.values()):
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.98 * bound < layer.weight.abs().max() <= bound and 0 < layer.bias.abs().max() <= bound
        assert sd(layer) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_fan_in_initialisation_has_variance_one_over_the_total_fan_in() -> None:
    network = wide("fan_in")
    for layer in network.inputs.values():
        assert sd(layer) == pytest.approx(1 / math.sqrt(400), rel=0.05)
    assert sd(network.hidden[0]) == pytest.approx(1 / math.sqrt(500), rel=0.05)
    assert sd(network.heads["mean"]) == pytest.approx(1 / math.sqrt(400), rel=0.05)
    for bias in (network.inputs["x"].bias, network.hidden[0].bias):
        assert bias.std().item() == pytest.approx(0.01, rel=0.15)


def test_fan_in_initialisation_starts_at_unit_variance_everywhere() -> None:
    assert not make(init="fan_in")(values(9))["log_var"].any()
    assert not make(init="fan_in").heads["mean"].bias.any()


def test_normal_initialisation_has_a_fixed_sd() -> None:
    network = wide("normal")
    for layer in (*network.inputs.values(), *network.hidden, network.heads["mean"]):
        assert sd(layer) == pytest.approx(0.003, rel=0.05)
    for bias in (network.inputs["x"].bias, network.hidden[0].bias):
        assert bias.std().item() == pytest.approx(0.003, rel=0.15)


def test_glorot_initialisation_is_normal_in_hidden_layers_and_small_in_heads() -> None:
    network = wide("glorot")
    for layer in network.inputs.values():
        assert sd(layer) == pytest.approx(math.sqrt(2 / (400 + 500)), rel=0.05)
    assert sd(network.hidden[0]) == pytest.approx(math.sqrt(2 / (500 + 400)), rel=0.05)
    assert not network.inputs["x"].bias.any() and not network.hidden[0].bias.any()
    # Normal, not Glorot's uniform, which has no value beyond sqrt(3) s.d.
    assert network.hidden[0].weight.abs().max() > 3 * network.hidden[0].weight.std()
    heads = make(hidden=(7, 300), init="glorot", init_sd=0.003).heads.values()
    for head in heads:
        assert sd(head) == pytest.approx(0.003, rel=0.1)
    assert 0.001 < torch.cat([head.bias for head in heads]).std() < 0.006


def test_xavier_initialisation_is_glorots_in_every_layer() -> None:
    network = wide("xavier")
    for layer in (*network.inputs.values(), network.hidden[0]):
        assert sd(layer) == pytest.approx(math.sqrt(2 / (400 + 500)), rel=0.05)
    for head in network.heads.values():
        assert sd(head) == pytest.approx(math.sqrt(2 / (400 + head.out_features)), rel=0.05)
        assert not head.bias.any()
    components = make(parents={"y": 2000}, hidden=(), init="xavier").heads
    for head in components.values():
        assert sd(head["y"]) == pytest.approx(math.sqrt(2 / (2000 + 4)), rel=0.05)


def test_the_initialisation_of_maaloe_lets_relus_keep_the_scale_and_gaussians_start_as_one() -> None:
    network = wide("maaloe")
    for parent, dim in WIDE.items():  # each has a fan-in of its own
        assert sd(network.inputs[parent]) == pytest.approx(math.sqrt(4 / (dim + 500)), rel=0.05)
    assert sd(network.hidden[0]) == pytest.approx(math.sqrt(4 / (500 + 400)), rel=0.05)
    for head in network.heads.values():
        assert sd(head) == pytest.approx(0.003, rel=0.05)
    logits = Network(WIDE, {"logits": 200}, Architecture((300,), init="maaloe", init_sd=0.003)).heads["logits"]
    assert sd(logits) == pytest.approx(math.sqrt(2 / (300 + 200)), rel=0.05)
    assert logits.bias.std().item() == pytest.approx(0.003, rel=0.2)


def test_the_initialisation_of_willetts_tells_the_components_of_a_mixture_apart() -> None:
    components = {
        init: make(parents={"y": 2000}, hidden=(), init=init, init_sd=0.003).heads for init in ("glorot", "willetts")
    }
    for init, heads in components.items():
        assert sd(heads["mean"]["y"]) == pytest.approx(0.003, rel=0.05)
        expected = {"glorot": 0.003, "willetts": math.sqrt(2 / (2000 + 4))}[init]
        assert sd(heads["log_var"]["y"]) == pytest.approx(expected, rel=0.05)
    # Heads on hidden layers are small in both.
    assert sd(wide("willetts").heads["log_var"]) == pytest.approx(0.003, rel=0.05)
    assert sd(wide("willetts").hidden[0]) == pytest.approx(math.sqrt(2 / (500 + 400)), rel=0.05)

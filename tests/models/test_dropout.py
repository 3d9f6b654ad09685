"""Dropout of hidden units: which it leaves out, of whom, and that nothing but an update sees it."""

import math
from typing import Any

import pytest
import torch
from zoo import SEEDS, K, every_mode, every_model, every_summed_model, losses_of, make, make_batch, make_noise

from ssl_dgm.config import NetworkConfig
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Features, NetworkFactor, SplitNormalFactor, dropout_of

SHARE = 0.4
ALL = 9.0  # noise that leaves nothing out


def dropping(name: str, mode: str = "loop", share: float = SHARE, **more: Any) -> DeepGenerativeModel:
    return make(name, mode=mode, network=NetworkConfig(hidden=[8], dropout=share, **more))


def names(noise: dict[str, Any]) -> set[str]:
    return {name for name in noise if name.startswith("dropout of ")}


@every_model
def test_every_network_of_q_with_hidden_units_has_noise_for_them_and_no_other(name: str) -> None:
    model = dropping(name)
    noise = make_noise(model, make_batch(model))
    of_q = {n: f.network for n, f in model.factorisation.q.items() if isinstance(f, NetworkFactor | Features)}
    expected = {dropout_of(n): sum(net.sizes) for n, net in of_q.items() if net.sizes}
    assert expected
    for group, rows in (("unlabelled", 5), ("labelled", 4)):
        if group in noise:
            num = rows + 4 if model.factorisation.relaxed else rows
            shapes = {n: noise[group][n].shape for n in names(noise[group])}
            assert shapes == {n: (len(SEEDS), 1, 1, num, units) for n, units in expected.items()}


@every_summed_model  # of the others, those with features, the features are the hidden layer itself
@every_mode
def test_what_is_left_out_is_told_by_the_noise_and_what_is_kept_counts_more(name: str, mode: str) -> None:
    """All rows losing the same units are a network whose heads do not read them, and read the others magnified."""
    model, plain = dropping(name, mode), make(name, mode=mode)
    plain.load_state_dict(model.state_dict())
    batch = make_batch(model)
    noise = make_noise(model, batch)
    pattern = torch.tensor([1.0, -1.0, ALL, -ALL, 2.0, 0.0, -0.5, 0.3])
    kept = torch.special.ndtr(pattern) >= SHARE
    assert kept.tolist() == [True, False, True, False, True, True, False, True]
    for group in noise.values():
        for n in names(group):
            group[n] = pattern.repeat(math.ceil(group[n].shape[-1] / 8))[: group[n].shape[-1]].expand(group[n].shape)
    for factor in plain.factorisation.q.values():
        if isinstance(factor, NetworkFactor):
            for head in factor.network.heads.values():  # type: ignore[operator]
                head.weight.data *= kept / (1 - SHARE)
    without = {group: {n: drawn for n, drawn in of.items() if n not in names(of)} for group, of in noise.items()}
    expected, losses = losses_of(plain, batch, without), losses_of(model, batch, noise)
    for term, value in expected.items():
        torch.testing.assert_close(losses[term], value, rtol=1e-4, atol=1e-4)


def test_a_feature_that_is_left_out_is_0() -> None:
    model = dropping("gmvae")
    x, f = torch.randn(5, model.x_dim), model.build().q["h"]
    assert isinstance(f, Features)
    noise = torch.full((5, f.network.dropped_units), ALL)
    noise[:, -1] = -ALL  # of the last hidden layer, h itself
    h, plain = f({"x": x, dropout_of("h"): noise}), f({"x": x})
    assert not h[:, -1].any() and plain[:, -1].any()
    everything = f({"x": x, dropout_of("h"): torch.full_like(noise, ALL)})
    assert everything[:, -1].any() and not torch.equal(everything, plain)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_every_row_and_layer_loses_units_of_its_own_and_the_others_count_more(share: float) -> None:
    torch.manual_seed(0)
    f = make("m2", network=NetworkConfig(hidden=[8, 7], dropout=share)).build()
    q = f.q["z"]
    assert isinstance(q, NetworkFactor) and f.dropout_shapes(5)["dropout of z"] == (1, 1, 5, 15)
    noise, x, y = torch.randn(5, 15), torch.randn(5, 6), torch.eye(K)[:, None]
    kept = torch.special.ndtr(noise) >= share
    first, second = kept.split([8, 7], -1)
    assert len({tuple(row) for row in kept.tolist()}) > 1
    network = q.network
    h = network.activation(network.inputs({"x": x, "y": y})) * first / (1 - share)  # type: ignore[misc]
    h = network.activation(network.hidden[0](h)) * second / (1 - share)
    values = {"x": x, "y": y, "dropout of z": noise}
    torch.testing.assert_close(network.features(values), h)
    torch.testing.assert_close(q(values).mean, network.heads["mean"](h))  # type: ignore[index]
    many = network.features(values | {"x": x[:1], "dropout of z": torch.randn(40_000, 15)})
    assert many.shape == (K, 40_000, 7) and (many == 0).float().mean().item() == pytest.approx(share, abs=0.01)


def test_a_mean_and_a_log_variance_of_networks_of_their_own_lose_the_same_units() -> None:
    q = make("m2", network=NetworkConfig(hidden=[8], dropout=SHARE), model_settings={"q_log_var": "x"}).build().q["z"]
    assert isinstance(q, SplitNormalFactor)
    x, y, noise = torch.randn(5, 6), torch.eye(K)[torch.arange(5) % K], torch.randn(5, 8)
    kept = torch.special.ndtr(noise) >= SHARE
    for network in (q.network, q.log_var):
        assert torch.equal(network.features({"x": x, "y": y, "dropout of z": noise}) != 0, kept)


def test_q_of_y_may_have_another_share() -> None:
    model = dropping("m2", dropout_y=0.0)
    assert names(make_noise(model, make_batch(model))["labelled"]) == {"dropout of z"}
    model = dropping("m2", share=0.0, dropout_y=0.7)
    assert names(make_noise(model, make_batch(model))["labelled"]) == {"dropout of y"}
    q_y = model.build().q["y"]
    assert isinstance(q_y, NetworkFactor) and q_y.network.dropout == 0.7


@every_model
def test_what_is_predicted_and_scored_has_all_units(name: str) -> None:
    model, plain = dropping(name), make(name)
    plain.load_state_dict(model.state_dict())
    x, f = make_batch(model).x_unlabelled, model.factorisation
    noise = model.noise(model.noise_streams, x=f.noise_shapes(5, 3, enumerate_y=True))["x"]
    scores = ["bound", *(["log_q_y", "class_log_joint"] if model.has_classes else [])]
    for score in scores:
        torch.testing.assert_close(
            model.per_seed(getattr(model, score), x, noise), plain.per_seed(getattr(plain, score), x, noise)
        )

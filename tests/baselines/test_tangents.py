"""Contractive layers and tangents against explicit Jacobians, and what tangent propagation is for."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ssl_dgm.baselines.contractive import ContractiveAutoEncoder, ContractiveLayer, SigmoidNetwork
from ssl_dgm.baselines.tangents import ManifoldTangentClassifier, change_along, leading_directions

PIXELS = 24


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoder(*sizes: int) -> list[ContractiveLayer]:
    layers = [ContractiveLayer(d, h, generator(h)) for d, h in itertools.pairwise(sizes)]
    for layer in layers:
        torch.nn.init.normal_(layer.bias, generator=generator(1))
    return layers


def jacobian(layers: list[ContractiveLayer], x: torch.Tensor) -> torch.Tensor:
    """dh/dx of every row, [B, H, D]."""
    return torch.func.vmap(torch.func.jacrev(lambda row: torch.nn.Sequential(*layers)(row)))(x)


def test_penalties_are_norms_of_jacobians() -> None:
    (layer,) = encoder(7, 5)
    x, moved = torch.rand(2, 6, 7, generator=generator())
    j, j_moved = jacobian([layer], x), jacobian([layer], moved)
    torch.testing.assert_close(layer.contraction(layer(x)), j.square().sum((1, 2)))
    torch.testing.assert_close(layer.curvature(layer(x), layer(moved)), (j - j_moved).square().sum((1, 2)))


def test_weights_are_tied() -> None:
    (layer,) = encoder(7, 5)
    h = torch.rand(3, 5, generator=generator())
    torch.testing.assert_close(layer.decode(h), h @ layer.weight + layer.decoder_bias)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias", "decoder_bias"}


@pytest.mark.parametrize(("penalty", "weight"), [("contraction", 1.0), ("hessian", 30.0)])
def test_penalties_do_what_they_say(penalty: str, weight: float) -> None:
    x, _ = bumps(np.arange(PIXELS), np.arange(PIXELS) % 2)
    sizes = []
    for share in (0.0, weight):
        cae = ContractiveAutoEncoder((12,), epochs=40, batch_size=8, learning_rate=0.01, updates=0, random_state=0)
        cae.set_params(**{"contraction": 0.0, "corruption": 0.3, penalty: share})
        (layer,) = cae.fit(x, np.arange(PIXELS) % 2).network_.layers
        h, moved = layer(torch.from_numpy(x)), layer(torch.from_numpy(np.roll(x, 1, axis=1)))
        sizes.append(layer.contraction(h) if penalty == "contraction" else layer.curvature(h, moved))
    assert sizes[1].mean() < 0.7 * sizes[0].mean()


def test_directions_are_singular_vectors_of_the_jacobian() -> None:
    layers = encoder(12, 10, 8)
    x = torch.rand(4, 12, generator=generator())
    found = leading_directions(layers, x, 3, 30, generator())
    assert found.shape == (3, 4, 12)
    for row in range(4):
        _, s, vt = np.linalg.svd(jacobian(layers, x)[row].detach().numpy())
        np.testing.assert_allclose(np.abs(np.sum(found[:, row].numpy() * vt[:3], axis=1)), 1, atol=1e-3)
        assert s[2] > 1.05 * s[3], "a case in which they are told apart"


def test_two_iterations_are_nearly_enough() -> None:
    layers = encoder(40, 60, 50)
    x = torch.rand(4, 40, generator=generator())
    found = leading_directions(layers, x, 5, 2, generator()).transpose(0, 1)
    torch.testing.assert_close(found @ found.mT, torch.eye(5).expand(4, 5, 5), atol=1e-4, rtol=0)
    j = jacobian(layers, x).detach()
    best = torch.linalg.svdvals(j)[:, :5].square().sum(1)
    assert ((j @ found.mT).square().sum((1, 2)) > 0.9 * best).all()


def test_no_more_directions_than_the_jacobian_has() -> None:
    assert leading_directions(encoder(12, 3, 8), torch.rand(2, 12), 5, 2, generator()).shape == (3, 2, 12)


def test_change_along_directions_is_the_jacobian_times_them() -> None:
    network = SigmoidNetwork(encoder(6, 5, 4), 3)
    torch.nn.init.normal_(network.weight, generator=generator())
    x, u = torch.rand(4, 6, generator=generator()), torch.randn(2, 4, 6, generator=generator(1))
    o = torch.func.vmap(torch.func.jacrev(lambda row: network(row).softmax(-1)))(x)  # [B, K, D]
    torch.testing.assert_close(change_along(network, x, u), torch.einsum("bkd,ubd->ubk", o, u).square().sum() / 4)


def bumps(places: np.ndarray, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Narrow and wide bumps at places of a ring, [N, PIXELS], and how they change as they move."""

    def drawn(places: np.ndarray) -> np.ndarray:
        apart = (np.arange(PIXELS) - places[:, None] + PIXELS / 2) % PIXELS - PIXELS / 2
        return np.exp(-((apart / (1.5 + 2.5 * wide[:, None])) ** 2)).astype(np.float32)

    return drawn(places), (drawn(places + 0.05) - drawn(places - 0.05)) / 0.1


def test_tangent_propagation_makes_the_output_the_same_wherever_a_bump_is() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 2, 300)
    x, moves = bumps(rng.uniform(0, PIXELS, 300), wide)
    y = np.where(np.arange(300) < 12, wide, -1)
    settings = dict(
        hidden=(40, 40), epochs=40, batch_size=30, learning_rate=0.01, updates=150, tuning_rate=0.01, random_state=0
    )
    changes, right = [], []
    for classifier in (
        ContractiveAutoEncoder(**settings),
        ManifoldTangentClassifier(1, beta=30.0, penalised_rows=20, hessian=0.0, **settings),
    ):
        classifier.fit(x, y)
        u = torch.from_numpy(moves / np.linalg.norm(moves, axis=1, keepdims=True))[None]
        changes.append(change_along(classifier.network_, torch.from_numpy(x), u).item())
        right.append(classifier.score(x, wide))
    assert changes[1] < 0.4 * changes[0]
    assert right[1] > right[0] + 0.1


def test_without_beta_it_is_the_cae() -> None:
    x, _ = bumps(np.arange(PIXELS), np.arange(PIXELS) % 2)
    y = np.where(np.arange(PIXELS) < 8, np.arange(PIXELS) % 2, -1)
    settings = dict(hidden=(6, 5), hessian=0.1, epochs=2, updates=5, random_state=0)
    cae = ContractiveAutoEncoder(**settings).fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(ManifoldTangentClassifier(beta=0.0, **settings).fit(x, y).predict_proba(x), cae)
    assert np.abs(ManifoldTangentClassifier(beta=1.0, **settings).fit(x, y).predict_proba(x) - cae).max() > 1e-6


def test_the_loss_of_pre_training_is_summed_over_inputs_and_the_mean_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def noted(self: ContractiveAutoEncoder, loss: Callable[[], torch.Tensor], _: object, *rest: object) -> None:
        told.append((loss().item(), *rest))

    monkeypatch.setattr(ContractiveAutoEncoder, "_minimise", noted)  # the weights stay as they were drawn
    x = torch.rand(8, 6, generator=generator())
    cae = ContractiveAutoEncoder((5,), contraction=0.3, epochs=3, batch_size=8, updates=7, random_state=0)
    (layer,) = cae.fit(x.numpy(), np.arange(8) % 2).network_.layers
    h = layer(x)
    crossed = torch.nn.functional.binary_cross_entropy(layer.decode(h).sigmoid(), x, reduction="sum") / 8
    expected = (crossed + 0.3 * layer.contraction(h).mean()).item()
    assert told == [(pytest.approx(expected), 3, "layer 1"), (pytest.approx(np.log(2)), 7, "fine-tuning")]


def test_tangent_spaces_are_those_of_the_pre_trained_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, sizes = [], []

    def noted(layers: list[ContractiveLayer], x: torch.Tensor, *rest: Any) -> torch.Tensor:
        weights.append(layers[0].weight.detach().clone())
        sizes.append(len(x))
        return leading_directions(layers, x, *rest)

    monkeypatch.setattr("ssl_dgm.baselines.tangents.leading_directions", noted)
    x, _ = bumps(np.arange(PIXELS), np.arange(PIXELS) % 2)
    y = np.where(np.arange(PIXELS) < 8, np.arange(PIXELS) % 2, -1)
    settings = dict(penalised_rows=5, hidden=(6,), epochs=1, updates=4, tuning_rate=0.1, random_state=0)
    fitted = ManifoldTangentClassifier(2, **settings).fit(x, y)
    assert sizes == [8 + 5] * 4, "the labelled rows and some of all"
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    assert not torch.equal(fitted.network_.layers[0].weight, weights[0])

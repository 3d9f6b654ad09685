"""What is maximised beyond the bounds of M2: relaxed bounds, auxiliary terms, weights, rows that go together."""

from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import SEEDS, SUMMED, K, losses_of, make, make_batch, make_noise, replica, roughen

from ssl_dgm.config import NetworkConfig, ObjectiveConfig
from ssl_dgm.models.objective import Objective
from ssl_dgm.probability import auxiliary, bounds
from ssl_dgm.probability.factors import CategoricalFactor

WITH_CLASSES = [name for name in SUMMED if make(name).has_classes]


def settings(**values: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**({"weight_prior_sd": None} | values))


def one(noise: Any, s: int) -> dict[str, dict[str, Tensor]]:
    return {group: {name: drawn[s] for name, drawn in named.items()} for group, named in noise.items()}


# --- A relaxed y


@pytest.mark.parametrize("mode", ["loop", "vmap"])
def test_the_relaxed_bound_is_figueroa_s(mode: str) -> None:
    o = settings(latents_weight=3.0, classes_weight=0.5, classification=0.0)
    model = make("gmvae", mode=mode, objective=o)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch)
    losses = losses_of(model, batch, noise)
    for s in range(len(SEEDS)):
        f, own = replica(model, s), one(noise, s)["unlabelled"]
        x = torch.cat([batch.x_labelled[s], batch.x_unlabelled[s]])
        h = f.q["h"]({"x": x})
        log_q_y = f.q["y"]({"h": h}).log_probs
        gumbel = -(-torch.special.ndtr(own["y"][0, 0]).log()).log()
        y = ((log_q_y + gumbel) / 1.0).softmax(-1)
        q_z = f.q["z"]({"h": h, "y": y})
        z = q_z.rsample(own["z"][0, 0])
        kl_y = (log_q_y.exp() * (log_q_y + torch.tensor(float(K)).log())).sum(-1)
        cost = q_z.log_prob(z) - f.p["z"]({"y": y}).log_prob(z)
        expected = (f.p["x"]({"z": z}).log_prob(x) - 3.0 * cost - 0.5 * kl_y).mean()
        torch.testing.assert_close(losses["bound"][s], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(losses["loss"][s], -expected, rtol=1e-4, atol=1e-4)


def test_relaxed_draws_are_points_of_the_simplex_near_its_corners_when_cold() -> None:
    model = make("gmvae", seeds=(0,))
    f = replica(model, 0)
    values = {"h": torch.randn(500, 4)}
    noise = torch.randn(500, K)
    warm = f.q["y"](values).rsample(noise)
    f.q["y"].temperature.fill_(0.01)  # type: ignore[union-attr]
    cold = f.q["y"](values).rsample(noise)
    torch.testing.assert_close(cold.sum(-1), torch.ones(500))
    assert cold.amax(-1).mean() > 0.97 > warm.amax(-1).mean()
    # The most probable corner is drawn as often as q says, and both temperatures agree on it.
    shares = torch.nn.functional.one_hot(cold.argmax(-1), K).float().mean(0)
    assert (shares - f.q["y"](values).log_probs.exp().mean(0)).abs().max() < 0.1
    assert torch.equal(cold.argmax(-1), warm.argmax(-1))


def test_the_temperature_falls_exponentially_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("gmvae", objective=settings(temperature=1.0, final_temperature=0.25, temperature_epochs=40))
    for epoch, expected in ((0, 1.0), (10, 0.25**0.25), (20, 0.5), (40, 0.25), (99, 0.25)):
        monkeypatch.setattr(type(model), "current_epoch", epoch)
        model.on_train_epoch_start()
        told = model.factorisation.q["y"].temperature  # type: ignore[union-attr]
        torch.testing.assert_close(told, torch.full_like(told, expected))


def test_labels_never_enter_a_relaxed_bound() -> None:
    model = make("gmvae", objective=settings(assignment=1.0, metric=1.0))
    batch = make_batch(model)
    noise = make_noise(model, batch)
    turned = batch._replace(y_labelled=batch.y_labelled.roll(1, -1))
    before, after = (losses_of(model, b, noise) for b in (batch, turned))
    assert torch.equal(before["bound"], after["bound"]) and not torch.equal(before["loss"], after["loss"])


# --- Auxiliary terms attach to any model


@pytest.mark.parametrize(("epochs", "passed", "count"), [(0, 1.0, None), (4, 1.0, 0.25), (4, 0.0, 0.0), (4, 9.0, 1.0)])
@pytest.mark.parametrize("name", [*WITH_CLASSES, "gmvae"])
def test_auxiliary_terms_attach_to_every_model_with_classes(
    name: str, epochs: float, passed: float, count: float | None
) -> None:
    o = settings(assignment=0.7, metric=0.3, neighbours=2, margin=1.5, assignment_epochs=epochs)
    model = make(name, objective=o)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch)
    with_terms = losses_of(model, batch, noise, passed)
    without = losses_of(make_like(model, settings()), batch, noise)
    for s in range(len(SEEDS)):
        f, values = replica(model, s), {}
        x = torch.cat([batch.x_labelled[s], batch.x_unlabelled[s]])
        values[f.observed] = x
        for variable, factor in f.q.items():
            if variable == "y":
                break
            drawn = factor(values)
            own = one(noise, s)
            values[variable] = (
                drawn
                if variable not in f.latents
                else drawn.rsample(torch.cat([own["labelled"][variable], own["unlabelled"][variable]], 2))
            )
        factor = f.q["y"]
        assert isinstance(factor, CategoricalFactor)
        h = values["h"] if "h" in values else factor.network.features(values).reshape(len(x), -1)
        log_q_y = factor(values).log_probs.reshape(len(x), K)
        y, num = batch.y_labelled[s], len(batch.y_labelled[s])
        given = torch.cat([y, auxiliary.nearest_classes(h[:num], y, h[num:], 2)])
        counts = None if count is None else torch.cat([torch.ones(num), torch.full((len(x) - num,), count)])
        assignment = auxiliary.assignment(log_q_y, given, counts)
        metric = auxiliary.lifted_structured(h, given, 1.5, counts)
        torch.testing.assert_close(with_terms["assignment"][s], assignment, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(with_terms["metric_loss"][s], metric, rtol=1e-4, atol=1e-4)
        expected = without["loss"][s] - 0.7 * assignment + 0.3 * metric
        torch.testing.assert_close(with_terms["loss"][s], expected, rtol=1e-4, atol=1e-4)


def make_like(model: Any, objective: ObjectiveConfig) -> Any:
    """The same weights under another objective."""
    other = make(model.stage.model.name, objective=objective)
    other.load_state_dict(model.state_dict())
    return other


# --- Weights of terms, and rows that go together


def test_a_latent_that_costs_less_than_its_free_bits_costs_nothing() -> None:
    plain, batch = make("m2", objective=settings()), make_batch(make("m2"))
    roughen(plain)
    noise = make_noise(plain, batch)
    cost = losses_of(plain, batch, noise)
    kl = cost["unlabelled_q_z"] - cost["unlabelled_p_z"]
    for free, counts in ((float(kl.max()) + 1, 0.0), (float(kl.min()) - 1, 1.0)):
        losses = losses_of(make_like(plain, settings(free_bits=free)), batch, noise)
        expected = cost["bound_unlabelled"] + (1 - counts) * kl
        torch.testing.assert_close(losses["bound_unlabelled"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WITH_CLASSES)
@pytest.mark.parametrize("left_out", [{}, {"class_threshold": 0.2}, {"class_terms": 2}])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_rows_that_go_through_the_networks_together_have_the_same_loss(
    name: str, left_out: dict[str, Any], dropout: float
) -> None:
    network = NetworkConfig(hidden=[8], dropout=dropout)
    model = make(name, objective=settings(**left_out, draws=2), network=network)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch, draws=2)
    f, r, at = replica(model, 1), model.objective.labelled_weight, torch.ones(())
    rows = type(batch)(*(tensor[1] for tensor in batch))
    apart, *others = (
        Objective(model.stage.objective, r, True, joint, smaller).losses(f, rows, one(noise, 1), at)
        for joint, smaller in ((False, False), (True, False), (True, True))
    )
    for together in others:
        assert apart.keys() == together.keys()
        for term, value in apart.items():
            torch.testing.assert_close(together[term], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*WITH_CLASSES, "gmvae"])
def test_without_labelled_rows_the_unlabelled_bound_is_all(name: str) -> None:
    model = make(name, num_labelled=0)
    batch = make_batch(model, num_labelled=0)
    losses = losses_of(model, batch, make_noise(model, batch))
    assert torch.equal(losses["loss"], -losses["bound" if name == "gmvae" else "bound_unlabelled"])
    assert losses["loss"].isfinite().all() and not {"classification", "bound_labelled"} & losses.keys()


@pytest.mark.parametrize("name", WITH_CLASSES)
def test_slots_in_use_are_one_when_all_rows_are_of_one_class(name: str) -> None:
    model = make(name, seeds=(0,))
    f = replica(model, 0)
    f.q["y"].network.heads["logits"].bias.data = torch.tensor([50.0, 0.0, 0.0])  # type: ignore[union-attr]
    x = make_batch(model).x_unlabelled[0]
    noise = {name: drawn[0] for name, drawn in make_noise(model, make_batch(model))["unlabelled"].items()}
    assert bounds.slots_in_use(bounds.trace(f, x, bounds.classes(f, x), noise)) == pytest.approx(1.0, abs=1e-3)
    f.q["y"].network.heads["logits"].weight.data.zero_()  # type: ignore[union-attr]
    f.q["y"].network.heads["logits"].bias.data.zero_()  # type: ignore[union-attr]
    assert bounds.slots_in_use(bounds.trace(f, x, bounds.classes(f, x), noise)) == pytest.approx(K)


def test_the_prior_of_y_is_the_one_that_is_told() -> None:
    model = make("m2", prior=(0.5, 0.3, 0.2))
    torch.testing.assert_close(model.factorisation.p["y"]({}).log_probs.exp(), torch.tensor([0.5, 0.3, 0.2]))


def test_the_variance_of_z_is_from_x_alone_where_eq_4_says_so() -> None:
    model = make("m2", model_settings={"q_log_var": "x"})
    f = replica(model, 0)
    x, y = torch.randn(5, model.x_dim), torch.eye(K)
    first, second = (f.q["z"]({"x": x, "y": y[[k] * 5]}) for k in (0, 1))
    assert torch.equal(first.log_var, second.log_var) and not torch.equal(first.mean, second.mean)
    other = f.q["z"]({"x": x + 1, "y": y[[0] * 5]})
    assert not torch.equal(first.log_var, other.log_var)


def test_z_of_ojha_s_m2_is_inferred_from_x_alone() -> None:
    model = make("m2", model_settings={"q_z": "x"})
    assert "q(z | x)" in str(model) and "q(z | x, y)" not in str(model)
    batch = make_batch(model)
    assert losses_of(model, batch, make_noise(model, batch))["loss"].isfinite().all()


def test_labels_teach_a_relaxed_y_by_their_mean_log_probability_too() -> None:
    model = make("gmvae", objective=settings(classification=0.7))
    roughen(model)
    batch = make_batch(model)
    losses = losses_of(model, batch, make_noise(model, batch))
    for s in range(len(SEEDS)):
        f = replica(model, s)
        log_q_y = f.q["y"]({"h": f.q["h"]({"x": batch.x_labelled[s]})}).log_probs
        expected = (log_q_y * batch.y_labelled[s]).sum(-1).mean()
        torch.testing.assert_close(losses["classification"][s], expected)
        torch.testing.assert_close(losses["loss"][s], -(losses["bound"][s] + 0.7 * expected))


def test_latents_that_cost_more_than_their_free_bits_are_warmed_up_all_the_same() -> None:
    plain = make("m2", objective=settings(warm_up_epochs=4))
    roughen(plain)
    batch = make_batch(plain)
    noise = make_noise(plain, batch)
    free = make_like(plain, settings(warm_up_epochs=4, free_bits=1e-6))
    expected, found = (losses_of(model, batch, noise, passed=1.0)["loss"] for model in (plain, free))
    torch.testing.assert_close(found, expected)

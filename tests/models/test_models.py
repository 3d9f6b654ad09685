"""Properties of every model: its text, its loss, its optimiser."""

import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td
from zoo import (
    NAMES,
    NUM_LABELLED,
    NUM_TRAIN,
    SEEDS,
    SUMMED,
    K,
    every_mode,
    every_model,
    every_summed_model,
    losses_of,
    make,
    make_batch,
    make_noise,
    replica,
    roughen,
)

from ssl_dgm.config import ObjectiveConfig, OptimizerConfig
from ssl_dgm.data.datamodule import Batch
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import bounds
from ssl_dgm.probability.randomness import Streams

# --- A model is its factorisation


def test_there_are_models() -> None:
    assert {"m1", "m2", "m1m2"} <= set(NAMES)


def first_line(model: DeepGenerativeModel) -> str:
    return (inspect.getdoc(type(model)) or "").splitlines()[0]


@every_model
def test_the_first_line_of_the_docstring_is_the_factorisation(name: str) -> None:
    assert first_line(make(name)) == str(make(name))


@every_model
def test_a_factor_depends_on_its_written_parents_and_on_nothing_else(name: str) -> None:
    model = make(name)
    f, sizes = replica(model, 0), model.dims()
    written_lists = re.sub(r", [hc] = \w+\(x\)$", "", first_line(model))
    sides = re.findall(r" = (.+?)(?= {8}|$)", written_lists)
    assert len(sides) == 2
    for variable in set(f.q) - set(f.latents):  # functions of x
        before = f.q[variable]({"x": torch.zeros(5, sizes["x"])})
        assert before.shape == (5, sizes[variable])
        assert not torch.equal(before, f.q[variable]({"x": torch.ones(5, sizes["x"])}))
    for side, written in zip("pq", sides, strict=True):
        factors = re.findall(r"[pq]\((\w+)(?: \| ([^)]*))?\)", written)
        assert [variable for variable, _ in factors] == [n for n in getattr(f, side) if side == "p" or n in f.latents]
        for variable, parents in factors:
            values = {v: torch.randn(5, size) for v, size in sizes.items()}
            before = vars(getattr(f, side)[variable](values))
            for other, size in sizes.items():
                after = vars(getattr(f, side)[variable](values | {other: torch.randn(5, size)}))
                tensors = [n for n, value in before.items() if isinstance(value, torch.Tensor)]
                changed = any(not torch.equal(before[parameter], after[parameter]) for parameter in tensors)
                assert changed == (other in parents.split(", ")), f"{side}({variable} | {other})"


# --- The loss


@every_model
@every_mode
@pytest.mark.parametrize("kl", ["monte_carlo", "analytic"])
def test_every_parameter_of_every_seed_receives_gradient(name: str, mode: str, kl: str) -> None:
    model = make(name, mode=mode, objective=ObjectiveConfig(kl=kl))
    batch = make_batch(model)
    losses_of(model, batch, make_noise(model, batch))["loss"].sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.flatten(1).any(1).all(), parameter_name


def by_hand(model: DeepGenerativeModel, s: int, batch: Batch, noise: Any, warm_up: float) -> dict[str, Tensor]:
    """U, L and C of one seed: classes one after the other, each as if it were given."""
    f = replica(model, s)
    analytic = f.analytic if model.stage.objective.kl == "analytic" else ()
    x_l, y_l, x_u = (tensor[s] for tensor in batch)

    def weight(x: Tensor, y: Tensor | None, own: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """log p(x, y, h) - log q(h | .) with the latents' terms warmed up, and log q(y | .), [M, B]."""
        t = bounds.trace(f, x, y, own, analytic)
        latents = [name for name in f.latents if name != "y"]
        whole = t.p[f.observed] + (t.p["y"] if y is not None else 0)
        return (whole + warm_up * sum(t.p[n] - t.q[n] for n in latents))[:, 0], t.q["y"][
            :, 0
        ] if y is not None else whole

    unlabelled = {name: n[s] for name, n in noise["unlabelled"].items()}
    if not model.has_classes:
        bound = weight(x_u, None, unlabelled)[0].mean()
        return {"bound": bound, "loss": -bound}
    u = torch.zeros(())
    for c in range(K):
        own = {name: n[:, min(c, n.shape[1] - 1)].unsqueeze(1) for name, n in unlabelled.items()}
        log_weight, log_q_y = weight(x_u, torch.eye(K)[[c] * len(x_u)], own)
        u = u + (log_q_y.exp() * (log_weight - log_q_y)).mean()
    log_weight, log_q_y = weight(x_l, y_l, {name: n[s] for name, n in noise["labelled"].items()})
    return {
        "bound_unlabelled": u,
        "bound_labelled": log_weight.mean(),
        "classification": log_q_y.exp().mean(0).log().mean(),
    }


@every_summed_model
@every_mode
@pytest.mark.parametrize(
    ("kl", "labelled", "epochs", "passed"),
    [
        ("monte_carlo", None, 0, 0.5),
        ("monte_carlo", 2.0, 4, 1.0),
        ("monte_carlo", 2.0, 4, 5.0),
        ("analytic", 0.3, 0, 0),
    ],
)
def test_the_loss_is_minus_u_minus_r_l_minus_r_c(
    name: str, mode: str, kl: str, labelled: float | None, epochs: float, passed: float
) -> None:
    objective = ObjectiveConfig(classification=0.7, labelled=labelled, draws=2, kl=kl, warm_up_epochs=epochs)
    model = make(name, mode=mode, objective=objective)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch, draws=2)
    losses = losses_of(model, batch, noise, passed)
    warm_up = min(1.0, passed / epochs) if epochs else 1.0
    for s in range(len(SEEDS)):
        expected = by_hand(model, s, batch, noise, warm_up)
        if model.has_classes:
            r = NUM_LABELLED / (NUM_TRAIN - NUM_LABELLED) if labelled is None else labelled
            weighted = r * expected["bound_labelled"] + 0.7 * expected["classification"]
            expected["loss"] = -(expected["bound_unlabelled"] + weighted)
        for term, value in expected.items():
            torch.testing.assert_close(losses[term][s], value, rtol=1e-5, atol=1e-5)


@every_model
def test_r_is_by_default_labelled_rows_per_unlabelled_row(name: str) -> None:
    model = make(name)
    if model.has_classes:
        assert model.objective.labelled_weight == NUM_LABELLED / (NUM_TRAIN - NUM_LABELLED)
    assert make(name, objective=ObjectiveConfig(labelled=0.0)).objective.labelled_weight == 0


@every_summed_model
def test_the_terms_of_the_loss_are_means_of_the_factors(name: str) -> None:
    model = make(name)
    batch = make_batch(model)
    losses = losses_of(model, batch, make_noise(model, batch))
    prefix, q_y = ("labelled_", -losses["classification"]) if model.has_classes else ("", 0)
    p = sum(value for term, value in losses.items() if term.startswith(f"{prefix}p_"))
    q = sum(value for term, value in losses.items() if term.startswith(f"{prefix}q_"))
    # With one draw, log q(y | x) of the labelled rows is the classification term and no part of their bound.
    torch.testing.assert_close(p - (q + q_y), losses["bound_labelled" if model.has_classes else "bound"])


@every_model
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    model = make(name, seeds=(4, 0), x_dim=20, objective=ObjectiveConfig(classification=1.0))
    batch = make_batch(model, num_labelled=3, num_unlabelled=3)._replace(y_labelled=torch.eye(K).expand(2, K, K))
    optimizer, history = torch.optim.Adam(model.parameters(), lr=0.02), []
    streams = Streams(model.seeds, "test noise")
    shapes = model.objective.noise_shapes(model.factorisation, 3, 3)
    for _ in range(250):
        losses = model.per_seed(model.losses, batch, model.noise(streams, **shapes), torch.ones(2))
        optimizer.zero_grad()
        losses["loss"].sum().backward()
        optimizer.step()
        history.append(losses["loss"].detach())
    start, end = torch.stack(history[:10]).mean(0), torch.stack(history[-25:]).mean(0)
    least = 0.2 if model.factorisation.relaxed else 0.5  # it pays for twice the rows, through fewer features
    assert (start - end > least * start.abs()).all()
    if model.has_classes:
        noise = model.noise(streams, x=model.factorisation.noise_shapes(3))["x"]
        assert torch.equal(
            model.per_seed(model.log_q_y, batch.x_labelled, noise).argmax(-1), torch.arange(K).expand(2, K)
        )


@pytest.mark.parametrize("name", [name for name in SUMMED if make(name).has_classes])
def test_relabelling_the_classes_permutes_the_predictions(name: str) -> None:
    model, turn = make(name), torch.tensor([2, 0, 1])
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch, draws=2)

    def predictions(noise: Any, batch: Batch) -> tuple[Tensor, ...]:
        by_q = model.per_seed(model.log_q_y, batch.x_unlabelled, noise["unlabelled"])
        by_p = model.per_seed(model.class_log_joint, batch.x_unlabelled, noise["unlabelled"])
        return by_q, by_p, losses_of(model, batch, noise)["loss"]

    before = predictions(noise, batch)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith((".inputs.y.weight", ".heads.mean.y.weight", ".heads.log_var.y.weight")):
                parameter.copy_(parameter[:, :, turn])
            if re.search(r"\.[pq]\.y\.network\.heads\.", parameter_name):
                parameter.copy_(parameter[:, turn])
    turned = {n: v[:, :, turn] if v.shape[2] == K else v for n, v in noise["unlabelled"].items()}
    after = predictions(noise | {"unlabelled": turned}, batch._replace(y_labelled=batch.y_labelled[..., turn]))
    torch.testing.assert_close(after[0], before[0][..., turn])
    torch.testing.assert_close(after[1], before[1][..., turn])
    torch.testing.assert_close(after[2], before[2])
    assert before[0].std(-1).min() > 0.01 and before[1].std(-1).min() > 0.01


# --- The optimiser


@every_model
@pytest.mark.parametrize("optimizer", ["adam", "adam_uncorrected"])
def test_weight_decay_is_the_prior_of_the_weights_per_row(name: str, optimizer: str) -> None:
    def group(sd: float | None) -> dict[str, Any]:
        objective, settings = ObjectiveConfig(weight_prior_sd=sd), OptimizerConfig(optimizer, 0.01, 0.8, 0.9, 1e-5)
        return make(name, objective=objective, optimizer=settings).configure_optimizers().param_groups[0]

    w = torch.randn(5, requires_grad=True)
    (-td.Normal(0, 0.3).log_prob(w).sum() / NUM_TRAIN).backward()
    torch.testing.assert_close(group(0.3)["weight_decay"] * w.detach(), w.grad)
    assert group(1.0)["weight_decay"] == pytest.approx(1 / NUM_TRAIN) and group(None)["weight_decay"] == 0
    assert (group(None)["lr"], group(None)["betas"], group(None)["eps"]) == (0.01, (0.8, 0.9), 1e-5)
    assert len(group(None)["params"]) == len(list(make(name).parameters()))


@every_model
def test_each_seed_s_gradient_is_capped_before_the_update(name: str) -> None:
    model = make(name, optimizer=OptimizerConfig(clip_norm=0.01))
    batch = make_batch(model)
    losses_of(model, batch, make_noise(model, batch))["loss"].sum().backward()
    model.on_before_optimizer_step(None)  # type: ignore[arg-type]
    joined = torch.cat([p.grad.flatten(1) for p in model.parameters()], 1)
    torch.testing.assert_close(joined.norm(dim=1), torch.full((3,), 0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize("inside", [True, False])
def test_the_gradient_of_the_prior_is_capped_with_the_rest_if_so_wanted(inside: bool) -> None:
    o = OptimizerConfig(clip_norm=0.01, clip_prior=inside)
    model = make("m2", optimizer=o, objective=ObjectiveConfig(weight_prior_sd=0.03))
    batch = make_batch(model)
    losses_of(model, batch, make_noise(model, batch))["loss"].sum().backward()
    decay = 1 / ((model.num_labelled + model.num_unlabelled) * 0.03**2)
    expected = torch.cat([(p.grad + inside * decay * p.detach()).flatten(1) for p in model.parameters()], 1)
    model.on_before_optimizer_step(None)  # type: ignore[arg-type]
    found = torch.cat([p.grad.flatten(1) for p in model.parameters()], 1)
    torch.testing.assert_close(found, 0.01 * expected / expected.norm(dim=1, keepdim=True), rtol=1e-3, atol=1e-8)
    assert model.configure_optimizers().param_groups[0]["weight_decay"] == pytest.approx(0 if inside else decay)


def test_gradient_elements_are_capped_after_the_norm() -> None:
    found = []
    for value in (None, 0.01):
        model = make("m2", optimizer=OptimizerConfig(clip_norm=1.0, clip_value=value))
        batch = make_batch(model)
        losses_of(model, batch, make_noise(model, batch))["loss"].sum().backward()
        model.on_before_optimizer_step(None)  # type: ignore[arg-type]
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found[0].abs().max() > 0.01 > found[0].abs().min()
    assert torch.equal(found[0].clamp(-0.01, 0.01), found[1])


@pytest.mark.parametrize("name", ["gmdgm", "gmvae"])
def test_a_class_is_a_mean_and_a_log_variance_of_its_own(name: str) -> None:
    """Nothing but a row of numbers for each, and one that all share: no layer mixes the classes."""
    shapes = sorted(tuple(parameter.shape) for parameter in replica(make(name), 0).p["z"].parameters())
    assert shapes == [(2,), (2,), (2, K), (2, K)]

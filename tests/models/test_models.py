"""What holds for every model: those of `ssl_dgm.models` are found by themselves.

Shape legend: S seeds, M draws, K classes, B rows, D dimensions.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch import distributions as td

from ssl_dgm import models
from ssl_dgm.config import BudgetConfig, ModelConfig, NetworkConfig, ObjectiveConfig, OptimizerConfig, Stage
from ssl_dgm.data.datamodule import Batch, SeededDataModule
from ssl_dgm.data.inputs import Inputs, Pixels, Posteriors
from ssl_dgm.data.sources import Source, digest
from ssl_dgm.data.splits import draw
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import bounds
from ssl_dgm.probability.factors import BernoulliFactor, Factorisation
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.probability.replicas import one_seed

D, K, SEEDS = 6, 3, (4, 0, 7)
NUM_TRAIN, NUM_LABELLED = 36, 6


def found() -> Iterator[str]:
    """Names of the modules that define a model."""
    for info in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"{models.__name__}.{info.name}")
        of_module = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        if any(issubclass(c, DeepGenerativeModel) and c is not DeepGenerativeModel for c in of_module):
            yield info.name


NAMES = sorted(found())
every_model = pytest.mark.parametrize("name", NAMES)
every_mode = pytest.mark.parametrize("mode", ["loop", "vmap"])


def make(
    name: str, seeds: tuple[int, ...] = SEEDS, mode: str = "loop", x_dim: int = D, **settings: Any
) -> DeepGenerativeModel:
    """A small model; settings are those of the stage."""
    settings = {"network": NetworkConfig(hidden=[8]), "budget": BudgetConfig(epochs=4, updates_per_epoch=5)} | settings
    stage = Stage(model=ModelConfig(name, z_dim=2), **settings)
    sizes = {"x_dim": x_dim, "num_classes": K, "seeds": seeds, "replicas_mode": mode}
    model = models.create(stage, **sizes, num_labelled=0, num_unlabelled=NUM_TRAIN)
    if model.has_classes:
        sizes |= {"num_labelled": NUM_LABELLED, "num_unlabelled": NUM_TRAIN - NUM_LABELLED}
        model = models.create(stage, **sizes)
    return model


def observes_bits(model: DeepGenerativeModel) -> bool:
    f = model.factorisation
    return isinstance(f.p[f.observed], BernoulliFactor)


def make_batch(model: DeepGenerativeModel, num_labelled: int = 4, num_unlabelled: int = 5) -> Batch:
    """Other rows for every seed."""
    streams = Streams(model.seeds, "test batch")

    def x(rows: int) -> Tensor:
        values = streams.normal((rows, model.x_dim))
        return (values > 0).float() if observes_bits(model) else values

    y = torch.eye(K)[streams.bytes_below(K, (num_labelled,)).long()]
    return Batch(x(num_labelled), y, x(num_unlabelled))


def make_noise(model: DeepGenerativeModel, batch: Batch, draws: int = 1) -> dict[str, dict[str, Tensor]]:
    f = model.factorisation
    unlabelled = f.noise_shapes(batch.x_unlabelled.shape[1], draws, enumerate_y=True)
    labelled = f.noise_shapes(batch.x_labelled.shape[1], draws)
    return model.noise(Streams(model.seeds, "test noise"), unlabelled=unlabelled, labelled=labelled)


def roughen(model: DeepGenerativeModel) -> None:
    """Weights so large that classes, draws and rows all matter."""
    for i, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(i)
        parameter.data = 0.6 * torch.randn(parameter.shape, generator=generator)


def losses_of(model: DeepGenerativeModel, batch: Batch, noise: Any, warm_up: float = 1.0) -> dict[str, Tensor]:
    return model.per_seed(model.losses, batch, noise, torch.full((len(model.seeds),), warm_up))


def replica(model: DeepGenerativeModel, s: int) -> Factorisation:
    """The factorisation of one seed as a plain module."""
    f = model.build()
    f.load_state_dict(one_seed(model.factorisation.state_dict(), s))
    return f


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
    sides = re.findall(r" = (.+?)(?= {8}|$)", first_line(model))
    assert len(sides) == 2
    for side, written in zip("pq", sides, strict=True):
        factors = re.findall(r"[pq]\((\w+)(?: \| ([^)]*))?\)", written)
        assert [variable for variable, _ in factors] == list(getattr(f, side))
        for variable, parents in factors:
            values = {v: torch.randn(5, size) for v, size in sizes.items()}
            before = vars(getattr(f, side)[variable](values))
            for other, size in sizes.items():
                after = vars(getattr(f, side)[variable](values | {other: torch.randn(5, size)}))
                tensors = [parameter for parameter, value in before.items() if isinstance(value, torch.Tensor)]
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
        latents = [name for name in f.q if name != "y"]
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


@every_model
@every_mode
@pytest.mark.parametrize(
    ("kl", "labelled", "warm_up"), [("monte_carlo", None, 1.0), ("monte_carlo", 2.0, 0.25), ("analytic", 0.3, 1.0)]
)
def test_the_loss_is_minus_u_minus_r_l_minus_r_c(
    name: str, mode: str, kl: str, labelled: float | None, warm_up: float
) -> None:
    epochs = float(warm_up < 1)
    objective = ObjectiveConfig(classification=0.7, labelled=labelled, draws=2, kl=kl, warm_up_epochs=epochs)
    model = make(name, mode=mode, objective=objective)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch, draws=2)
    losses = losses_of(model, batch, noise, warm_up)
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
        assert model.labelled_weight == NUM_LABELLED / (NUM_TRAIN - NUM_LABELLED)
    assert make(name, objective=ObjectiveConfig(labelled=0.0)).labelled_weight == 0


@every_model
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
    shapes = {
        "unlabelled": model.factorisation.noise_shapes(3, enumerate_y=True),
        "labelled": model.factorisation.noise_shapes(3),
    }
    for _ in range(250):
        losses = model.per_seed(model.losses, batch, model.noise(streams, **shapes), torch.ones(2))
        optimizer.zero_grad()
        losses["loss"].sum().backward()
        optimizer.step()
        history.append(losses["loss"].detach())
    start, end = torch.stack(history[:10]).mean(0), torch.stack(history[-25:]).mean(0)
    assert (start - end > 0.5 * start.abs()).all()
    if model.has_classes:
        noise = model.noise(streams, x=model.factorisation.noise_shapes(3))["x"]
        assert torch.equal(
            model.per_seed(model.log_q_y, batch.x_labelled, noise).argmax(-1), torch.arange(K).expand(2, K)
        )


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).has_classes])
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
            if parameter_name.endswith(".inputs.y.weight"):
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


# --- Training through Lightning


class Recorder(pl.Callback):
    """What every update saw and gave."""

    def __init__(self) -> None:
        self.terms: list[dict[str, Tensor]] = []
        self.batches: list[Batch] = []
        self.noise: list[dict[str, dict[str, Tensor]]] = []
        self.warm_up: list[float] = []
        self.rates: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        draw_noise = pl_module.noise

        def recorded(streams: Streams, **shapes: Any) -> Any:
            noise = draw_noise(streams, **shapes)
            if streams.purpose == "noise":
                self.noise.append(noise)
            return noise

        pl_module.noise = recorded

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.batches.append(batch)
        self.warm_up.append(pl_module.warm_up)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.terms.append(pl_module.terms)


def toy() -> Source:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.permutation(np.repeat(np.arange(K), NUM_TRAIN // K)), rng.integers(K, size=9)])
    x = rng.integers(256, size=(len(y), D), dtype=np.uint8)
    return Source("toy", x, y, x[:5], y[:5], 9, K, (2, 3), digest(x, y, x[:5], y[:5]))


def train(name: str, seeds: tuple[int, ...] = SEEDS, mode: str = "loop", **settings: Any) -> tuple[Any, Recorder]:
    model, source, recorder = make(name, seeds, mode, **settings), toy(), Recorder()
    images = torch.from_numpy(source.train_x)
    inputs: Inputs = Pixels(images)
    if not observes_bits(model):
        inputs = Posteriors(images.float() / 128 - 1, images.flip(1).float() / 128 - 2)
    splits = [draw(source, NUM_LABELLED, seed) for seed in seeds] if model.has_classes else None
    budget, device = model.stage.budget, torch.device("cpu")
    data = SeededDataModule(
        inputs, torch.from_numpy(source.train_y), K, splits, source.num_train, seeds, budget, device
    )
    trainer = pl.Trainer(
        max_epochs=budget.epochs, accelerator="cpu", callbacks=[recorder], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    return model, recorder


quiet = pytest.mark.filterwarnings("ignore:::pytorch_lightning", "ignore:::lightning_fabric")


@quiet
@every_model
@every_mode
def test_a_seed_trains_alone_as_in_a_group(name: str, mode: str) -> None:
    fast = {"optimizer": OptimizerConfig(lr=0.01)}
    together, group = train(name, mode=mode, **fast)
    s, seed = 1, SEEDS[1]
    single, alone = train(name, (seed,), mode, **fast)
    assert len(group.terms) == len(alone.terms) == len(group.noise) == 20
    assert all(torch.equal(group.start[n][s], alone.start[n][0]) for n in alone.start)
    for a, b in zip(group.batches, alone.batches, strict=True):
        assert all(torch.equal(of_group[s], own[0]) for of_group, own in zip(a, b, strict=True))
    for a, b in zip(group.noise, alone.noise, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[g][n][s], b[g][n][0]) for g in a for n in a[g])
    for a, b in zip(group.terms, alone.terms, strict=True):
        assert a.keys() == b.keys()
        torch.testing.assert_close(a["loss"][s], b["loss"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(together.validation[together.score][s], single.validation[single.score][0])
    # It was a real training, and the seeds' are different ones.
    moved = [(p.detach() - group.start[n]).flatten(1).norm(dim=1) for n, p in together.named_parameters()]
    assert (torch.stack(moved) > 1e-3).all()
    assert torch.stack([t["loss"] for t in group.terms]).std(1).min() > 1e-4
    assert not torch.equal(group.batches[0].x_unlabelled[0], group.batches[0].x_unlabelled[1])


@quiet
@every_model
def test_updates_differ_in_rows_and_noise(name: str) -> None:
    _, seen = train(name, (4,))
    rows = {batch.x_unlabelled.numpy().tobytes() for batch in seen.batches}
    noise = {next(iter(noise["unlabelled"].values())).numpy().tobytes() for noise in seen.noise}
    assert len(rows) == len(noise) == 20


@quiet
@every_model
def test_the_latents_terms_are_warmed_up_from_0_to_1(name: str) -> None:
    objective = ObjectiveConfig(warm_up_epochs=2)
    model, seen = train(name, (4,), objective=objective, budget=BudgetConfig(epochs=3, updates_per_epoch=5))
    assert seen.warm_up == pytest.approx([min(1, step / 10) for step in range(15)])
    latents = [n for n in model.factorisation.q if n != "y"]
    terms = [term for term in seen.terms[0] if term.rpartition("_")[2] in latents]
    assert terms and not any(seen.terms[0][term].any() for term in terms)
    assert all(seen.terms[1][term].all() for term in terms)
    assert make(name).warm_up == 1.0


@quiet
def test_the_cosine_schedule_goes_from_the_rate_to_the_final_rate() -> None:
    optimizer = OptimizerConfig(lr=0.01, schedule="cosine", final_lr=0.002)
    _, seen = train("m2", (4,), optimizer=optimizer)
    expected = 0.002 + 0.008 * 0.5 * (1 + np.cos(np.pi * np.arange(20) / 20))
    assert seen.rates == pytest.approx(expected.tolist())


# --- Scores


@every_model
@every_mode
@pytest.mark.parametrize("kl", ["monte_carlo", "analytic"])
def test_scores_of_the_stack_are_those_of_each_replica(name: str, mode: str, kl: str) -> None:
    model = make(name, mode=mode, objective=ObjectiveConfig(kl=kl))
    roughen(model)
    f, x = model.factorisation, make_batch(model).x_unlabelled
    noise = model.noise(Streams(SEEDS, "test noise"), x=f.noise_shapes(5, 3, enumerate_y=True))["x"]
    methods = [model.bound, model.importance_weighted, model.class_log_joint]
    bound, weighted, joint = (model.per_seed(method, x, noise) for method in methods)
    for s in range(len(SEEDS)):
        single, own = replica(model, s), {n: v[s] for n, v in noise.items()}
        y = bounds.classes(single, x) if model.has_classes else None
        t = bounds.trace(single, x[s], y, own, single.analytic if kl == "analytic" else ())
        expected = bounds.unlabelled(t) if model.has_classes else bounds.labelled(t)
        t = bounds.trace(single, x[s], y, own)  # importance samples need every term of their draws
        torch.testing.assert_close(bound[s], expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(weighted[s], bounds.importance_weighted(t), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(joint[s], bounds.class_log_joint(t).T, rtol=1e-5, atol=1e-4)
        if model.has_classes:
            log_q_y = model.per_seed(model.log_q_y, x, noise)
            torch.testing.assert_close(log_q_y[s], bounds.class_log_probs(single, x[s], own))


@every_model
def test_validation_is_the_error_or_the_bound_of_all_rows(name: str) -> None:
    model = make(name)
    roughen(model)
    x, y = make_batch(model).x_unlabelled[0], torch.eye(K)[[0, 1, 2, 1, 0]]
    scores = []
    for _ in range(2):
        model.on_validation_epoch_start()
        model.validation_step((x[:3], y[:3]), 0)
        model.validation_step((x[3:], y[3:]), 1)
        model.on_validation_epoch_end()
        scores.append(model.validation[model.score])
    assert torch.equal(*scores)  # the same draws at every epoch
    streams = Streams(SEEDS, "validation")
    shapes = [model.factorisation.noise_shapes(rows) for rows in (3, 2)]
    noise = [model.noise(streams, x=shape)["x"] for shape in shapes]
    for s in range(len(SEEDS)):
        single, own = replica(model, s), [{n: v[s] for n, v in part.items()} for part in noise]
        if model.has_classes:
            by_rows = [bounds.class_log_probs(single, part, n) for part, n in zip((x[:3], x[3:]), own, strict=True)]
            wrong = torch.cat(by_rows).argmax(-1) != y.argmax(-1)
            assert model.score == "error" and scores[0][s] == wrong.float().mean()
        else:
            traces = [bounds.trace(single, part, None, n) for part, n in zip((x[:3], x[3:]), own, strict=True)]
            expected = torch.cat([bounds.labelled(t) for t in traces]).mean()
            assert model.score == "bound"
            torch.testing.assert_close(scores[0][s], expected)

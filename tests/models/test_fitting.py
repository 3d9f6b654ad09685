"""Every model trained through Lightning, and its scores."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributions import Categorical
from zoo import (
    NAMES,
    NUM_LABELLED,
    NUM_TRAIN,
    SEEDS,
    D,
    K,
    every_mode,
    every_model,
    make,
    make_batch,
    observes_bits,
    replica,
    roughen,
)

from ssl_dgm.config import BudgetConfig, ObjectiveConfig, OptimizerConfig
from ssl_dgm.data.datamodule import Batch, SeededDataModule
from ssl_dgm.data.inputs import Inputs, Pixels, Posteriors
from ssl_dgm.data.source import Source, digest
from ssl_dgm.data.splits import draw
from ssl_dgm.models.validation import VALIDATION_DRAWS
from ssl_dgm.probability import bounds
from ssl_dgm.probability.randomness import Streams

# --- Training through Lightning


class Recorder(pl.Callback):
    """What every update saw and gave."""

    def __init__(self) -> None:
        self.terms: list[dict[str, Tensor]] = []
        self.batches: list[Batch] = []
        self.noise: list[dict[str, dict[str, Tensor]]] = []
        self.passed: list[float] = []
        self.rates: list[float] = []
        self.losses: list[Tensor] = []

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
        self.passed.append(pl_module.passed)
        self.rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.terms.append(pl_module.terms)
        self.losses.append(pl_module.terms["loss"].clone())


def toy() -> Source:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.permutation(np.repeat(np.arange(K), NUM_TRAIN // K)), rng.integers(K, size=9)])
    x = rng.integers(256, size=(len(y), D), dtype=np.uint8)
    return Source("toy", x, y, x[:5], y[:5], 9, K, (2, 3), digest(x, y, x[:5], y[:5]))


def train(
    name: str, seeds: tuple[int, ...] = SEEDS, mode: str = "loop", device: str = "cpu", captured: bool = False,
    compiled: Callable[[str], None] | None = None, precision: Any = "32-true",
    **settings: Any,
) -> tuple[Any, Recorder]:  # fmt: skip
    model, source, recorder = make(name, seeds, mode, **settings), toy(), Recorder()
    if compiled is not None:
        model.compile_losses(compiled)
    if captured:
        model.capture_updates()
    images = torch.from_numpy(source.train_x)
    inputs: Inputs = Pixels(images)
    if not observes_bits(model):
        inputs = Posteriors(images.float() / 128 - 1, images.flip(1).float() / 128 - 2)
    splits = [draw(source, NUM_LABELLED, seed) for seed in seeds] if model.has_classes else None
    budget = model.stage.budget
    data = SeededDataModule(
        inputs, torch.from_numpy(source.train_y), K, splits, source.num_train, seeds, budget, torch.device(device)
    )
    trainer = pl.Trainer(
        max_epochs=budget.epochs, accelerator="gpu" if device == "cuda" else device, devices=1, callbacks=[recorder],
        precision=precision, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
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
    assert seen.passed == pytest.approx([step / 5 for step in range(15)])
    latents = [n for n in model.factorisation.q if n != "y"]
    terms = [term for term in seen.terms[0] if term.rpartition("_")[2] in latents]
    assert terms and not any(seen.terms[0][term].any() for term in terms)
    assert all(seen.terms[1][term].all() for term in terms)


@quiet
def test_the_cosine_schedule_goes_from_the_rate_to_the_final_rate() -> None:
    optimizer = OptimizerConfig(lr=0.01, schedule="cosine", final_lr=0.002)
    _, seen = train("m2", (4,), optimizer=optimizer)
    expected = 0.002 + 0.008 * 0.5 * (1 + np.cos(np.pi * np.arange(20) / 20))
    assert seen.rates == pytest.approx(expected.tolist())


@quiet
def test_the_step_schedule_multiplies_the_rate_and_stops_at_the_final_rate() -> None:
    optimizer = OptimizerConfig(lr=0.01, schedule="step", step_epochs=1, step_factor=0.5, final_lr=0.002)
    _, seen = train("m2", (4,), optimizer=optimizer)
    assert seen.rates == pytest.approx([0.01] * 5 + [0.005] * 5 + [0.0025] * 5 + [0.002] * 5)


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
    draws = VALIDATION_DRAWS if model.factorisation.before_y else 1
    shapes = [model.factorisation.noise_shapes(rows, draws) for rows in (3, 2)]
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


# --- Every fast way is the plain one


@quiet
@pytest.mark.parametrize("name", [name for name in NAMES if make(name).has_classes])
def test_a_training_that_skips_classes_is_one_that_gives_them_no_weight(name: str) -> None:
    objective = ObjectiveConfig(class_threshold=0.5, draws=2)
    skipping, fast = train(name, mode="loop", objective=objective)
    weighing, plain = train(name, mode="vmap", objective=objective)
    torch.testing.assert_close(torch.stack(fast.losses), torch.stack(plain.losses), rtol=1e-4, atol=1e-4)
    for a, b in zip(skipping.parameters(), weighing.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    _, exact = train(name, mode="loop")
    assert not torch.equal(fast.losses[-1], exact.losses[-1])


@quiet
@pytest.mark.parametrize("name", [name for name in NAMES if make(name).has_classes])
def test_a_training_with_few_classes_is_the_same_looped_and_batched(name: str) -> None:
    objective = ObjectiveConfig(class_terms=2, draws=2)
    looped, one_by_one = train(name, mode="loop", objective=objective)
    batched, at_once = train(name, mode="vmap", objective=objective)
    torch.testing.assert_close(torch.stack(one_by_one.losses), torch.stack(at_once.losses), rtol=1e-4, atol=1e-4)
    for a, b in zip(looped.parameters(), batched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    _, exact = train(name, mode="loop")
    assert not torch.equal(at_once.losses[-1], exact.losses[-1])


@quiet
@every_model
@every_mode
def test_bfloat16_trains_as_float32_to_its_rounding(name: str, mode: str) -> None:
    _, half = train(name, mode=mode, precision="bf16-mixed")
    model, full = train(name, mode=mode)
    torch.testing.assert_close(torch.stack(half.losses), torch.stack(full.losses), rtol=0.02, atol=0.02)
    assert not torch.equal(half.losses[-1], full.losses[-1])
    assert all(p.dtype == torch.float32 for p in model.parameters())


DENORMALS = """
import torch
from ssl_dgm.training.fit import flush_denormals
torch.set_num_threads(2)
flush_denormals()
tiny = torch.full((4_000_000,), 1e-40)
print(int((tiny * 1 != 0).sum()), int((tiny[:10] * 1 != 0).sum()))
"""


def test_numbers_too_small_for_a_fast_product_are_zero_in_all_threads() -> None:
    said = subprocess.run([sys.executable, "-c", DENORMALS], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.split() == ["0", "0"]


def test_validation_says_how_sure_classes_are_and_how_evenly_they_are_used() -> None:
    model = make("m2")
    roughen(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[2] = torch.nan
    x, y = (torch.randn(40, D) > 0).float(), torch.eye(K)[torch.arange(40) % K]
    model.on_validation_epoch_start()
    for batch, rows in enumerate((slice(25), slice(25, None))):
        model.validation_step((x[rows], y[rows]), batch)
    model.on_validation_epoch_end()
    for s in range(2):
        log_q_y = replica(model, s).q["y"]({"x": x}).log_probs
        shares = log_q_y.argmax(-1).bincount(minlength=K) / 40
        expected = {
            "entropy_y": Categorical(logits=log_q_y).entropy().mean(),
            "entropy_slots": Categorical(shares).entropy(),
            "slots_used": (shares > 0).sum().float(),
            "error": (log_q_y.argmax(-1) != y.argmax(-1)).float().mean(),
        }
        for name, value in expected.items():
            torch.testing.assert_close(model.validation[name][s], value)
    assert all(model.validation[name][2].isnan() for name in expected), "a lost seed's"

"""Models with running statistics, or with convolutions: trained through Lightning, kept, chosen and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome
from safetensors.torch import load_file
from test_fitting import quiet, train
from zoo import SEEDS, D, K, losses_of, make, make_batch, make_noise

import ssl_dgm
from ssl_dgm.config import BudgetConfig, ModelConfig, NetworkConfig, ObjectiveConfig, OptimizerConfig, Stage
from ssl_dgm.models import create
from ssl_dgm.training import fit

Command = Callable[..., Outcome]
NORMED = {
    "network": NetworkConfig(hidden=[8], norm="batch"), "optimizer": OptimizerConfig(lr=0.01),
    "budget": BudgetConfig(epochs=4, updates_per_epoch=5, labelled_per_step="all"),
}  # fmt: skip
modes = pytest.mark.parametrize("mode", ["loop", "vmap"])


def statistics(model: Any) -> dict[str, torch.Tensor]:
    return {name: model.get_buffer(name) for name in model.statistics}


@quiet
@modes
def test_a_seed_s_statistics_are_the_same_alone_and_in_a_group(mode: str) -> None:
    together, _ = train("m2", mode=mode, **NORMED)
    alone, _ = train("m2", SEEDS[1:2], mode, **NORMED)
    assert statistics(alone) and not dict(make("m2").named_buffers()).keys() & set(together.statistics)
    for name, value in statistics(alone).items():
        assert (value != make("m2", SEEDS[1:2], mode, **NORMED).get_buffer(name)).any()
        torch.testing.assert_close(value[0], statistics(together)[name][1], rtol=1e-4, atol=1e-6)
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(parameter[0], together.get_parameter(name)[1], rtol=1e-3, atol=1e-4)


@quiet
def test_statistics_stay_whole_where_layers_run_in_bfloat16() -> None:
    shortened, short = train("m2", precision="bf16-mixed", **NORMED)
    _, whole = train("m2", **NORMED)
    assert all(value.dtype == torch.float32 for value in statistics(shortened).values())
    for a, b in zip(short.losses, whole.losses, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_evaluation_reads_the_statistics_and_leaves_them_alone() -> None:
    model = make("m2", **NORMED)
    batch = make_batch(model)
    noise = make_noise(model, batch)
    losses_of(model, batch, noise)
    before = {name: value.clone() for name, value in statistics(model).items()}
    model.eval()
    scores = model.per_seed(model.log_q_y, batch.x_unlabelled, noise["unlabelled"])
    assert all(torch.equal(before[name], value) for name, value in statistics(model).items())
    # A row is scored by itself.
    first = model.per_seed(model.log_q_y, batch.x_unlabelled[:, :1], noise["unlabelled"])
    torch.testing.assert_close(first, scores[:, :1])
    for value in statistics(model).values():
        value.mul_(2).add_(1)
    assert not torch.allclose(scores, model.per_seed(model.log_q_y, batch.x_unlabelled, noise["unlabelled"]))


def test_the_optimiser_moves_parameters_only() -> None:
    model = make("m2", **NORMED)
    held = {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert not held & {id(value) for value in statistics(model).values()}


def test_best_validation_keeps_the_statistics_of_its_epoch(command: Command, tmp_path: Path) -> None:
    words = (*SMOKE, "network.norm=batch", "network.hidden=[24]", "optimizer.lr=0.02")
    assert command(*words, "selection=best_validation", "budget.epochs=5").code == 0
    (curves,) = tmp_path.glob("runs/*/group-0/metrics.csv")
    rows = [line.split(",") for line in curves.read_text().splitlines()]
    errors = [float(row[rows[0].index("validation/error")]) for row in rows[1:]]
    best = errors.index(min(errors)) + 1
    assert best < 5, "the last epoch is the best one: another rate would tell them apart"
    (chosen,) = tmp_path.glob("runs/*/seed-0/weights.safetensors")
    assert command(*words, f"budget.epochs={best}").code == 0
    (other,) = (path for path in tmp_path.glob("runs/*/seed-0/weights.safetensors") if path != chosen)
    one, same = load_file(chosen), load_file(other)
    assert any(name.endswith("running_var") for name in one)
    assert all(torch.equal(one[name], same[name]) for name in one)


# --- Convolutions

SIDE = 12  # the smallest whose maps come down to 1 x 1


@modes
@pytest.mark.parametrize(("kind", "terms"), [("conv", 0), ("conv", 2), ("figueroa", 0)])
def test_every_parameter_of_convolutions_learns_in_both_modes_alike(kind: str, terms: int, mode: str) -> None:
    network = NetworkConfig(name=kind, hidden=[8], norm="batch")
    stage = Stage(ModelConfig("m2", z_dim=2, h_dim=5), network, ObjectiveConfig(class_terms=terms))

    def model(mode: str) -> Any:
        return create(
            stage, x_dim=SIDE**2, num_classes=K, seeds=(4, 0), num_labelled=6, num_unlabelled=30, replicas_mode=mode,
            image=(1, SIDE, SIDE),
        )  # fmt: skip

    own, looped = model(mode), model("loop")
    batch = make_batch(own)
    noise = make_noise(own, batch)
    losses = losses_of(own, batch, noise)
    torch.testing.assert_close(losses, losses_of(looped, batch, noise), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(statistics(own), statistics(looped), rtol=1e-4, atol=1e-5)
    losses["loss"].sum().backward()
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None and parameter.grad.flatten(1).any(1).all(), name
    with torch.autocast("cpu", torch.bfloat16):
        shortened = losses_of(model(mode), batch, noise)["loss"]
    torch.testing.assert_close(shortened, losses["loss"], rtol=0.02, atol=0.02)
    assert own.widest >= 16 * SIDE**2


def test_the_widest_layer_of_a_model_without_convolutions_is_told_too() -> None:
    levels = Stage(ModelConfig("m1", likelihood="categorical"), NetworkConfig(hidden=[9]))
    assert create(levels, x_dim=D, num_classes=K, seeds=(0,), num_labelled=0, num_unlabelled=9).widest == 256 * D
    assert make("m2", network=NetworkConfig(hidden=[9, 7])).widest == 9


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of images, of which a class is a bright column, and the same as flat rows."""
    made, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shape in (("images", (-1, SIDE, SIDE)), ("flat", (-1, SIDE * SIDE)), ("odd", (-1, 9, SIDE * SIDE // 9))):
        (made / name).mkdir()
        for part, number in (("train", 300), ("test", 60)):
            y = np.arange(number) % K
            x = rng.integers(0, 60, (number, SIDE, SIDE), dtype=np.uint8)
            x[np.arange(number), :, 4 * y] = 250
            shard = "-0" if part == "train" else ""
            np.save(made / name / f"{part}-x{shard}.npy", x.reshape(shape))
            np.save(made / name / f"{part}-y{shard}.npy", y.astype(np.int8))
    return made


WORDS = ("data=memmap", "budget=smoke", "labels=30", "trainer.progress=false", "baseline=null", "budget.epochs=1")


@pytest.mark.parametrize("kind", ["conv", "figueroa"])
def test_a_model_of_images_is_trained_and_loaded(
    kind: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("model=m2", f"network={kind}", "network.hidden=[8]", f"data.folder={images / 'images'}", *WORDS)
    fitted = ssl_dgm.fit(*words, "data.pixels=grey", "model.likelihood=mse", "optimizer.lr=0.01", verbose=False)
    x, y = np.load(images / "images" / "test-x.npy"), np.load(images / "images" / "test-y.npy")
    assert np.mean(fitted.predict(x) != y) == pytest.approx(fitted.metrics["test/error"], abs=1e-7)
    assert fitted.sample(3).shape == (3, SIDE, SIDE)
    assert "running_var" in " ".join(load_file(fitted.folder / "seed-0" / "weights.safetensors"))


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        (
            "flat",
            "conv",
            "network.name=conv sees images, but data=memmap has flat rows; write shards of images [n, H, W]",
        ),
        ("odd", "figueroa", "network.name=figueroa does not fit the 9 x 16 images of data=memmap"),
    ],
)
def test_rows_that_are_no_images_are_refused_before_anything_is_written(
    command: Command, images: Path, tmp_path: Path, name: str, kind: str, sentence: str
) -> None:
    outcome = command("model=m2", f"network={kind}", f"data.folder={images / name}", *WORDS)
    assert outcome.code == 2
    assert sentence in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_with_statistics_is_compiled_only_on_demand(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fit, "UPDATES_WORTH_COMPILING", 1)
    monkeypatch.setattr("ssl_dgm.models.base.DeepGenerativeModel.compile_losses", lambda model, say: asked.append(""))
    words = (*SMOKE, "network.hidden=[8]", "budget.epochs=1")
    for norm, compiled in (("batch", "auto"), ("group", "auto"), ("batch", "always")):
        outcome = command(*words, f"network.norm={norm}", f"trainer.compile={compiled}", "force=true")
        assert outcome.code == 0, outcome.err
        asked.append(f"{norm} {compiled}")
    assert asked == ["batch auto", "", "group auto", "", "batch always"]


def test_batch_norm_of_a_single_row_is_refused(command: Command) -> None:
    words = ["model=m1", "classifier=none", "network.norm=batch", "budget.updates_per_epoch=1097"]
    outcome = command(*SMOKE, *words, "budget.unlabelled_per_step=1")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no s.d. of the 1 row of an update; use for example budget.updates_per_epoch=548" in outcome.err
    # A labelled row goes through together with the unlabelled ones.
    assert command(*SMOKE, "network.norm=batch", "network.hidden=[8]", "budget.labelled_per_step=1").code == 0


def test_auxiliary_terms_of_a_single_labelled_row_are_refused(command: Command) -> None:
    outcome = command(*SMOKE, "objective.metric=1", "network.hidden=[8]", "budget.labelled_per_step=1")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "of which there is 1; use budget.labelled_per_step=all" in outcome.err

"""What has to hold of a model whatever its factors are: modes, precisions, and whole runs on the digits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map
from zoo import every_model, losses_of, make, make_batch, make_noise, roughen

from ssl_dgm.config import ObjectiveConfig

Command = Callable[..., Any]
ATTACHED = ObjectiveConfig(assignment=0.5, metric=0.5, neighbours=2, classification=1.0, draws=2)


@every_model
def test_seeds_batched_by_vmap_have_the_losses_and_gradients_of_a_loop(name: str) -> None:
    found = []
    for mode in ("loop", "vmap"):
        model = make(name, mode=mode, objective=ATTACHED)
        roughen(model)
        batch = make_batch(model)
        losses = losses_of(model, batch, make_noise(model, batch, draws=2))
        losses["loss"].sum().backward()
        found.append(losses | {n: p.grad for n, p in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for term, value in found[0].items():
        torch.testing.assert_close(found[1][term], value, rtol=1e-4, atol=1e-4)


@every_model
def test_float32_has_the_losses_of_float64(name: str) -> None:
    model = make(name, objective=ATTACHED)
    roughen(model)
    batch = make_batch(model)
    noise = make_noise(model, batch, draws=2)
    short = losses_of(model, batch, noise)
    double = tree_map(lambda tensor: tensor.double(), (batch, noise))
    long = losses_of(model.double(), *double)
    assert long["loss"].dtype == torch.float64
    for term, value in short.items():
        torch.testing.assert_close(value, long[term].float(), rtol=1e-4, atol=1e-4)


@every_model
def test_a_run_on_the_digits_that_was_stopped_ends_as_one_that_was_not(
    name: str, command: Command, tmp_path: Path
) -> None:
    words = [
        f"model={name}", "data=digits", "budget=smoke", "budget.updates_per_epoch=3", "seeds=[1,4]", "baseline=null",
        "trainer.progress=false", "trainer.compile=never", "prediction_draws=3", "trainer.checkpoint_every=1",
    ]  # fmt: skip
    words += ["classifier=none"] if name == "m1" else []
    words += ["m1.budget.updates_per_epoch=3"] if name == "m1m2" else []
    whole = command(*words, "runs=whole")
    assert whole.code == 0, whole.err
    stopped = command(*words, "runs=parts", "time_limit=0.1s")
    for _ in range(3):  # a stack may be stopped in both of its stages
        stopped = command(*words, "runs=parts", "time_limit=0.1s") if stopped.code else stopped
    finished = command(*words, "runs=parts")
    assert finished.code == 0, finished.err
    for record in (tmp_path / "whole").glob("*/seed-*/result.json"):
        other = json.loads((tmp_path / "parts" / record.relative_to(tmp_path / "whole")).read_text())
        own = json.loads(record.read_text())
        assert own["weights_sha256"] == other["weights_sha256"]
        assert own["metrics"] == other["metrics"]
        assert all(abs(value) < 1e6 for value in own["metrics"].values())
    drawn = "completions" if name == "cvae" else "samples"
    assert list((tmp_path / "whole").glob(f"*/figures/{drawn}.png"))

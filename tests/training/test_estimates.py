"""What a training is said to take, against what it takes."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMOKE, Outcome
from made_jobs import job_of

from ssl_dgm.compose import config_folder
from ssl_dgm.config import INDUCTIVE, TRANSDUCTIVE, UserError
from ssl_dgm.training import estimates

Command = Callable[..., Outcome]
MODELS = sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))
# In a process of its own, since a peak is that of the whole process: a few updates, and how far it rose.
PEAK = """
import re, sys
from pathlib import Path
import torch
from ssl_dgm.training import estimates, fit, generative, jobs
from ssl_dgm.training.jobs import create, data_module, inputs
sys.path[:0] = ["TESTS", "TESTS/.."]
from made_jobs import job_of

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

seeds = list(range(int(sys.argv[1])))
job = job_of(*sys.argv[2:], f"seeds={seeds}")
torch.set_num_threads(1)
fit.keep_freed_memory()
train, _ = inputs(job)
estimate = estimates.update(job, 0).memory(len(seeds))
before = peak()
model = create(job, seeds, train.x_dim)
data = data_module(job, train, seeds)
optimizer = model.configure_optimizers()
for update in range(3):
    f, batch = model.factorisation, data.batch(0, update)
    shapes = {"unlabelled": f.noise_shapes(batch.x_unlabelled.shape[1], 1, enumerate_y=True)}
    shapes["labelled"] = f.noise_shapes(batch.x_labelled.shape[1])
    noise = model.noise(model.noise_streams, **shapes)
    model.per_seed(model.losses, batch, noise, torch.ones(len(seeds)))["loss"].sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print(estimate, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 6])
def test_the_estimate_of_memory_is_near_the_peak_and_not_below_it(seeds: int) -> None:
    wide = ("model=m2", "budget=paper", "network.hidden=[2000]", "budget.updates_per_epoch=4")
    found = subprocess.run(
        [sys.executable, "-c", PEAK.replace("TESTS", str(Path(__file__).parent)), str(seeds), *wide],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    estimate, measured = map(float, found.stdout.split())
    assert 0.9 * measured < estimate < 1.5 * measured


@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*INDUCTIVE, *TRANSDUCTIVE)])
def test_every_model_has_an_estimate_that_grows_with_seeds_and_updates(name: str) -> None:
    job = job_of(f"model={name}", "classifier=none", "budget=smoke")
    one = estimates.update(job, 0)
    larger = estimates.update(
        job_of(f"model={name}", "classifier=none", "budget=smoke", "network.hidden=[2000,2000]"), 0
    )
    assert 0 < one.parameters < larger.parameters
    assert 0 < one.kept < larger.kept
    assert 0 < one.flops < larger.flops
    assert one.memory(1) < one.memory(2) < larger.memory(2)
    assert one.fitting(one.memory(3) / estimates.SHARE + 1) == 3
    assert one.fitting(0) == 1


def test_the_arithmetic_is_counted_exactly() -> None:
    job = job_of("model=m1", "classifier=none", "budget=smoke", "network.hidden=[7]", "model.z_dim=3")
    rows, d, h, z = 1097 // 20, 64, 7, 3
    weights = (d * h + 2 * h * z) + (z * h + h * d)
    # Forward, and back to the weights and to what each layer reads, of which x needs no gradient.
    assert estimates.update(job, 0).flops == 2 * rows * (3 * weights - d * h)


def test_what_would_not_fit_is_split_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    job = dataclasses.replace(job_of("model=m2", "budget=smoke", "seeds=[0,1,2,3]"), say=said.append)
    one = estimates.update(job, 0)
    assert estimates.seeds_at_once(job, [0, 1, 2, 3], 4) == 4
    (line,) = said
    assert line.startswith("about ")
    assert " of memory for 4 seeds at once; 40 updates of " in line
    monkeypatch.setattr(estimates, "free_memory", lambda device: int(2 * one.memory(2) / estimates.SHARE) + 2)
    assert estimates.seeds_at_once(job, [0, 1, 2, 3], 4, processes=2) == 2
    assert "trained 2 at once instead, as seeds_at_once=2 does, which gives the same results up to rounding" in said[1]
    monkeypatch.setattr(estimates, "free_memory", lambda device: 1)
    assert estimates.seeds_at_once(job, [0, 1, 2, 3], 4) == 1
    assert any("one seed takes about" in line and "may run out of memory" in line for line in said)


def test_memory_that_runs_out_is_one_sentence_with_the_remedies(command: Command, tmp_path: Path) -> None:
    job = job_of("model=m2", "budget=smoke", "seeds=[0,1]")
    remedies = r"2 seeds at once do not fit .* use seeds_at_once=1, or smaller batches, .* budget.updates_per_epoch=40"
    with pytest.raises(UserError, match=remedies), estimates.memory_errors(job, [0, 1]):
        torch.empty(10**15)
    with pytest.raises(UserError, match="use smaller batches"), estimates.memory_errors(job, [0]):
        np.empty(10**15)
    with pytest.raises(RuntimeError, match="must match"), estimates.memory_errors(job, [0]):
        torch.ones(2) + torch.ones(3)
    outcome = command(*SMOKE, "network.hidden=[2000000000]")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "one seed does not fit into the memory of cpu; use smaller batches, for example budget.upd" in outcome.err


def test_a_long_training_says_when_it_will_be_ready(command: Command) -> None:
    outcome = command(*SMOKE, "budget.epochs=100000", "time_limit=2s")
    assert re.search(r"about \d+ (min|h .*) for 100,000 epochs, ready at ", outcome.out), outcome.out
    assert "ready at" not in command(*SMOKE).out


@pytest.mark.parametrize(
    ("epochs", "told"),
    [
        ([300.0] * 5, []),
        ([300.0, 75.0, 75.0, 75.0, 75.0], ["about 24 min for the other 19 epochs, ready at "]),
        ([300.0, 900.0, 900.0], ["about 4 h 45 min for the other 19"]),
        ([300.0, 300.0, 200.0, 100.0, 100.0], ["about 42 min for the other 17 epochs, ready at "]),
        ([300.0, 150.0, 60.0, 60.0, 60.0], ["about 48 min for the other 19", "about 17 min for the other 17 epochs"]),
    ],
)
def test_later_epochs_correct_what_the_first_updates_made_believe(
    epochs: list[float], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, said = [0.0], []
    monkeypatch.setattr(estimates.time, "monotonic", lambda: clock[0])
    forecast = estimates.Forecast(said.append)
    trainer: Any = SimpleNamespace(max_epochs=21, current_epoch=0, num_training_batches=300)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    for epoch, seconds in enumerate(epochs):
        trainer.current_epoch = epoch
        for batch in range(300):
            clock[0] += seconds / 300
            forecast.on_train_batch_end(trainer, module, None, None, batch)
        forecast.on_train_epoch_end(trainer, module)
    assert said[0].startswith("about 1 h 45 min for 21 epochs, ready at ")
    assert len(said) == 1 + len(told) and all(map(str.startswith, said[1:], told)), said


def test_a_forecast_that_comes_in_the_second_epoch_is_compared_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "WORTH_TELLING", 0.0)
    clock = iter(range(100))
    monkeypatch.setattr(estimates, "_now", lambda _: float(next(clock)))
    said: list[str] = []
    forecast = estimates.Forecast(said.append)
    trainer = SimpleNamespace(num_training_batches=estimates.SKIPPED + 1, max_epochs=9, current_epoch=0)
    module = SimpleNamespace(device=torch.device("cpu"))
    for epoch in range(2):
        trainer.current_epoch = epoch
        for _ in range(estimates.SKIPPED + estimates.TIMED // 2 + 1):
            forecast.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
        forecast.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    assert len(said) >= 1

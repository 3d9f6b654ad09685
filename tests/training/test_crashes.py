"""Runs that are interrupted, damaged or numerically broken, as real processes where the end is sudden."""

import csv
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
from conftest import SMOKE, Outcome, start_process

from ssl_dgm.files import read_json
from ssl_dgm.training import checkpoints

Command = Callable[..., Outcome]
Start = Callable[..., subprocess.Popen[str]]
EPOCHS = 24
# With running statistics, which are a state that no optimiser keeps.
LONG = (
    *SMOKE, "seeds=[0,1]", "network.hidden=[24]", "network.norm=batch", f"budget.epochs={EPOCHS}",
    "trainer.checkpoint_every=2",
)  # fmt: skip


def wait_for(pattern: str, folder: Path, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert time.monotonic() < limit, f"no {pattern} came"
        time.sleep(0.02)


def trained(folder: Path) -> tuple[list[bytes], list[dict[str, str]], list[dict[str, float]]]:
    """What a run computed: weights, curves without their seconds, metrics."""
    weights = [path.read_bytes() for path in sorted(folder.glob("*/seed-*/weights.safetensors"))]
    curves = []
    for path in sorted(folder.glob("*/group-*/metrics.csv")):
        with open(path) as file:
            curves += [{n: v for n, v in row.items() if n != "seconds"} for row in csv.DictReader(file)]
    return weights, curves, [read_json(p)["metrics"] for p in sorted(folder.glob("*/seed-*/result.json"))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    _, err = (run := start_process(folder, *LONG)).communicate()
    assert run.returncode == 0, err
    return folder / "runs"


def test_killed_and_resumed_is_bit_equal_to_uninterrupted(process: Start, tmp_path: Path, undisturbed: Path) -> None:
    for epoch in (4, 14):
        run = process(*LONG)
        wait_for(f"runs/*/group-0-1/epoch-{epoch}.*.ckpt", tmp_path)
        run.kill()
        run.communicate()
    assert not list(tmp_path.glob("runs/*/seed-*")), "it was killed before its end"
    out, err = process(*LONG).communicate()
    assert "resuming" in out, err
    assert trained(tmp_path / "runs") == trained(undisturbed)
    assert len(trained(undisturbed)[1]) == 2 * EPOCHS


@pytest.mark.parametrize(("longest", "epochs"), [(3600.0, []), (0.0, [1, 2, 3])])
def test_long_epochs_have_a_checkpoint_each(
    longest: float, epochs: list[int], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], checkpoints.Checkpoint.save

    def seen(self: checkpoints.Checkpoint, trainer: pl.Trainer) -> None:
        save(self, trainer)
        saved.append(trainer.current_epoch + 1)

    monkeypatch.setattr(checkpoints.Checkpoint, "save", seen)
    monkeypatch.setattr(checkpoints, "LONGEST", longest)
    assert command(*SMOKE, "budget.epochs=3", "trainer.checkpoint_every=1000").code == 0
    assert saved == epochs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_cleanly_with_a_checkpoint(
    process: Start, tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    run = process(*LONG, "trainer.checkpoint_every=1000")
    wait_for("runs/*/group-0-1/metrics.csv", tmp_path)
    time.sleep(0.5)
    run.send_signal(number)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "stopped m2 after epoch" in out
    assert f"({number.name}); the same command continues it" in out
    assert len(list(tmp_path.glob("runs/*/group-0-1/*.ckpt"))) == 1
    assert process(*LONG).wait() == 0
    assert trained(tmp_path / "runs") == trained(undisturbed)


def test_a_time_limit_ends_classifiers_between_seeds(command: Command, tmp_path: Path) -> None:
    words = ("model=svm", "data=digits", "labels=100", "seeds=[0,1,2]", "trainer.figures=none")
    outcome = command(*words, "time_limit=0.001s")
    assert outcome.code == 0
    assert "of 3 seeds (time_limit); the same command continues it" in outcome.out
    assert command(*words).code == 0
    assert len(list(tmp_path.glob("runs/svm-*/seed-*/result.json"))) == 3


def test_time_limit_ends_cleanly_and_the_same_command_continues(command: Command, tmp_path: Path) -> None:
    words = (*SMOKE, "budget.epochs=100000", "trainer.checkpoint_every=1000")
    started = time.monotonic()
    outcome = command(*words, "time_limit=3s")
    assert outcome.code == 0, outcome.err
    assert time.monotonic() - started < 10
    assert "(time_limit); the same command continues it" in outcome.out
    assert "resuming" in command(*words, "time_limit=2s").out


def test_a_stack_that_was_begun_on_another_m1_begins_anew(command: Command, tmp_path: Path) -> None:
    words = (*SMOKE, "model=m1m2", "m1.budget.epochs=2", "model.min_unit_sd=0", "budget.epochs=100000")
    assert command(*words, "budget.epochs=1").code == 0  # with the M1, so that time is short of stage 2 alone
    assert "(time_limit); the same command continues it" in command(*words, "time_limit=3s").out
    (of_m1,) = tmp_path.glob("runs/m1-*")
    shutil.rmtree(of_m1)
    # Sums in another order, as on another machine.
    assert command(*words, "budget.epochs=1", "trainer.replicas=vmap").code == 0
    outcome = command(*words, "time_limit=3s")
    assert "was begun on an M1 with other weights than the one that is there now; beginning anew" in outcome.out
    assert "resuming m1m2" not in outcome.out
    outcome = command(*words, "time_limit=3s")
    assert "resuming m1m2" in outcome.out, outcome.err
    assert "anew" not in outcome.out


def test_a_seed_whose_last_update_diverges_is_lost(command: Command, tmp_path: Path) -> None:
    outcome = command(*SMOKE, "optimizer.lr=1e6", "budget.epochs=1", "budget.updates_per_epoch=2")
    assert outcome.code == 1
    assert "seed 0 is lost: its bound is not finite after the last update; lower optimizer.lr" in outcome.out
    assert not list(tmp_path.glob("runs/*/seed-*/result.json"))
    assert "seed 0: its bound is not finite" in next(tmp_path.glob("runs/*/failed.json")).read_text()


def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    command: Command, process: Start, tmp_path: Path, undisturbed: Path
) -> None:
    run = process(*LONG)
    wait_for("runs/*/group-0-1/epoch-6.*.ckpt", tmp_path)
    run.kill()
    run.communicate()
    newest, previous = sorted(
        tmp_path.glob("runs/*/group-0-1/*.ckpt"), key=lambda p: -int(p.name[6:].partition(".")[0])
    )  # fmt: skip
    newest.write_bytes(newest.read_bytes()[:-1000])
    outcome = command(*LONG)
    assert f"{newest.relative_to(tmp_path)} is damaged; going back to the checkpoint before it" in outcome.out
    assert f"after epoch {previous.name[6:].partition('.')[0]} of {EPOCHS}" in outcome.out
    assert trained(tmp_path / "runs") == trained(undisturbed)


def test_a_disk_that_fills_up_loses_nothing(process: Start, tmp_path: Path, undisturbed: Path) -> None:
    # A limit on the size of a file fails a write as a full disk does, and needs no disk of its own.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    run = process(*LONG, preexec_fn=limit)
    out, err = run.communicate()
    assert run.returncode == 2, out
    assert err.count("\n") == 1
    assert "could not be written" in err
    assert not list(tmp_path.glob("runs/*/group-0-1/*.ckpt")), "nothing half-written"
    assert not list(tmp_path.glob("runs/*/group-0-1/.epoch*")), "nothing left behind"
    assert process(*LONG).wait() == 0
    assert trained(tmp_path / "runs") == trained(undisturbed)


def test_two_processes_on_one_run_wait_for_each_other(process: Start, tmp_path: Path, undisturbed: Path) -> None:
    both = [process(*LONG), process(*LONG)]
    outs = [run.communicate()[0] for run in both]
    assert [run.returncode for run in both] == [0, 0]
    assert sum("waiting for another process that is working on m2-digits" in out for out in outs) == 1
    assert sum("finished before: seeds 0, 1" in out for out in outs) == 1
    assert trained(tmp_path / "runs") == trained(undisturbed)
    with open(tmp_path / "runs" / "rows.csv") as file:
        rows = [(row["seed"], row["metric"]) for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows))


def test_a_seed_that_turns_nan_is_named_and_the_others_are_untouched(
    command: Command, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_dgm.models.m2 import M2

    original = M2.on_train_epoch_start

    def poison(self: M2) -> None:
        original(self)
        if self.current_epoch == 3:
            self.factorisation.p["x"].network.heads["logits"].bias.data[1, 0] = float("nan")

    monkeypatch.setattr(M2, "on_train_epoch_start", poison)
    outcome = command(*LONG)
    assert outcome.code == 1
    sentence = "seed 1 is lost: the term unlabelled_p_x became non-finite in epoch 4, update 1; lower optimizer.lr"
    assert sentence in outcome.out
    assert "seed 1 has no result" in outcome.out
    assert [p.parent.name for p in tmp_path.glob("runs/*/seed-*/result.json")] == ["seed-0"]
    assert trained(tmp_path / "runs")[0][0] == trained(undisturbed)[0][0]


def test_all_seeds_lost_stops_the_run_early(command: Command, tmp_path: Path) -> None:
    outcome = command(*LONG, "optimizer.lr=1e30")
    assert outcome.code == 1
    assert "seed 0 is lost" in outcome.out
    assert "seed 1 is lost" in outcome.out
    with open(next(tmp_path.glob("runs/*/group-0-1/metrics.csv"))) as file:
        assert max(int(row["epoch"]) for row in csv.DictReader(file)) < EPOCHS

"""Two processes that share the batches of data=memmap compute what one does, and end together."""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from safetensors.torch import load_file

from ssl_dgm.compose import compose
from ssl_dgm.config import UserError
from ssl_dgm.data import sources
from ssl_dgm.training import ranks

Command = Callable[..., Outcome]
Start = Callable[..., subprocess.Popen[str]]
WORDS = (
    "model=m2", "data=memmap", "budget=smoke", "labels=50", "seeds=[0,1]", "network.hidden=[24]", "baseline=null",
    "trainer.progress=false", "optimizer.clip_norm=1", "budget.labelled_per_step=5", "trainer.checkpoint_every=1",
)  # fmt: skip
TWO = "trainer.devices=2"
LONG = "budget.epochs=12"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The rows of digits as shards, some without a label."""
    made, digits = tmp_path_factory.mktemp("shards"), sources.load("digits")
    assert isinstance(digits.train_x, np.ndarray)
    y = digits.train_y.copy()
    y[100:400] = -1
    for name, part in (("0", slice(0, 500)), ("1", slice(500, None))):
        np.save(made / f"train-x-{name}.npy", digits.train_x[part])
        np.save(made / f"train-y-{name}.npy", y[part])
    np.save(made / "test-x.npy", digits.test_x[:50])
    np.save(made / "test-y.npy", digits.test_y[:50])
    return f"data.folder={made}"


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(path) for path in sorted(folder.glob("*/seed-*/weights.safetensors"))]


def curves(folder: Path) -> list[dict[str, float]]:
    """Of all epochs and seeds, without their seconds."""
    (path,) = folder.glob("*/group-0-1/metrics.csv")
    with open(path) as file:
        return [{n: float(v) for n, v in row.items() if n != "seconds"} for row in csv.DictReader(file)]


def test_two_processes_train_what_one_trains(command: Command, tmp_path: Path, folder: str) -> None:
    # 5 labelled and 59 or so unlabelled rows are no multiples of 2.
    for runs, devices in (("one", "trainer.devices=1"), ("two", TWO)):
        outcome = command(*WORDS, folder, devices, f"runs={runs}", "budget.updates_per_epoch=21")
        assert outcome.code == 0, outcome.err
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not all(torch.equal(one[0][name], two[0][name]) for name in one[0]), "they were one process"
    for a, b in zip(curves(tmp_path / "one"), curves(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(folder: Path, pattern: str, run: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert run.poll() is None and time.monotonic() < limit, f"no {pattern} came"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_signal_or_a_lost_process_ends_both_and_the_same_command_continues(
    command: Command, process: Start, tmp_path: Path, folder: str
) -> None:
    words = (*WORDS, folder, TWO, LONG)
    run = process(*words)
    wait_for(tmp_path, "runs/*/group-0-1/epoch-3.*", run)
    (other,) = children(run.pid)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "(SIGTERM); the same command continues it" in out
    assert not Path(f"/proc/{other}").exists()

    before = max(int(path.name[6:].partition(".")[0]) for path in tmp_path.glob("runs/*/group-0-1/epoch-*.ckpt"))
    run = process(*words)
    wait_for(tmp_path, f"runs/*/group-0-1/epoch-{before + 2}.*", run)
    os.kill(children(run.pid)[0], signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 2, out
    assert "trainer.devices=2: process 1 was ended by SIGKILL; the same command continues" in err
    assert "Traceback" not in err

    outcome = command(*words)
    assert outcome.code == 0 and "resuming" in outcome.out, outcome.err
    assert command(*words, "runs=undisturbed").code == 0
    assert curves(tmp_path / "runs") == curves(tmp_path / "undisturbed")
    for a, b in zip(weights(tmp_path / "runs"), weights(tmp_path / "undisturbed"), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_other_process_ends_when_the_first_is_killed(process: Start, tmp_path: Path, folder: str) -> None:
    run = process(*WORDS, folder, TWO, "budget.epochs=100000", "trainer.checkpoint_every=1000")
    wait_for(tmp_path, "runs/*/group-0-1/metrics.csv", run)
    (other,) = children(run.pid)
    run.kill()
    run.communicate()
    limit = time.monotonic() + 20
    while Path(f"/proc/{other}").exists() and Path(f"/proc/{other}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < limit, "it waits for ever"
        time.sleep(0.05)


def test_seeds_that_are_all_lost_end_both(command: Command, folder: str) -> None:
    outcome = command(*WORDS, folder, TWO, "optimizer.lr=1e30", "optimizer.clip_norm=null", "budget.epochs=100000")
    assert outcome.code == 1, outcome.err
    assert "seed 1 has no result" in outcome.out


def test_a_batch_smaller_than_the_processes_is_refused_at_once(command: Command, tmp_path: Path, folder: str) -> None:
    outcome = command(*WORDS, folder, TWO, "budget.labelled_per_step=1")
    assert outcome.code == 2
    assert "trainer.devices=2 is more than the 1 labelled rows of an update; use trainer.devices=1 or" in outcome.err
    assert "budget.labelled_per_step=2" in outcome.err and not list(tmp_path.glob("runs/*/group-*/*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("data=memmap", "model=m2", "trainer.devices=0"), "trainer.devices=0 is not positive"),
        (("data=memmap", "data.folder=x", "model=m1m2"), "use model=m2, or model=m1 classifier=none"),
        (("data=memmap", "data.folder=x", "model=m1"), "model=m1 classifier=svm keeps q(z | x) of every row"),
        (("data=digits", "data.folder=x"), "data.folder=x is for data=memmap or data=folder"),
        (("data=digits", "trainer.devices=0"), "trainer.devices=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(words)
    assert sentence in str(refused.value)


def test_ranks_are_on_neighbouring_gpus_or_all_on_the_cpu() -> None:
    assert ranks.devices(torch.device("cuda:0"), 2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert ranks.devices(torch.device("cpu"), 2) == [torch.device("cpu")] * 2

"""The seeds of a run over several devices, here processes on a CPU: the files of one, whatever interrupts them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMOKE, Outcome, start_process
from test_crashes import trained

from ssl_dgm.training import devices

Command = Callable[..., Outcome]
pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
EPOCHS = 40
LONG = (*SMOKE, "seeds=[0,1,2]", "network.hidden=[24]", f"budget.epochs={EPOCHS}", "trainer.checkpoint_every=4")
SHARED = (*LONG, "device=cpu", "trainer.devices=2")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return start_process(folder, *words, start_new_session=True)


def ended(run: subprocess.Popen[str]) -> Outcome:
    out, err = run.communicate(timeout=300)
    return Outcome(run.returncode, out, err)


def wait_until(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit, f"it did not come that {what}"
        time.sleep(0.02)


def training(folder: Path, epochs: int = 1) -> list[Path]:
    """The curves of the two groups, once both have come so far."""
    curves = list(folder.glob("runs/*/group-*/metrics.csv"))
    return curves if len(curves) == 2 and all(path.read_text().count("\n") > 2 * epochs for path in curves) else []


def workers(folder: Path) -> dict[int, int]:
    """The parent's number of every process that works in a folder, orphans too, but for this one."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == str(folder) and path.name != str(os.getpid()):
                found[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended, or is not ours
            continue
    return found


@pytest.mark.slow
def test_a_stack_over_two_devices_leaves_the_files_of_one(command: Command, tmp_path: Path) -> None:
    words = (*SMOKE, "model=m1m2", "seeds=[0,1,2]", "device=cpu")
    files, computed = [], []
    for runs, more in (("two", ("trainer.devices=2",)), ("one", ("seeds_at_once=2",))):
        outcome = command(*words, f"runs={runs}", *more)
        assert outcome.code == 0, outcome.err
        paths = [path.relative_to(tmp_path / runs) for path in (tmp_path / runs).rglob("*") if path.is_file()]
        files.append(sorted(map(str, paths)))
        computed.append(trained(tmp_path / runs))
    assert files[0] == files[1]
    assert computed[0] == computed[1]
    assert sum("group-0-1/" in name for name in files[0]) == 1


@pytest.mark.slow
def test_a_signal_and_a_killed_worker_are_told_and_the_same_command_finishes(command: Command, tmp_path: Path) -> None:
    # The same groups one after the other, with one thread as each process has it.
    assert command(*LONG, "seeds_at_once=2", "runs=one").code == 0
    run = start(tmp_path, *SHARED, "trainer.checkpoint_every=1000")
    wait_until(lambda: training(tmp_path), "both groups were in training")
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends Ctrl-C
    outcome = ended(run)
    assert outcome.code == 0, outcome.err
    assert "stopped m2 on 2 devices (SIGINT); the same command continues it" in outcome.out
    assert "Traceback" not in outcome.err
    assert {path.parent.name for path in tmp_path.glob("runs/*/group-*/*.ckpt")} == {"group-0-1", "group-2"}
    assert not workers(tmp_path)

    run = start(tmp_path, *SHARED)
    wait_until(lambda: len(workers(tmp_path)) == 3, "two workers were started")
    # It imports torch for seconds: none is in training yet.
    victim = min(pid for pid, parent in workers(tmp_path).items() if parent == run.pid)
    os.kill(victim, signal.SIGKILL)
    outcome = ended(run)
    assert outcome.code == 1, outcome.out
    reason = "its process ended with SIGKILL; the same command continues it"
    assert f": {reason}" in outcome.out
    assert "has no result" in outcome.out
    assert len(list(tmp_path.glob("runs/*/seed-*/result.json"))) in (1, 2), "the other group was finished"
    assert len(list(tmp_path.glob("runs/*/failed.json"))) == 1

    outcome = ended(start(tmp_path, *SHARED))
    assert outcome.code == 0, outcome.err
    assert "resuming" in outcome.out
    assert trained(tmp_path / "runs") == trained(tmp_path / "one")
    assert not list(tmp_path.glob("runs/*/failed.json"))


@pytest.mark.slow
def test_workers_end_with_a_killed_parent_and_leave_their_checkpoints(tmp_path: Path) -> None:
    run = start(tmp_path, *SHARED, "budget.epochs=100000")
    wait_until(lambda: training(tmp_path, epochs=4), "both groups were in training")
    run.kill()
    run.communicate()
    began = time.monotonic()
    wait_until(lambda: not workers(tmp_path), "the workers ended")
    assert time.monotonic() - began < 5
    (folder,) = tmp_path.glob("runs/*/")
    assert sorted(devices.begun(folder, [0, 1, 2], 10)) == [[0, 1], [2]]


@pytest.mark.slow
def test_what_a_worker_is_refused_for_is_told_as_by_one_process(command: Command, tmp_path: Path) -> None:
    outcome = command(*SHARED, "network.hidden=[2000000000]")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("ssl_dgm: one seed does not fit into the memory of cpu; use smaller batches")
    assert len(list(tmp_path.glob("runs/*/failed.json"))) == 1


@pytest.mark.slow
def test_a_time_limit_stops_every_group_after_an_epoch(command: Command, tmp_path: Path) -> None:
    outcome = command(*SHARED, "budget.epochs=100000", "time_limit=1s")
    assert outcome.code == 0, outcome.err
    assert "stopped m2 on 2 devices (time_limit); the same command continues it" in outcome.out
    assert {path.name[:8] for path in tmp_path.glob("runs/*/group-*/*.ckpt")} == {"epoch-1."}
    assert len(list(tmp_path.glob("runs/*/group-*/*.ckpt"))) == 2


def test_more_devices_than_there_are_are_refused_before_anything_is_written(command: Command, tmp_path: Path) -> None:
    outcome = command(*SMOKE, "seeds=[0,1]", "device=cpu", "trainer.devices=4096")
    assert outcome.code == 2
    assert "trainer.devices=4096 is more than the" in outcome.err
    outcome = command(*SMOKE, "seeds=[0,1]", "device=cpu:0", "trainer.devices=2")
    assert outcome.code == 2
    assert "device=cpu:0 is one device but trainer.devices=2; use device=cpu for the first 2" in outcome.err
    assert not list(tmp_path.iterdir())


def test_groups_with_a_checkpoint_are_continued_as_they_were(tmp_path: Path) -> None:
    for name in (
        "group-0-1/epoch-4.x.ckpt",
        "group-1-2/epoch-2.x.ckpt",
        "group-3/metrics.csv",
        "group-4-5/epoch-6.x.ckpt",
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert devices.begun(tmp_path, [0, 1, 2, 3, 4, 5], 10) == [[4, 5], [0, 1]]
    assert devices.begun(tmp_path, [0, 1, 2, 3, 5], 10) == [[0, 1]], "4 is finished"
    assert devices.begun(tmp_path, [0, 1, 2, 3, 4, 5], 1) == []

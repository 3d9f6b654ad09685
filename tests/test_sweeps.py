"""Sweeps (-m) as real processes: whichever launcher, the rows of the single runs; jobs that fail alone."""

import csv
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import start_process

from ssl_dgm import train
from ssl_dgm.files import read_json

TINY = ("data=digits", "budget=smoke", "baseline=null", "trainer.progress=false", "network.hidden=[24]", "seeds=[0,1]")
MODELS, LABELS = ("m2", "m1m2"), (50, 100)
# The checkout may move on while the tests run, and its commit with it.
NOT_COMPUTED = ("train_seconds", "finished", "git_commit", "checksum")
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local",),
    "ray": ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
}


def computed(folder: Path) -> list[tuple[str, ...]]:
    """The rows of a folder without what differs from one run to the next."""
    with open(folder / "runs" / "rows.csv", newline="") as file:
        return [tuple(v for n, v in row.items() if n not in NOT_COMPUTED) for row in csv.DictReader(file)]


def sweep(folder: Path, *words: str) -> tuple[int, str, str]:
    out, err = (process := start_process(folder, "-m", *words)).communicate()
    return process.returncode, out, err


def names(paths: Iterable[Path]) -> set[str]:
    return {path.name for path in paths}


@pytest.fixture(scope="module")
def single_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every job was a command of its own; here in one process, which imports torch once."""
    folder = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model, labels in itertools.product(MODELS, LABELS):
            patch.setattr(sys, "argv", ["ssl_dgm.train", *TINY, f"model={model}", f"labels={labels}"])
            with pytest.raises(SystemExit, match=r"^0$"):
                train.main()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [pytest.param(name, marks=[pytest.mark.ray] * (name == "ray")) for name in LAUNCHERS]
)
def test_a_sweep_leaves_exactly_the_rows_of_the_single_runs(launcher: str, tmp_path: Path, single_runs: Path) -> None:
    if launcher == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    models, labels = f"model={','.join(MODELS)}", f"labels={','.join(map(str, LABELS))}"
    code, out, err = sweep(tmp_path, *TINY, models, labels, *LAUNCHERS[launcher])
    assert code == 0, out + err
    expected = computed(single_runs)
    # Jobs at the same time end in any order.
    assert sorted(computed(tmp_path)) == sorted(expected)
    assert launcher != "basic" or computed(tmp_path) == expected
    assert names(tmp_path.iterdir()) == {"runs"}
    kept = names((single_runs / "runs").iterdir())
    launchers_own = {".submitit"} if launcher == "submitit" else set()
    assert names((tmp_path / "runs").iterdir()) == kept | launchers_own | {"multirun.yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_refused_job_keeps_its_reason_and_the_others_are_carried_out(
    launcher: str, tmp_path: Path, single_runs: Path
) -> None:
    code, out, err = sweep(tmp_path, *TINY, "model=m2", "labels=50,105,100", *LAUNCHERS[launcher])
    assert code == 1, out + err
    reason = "labels=105 is not a multiple of the 10 classes of digits; use 100 or 110"
    assert f"model=m2 labels=105 failed: {reason}" in err.replace("'", "").replace(" seeds=[0,1]", "")
    assert "a job of the sweep failed, as told above; the others were carried out" in err
    assert "Traceback" not in out + err
    (failed,) = tmp_path.glob("runs/*/failed.json")
    assert failed.parent.name.startswith("m2-digits-105-smoke-")
    assert read_json(failed)["reason"] == reason
    assert sorted(computed(tmp_path)) == sorted(row for row in computed(single_runs) if "m2" in row)


@pytest.mark.slow
def test_a_job_that_breaks_in_the_middle_keeps_its_traceback(tmp_path: Path, single_runs: Path) -> None:
    (broken,) = single_runs.glob("runs/m2-digits-50-smoke-*")
    # A folder where the training writes its curve: permissions would not stop a superuser.
    (tmp_path / "runs" / broken.name / "group-0-1" / "metrics.csv").mkdir(parents=True)
    code, out, err = sweep(tmp_path, *TINY, "model=m2", "labels=50,100")
    assert code == 1, out + err
    kept = read_json(tmp_path / "runs" / broken.name / "failed.json")
    assert kept["reason"].startswith("IsADirectoryError: ")
    assert kept["traceback"][0].startswith("Traceback")
    assert "in on_train_start" in "".join(kept["traceback"])
    assert kept["traceback"][-1] == kept["reason"]
    assert f"failed: {kept['reason']}" in err
    assert computed(tmp_path) == [row for row in computed(single_runs) if {"m2", "100"} <= set(row)]
    (tmp_path / "runs" / broken.name / "group-0-1" / "metrics.csv").rmdir()
    code, out, err = sweep(tmp_path, *TINY, "model=m2", "labels=50,100")
    assert code == 0, out + err
    assert "finished before: seeds 0, 1 of m2-digits-100-smoke" in out
    assert not list(tmp_path.glob("runs/*/failed.json")), "the reason is gone once the job succeeds"
    assert sorted(computed(tmp_path)) == sorted(row for row in computed(single_runs) if "m2" in row)


@pytest.mark.parametrize(("words", "world"), [(("trainer.devices=2",), ""), ((), "2")], ids=["devices", "WORLD_SIZE"])
def test_a_sweep_over_several_processes_per_job_is_refused(
    words: tuple[str, ...], world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    code, out, err = sweep(tmp_path, *TINY, "model=m2", "labels=50,100", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), out + err
    asked = words[0] if words else f"WORLD_SIZE={world}"
    assert err.startswith(f"ssl_dgm: {asked} asks for several processes in every job of a sweep")
    assert os.listdir(tmp_path) == []

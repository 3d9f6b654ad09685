"""What Weights & Biases and TensorBoard are given, read from the files that they keep, without an account."""

import csv
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import SMOKE, Outcome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

import ssl_dgm
from ssl_dgm import train
from ssl_dgm.files import read_json
from ssl_dgm.records import read_curves

Command = Callable[..., Outcome]
Start = Callable[..., subprocess.Popen[str]]
EPOCHS = 8
WORDS = (*SMOKE, "seeds=[0,1]", "network.hidden=[24]", f"budget.epochs={EPOCHS}", "selection=best_validation")
NOT_COMPUTED = ("train_seconds", "finished", "git_commit", "checksum")
LOGGERS = ("csv", "wandb", "tensorboard")


@pytest.fixture(scope="module", autouse=True)
def no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / ".netrc"))
        yield


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The working directory of the same command with every logger."""
    folders = {}
    for name in LOGGERS:
        folders[name] = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folders[name])
            patch.setattr(sys, "argv", ["ssl_dgm.train", *WORDS, f"logger={name}"])
            with pytest.raises(SystemExit, match="0"):
                train.main()
    return folders


class Offline(NamedTuple):
    """A run of Weights & Biases as its offline file holds it."""

    folder: Path
    run: Any
    config: dict[str, Any]
    history: dict[int, dict[str, Any]]  # by step
    summary: dict[str, Any]
    exit_code: int


def scan(path: Path) -> Iterator[Record]:
    """The records of a .wandb file: LevelDB's log format, with zlib's CRC-32 over the kind and the data."""
    raw, at, parts = path.read_bytes(), 7, b""
    assert raw[:4] == b":W&B"
    while at + 7 <= len(raw):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        crc, size, kind = struct.unpack_from("<IHB", raw, at)
        data = raw[at + 7 : at + 7 + size]
        assert zlib.crc32(data, zlib.crc32(bytes([kind]))) == crc
        parts, at = parts + data, at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline_runs(folder: Path) -> dict[int, list[Offline]]:
    """The offline runs in a run's folder, by seed, the oldest first."""
    found: dict[int, list[Offline]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns):
        records = list(scan(path))
        (run,) = [record.run for record in records if record.HasField("run")]
        history = {record.history.step.num: values(record.history.item) for record in records if record.history.item}
        summary: dict[str, Any] = {}
        for record in records:
            summary |= values(record.summary.update)
        (exit_code,) = [record.exit.exit_code for record in records if record.HasField("exit")]
        config = values(run.config.update)
        found.setdefault(config["seed"], []).append(Offline(path.parent, run, config, history, summary, exit_code))
    return found


def events(folder: Path, seed: int) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / f"seed-{seed}"), {"scalars": 0, "images": 0}).Reload()


def run_folder(working_directory: Path) -> Path:
    (folder,) = working_directory.glob("runs/m2-*")
    return folder


def curve(folder: Path, seed: int) -> dict[int, dict[str, float]]:
    """The scalars of a seed in metrics.csv, by epoch."""
    rows = [row for path in folder.glob("group-*/metrics.csv") for row in read_curves(path) if row["seed"] == seed]
    return {row["epoch"]: {n: v for n, v in row.items() if n not in ("epoch", "seed") and v != ""} for row in rows}


def metrics(folder: Path, seed: int) -> dict[str, float]:
    return read_json(folder / f"seed-{seed}" / "result.json")["metrics"]


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row of a history without wandb's own columns and pictures."""
    return {n: v for n, v in row.items() if not n.startswith("_") and "." not in n}


def test_wandb_keeps_an_offline_run_per_seed_in_the_runs_own_folder(logged: dict[str, Path]) -> None:
    assert os.listdir(logged["wandb"]) == ["runs"]
    folder = run_folder(logged["wandb"])
    assert list(logged["wandb"].rglob("wandb")) == [folder / "wandb"]
    kept = offline_runs(folder)
    assert {seed: len(runs) for seed, runs in kept.items()} == {0: 1, 1: 1}
    for seed, (one,) in kept.items():
        assert (one.run.project, one.run.run_id) == ("ssl_dgm", f"{folder.name}-seed-{seed}")
        assert one.run.display_name == one.run.run_id
        assert one.run.run_group == folder.name, "no experiment was named"
        assert one.config["labels"] == 100
        assert one.config["seeds"] == [0, 1]
        assert one.config["network"]["hidden"] == [24]
        assert one.exit_code == 0


def test_wandb_has_the_scalars_of_the_runs_own_files(logged: dict[str, Path]) -> None:
    folder = run_folder(logged["wandb"])
    for seed, (one,) in offline_runs(folder).items():
        history = {step: scalars(row) for step, row in one.history.items()}
        assert {step: row for step, row in history.items() if row} == curve(folder, seed), "the steps are the epochs"
        assert list(curve(folder, seed)) == [*range(1, EPOCHS + 1)]
        assert {"train/bound_unlabelled", "validation/error"} <= set(history[1])
        result = metrics(folder, seed)
        # Also where the best epoch is not the last, whose scores come later than none of the result's.
        assert {name: one.summary[name] for name in result} == result
        assert {"test/error", "test/bound"} <= set(result)


def test_wandb_has_the_pictures(logged: dict[str, Path]) -> None:
    folder = run_folder(logged["wandb"])
    for (one,) in offline_runs(folder).values():
        for name in ("samples", "curves"):
            picture = one.folder / "files" / one.summary[f"{name}.path"]
            assert picture.read_bytes() == (folder / "figures" / f"{name}.png").read_bytes()


def test_tensorboard_has_the_scalars_and_pictures_of_the_runs_own_files(logged: dict[str, Path]) -> None:
    assert os.listdir(logged["tensorboard"]) == ["runs"]
    folder = run_folder(logged["tensorboard"])
    for seed in (0, 1):
        found, expected, result = events(folder, seed), curve(folder, seed), metrics(folder, seed)
        assert set(found.Tags()["scalars"]) == set(expected[1]) | set(result)
        for name in expected[1]:
            by_epoch = [(event.step, np.float32(event.value)) for event in found.Scalars(name)][:EPOCHS]
            assert by_epoch == [(epoch, np.float32(row[name])) for epoch, row in expected.items()]
        for name, value in result.items():
            last = found.Scalars(name)[-1]
            assert (last.step, np.float32(last.value)) == (EPOCHS, np.float32(value))
        assert set(found.Tags()["images"]) == {"samples", "curves", "confusion"}
        (samples,) = found.Images("samples")
        assert samples.encoded_image_string.startswith(b"\x89PNG")
        assert min(samples.width, samples.height) > 100


def test_the_logger_changes_nothing_that_is_computed_or_how_it_is_called(logged: dict[str, Path]) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with open(logged[name] / "runs" / "rows.csv", newline="") as file:
            return [{n: v for n, v in row.items() if n not in NOT_COMPUTED} for row in csv.DictReader(file)]

    folders = {name: run_folder(logged[name]) for name in LOGGERS}
    assert len({folder.name for folder in folders.values()}) == 1, "the logger is no part of the key"
    for name in ("wandb", "tensorboard"):
        assert rows(name) == rows("csv")
        for seed in (0, 1):
            weights = [folders[n] / f"seed-{seed}" / "weights.safetensors" for n in ("csv", name)]
            assert weights[0].read_bytes() == weights[1].read_bytes()
    called = {row["metric"] for row in rows("csv")}
    (one,) = offline_runs(folders["wandb"])[0]
    assert called == set(metrics(folders["csv"], 0))
    assert called <= set(events(folders["tensorboard"], 0).Tags()["scalars"])
    assert called <= set(one.summary)


def test_the_group_is_the_experiment_or_what_is_asked_for(command: Command, tmp_path: Path) -> None:
    words = (
        *SMOKE[1:],
        "experiment=jonemeth_m2",
        "budget.name=smoke",
        "network.hidden=[24]",
        "budget.epochs=1",
        "logger=wandb",
    )
    for group, asked in (("jonemeth_m2", ()), ("table1", ("logger.group=table1",))):
        runs = f"runs={group}"
        outcome = command(*words, *asked, runs)
        assert outcome.code == 0, outcome.err
        (folder,) = tmp_path.glob(f"{group}/m2-*")
        (one,) = offline_runs(folder)[0]
        assert one.run.run_group == group


def test_an_estimator_without_epochs_logs_its_result(command: Command, tmp_path: Path) -> None:
    words = ("model=nn", "data=digits", "baseline=null", "network.hidden=[24]", "logger=wandb", "trainer.figures=none")
    assert command(*words).code == 0
    (folder,) = tmp_path.glob("runs/nn-*")
    (one,) = offline_runs(folder)[0]
    assert not any(scalars(row) for row in one.history.values())
    assert {name: one.summary[name] for name in metrics(folder, 0)} == metrics(folder, 0)


def test_a_stopped_and_continued_run_logs_every_epoch(command: Command, tmp_path: Path) -> None:
    for stop in (("time_limit=0.01s",), ("time_limit=0.01s",), ()):
        outcome = command(*WORDS, *stop, "logger=wandb")
        assert outcome.code == 0, outcome.err
    folder = run_folder(tmp_path)
    for seed, runs in offline_runs(folder).items():
        assert [one.exit_code for one in runs] == [0, 0, 0], "a run that is to be continued has not failed"
        logged = [(step, scalars(row)) for one in runs for step, row in one.history.items() if scalars(row)]
        assert logged == list(curve(folder, seed).items())
        assert [step for step, _ in logged] == [*range(1, EPOCHS + 1)]
        assert ["test/error" in one.summary for one in runs] == [False, False, True]


def test_a_killed_and_continued_run_has_every_epoch_in_tensorboard(
    command: Command, process: Start, tmp_path: Path
) -> None:
    words = (*WORDS, "budget.epochs=24", "trainer.checkpoint_every=2", "logger=tensorboard")
    run = process(*words)
    while not list(tmp_path.glob("runs/*/group-0-1/epoch-4.*.ckpt")):
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.communicate()
    folder = run_folder(tmp_path)
    assert not list(folder.glob("seed-*")), "it was killed before its end"
    outcome = command(*words)
    assert "resuming" in outcome.out, outcome.err
    for seed in (0, 1):
        found = {event.step: np.float32(event.value) for event in events(folder, seed).Scalars("train/loss")}
        assert found == {epoch: np.float32(row["train/loss"]) for epoch, row in curve(folder, seed).items()}
        assert sorted(found) == [*range(1, 25)]


def test_a_lost_seed_is_a_failed_run(command: Command, tmp_path: Path) -> None:
    assert command(*WORDS, "logger=wandb", "optimizer.lr=1e30").code == 1
    for (one,) in offline_runs(run_folder(tmp_path)).values():
        assert one.exit_code == 1
        assert "test/error" not in one.summary


def test_an_error_is_a_failed_run_and_the_same_command_mends_it(command: Command, tmp_path: Path) -> None:
    assert command(*WORDS, "time_limit=0.01s").code == 0
    folder = run_folder(tmp_path)
    in_the_way = folder / "seed-1" / "weights.safetensors"
    in_the_way.mkdir(parents=True)
    assert command(*WORDS, "logger=wandb").code == 2
    in_the_way.rmdir()
    assert command(*WORDS, "logger=wandb").code == 0
    exit_codes = {seed: [one.exit_code for one in runs] for seed, runs in offline_runs(folder).items()}
    assert exit_codes == {0: [0], 1: [1, 0]}, "seed 0 had its result before the error"


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (("logger=wandbb",), {}, "logger=wandbb is unknown; the nearest is wandb"),
        (("logger=wandb", "logger.mode=on"), {}, "logger.mode=on is unknown; the nearest is online"),
        (("logger=wandb", "logger.mode=online"), {}, "logger.mode=online needs an account's key; run 'wandb login'"),
        (("logger=wandb",), {"WANDB_MODE": "online"}, "WANDB_MODE=online needs an account's key; run 'wandb login'"),
    ],
)
def test_a_logger_that_cannot_work_is_refused_before_anything_is_written(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    environment: dict[str, str],
    sentence: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = command(*SMOKE, *words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"ssl_dgm: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_none_ends_with_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    outcome = command(*SMOKE, "logger=wandb")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("ssl_dgm: wandb could not begin a run (WANDB_API_KEY invalid: ")
    assert outcome.err.endswith("); use logger.mode=offline or logger=csv\n")


def test_a_server_that_does_not_answer_ends_with_one_sentence(process: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody is
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    _, err = (run := process(*SMOKE, "logger=wandb")).communicate()
    assert run.returncode == 2, err
    assert "ssl_dgm: wandb could not begin a run (" in err
    assert err.endswith("); use logger.mode=offline or logger=csv\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("package", ["wandb", "tensorboard"])
def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, package: str) -> None:
    # Without its site-packages, Python finds what stands in this folder: all of them but one.
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(pytest.__file__).parent.parent.iterdir():
        if not path.name.startswith(package):
            (site / path.name).symlink_to(path)
    words = [sys.executable, "-S", "-m", "ssl_dgm.train", *SMOKE, f"logger={package}", f"runs={tmp_path}/runs"]
    environment = os.environ | {"PYTHONPATH": f"{Path(ssl_dgm.__file__).parent.parent}:{site}"}
    refused = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    sentence = f"ssl_dgm: logger={package} needs the package {package}; install it with pip install {package}\n"
    assert (refused.returncode, refused.stderr) == (2, sentence)
    assert not (tmp_path / "runs").exists()

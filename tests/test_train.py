"""The command line: what it prints, what it leaves, and the sentence for every bad input."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMOKE, Outcome

from ssl_dgm.data.idx import FILES
from ssl_dgm.files import read_json, sha256_of

Command = Callable[..., Outcome]


def test_the_main_job(command: Command, tmp_path: Path) -> None:
    words = ("model=m1m2", "data=digits", "budget=smoke", "labels=50", "seeds=[0,3]", "trainer.progress=false")
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert "p(z1, y, z2) = p(y) p(z2) p(z1 | y, z2)" in outcome.out
    for line in ("m1m2 ", "nn ", "live units", "test bound", "(n = 2)", "samples.png"):
        assert line in outcome.out
    (folder,) = tmp_path.glob("runs/m1m2-digits-50-smoke-*")
    assert shlex.join(["python", "-m", "ssl_dgm.train", *words]) in (folder / "README.md").read_text()
    for name in (
        "config.json",
        "figures/samples.png",
        "figures/curves.png",
        "group-0-3/metrics.csv",
        "seed-3/split.json",
    ):
        assert (folder / name).stat().st_size > 100
    record = read_json(folder / "seed-3" / "result.json")
    (m1,) = tmp_path.glob("runs/m1-digits-smoke-*/seed-0/weights.safetensors")
    assert record["m1_sha256"] == sha256_of(m1)
    assert record["seed"] == record["split_seed"] == 3
    assert 0 <= record["metrics"]["test/error"] <= 1
    with open(tmp_path / "runs" / "rows.csv") as file:
        rows = list(csv.DictReader(file))
    errors = {(row["model"], row["seed"]): row for row in rows if row["metric"] == "test/error"}
    assert set(errors) == {("m1m2", "0"), ("m1m2", "3"), ("nn", "0"), ("nn", "3")}
    row = errors["m1m2", "3"]
    assert float(row["value"]) == record["metrics"]["test/error"]
    assert row["config_hash"] == folder.name.rpartition("-")[2]
    assert (row["labels"], row["validation_labels"], row["n_test"], row["budget"]) == ("50", "0", "500", "smoke")
    assert not list(tmp_path.rglob("*.ckpt")), "a finished group keeps no checkpoints"


def test_classes_are_left_out_of_a_run(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "objective.class_threshold=0.05", "budget.epochs=20").code == 0
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")
    assert read_json(path)["metrics"]["test/error"] < 0.75


def test_adding_seeds_trains_only_the_new_ones_and_each_is_what_it_is_alone(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "seeds=[0]").code == 0
    (first,) = tmp_path.glob("runs/*/seed-0/result.json")
    before = first.stat().st_mtime_ns
    outcome = command(*SMOKE, "seeds=[0,1]")
    assert "finished before: seed 0" in outcome.out
    assert first.stat().st_mtime_ns == before
    assert sorted(p.name for p in first.parent.parent.glob("group-*")) == ["group-0", "group-1"]
    together = command(*SMOKE, "seeds=[0,1]", "runs=together")
    assert together.code == 0
    for seed in (0, 1):
        (alone,) = tmp_path.glob(f"runs/*/seed-{seed}/split.json")
        (grouped,) = tmp_path.glob(f"together/*/seed-{seed}/split.json")
        assert alone.read_bytes() == grouped.read_bytes()
    assert command(*SMOKE, "seeds=[0]", "force=true").code == 0
    assert first.stat().st_mtime_ns > before


@pytest.mark.parametrize("classifier", ["logistic", "svm", "knn"])
def test_m1_ends_with_a_classifier_on_its_features(command: Command, tmp_path: Path, classifier: str) -> None:
    words = ("model=m1", f"classifier={classifier}", "budget=smoke", "model.min_unit_sd=0", "trainer.progress=false")
    outcome = command(*words, "seeds=[0,1]", "features=mean")
    assert outcome.code == 0, outcome.err
    assert f"m1+{classifier}" in outcome.out
    (folder,) = [p for p in tmp_path.glob("runs/m1-digits-100-smoke-*") if (p / "seed-0").exists()]
    mean = read_json(folder / "seed-1" / "result.json")
    assert mean["metrics"]["test/error"] < 0.85, "features of even a barely trained M1 tell something of the class"
    sampled = command(*words, "seeds=[0,1]", "features=sample")
    assert "finished before: seed 0 of m1-digits-smoke" in sampled.out, "the M1 is trained once"
    assert len(list(tmp_path.glob("runs/m1-digits-100-smoke-*"))) == 2


def test_generative_classification_and_likelihood(command: Command, tmp_path: Path) -> None:
    words = ("data.pixels=sampled", "classify=generative", "generative_samples=3", "likelihood_samples=3")
    words += ("budget.epochs=20",)
    assert command(*SMOKE, *words).code == 0
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")
    metrics = read_json(path)["metrics"]
    assert metrics["test/log_likelihood"] > metrics["test/bound"], "more samples tighten the bound"
    assert metrics["test/error"] < 0.6


def test_a_stack_has_a_bound_and_a_likelihood_of_pixels(command: Command, tmp_path: Path) -> None:
    words = ("model=m1m2", "likelihood_samples=10", "m1.budget.epochs=10", "seeds=[0,1]")
    assert command(*SMOKE, *words).code == 0
    (first,) = tmp_path.glob("runs/m1-*/seed-0/result.json")
    of_m1 = read_json(first)["metrics"]["test/bound"]
    for path in tmp_path.glob("runs/m1m2-*/seed-*/result.json"):
        metrics = read_json(path)["metrics"]
        assert metrics["test/log_likelihood"] > metrics["test/bound"]
        assert abs(metrics["test/bound"] - of_m1) < 0.2 * abs(of_m1), "both are of the same pixels"


def test_best_validation_reports_the_epoch_with_the_lowest_error(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "selection=best_validation", "budget.epochs=8", "seeds=[0,1]").code == 0
    (curve,) = tmp_path.glob("runs/*/group-0-1/metrics.csv")
    with open(curve) as file:
        rows = list(csv.DictReader(file))
    for seed in ("0", "1"):
        record = read_json(curve.parent.parent / f"seed-{seed}" / "result.json")
        best = min(float(row["validation/error"]) for row in rows if row["seed"] == seed)
        assert record["metrics"]["validation/error"] == pytest.approx(best)
        assert record["validation_labels"] == 200


def test_the_bound_of_the_validation_rows_is_that_of_the_final_weights(command: Command, tmp_path: Path) -> None:
    words = ("model=m1", "classifier=none", "optimizer.lr=0.05", "budget.epochs=7")
    ways = {"every": "selection=last", "never": "trainer.validate_every=50", "best": "selection=best_validation"}
    found = {}
    for name, way in ways.items():
        assert command(*SMOKE, *words, way, f"runs={name}").code == 0
        (path,) = tmp_path.glob(f"{name}/*/seed-0/result.json")
        found[name] = read_json(path)["metrics"]
    assert found["never"] == found["every"]
    assert found["never"]["validation/bound"] != found["never"]["test/bound"]
    with open(next(tmp_path.glob("best/*/group-0/metrics.csv"))) as file:
        curve = [float(row["validation/bound"]) for row in csv.DictReader(file)]
    assert max(curve) > curve[-1] + 5, "the last epoch is not the best"
    assert found["best"]["validation/bound"] > found["every"]["validation/bound"] + 5
    assert found["every"]["validation/bound"] == pytest.approx(curve[-1], rel=0.05)


def test_a_baseline_that_fails_costs_the_model_no_row(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "model=knn", "runs=other").code == 0
    (of_knn,) = tmp_path.glob("other/knn-*")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / of_knn.name).write_text("a file where its folder would be")
    outcome = command(*SMOKE, "baseline=knn")
    assert outcome.code == 2, outcome.err
    assert of_knn.name in outcome.err
    with open(tmp_path / "runs" / "rows.csv") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"m2"}


REFUSED = [
    (("model=m3",), "model=m3 is unknown; the nearest is m"),
    (("data=minst",), "data=minst is unknown; the nearest is mnist"),
    (("budget=shrt",), "budget=shrt is unknown; the nearest is short"),
    (("experiment=kingma",), "experiment=kingma"),
    (("lables=100",), "'lables' is not a setting; the nearest is labels"),
    (("labels=ten",), "labels=ten is neither a number nor all; use for example labels=100"),
    (("trainer.progress=maybe",), "trainer.progress=maybe is not true or false; use for example trainer.progress=true"),
    (("seeds=3",), "seeds has a value of the wrong kind; use for example seeds=[0]"),
    (("m1.budget.epochs=x",), "m1.budget.epochs=x is not a whole number"),
    (("labels=105",), "labels=105 is not a multiple of the 10 classes of digits; use 100 or 110"),
    (("labels=5",), "labels=5 is not a multiple of the 10 classes of digits; use 10"),
    (("classes.labelled=[0,10]",), "classes.labelled=[0, 10] names class 10, and digits has the classes 0 to 9"),
    (("classes.hidden=[3]", "labels=100"), "labels=100 is not a multiple of the 9 labelled classes of digits"),
    (("labels=-10",), "labels=-10 is not positive"),
    (("labels=20000",), "labels=20000 is more than"),
    (("seeds=[]",), "seeds=[] names no seed"),
    (("seeds=[0,0]",), "repeats a seed"),
    (("seeds=[0,a]",), "a is not a whole number"),
    (("seeds=[0,1.5]",), "1.5 is not a whole number"),
    (("optimizer.lr=inf",), "optimizer.lr=inf is not a finite number"),
    (("device=cuda:7",), "device=cuda:7 is not on this machine; use cpu"),
    (("device=gpu",), "device=gpu is not on this machine; use cpu"),
    (("device=cpu", "budget.precision=tf32"), "budget.precision=tf32 is a format of GPUs, not of cpu; use 32 or bf16"),
    (("device=cpu", "m1.budget.precision=tf32"), "m1.budget.precision=tf32 is a format of GPUs"),
    (("objective.class_threshold=1.5",), "objective.class_threshold=1.5 is no probability; use for example 0.1, or 0"),
    (
        ("model=m2", "device=cpu", "trainer.compile=always", "objective.class_threshold=0.1"),
        "trainer.compile=always is not possible with objective.class_threshold=0.1 on cpu",
    ),
    (("split.file=nowhere.json",), "split.file=nowhere.json cannot be read"),
    (("data=mnist",), "train-images-idx3-ubyte of mnist is missing from"),
    (("runs=/dev/null/runs",), "could not be written (Not a directory)"),
    (("data.min_pixel_sd=9",), "data.min_pixel_sd=9.0 drops every pixel of digits"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_bad_input_ends_with_one_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    outcome = command("budget=smoke", *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("ssl_dgm: ")
    assert sentence in outcome.err
    assert list(tmp_path.iterdir()) == [], "nothing was left behind"


@pytest.mark.realdata
@pytest.mark.skipif("SSL_DGM_DATA" not in os.environ, reason="SSL_DGM_DATA is not set")
@pytest.mark.parametrize("damage", ["truncated", "corrupted"])
def test_damaged_data_files_are_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in FILES:
        (raw / name).symlink_to(Path(os.environ["SSL_DGM_DATA"]).resolve() / "MNIST" / "raw" / name)
    content = bytearray((raw / FILES[3]).read_bytes())
    content[5000] ^= 1
    (raw / FILES[3]).unlink()
    (raw / FILES[3]).write_bytes(content[:-1] if damage == "truncated" else content)
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    outcome = command("data=mnist", "budget=smoke")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert FILES[3] in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_configuration_is_refused(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE).code == 0
    (folder,) = tmp_path.glob("runs/m2-*")
    assert command(*SMOKE, "optimizer.lr=5e-4").code == 0
    (other,) = [path for path in tmp_path.glob("runs/m2-*") if path != folder]
    shutil.rmtree(other)
    folder.rename(other)
    outcome = command(*SMOKE, "optimizer.lr=5e-4")
    assert outcome.code == 2
    assert "holds a run of another configuration" in outcome.err


def test_a_damaged_record_is_named_and_made_again(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE).code == 0
    (path,) = tmp_path.glob("runs/m2-*/seed-0/result.json")
    whole = json.loads(path.read_text())
    path.write_text(path.read_text().replace('"test/error": 0.', '"test/error": 0.0', 1))
    outcome = command(*SMOKE)
    assert outcome.code == 0
    assert "result.json is damaged: its checksum does not match its content; this seed is run again" in outcome.out
    assert json.loads(path.read_text())["metrics"] == whole["metrics"]


def test_a_published_split_is_used_as_it_is(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "seeds=[5]").code == 0
    (manifest,) = tmp_path.glob("runs/*/seed-5/split.json")
    published = tmp_path / "published.json"
    shutil.copy(manifest, published)
    assert command(*SMOKE, "seeds=[1]", f"split.file={published}").code == 0
    (used,) = tmp_path.glob("runs/*/seed-1/split.json")
    assert used.read_bytes() == manifest.read_bytes()
    hiding = command(*SMOKE, "classes.hidden=[9]", "labels=90", "seeds=[0]", "runs=hiding")
    assert hiding.code == 0, hiding.err
    (partial,) = (tmp_path / "hiding").glob("m2-*/seed-0/split.json")
    refused = command(*SMOKE, "labels=90", f"split.file={partial}").err
    assert "labels no row of class 9, which is not hidden; hide it by classes.hidden=[9]" in refused
    refused = command(*SMOKE, "classes.hidden=[0]", "labels=90", f"split.file={partial}").err
    assert "labels no row of class 9" in refused or "labels rows of class 0, which is hidden" in refused
    assert "labels=50 but" in command(*SMOKE, "labels=50", f"split.file={published}").err
    published.write_bytes(published.read_bytes().replace(b"digits", b"digit5", 1))
    assert "published.json is corrupted" in command(*SMOKE, f"split.file={published}").err


def test_help_shows_examples_that_run(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    assert "python -m ssl_dgm.train model=m1m2 data=mnist labels=100 seeds=[0,1,2]" in outcome.out
    for line in outcome.out.splitlines():
        words = line.split()
        if words[:3] == ["python", "-m", "ssl_dgm.train"]:
            # Of a sweep, its first job.
            shown = [w if "[" in w else w.partition(",")[0] for w in words[3:] if "=" in w]
            assert command(*shown, "--cfg", "job").code == 0, line


def test_it_runs_from_any_directory(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ssl_dgm.train", "--cfg", "job"]
    shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "name: m1m2" in shown.stdout, shown.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_main_job_on_a_gpu(command: Command) -> None:
    outcome = command("model=m1m2", "budget=smoke", "seeds=[0,1]", "device=cuda", "trainer.progress=false")
    assert outcome.code == 0, outcome.err

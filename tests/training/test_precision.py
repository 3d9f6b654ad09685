"""bfloat16 where the CPU multiplies in it, and float32 in its place where it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMOKE, Outcome

from ssl_dgm.training import precision

Command = Callable[..., Outcome]
REPLACED = "this CPU has no bfloat16 products, so that bf16 would be many times slower: they are made in float32"


def trained(command: Command, folder: Path, *words: str) -> tuple[str, list[str], str]:
    """What a run says, its curve without the seconds, and the device in its record."""
    outcome = command(*SMOKE, f"runs={folder}", *words)
    assert outcome.code == 0, outcome.err
    (run,) = (path.parent.parent for path in folder.glob("*/seed-0/result.json"))
    lines = (run / "group-0" / "metrics.csv").read_text().splitlines()
    curve = [",".join(line.split(",")[:2] + line.split(",")[3:]) for line in lines]
    return outcome.out, curve, json.loads((run / "seed-0" / "result.json").read_text())["device"]


def test_without_bfloat16_products_a_run_is_that_of_float32_and_says_so(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(command, tmp_path / "32", "budget.precision=32")
    assert REPLACED not in whole[0]
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    said, curve, device = trained(command, tmp_path / "replaced", "budget.precision=bf16")
    assert said.count(REPLACED) == 1
    assert curve == whole[1]
    assert (device, whole[2]) == ("cpu (bf16 as float32)", "cpu")
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    said, curve, device = trained(command, tmp_path / "bf16", "budget.precision=bf16")
    assert REPLACED not in said
    assert curve != whole[1]
    assert device == "cpu"


def test_a_classifier_on_features_is_no_matter_of_bfloat16(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    outcome = command(*SMOKE, "model=m1", "classifier=knn", "labels=100", "budget.precision=bf16", f"runs={tmp_path}")
    assert outcome.code == 0, outcome.err
    records = (json.loads(path.read_text()) for path in tmp_path.glob("*/seed-0/result.json"))
    assert {record["model"]: record["device"] for record in records} == {"m1": "cpu (bf16 as float32)", "m1+knn": "cpu"}


def test_only_a_cpu_without_bfloat16_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for there in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda there=there: there)
        assert precision.of_products("bf16", gpu) == "bf16"
        assert precision.of_products("bf16", cpu) == ("bf16" if there else "32")
        assert precision.of_products("32", cpu) == "32"

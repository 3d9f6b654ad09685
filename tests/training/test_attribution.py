"""Runs whose slots are attributed to classes: what they record, and that nothing else changes for the others."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SMOKE, Outcome

import ssl_dgm
from ssl_dgm.data import sources
from ssl_dgm.files import read_json

Command = Callable[..., Outcome]
HIDDEN = ("labels=50", "classes.hidden=[3,4,5,6,7]", "classes.extra=5", "budget.epochs=8")
OF_CLASSES = ("", "_labelled_classes", "_hidden_classes")


def test_a_semi_unsupervised_run(command: Command, tmp_path: Path) -> None:
    outcome = command(*SMOKE, *HIDDEN, "seeds=[0,1]", "selection=best_validation")
    assert outcome.code == 0, outcome.err
    (folder,) = tmp_path.glob("runs/m2-digits-50-*")
    assert (folder / "figures" / "confusion.png").stat().st_size > 1000
    curve = validation_errors(folder)
    for seed in (0, 1):
        record = read_json(folder / f"seed-{seed}" / "result.json")
        metrics, attribution = record["metrics"], np.array(record["attribution"])
        expected = {f"{part}/accuracy{of}" for part in ("validation", "test") for of in OF_CLASSES}
        expected |= {f"test/accuracy{of}_test_attributed" for of in OF_CLASSES}
        expected |= {"validation/error", "test/error", "test/entropy_y", "test/slots_used", "test/bound"}
        assert set(metrics) == expected
        assert record["validation_labels"] == 200, "they say what the slots mean"
        assert 0 < metrics["test/entropy_y"] <= np.log(15) + 1e-6
        lines = list(csv.reader((folder / f"seed-{seed}" / "confusion.csv").open()))
        counts = np.array([line[1:] for line in lines[1:-1]], int)
        assert counts.shape == (10, 15) and counts.sum() == 500
        assert lines[-1][1:] == [str(c) for c in attribution]
        right = sum(counts[c, k] for k, c in enumerate(attribution) if c >= 0)
        assert metrics["test/error"] == pytest.approx(1 - right / 500)
        assert metrics["test/accuracy_test_attributed"] == pytest.approx(counts.max(0).sum() / 500)
        assert metrics["validation/error"] == pytest.approx(min(curve[seed])), "the best epoch, as the curve has it"


def validation_errors(folder: Path) -> dict[int, list[float]]:
    with open(folder / "group-0-1" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return {seed: [float(row["validation/error"]) for row in rows if row["seed"] == str(seed)] for seed in (0, 1)}


def test_a_run_without_labels(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE, "labels=0", "classes.extra=2", "baseline=nn").code == 0
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")  # and no network beside it
    record = read_json(path)
    assert (record["labels"], record["validation_labels"]) == (0, 200)
    expected = {"validation/error", "validation/accuracy", "validation/cluster_accuracy", "test/error", "test/accuracy"}
    expected |= {"test/accuracy_test_attributed", "test/cluster_accuracy", "test/nmi", "test/entropy_y", "test/bound"}
    assert set(record["metrics"]) == expected | {"test/slots_used"}
    assert record["metrics"]["test/cluster_accuracy"] <= record["metrics"]["test/accuracy_test_attributed"]


def test_a_fully_labelled_run_has_no_slots_to_speak_of(command: Command, tmp_path: Path) -> None:
    assert command(*SMOKE).code == 0
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")
    record = read_json(path)
    assert set(record["metrics"]) == {"validation/error", "test/error", "test/bound"}
    assert record["validation_labels"] == 0 and "attribution" not in record
    assert (path.parent / "confusion.csv").read_text().startswith("class,predicted 0,predicted 1,")


def test_a_supervised_network_is_right_about_labelled_classes_alone(command: Command, tmp_path: Path) -> None:
    assert command("model=nn", "data=digits", *HIDDEN).code == 0
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")
    metrics = read_json(path)["metrics"]
    assert metrics["test/accuracy_hidden_classes"] == 0 and metrics["test/accuracy_labelled_classes"] > 0.8
    assert metrics["test/accuracy"] == pytest.approx(1 - metrics["test/error"])
    assert read_json(path)["validation_labels"] == 0


def test_predictions_are_classes_and_probabilities_of_slots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    fitted, digits = ssl_dgm.fit(*SMOKE, *HIDDEN, verbose=False), sources.load("digits")
    predicted = fitted.predict(digits.test_x)
    assert np.mean(predicted != digits.test_y) == pytest.approx(fitted.metrics["test/error"])
    probabilities = fitted.predict_proba(digits.test_x)
    assert probabilities.shape == (500, 15)
    np.testing.assert_array_equal(predicted, np.array(fitted.record["attribution"])[probabilities.argmax(1)])
    assert fitted.sample(2, y=14).shape == (2, 8, 8)

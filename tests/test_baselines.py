"""Classifiers that are no deep generative models, as runs."""

from pathlib import Path

import numpy as np
import pytest

import ssl_dgm
from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.compose import choices, compose

# Test errors on the digits, 100 labels of seed 0, below which each has to stay: half as much again as measured.
WORST = {
    "knn": 0.11,
    "svm": 0.11,
    "label_spreading": 0.07,
    "self_training": 0.11,
    "tsvm": 0.11,
    "cnn": 0.2,
    "cae": 0.2,
    "mtc": 0.2,
}
QUICK = ("estimator.updates=300", "estimator.epochs=5")


@pytest.mark.parametrize("name", WORST)
def test_a_baseline_is_a_run_like_any_other(name: str, tmp_path: Path) -> None:
    fitted = ssl_dgm.fit(f"model={name}", "data=digits", *QUICK, f"runs={tmp_path}", verbose=False)
    assert fitted.metrics["test/error"] < WORST[name]
    record = records.load(fitted.folder, 0, print)
    assert record is not None
    transductive = name in schema.TRANSDUCTIVE
    assert record["pool"] == (997 if transductive else None)
    x = np.asarray(ssl_dgm.data.sources.load("digits").test_x)
    again = ssl_dgm.load(fitted.folder)
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))


def test_every_estimator_is_a_model_of_the_command_line() -> None:
    for name in (*schema.INDUCTIVE, *schema.TRANSDUCTIVE):
        assert name in choices()["model"]
        assert schema.is_estimator(compose([f"model={name}"]))


def test_settings_of_estimators_name_only_their_own_runs() -> None:
    def key(*words: str) -> str:
        return schema.key(compose(["data=digits", *words]), "x")

    assert key("model=m2") == key("model=m2", "estimator.kernel=linear")
    assert key("model=svm") != key("model=svm", "estimator.kernel=linear")
    assert key("model=m1", "classifier=svm") != key("model=m1", "classifier=svm", "estimator.kernel=linear")
    assert key("model=svm", "budget=paper") == key("model=svm", "budget=short", "optimizer.lr=1")

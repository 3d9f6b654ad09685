"""Classifiers that are no deep generative models, as runs."""

from pathlib import Path

import numpy as np
import pytest

import ssl_dgm
from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.baselines import estimators
from ssl_dgm.compose import choices, compose
from ssl_dgm.config import UserError
from ssl_dgm.data import sources

# Test errors on the digits, 100 labels of seed 0, below which each has to stay; chance has 0.9.
WORST = {
    "knn": 0.1,
    "svm": 0.18,
    "label_spreading": 0.07,
    "self_training": 0.11,
    "tsvm": 0.11,
    "cnn": 0.25,
    "cae": 0.35,
    "mtc": 0.35,
}
QUICK = ("estimator.updates=60", "estimator.epochs=2", "network.hidden=[100,100]")


@pytest.mark.parametrize("name", WORST)
def test_a_baseline_is_a_run_like_any_other(name: str, tmp_path: Path) -> None:
    fitted = ssl_dgm.fit(f"model={name}", "data=digits", *QUICK, f"runs={tmp_path}", verbose=False)
    assert fitted.metrics["test/error"] < WORST[name]
    record = records.load(fitted.folder, 0, print)
    assert record is not None
    transductive = name in schema.TRANSDUCTIVE
    assert record["pool"] == (997 if transductive else None)
    x = np.asarray(sources.load("digits").test_x)
    again = ssl_dgm.load(fitted.folder)
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))


def test_every_estimator_is_a_model_of_the_command_line() -> None:
    for name in (*schema.INDUCTIVE, *schema.TRANSDUCTIVE):
        assert name in choices()["model"]
        assert schema.is_estimator(compose([f"model={name}"]))


@pytest.mark.parametrize("name", ["cae", "mtc"])
def test_lambda_is_the_estimator_s_own_number_or_the_one_told(name: str) -> None:
    default, told = (
        estimators.create(name, 0, compose([f"model={name}", *words]), None).get_params()["contraction"]
        for words in ([], ["estimator.contraction=0.3"])
    )
    assert (default, told) == (1.0, 0.3)


def test_settings_of_estimators_name_only_their_own_runs() -> None:
    def key(*words: str) -> str:
        return schema.key(compose(["data=digits", *words]), "x")

    assert key("model=m2") == key("model=m2", "estimator.kernel=linear")
    assert key("model=svm") != key("model=svm", "estimator.kernel=linear")
    assert key("model=cae") != key("model=cae", "estimator.contraction=3")
    assert key("model=m1", "classifier=svm") != key("model=m1", "classifier=svm", "estimator.kernel=linear")
    assert key("model=svm", "budget=paper") == key("model=svm", "budget=short", "optimizer.lr=1")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=tsvm", "classes.labelled=[3]", "labels=10"], "only class 3 of data=digits has labels"),
        (["model=m1", "classifier=tsvm", "classes.labelled=[3]", "labels=10"], "only class 3 of data=digits"),
        (["model=cnn", "data.min_pixel_sd=0.1"], "model=cnn sees images, and data.min_pixel_sd=0.1 drops pixels"),
        (["model=tsvm", "labels=0"], "labels=0 leaves model=tsvm nothing to learn from"),
        (["model=tsvm", "data=memmap", "data.folder=x"], "model=tsvm keeps every unlabelled row in memory"),
        (["model=svm", "estimator.kernel=rbff"], "estimator.kernel=rbff is unknown; the nearest is rbf"),
        (["model=inception", "estimator.weights=nowhere.pth"], "weights=nowhere.pth is no file"),
    ],
)
def test_what_a_baseline_cannot_do_is_a_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        ssl_dgm.fit("data=digits", *words, f"runs={tmp_path}", verbose=False)
    assert not list(tmp_path.glob("*/seed-*"))

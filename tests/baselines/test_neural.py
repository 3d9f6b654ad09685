"""Every neural baseline keeps scikit-learn's protocol, and is a function of its rows and its seed."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from ssl_dgm.baselines.cnn import ConvolutionalNetwork
from ssl_dgm.baselines.contractive import ContractiveAutoEncoder
from ssl_dgm.baselines.inception import Inception
from ssl_dgm.baselines.neural import NeuralClassifier
from ssl_dgm.baselines.tangents import ManifoldTangentClassifier
from ssl_dgm.config import UserError
from ssl_dgm.data import sources, splits


class OnPixels(Inception):
    """The head of Inception, on pixels: the network would take minutes for the thousands of rows of these checks."""

    def features(self, rows: np.ndarray) -> np.ndarray:
        return rows


CNN = ConvolutionalNetwork(channels=(4,), kernel=3, hidden=16, updates=40, learning_rate=0.03)
SMALL = dict(contraction=0.01, epochs=1, learning_rate=0.03, updates=40, tuning_rate=0.05)
CAE = ContractiveAutoEncoder((16,), **SMALL)
MTC = ManifoldTangentClassifier(2, beta=0.01, penalised_rows=4, iterations=1, hidden=(16,), **SMALL)
HEAD = OnPixels(hidden=16, epochs=40, learning_rate=0.02)
EVERY = [CNN, CAE, MTC, HEAD]


def objections(estimator: Any) -> dict[str, str]:
    return {"check_classifiers_classes": "classes -1 and 1: here -1 is a row without a class, as in scikit-learn's own"}


@parametrize_with_checks(EVERY, expected_failed_checks=objections)
def test_scikit_learn_has_nothing_to_object_to(estimator: Any, check: Any) -> None:
    check(estimator)


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of 4 x 4 images, 6 of 40 with a class."""
    rng = np.random.default_rng(seed)
    kind = np.arange(40) % 2
    x = 0.3 * rng.random((40, 16))
    x[kind == 1, :8] += 0.6
    x[kind == 0, 8:] += 0.6
    return x.astype(np.float32), np.where(np.arange(40) < 6, kind, -1)


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_a_seed_is_everything_that_is_random(estimator: NeuralClassifier) -> None:
    x, y = rows()
    first, again, other = (clone(estimator).set_params(random_state=seed) for seed in (3, 3, 4))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first.fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.testing.assert_array_equal(first.predict_proba(x), again.fit(x, y).predict_proba(x))
    assert np.abs(first.predict_proba(x) - other.fit(x, y).predict_proba(x)).max() > 1e-6
    assert (first.predict(x) == np.arange(40) % 2).all()


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_only_auto_encoders_learn_from_rows_without_a_class(estimator: NeuralClassifier) -> None:
    x, y = rows()
    moved = x.copy()
    moved[y == -1] = moved[y == -1, ::-1]
    fitted = [clone(estimator).set_params(random_state=0).fit(seen, y).predict_proba(x) for seen in (x, moved)]
    assert np.array_equal(*fitted) is not estimator.uses_unlabelled


def test_no_class_is_told_minus_one() -> None:
    x, y = rows()
    assert list(clone(CNN).fit(x, y).classes_) == [0, 1]
    with pytest.raises(UserError, match="y=-1 throughout"):
        clone(CNN).fit(x, np.full(40, -1))
    words = np.where(y == 0, "left", "right")
    assert list(clone(CNN).fit(x, words).classes_) == ["left", "right"]


def test_rows_outside_0_and_1_are_mapped_there() -> None:
    x, y = rows()
    inside = np.concatenate([x, [[0] * 16, [1] * 16]]).astype(np.float32)
    y = np.append(y, [-1, -1])
    a, b = (clone(CAE).set_params(random_state=0).fit(z, y) for z in (inside, 4 * inside - 2))
    np.testing.assert_allclose(a.predict_proba(x), b.predict_proba(4 * x - 2), rtol=1e-3)


def test_a_loss_that_is_no_number_is_told() -> None:
    x, y = rows()
    with pytest.raises(UserError, match="came to nan; use a smaller learning rate"):
        clone(CNN).set_params(learning_rate=1e30).fit(x, y)


def test_images_are_told_by_three_numbers() -> None:
    x, y = rows()
    with pytest.raises(UserError, match=r"image=\(3, 4, 4\) has 48 values and a row has 16"):
        clone(CNN).set_params(image=(3, 4, 4)).fit(x, y)
    # The channels of a pixel stand side by side: of (2, 2, 4) the first is every other value.
    fitted = clone(CNN).set_params(image=(2, 2, 4), random_state=0).fit(x, y)
    first = fitted.network_.convolutions[0]
    with torch.no_grad():
        first.weight[:, 1] = 0
    moved = x.copy()
    moved[:, 1::2] = 1 - moved[:, 1::2]
    np.testing.assert_array_equal(fitted.predict_proba(moved), fitted.predict_proba(x))


def test_the_network_learns_digits() -> None:
    source = sources.load("digits")
    labelled = splits.draw(source, 100, 0).labelled
    x = (source.train_x / source.train_x.max()).astype(np.float32)
    cnn = ConvolutionalNetwork(channels=(8, 16), updates=150, learning_rate=3e-3, random_state=0)
    cnn.fit(x[labelled], source.train_y[labelled])
    assert np.mean(cnn.predict(x[source.num_train :]) != source.train_y[source.num_train :]) < 0.15


def test_the_learning_rate_falls_to_0_along_a_cosine() -> None:
    w, seen = torch.nn.Parameter(torch.zeros(1)), []

    def loss() -> torch.Tensor:
        seen.append(w.item())
        return w.sum()  # whose gradient is 1

    clone(CNN)._minimise(loss, torch.optim.SGD([w], 0.5), 4)
    np.testing.assert_allclose(-np.diff([*seen, w.item()]), 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-5)

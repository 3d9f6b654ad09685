"""The transductive SVM: what it finds where labels alone mislead, what it is without other rows, what it refuses."""

import re
from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from ssl_dgm.baselines.estimators import create
from ssl_dgm.baselines.tsvm import TSVM, _Assignment, _Problem
from ssl_dgm.compose import compose

UNLIKE_OTHERS = {"check_classifiers_classes": "has a class -1, which is the mark of a row without a label"}


@parametrize_with_checks([TSVM()], expected_failed_checks=lambda estimator: UNLIKE_OTHERS)
def test_it_is_an_estimator_as_scikit_learn_checks_them(estimator: Any, check: Any) -> None:
    check(estimator)


def few(y: np.ndarray, rows: Any) -> np.ndarray:
    """y on some rows, -1 on the others."""
    masked = np.full(len(y), -1)
    masked[rows] = y[rows]
    return masked


def wrong(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(estimator.predict(x) != y))


def stripes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two long parallel clusters, their classes, and the rows at opposite ends of them."""
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 100)
    x = np.stack([2 * y - 1 + 0.15 * rng.normal(size=200), rng.uniform(-3, 3, 200)], 1)
    return x, y, np.array([x[:100, 1].argmin(), 100 + x[100:, 1].argmax()])


@pytest.mark.parametrize("seed", range(4))
def test_two_moons_with_three_labels_each(seed: int) -> None:
    x, y = make_moons(300, noise=0.08, random_state=seed)
    x, rng = StandardScaler().fit_transform(x), np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(y == c), 3, replace=False) for c in (0, 1)])
    transductive = TSVM(gamma=5, steps=8, balance_weight=np.inf).fit(x, few(y, rows))
    assert wrong(SVC(gamma=5).fit(x[rows], y[rows]), x, y) > 0.1
    assert wrong(transductive, x, y) < 0.02


def test_the_boundary_leaves_clusters_whole() -> None:
    x, y, rows = stripes()
    assert wrong(LinearSVC().fit(x[rows], y[rows]), x, y) > 0.1
    # Halves of the clusters have margins of their own, and only the objective tells which minimum is the better one.
    several = TSVM(kernel="linear", restarts=8).fit(x, few(y, rows))
    assert wrong(several, x, y) == 0
    assert min(several.objective_) < 0.5 * several.objective_[0]


def test_many_classes_share_the_rows_without_a_label() -> None:
    x, y = make_blobs(600, centers=6, n_features=8, cluster_std=2.5, random_state=1)
    names, rows = np.array(list("fedcba"))[y], [int(np.flatnonzero(y == c)[0]) for c in range(6)]
    inductive = TSVM(unlabelled=0).fit(x, few(y, rows))
    transductive = TSVM().fit(x, few(y, rows))
    assert wrong(transductive, x, y) < 0.5 * wrong(inductive, x, y)
    assert TSVM().fit(x, names).predict(x[:20]).tolist() == names[:20].tolist()


def test_without_a_balance_one_class_may_take_all() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([[[0.5, 0], [3, 0]], rng.normal(size=(200, 2))])
    y = np.array([0, 1] + [-1] * 200)
    free = TSVM(kernel="linear", balance_weight=0).fit(x, y)
    held = TSVM(kernel="linear", balance_weight=np.inf, balance=(0.7, 0.3)).fit(x, y)
    assert np.mean(free.predict(x[2:]) == 0) > 0.95
    np.testing.assert_allclose(held.balance_, (0.7, 0.3), atol=1e-3)
    assert np.mean(held.predict(x[2:]) == 0) == pytest.approx(0.7, abs=0.05)


def test_without_other_rows_it_is_the_linear_svm_of_scikit_learn() -> None:
    x, y = make_blobs(150, centers=3, n_features=4, cluster_std=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    theirs = LinearSVC(C=0.3, dual=False, tol=1e-10).fit(x, y)
    ours = TSVM(kernel="linear", C=0.3).fit(x, y)
    np.testing.assert_allclose(ours.coef_[:-1].T, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.coef_[-1], theirs.intercept_, atol=1e-4)
    assert ours.balance_ == pytest.approx([1 / 3] * 3)


def test_with_every_row_a_landmark_the_kernel_is_exact() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    phi = (fitted := TSVM(gamma=0.5).fit(x, np.arange(40) % 2))._features(scaled := fitted._scaler.transform(x))
    np.testing.assert_allclose(phi @ phi.T, rbf_kernel(scaled, gamma=0.5) + 1, atol=1e-4)


@pytest.mark.parametrize("hold", [0, 0.5, np.inf])
def test_the_gradient_is_that_of_the_objective(hold: float) -> None:
    rng = np.random.default_rng(1)
    problem = _Problem(rng.normal(size=(30, 4)), np.arange(6) % 3, np.array([0.2, 0.3, 0.5]), hold, 0.7, 0.4)
    W = rng.normal(size=12)
    parts = [lambda W, part=part: problem(W, 0.3)[part] for part in (0, 1)]
    assert check_grad(*parts, W) < 1e-3 * np.linalg.norm(parts[1](W))


@pytest.mark.parametrize("hold", [0, 0.5, np.inf])
def test_the_assignment_attains_its_minimum(hold: float) -> None:
    """The dual's value is the primal's at P, which weak duality allows only at the minimum."""
    shares, loss = np.array([0.2, 0.3, 0.5]), np.random.default_rng(2).normal(size=(50, 3))
    least, p = _Assignment(shares, hold, temperature=0.3)(loss)
    mean = p.mean(0)
    primal = (p * loss + 0.3 * p * np.log(p)).sum(1).mean()
    primal += hold * (mean @ np.log(mean / shares)) if np.isfinite(hold) else 0
    np.testing.assert_allclose(p.sum(1), 1)
    assert primal == pytest.approx(least, abs=1e-3)
    if np.isinf(hold):
        np.testing.assert_allclose(mean, shares, atol=1e-4)


def test_starts_repeat_and_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    x, y, rows = stripes()
    several = TSVM(kernel="linear", restarts=3, steps=2, random_state=3, verbose=True).fit(x, few(y, rows))
    printed = [line for line in capsys.readouterr().out.splitlines() if "after" in line]
    again = TSVM(kernel="linear", restarts=3, steps=2, random_state=3).fit(x, few(y, rows))
    alone = TSVM(kernel="linear", restarts=1, steps=2, random_state=3).fit(x, few(y, rows))
    np.testing.assert_array_equal(several.coef_, again.coef_)
    assert alone.objective_ == several.objective_[:1] and len(several.objective_) == 3
    assert len(printed) == 1 + 2 + 3 + 3
    assert printed[-2].startswith("TSVM: start 3 of 3, 42 rows, C' = 1: ")
    assert printed[-1].startswith("TSVM: start 3 of 3, 200 rows, C' = 1: ")


X, Y = np.arange(8.0).reshape(4, 2), np.array([0, 1, -1, -1])


@pytest.mark.parametrize(
    ("settings", "y", "sentence"),
    [
        ({}, [-1] * 4, "none of the rows has a label, as every y is -1; give at least two classes one"),
        ({}, [5, 5, -1, -1], "all labelled rows are of one class, 5; label rows of another"),
        ({"balance": (0.5, 0.6)}, Y, "balance=(0.5, 0.6) is not 2 positive shares that sum to 1"),
        ({"balance": (0.2, 0.3, 0.5)}, Y, "balance=(0.2, 0.3, 0.5) is not 2 positive shares that sum to 1"),
        ({"kernel": "poly"}, Y, "kernel=poly is unknown; use linear or rbf"),
        ({"gamma": -1}, Y, "gamma=-1 is no positive number"),
        ({"C": 0}, Y, "C=0 is not above 0; use 1.0"),
        ({"steps": 0}, Y, "steps=0 is not above 0; use 1"),
        ({"unlabelled": -1}, Y, "unlabelled=-1 is below 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(settings: dict[str, Any], y: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        TSVM(**settings).fit(X, y)
    assert str(caught.value).startswith(sentence)


def test_rows_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        TSVM().fit(np.where(X == 3, np.nan, X), Y)


def test_its_settings_are_those_of_the_configuration() -> None:
    given = ["data=digits", "model=tsvm", "estimator.kernel=linear", "estimator.restarts=2", "estimator.components=7"]
    made = create("tsvm", 5, compose(given), None)
    own = {"kernel": "linear", "restarts": 2, "components": 7, "standardise": False, "random_state": 5, "verbose": True}
    assert made.get_params() == TSVM(**own).get_params()
    assert create("tsvm", 0, compose(given[:2]), None).components == TSVM().components


def test_the_weight_of_rows_without_a_label_grows_to_its_share_of_c(capsys: pytest.CaptureFixture[str]) -> None:
    x, y, rows = stripes()
    TSVM(kernel="linear", C=0.5, unlabelled=0.4, steps=4, verbose=True).fit(x, few(y, rows))
    told = [float(found[1]) for found in re.finditer(r"C' = (\S+): \S+ after", capsys.readouterr().out)]
    assert told == [0, 0.0002, 0.002, 0.02, 0.2]


def test_gamma_is_scikit_learn_s_in_any_units() -> None:
    x, y = 3 * np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    assert TSVM(standardise=False).fit(x, y)._gamma == pytest.approx(SVC(gamma="scale").fit(x, y)._gamma)


def test_two_classes_have_the_output_of_one_linear_svm() -> None:
    x, y = make_blobs(60, centers=2, n_features=4, cluster_std=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    theirs = LinearSVC(C=0.3, dual=False, tol=1e-10).fit(x, y).decision_function(x)
    np.testing.assert_allclose(TSVM(kernel="linear", C=0.3).fit(x, y).decision_function(x), theirs, atol=1e-3)


def test_labelled_rows_are_the_first_landmarks() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    rows = np.array([3, 20, 31, 44, 58])
    fitted = TSVM(components=8).fit(x, few(y, rows))
    scaled = fitted._scaler.transform(x)
    np.testing.assert_array_equal(fitted._landmarks[:5], scaled[rows])
    assert len(np.unique(fitted._landmarks, axis=0)) == 8

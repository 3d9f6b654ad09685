"""scikit-learn estimators by the name they have on the command line."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


def create(name: str, seed: int, hidden: Sequence[int] = (500,)) -> Any:
    """An unfitted classifier: 'nn', 'logistic', 'svm' or 'knn'.

    None has a setting that was chosen on data: scikit-learn's defaults, k = 1, and for the network the weight decay
    and the number of passes at which its training error on any of the label counts has long been zero.
    """
    match name:
        case "nn":
            return MLPClassifier(tuple(hidden), alpha=1e-4, max_iter=300, random_state=seed)
        case "logistic":
            return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        case "svm":
            return make_pipeline(StandardScaler(), SVC())
        case "knn":
            return KNeighborsClassifier(1)
    raise ValueError(f"no estimator {name}")


def fitted(name: str, seed: int, x: np.ndarray, y: np.ndarray, hidden: Sequence[int] = (500,)) -> Any:
    """The classifier called `name`, fitted to rows [N, D] and their classes [N]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return create(name, seed, hidden).fit(x, y)


def error(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong rows."""
    return float(np.mean(estimator.predict(x) != y))

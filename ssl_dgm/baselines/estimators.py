"""Estimators with fit and predict by the name they have on the command line."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

from ssl_dgm.config import Config, is_estimator

UNLABELLED = -1  # scikit-learn's mark of a row whose class is not known


def create(name: str, seed: int, config: Config) -> Any:
    """An unfitted classifier.

    None has a setting that was chosen on data but where its class says so: scikit-learn's defaults, k = 1, and for the
    network the weight decay and the number of passes at which its training error on any of the label counts has long
    been zero.
    """
    e = config.estimator
    match name:
        case "nn":
            return MLPClassifier(tuple(config.network.hidden), alpha=1e-4, max_iter=300, random_state=seed)
        case "logistic":
            return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        case "svm":
            # Latents differ in scale; pixels share one, and those that hardly vary should weigh little.
            return make_pipeline("passthrough" if is_estimator(config) else StandardScaler(), SVC(kernel=e.kernel))
        case "knn":
            return KNeighborsClassifier(e.neighbours or 1)
        case "label_spreading":
            return LabelSpreading("knn", n_neighbors=e.neighbours or 7)
        case "self_training":
            # A row is learned from as soon as its class has a probability of 0.9.
            base = make_pipeline(
                "passthrough" if is_estimator(config) else StandardScaler(), LogisticRegression(max_iter=200)
            )
            return SelfTrainingClassifier(base, threshold=0.9)
    raise ValueError(f"no estimator {name}")


def fitted(name: str, seed: int, x: np.ndarray, y: np.ndarray, config: Config) -> Any:
    """The classifier called `name`, fitted to rows [N, D] and their classes [N], `UNLABELLED` where not known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return create(name, seed, config).fit(x, y)


def error(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong rows."""
    return float(np.mean(estimator.predict(x) != y))

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

from ssl_dgm.baselines.cnn import ConvolutionalNetwork
from ssl_dgm.baselines.contractive import ContractiveAutoEncoder
from ssl_dgm.baselines.inception import Inception
from ssl_dgm.baselines.neural import UNLABELLED, Image
from ssl_dgm.baselines.tangents import ManifoldTangentClassifier
from ssl_dgm.baselines.tsvm import TSVM
from ssl_dgm.config import Config, UserError, is_estimator

__all__ = ["UNLABELLED", "create", "error", "fitted"]


def create(name: str, seed: int, config: Config, image: Image | None, device: str = "cpu") -> Any:
    """An unfitted classifier.

    scikit-learn's own have no setting that was chosen on data: its defaults, k = 1, and for the network the weight
    decay and the number of passes at which its training error on any of the label counts has long been zero.

    Args:
        image: (channels, height, width) of a row; None for rows that are no images.
        device: of those that are torch networks.
    """
    e = config.estimator
    # Latents differ in scale; pixels share one, and those that hardly vary should weigh little.
    on_pixels = is_estimator(config)
    scaled = "passthrough" if on_pixels else StandardScaler()
    hidden = tuple(config.network.hidden)
    torch_network = {"random_state": seed, "device": device, "verbose": config.trainer.progress}
    match name:
        case "tsvm":
            return TSVM(
                kernel=e.kernel, restarts=e.restarts, standardise=not on_pixels, random_state=seed,
                verbose=config.trainer.progress, **_told(components=e.components),
            )  # fmt: skip
        case "cnn":
            return ConvolutionalNetwork(image=image, **_told(updates=e.updates), **torch_network)
        case "cae":
            told = _told(updates=e.updates, epochs=e.epochs, contraction=e.contraction)
            return ContractiveAutoEncoder(hidden, **told, **torch_network)
        case "mtc":
            told = _told(updates=e.updates, epochs=e.epochs, contraction=e.contraction)
            return ManifoldTangentClassifier(hidden=hidden, **told, **torch_network)
        case "inception":
            told = _told(epochs=e.epochs)
            return Inception(image=image, weights=e.weights, scaling=e.scaling, **told, **torch_network)
        case "nn":
            return MLPClassifier(hidden, alpha=1e-4, max_iter=300, random_state=seed)
        case "logistic":
            return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        case "svm":
            return make_pipeline(scaled, SVC(kernel=e.kernel))
        case "knn":
            return KNeighborsClassifier(e.neighbours or 1)
        case "label_spreading":
            return LabelSpreading("knn", n_neighbors=e.neighbours or 7)
        case "self_training":
            # A row is learned from as soon as its class has a probability of 0.9.
            base = make_pipeline(scaled, LogisticRegression(max_iter=200))
            return SelfTrainingClassifier(base, threshold=0.9)
    raise ValueError(f"no estimator {name}")


def fitted(estimator: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """The classifier, fitted to rows [N, D] and their classes [N], `UNLABELLED` where they are not known.

    Raises:
        UserError: when it is to look at more neighbours than there are rows.
    """
    if getattr(estimator, "n_neighbors", 0) > len(x):
        raise UserError(f"estimator.neighbours={estimator.n_neighbors} is more than the {len(x):,} rows; use fewer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def _told(**settings: Any) -> dict[str, Any]:
    """The settings that are not null."""
    return {name: value for name, value in settings.items() if value is not None}


def error(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of wrong rows."""
    return float(np.mean(estimator.predict(x) != y))

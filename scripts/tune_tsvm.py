"""Tries settings of the transductive SVM on the features of an M1, scored on validation rows alone.

    python scripts/tune_tsvm.py runs/m1-mnist-... [steps=8 C=10 ...] [--labels 100 600 1000 3000] [--split-seeds 0 1 2]

What it reads is the folder of an M1, an .npy file with features of all training rows, or 'pixels' of MNIST. The words
after it are arguments of `TSVM`; without any, its defaults. Every fit sees all training rows before the validation
rows. A row per fit, and per inductive SVM on the same labels, is added to results/sweeps/tsvm.csv.
"""

import argparse
import ast
import csv
import time
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ssl_dgm
from ssl_dgm.baselines.tsvm import TSVM
from ssl_dgm.data import sources, splits

FIELDS = ("features", "num_features", "estimator", "settings", "labels", "split_seed", "validation_error", "objective",
          "seconds")  # fmt: skip


def main() -> None:
    """Fits one after the other and adds their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 600, 1000, 3000])
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--csv", type=Path, default=Path("results/sweeps/tsvm.csv"))
    a = parser.parse_args()
    settings = {name: ast.literal_eval(value) for name, _, value in (word.partition("=") for word in a.settings)}
    x, source = features(a.features)
    n, y = source.num_train, source.train_y
    a.csv.parent.mkdir(parents=True, exist_ok=True)
    for labels in a.labels:
        for seed in a.split_seeds:
            rows = splits.draw(source, labels, seed).labelled
            masked = np.full(n, -1)
            masked[rows] = y[rows]
            scaled = settings.get("standardise", True)
            inductive = make_pipeline(StandardScaler(with_mean=scaled, with_std=scaled), SVC())
            for estimator, given in ((inductive, (x[rows], y[rows])), (TSVM(**settings), (x[:n], masked))):
                started = time.monotonic()
                estimator.fit(*given)
                transductive = isinstance(estimator, TSVM)
                row = dict(zip(FIELDS, (
                    a.features.stem, x.shape[1], "tsvm" if transductive else "svm",
                    " ".join(word for word in a.settings if transductive or "standardise" in word), labels, seed,
                    np.mean(estimator.predict(x[n:]) != y[n:]).round(4),
                    round(min(estimator.objective_)) if transductive else "", round(time.monotonic() - started),
                )))  # fmt: skip
                print(*row.values(), flush=True)
                with a.csv.open("a", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)


def features(path: Path) -> tuple[np.ndarray, sources.Source]:
    """Rows of all training images, float32 [N, D]; of an M1, the means of its units whose s.d. is above 0.1."""
    source = sources.load("mnist")
    pixels = np.asarray(source.train_x)
    if path.name == "pixels":
        return pixels.astype(np.float32) / 255, source
    if path.suffix == ".npy":
        return np.load(path), source
    means = ssl_dgm.load(path).transform(pixels)
    return means[:, means[: source.num_train].std(0) > 0.1], source


if __name__ == "__main__":
    main()

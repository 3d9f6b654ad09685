"""Data sets that come with scikit-learn."""

import dataclasses
from typing import Any

import numpy as np

from ssl_dgm.config import DataConfig
from ssl_dgm.data.source import Source, build


def check(data: DataConfig) -> None:
    """Nothing: they are always there."""


def read(data: DataConfig) -> Source:
    """The digits, 1,797 scans of 8 x 8."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x, y = np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target  # 0..16 as they come
    rows = np.random.Generator(np.random.PCG64(0)).permutation(len(x))
    train, test = rows[:1297], rows[1297:]
    source = build("digits", [x[train], y[train], x[test], y[test]], num_validation=200)
    # A value counts the black pixels of a block of 4 x 4 (UCI's "optical recognition of handwritten digits").
    return dataclasses.replace(source, trials=16)

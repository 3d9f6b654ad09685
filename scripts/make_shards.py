"""Writes a folder for data=memmap: the rows of a data set over and over, each time shifted by up to two pixels.

    python scripts/make_shards.py FOLDER [--data mnist] [--rows 6000000] [--labelled 60000] [--rows-per-file 500000]

The last rows, as many as --labelled says, keep their labels; those before them have -1. The test rows are the data
set's own. It shows what docs/memmap.md asks of a folder, and makes what its measurements were made on.
"""

import argparse
from pathlib import Path

import numpy as np

from ssl_dgm.data import sources

SHIFTS = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image [n, H, W] moved by its own number of pixels."""
    which = rng.integers(len(SHIFTS), size=len(images))
    for number, shift in enumerate(SHIFTS):
        images[which == number] = np.roll(images[which == number], shift, axis=(1, 2))
    return images


def main() -> None:
    """Writes the files, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="mnist", choices=("digits", "mnist", "fashion_mnist"))
    parser.add_argument("--rows", type=int, default=6_000_000)
    parser.add_argument("--labelled", type=int, default=60_000)
    parser.add_argument("--rows-per-file", type=int, default=500_000)
    a = parser.parse_args()
    source, rng = sources.load(a.data), np.random.default_rng(0)
    a.folder.mkdir(parents=True)
    for number, start in enumerate(range(0, a.rows, a.rows_per_file)):
        place = np.arange(start, min(start + a.rows_per_file, a.rows))
        rows = rng.integers(source.num_train, size=len(place))
        images = source.train_x[rows].reshape(-1, *source.shape)
        y = np.where(place < a.rows - a.labelled, -1, source.train_y[rows])
        np.save(a.folder / f"train-x-{number:04}.npy", shifted(images, rng))
        np.save(a.folder / f"train-y-{number:04}.npy", y.astype(np.int16))
    np.save(a.folder / "test-x.npy", source.test_x.reshape(-1, *source.shape))
    np.save(a.folder / "test-y.npy", source.test_y)
    print(f"{a.folder}: {a.rows:,} rows of {source.x_dim} bytes, {min(a.labelled, a.rows):,} with a label")


if __name__ == "__main__":
    main()

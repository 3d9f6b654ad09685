"""Files of users' own, small ones, as tests of readers and of whole runs write them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "eel")


def pictures(n: int, classes: int = 3, seed: int = 0, colour: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [n, 8, 8] or [n, 8, 8, 3], each with a bright row that tells its class, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(60, size=(n, 8, 8, 3) if colour else (n, 8, 8), dtype=np.uint8)
    x[np.arange(n), 2 * y] = 255
    return x, y


def arrays(**other: Any) -> dict[str, Any]:
    """What an .npz file holds: 120 training rows, every second with a label, and 30 test rows; None leaves one out."""
    x, y = pictures(120)
    y[1::2] = -1
    x_test, y_test = pictures(30, seed=1)
    made = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test} | other
    return {name: array for name, array in made.items() if array is not None}


def put_npz(folder: Path, **other: Any) -> Path:
    """`arrays` in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "my.npz", **arrays(**other))
    return folder / "my.npz"


def put_pictures(root: Path, colour: bool = False, labelled: int = 20) -> Path:
    """A folder of PNG files: `labelled` per class to train on, 30 without a label, 5 per class to test on."""
    for part, per_class, seed in (("train", labelled, 0), ("test", 5, 1)):
        x, y = pictures(3 * per_class, seed=seed, colour=colour)
        for i, (pixels, c) in enumerate(zip(x, y)):
            save(pixels, root / part / CLASSES[c] / f"{i:03}.png")
    for i, pixels in enumerate(pictures(30, seed=2, colour=colour)[0]):
        save(pixels, root / "unlabelled" / f"{i:03}.png")
    return root


def save(pixels: np.ndarray, path: Path) -> None:
    """A picture in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def put_csv(path: Path, n: int = 150, every: int = 2, seed: int = 0, separator: str = ",") -> Path:
    """A table of two classes; every `every`-th row has one, and column b is of another size than column a."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    a, b = rng.normal(3 * y, 1), rng.normal(1000 - 400 * y, 100)
    labels = [("no", "yes")[c] if i % every == 0 else "" for i, c in enumerate(y)]
    rows = [("a", "b", "label"), *((f"{u:.4f}", f"{v:.2f}", label) for u, v, label in zip(a, b, labels))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    return path

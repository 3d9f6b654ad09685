"""SVHN, the house numbers of Google Street View, cropped to 32 x 32 pixels in colour: MATLAB files, as published.

Nothing is parsed before its MD5 is known to be that of the published file.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import published
from ssl_dgm.data.source import Source, build

PAGE = "http://ufldl.stanford.edu/housenumbers"
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
PACKED = 1032  # how many times a file's size what it holds may be: no zlib stream holds more


def files(data: DataConfig) -> list[Path]:
    """What is read, whether or not it is there yet."""
    names = [name for name in MD5 if data.extra or not name.startswith("extra")]
    return [published.root() / "SVHN" / name for name in names]


def check(data: DataConfig) -> None:
    """Nothing, once it is known that `read` finds its files or may download them.

    Raises:
        UserError: for a missing file that will not be downloaded.
    """
    for path in files(data):
        if not path.is_file() and not published.may_download():
            raise published.missing("svhn", path, PAGE)


def read(data: DataConfig) -> Source:
    """The data set, downloaded into the default folder if it is in none.

    The 531,131 extra images come first and without their labels, as the authors of M1+M2 used them: labels are drawn
    from the 73,257 training images alone, of which the last 10,000 are the validation rows.

    Raises:
        UserError: for a missing, damaged or undownloadable file.
    """
    for path in files(data):
        if not path.is_file():
            published.download(f"{PAGE}/{path.name}", path, MD5[path.name])
    parts = {path.name.partition("_")[0]: _read(path) for path in files(data)}
    (x, y), (x_test, y_test), notes = parts["train"], parts["test"], ()
    num_validation = published.last_rows(len(x))
    if "extra" in parts:
        x_extra, _ = parts.pop("extra")
        notes = (f"{len(x_extra):,} of the training images extra ones without labels",)
        x, y = np.concatenate([x_extra, x]), np.concatenate([np.full(len(x_extra), -1), y])
    return dataclasses.replace(build("svhn", [x, y, x_test, y_test], num_validation, 10), notes=notes)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and digits, int64 [N]."""
    from scipy.io import loadmat, whosmat

    published.check_md5(path, MD5[path.name])
    try:
        # Headers first: what they promise is not allocated before it is known that the file can hold it.
        held = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        (shape, kind), (shape_y, kind_y) = held.get("X", ((), "")), held.get("y", ((), ""))
        if kind != "uint8" or len(shape) != 4 or shape[:3] != (32, 32, 3) or kind_y not in ("uint8", "double"):
            raise published.damaged(path, f"holds X {kind} {list(shape)} and y {kind_y}, no images of 32 x 32 x 3")
        if shape_y != (shape[3], 1) or np.prod(shape, dtype=object) > PACKED * path.stat().st_size:
            raise published.damaged(path, f"promises {shape[3]:,} images and {list(shape_y)} digits that it can't hold")
        content: Any = loadmat(path, variable_names=["X", "y"])
        x, y = content["X"], content["y"]
    except UserError:
        raise
    except Exception as error:  # a file that is no such file raises many kinds
        raise published.damaged(path, f"is no MATLAB file of images ({type(error).__name__})") from error
    y = np.where(y == 10, 0, y).reshape(-1).astype(np.int64)  # the digit 0 is class 10 there
    published.check_classes(path, y, 10)
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y

"""Arrays of users' own in one .npz file. Nothing is unpickled, and nothing is allocated before all headers are checked.

Nothing here imports torch.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import own
from ssl_dgm.data.own import Part
from ssl_dgm.data.source import Source, digest
from ssl_dgm.files import write_atomic

NEEDED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "x_unlabelled", "classes")
ROWS_PER_BLOCK = 10_000


def check(data: DataConfig) -> None:
    """Nothing, once it is known that the file is there and that its arrays can be read.

    Raises:
        UserError: for a missing file, no .npz file, and one whose headers promise what cannot be read.
    """
    headers(own.find(data, "file"))


def read(data: DataConfig) -> Source:
    """The rows of an .npz file: x_train, y_train, x_test, y_test, and if they are there x_val, y_val, x_unlabelled.

    Images are uint8 [N, H, W] or [N, H, W, C], or floats from 0 to 1 of such a shape, which become 256 levels. Rows
    [N, D] are pixels where they are uint8, and real-valued columns, which are standardised, where they are floats.
    An array `classes` names the classes.

    Raises:
        UserError: for files and arrays that are no such rows.
    """
    path = own.find(data, "file")
    known, notes = headers(path), []
    if unread := sorted({*known} - {*NEEDED, *OPTIONAL}):
        notes.append(f"not read of {path.name}: {', '.join(unread)}")
    arrays = _load(path)

    found, names = parts(arrays, lambda name: f"{name} of {path.name}", notes), arrays.get("classes")
    del arrays  # of float images the parts have levels
    train, more = found.pop("train"), found.pop("unlabelled", None)
    if more is not None:
        train = Part(train.where, np.concatenate([train.x, more.x]), np.concatenate([train.y, more.y]))
    named = None if names is None else _names(names, path)
    return own.source_of(data, train, found["test"], found.get("val"), named, notes=notes)


def parts(arrays: Mapping[str, np.ndarray], called: Callable[[str], str], notes: list[str]) -> dict[str, Part]:
    """Training, test and if they are there validation and unlabelled rows, by x_train and so on.

    Args:
        called: what sentences call an array of this name.
        notes: takes a sentence about what was made of the training rows.

    Raises:
        UserError: for arrays that are no rows or labels, and those that are not like the training rows.
    """
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise UserError(
            f"{called(objects[0])} holds Python objects; give an array of plain numbers, all rows of one length"
        )
    found: dict[str, Part] = {}
    for name in ("train", "test", "val", "unlabelled"):
        if (x := arrays.get(f"x_{name}")) is None:
            continue
        x, y = _rows(x, called(f"x_{name}"), notes if name == "train" else []), arrays.get(f"y_{name}")
        labels = np.full(len(x), -1) if y is None else _labels(y, called(f"y_{name}"))
        found[name] = Part(called(f"x_{name}"), x, labels)
        own.check_rows(found[name], found["train"])
    return found


def keep(folder: Path, arrays: dict[str, np.ndarray]) -> tuple[Path, bool]:
    """The file in this folder that `read` takes these arrays from, named by content, and whether it had to be written.

    Raises:
        UserError: when the disk is full.
    """
    path = folder / f"{digest(*arrays.values())[:16]}.npz"
    if is_new := not path.is_file():
        write_atomic(path, lambda temporary: _save(temporary, arrays))
    return path, is_new


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a path, NumPy would add a suffix
        np.savez(file, **arrays)  # type: ignore[arg-type]


def files(data: DataConfig) -> list[Path]:
    """What the data set's digest depends on."""
    return own.files(own.find(data, "file"))


def headers(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array in the file, by its header, once that was checked against what the file holds.

    Raises:
        UserError: for no .npz file, arrays of Python objects, missing ones, and more than there is memory for.
    """
    found, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    reads = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                    found[name], _, dtype = reads[npy.read_magic(stream)](stream)
                    start = stream.tell()
                if name in (*NEEDED, *OPTIONAL):
                    _check_header(f"{name} of {path}", found[name], dtype, member.file_size - start)
                    total += member.file_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except UserError:
        raise
    except Exception as error:  # damaged archives and headers raise many kinds
        raise UserError(f"{path} is no .npz file of arrays; write it with numpy.savez") from error
    if missing := [name for name in NEEDED if name not in found]:
        has = f"it has {', '.join(sorted(found))}" if found else "it is empty"
        raise UserError(f"{path} has no {missing[0]}: {has}; it needs {', '.join(NEEDED)}")
    if ("x_val" in found) != ("y_val" in found):
        raise UserError(f"{path} has only one of x_val and y_val; add the other, or leave both out")
    own.check_memory(total, str(path))
    return found


def _check_header(where: str, shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    if dtype.hasobject or dtype.names is not None or not dtype.itemsize:
        what = "Python objects, which may run code" if dtype.hasobject else f"elements of type {dtype}"
        raise UserError(f"{where} holds {what}; save arrays of plain numbers")
    promised = math.prod(shape) * dtype.itemsize
    if size != promised or min(shape, default=0) < 0:
        raise UserError(f"{where} has {size:,} bytes where its header promises {promised:,}; write or copy it again")


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (*NEEDED, *OPTIONAL) if name in archive.files}
    except Exception as error:
        raise UserError(f"{path} is damaged ({error}); write or copy it again") from error


def _rows(x: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    """Images as uint8 [N, H, W] or [N, H, W, 3], other rows [N, D] as uint8 or floats.

    Args:
        notes: takes a sentence about what was made of the array.
    """
    shape, is_image = " x ".join(map(str, x.shape)), x.ndim in (3, 4)
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise UserError(f"{where} is {shape}; save images [N, H, W] or [N, H, W, 3], or rows [N, D]")
    if x.ndim == 4 and x.shape[3] not in (1, 3):
        hint = "; x.transpose(0, 2, 3, 1) puts the colours last" if x.shape[1] in (1, 3) else ""
        raise UserError(f"{where} is {shape}, and images are [N, H, W] or [N, H, W, 3]{hint or '; save them so'}")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UserError(f"{where} holds {x.dtype}; save pixels as uint8 from 0 to 255, and other numbers as floats")
    if x.dtype.kind == "f" and is_image:
        low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
        if not np.isfinite(low + high):
            place = ", ".join(map(str, np.argwhere(~np.isfinite(x))[0]))
            raise UserError(f"{where} has {x[~np.isfinite(x)][0]} at [{place}]; fill it in, or leave the image out")
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{where} has values from {low:.4g} to {high:.4g}, which are no pixels; save images as uint8 or as "
                "floats from 0 to 1, or rows [N, D] of real numbers"
            )
        notes.append(f"{where} holds floats from 0 to 1: taken for pixels of 256 levels")
        levels = np.empty(x.shape, np.uint8)
        for start in range(0, len(x), ROWS_PER_BLOCK):
            levels[start : start + ROWS_PER_BLOCK] = np.rint(x[start : start + ROWS_PER_BLOCK] * 255)
        x = levels
    elif x.dtype.kind == "f":
        notes.append(f"{where} holds rows of floats: taken for real-valued columns and standardised")
    if x.ndim == 4 and x.shape[3] == 1:
        return x[..., 0]
    side = math.isqrt(x.shape[1])
    # A row of pixels is drawn as a square if it is one.
    return x.reshape(-1, side, side) if x.ndim == 2 and x.dtype == np.uint8 and side * side == x.shape[1] else x


def _labels(y: np.ndarray, where: str) -> np.ndarray:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        shape = " x ".join(map(str, y.shape))
        raise UserError(
            f"{where} is {shape} of {y.dtype}; save a whole number for every row, 0, 1, 2, ..., or -1 where no label "
            "is known"
        )
    if y.size and y.max() > np.iinfo(np.int32).max:
        raise UserError(f"{where} has a label {y.max()}; number the classes 0, 1, 2, ...")
    return y.astype(np.int64)


def _names(names: np.ndarray, path: Path) -> list[str]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(f"classes of {path.name} holds {names.dtype}; save an array of texts, a name for every class")
    return names.tolist()

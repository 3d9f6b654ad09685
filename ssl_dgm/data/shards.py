"""A folder of .npy files that may be larger than memory: known by their headers, read row by row.

N rows, D pixels per row. Nothing here imports torch, and nothing is unpickled.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from ssl_dgm.config import UserError
from ssl_dgm.data.validation import held_out

LEAST_LABELLED = 10  # so that a tenth of them are a validation row at least


@dataclass(frozen=True)
class File:
    """What the header of a .npy file tells."""

    path: Path
    start: int  # bytes before the first row
    shape: tuple[int, ...]
    dtype: np.dtype


class Shards:
    """The rows of several files as one array, uint8 [N, D], that stays on the disk.

    `shards[rows]` and `shards[a:b]` read just these rows, each once for every time that it is named. They are read by
    position and not mapped, since mapped pages count as memory of the process; a file is open only while it is read.

    Args:
        files: of uint8 rows, all of one shape.
        last: numbers of rows, ascending, that come after all others, whatever their place in the files.
    """

    def __init__(self, files: list[File], last: np.ndarray) -> None:
        self.files = files
        self.begin = np.cumsum([0, *(file.shape[0] for file in files)])
        self.shape = (int(self.begin[-1]), math.prod(files[0].shape[1:]))
        self._last, self._rest = last, self.shape[0] - len(last)
        # How many rows of `last` lie before the i-th of the others: those whose number less their rank is at most i.
        self._skipped = last - np.arange(len(last))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The rows [n, D], in the order in which they are named.

        Raises:
            UserError: when a file is gone or has become shorter since it was opened.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"row {rows.max()} of {len(self)}")
        places = self._places(rows)
        order = np.argsort(places, kind="stable")
        places, out = places[order], np.empty((len(rows), self.shape[1]), np.uint8)
        shard = np.searchsorted(self.begin, places, side="right") - 1
        # Rows that follow each other in one file are read at once.
        cuts = np.flatnonzero((np.diff(places) != 1) | (np.diff(shard) != 0)) + 1
        of_shard: dict[int, list[tuple[int, int]]] = {}
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)]):
            if b > a:
                of_shard.setdefault(int(shard[a]), []).append((a, b))
        for number, runs in of_shard.items():
            self._read(number, runs, places, out)
        back = np.empty_like(out)
        back[order] = out
        return back

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """Row numbers to places in the files, one after the other."""
        places = rows + np.searchsorted(self._skipped, rows, side="right")
        is_last = rows >= self._rest
        places[is_last] = self._last[rows[is_last] - self._rest]
        return places

    def _read(self, number: int, runs: list[tuple[int, int]], places: np.ndarray, out: np.ndarray) -> None:
        file, width = self.files[number], self.shape[1]
        positions = [file.start + (int(places[a]) - int(self.begin[number])) * width for a, _ in runs]
        try:
            descriptor = os.open(file.path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{file.path} cannot be read any more ({error.strerror}); put it back") from error
        try:
            if hasattr(os, "posix_fadvise"):  # the disk fetches all of them at once, and not one after the other
                for (a, b), position in zip(runs, positions):
                    os.posix_fadvise(descriptor, position, (b - a) * width, os.POSIX_FADV_WILLNEED)
            for (a, b), position in zip(runs, positions):
                if os.preadv(descriptor, [out[a:b].data], position) != (b - a) * width:
                    raise UserError(f"{file.path} has become shorter while it was read; put the whole file back")
        finally:
            os.close(descriptor)


class Content(NamedTuple):
    """What a folder holds, the validation rows being the last training rows."""

    train_x: Shards
    train_y: np.ndarray  # int32 [N], -1 where no label is known
    test_x: np.ndarray  # uint8 [N_test, D]
    test_y: np.ndarray  # int32 [N_test]
    num_validation: int
    num_classes: int
    shape: tuple[int, ...]  # of one row


def read_folder(folder: Path, validation: int | None = None) -> Content:
    """train-x-*.npy by their headers, train-y-*.npy, test-x.npy and test-y.npy whole.

    Args:
        validation: how many labelled rows are held out; None: as many as `held_out` says.

    Raises:
        UserError: for a file that is missing, damaged, or of another type or shape than the others ask for.
    """
    xs, ys = (_files(folder, f"train-{letter}-*.npy") for letter in "xy")
    test_x, test_y = read_header(folder / "test-x.npy"), read_header(folder / "test-y.npy")
    for file in (*xs, test_x):
        _check(file, file.dtype == np.uint8 and len(file.shape) in (2, 3), "uint8 rows [n, D] or images [n, H, W]")
        same = file.shape[1:] == xs[0].shape[1:]
        _check(file, same, f"rows of {_times(xs[0].shape[1:])} values, as {xs[0].path.name} has")
    for file in (*ys, test_y):
        _check(file, file.dtype.kind in "iu" and len(file.shape) == 1, "a whole number for every row, -1 for no label")
    if len(xs) != len(ys):
        raise UserError(f"{folder} has {len(xs)} train-x-*.npy but {len(ys)} train-y-*.npy; write one for each")
    for x, y in [*zip(xs, ys), (test_x, test_y)]:
        _check(y, x.shape[0] == y.shape[0], f"{x.shape[0]:,} labels, one for every row of {x.path.name}")
    y = np.concatenate([_labels(file, least=-1) for file in ys])
    known = np.flatnonzero(y >= 0)
    if len(known) < LEAST_LABELLED:
        raise UserError(f"{folder} has {len(known)} training rows with a label; label {LEAST_LABELLED} at least")
    num_classes = int(y.max()) + 1
    if num_classes > len(known):
        many = f"a label {num_classes - 1:,} but only {len(known):,} rows with a label"
        raise UserError(f"{folder} has {many}; number the classes 0, 1, 2, ...")
    y_test = _labels(test_y, least=0)
    if y_test.max() >= num_classes:
        raise UserError(
            f"{test_y.path} has a label {y_test.max()} that no training row has; use 0 to {num_classes - 1}"
        )
    last = held_out(y, validation, str(folder))
    y = np.concatenate([np.delete(y, last), y[last]])
    images = Shards([test_x], np.arange(0))[:]
    shape = test_x.shape[1:]
    # A row of pixels is drawn as a square if it is one.
    side = math.isqrt(shape[0])
    shape = shape if len(shape) == 2 else (side, side) if side * side == shape[0] else (1, shape[0])
    return Content(Shards(xs, last), y, images, y_test, len(last), num_classes, shape)


def read_header(path: Path) -> File:
    """The header of a .npy file, read by NumPy's own reader, and checked against the file's length.

    Raises:
        UserError: if it is unreadable, no .npy file, of Python objects or of columns, empty, or of another length.
    """
    try:
        with open(path, "rb") as file:
            read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
            shape, by_column, dtype = read(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); data.folder needs it (docs/memmap.md)") from error
    except Exception as error:  # a header that is no header raises many kinds
        raise UserError(f"{path} is no .npy file; write it with numpy.save") from error
    found = File(path, start, shape, dtype)
    _check(found, not dtype.hasobject and dtype.names is None, "plain numbers; write it from an array of them")
    _check(found, not by_column or len(shape) < 2, "its rows one after the other; write numpy.ascontiguousarray of it")
    _check(found, math.prod(shape) > 0 and min(shape, default=0) > 0, "rows; leave the file out if it has none")
    if size != start + math.prod(shape) * dtype.itemsize:
        promised = start + math.prod(shape) * dtype.itemsize
        raise UserError(f"{path} has {size:,} bytes where its header promises {promised:,}; write or copy it again")
    return found


def _files(folder: Path, pattern: str) -> list[File]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise UserError(f"data.folder={folder} has no {pattern}; docs/memmap.md says what a folder holds")
    return [read_header(path) for path in paths]


def _check(file: File, holds: bool, needed: str) -> None:
    if not holds:
        has = f"{file.dtype} {list(file.shape)}"
        raise UserError(f"{file.path} holds {has}, and has to hold {needed}")


def _labels(file: File, least: int) -> np.ndarray:
    """int32 [n]; checked before they are cast, so that none wraps."""
    y = np.load(file.path, allow_pickle=False)
    if y.min() < least or y.max() > np.iinfo(np.int32).max:
        bad = y.min() if y.min() < least else y.max()
        also = " or -1 where none is known" if least < 0 else ""
        raise UserError(f"{file.path} has a label {bad}; use 0, 1, 2, ...{also}")
    return y.astype(np.int32)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

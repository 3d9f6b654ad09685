"""Data of users' own, from whatever files they were read: found, checked, and put in the order of a `Source`.

Nothing here imports torch.
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import validation as validation_rule
from ssl_dgm.data.scaling import Scaling
from ssl_dgm.data.source import Source, digest
from ssl_dgm.data.validation import held_out

COPIES = 3  # of the rows that are in memory at once, at most
MOST_NAMED = 20  # classes whose rows are counted one by one on the screen


class Part(NamedTuple):
    """Training, validation or test rows as they were read."""

    where: str  # as sentences call them
    x: np.ndarray  # uint8 or float [N, *shape]
    y: np.ndarray  # int64 [N], -1 where no label is known


def find(data: DataConfig, setting: str) -> Path:
    """The file that data.file or data.test_file names, looked for here and then in $SSL_DGM_DATA.

    Raises:
        UserError: when there is none, or it is a folder.
    """
    name = getattr(data, setting)
    if name is None:
        raise UserError(f"data={data.name} reads a file of your own; name it with data.{setting}=...")
    places = [Path(), *([Path(os.environ["SSL_DGM_DATA"])] if os.environ.get("SSL_DGM_DATA") else [])]
    paths = [place / Path(name).expanduser() for place in places]
    for path in paths:
        if path.is_dir():
            raise UserError(f"data.{setting}={name} is a folder; name a file")
        if path.exists():
            return path.absolute()
    where = " and ".join(dict.fromkeys(str(path.absolute().parent) for path in paths))
    raise UserError(f"data.{setting}={name} is not there (looked in {where}); check the path")


def files(*paths: Path) -> list[Path]:
    """What the digest of data from these files depends on: they, and what is made of them here."""
    return [*paths, Path(__file__), Path(validation_rule.__file__)]


def source_of(
    data: DataConfig,
    train: Part,
    test: Part,
    validation: Part | None = None,
    classes: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """The data set of these rows; where no validation rows are given, some of those with a label are held out.

    Floats are standardised, column by column, by the training rows that are left. The sha256 is of the rows as they
    were given, in the order of the result: what is left of the training rows, then the validation rows; and of the
    names in tables and of folders.

    Args:
        classes: names of the classes 0, 1, 2, ...
        columns: names of the columns.
        notes: what else is to be said at the start.

    Raises:
        UserError: for rows that are of different shapes or types, and for labels that classes cannot be told from.
    """
    parts = [train, test, *([validation] if validation else [])]
    for part in parts:
        check_rows(part, train)
        if part is not train:
            _check_labelled(part)
    num_classes = _check_classes(train, test, validation, classes)
    flat = {part.where: part.x.reshape(len(part.x), -1) for part in parts}
    x, y, notes = flat[train.where], train.y, [*notes]
    if validation is None:
        held = held_out(y, data.validation, train.where, classes)
        order = np.concatenate([np.delete(np.arange(len(y)), held), held])
        x, y, num_validation = x[order], y[order], len(held)
    else:
        if data.validation is not None:
            raise UserError(f"data.validation={data.validation} has no use beside {validation.where}; leave one out")
        x, y = np.concatenate([x, flat[validation.where]]), np.concatenate([y, validation.y])
        num_validation = len(validation.y)
    num_train, x_test = len(y) - num_validation, flat[test.where]
    names = tuple(classes) if classes is not None else None
    notes.append(_labels(y[:num_train], num_validation, names or tuple(map(str, range(num_classes))), validation))
    # Files of arrays are known by their rows alone, whatever a list beside them calls the classes.
    named = [np.array([*(classes or ()), *(columns or ())])] if data.name in ("csv", "folder") else []
    sha256, scaling = digest(x, y, x_test, test.y, *named), None
    if x.dtype.kind == "f":
        scaling = Scaling.of(x[:num_train])
        _check_scale(scaling, columns)
        constant = int((x[:num_train].max(0) == x[:num_train].min(0)).sum())
        x, x_test = scaling.apply(x), scaling.apply(x_test)
        if constant:
            notes.append(f"{constant} columns do not vary in the training rows; data.min_pixel_sd=1e-6 drops them")
    return Source(
        data.name, x, y, x_test, test.y, num_validation, num_classes, train.x.shape[1:], sha256, classes=names,
        columns=None if columns is None else tuple(columns), scaling=scaling, notes=tuple(notes),
    )  # fmt: skip


def check_rows(part: Part, train: Part) -> None:
    """Nothing, once it is known that the rows are numbers and like the training rows.

    Raises:
        UserError: for no rows, another shape or type, more or fewer labels, and floats that are not finite.
    """
    if not len(part.x):
        raise UserError(f"{part.where} has no rows; put some there")
    if len(part.x) != len(part.y):
        raise UserError(f"{part.where} has {len(part.x):,} rows but {len(part.y):,} labels; give one for every row")
    if part.x.shape[1:] != train.x.shape[1:]:
        sizes = [" x ".join(map(str, p.x.shape[1:])) for p in (part, train)]
        raise UserError(f"{part.where} has rows of {sizes[0]} but {train.where} of {sizes[1]}; make them equal")
    if part.x.dtype.kind != train.x.dtype.kind:
        raise UserError(f"{part.where} holds {part.x.dtype} but {train.where} {train.x.dtype}; save both alike")
    if part.x.dtype.kind == "f" and not np.isfinite(part.x).all():
        row, column = np.argwhere(~np.isfinite(part.x.reshape(len(part.x), -1)))[0]
        value = part.x.reshape(len(part.x), -1)[row, column]
        raise UserError(
            f"{part.where} has {value} in row {row}, column {column} (counted from 0); fill it in or leave the row out"
        )


def _check_labelled(part: Part) -> None:
    if part.y.min() < 0:
        row = int(np.flatnonzero(part.y < 0)[0])
        raise UserError(
            f"row {row} (counted from 0) of {part.where} has no label; label it, or put it among the unlabelled rows"
        )


def _check_classes(train: Part, test: Part, validation: Part | None, classes: Sequence[str] | None) -> int:
    """How many classes there are: those of the training and validation rows."""
    found = np.unique(np.concatenate([train.y, *([validation.y] if validation else [])]))
    names = {c: f"{c}" if classes is None or c >= len(classes) else f"{c} ({classes[c]})" for c in found.tolist()}
    if found[0] < -1:
        raise UserError(f"the labels of {train.where} have a {found[0]}; use 0, 1, 2, ..., or -1 where none is known")
    found = found[found >= 0]
    if not len(np.unique(train.y[train.y >= 0])):
        raise UserError(f"{train.where} has no row with a label; label at least two rows of every class")
    if len(found) == 1:
        raise UserError(f"{train.where} has labels of class {names[int(found[0])]} alone; label rows of two at least")
    if gaps := np.setdiff1d(np.arange(min(int(found[-1]) + 1, len(found) + 1)), found).tolist():
        raise UserError(
            f"{train.where} has labels up to {found[-1]} but none of class {gaps[0]}; number the classes 0, 1, 2, ..."
        )
    if unknown := np.setdiff1d(test.y, found).tolist():
        raise UserError(
            f"{test.where} has a label {unknown[0]} that no row of {train.where} has; label some, or leave its rows out"
        )
    if classes is not None and len(classes) != len(found):
        raise UserError(f"{train.where} has labels of {len(found)} classes but {len(classes)} names; give one for each")
    return len(found)


def check_memory(needed: int, where: str) -> None:
    """Nothing, unless so many bytes are more than there is memory for.

    Raises:
        UserError: then.
    """
    free = _free_memory()
    if free is not None and COPIES * needed > free:
        raise UserError(
            f"{where} holds {needed / 1e9:,.1f} GB of rows, more than there is memory for ({free / 1e9:,.1f} GB are "
            "free); use fewer or smaller rows, or data=memmap"
        )


def _free_memory() -> int | None:
    with contextlib.suppress(OSError):
        if match := re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text()):
            return int(match[1]) * 1024
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _check_scale(scaling: Scaling, columns: Sequence[str] | None) -> None:
    bad = ~(np.isfinite(scaling.mean) & np.isfinite(scaling.sd) & (scaling.sd > 0))
    if bad.any():
        column = int(np.flatnonzero(bad)[0])
        name = f"{column} (counted from 0)" if columns is None else columns[column]
        raise UserError(f"column {name} has values too large or too close to be standardised; rescale it")


def _labels(y: np.ndarray, num_validation: int, names: Sequence[str], given: Part | None) -> str:
    """How many labels there are to learn from, and of which classes."""
    counts = np.bincount(y[y >= 0], minlength=len(names))
    shown = zip(names[:MOST_NAMED], counts.tolist())
    rows = ", ".join(f"{name} {count:,}" for name, count in shown) + (", ..." if len(names) > MOST_NAMED else "")
    known = int(counts.sum())
    if given is not None:
        return f"labels: {known:,} of {len(y):,} training rows have one ({rows})"
    return (
        f"labels: {known:,} of {known + num_validation:,} can be learned from ({rows}), {num_validation:,} are held "
        f"out for validation (data.validation={len(names)} or more holds out another number)"
    )

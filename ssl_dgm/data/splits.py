"""Which training rows are labelled: drawn from a seed, or read from a manifest.

A draw is a function of the data and of `split_seed` alone. Once written, the manifest's row
numbers are the truth: loading one draws nothing. Row numbers count training rows, the last of
which are the validation rows: none of these is ever labelled, and they are in the pool only where
that was asked for. Test rows cannot be named.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dgm.config import UserError
from ssl_dgm.data.shards import Shards
from ssl_dgm.data.source import Source, digest
from ssl_dgm.files import write_atomic

VERSION = 1
# How rows of users' own data are marked.
WITHOUT_LABEL = {
    "csv": ", or leave the cell of the class empty in rows that have none",
    "npz": ", or give x_unlabelled, or -1 in y_train where the class is not known",
    "folder": ", or put pictures without a class into unlabelled/",
}


@dataclass(frozen=True, eq=False)
class Rest:
    """All row numbers below `below`, or all of them but the labelled ones, told without a list of millions."""

    below: int
    labelled: np.ndarray
    with_labelled: bool

    def __len__(self) -> int:
        return self.below - (0 if self.with_labelled else len(self.labelled))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = np.arange(self.below, dtype=dtype or np.int64)
        return rows if self.with_labelled else np.setdiff1d(rows, self.labelled)


@dataclass(frozen=True, eq=False)
class Split:
    """The row numbers of the labelled rows and of the unlabelled pool, and what they belong to."""

    labelled: np.ndarray  # int64 [N_l]
    unlabelled: np.ndarray | Rest  # int64 [N_u], the labelled rows among them or not; Rest where rows stay on the disk
    data: str
    data_sha256: str
    num_classes: int
    class_counts: tuple[int, ...]  # labelled rows of every class
    split_seed: int

    @property
    def sha256(self) -> str:
        """The SHA-256 of both lists of row numbers, their order included; of a Rest, of what tells it."""
        pool = self.unlabelled
        return digest(self.labelled, np.array([pool.below, len(pool)]) if isinstance(pool, Rest) else pool)


def draw(
    source: Source,
    labels: int | str,
    split_seed: int,
    labelled_in_pool: bool = False,
    classes: Collection[int] | None = None,
    validation_in_pool: bool = False,
) -> Split:
    """A split with `labels` labelled training rows, equally many of every class, or with all that have a label.

    For one `split_seed`, fewer labels are a prefix of more, and a class has the same labelled rows whichever others
    are labelled. `labels` equal to the number of training rows labels all of them, whatever their balance, where every
    class is labelled. The pool is the other training rows, or all of them if `labelled_in_pool`, and the validation
    rows if `validation_in_pool`.

    Args:
        labels: 0 labels none; 'all' labels every row of the `classes` whose label is known, whatever their balance.
        classes: those that are labelled; None: all.

    Raises:
        UserError: if that number of labels cannot be drawn, or leaves no unlabelled row.
    """
    known = range(source.num_classes) if classes is None else sorted(classes)
    whole = len(known) == source.num_classes
    y, every = source.train_y[: source.num_train], source.num_train
    if split_seed < 0:
        raise UserError(f"split_seed={split_seed} is negative; use 0, 1, 2, ...")
    if isinstance(labels, str):
        labelled = _every_label(source, known)
    elif labels == 0:
        labelled = np.empty(0, np.int64)
    elif labels == every and whole and y.min() >= 0:
        labelled = np.arange(every, dtype=np.int64)
    else:
        _check_labels(source, labels, known)
        rng = np.random.Generator(np.random.PCG64(split_seed))
        # Whole classes are permuted whatever `labels` and `classes` are: this makes splits nested. Classes take turns,
        # so that the nesting is a prefix and every run of as many rows as classes is balanced.
        permuted = [rng.permutation(np.flatnonzero(y == c)) for c in range(source.num_classes)]
        labelled = np.stack([permuted[c][: labels // len(known)] for c in known], axis=1).reshape(-1)
    if len(labelled) == every and not (labelled_in_pool or validation_in_pool):
        raise UserError(
            f"labels={labels} labels every training row of {source.name} and leaves none unlabelled; "
            f"set data.labelled_in_pool=true, or use fewer labels{WITHOUT_LABEL.get(source.name, '')}"
        )
    rest = Rest(len(source.train_y) if validation_in_pool else every, labelled, labelled_in_pool)
    pool = rest if isinstance(source.train_x, Shards) else np.asarray(rest)
    return Split(labelled, pool, source.name, source.sha256, source.num_classes, _counts(source, labelled), split_seed)


def save(split: Split, path: Path) -> None:
    """Nothing, once the manifest stands under `path`: whole, or not at all."""
    content = {
        "version": VERSION,
        "data": split.data,
        "data_sha256": split.data_sha256,
        "split_seed": split.split_seed,
        "num_classes": split.num_classes,
        "class_counts": split.class_counts,
        "labelled": split.labelled.tolist(),
        "unlabelled": _shortened(split),
        "split_sha256": split.sha256,
    }
    write_atomic(path, _render(content))


def load_manifest(path: Path, source: Source) -> Split:
    """The split that `save` wrote, checked against `source`.

    Raises:
        UserError: if the file is unreadable, changed in any byte, of another version or for other
            data, or if its rows are out of range, repeated or not of the classes it tells.
    """
    corrupted = UserError(f"{path} is corrupted; fetch it again or use another split.file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"split.file={path} cannot be read ({error.strerror}); check the path") from error
    try:
        content = json.loads(raw)
        version = content["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise corrupted from error
    if version != VERSION:
        raise UserError(f"{path} is a manifest of version {version}, not {VERSION}; use the ssl_dgm that wrote it")
    # What the content would be written as, checksum and layout included, has to be what is there.
    if _render({k: v for k, v in content.items() if k != "checksum"}) != raw:
        raise corrupted
    try:
        labelled = np.array(content["labelled"], np.int64)
        split = Split(
            labelled=labelled,
            unlabelled=_expanded(content["unlabelled"], labelled, isinstance(source.train_x, Shards)),
            class_counts=tuple(content["class_counts"]),
            data=content["data"],
            data_sha256=content["data_sha256"],
            num_classes=content["num_classes"],
            split_seed=content["split_seed"],
        )
        intact = content["split_sha256"] == split.sha256
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise corrupted from error
    if split.data_sha256 != source.sha256:
        remedy = "fetch the data again" if split.data == source.name else f"set data={split.data}"
        raise UserError(
            f"{path} is for {split.data} with SHA-256 {split.data_sha256[:10]}, not for this {source.name} "
            f"({source.sha256[:10]}); {remedy} or use another split.file"
        )
    if not intact:
        raise corrupted
    _check_rows(split, source, path)
    return split


def _every_label(source: Source, classes: Sequence[int]) -> np.ndarray:
    labelled = np.flatnonzero(np.isin(source.train_y[: source.num_train], classes))
    if lacking := sorted({*classes} - {*source.train_y[labelled].tolist()}):
        raise UserError(
            f"labels=all finds no row of class {lacking[0]} of {source.name}; label some, or hide the class by "
            f"classes.hidden=[{','.join(map(str, lacking))}]"
        )
    return labelled.astype(np.int64)


def _check_labels(source: Source, labels: int, classes: Sequence[int]) -> None:
    name, k, every = source.name, len(classes), source.num_train
    y = source.train_y[:every]
    sizes = np.bincount(y[y >= 0], minlength=source.num_classes)
    smallest = min(classes, key=lambda c: sizes[c])
    most = k * int(sizes[smallest])
    every_class = k == source.num_classes
    of = f"the {k} {'' if every_class else 'labelled '}classes of {name}"
    whole = f"all {every} with data.labelled_in_pool=true" if y.min() >= 0 else "labels=all"
    if not every_class:
        whole = "other classes in classes.labelled"
    limit = f"use at most {most}, or {whole}" if most else f"use {whole}"
    if labels <= 0:
        raise UserError(f"labels={labels} is not positive; use {k} or another multiple of {of}")
    if labels > every:
        raise UserError(f"labels={labels} is more than the {every:,} training rows of {name}; {limit}")
    if labels % k:
        below = labels // k * k
        options = " or ".join(str(n) for n in (below, below + k) if 0 < n <= most)
        remedy = f"use {options}" if options else limit
        raise UserError(f"labels={labels} is not a multiple of {of}; {remedy}")
    if labels > most:
        called = f"{smallest} ({source.classes[smallest]})" if source.classes else smallest
        has = f"class {called} of {name} has only {sizes[smallest]:,}"
        raise UserError(f"labels={labels} takes {labels // k:,} rows of every class, and {has}; {limit}")


def _check_rows(split: Split, source: Source, path: Path) -> None:
    def refuse(what: str) -> UserError:
        return UserError(f"{path} {what}; use another split.file")

    pool = split.unlabelled
    if isinstance(pool, Rest) and pool.below not in (source.num_train, len(source.train_y)):
        raise refuse(f"has a pool of {pool.below:,} rows where {source.name} has {source.num_train:,} training rows")
    if isinstance(source.train_x, Shards) and not isinstance(pool, Rest):
        raise refuse(f"lists its unlabelled rows one by one, which takes too much memory for data={source.name}")
    # A Rest repeats none, and has all labelled rows or none.
    listed = [] if isinstance(pool, Rest) else [("unlabelled", pool, len(source.train_y))]
    for name, rows, below in (("labelled", split.labelled, source.num_train), *listed):
        if not rows.size:
            if name == "labelled":
                continue
            raise refuse("has no unlabelled rows")
        if rows.min() < 0 or rows.max() >= below:
            raise refuse(f"names {name} rows outside the {below:,} training rows of {source.name}")
        if len(np.unique(rows)) < len(rows):
            raise refuse(f"repeats {name} rows")
    shared = 0 if isinstance(pool, Rest) else int(np.isin(split.labelled, pool).sum())
    if shared not in (0, len(split.labelled)):
        raise refuse(f"has {shared} of its {len(split.labelled)} labelled rows in the unlabelled pool, not none or all")
    if unknown := int((source.train_y[split.labelled] < 0).sum()):
        raise refuse(f"labels {unknown} rows of {source.name} whose label is not known")
    if (split.num_classes, split.class_counts) != (source.num_classes, _counts(source, split.labelled)):
        raise refuse(f"tells class counts {list(split.class_counts)} that the labels of {source.name} do not have")


def _counts(source: Source, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(np.bincount(source.train_y[rows], minlength=source.num_classes).tolist())


def _shortened(split: Split) -> list[int] | dict[str, Any]:
    if isinstance(pool := split.unlabelled, Rest):
        return {"rows_below": pool.below, "with_labelled": pool.with_labelled}
    # Nearly always the pool is a range, with or without the labelled rows: no need for 50,000 numbers.
    below = int(max(split.labelled.max(initial=-1), pool.max(initial=-1))) + 1
    for with_labelled in (True, False):
        if np.array_equal(Rest(below, split.labelled, with_labelled), pool):
            return {"rows_below": below, "with_labelled": with_labelled}
    return pool.tolist()


def _expanded(unlabelled: list[int] | dict[str, Any], labelled: np.ndarray, on_disk: bool) -> np.ndarray | Rest:
    if isinstance(unlabelled, list):
        return np.array(unlabelled, np.int64)
    rest = Rest(int(unlabelled["rows_below"]), labelled, bool(unlabelled["with_labelled"]))
    return rest if on_disk else np.asarray(rest)


def _render(content: dict[str, Any]) -> bytes:
    checksum = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in {**content, "checksum": checksum}.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

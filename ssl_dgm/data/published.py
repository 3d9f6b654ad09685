"""Files that others published: where they are, whether they are what was published, and digests told once.

Nothing here imports torch.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssl_dgm.config import UserError
from ssl_dgm.files import DamagedFile, read_json, write_json

CACHE = "~/.cache/ssl_dgm"


def root(folder: Path | str | None = None) -> Path:
    """Where the folders of data sets are: `folder`, else $SSL_DGM_DATA, else ~/.cache/ssl_dgm."""
    return Path(folder or os.environ.get("SSL_DGM_DATA") or CACHE).expanduser()


def may_download(folder: Path | str | None = None) -> bool:
    """Whether files may be fetched: only into the default folder, never into one that somebody named."""
    return folder is None and not os.environ.get("SSL_DGM_DATA")


def missing(name: str, path: Path, page: str) -> UserError:
    """The sentence for a file that isn't there.

    Args:
        page: where it can be had.
    """
    wanted = path.relative_to(root()) if path.is_relative_to(root()) else path.name
    return UserError(
        f"{path.name} of {name} is missing from {path.parent}; put it there (from {page}), or set SSL_DGM_DATA to the "
        f"folder that has {wanted}"
    )


def damaged(path: Path, what: str) -> UserError:
    """The sentence for a file that is not what it should be."""
    return UserError(f"{path} {what}; delete it and fetch it again")


def check_md5(path: Path, md5: str) -> None:
    """Nothing, once it is known that a file is the published one.

    Raises:
        UserError: when it is another.
    """

    def compute() -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    try:
        found = remembered(["md5", *stamp(path)], compute)
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from error
    if found != md5:
        raise damaged(path, "differs from the published file (its MD5 is another)")


def download(url: str, path: Path, md5: str) -> None:
    """Puts a published file in place whole or not at all.

    Raises:
        UserError: when it cannot be had, or is not what was published.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place when complete: an interrupted or a second download leaves no half file.
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            from torchvision.datasets import utils

            utils.download_url(url, scratch, path.name, md5)
            os.replace(Path(scratch) / path.name, path)
    except Exception as error:  # torchvision raises many kinds, and all have the same remedy
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{url} could not be downloaded ({reason}); put {path.name} into {path.parent} by hand"
        ) from error


def stamp(path: Path) -> list[str | int]:
    """What changes when a file does: its path, size and time."""
    about = path.stat()
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]


def remembered(about: Sequence[object], compute: Callable[[], str]) -> str:
    """A digest that takes long to compute, computed once for what it is about and kept in ~/.cache/ssl_dgm.

    Args:
        about: what it depends on, made of texts and numbers.
    """
    path = Path(CACHE).expanduser() / "digests.json"
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    if (known := _kept(path).get(key)) is not None:
        return known
    value = compute()
    with contextlib.suppress(UserError):  # a home that can't be written to only costs time
        write_json(path, _kept(path) | {key: value})
    return value


def _kept(path: Path) -> dict[str, str]:
    try:
        return read_json(path)
    except (OSError, DamagedFile):
        return {}


def last_rows(n: int) -> int:
    """How many of n training rows are validation rows: 10,000, or a fifth of fewer than 50,000."""
    return min(10_000, n // 5)


def check_classes(path: Path, y: np.ndarray, num_classes: int) -> None:
    """Nothing, once it is known that classes are 0 to num_classes - 1 and that there are any.

    Raises:
        UserError: for others.
    """
    if not len(y):
        raise damaged(path, "has no rows")
    if y.min() < 0 or y.max() >= num_classes:
        raise damaged(path, f"has a class {y.min() if y.min() < 0 else y.max()} where there are {num_classes}")

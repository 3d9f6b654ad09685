"""MNIST and Fashion-MNIST: files of the idx format, plain or .gz, as torchvision lays them out.

Nothing is unpickled: idx files are a header and bytes.
"""

import gzip
import hashlib
import math
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data.published import may_download, root
from ssl_dgm.data.source import Source, build

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # torchvision's names, of folders and of classes
SHA256 = {  # of the uncompressed FILES, in their order
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

CLASSES = {  # names of them, in the order of their numbers
    "fashion_mnist": (
        "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
}  # fmt: skip


def check(data: DataConfig) -> None:
    """Nothing, once it is known that `read` finds its files or may download them.

    Raises:
        UserError: for a missing file that will not be downloaded.
    """
    if may_download(data.folder):
        return
    folder = locate(data.name, data.folder)
    if missing := _missing(folder):
        raise UserError(
            f"{missing[0]} of {data.name} is missing from {folder}; put it there, plain or as .gz, set SSL_DGM_DATA to "
            f"the folder that has {FOLDERS[data.name]}/raw, or unset it to download the files"
        )


def read(data: DataConfig) -> Source:
    """The data set, downloaded into the default folder if it is in none.

    Raises:
        UserError: for a missing, damaged or undownloadable file.
    """
    folder = locate(data.name, data.folder)
    if _missing(folder):
        _download(data.name, folder)
    arrays = [read_idx(_find(folder, file), sha256) for file, sha256 in zip(FILES, SHA256[data.name], strict=True)]
    return build(data.name, arrays, num_validation=10_000, classes=CLASSES.get(data.name))


def locate(name: str, data_dir: Path | str | None = None) -> Path:
    """The folder of the idx files of mnist or fashion_mnist, whether or not they are there yet.

    It is in `data_dir`, else in $SSL_DGM_DATA, else in ~/.cache/ssl_dgm.
    """
    return root(data_dir) / FOLDERS[name] / "raw"


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """The uint8 array in an idx file, plain or .gz, of the shape that its header tells.

    Raises:
        UserError: if it is unreadable, no idx file of bytes, of another length than its header
            tells, or if its uncompressed content has not this SHA-256.
    """

    def damaged(what: str) -> UserError:
        return UserError(f"{path} {what}; delete it and fetch it again")

    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(f"cannot be read ({error})") from error
    # Big-endian: two zero bytes, 8 for uint8, the number of dimensions, then each as uint32.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not content[3]:
        raise damaged(f"is no idx file of bytes (it begins with 0x{content[:4].hex()})")
    start = 4 + 4 * content[3]
    dims = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(dims):
        raise damaged(f"has {len(content):,} bytes where its header promises {start + math.prod(dims):,}")
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise damaged("differs from the published file (its SHA-256 is another)")
    # Copied, because torch warns about arrays that it could not write to.
    return np.frombuffer(content, np.uint8, offset=start).reshape(dims).copy()


def _find(folder: Path, file: str) -> Path:
    plain, packed = folder / file, folder / f"{file}.gz"
    return packed if packed.is_file() and not plain.is_file() else plain


def _missing(folder: Path) -> list[str]:
    return [file for file in FILES if not _find(folder, file).is_file()]


def _download(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed into place when complete: an interrupted or a second download leaves no half file.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            from torchvision import datasets

            getattr(datasets, FOLDERS[name])(scratch, download=True)
            for file in FILES:
                os.replace(Path(scratch) / FOLDERS[name] / "raw" / file, folder / file)
    except Exception as error:  # torchvision raises many kinds, and all have the same remedy
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} could not be downloaded to {folder} ({reason}); put {', '.join(FILES)} there by hand, "
            f"or set SSL_DGM_DATA to the folder that has {FOLDERS[name]}/raw"
        ) from error

"""Data sets as NumPy arrays, or as rows in files: where they are, whether they are intact, what is in them.

N rows, D pixels per image, x_dim of them kept. Nothing here imports torch at the top, and
nothing is unpickled: idx files are a header and bytes.
"""

import dataclasses
import gzip
import hashlib
import math
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dgm.checks import nearest
from ssl_dgm.config import UserError
from ssl_dgm.data.shards import Shards, read_folder

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
DIGESTS = {  # `Source.sha256`, so that a run can be named without reading its data
    "digits": "27d7a1a3500289df39c36ea48701b7ea3e2fe3be545a9a48e5c3ae2b0a32d97c",
    "mnist": "b9f950d800c28d3dc3100a63b214e9a410947ee0f1618d7371764cc22cfc95b2",
    "fashion_mnist": "c86e615d8f0aa1d120dbdcca957e44a25342249a4dbbbb7fde7ed3ce1c060f29",
}
NAMES = ("digits", *FOLDERS, "memmap")
ROWS_IN_DIGEST = 1000  # training rows of a folder of shards whose pixels are part of its identity


# Arrays have no single truth value, so that a generated == would only raise.
@dataclass(frozen=True, eq=False)
class Source:
    """A data set; the validation rows are the last `num_validation` training rows."""

    name: str
    train_x: np.ndarray | Shards  # uint8 [N, x_dim], validation rows included; Shards stay on the disk
    train_y: np.ndarray  # int64 [N]; -1 where no label is known
    test_x: np.ndarray  # uint8 [N_test, x_dim]
    test_y: np.ndarray  # int64 [N_test]
    num_validation: int
    num_classes: int
    shape: tuple[int, ...]  # of one image
    sha256: str  # of the four arrays with every pixel; of rows on the disk, see `_memmap`
    kept: np.ndarray | None = None  # bool [D], the pixels left; None: all of them
    trials: int = 1  # binary draws whose share of ones a pixel is

    @property
    def num_train(self) -> int:
        """Training rows before the validation rows."""
        return len(self.train_x) - self.num_validation

    @property
    def x_dim(self) -> int:
        """Pixels per row that are left."""
        return self.train_x.shape[1]

    def first_rows(self, count: int | None) -> "Source":
        """The same with only the first `count` training rows before the validation rows; None: all. `sha256` stays.

        Raises:
            UserError: if there are fewer.
        """
        if count is None:
            return self
        if count > self.num_train:
            raise UserError(
                f"data.train_rows={count} is more than the {self.num_train:,} training rows of {self.name}; use at "
                f"most {self.num_train}, or null for all"
            )
        kept = np.r_[:count, self.num_train : len(self.train_y)]
        return dataclasses.replace(self, train_x=self.train_x[kept], train_y=self.train_y[kept])

    def drop_constant_pixels(self, min_sd: float) -> "Source":
        """The same rows with only the pixels whose s.d. is above `min_sd` (pixels in [0, 1]).

        The s.d. is over the training rows without validation. `sha256` stays that of the full data.

        Raises:
            UserError: if no pixel would be left, and for rows that stay on the disk.
        """
        if isinstance(self.train_x, Shards):
            raise UserError(
                f"data.min_pixel_sd={min_sd} would read every row of data={self.name}; use 0 and write shards without "
                "the pixels that don't vary"
            )
        x, n = self.train_x[: self.num_train], self.num_train
        # Integer sums: a constant pixel's variance is exactly 0, and no float copy of the images is made.
        total, squares = x.sum(0, dtype=np.int64), np.einsum("nd,nd->d", x, x, dtype=np.int64)
        sd = np.sqrt(n * squares - total**2) / n / 255
        varied = sd > min_sd
        if not varied.any():
            remedy = f"use a number below {sd.max():.3f}"
            raise UserError(f"data.min_pixel_sd={min_sd} drops every pixel of {self.name}; {remedy}")
        if varied.all():
            return self
        kept = np.ones(math.prod(self.shape), bool) if self.kept is None else self.kept.copy()
        kept[kept] = varied
        return dataclasses.replace(self, train_x=self.train_x[:, varied], test_x=self.test_x[:, varied], kept=kept)

    def central(self) -> np.ndarray:
        """Which pixels that are left are in the central half of both sides of an image, bool [x_dim]."""
        height, width = self.shape[:2]
        mask = np.zeros(self.shape, bool)
        mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
        return mask.reshape(-1) if self.kept is None else mask.reshape(-1)[self.kept]

    def to_images(self, x: np.ndarray) -> np.ndarray:
        """[..., *shape] from [..., x_dim], in x's type; dropped pixels are 0."""
        if self.kept is None:
            return x.reshape(*x.shape[:-1], *self.shape)
        full = np.zeros((*x.shape[:-1], self.kept.size), x.dtype)
        full[..., self.kept] = x
        return full.reshape(*x.shape[:-1], *self.shape)

    def describe(self) -> str:
        """One line for the screen."""
        rows = (
            f"{self.name}: {self.num_train:,} training, {self.num_validation:,} validation and {len(self.test_x):,} "
            f"test images of {' x '.join(map(str, self.shape))}, {self.num_classes} classes"
        )
        if isinstance(self.train_x, Shards):
            known = int((self.train_y[: self.num_train] >= 0).sum())
            return f"{rows}, {known:,} training rows with a label, read from {len(self.train_x.files)} files"
        dropped = 0 if self.kept is None else int((~self.kept).sum())
        return f"{rows}, values {self.train_x.min()} to {self.train_x.max()}, {dropped} pixels dropped"


def load(name: str, data_dir: Path | str | None = None) -> Source:
    """The data set called `name`: digits, mnist, fashion_mnist, or memmap, whose shards are in `data_dir`.

    Files are looked for as in `locate`; absent ones are downloaded only into the default folder.

    Raises:
        UserError: for an unknown name, and for a missing, damaged or undownloadable file.
    """
    check_available(name, data_dir)
    if name == "digits":
        return _digits()
    if name == "memmap":
        return _memmap(Path(data_dir or "").expanduser())
    folder = locate(name, data_dir)
    if _missing(folder):
        _download(name, folder)
    arrays = [read_idx(_find(folder, file), sha256) for file, sha256 in zip(FILES, SHA256[name], strict=True)]
    return _source(name, arrays, num_validation=10_000)


def digest_of(name: str, data_dir: Path | str | None = None) -> str:
    """The sha256 that the data set called `name` has.

    Raises:
        UserError: as `load`, for a data set whose content is not known beforehand.
    """
    return DIGESTS[name] if name in DIGESTS else load(name, data_dir).sha256


def check_available(name: str, data_dir: Path | str | None = None) -> None:
    """Nothing, once it is known that `load` finds its files or may download them; takes no time.

    Raises:
        UserError: for an unknown name, and for a missing file that will not be downloaded.
    """
    if name not in NAMES:
        raise UserError(f"data={name} is unknown; {nearest(name, list(NAMES))}")
    if name == "memmap":
        if data_dir is None:
            raise UserError("data=memmap reads files of your own; name their folder with data.folder=...")
        if not Path(data_dir).expanduser().is_dir():
            raise UserError(f"data.folder={data_dir} is no folder; name the one that holds train-x-*.npy")
        return
    if name == "digits" or _may_download(data_dir):
        return
    folder = locate(name, data_dir)
    if missing := _missing(folder):
        raise UserError(
            f"{missing[0]} of {name} is missing from {folder}; put it there, plain or as .gz, set SSL_DGM_DATA to "
            f"the folder that has {FOLDERS[name]}/raw, or unset it to download the files"
        )


def locate(name: str, data_dir: Path | str | None = None) -> Path:
    """The folder of the idx files of mnist or fashion_mnist, whether or not they are there yet.

    It is in `data_dir`, else in $SSL_DGM_DATA, else in ~/.cache/ssl_dgm.
    """
    default = os.environ.get("SSL_DGM_DATA") or "~/.cache/ssl_dgm"
    return Path(data_dir or default).expanduser() / FOLDERS[name] / "raw"


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


def _may_download(data_dir: Path | str | None) -> bool:
    return data_dir is None and not os.environ.get("SSL_DGM_DATA")


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


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x, y = np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target  # 0..16 as they come
    rows = np.random.Generator(np.random.PCG64(0)).permutation(len(x))
    train, test = rows[:1297], rows[1297:]
    source = _source("digits", [x[train], y[train], x[test], y[test]], num_validation=200)
    # A value counts the black pixels of a block of 4 x 4 (UCI's "optical recognition of handwritten digits").
    return dataclasses.replace(source, trials=16)


def _memmap(folder: Path) -> Source:
    """The user's own rows, which stay on the disk.

    The sha256 is known without reading them all. It is of every label, of the test rows, of the number of rows, and of
    the pixels of 1,000 training rows spread evenly over all files, wherever one ends and the next begins. Two folders
    that have it have the same splits; that all their other pixels are the same is for their owner to know.
    """
    c = read_folder(folder)
    some = np.linspace(0, len(c.train_x) - 1, min(ROWS_IN_DIGEST, len(c.train_x))).astype(np.int64)
    sha256 = digest(c.train_x[some], c.train_y, c.test_x, c.test_y)
    return Source("memmap", c.train_x, c.train_y, c.test_x, c.test_y, c.num_validation, c.num_classes, c.shape, sha256)


def _source(name: str, arrays: list[np.ndarray], num_validation: int) -> Source:
    shape = arrays[0].shape[1:]
    train_x, test_x = (x.reshape(len(x), -1) for x in arrays[::2])
    train_y, test_y = (y.astype(np.int64) for y in arrays[1::2])
    sha256, num_classes = digest(train_x, train_y, test_x, test_y), int(train_y.max()) + 1
    return Source(name, train_x, train_y, test_x, test_y, num_validation, num_classes, shape, sha256)


def digest(*arrays: np.ndarray) -> str:
    """The SHA-256 of the arrays' types, shapes and elements, the same on every machine."""
    total = hashlib.sha256()
    for array in arrays:
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return total.hexdigest()

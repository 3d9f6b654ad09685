"""CIFAR-10 and CIFAR-100: 32 x 32 pixels in colour, as archives or folders of the published binary or Python files.

What has a published MD5 is parsed once it is known to have it. Python's files are pickles: they are read by a loader
that knows what these files need and nothing else, and makes no array of what a file says of itself.
"""

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dgm.config import DataConfig
from ssl_dgm.data import published
from ssl_dgm.data.source import Source, build

PAGE = "https://www.cs.toronto.edu/~kriz"
PIXELS = 3 * 32 * 32
MOST = 200_000_000  # bytes of one file, and more than any has


@dataclass(frozen=True)
class Layout:
    """One form in which a data set is published; its last file is the test rows'."""

    archive: str
    md5: str  # of the archive
    folder: str  # in it, and what it is unpacked to
    md5s: dict[str, str]  # of the files in the folder; '' where none is published


LAYOUTS = {  # the first that is there is read; the last is downloaded
    "cifar10": [
        Layout(
            "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin",
            {**{f"data_batch_{i}.bin": "" for i in range(1, 6)}, "test_batch.bin": ""},
        ),
        Layout(
            "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py",
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
    ],
    "cifar100": [
        Layout(
            "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary",
            {"train.bin": "", "test.bin": ""},
        ),
        Layout(
            "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python",
            {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        ),
    ],
}  # fmt: skip
CLASSES = {"cifar10": 10, "cifar100": 100}
NAMES = {  # of the classes
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


def files(data: DataConfig) -> list[Path]:
    """What is read: the first archive or folder that is there, or the archive that would be downloaded."""
    for layout in LAYOUTS[data.name]:
        if (archive := published.root() / layout.archive).is_file():
            return [archive]
        inside = [published.root() / layout.folder / name for name in layout.md5s]
        if all(path.is_file() for path in inside):
            return inside
    return [published.root() / LAYOUTS[data.name][-1].archive]


def check(data: DataConfig) -> None:
    """Nothing, once it is known that `read` finds its files or may download them.

    Raises:
        UserError: for a missing file that will not be downloaded.
    """
    if not files(data)[0].is_file() and not published.may_download():
        raise published.missing(data.name, files(data)[0], f"{PAGE}/cifar.html")


def read(data: DataConfig) -> Source:
    """The data set, with fine labels; downloaded into the default folder if it is in none.

    Raises:
        UserError: for a missing, damaged or undownloadable file.
    """
    paths = files(data)
    layout = next(a for a in LAYOUTS[data.name] if paths[0].name == a.archive or paths[0].parent.name == a.folder)
    if not paths[0].is_file():
        published.download(f"{PAGE}/{layout.archive}", paths[0], layout.md5)
    parts = [_parsed(path, content, data.name) for path, content in _contents(paths, layout)]
    x, y = (np.concatenate(piece) for piece in zip(*parts[:-1]))
    return build(data.name, [x, y, *parts[-1]], published.last_rows(len(x)), CLASSES[data.name], NAMES.get(data.name))


def _contents(paths: list[Path], layout: Layout) -> list[tuple[Path, bytes]]:
    """The bytes of the layout's files, with the path that a sentence about each would name."""
    if paths[0].name != layout.archive:
        for path in paths:
            if md5 := layout.md5s[path.name]:
                published.check_md5(path, md5)
            if path.stat().st_size > MOST:
                raise published.damaged(path, f"has {path.stat().st_size:,} bytes, more than a file of CIFAR")
        return [(path, path.read_bytes()) for path in paths]
    archive, found = paths[0], []
    published.check_md5(archive, layout.md5)
    try:
        with tarfile.open(archive) as packed:
            for name in layout.md5s:
                member = packed.getmember(f"{layout.folder}/{name}")
                file = packed.extractfile(member) if member.isfile() and member.size <= MOST else None
                if file is None:
                    raise published.damaged(archive, f"has a {name} that is no file of CIFAR")
                found.append((archive, file.read()))
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise published.damaged(archive, f"cannot be unpacked ({error})") from error
    return found


def _parsed(path: Path, content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and classes, int64 [N]."""
    is_binary = path.name.endswith((".bin", "-binary.tar.gz"))
    x, y = _binary(path, content, name) if is_binary else _pickled(path, content, name)
    published.check_classes(path, y, CLASSES[name])
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), y


def _binary(path: Path, content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    before = 1 if name == "cifar10" else 2  # bytes: the class, of cifar100 after the coarse one
    if len(content) % (before + PIXELS):
        raise published.damaged(path, f"has {len(content):,} bytes, no multiple of the {before + PIXELS:,} of an image")
    rows = np.frombuffer(content, np.uint8).reshape(-1, before + PIXELS)
    return rows[:, before:], rows[:, before - 1].astype(np.int64)


def _pickled(path: Path, content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _Loader(io.BytesIO(content), encoding="latin1").load()
        data, labels = batch["data"], batch["labels" if name == "cifar10" else "fine_labels"]
        _, shape, kind, by_column, pixels = data.state
        pixels = pixels.encode("latin1") if isinstance(pixels, str) else pixels
        fits = kind.name == "u1" and not by_column and shape == (len(labels), PIXELS) and all(
            isinstance(label, int) for label in labels
        )  # fmt: skip
        if not fits or len(pixels) != len(labels) * PIXELS:
            raise published.damaged(path, f"holds no uint8 array [N, {PIXELS}] with a class for every row")
        return np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS), np.array(labels, np.int64)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise published.damaged(path, f"is no batch of CIFAR ({error})") from error


class _Array:
    """Stands in a pickle for a NumPy array: what the file says of it, and no memory."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands in a pickle for the type of an array's elements."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _Loader(pickle.Unpickler):
    """Knows arrays, by stand-ins, and what needs no import: numbers, texts, lists and dictionaries."""

    known = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array, ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype,
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[module, name]

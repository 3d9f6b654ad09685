"""A folder of pictures, one folder per class, as torchvision's ImageFolder has them.

    train/<class>/*    train/unlabelled/* or unlabelled/*    test/<class>/*    validation/<class>/*, if there are any

Nothing here imports torch.
"""

import contextlib
import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import own
from ssl_dgm.data.own import Part
from ssl_dgm.data.source import Source
from ssl_dgm.files import write_atomic

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")  # Pillow's names
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
UNLABELLED = "unlabelled"
PARTS = ("train", "validation", "test")
GREY = ("1", "L", "LA")  # Pillow's names of 8-bit modes without colours
SIDEWAYS = (5, 6, 7, 8)  # Exif's orientations that swap width and height
ORIENTATION = 0x0112
CACHED = 1000  # pictures, from which on their pixels are kept for the next time


T = TypeVar("T")


class Files(NamedTuple):
    """The pictures of training, validation or test rows."""

    where: Path
    paths: list[Path]
    y: np.ndarray  # int64 [N], -1 without a label


def check(data: DataConfig) -> None:
    """Nothing, once it is known that the folder has pictures of classes; none is opened.

    Raises:
        UserError: for a missing or empty folder, and for classes of test rows alone.
    """
    _find(data)


def read(data: DataConfig) -> Source:
    """The pictures of a folder, cut to squares of data.side pixels; without it all have to be of one size.

    They are grey where all of them are, else in colour. Classes are the folders' names, sorted.

    Raises:
        UserError: for files that are no pictures, and for pictures of different sizes where data.side is not set.
    """
    classes, found, notes = _find(data)
    every = [path for files in found.values() for path in files.paths]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        shape = _shape(every, data.side)
        own.check_memory(len(every) * int(np.prod(shape)), str(data.folder))
        x = _cached(every, shape)
    parts, start = {}, 0
    for name, files in found.items():
        parts[name] = Part(str(files.where), x[start : start + len(files.paths)], files.y)
        start += len(files.paths)
    return own.source_of(data, parts["train"], parts["test"], parts.get("validation"), classes, notes=notes)


def files(data: DataConfig) -> list[Path]:
    """What the data set's digest depends on."""
    return own.files(*(path for part in _find(data)[1].values() for path in part.paths))


def _find(data: DataConfig) -> tuple[list[str], dict[str, Files], list[str]]:
    """The classes, the files of every part, and what is to be said of files that are left out."""
    if data.folder is None:
        raise UserError("data=folder reads pictures of your own; name their folder with data.folder=...")
    root = Path(data.folder).expanduser()
    if not root.is_dir():
        raise UserError(f"data.folder={data.folder} is no folder; name the one that holds train/ and test/")
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise UserError(f"{root} has no folder {part}; put pictures there, in a folder for every class")
    for folder in (root, root / "train"):
        if (other := folder / "unlabeled").is_dir():
            raise UserError(f"{other} is not how pictures without a label are told here; call it {UNLABELLED}")
    classes = [name for name in _folders(root / "train") if name != UNLABELLED]
    if not classes:
        raise UserError(f"{root / 'train'} has no folders; put the pictures of every class in a folder of its name")
    found, others = {}, []
    for part in PARTS:
        if not (root / part).is_dir():
            continue
        names = classes if part == "train" else _folders(root / part)
        if unknown := [name for name in names if name not in classes]:
            raise UserError(
                f"{root / part} has a class {unknown[0]} that {root / 'train'} has not; add "
                f"{root / 'train' / unknown[0]} or leave it out"
            )
        paths, y = [], []
        for name in names:
            own_paths = _pictures(root / part / name, others)
            paths += own_paths
            y += [classes.index(name)] * len(own_paths)
        found[part] = Files(root / part, paths, np.array(y, np.int64))
    for folder in (root / "train" / UNLABELLED, root / UNLABELLED):
        if folder.is_dir():
            paths = _pictures(folder, others)
            labelled = found["train"]
            y = np.concatenate([labelled.y, np.full(len(paths), -1)])
            found["train"] = Files(labelled.where, labelled.paths + paths, y)
    notes = [f"{len(others):,} files that are no pictures are left out, {others[0]} for one"] if others else []
    if unread := [name for name in _folders(root) if name not in (*PARTS, UNLABELLED)]:
        notes.append(f"not read of {root}: {', '.join(unread)} (pictures are in {', '.join(PARTS)} and {UNLABELLED})")
    parts = [root / part for part in found]
    if loose := [path for part in parts for path in sorted(part.iterdir()) if path.suffix.lower() in SUFFIXES]:
        notes.append(f"{len(loose):,} pictures in no folder of a class are left out, {loose[0]} for one")
    return classes, found, notes


def _folders(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error.strerror}); check its permissions") from error


def _pictures(folder: Path, others: list[Path]) -> list[Path]:
    """The pictures in a folder and in those below, sorted.

    Args:
        others: takes the files that are none, by their names.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    others += [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not found:
        raise UserError(f"{folder} has no pictures ({', '.join(SUFFIXES[:3])}, ...); put some there, or delete it")
    return found


def _shape(paths: list[Path], side: int | None) -> tuple[int, ...]:
    """[H, W] or [H, W, 3] of the rows, from the headers of all files."""
    grey, sizes = True, []
    for size, mode in _watched(map(_header, paths), len(paths), "looking at"):
        grey = grey and mode in GREY
        if size not in sizes[:2]:  # two of them are enough to tell that they differ
            sizes.append(size)
    if side is None and len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for width, height in sizes[:2])
        raise UserError(
            f"the pictures have several sizes ({shown}, to name two); set data.side, for example data.side=32, to "
            "which they are cut and resized"
        )
    width, height = (side, side) if side is not None else sizes[0]
    return (height, width) if grey else (height, width, 3)


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height of a picture as it is to be seen, and its mode."""
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise UserError(f"{path} has more than 8 bits a pixel ({image.mode}); save it with 8")
        width, height = image.size
        # Of a PNG it would take decoding to know.
        sideways = image.format != "PNG" and image.getexif().get(ORIENTATION) in SIDEWAYS
        return ((height, width) if sideways else (width, height)), image.mode


def _pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The picture, upright, the centre of it resized to the shape; uint8."""
    height, width = shape[:2]
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image).convert("L" if len(shape) == 2 else "RGB")
    if upright.size != (width, height):
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        square = upright.crop((left, top, left + side, top + side))
        upright = square.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a file, whose damages are told in a sentence, whenever they are found."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{path} claims to have more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no picture ({', '.join(FORMATS)}); replace it, or leave it out") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}); replace it, or leave it out") from error


def _cached(paths: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of all files, uint8 [N, *shape]; of many files, kept in ~/.cache/ssl_dgm and read there next time."""
    stats = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    name = hashlib.sha256(repr((stats, shape)).encode()).hexdigest()[:20]
    kept = Path("~/.cache/ssl_dgm").expanduser() / f"folder-{name}.npy"
    if len(paths) >= CACHED:
        try:
            x = np.load(kept, allow_pickle=False)
            if x.shape == (len(paths), *shape) and x.dtype == np.uint8:
                return x
        except (OSError, ValueError, EOFError):
            pass  # not there, or damaged: decoded again
    x = np.empty((len(paths), *shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda path: _pixels(path, shape), paths)
        for i, pixels in enumerate(_watched(decoded, len(paths), "decoding")):
            x[i] = pixels
    if len(paths) >= CACHED:
        with contextlib.suppress(UserError):  # there may be no place to keep it
            write_atomic(kept, lambda temporary: _save(temporary, x))
    return x


def _save(path: Path, x: np.ndarray) -> None:
    with path.open("wb") as file:  # given a path, NumPy would add a suffix
        np.save(file, x)


def _watched(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """The same items, with a bar on a terminal when they take longer than some seconds."""
    return tqdm(items, f"{what} pictures", total, leave=False, delay=3, disable=None)

"""Small NORB: toys of five classes, photographed by two cameras, 96 x 96 grey pixels; files of its own matrix format.

No checksums of the files were published: their headers are held against their lengths. Nothing is unpickled.
"""

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import published
from ssl_dgm.data.source import Source, build

PAGE = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
PARTS = {"train": "5x46789x9x18x6x2x96x96-training", "test": "5x01235x9x18x6x2x96x96-testing"}
KINDS = ("dat", "cat", "info")  # images, classes, and the toy, elevation, azimuth and light of each
TYPES = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
CLASSES = ("animal", "human", "airplane", "truck", "car")
SIDE = 96
MOST_DIMS = 8


def files(data: DataConfig) -> list[Path]:
    """What is read, plain or as .gz."""
    names = [f"smallnorb-{part}-{kind}.mat" for part in PARTS.values() for kind in KINDS]
    plain = [published.root() / "NORB" / name for name in names]
    packed = [path.with_name(f"{path.name}.gz") for path in plain]
    return [b if b.is_file() and not a.is_file() else a for a, b in zip(plain, packed)]


def check(data: DataConfig) -> None:
    """Nothing, once it is known that `read` finds its files.

    Raises:
        UserError: for a missing file, and for a size that the images have no whole blocks for.
    """
    if data.side is not None and (SIDE % data.side or data.side > SIDE):
        raise UserError(f"data.side={data.side} does not divide the {SIDE} pixels of norb's images; use 48 or 32")
    for path in files(data):
        if not path.is_file():
            raise published.missing("norb", path, PAGE)


def read(data: DataConfig) -> Source:
    """The first camera's images, averaged over blocks of pixels where data.side asks for smaller ones.

    The test images are of other toys than the training images. So are the validation rows of other toys than the
    rest: they are all images of one of the five training toys of every class, the one with the highest number.

    Raises:
        UserError: for a missing or damaged file.
    """
    check(data)
    paths, side = files(data), data.side or SIDE
    (x, y, toys), (x_test, y_test, _) = (_read(paths[i : i + 3], side) for i in (0, 3))
    held_out = toys == toys.max()
    order = np.argsort(held_out, kind="stable")
    source = build("norb", [x[order], y[order], x_test, y_test], int(held_out.sum()), len(CLASSES), CLASSES)
    notes = ("the first of two cameras",)
    if side != SIDE:
        notes += (f"means of {SIDE // side} x {SIDE // side} pixels",)
    return replace(source, notes=notes)


def _read(paths: list[Path], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, uint8 [N, side, side], classes and toys, int32 [N]."""
    pairs, y, info = (read_matrix(path) for path in paths)
    for path, array, shape in zip(paths, (pairs, y, info), ((len(y), 2, SIDE, SIDE), (len(y),), (len(y), 4))):
        kind = "u1" if array is pairs else "<i4"
        if array.shape != shape or array.dtype != np.dtype(kind):
            raise published.damaged(path, f"holds {array.dtype} {list(array.shape)}, not {kind} {list(shape)}")
    published.check_classes(paths[1], y, len(CLASSES))
    images = pairs[:, 0]
    if side != SIDE:
        blocks = images.reshape(len(images), side, SIDE // side, side, SIDE // side)
        images = np.round(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
    return images, y, info[:, 0]


def read_matrix(path: Path) -> np.ndarray:
    """The array of a NORB file, plain or .gz: bytes or int32.

    Raises:
        UserError: if it is unreadable, of another type, or of another length than its header tells.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise published.damaged(path, f"cannot be read ({error})") from error
    # Little-endian int32: the type, the number of dimensions, and each of them, three at least.
    magic, num_dims = (int.from_bytes(content[i : i + 4], "little") for i in (0, 4))
    if magic not in TYPES or not 0 < num_dims <= MOST_DIMS:
        raise published.damaged(path, f"is no matrix of bytes or whole numbers (it begins with 0x{content[:8].hex()})")
    start = 8 + 4 * max(3, num_dims)
    dims = [int.from_bytes(content[8 + 4 * i : 12 + 4 * i], "little") for i in range(num_dims)]
    promised = start + math.prod(dims) * TYPES[magic].itemsize
    if len(content) != promised:
        raise published.damaged(path, f"has {len(content):,} bytes where its header promises {promised:,}")
    return np.frombuffer(content, TYPES[magic], offset=start).reshape(dims)

"""Faces without classes: Brendan Frey's, frames of a video, and Labeled Faces in the Wild, a folder of photographs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import published
from ssl_dgm.data.source import Source, build

FREY = (28, 20)
STRETCH, VALIDATION, TEST = 200, 20, 20  # frames; the last of every stretch are held out
LFW = ("lfw", "lfw-deepfunneled")
LFW_PAGE = "http://vis-www.cs.umass.edu/lfw"
SIDE = 32


def files(data: DataConfig) -> list[Path]:
    """What is read, whether or not it is there."""
    return [published.root() / "frey.npz"] if data.name == "frey" else sorted(_lfw(data).glob("*/*.jpg"))


def check(data: DataConfig) -> None:
    """Nothing, once it is known that `read` finds its files.

    Raises:
        UserError: for a missing file or folder.
    """
    if data.name == "frey":
        if not (path := files(data)[0]).is_file():
            raise UserError(
                f"frey.npz of frey is missing from {path.parent}; write its 1,965 frames there with numpy.savez(..., "
                "x=...), uint8 [1965, 560], or set SSL_DGM_DATA to the folder that has it"
            )
    elif not _lfw(data).is_dir():
        raise UserError(
            f"lfw is missing from {_lfw(data)}; unpack lfw.tgz or lfw-deepfunneled.tgz there (from {LFW_PAGE}), or "
            "name the folder of people's folders with data.folder=..."
        )


def read(data: DataConfig) -> Source:
    """The faces, none of which has a class.

    Raises:
        UserError: for a missing or damaged file.
    """
    check(data)
    return _frey(files(data)[0]) if data.name == "frey" else _photographs(data)


def _frey(path: Path) -> Source:
    """Frames of 28 x 20, in the order of the video.

    Frames that follow each other are nearly alike, and held-out ones amid training frames would be known from those
    beside them. So whole stretches are held out: of every 200 frames the last 20 are test rows and the 20 before them
    validation rows.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            x = content["x"]
    except Exception as error:  # a file that is no such file raises many kinds
        raise published.damaged(path, f"holds no array x ({error})") from error
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != FREY[0] * FREY[1] or len(x) < STRETCH:
        raise published.damaged(path, f"holds x {x.dtype} {list(x.shape)}, not uint8 frames [N, 560]")
    place = np.arange(len(x)) % STRETCH
    part = (place >= STRETCH - VALIDATION - TEST).astype(int) + (place >= STRETCH - TEST)
    note = f"the last {TEST} of every {STRETCH} frames held out for the test, the {VALIDATION} before for validation"
    return replace(_without_classes("frey", x.reshape(-1, *FREY), part), notes=(note,))


def _photographs(data: DataConfig) -> Source:
    """The middle half of every photograph, both ways, grey: what is around the face is left out.

    People are shared out whole, in the order of their names: of every ten the last is a test person and the one before
    a validation person.
    """
    side, paths = data.side or SIDE, files(data)
    people = sorted({path.parent.name for path in paths})
    if len(people) < 10:
        raise UserError(f"{_lfw(data)} has {len(people)} people's folders of .jpg files; lfw has 5,749, ten are needed")
    place = {person: i % 10 for i, person in enumerate(people)}
    part = np.array([max(0, place[path.parent.name] - 7) for path in paths])
    note = f"the middle halves of {len(people):,} people's photographs, grey, resized to {side} x {side}"
    return replace(_without_classes("lfw", np.stack([_face(path, side) for path in paths]), part), notes=(note,))


def _face(path: Path, side: int) -> np.ndarray:
    """uint8 [side, side], every pixel the mean of the area that it stands for."""
    from PIL import Image

    try:
        with Image.open(path, formats=["JPEG"]) as image:
            width, height = image.size
            square = min(width, height) // 2
            if square < side:
                raise UserError(f"{path} has {width} x {height} pixels, too few for data.side={side}; use {square}")
            left, top = (width - square) // 2, (height - square) // 2
            box = (left, top, left + square, top + square)
            return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX, box))
    except (OSError, Image.DecompressionBombError) as error:
        raise published.damaged(path, f"cannot be decoded ({error})") from error


def _without_classes(name: str, x: np.ndarray, part: np.ndarray) -> Source:
    """The data set of images [N, ...] by part: 0 training, 1 validation, 2 test."""
    pieces: Sequence[np.ndarray] = [x[part == i] for i in range(3)]
    train, test = np.concatenate(pieces[:2]), pieces[2]
    return build(name, [train, np.full(len(train), -1), test, np.full(len(test), -1)], len(pieces[1]), 0)


def _lfw(data: DataConfig) -> Path:
    if data.folder is not None:
        return Path(data.folder).expanduser()
    there = [published.root() / name for name in LFW]
    return next((folder for folder in there if folder.is_dir()), there[0])

"""Folders of pictures: their classes and pixels, and the files that are refused."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import CLASSES, pictures, put_pictures, save
from PIL import Image

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import image_folder, sources
from ssl_dgm.data.source import Source


def load(root: Path, **settings: Any) -> Source:
    return sources.load(DataConfig("folder", str(root), **settings))


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("colour", [False, True])
def test_pixels_and_classes_are_those_of_the_files(tmp_path: Path, colour: bool) -> None:
    source = load(put_pictures(tmp_path, colour))
    assert source.shape == ((8, 8, 3) if colour else (8, 8))
    assert (source.classes, source.num_classes, len(source.train_y), source.num_validation) == (CLASSES, 3, 90, 6)
    assert np.bincount(source.train_y + 1).tolist() == [30, 20, 20, 20]
    x, y = pictures(15, seed=1, colour=colour)
    by_class = np.argsort(y, kind="stable")
    np.testing.assert_array_equal(source.to_images(source.test_x), x[by_class])
    np.testing.assert_array_equal(source.test_y, y[by_class])
    assert "(cat 18, dog 18, eel 18), 6 are held out" in source.describe()


def test_unlabelled_pictures_may_stand_in_train_and_validation_ones_beside_it(tmp_path: Path) -> None:
    before = load(put_pictures(tmp_path))
    (tmp_path / "unlabelled").rename(tmp_path / "train" / "unlabelled")
    assert load(tmp_path).sha256 == before.sha256
    for i, c in enumerate(CLASSES):
        save(pictures(1, seed=i)[0][0], tmp_path / "validation" / c / "0.png")
    source = load(tmp_path)
    assert source.num_validation == 3 and source.num_train == 90
    np.testing.assert_array_equal(source.train_y[-3:], [0, 1, 2])


def test_pictures_of_several_sizes_are_cut_to_squares_of_the_side_asked_for(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    wide = np.zeros((16, 40), np.uint8)
    wide[:, 12:28] = 200  # the middle square
    save(wide, tmp_path / "test" / "cat" / "999.png")
    with pytest.raises(
        UserError, match=r"several sizes \(8 x 8 and 40 x 16, to name two\); set data.side, for example"
    ):
        load(tmp_path)
    source = load(tmp_path, side=4)
    assert source.shape == (4, 4)
    np.testing.assert_array_equal(source.test_x[5], np.full(16, 200))


def test_a_picture_is_seen_upright_and_one_in_colour_puts_all_in_colour(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4, 0] = 255
    turned = Image.Exif()
    turned[image_folder.ORIENTATION] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "test" / "cat" / "999.jpg", exif=turned, quality=100)
    source = load(tmp_path)
    seen = source.to_images(source.test_x)[5].astype(int)
    assert seen.shape == (8, 8, 3)
    assert seen[:3, :, 0].min() > 200 > 60 > seen[5:, :, 0].max(), "the left half is the upper one now"


def test_pixels_of_many_pictures_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "CACHED", 10)
    put_pictures(tmp_path / "pictures")
    first = load(tmp_path / "pictures")
    (kept,) = (tmp_path / "home" / ".cache" / "ssl_dgm").glob("folder-*.npy")
    x = np.load(kept)
    np.save(kept, 255 - x)
    inverted = load(tmp_path / "pictures")
    np.testing.assert_array_equal(inverted.test_x, 255 - first.test_x)
    kept.write_bytes(b"damaged")
    assert load(tmp_path / "pictures").sha256 == first.sha256
    save(np.zeros((8, 8), np.uint8), tmp_path / "pictures" / "test" / "cat" / "000.png")
    assert load(tmp_path / "pictures").test_x[0].max() == 0


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "train" / "cat" / ".DS_Store").write_text("x")
    assert "1 files that are no pictures are left out" in load(tmp_path).describe()


def test_pictures_that_are_not_read_are_named(tmp_path: Path) -> None:
    put_pictures(tmp_path)
    shutil.copytree(tmp_path / "test", tmp_path / "val")
    shutil.copy(tmp_path / "train" / "cat" / "000.png", tmp_path / "train" / "loose.png")
    described = load(tmp_path).describe()
    assert f"not read of {tmp_path}: val (pictures are in train, validation, test and unlabelled)" in described
    assert f"1 pictures in no folder of a class are left out, {tmp_path / 'train' / 'loose.png'} for one" in described


def remove(*parts: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        for part in parts:
            for path in sorted((root / part).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    return change


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def png(root: Path, name: str = "train/cat/000.png") -> bytes:
    return (root / name).read_bytes()


def bomb(root: Path) -> None:
    """A picture that claims to have 30,000 x 30,000 pixels."""
    content = bytearray(png(root))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (root / "train/cat/000.png").write_bytes(content)


def sixteen(root: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(root / "train/cat/000.png")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no test": (lambda root: (root / "test").rename(root / "tests"), "has no folder test; put pictures there"),
    "no classes": (remove("train"), "train has no folders; put the pictures of every class"),
    "no test classes": (remove("test"), "/test has no rows"),
    "an empty class": (lambda root: (root / "train" / "fox").mkdir(), "train/fox has no pictures (.png, .jpg, .jpeg,"),
    "another spelling": (
        lambda root: (root / "unlabelled").rename(root / "train" / "unlabeled"),
        "train/unlabeled is not how pictures without a label are told here; call it unlabelled",
    ),
    "nothing unlabelled": (remove("unlabelled"), "unlabelled has no pictures"),
    "a class of the test alone": (lambda root: (root / "test" / "fox").mkdir(), "test has a class fox that"),
    "one class": (
        lambda root: [shutil.rmtree(root / part / c) for part in ("train", "test") for c in ("dog", "eel")],
        "has labels of class 0 (cat) alone",
    ),
    "text": (write("train/cat/000.png", b"<html>404</html>"), "train/cat/000.png is no picture"),
    "nothing": (write("train/cat/000.png", b""), "train/cat/000.png is no picture"),
    "cut short": (lambda root: write("train/cat/000.png", png(root)[:-40])(root), "train/cat/000.png cannot be read"),
    "a damaged header": (lambda root: write("train/cat/000.png", png(root)[:30])(root), "train/cat/000.png"),
    "a bomb": (bomb, "train/cat/000.png claims to have more than"),
    "sixteen bits": (sixteen, "train/cat/000.png has more than 8 bits a pixel"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_folders_are_refused_with_one_sentence(tmp_path: Path, what: str) -> None:
    change, sentence = WRONG[what]
    change(put_pictures(tmp_path / "p"))
    with pytest.raises(UserError) as refused:
        load(tmp_path / "p")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_told() -> None:
    for folder, sentence in (
        (None, "name their folder with data.folder"),
        ("absent", "data.folder=absent is no folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            sources.check_available(DataConfig("folder", folder))

"""Small NORB from small files of its own matrix format."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ssl_dgm
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import norb, sources


def matrix(array: np.ndarray) -> bytes:
    """As NORB's files are: always three dimensions or more in the header, whatever their number."""
    magic = {"u": 0x1E3D4C55, "i": 0x1E3D4C54}[array.dtype.kind]
    dims = [*array.shape, 1, 1][: max(3, array.ndim)]
    return struct.pack(f"<{2 + len(dims)}i", magic, array.ndim, *dims) + array.tobytes()


def toys(instances: list[int], side: int = 96) -> dict[str, np.ndarray]:
    """Every class and toy four times, the toys mixed: smooth images, the second camera's darker."""
    rows = [(c, i, a) for a in range(4) for i in instances for c in range(5)]
    y, instance, angle = (np.array(column, np.int32) for column in zip(*rows))
    ramp = np.arange(side) * 2
    x = (20 * y + 3 * angle)[:, None, None] + (ramp[:, None] + ramp) // 4
    pairs = np.stack([x, x // 2], 1).astype(np.uint8)
    info = np.stack([instance, 0 * angle, 2 * angle, 0 * angle], 1).astype(np.int32)
    return {"dat": pairs, "cat": y, "info": info}


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Writes one of the files."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))

    def write(part: str, kind: str, content: bytes) -> None:
        path = tmp_path / "data" / "NORB" / f"smallnorb-{norb.PARTS[part]}-{kind}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "dat":  # one of the kinds is packed
            path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
        path.write_bytes(content)

    return write


@pytest.fixture
def put_all(put: Callable[..., None]) -> None:
    for part, instances in (("train", [4, 9, 7]), ("test", [0, 1])):
        for kind, array in toys(instances).items():
            put(part, kind, matrix(array))


@pytest.mark.usefixtures("put_all")
def test_the_validation_rows_are_of_a_toy_of_their_own() -> None:
    source, files = sources.load("norb"), toys([4, 9, 7])
    assert (source.shape, source.num_classes, source.num_validation, len(source.test_x)) == ((96, 96), 5, 20, 40)
    assert source.class_names == ("animal", "human", "airplane", "truck", "car")
    held_out = files["info"][:, 0] == 9
    images = np.concatenate([files["dat"][~held_out, 0], files["dat"][held_out, 0]])
    np.testing.assert_array_equal(source.to_images(source.train_x), images)
    np.testing.assert_array_equal(source.train_y[40:], files["cat"][held_out])


@pytest.mark.usefixtures("put_all")
@pytest.mark.parametrize("side", [48, 32])
def test_smaller_images_are_means_of_blocks(side: int) -> None:
    whole, small = sources.load("norb"), sources.load(DataConfig("norb", side=side))
    block = 96 // side
    image = whole.to_images(whole.test_x[:1])[0].astype(float)
    means = [[image[i : i + block, j : j + block].mean() for j in range(0, 96, block)] for i in range(0, 96, block)]
    np.testing.assert_array_equal(small.to_images(small.test_x)[0], np.round(means))
    assert small.sha256 != whole.sha256 and f"means of {block} x {block} pixels" in small.describe()


def test_sizes_without_whole_blocks_and_missing_files_are_refused(put: Callable[..., None]) -> None:
    for side in (50, 192):
        with pytest.raises(UserError, match=rf"data\.side={side} does not divide the 96 pixels .*; use 48 or 32"):
            sources.check_available(DataConfig("norb", side=side))
    with pytest.raises(
        UserError, match=r"smallnorb-5x46789.*-dat\.mat of norb is missing from .*; put it there \(from"
    ):
        sources.check_available("norb")


@pytest.mark.usefixtures("put_all")
def test_damaged_files_are_refused(put: Callable[..., None]) -> None:
    whole = toys([4, 9, 7])
    labels = matrix(whole["cat"])
    for kind, content, words in (
        ("cat", labels[:-1], "has 259 bytes where its header promises 260"),
        (
            "cat",
            struct.pack("<5i", 0x1E3D4C54, 1, 2**31 - 1, 1, 1),
            "has 20 bytes where its header promises 8,589,934,608",
        ),
        ("cat", struct.pack("<5i", 0x1E3D4C54, 2**30, 1, 1, 1), "is no matrix of bytes"),
        ("cat", struct.pack("<5i", 0x1E3D4C51, 1, 1, 1, 1), r"is no matrix of bytes .* begins with 0x514c3d1e"),
        ("cat", b"", "is no matrix of bytes"),
        ("cat", matrix(whole["cat"] + 1), "has a class 5 where there are 5"),
        ("cat", matrix(whole["cat"][:50]), r"holds uint8 \[60, 2, 96, 96\], not u1 \[50, 2, 96, 96\]"),
        ("info", matrix(whole["info"][:, :3].copy()), r"holds int32 \[60, 3\], not <i4 \[60, 4\]"),
        ("dat", matrix(toys([4, 9, 7], side=48)["dat"]), r"holds uint8 \[60, 2, 48, 48\]"),
    ):
        put("train", kind, content)
        with pytest.raises(UserError, match=rf"-(dat|cat|info)\.mat(\.gz)? {words}.*; delete it and fetch it again"):
            sources.load("norb")
        put("train", kind, matrix(whole[kind]))
    sources.load("norb")


@pytest.mark.usefixtures("put_all")
def test_a_model_trains_on_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("data=norb", "data.side=32", "model=m2", "labels=10", "budget=smoke", "network.hidden=[8]")
    fitted = ssl_dgm.fit(*words, "trainer.progress=false", verbose=False)
    assert fitted.sample(5).shape == (5, 32, 32) and (fitted.folder / "figures" / "samples.png").is_file()

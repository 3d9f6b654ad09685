"""SVHN from small files of the published format: what is read, what is refused, and a run from pixels to pictures."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

import ssl_dgm
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import published, sources, svhn
from ssl_dgm.probability.convolutions import Trunk, _maps

SIZES = {"train_32x32.mat": 60, "extra_32x32.mat": 25, "test_32x32.mat": 20}


def digits(n: int) -> dict[str, np.ndarray]:
    """As the files have them: X [32, 32, 3, n], y [n, 1] from 1 to 10; of a colour per digit, brighter to the right."""
    y = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
    colours = np.random.default_rng(1).integers(40, 200, size=(11, 3))
    ramp = np.linspace(0.3, 1.2, 32)[None, :, None, None]
    noise = np.random.default_rng(n).normal(scale=9, size=(32, 32, 3, n))
    return {"X": (colours[y[:, 0]].T * ramp + noise).clip(0, 255).astype(np.uint8), "y": y}


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of SVHN that counts as the published one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(svhn, "MD5", dict(svhn.MD5))

    def write(name: str, content: dict[str, Any] | bytes) -> Path:
        path = tmp_path / "data" / "SVHN" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            savemat(path, content, do_compression=True)
        svhn.MD5[name] = hashlib.md5(path.read_bytes()).hexdigest()
        return path

    return write


@pytest.fixture
def put_all(put: Callable[..., Path]) -> None:
    for name, n in SIZES.items():
        put(name, digits(n))


@pytest.mark.usefixtures("put_all")
def test_extra_images_come_first_and_unlabelled_and_ten_is_the_digit_0() -> None:
    source = sources.load("svhn")
    train, extra = digits(60), digits(25)
    assert (source.shape, source.num_classes, source.num_validation) == ((32, 32, 3), 10, 12)
    assert source.train_y.tolist() == [-1] * 25 + [(i % 10 + 1) % 10 for i in range(60)]
    np.testing.assert_array_equal(source.to_images(source.train_x)[3], extra["X"][..., 3])
    np.testing.assert_array_equal(source.to_images(source.train_x)[25 + 7], train["X"][..., 7])
    assert "25 of the training images extra ones without labels" in source.describe()
    without = sources.load(DataConfig("svhn", extra=False))
    assert len(without.train_x) == 60 and without.sha256 != source.sha256


@pytest.mark.usefixtures("put_all")
def test_a_file_that_is_not_there_is_named_and_the_extra_one_only_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "data" / "SVHN" / "extra_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"extra_32x32\.mat of svhn is missing from .*/data/SVHN; put it there \(from"):
        sources.check_available("svhn")
    sources.check_available(DataConfig("svhn", extra=False))


@pytest.mark.usefixtures("put_all")
def test_another_file_than_the_published_one_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.io.whosmat", lambda *_: pytest.fail("it was parsed"))
    path = tmp_path / "data" / "SVHN" / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"train_32x32\.mat differs from the published file .* delete it and fetch"):
        sources.load("svhn")


def huge(path: Path) -> bytes:
    """Dimensions that a file of this length can't hold."""
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<4i", 32, 32, 3, 60))
    content[place + 12 : place + 16] = struct.pack("<i", 2**31 - 1)
    return bytes(content)


def test_what_is_no_file_of_images_is_refused_even_if_it_were_published(put: Callable[..., Path]) -> None:
    for name in SIZES:
        whole = put(name, digits(60))
    savemat(whole, digits(60), do_compression=False)
    y = digits(60)["y"]
    objects = np.empty((1, 1), object)
    objects[0, 0] = np.ones(3)
    for content, words in (
        ({"X": digits(60)["X"].astype(float), "y": y}, r"holds X double \[32, 32, 3, 60\] and y uint8, no images"),
        ({"X": digits(60)["X"][:31], "y": y}, r"holds X uint8 \[31, 32, 3, 60\]"),
        ({"X": digits(60)["X"], "y": y[:9]}, "promises 60 images"),
        ({"X": digits(60)["X"], "y": y + 5}, "has a class 15 where there are 10"),
        ({"X": objects, "y": y}, "holds X cell"),
        ({"y": y}, "holds X  "),
        (huge(whole), r"promises 2,147,483,647 images"),
        (whole.read_bytes()[:2000], r"holds X uint8 \[32, 32, 3, 60\] and y , no images"),
        (whole.read_bytes()[:-100], "is no MATLAB file of images"),
        (b"<html>404</html>" * 20, "is no MATLAB file of images"),
        (b"", "is no MATLAB file of images"),
    ):
        put("train_32x32.mat", content)
        with pytest.raises(UserError, match=rf"train_32x32\.mat {words}"):
            sources.load("svhn")


@pytest.mark.usefixtures("put_all")
def test_its_digest_is_remembered_until_a_file_changes(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = sources.load("svhn").sha256
    assert sources.digest_of("svhn") == sha256
    with monkeypatch.context() as patched:
        patched.setattr(svhn, "read", lambda data: pytest.fail("it was read again"))
        assert sources.digest_of("svhn") == sha256
    assert sources.digest_of(DataConfig("svhn", extra=False)) != sha256
    put("train_32x32.mat", {"X": 255 - digits(60)["X"], "y": digits(60)["y"]})
    assert sources.digest_of("svhn") == sources.load("svhn").sha256 != sha256
    # What is remembered is no more than a help.
    cache = Path(published.CACHE).expanduser() / "digests.json"
    assert cache.is_relative_to(tmp_path)
    cache.write_bytes(cache.read_bytes()[:-9])
    assert sources.digest_of("svhn") == sources.load("svhn").sha256


@pytest.mark.usefixtures("put_all")
def test_m1m2_on_whitened_images_draws_and_predicts_colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("data=svhn", "data.pca=8", "model=m1m2", "labels=10", "budget=smoke", "network.hidden=[12]")
    small = ("m1.network.hidden=[16]", "m1.model.z_dim=4", "m1.budget.epochs=20", "trainer.progress=false")
    fitted = ssl_dgm.fit(*words, *small, verbose=False)
    source = sources.load("svhn")
    error = np.mean(fitted.predict(source.to_images(source.test_x)) != source.test_y)
    assert error == pytest.approx(fitted.metrics["test/error"], abs=1e-6)
    images = fitted.sample(20, y=4)
    assert images.shape == (20, 32, 32, 3) and images.min() >= 0 and images.max() <= 1
    assert (fitted.folder / "figures" / "samples.png").is_file()


@pytest.mark.usefixtures("put_all")
def test_convolutions_see_the_colours_of_a_pixel_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("data=svhn", "data.extra=false", "model=m1", "classifier=none", "network=conv", "budget=smoke")
    small = ("model.z_dim=2", "budget.epochs=1", "budget.updates_per_epoch=2", "trainer.progress=false")
    fitted = ssl_dgm.fit(*words, *small, verbose=False)
    source = sources.load("svhn")
    trunk = next(module for module in fitted.model.modules() if isinstance(module, Trunk))
    assert trunk.image == (3, 32, 32)
    maps = _maps(torch.from_numpy(source.test_x[:2]), trunk.image)
    np.testing.assert_array_equal(maps, digits(20)["X"][..., :2].transpose(3, 2, 0, 1))
    assert fitted.sample(2).shape == (2, 32, 32, 3)

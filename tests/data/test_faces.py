"""Faces without classes: which are held out, what trains on them, and what is refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssl_dgm
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import sources

REAL = os.environ.get("SSL_DGM_DATA")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the data sets, and one for runs."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def put_frey(folder: Path, n: int = 450) -> np.ndarray:
    """Frames that say their number."""
    x = np.random.default_rng(0).integers(256, size=(n, 560), dtype=np.uint8)
    x[:, 0], x[:, 1] = np.arange(n) // 256, np.arange(n) % 256
    np.savez(folder / "frey.npz", x=x)
    return x


def test_whole_stretches_of_the_video_are_held_out(data: Path) -> None:
    x = put_frey(data)
    source = sources.load("frey")
    assert (source.shape, source.num_classes, source.x_dim) == ((28, 20), 0, 560)
    number = [rows[:, 0].astype(int) * 256 + rows[:, 1] for rows in (source.train_x[:], source.test_x)]
    validation = [*range(160, 180), *range(360, 380)]
    test = [*range(180, 200), *range(380, 400)]
    assert number[0][source.num_train :].tolist() == validation and number[1].tolist() == test
    assert sorted([*number[0], *test]) == list(range(450))
    np.testing.assert_array_equal(source.train_x, x[number[0]])
    assert set(source.train_y) == set(source.test_y) == {-1}
    assert "no classes" in source.describe()


@pytest.mark.parametrize("words", ["model=m2", "model=m2 labels=0", "model=nn", "model=m1 classifier=svm"])
def test_models_with_classes_are_refused(data: Path, words: str) -> None:
    put_frey(data)
    with pytest.raises(
        UserError, match=r"data=frey has no classes, and model=\w+ needs some; use model=m1 classifier=n"
    ):
        ssl_dgm.fit("data=frey", *words.split(), "budget=smoke", verbose=False)
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", ["model=m1 classifier=none", "model=avae", "model=cvae condition=center"])
def test_models_without_classes_train_on_them(data: Path, words: str) -> None:
    put_frey(data)
    small = ("budget=smoke", "network.hidden=[8]", "trainer.progress=false")
    fitted = ssl_dgm.fit("data=frey", *words.split(), *small, verbose=False)
    drawn = "completions.png" if fitted.config.condition else "samples.png"
    assert np.isfinite(fitted.metrics["test/bound"]) and (fitted.folder / "figures" / drawn).is_file()


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="SSL_DGM_DATA is unset")
def test_the_real_frames_become_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_DGM_DATA", str(REAL))
    source = sources.load("frey")
    assert (len(source.train_x), source.num_validation, len(source.test_x)) == (1785, 185, 180)
    words = ("data=frey", "model=m1", "classifier=none", "model.z_dim=8", "budget=smoke", "optimizer.lr=3e-3")
    more = ("budget.epochs=15", "network.hidden=[100]", "model.likelihood=gaussian", "trainer.progress=false")
    fitted = ssl_dgm.fit(*words, *more, verbose=False)
    means = fitted.sample(200)
    assert means.shape == (200, 28, 20)
    # Drawn faces are like the faces that were held out, which noise would not be.
    assert np.corrcoef(means.mean(0).ravel(), source.values(source.test_x).mean(0))[0, 1] > 0.7
    assert (fitted.folder / "figures" / "samples.png").is_file()


@pytest.mark.parametrize(
    "arrays",
    [
        {"y": np.zeros((400, 560), np.uint8)},
        {"x": np.zeros((400, 561), np.uint8)},
        {"x": np.zeros((9, 560), np.uint8)},
        {"x": np.zeros((400, 560))},
        {"x": np.array([{}] * 400, object)},
        {},
    ],
    ids=["no x", "width", "few", "floats", "objects", "empty"],
)
def test_a_file_that_holds_no_frames_is_refused(data: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(data / "frey.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"frey\.npz holds .*; delete it and fetch it again"):
        sources.load("frey")


def test_missing_faces_are_told_early(data: Path) -> None:
    with pytest.raises(UserError, match=r"frey\.npz of frey is missing from .*/data; write its 1,965 frames"):
        sources.check_available("frey")
    with pytest.raises(UserError, match=r"lfw is missing from .*/data/lfw; unpack lfw\.tgz"):
        sources.check_available("lfw")


def put_people(folder: Path, people: int = 21) -> None:
    """Two photographs of 50 x 40 of everybody: black, but for a grey square in the middle that says who it is."""
    for person in range(people):
        for number in (1, 2):
            image = np.zeros((40, 50, 3), np.uint8)
            image[10:30, 15:35] = 100 + 5 * person
            path = folder / f"Person_{person:02d}" / f"Person_{person:02d}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=100)


def test_people_are_shared_out_whole_and_cropped_to_their_faces(data: Path) -> None:
    put_people(data / "lfw-deepfunneled")
    source = sources.load(DataConfig("lfw", side=10))
    assert (source.shape, source.num_classes) == ((10, 10), 0)
    who = [np.round((rows.mean(1) - 100) / 5).astype(int).tolist() for rows in (source.train_x[:], source.test_x)]
    assert who[0][source.num_train :] == [8, 8, 18, 18] and who[1] == [9, 9, 19, 19]
    assert sorted(set(who[0][: source.num_train])) == [*range(8), *range(10, 18), 20]
    assert source.train_x[0].min() > 95  # nothing of the black is left
    elsewhere = DataConfig("lfw", folder=str(data / "lfw-deepfunneled"), side=10)
    assert sources.load(elsewhere).sha256 == source.sha256


def test_photographs_that_will_not_do_are_refused(data: Path) -> None:
    put_people(data / "lfw")
    with pytest.raises(UserError, match=r"has 50 x 40 pixels, too few for data\.side=32; use 20"):
        sources.load("lfw")
    path = data / "lfw" / "Person_03" / "Person_03_0001.jpg"
    png = io.BytesIO()
    Image.new("L", (50, 40)).save(png, "PNG")
    for content in (path.read_bytes()[:300], png.getvalue(), b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"Person_03_0001\.jpg cannot be decoded .*; delete it and fetch it again"):
            sources.load(DataConfig("lfw", side=10))
    few = data / "few"
    put_people(few, 9)
    with pytest.raises(UserError, match=r"few has 9 people's folders of \.jpg files; lfw has 5,749, ten are needed"):
        sources.load(DataConfig("lfw", folder=str(few), side=10))

"""Flights through the prior: a closed circle of draws, and the animation that is kept of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawing_runs import fit
from PIL import Image

from ssl_dgm import records
from ssl_dgm.api import Fitted
from ssl_dgm.drawing import style, traversal
from ssl_dgm.drawing.style import Film
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.training.loggers import TensorBoardLog

FLIGHTS = {"sdgm": (4, 10), "m1": (4, 8)}  # rows and columns


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fitted]:
    folder, some = tmp_path_factory.mktemp("runs"), ("budget.updates_per_epoch=30",)
    return {
        "m1": fit(folder, "model=m1", "classifier=none", *some),
        "sdgm": fit(folder, "model=sdgm", *some),
    }


@pytest.mark.parametrize("name", FLIGHTS)
def test_the_first_frame_follows_the_last_as_any_other_its_own(name: str, runs: dict[str, Fitted]) -> None:
    t = runs[name].trained
    images = traversal.flight(t)
    assert images.shape == (traversal.FRAMES, *FLIGHTS[name], 8, 8)
    steps = np.abs(np.roll(images, -1, 0) - images).max((1, 2, 3, 4))
    assert 0 < steps[-1] <= steps[:-1].max()
    film = traversal.traversal(t)
    assert film is not None and film.frames.shape == (48, 4 * 9 + 1, FLIGHTS[name][1] * 9 + 1)
    np.testing.assert_allclose(film.frames[:, 1:9, 1:9] / 255, images[:, 0, 0], atol=0.5 / 255 + 1e-6)


def test_frames_are_decoded_points_of_the_circle(runs: dict[str, Fitted]) -> None:
    t, f = runs["m1"].trained, runs["m1"].model.factorisation
    images = traversal.flight(t)
    a, b = (Streams([0], f"traversal {end}").normal((1, 1, 32, 50)) for end in "ab")
    for frame, z in ((0, a), (12, b), (24, -a), (6, (a + b) / 2**0.5)):
        decoded = t.per_seed(lambda z: f.p["x"]({"z": z}).mean, z[0, 0, 0])[0]
        np.testing.assert_allclose(images[frame].reshape(32, 64), decoded, rtol=1e-4, atol=1e-5)


def test_every_class_flies_with_the_same_noise_of_all_latents(runs: dict[str, Fitted]) -> None:
    t, model = runs["sdgm"].trained, runs["sdgm"].model
    f, images = model.factorisation, traversal.flight(t)
    noise = model.noise(Streams([0], "traversal a"), x=f.noise_shapes(4))["x"]

    def decoded(noise: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        z = noise["z"][0, 0]
        return f.p["x"]({"a": f.p["a"]({"y": y, "z": z}).rsample(noise["a"][0, 0]), "y": y, "z": z}).mean

    with torch.no_grad():
        for k in (0, 7):
            column = model.per_seed(decoded, noise, torch.eye(10)[k].expand(1, 4, -1))[0]
            np.testing.assert_allclose(images[0, :, k].reshape(4, 64), t.images(column).reshape(4, 64), atol=1e-5)


def test_the_file_repeats_for_ever_and_is_listed_but_no_logger_takes_it(
    runs: dict[str, Fitted], tmp_path: Path
) -> None:
    (path,) = runs["sdgm"].draw("traversal")
    assert path in records.pictures(runs["sdgm"].folder)
    content = path.read_bytes()
    assert len(content) < 2_000_000
    runs["sdgm"].draw("traversal")
    assert path.read_bytes() == content
    with Image.open(path) as film:
        assert film.info["loop"] == 0 and film.info["duration"] == style.PAUSE
        assert film.size == (91 * 6, 37 * 6)
    assert "each of 4 flights" in " ".join(path.with_suffix(".txt").read_text().split())
    log = TensorBoardLog(runs["sdgm"].config, "key", tmp_path, [0])
    log.picture(path)
    log.close(False)
    assert b"traversal" not in b"".join(events.read_bytes() for events in tmp_path.rglob("events*"))


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
def test_frames_come_back_from_the_file_enlarged(colours: tuple[int, ...], tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 12 * 16).reshape(12, 16)
    frames = np.stack([np.roll(ramp, i, 1) for i in range(5)]).astype(np.uint8)
    if colours:
        frames = np.stack([frames, frames[:, ::-1], np.full_like(frames, 40)], -1)
    path = style.save(Film(frames, "caption", 3), tmp_path, "film")
    with Image.open(path) as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]
        for i, frame in enumerate(frames):
            film.seek(i)
            shown = np.asarray(film.convert("RGB" if colours else "L"), int)
            np.testing.assert_allclose(shown, frame.repeat(3, 0).repeat(3, 1), atol=8)


def test_a_file_that_would_be_too_large_is_enlarged_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(256, size=(4, 20, 20), dtype=np.uint8)
    sizes = {}
    for scale in (1, 2, 3):
        path = style.save(Film(frames, "caption", scale), tmp_path, "film")
        sizes[scale] = path.stat().st_size
    monkeypatch.setattr(style, "LARGEST", sizes[2])
    assert style.save(Film(frames, "caption", 3), tmp_path, "film").stat().st_size == sizes[2] < sizes[3]
    monkeypatch.setattr(style, "LARGEST", 10)
    assert style.save(Film(frames, "caption", 3), tmp_path, "film").stat().st_size == sizes[1]


def test_a_conditional_model_has_no_flight(tmp_path: Path) -> None:
    assert fit(tmp_path / "runs", "model=cvae").draw("traversal", folder=tmp_path) == []

"""Rows of real numbers: seen as they are, scored as densities, refused where only pixels will do."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ssl_dgm
from ssl_dgm import UserError
from ssl_dgm.data import sources
from ssl_dgm.data.inputs import Reals
from ssl_dgm.data.source import Source, build
from ssl_dgm.probability.factors import NormalFactor
from ssl_dgm.probability.randomness import Streams

TINY = ("data.name=flowers", "labels=9", "budget=smoke", "budget.epochs=1", "network.hidden=[8]", "model.z_dim=2")
QUIET = ("trainer.progress=false", "trainer.compile=never", "baseline=null")


def flowers() -> Source:
    """Three classes of 5 numbers, far from [0, 1]."""
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = (100 * y[:, None] + rng.normal(size=(150, 5))).astype(np.float32)
    x[:, 4] = 7
    return build("flowers", [x[:120], y[:120], x[120:], y[120:]], num_validation=30)


@pytest.fixture(autouse=True)
def _flowers_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader = SimpleNamespace(check=lambda data: None, read=lambda data: flowers())
    monkeypatch.setitem(sources.READERS, "flowers", reader)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)


def test_values_are_seen_as_they_are() -> None:
    x = flowers().train_x
    assert isinstance(x, np.ndarray)
    rows, inputs = torch.tensor([[3, 1], [0, 0]]), Reals(torch.from_numpy(x))
    np.testing.assert_array_equal(inputs.draw(rows, Streams([0, 1], "test")), x[rows])
    np.testing.assert_array_equal(inputs.draw(rows, Streams([0, 1], "test"), slice(1, 2)), x[rows[:, 1:]])
    np.testing.assert_array_equal(inputs.mean(rows[0]), x[rows[0]])
    assert flowers().values(x) is x


def test_a_constant_column_is_dropped_exactly() -> None:
    dropped = flowers().drop_constant_pixels(0)
    assert dropped.kept is not None and dropped.kept.tolist() == [True] * 4 + [False]
    assert dropped.describe().startswith("flowers: 90 training, 30 validation and 30 test rows of 5 numbers, 3 classes")
    assert dropped.describe().endswith("1 columns dropped")


@pytest.mark.parametrize("words", [("model=m2",), ("model=m1m2", "m1.network.hidden=[8]"), ("model=nn",)], ids=" ".join)
def test_a_model_trains_on_them_and_predicts(words: tuple[str, ...]) -> None:
    fitted = ssl_dgm.fit(*TINY, *QUIET, *words, verbose=False)
    test = flowers()
    error = np.mean(fitted.predict(test.test_x.tolist()) != test.test_y)
    assert error == pytest.approx(fitted.metrics["test/error"], abs=1e-6)
    assert not list(fitted.folder.glob("figures/samples.png"))
    if "model=m2" in words:
        assert fitted.sample(4).shape == (4, 5)
        assert isinstance(fitted.model.factorisation.p["x"], NormalFactor)
        with pytest.raises(UserError, match="x has nan in row 0"):
            fitted.predict(np.full((1, 5), np.nan))
        with pytest.raises(UserError, match=r"use \[N, 5\]$"):
            fitted.predict(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model=m2", "model.likelihood=mse"), "model.likelihood=mse is of pixels, and rows of data=flowers are real"),
        (("model=m1m2", "m1.model.likelihood=mse"), "model.likelihood=mse is of pixels"),
        (("model=cnn",), "model=cnn sees images, and rows of data=flowers are real numbers; use model=nn"),
        (
            ("model=cvae", "condition=center"),
            "condition=center needs images, but rows of data=flowers are real numbers",
        ),
        (("model=m2", "network=conv", "data=mnist", TINY[0]), "rows of data=flowers are none; use network=mlp"),
    ],
)
def test_what_needs_pixels_is_refused_before_a_folder_is_made(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ssl_dgm.fit(*TINY, *words, *QUIET, verbose=False)
    assert not Path("runs").exists()

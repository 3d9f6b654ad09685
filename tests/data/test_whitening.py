"""PCA whitening: what it makes of images, back, and what a density of it says about pixels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ssl_dgm
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import sources, whitening
from ssl_dgm.data.source import Source, build
from ssl_dgm.data.whitening import Whitening


def correlated(n: int = 300, pixels: int = 6) -> np.ndarray:
    """uint8 [n, pixels]."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, pixels)) @ rng.normal(size=(pixels, pixels)) * 20 + 128
    return values.clip(0, 255).round().astype(np.uint8)


def pictures() -> Source:
    x, y = correlated().reshape(300, 2, 3), np.arange(300) % 3
    return build("pictures", [x[:250], y[:250], x[250:], y[250:]], num_validation=50)


def test_whitened_training_rows_have_mean_0_and_identity_covariance() -> None:
    whitened = sources.preprocessed(pictures(), DataConfig("digits", pca=4))
    assert whitened.real and whitened.train_x.shape == (250, 4) and whitened.test_x.dtype == np.float32
    train = whitened.train_x[: whitened.num_train]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(train.T, bias=True), np.eye(4), atol=1e-4)
    # Other rows had no say.
    assert np.abs(np.cov(whitened.train_x.T, bias=True) - np.eye(4)).max() > 0.01
    assert (whitened.sha256, whitened.shape) == (pictures().sha256, (2, 3))
    assert "whitened to 4 components with 9" in whitened.describe()


def test_at_full_rank_nothing_is_lost_and_densities_change_by_the_determinant() -> None:
    x = correlated()
    w = Whitening.fit(x, 6, "pictures")
    np.testing.assert_allclose(w.invert(w.apply(x)), x / 255, atol=1e-5)
    np.testing.assert_array_equal(w.apply(x), w.apply((x / 255).astype(np.float32)))
    assert w.explained == pytest.approx(1)
    matrix = w.components / w.sds[:, None]
    assert w.log_jacobian == pytest.approx(np.linalg.slogdet(matrix)[1])
    # N(0, I) of whitened rows is N(mean, covariance) of pixels.
    of_pixels = multivariate_normal(x.mean(0) / 255, np.cov(x.T / 255, bias=True))
    of_whitened = multivariate_normal(np.zeros(6), np.eye(6))
    found = of_whitened.logpdf((x / 255 - w.mean) @ matrix.T) + w.log_jacobian
    np.testing.assert_allclose(found, of_pixels.logpdf(x / 255))


def test_with_fewer_components_the_density_is_of_the_projection() -> None:
    x = correlated()
    w = Whitening.fit(x, 2, "pictures")
    projected = (x / 255 - w.mean) @ w.components.T
    of_projection = multivariate_normal(np.zeros(2), np.cov(projected.T, bias=True))
    of_whitened = multivariate_normal(np.zeros(2), np.eye(2))
    np.testing.assert_allclose(of_whitened.logpdf(projected / w.sds) + w.log_jacobian, of_projection.logpdf(projected))
    assert w.explained == pytest.approx(projected.var(0).sum() / (x / 255).var(0).sum())
    # The nearest images that have these components: what is left over is orthogonal to them.
    np.testing.assert_allclose((x / 255 - w.invert(w.apply(x))) @ w.components.T, 0, atol=1e-5)


def test_blocks_and_the_choice_of_rows_change_nothing_but_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated()
    whole = Whitening.fit(x, 3, "pictures")
    monkeypatch.setattr(whitening, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(Whitening.fit(x, 3, "pictures").apply(x), whole.apply(x), atol=1e-4)
    monkeypatch.setattr(whitening, "MOST_ROWS", 100)
    fewer = Whitening.fit(x, 3, "pictures")
    assert fewer.num_rows == 100
    np.testing.assert_allclose(fewer.mean, x[np.linspace(0, 299, 100).astype(int)].mean(0) / 255)


def test_more_components_than_directions_are_refused() -> None:
    x = correlated()
    with pytest.raises(UserError, match=r"data\.pca=7 is more than the 6 pixels of pictures; use at most 6"):
        Whitening.fit(x, 7, "pictures")
    x[:, 5] = x[:, 4]
    x[:, 0] = 9
    with pytest.raises(UserError, match=r"data\.pca=5 is more than the 4 directions in which .* vary; use at most 4"):
        Whitening.fit(x, 5, "pictures")
    assert Whitening.fit(x, 4, "pictures").explained == pytest.approx(1)


def test_rows_that_are_no_images_are_refused() -> None:
    source = pictures()
    real = dataclasses.replace(source, train_x=source.values(source.train_x))
    with pytest.raises(UserError, match=r"data\.pca=2 is of images, and rows of data=pictures are real numbers"):
        real.whiten(2)


def test_a_run_states_its_bound_on_pixels_too_and_draws_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("model=m2", "data=digits", "data.pca=20", "budget=smoke", "network.hidden=[16]", "trainer.progress=false")
    fitted = ssl_dgm.fit(*words, verbose=False)
    digits = sources.load("digits")
    log_jacobian = digits.whiten(20).whitening.log_jacobian  # type: ignore[union-attr]
    assert fitted.metrics["test/bound_pixels"] == pytest.approx(fitted.metrics["test/bound"] + log_jacobian)
    # New rows are whitened as the training rows were.
    error = np.mean(fitted.predict(digits.test_x) != digits.test_y)
    assert error == pytest.approx(fitted.metrics["test/error"], abs=1e-6)
    assert fitted.sample(3).shape == (3, 8, 8) and 0 <= fitted.sample(3).min() < fitted.sample(3).max() <= 1
    assert (fitted.folder / "figures" / "samples.png").exists()
    assert "whitened to 20 components" in fitted.record["rows"]


def test_the_sign_of_a_component_is_that_of_its_largest_element() -> None:
    components = Whitening.fit(correlated(), 6, "pictures").components
    assert (components.max(1) == np.abs(components).max(1)).all()

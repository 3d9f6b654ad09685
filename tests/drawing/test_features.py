"""The map of the test rows' features: which features these are, and where and in which colour they are drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawing_runs import fit
from matplotlib.colors import to_rgba

from ssl_dgm.api import Fitted
from ssl_dgm.drawing import features
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.replicas import one_seed

ROWS = torch.arange(3, 40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fitted]:
    folder = tmp_path_factory.mktemp("runs")
    words = {name: (f"model={name}",) for name in ("gmvae", "sdgm", "m1m2")}
    words["m1"] = ("model=m1", "classifier=none", "model.z_dim=2")
    words["svm"] = ("model=svm",)
    return {name: fit(folder, *of) for name, of in words.items()}


def factors(t: Trained) -> Factorisation:
    """The seed's factorisation as a plain module."""
    assert t.model is not None
    f = t.model.build()
    f.load_state_dict(one_seed(t.model.factorisation.state_dict(), 0))
    return f.eval()


def test_features_are_those_that_the_model_names(runs: dict[str, Fitted]) -> None:
    t = runs["gmvae"].trained
    f, (found, what) = factors(t), features.of_rows(t, ROWS)
    with torch.no_grad():
        np.testing.assert_allclose(found, f.q["h"]({"x": t.test.mean(ROWS)}), rtol=1e-5, atol=1e-6)
    assert what == "features h = g(x)"

    t = runs["sdgm"].trained
    f, (found, what) = factors(t), features.of_rows(t, ROWS)
    with torch.no_grad():
        x = t.test.mean(ROWS)
        log_probs = f.q["y"]({"x": x, "a": f.q["a"]({"x": x}).mean}).log_probs
        from_features = f.q["y"].network.heads(torch.from_numpy(found))["logits"].log_softmax(-1)
    np.testing.assert_allclose(from_features, log_probs, rtol=1e-4, atol=1e-5)
    assert found.shape == (len(ROWS), 16) and what == "the last hidden layer of q(y | a, x)"

    for name in ("m1", "m1m2"):
        t = runs[name].trained
        transformed = runs[name].transform(t.originals(ROWS).astype(np.float32))
        np.testing.assert_allclose(features.of_rows(t, ROWS)[0], transformed, rtol=1e-4, atol=1e-5)


def test_points_are_where_the_map_has_them_in_the_colour_of_their_class(
    runs: dict[str, Fitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "ROWS", 120)
    t = runs["gmvae"].trained
    drawn = features.features(t)
    assert drawn is not None and " 120 of 500 test rows" in drawn.caption and "perplexity 30" in drawn.caption
    (axes,) = drawn.figure.axes
    (dots,) = axes.collections
    points, colours = np.asarray(dots.get_offsets()), dots.get_facecolors()  # type: ignore[attr-defined]
    assert len(points) == 120 and dots.get_rasterized()
    assert not len(axes.get_xticks()) and not len(axes.get_yticks())
    names = {text.get_text(): text.get_position() for text in axes.texts}
    assert sorted(names) == [str(c) for c in range(10)]
    for c, colour in enumerate(features.palette(10)):
        own = points[(colours == to_rgba(colour)).all(1)]
        np.testing.assert_allclose(np.median(own, 0), names[str(c)], rtol=1e-5)


def test_two_features_are_drawn_as_they_are_with_their_values(runs: dict[str, Fitted]) -> None:
    t = runs["m1"].trained
    drawn = features.features(t)
    assert drawn is not None and "as they are" in drawn.caption and "t-SNE" not in drawn.caption
    points = np.asarray(drawn.figure.axes[0].collections[0].get_offsets())
    found, _ = features.of_rows(t, torch.arange(500))
    np.testing.assert_allclose(points[np.lexsort(points.T)], found[np.lexsort(found.T)], rtol=1e-6)
    assert len(drawn.figure.axes[0].get_xticks())


def test_pixels_have_no_map(runs: dict[str, Fitted], tmp_path: Path) -> None:
    assert runs["svm"].draw("features", folder=tmp_path) == []


def test_groups_stay_groups_and_the_map_is_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    rows = (rng.normal(size=(60, 5)) + 20 * np.eye(5)[y]).astype(np.float32)
    points = features.mapped(rows, 10)
    np.testing.assert_array_equal(points, features.mapped(rows, 10))
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(60, np.inf))
    assert (y[distances.argmin(1)] == y).all()


@pytest.mark.parametrize("number", [2, 10, 20, 100])
def test_every_class_has_a_colour_of_its_own(number: int) -> None:
    colours = [to_rgba(colour) for colour in features.palette(number)]
    assert len(set(colours)) == len(colours) >= number

"""Grids of images: which images stand where, and what is written beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.special import ndtri

import ssl_dgm
from ssl_dgm.api import Fitted
from ssl_dgm.drawing import classes, grids, kinds, pictures, style
from ssl_dgm.drawing.units import LIVE, kl_of_units, units
from ssl_dgm.evaluation import generated
from ssl_dgm.evaluation.clusters import Clusters
from ssl_dgm.training import generative

TINY = (
    "data=digits", "labels=100", "budget=smoke", "budget.epochs=1", "budget.updates_per_epoch=2", "network.hidden=[16]",
    "trainer.progress=false", "trainer.figures=none", "baseline=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fitted]:
    runs = f"runs={tmp_path_factory.mktemp('runs')}"
    words = {
        "m1": ("model=m1", "classifier=none", "model.z_dim=2"),
        "m2": ("model=m2", "model.z_dim=2"),
        "m1m2": ("model=m1m2", "m1.budget.epochs=1", "model.min_unit_sd=0"),
        "sdgm": ("model=sdgm", "model.z_dim=3", "model.a_dim=4"),
        "slots": ("model=gmdgm", "classes.hidden=[3,4]", "labels=96", "classes.extra=2"),
    }
    return {name: ssl_dgm.fit(*TINY, *of, runs, verbose=False) for name, of in words.items()}


@pytest.fixture(autouse=True)
def sheet() -> object:
    with style.sheet():
        yield


def shown(figure: Figure, panel: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[panel].get_images()[0].get_array())


def texts(labels: list) -> list[str]:
    return [label.get_text() for label in labels]


def test_images_are_joined_row_by_row_with_a_frame_of_grey() -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    whole = grids.joined(images)
    assert whole.shape == (2 * 5 + 1, 3 * 6 + 1)
    for r, c in np.ndindex(2, 3):
        np.testing.assert_array_equal(whole[5 * r + 1 : 5 * r + 5, 6 * c + 1 : 6 * c + 6], images[r, c])
    assert (whole[::5] == grids.GAP).all() and (whole[:, ::6] == grids.GAP).all()
    np.testing.assert_array_equal(grids.joined(images, 0)[4:, 5:10], images[1, 1])
    assert grids.joined(np.zeros((2, 3, 4, 5, 3))).shape == (11, 19, 3)


def test_headings_stand_over_the_middle_of_their_column() -> None:
    _, axes = style.new(3, 2)
    grids.grid(axes[0, 0], np.zeros((2, 3, 8, 8)), ["a", "$b$", "c"], ["above", "below"])
    assert texts(axes[0, 0].get_xticklabels()) == ["a", r"\$b\$", "c"]
    np.testing.assert_allclose(axes[0, 0].get_xticks(), [4.5, 13.5, 22.5])
    np.testing.assert_allclose(axes[0, 0].get_yticks(), [4.5, 13.5])


def test_samples_have_a_column_for_every_class(fitted: dict[str, Fitted]) -> None:
    drawn = pictures.samples(fitted["m2"].trained)
    assert drawn is not None
    panel = drawn.figure.axes[0]
    assert texts(panel.get_xticklabels()) == [str(c) for c in range(10)]
    assert shown(drawn.figure).shape == (8 * 9 + 1, 10 * 9 + 1)
    assert fitted["m2"].folder.name in drawn.caption and "1 epochs" in drawn.caption
    slots = pictures.samples(fitted["slots"].trained)
    assert slots is not None and len(slots.figure.axes[0].get_xticklabels()) == 12
    assert "slot of y" in slots.caption


def test_the_manifold_runs_through_the_quantiles_of_the_prior(fitted: dict[str, Fitted]) -> None:
    t = fitted["m1"].trained
    drawn = pictures.manifold(t)
    assert drawn is not None and t.model is not None
    images = shown(drawn.figure)
    n, side = pictures.MANIFOLD, 8
    assert images.shape == (n * side, n * side)
    first, last = ndtri(0.5 / n), ndtri(1 - 0.5 / n)
    # z1 grows to the right and z2 upwards.
    for (row, column), z in {(0, 0): (first, last), (0, n - 1): (last, last), (n - 1, 0): (first, first)}.items():
        point = torch.tensor([z], dtype=torch.float32)
        with torch.no_grad():
            mean = t.model.per_seed(lambda z=point: t.model.factorisation.p["x"]({"z": z}).mean)[0]
        found = images[row * side : (row + 1) * side, column * side : (column + 1) * side]
        np.testing.assert_allclose(found, mean.view(side, side), atol=1e-6)
    assert f"{first:.2f}" in drawn.caption


def test_a_style_is_the_same_point_in_every_panel(fitted: dict[str, Fitted]) -> None:
    t = fitted["m2"].trained
    drawn = pictures.styles(t)
    assert drawn is not None and t.model is not None
    assert [axes.get_title() for axes in drawn.figure.axes] == ["y = 2", "y = 3", "y = 4"]
    corner = torch.tensor([[-5.0, 5.0]])
    for panel, c in enumerate(pictures.PANELS):
        y = torch.eye(10)[c : c + 1]
        with torch.no_grad():
            mean = t.model.per_seed(lambda y=y: t.model.factorisation.p["x"]({"z": corner, "y": y}).mean)[0]
        np.testing.assert_allclose(shown(drawn.figure, panel)[:8, :8], mean.view(8, 8), atol=1e-6)
    assert texts(drawn.figure.axes[0].get_xticklabels()) == ["–5", "0", "5"]
    assert texts(drawn.figure.axes[0].get_yticklabels()) == ["5", "0", "–5"]


@pytest.mark.parametrize("name", ["m2", "m1m2", "sdgm"])
def test_analogies_keep_the_style_and_change_the_class(name: str, fitted: dict[str, Fitted]) -> None:
    t = fitted[name].trained
    drawn = pictures.analogies(t)
    assert drawn is not None and t.model is not None
    images, f = shown(drawn.figure), t.model.factorisation
    assert images.shape == (10 * 9 + 1, 11 * 9 + 1)
    rows = t.one_of_each(10)
    np.testing.assert_array_equal(t.source.test_y[rows], np.arange(10))
    x = t.test.mean(rows)

    def by_hand() -> torch.Tensor:
        q_y = f.q["y"]
        values = {f.observed: x}
        if "a" in f.q:
            values["a"] = f.q["a"](values).mean
        best = torch.eye(10)[q_y(values).log_probs.argmax(-1)]
        style_of = "z2" if name == "m1m2" else "z"
        z = f.q[style_of]({**values, "y": best}).mean
        seven = torch.eye(10)[7].expand(10, 10)
        changed = {style_of: z, "y": seven}
        if "a" in f.q:
            changed["a"] = f.p["a"](changed).mean
        return f.p[f.observed](changed).mean

    with torch.no_grad():
        expected = t.source.to_images(generated.through_first(t.first, t.model.per_seed(by_hand)[0]).numpy())
    originals = t.source.to_images(t.source.test_x[rows])
    for r in range(10):
        np.testing.assert_allclose(images[9 * r + 1 : 9 * r + 9, 8 * 9 + 1 : 9 * 9], expected[r], atol=1e-5)
        np.testing.assert_allclose(images[9 * r + 1 : 9 * r + 9, 1:9].ravel(), originals[r].ravel() / 255, atol=1e-6)


def test_reconstructions_stand_under_their_images(fitted: dict[str, Fitted]) -> None:
    t = fitted["m1"].trained
    drawn = pictures.reconstructions(t)
    assert drawn is not None and t.model is not None
    rows, f = t.one_of_each(10), t.model.factorisation
    with torch.no_grad():
        z = t.model.per_seed(lambda: f.q["z"]({"x": t.test.mean(rows)}).mean)[0]
        mean = t.model.per_seed(lambda: f.p["x"]({"z": z}).mean)[0]
    np.testing.assert_allclose(shown(drawn.figure)[10:18, 1:9], mean[0].view(8, 8), atol=1e-6)
    np.testing.assert_allclose(shown(drawn.figure)[1:9, 1:9].ravel(), t.source.test_x[rows[0]] / 255, atol=1e-6)


def test_what_a_model_has_no_picture_of_is_left_out(fitted: dict[str, Fitted]) -> None:
    assert pictures.manifold(fitted["m2"].trained) is None and pictures.manifold(fitted["sdgm"].trained) is None
    assert pictures.styles(fitted["m1"].trained) is None and pictures.styles(fitted["m1m2"].trained) is None
    assert pictures.analogies(fitted["m1"].trained) is None and pictures.analogies(fitted["slots"].trained) is None
    assert pictures.completions(fitted["m2"].trained) is None


def test_units_are_the_divergence_of_q_from_p_in_falling_order(fitted: dict[str, Fitted]) -> None:
    t = fitted["m1"].trained
    assert t.model is not None
    f, x = t.model.factorisation, t.train.mean(torch.arange(50))
    with torch.no_grad():
        q = t.model.per_seed(lambda: (lambda d: torch.stack([d.mean, d.log_var]))(f.q["z"]({"x": x})))[0]
    by_torch = torch.distributions.kl_divergence(
        torch.distributions.Normal(q[0], (0.5 * q[1]).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean(0)
    np.testing.assert_allclose(kl_of_units(t.model, x)["z"], by_torch, rtol=1e-4, atol=1e-7)
    drawn = units(fitted["sdgm"].trained)
    assert drawn is not None and len(drawn.figure.axes) == 2
    for panel, size in zip(drawn.figure.axes, (3, 4)):
        heights = [bar.get_height() for bar in panel.patches]
        assert len(heights) == size and heights == sorted(heights, reverse=True)
        live = sum(height > LIVE for height in heights)
        assert texts(panel.get_legend().get_texts()) == [f"{live} live", f"{size - live} collapsed"]


def test_a_figure_is_the_same_bytes_whatever_the_users_settings(fitted: dict[str, Fitted], tmp_path: Path) -> None:
    import matplotlib

    fitted["m2"].draw("samples", "curves", folder=tmp_path / "a")
    matplotlib.rcParams["font.size"] = 20
    made = fitted["m2"].draw("samples", "curves", folder=tmp_path / "b")
    assert [path.name for path in made] == ["samples.png", "curves.png"]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["curves.pdf", "curves.png", "curves.txt", "samples.pdf", "samples.png", "samples.txt"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_ends_with_its_figures_and_one_that_fails_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in TINY if word != "trainer.figures=none"]
    fitted = ssl_dgm.fit(*words, "model=m2", f"runs={tmp_path}", "trainer.figures=quick", verbose=False)
    made = {path.stem for path in (fitted.folder / "figures").glob("*.png")}
    assert {"samples", "reconstructions", "analogies", "confusion", "curves", "units"} <= made
    for path in (fitted.folder / "figures").iterdir():
        path.unlink()
    (fitted.folder / "figures").rmdir()
    (fitted.folder / "figures").write_text("in the way")
    again = ssl_dgm.fit(*words, "model=m2", f"runs={tmp_path}", "trainer.figures=quick", "force=true")
    assert again.metrics == fitted.metrics
    out = capsys.readouterr().out
    assert "figure samples, reconstructions, " in out and "could not be drawn" in out and f"run={fitted.folder}" in out


@pytest.mark.parametrize("name", ["m1", "m2", "m1m2", "sdgm", "slots"])
def test_nothing_is_cut_off_at_the_edges(name: str, fitted: dict[str, Fitted]) -> None:
    for kind in kinds.SETS["quick"]:
        drawn = kinds.KINDS[kind](fitted[name].trained)
        if not isinstance(drawn, style.Drawn):
            continue
        drawn.figure.draw_without_rendering()
        inches = drawn.figure.get_tightbbox()
        assert inches is not None
        width, height = drawn.figure.get_size_inches()
        assert inches.x0 > -0.01 and inches.y0 > -0.01, f"{kind}: {inches}"
        assert inches.x1 < width + 0.01 and inches.y1 < height + 0.01, f"{kind}: {inches} of {width} x {height}"


@pytest.mark.parametrize("model", ["m2", "nn"])
def test_pictures_are_of_the_smallest_seed_whatever_comes_later(model: str, tmp_path: Path) -> None:
    words = (*[word for word in TINY if word != "trainer.figures=none"], f"model={model}", f"runs={tmp_path}")
    for seeds, shown in (("[5]", 5), ("[2,1]", 1), ("[5,1,7]", 1)):
        fitted = ssl_dgm.fit(*words, f"seeds={seeds}", "seeds_at_once=1", verbose=False)
        drawn = fitted.folder / "figures"
        assert (drawn / "seed.txt").read_text() == f"{shown}\n"
        assert f"seed {shown}" in " ".join((drawn / "confusion.txt").read_text().split())
    if model == "m2":
        assert "mean of 4 seeds" not in (caption := " ".join((drawn / "curves.txt").read_text().split()))
        assert "Bands are 95 % intervals" in caption, "the curves are of all four"


def test_a_seed_that_cannot_be_seen_keeps_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(generative, "trained", out_of_memory)
    words = [word for word in TINY if word != "trainer.figures=none"]
    fitted = ssl_dgm.fit(*words, "model=m2", f"runs={tmp_path}")
    assert "test/error" in fitted.metrics
    assert "(RuntimeError: out of memory)" in capsys.readouterr().out


@pytest.mark.parametrize("written", [("bag", "coat"), ("0", "1")], ids=["names", "numbers, from before they had names"])
def test_what_slots_are_attributed_to_is_read_by_the_classes_names(written: tuple[str, str], tmp_path: Path) -> None:
    counts, attribution = np.array([[3, 0, 1], [0, 5, 0]]), np.array([1, 0, -1])
    (tmp_path / "confusion.csv").write_text(Clusters(attribution, counts, {}).to_csv(written))
    read, attributed = classes.read(tmp_path / "confusion.csv", ("bag", "coat"))
    np.testing.assert_array_equal(read, counts)
    np.testing.assert_array_equal(attributed, attribution)

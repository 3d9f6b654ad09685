"""What latent units carry: the divergences, and how models of several depths are compared by them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing_runs import fit
from matplotlib.colors import same_color
from torch.distributions import Normal, kl_divergence

import ssl_dgm
from ssl_dgm import UserError
from ssl_dgm.drawing import units
from ssl_dgm.drawing.trained import Trained


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Trained]]:
    """Two seeds of a shallow M1, and one of a deeper one."""
    folder, m1 = tmp_path_factory.mktemp("runs"), ("model=m1", "classifier=none", "model.z_dim=5")
    shallow = fit(folder, *m1, "network.hidden=[16]", "seeds=[0,1]", "budget.updates_per_epoch=40")
    deeper = fit(folder, *m1, "network.hidden=[16,16,16]", "budget.updates_per_epoch=40")
    return [("one", shallow.trained), ("three", deeper.trained), ("one", ssl_dgm.load(shallow, seed=1).trained)]


def test_divergences_are_those_of_the_two_gaussians(deep: list[tuple[str, Trained]]) -> None:
    _, t = deep[0]
    assert t.model is not None
    found, rows = units.of_validation_rows(t)
    x = t.train.mean(torch.arange(t.source.num_train, t.source.num_train + rows))
    factor = t.model.factorisation.q["z"]

    def means_and_sds(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q = factor({"x": x})
        return q.mean, (0.5 * q.log_var).exp()

    mean, sd = t.per_seed(means_and_sds, x)
    expected = kl_divergence(Normal(mean[0], sd[0]), Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(found["z"], expected, rtol=1e-4, atol=1e-6)


def test_depths_are_compared_by_every_seed_and_their_mean(deep: list[tuple[str, Trained]]) -> None:
    drawn = units.compared(deep)
    left, right = drawn.figure.axes
    lines = [line for line in left.lines if len(line.get_xdata()) == 5]  # type: ignore[arg-type]
    live = []
    for (_, t), line in zip(deep, lines, strict=True):
        kl = np.sort(units.of_validation_rows(t)[0]["z"])[::-1]
        live.append((kl > units.LIVE).sum())
        np.testing.assert_allclose(line.get_ydata(), kl.clip(units.FLOOR))
    assert left.get_yscale() == "log" and left.get_ylim()[0] == units.FLOOR
    assert same_color(lines[0].get_color(), lines[2].get_color())
    assert not same_color(lines[0].get_color(), lines[1].get_color())
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["one", "three"]  # type: ignore[union-attr]
    dots = [np.asarray(line.get_xydata()).tolist() for line in right.lines if line.get_marker() == "o"]
    assert dots == [[[1, (live[0] + live[2]) / 2]], [[1, live[0]], [1, live[2]]], [[3, live[1]]]]
    assert right.get_ylim()[0] == 0
    assert "open circles are seeds, 2 at most" in drawn.caption
    assert "open circles" not in units.compared(deep[:2]).caption


def test_what_has_no_units_is_refused(deep: list[tuple[str, Trained]]) -> None:
    label, t = deep[0]
    with pytest.raises(UserError, match=r"M1 on digits has no latent units; leave m1-digits-smoke-\w+ out"):
        units.compared([(label, dataclasses.replace(t, model=None))])
    with pytest.raises(UserError, match="no run is named"):
        units.compared([])


def test_legend_and_ticks_say_what_there_is(tmp_path: Path) -> None:
    t = fit(tmp_path, "model=sdgm", "model.z_dim=2", "model.a_dim=1").trained
    drawn = units.units(t)
    assert drawn is not None
    drawn.figure.canvas.draw()
    for axes, (name, kl) in zip(drawn.figure.axes, units.of_validation_rows(t)[0].items(), strict=True):
        live = int((kl > units.LIVE).sum())
        expected = [f"{live} live", f"{len(kl) - live} collapsed"]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == expected  # type: ignore[union-attr]
        assert axes.get_xlabel().startswith(f"unit of {name},")
        shown = [tick for tick in axes.get_xticks() if 0.3 < tick < len(kl) + 0.7]
        assert shown == list(range(1, len(kl) + 1))
    assert "y at its most probable class" in drawn.caption

"""Component collapse: what every latent unit carries (the slides on AEVB, figures of Dinh and Dumoulin)."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ssl_dgm.config import UserError
from ssl_dgm.drawing.style import BLACK, BLUE, COLUMN, GREEN, GREY, ORANGE, PAGE, PINK, RED, SKY, Drawn, new, plain
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.distributions import Gaussian
from ssl_dgm.probability.generation import infer
from ssl_dgm.probability.randomness import Streams

LIVE = 0.01  # nats; a unit that carries less tells nothing of its row
FLOOR = 1e-4  # nats, at which the axis of a comparison ends
ORDER = (BLUE, RED, GREEN, PINK, SKY, ORANGE)
ROWS = 2000  # validation rows over which KL is averaged


def units(t: Trained) -> Drawn | None:
    """KL(q || p) of every unit of the latents that x depends on, largest first."""
    if t.model is None:
        return None
    found, rows = of_validation_rows(t)
    figure, axes = new(COLUMN, 1.9 * len(found), len(found))
    for panel, (name, kl) in zip(axes[:, 0], found.items()):
        kl = np.sort(kl)[::-1]
        live = int((kl > LIVE).sum())
        places = np.arange(1, len(kl) + 1)
        # White between very many bars would look like a pattern.
        width = 0.8 if len(kl) <= 100 else 1.0
        panel.bar(places, kl, width=width, color=[BLUE] * live + [GREY] * (len(kl) - live))
        panel.set_xlim(0.3, len(kl) + 0.7)
        panel.set_ylim(0, max(1.3 * kl[0], LIVE))
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        panel.set_xlabel(f"unit of {name}, in the order of its KL")
        panel.set_ylabel("KL(q || p) (nats)")
        panel.grid(False, axis="x")
        said = ((BLUE, f"{live} live"), (GREY, f"{len(kl) - live} collapsed"))
        panel.legend(handles=[Patch(color=c, label=text) for c, text in said], loc="upper right", ncols=2)
    axes[0, 0].set_title(plain(t.name))
    sums = ", ".join(f"{kl.sum():.1f} nats in all for {name}" for name, kl in found.items())
    given = ", y at its most probable class" if t.model.has_classes else ""
    about = (
        f"What every latent unit carries: KL of q from p, mean over {rows:,} validation rows{given}; {sums}. A unit "
        f"with less than {LIVE} nats has collapsed onto its prior."
    )
    return Drawn(figure, f"{about} {t.origin}")


def compared(runs: Sequence[tuple[str, Trained]]) -> Drawn:
    """Component collapse against depth (the slides on AEVB): what the units of trained models carry, and how many live.

    Args:
        runs: models by label, whose networks differ in their number of hidden layers; a label may stand for several
            seeds of a run.

    Raises:
        UserError: for an estimator, which has no latents, and for no run at all.
    """
    if not runs:
        raise UserError("no run is named whose units could be compared; name one or more")
    colours = dict(zip(dict.fromkeys(label for label, _ in runs), cycle(ORDER)))
    figure, ((left, right),) = new(PAGE, 2.4, 1, 2)
    live: dict[tuple[str, int], list[int]] = {}
    total, rows = 0, 0
    for label, t in runs:
        if t.model is None:
            raise UserError(f"{t.name} has no latent units; leave {t.folder.name} out")
        found, rows = of_validation_rows(t)
        kl = np.sort(np.concatenate(list(found.values())))[::-1]
        again = any(label == name for name, _ in live)
        style = {"color": colours[label], "label": None if again else plain(label), "linewidth": 0.9}
        left.plot(np.arange(1, len(kl) + 1), kl.clip(FLOOR), **style)
        live.setdefault((label, len(t.config.network.hidden)), []).append(int((kl > LIVE).sum()))
        total = max(total, len(kl))
    left.axhline(LIVE, color=GREY, linewidth=0.8, linestyle="--")
    left.set_yscale("log")
    left.set_ylim(bottom=FLOOR)
    left.set_xlabel("unit, in the order of its KL")
    left.set_ylabel("KL(q || p) (nats)")
    left.legend()
    depths = [layers for _, layers in live]
    means = [float(np.mean(seeds)) for seeds in live.values()]
    if len(set(depths)) == len(depths):
        order = np.argsort(depths)
        right.plot(np.take(depths, order), np.take(means, order), color=GREY, linewidth=0.8, zorder=1)
    for ((label, layers), seeds), mean in zip(live.items(), means):
        right.plot(layers, mean, "o", color=colours[label], markersize=5, clip_on=False)
        if len(seeds) > 1:
            right.plot([layers] * len(seeds), seeds, "o", color=BLACK, fillstyle="none", markersize=3, clip_on=False)
    right.axhline(total, color=GREY, linewidth=0.8, linestyle="--")
    right.set_ylim(0, 1.1 * total)
    right.set_xlim(min(depths) - 0.5, max(depths) + 0.5)
    right.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    right.set_xlabel("hidden layers of every network")
    right.set_ylabel("live units")
    seeds = max(map(len, live.values()))
    several = f"; open circles are seeds, {seeds} at most, full ones their means" if seeds > 1 else ""
    about = (
        f"Left, what the latent units of every model carry, largest first: KL of q from p, mean over {rows:,} "
        f"validation rows; what is below {FLOOR:g} nats is drawn there. Right, units above {LIVE} nats (dashed on the "
        f"left) by the number of hidden layers{several}; the dashed line is the {total} units that a model has at most."
    )
    return Drawn(figure, f"{about} Runs {', '.join(dict.fromkeys(t.folder.name for _, t in runs))}.")


def of_validation_rows(t: Trained) -> tuple[dict[str, np.ndarray], int]:
    """`kl_of_units` over the first validation rows, and how many these are."""
    assert t.model is not None
    last = min(t.source.num_train + ROWS, len(t.source.train_y))
    rows = torch.arange(t.source.num_train, last, device=t.model.device)
    return kl_of_units(t.model, t.train.mean(rows)), len(rows)


def kl_of_units(model: DeepGenerativeModel, x: Tensor) -> dict[str, np.ndarray]:
    """KL(q || p) in nats of every unit [D] of every Gaussian latent that x depends on, mean over rows x [B, D]."""
    f = model.factorisation
    names = [name for name in list(f.p)[: list(f.p).index(f.observed)] if name != "y"]
    shapes = {name: shape[2:] for name, shape in f.noise_shapes(len(x)).items() if name != "y"}
    noise = model.noise(Streams(model.seeds, "units", model.device), x=shapes)["x"]

    def divergences(x: Tensor, noise: dict[str, Tensor]) -> dict[str, Tensor]:
        values = infer(f, x, noise)
        return {name: _kl(f.q[name](values), f.p[name](values)).mean(0) for name in names}

    with torch.no_grad():
        found = model.per_seed(divergences, x.expand(len(model.seeds), *x.shape), noise)
    return {name: kl[0].cpu().numpy() for name, kl in found.items()}


def _kl(q: Gaussian, p: Gaussian) -> Tensor:
    """Of every unit, [B, D] (AEVB, appendix B)."""
    return 0.5 * (p.log_var - q.log_var - 1 + (q.log_var.exp() + (q.mean - p.mean).square()) / p.log_var.exp())

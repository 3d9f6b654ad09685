"""Component collapse: what every latent unit carries (the slides on AEVB, figures of Dinh and Dumoulin)."""

import numpy as np
import torch
from torch import Tensor

from ssl_dgm.drawing.style import BLUE, COLUMN, GREY, Drawn, new
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.distributions import Gaussian
from ssl_dgm.probability.generation import infer
from ssl_dgm.probability.randomness import Streams

LIVE = 0.01  # nats; a unit that carries less tells nothing of its row
ROWS = 2000  # validation rows over which KL is averaged


def units(t: Trained) -> Drawn | None:
    """KL(q || p) of every unit of the latents that x depends on, largest first."""
    if t.model is None:
        return None
    last = min(t.source.num_train + ROWS, len(t.source.train_y))
    rows = torch.arange(t.source.num_train, last, device=t.model.device)
    found = kl_of_units(t.model, t.train.mean(rows))
    figure, axes = new(COLUMN, 1.9 * len(found), len(found))
    for panel, (name, kl) in zip(axes[:, 0], found.items()):
        kl = np.sort(kl)[::-1]
        live = int((kl > LIVE).sum())
        places = np.arange(1, len(kl) + 1)
        panel.bar(places[:live], kl[:live], width=0.8, color=BLUE, label=f"{live} live")
        panel.bar(places[live:], kl[live:], width=0.8, color=GREY, label=f"{len(kl) - live} collapsed")
        panel.set_xlim(0.3, len(kl) + 0.7)
        panel.set_ylim(bottom=0)
        panel.set_xlabel(f"unit of {name}, in the order of its KL")
        panel.set_ylabel("KL(q || p) (nats)")
        panel.grid(False, axis="x")
        panel.legend(loc="upper right")
    axes[0, 0].set_title(t.name)
    sums = ", ".join(f"{kl.sum():.1f} nats in all for {name}" for name, kl in found.items())
    about = (
        f"What every latent unit carries: KL of q from p, mean over {len(rows):,} validation rows, y at its most "
        f"probable class; {sums}. A unit with less than {LIVE} nats has collapsed onto its prior."
    )
    return Drawn(figure, f"{about} {t.origin}")


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

"""What a record says of a trained model, computed on rows that selection never saw.

Shape legend: S seeds, M importance samples, K classes, B rows of a block, N rows, D dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_dgm.bars import bar
from ssl_dgm.data.inputs import Inputs, Posteriors
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.randomness import Streams

ELEMENTS_PER_BLOCK = 20_000_000  # floats of the widest tensor of one block: 80 MB
PATIENCE = 5.0  # seconds of scoring before a bar is shown


def blocks(num_rows: int, elements_per_row: int, device: torch.device, first: int = 0) -> tuple[Tensor, ...]:
    """Row numbers first .. num_rows - 1 in blocks that fit in memory."""
    return torch.arange(first, num_rows, device=device).split(max(1, min(5000, ELEMENTS_PER_BLOCK // elements_per_row)))


@torch.no_grad()
def log_q_y(model: DeepGenerativeModel, inputs: Inputs, num_rows: int, first: int = 0) -> Tensor:
    """log q(y | x) of every row from the `first` on, [S, N, K], from the rows' means.

    Probabilities are averaged over draws of what q draws before y.
    """
    f, streams, parts = model.factorisation, Streams(model.seeds, "evaluation classes", model.device), []
    draws = model.prediction_draws if f.before_y else 1
    for rows in blocks(num_rows, draws * model.widest, model.device, first):
        x = inputs.mean(rows).expand(len(model.seeds), -1, -1)
        shapes = {name: shape for name, shape in f.noise_shapes(len(rows), draws).items() if name in f.before_y}
        noise = model.noise(streams, x=shapes)["x"] if shapes else {}
        parts.append(model.per_seed(model.log_q_y, x, noise))
    return torch.cat(parts, 1)


@torch.no_grad()
def sampled(
    model: DeepGenerativeModel,
    score: Callable[[Tensor, dict[str, Tensor]], Tensor],
    inputs: Inputs,
    num_rows: int,
    samples: int,
    draw_inputs: bool,
    first: int = 0,
    verbose: bool = False,
) -> Tensor:
    """A score that needs noise, [S, N, ...]: `model.bound`, `model.importance_weighted` or `model.class_log_joint`.

    Args:
        samples: M draws of the latents per row and class.
        draw_inputs: score one draw of the inputs (binarised pixels) instead of their means.
        first: row that is scored.
        verbose: show a bar where it takes long: a network of convolutions sees every row once for each class.
    """
    f, parts = model.factorisation, []
    inputs_streams = Streams(model.seeds, "evaluation inputs", model.device)
    noise_streams = Streams(model.seeds, "evaluation noise", model.device)
    done = bar("scored", "row", total=num_rows - first, delay=PATIENCE, disable=not verbose)
    for rows in blocks(num_rows, samples * f.num_classes * model.widest, model.device, first):
        repeated = rows.expand(len(model.seeds), -1)
        x = inputs.draw(repeated, inputs_streams) if draw_inputs else inputs.mean(rows).expand(len(model.seeds), -1, -1)
        noise = model.noise(noise_streams, x=f.noise_shapes(len(rows), samples, enumerate_y=True))["x"]
        parts.append(model.per_seed(score, x, noise))
        done.update(len(rows))
    done.close()
    return torch.cat(parts, 1)


def error(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Share of rows whose most probable class is wrong: [S, N, K], [N] -> [S]."""
    return (log_probs.argmax(-1) != targets).float().mean(-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Mean entropy of the rows' class probabilities, in nats: [S, N, K], not necessarily normalised, -> [S]."""
    normalised = log_probs.log_softmax(-1)
    return -(normalised.exp() * normalised).sum(-1).mean(-1)


@torch.no_grad()
def posteriors(model: DeepGenerativeModel, inputs: Inputs, num_rows: int) -> list[Posteriors]:
    """q(z | x) of every row's mean, for each seed of a model without classes, at the means of what q draws before z."""
    factors, parts = model.factorisation.q, []

    def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
        values = {"x": x}
        for name, factor in factors.items():
            if name == "z":
                break
            values[name] = factor(values).mean
        q = factors["z"](values)
        return q.mean, q.log_var

    for rows in blocks(num_rows, model.widest, model.device):
        parts.append(model.per_seed(gaussian, inputs.mean(rows).expand(len(model.seeds), -1, -1)))
    return [Posteriors(*map(torch.cat, zip(*of_seed))) for of_seed in zip(*(zip(*part) for part in parts))]


def live_units(posterior: Posteriors, num_train: int, min_sd: float) -> Tensor:
    """Which latent units carry information: s.d. of the posterior means over the training rows above `min_sd`, [D]."""
    return posterior.means[:num_train].std(0) > min_sd

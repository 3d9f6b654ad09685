"""log p(x) of test rows, all latents integrated out by importance samples; pixels are binarised once.

Shape legend: S seeds, M importance samples, K classes, B rows of a block, N rows, D dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ssl_dgm.bars import bar
from ssl_dgm.data.inputs import Inputs
from ssl_dgm.evaluation.scores import ELEMENTS_PER_BLOCK, blocks
from ssl_dgm.models.algorithms import log_joint
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import hmc
from ssl_dgm.probability.distributions import LOG_2PI
from ssl_dgm.probability.randomness import Streams

# Of the chains that a proposal is fitted to.
STARTS = 50  # draws of p(z), at the likeliest of which a row's chain begins
WARM_UP, KEPT, LEAPFROGS = 150, 150, 5  # transitions that find the step size, and those behind the fit
FIRST_STEP, GAIN = 0.1, 0.2
WIDER = 1.2  # times the s.d. of what the chain visited
LEAST_VARIANCE = 1e-6  # of a chain that never moved


@torch.no_grad()
def by_q(model: DeepGenerativeModel, inputs: Inputs, num_rows: int, samples: int, verbose: bool = False) -> Tensor:
    """log p(x) with the model's own q for a proposal and y summed out, [S, N]; `verbose` shows the time left."""
    f, width = model.factorisation, model.factorisation.num_classes * model.widest
    streams = Streams(model.seeds, "evaluation noise", model.device)

    def of_block(x: Tensor, draws: int) -> Tensor:
        noise = model.noise(streams, x=f.noise_shapes(x.shape[1], draws, enumerate_y=True))["x"]
        return model.per_seed(model.importance_weighted, x, noise)

    return _by_block(model, inputs, num_rows, samples, width, lambda x: partial(of_block, x), verbose=verbose)


@torch.no_grad()
def by_chains(model: DeepGenerativeModel, inputs: Inputs, num_rows: int, samples: int, verbose: bool = False) -> Tensor:
    """log p(x) with a Gaussian for every row that was fitted to a chain on p(z | x), [S, N]; q has no part in it.

    After AEVB, appendix D, which puts the inverse of a mean over further states of the chain in the place of
    importance samples of the fitted density. For a model whose one latent is Gaussian, of a few dimensions.
    """
    f, name = model.factorisation, model.factorisation.latents[0]
    dim = f.q[name].dim
    streams = Streams(model.seeds, "evaluation chains", model.device)

    def prepared(x: Tensor) -> Callable[[int], Tensor]:
        target = partial(model.per_seed, partial(log_joint, f, name), x)
        fitted = fit(target, (len(model.seeds), x.shape[1], dim), streams)

        def of_block(draws: int) -> Tensor:
            noise = streams.normal((draws, x.shape[1], dim))
            z, log_g = fitted.draw(noise)
            return (target(z) - log_g).logsumexp(1) - math.log(draws)

        return of_block

    return _by_block(model, inputs, num_rows, STARTS, model.widest, prepared, samples, verbose)


@torch.no_grad()
def of_stack(
    model: DeepGenerativeModel,
    first: tuple[DeepGenerativeModel, Tensor],
    pixels: Inputs,
    num_rows: int,
    samples: int,
    score: Callable[[Tensor, dict[str, Tensor]], Tensor],
    verbose: bool = False,
) -> Tensor:
    """log p(x) = log of int p(x | z1) p(z1) dz1, p(z1) being what the second stage has learned, [S, N].

    z1 comes from the first stage's q(z1 | x), and p(z1) of every draw is estimated in its turn by one draw of z2 for
    each y, which is summed out. Units of z1 that the second stage was not given keep their prior N(0, 1).

    Args:
        first: the M1, of one seed, and which of its units the second stage has, bool [D].
        score: `model.importance_weighted`; `model.bound`, with one sample, makes it the bound on log p(x) instead.
    """
    (m1, live), f = first, model.factorisation
    seeds, (name,) = len(model.seeds), m1.factorisation.latents
    streams = Streams(model.seeds, "evaluation noise", model.device)

    def outer(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z1 [M, S B, D] and log p(x | z1) p(z1 of dropped units) / q(z1 | x)."""
        q = m1.factorisation.q[name]({"x": x})
        z1 = q.rsample(noise)
        of_dropped = m1.factorisation.p[name]({}).log_prob(z1[..., ~live])
        return z1, m1.factorisation.p["x"]({name: z1}).log_prob(x) + of_dropped - q.log_prob(z1)

    def of_block(x: Tensor, draws: int) -> Tensor:
        num = x.shape[1]
        noise = streams.normal((draws, num, len(live))).transpose(0, 1).reshape(1, draws, seeds * num, len(live))
        found = m1.per_seed(outer, x.reshape(1, -1, x.shape[2]), noise)
        z1, log_weight = (value[0].unflatten(1, (seeds, num)) for value in found)
        seen = z1[..., live].transpose(0, 1).flatten(1, 2)  # [S, M B, live units]
        noise_2 = model.noise(streams, x=f.noise_shapes(draws * num, 1, enumerate_y=True))["x"]
        log_p = model.per_seed(score, seen, noise_2).unflatten(1, (draws, num))
        return (log_weight.transpose(0, 1) + log_p).logsumexp(1) - math.log(draws)

    width = max(m1.widest, f.num_classes * model.widest)
    return _by_block(model, pixels, num_rows, samples, width, lambda x: partial(of_block, x), verbose=verbose)


def _by_block(
    model: DeepGenerativeModel,
    inputs: Inputs,
    num_rows: int,
    samples: int,
    width: int,
    prepared: Callable[[Tensor], Callable[[int], Tensor]],
    total: int | None = None,
    verbose: bool = False,
) -> Tensor:
    """The log of the mean of `total` weights of every row, [S, N], in blocks of rows and draws that fit in memory.

    Args:
        samples: that a block of rows should have room for, if one row does.
        width: numbers per row and sample of the widest tensor.
        prepared: makes of a block's x [S, B, D] a function that gives the log of the mean of so many fresh weights.
        total: None: `samples`.
        verbose: show a bar over all weights.
    """
    inputs_streams, parts = Streams(model.seeds, "evaluation inputs", model.device), []
    total = samples if total is None else total
    done = bar("log p(x)", "draw", total=num_rows * total, unit_scale=True, disable=not verbose)
    for rows in blocks(num_rows, samples * width, model.device):
        log_mean = prepared(inputs.draw(rows.expand(len(model.seeds), -1), inputs_streams))
        at_once = max(1, ELEMENTS_PER_BLOCK // (len(rows) * width))
        sizes = [min(at_once, total - done) for done in range(0, total, at_once)]
        sums = []
        for size in sizes:
            sums.append(log_mean(size) + math.log(size))
            done.update(len(rows) * size)
        parts.append(torch.stack(sums).logsumexp(0) - math.log(total))
    done.close()
    return torch.cat(parts, 1)


@dataclass
class Fitted:
    """N(mean, root root') of every chain: [S, B, D] and [S, B, D, D]."""

    mean: Tensor
    root: Tensor

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws [S, M, B, D] of standard-normal noise, and their log-densities [S, M, B]."""
        z = self.mean.unsqueeze(1) + (self.root.unsqueeze(1) @ noise.unsqueeze(-1)).squeeze(-1)
        log_scale = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1).unsqueeze(1)
        return z, -0.5 * (LOG_2PI + noise.square()).sum(-1) - log_scale


def fit(target: Callable[[Tensor], Tensor], shape: tuple[int, int, int], streams: Streams) -> Fitted:
    """A Gaussian a little wider than what a chain on `target` visits, for every seed and row.

    Args:
        target: log-density up to a constant, [S, ..., B, D] -> [S, ..., B], of a z whose prior is N(0, I).
        shape: S, B, D.
    """
    _, num_rows, dim = shape
    starts = streams.normal((STARTS, num_rows, dim))
    likeliest = (target(starts) + 0.5 * starts.square().sum(-1)).argmax(1)  # [S, B]
    z = starts.gather(1, likeliest[:, None, :, None].expand(-1, 1, -1, dim)).squeeze(1)
    step, visited = torch.full(shape[:2], FIRST_STEP, device=z.device), []
    for i in range(WARM_UP + KEPT):
        momentum, decision = streams.normal((num_rows, dim)), streams.normal((num_rows,))
        # Steps of different lengths, so that no trajectory ends where it began again and again.
        length = 0.8 + 0.4 * math.fmod(0.618 * i, 1)
        z, acceptance = hmc.transition(target, z, step * length, momentum, decision, LEAPFROGS)
        if i < WARM_UP:
            step = hmc.adapted(step, acceptance, GAIN)
        else:
            visited.append(z)
    states = torch.stack(visited)  # [KEPT, S, B, D]
    mean = states.mean(0)
    away = states - mean
    covariance = torch.einsum("isbd,isbe->sbde", away, away) / (KEPT - 1)
    least = LEAST_VARIANCE * torch.eye(dim, device=z.device)
    return Fitted(mean, WIDER * torch.linalg.cholesky(covariance + least))

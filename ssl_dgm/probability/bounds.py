"""One walk through a model's factors, and the bounds that are sums over its terms.

All bounds are maximised, in nats per row. Kingma et al. 2014 write L(x, y) and U(x) for their negatives.
Shape legend: M draws, K classes (1 where y is given or absent), B rows.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_dgm.probability.factors import Factorisation


@dataclass
class Trace:
    """Every factor's log-density under its variable's name, each [M, K, B], and the values that were drawn."""

    p: dict[str, Tensor]
    q: dict[str, Tensor]
    values: dict[str, Tensor]

    def scaled(self, weights: Mapping[str, float | Tensor]) -> "Trace":
        """The trace with the terms of some variables, in p and in q, multiplied by a weight (KL warm-up)."""
        return Trace(
            {name: term * weights[name] if name in weights else term for name, term in self.p.items()},
            {name: term * weights[name] if name in weights else term for name, term in self.q.items()},
            self.values,
        )


def trace(
    f: Factorisation, x: Tensor, y: Tensor | None, noise: Mapping[str, Tensor], analytic: Collection[str] = ()
) -> Trace:
    """Walks q from the observed x, drawing each latent from its noise, then scores both lists.

    Args:
        x: [B, D].
        y: one-hot [B, K] when given, `classes(f)` [K, 1, K] when enumerated, None for a model without y.
        noise: standard-normal draws of the shapes of `f.noise_shapes`.
        analytic: latents whose terms are replaced by their expectations under q, in closed form (see `f.analytic`).
    """
    values = {f.observed: x} if y is None else {f.observed: x, "y": y}
    drawn, q, p = {}, {}, {}
    for name, factor in f.q.items():
        drawn[name] = factor(values)
        if name not in values:
            values[name] = drawn[name].rsample(noise[name])
        q[name] = drawn[name].expected_log_prob(drawn[name]) if name in analytic else drawn[name].log_prob(values[name])
    for name, factor in f.p.items():
        density = factor(values)
        p[name] = density.expected_log_prob(drawn[name]) if name in analytic else density.log_prob(values[name])
    shape = torch.broadcast_shapes((1, 1, 1), *(term.shape for term in (*p.values(), *q.values())))
    return Trace({n: t.expand(shape) for n, t in p.items()}, {n: t.expand(shape) for n, t in q.items()}, values)


def classes(f: Factorisation, like: Tensor) -> Tensor:
    """All K one-hot classes as [K, 1, K]: y enumerated."""
    return torch.eye(f.num_classes, dtype=like.dtype, device=like.device).unsqueeze(1)


def log_weight(t: Trace) -> Tensor:
    """log p(x, y, h) - log q(h | x, y) of every draw and class, h being all latents but y: [M, K, B]."""
    latents = [term for name, term in t.q.items() if name != "y"]
    return sum(t.p.values()) - sum(latents)  # type: ignore[return-value]


def labelled(t: Trace) -> Tensor:
    """L(x, y) = E_q[ log p(x, y, h) - log q(h | x, y) ], [B] (Kingma et al. 2014, eq. 6; AEVB eq. 3 without y)."""
    return log_weight(t).mean(0).squeeze(0)


def unlabelled(t: Trace) -> Tensor:
    """U(x) = E_q[ sum_y q(y | .) ( log p(x, y, h) - log q(h | x, y) - log q(y | .) ) ], [B] (eq. 7)."""
    log_q_y = t.q["y"]
    return (log_q_y.exp() * (log_weight(t) - log_q_y)).sum(1).mean(0)


def classification(t: Trace) -> Tensor:
    """log q(y | x) of given labels, [B] (the last term of eq. 9); draws are averaged as probabilities."""
    return (t.q["y"].logsumexp(0) - math.log(t.q["y"].shape[0])).squeeze(0)


def importance_weighted(t: Trace) -> Tensor:
    """log (1/M) sum_m sum_y p(x, y, h_m) / q(h_m | x, y): a bound on log p(x) that M tightens, y summed out, [B]."""
    return log_weight(t).logsumexp((0, 1)) - math.log(log_weight(t).shape[0])


def class_log_joint(t: Trace) -> Tensor:
    """Importance-sampled log p(x, y) of every enumerated class, [K, B]; its softmax is the generative posterior."""
    return log_weight(t).logsumexp(0) - math.log(log_weight(t).shape[0])


def class_log_probs(f: Factorisation, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """log q(y | x), [B, K], averaging the probabilities over the draws of what q draws before y."""
    values = {f.observed: x}
    for name, factor in f.q.items():
        if name == "y":
            break
        values[name] = factor(values).rsample(noise[name])
    log_probs = f.q["y"](values).log_probs  # [B, K] or [M, 1, B, K]
    return log_probs if log_probs.dim() == 2 else (log_probs.logsumexp(0) - math.log(len(log_probs))).squeeze(0)

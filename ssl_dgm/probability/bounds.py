"""One walk through a model's factors, and the bounds that are sums over its terms.

All bounds are maximised, in nats per row. Kingma et al. 2014 write L(x, y) and U(x) for their negatives.
Shape legend: M draws, K classes (1 where y is given or absent), B rows.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_dgm.probability.distributions import Categorical
from ssl_dgm.probability.enumeration import Few, Kept, likeliest_and_one, roulette
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.networks import Shared, Values, rows


@dataclass
class Trace:
    """Every factor's log-density under its variable's name, each [M, K, B], and the values that were drawn.

    `weights` [M, K, B] says by how much a class of an incomplete enumeration counts, 0 for one that was left out, whose
    terms then mean nothing; None where all count once.
    """

    p: dict[str, Tensor]
    q: dict[str, Tensor]
    values: Values
    weights: Tensor | None = None
    q_y: Categorical | None = None  # [.., B, K]; its features are those that the model names

    def scaled(self, weights: Mapping[str, float | Tensor]) -> "Trace":
        """The trace with the terms of some variables, in p and in q, multiplied by a weight (KL warm-up)."""
        return Trace(
            {name: term * weights[name] if name in weights else term for name, term in self.p.items()},
            {name: term * weights[name] if name in weights else term for name, term in self.q.items()},
            self.values,
            self.weights,
            self.q_y,
        )


class Given(NamedTuple):
    """The labels of the first rows of a batch, one-hot [B_l, K], and the noise of these rows."""

    y: Tensor
    noise: Mapping[str, Tensor]


def trace(
    f: Factorisation,
    x: Tensor,
    y: Tensor | None,
    noise: Mapping[str, Tensor],
    analytic: Collection[str] = (),
    class_threshold: float = 0.0,
    given: Given | None = None,
    class_terms: int = 0,
    among: Tensor | None = None,
) -> Trace:
    """Walks q from the observed x, drawing each latent from its noise, then scores both lists.

    Args:
        x: [B, D].
        y: one-hot [B, K] when given, `classes(f)` [K, 1, K] when enumerated, None for a model without y and where y is
            relaxed. Then 'y' is to be among `analytic`: a density at a point of the simplex means nothing.
        noise: standard-normal draws of the shapes of `f.noise_shapes`, of the rows that are not among `given`; in an
            update with dropout those of `f.dropout_shapes` too.
        analytic: latents whose terms are replaced by their expectations under q, in closed form (see `f.analytic`).
        class_threshold: of an enumerated y, below which q(y | .) a class may be left out (see `roulette`).
        given: labels of the first rows of an enumeration with a `class_threshold`. Then only terms of a weight other
            than 0 are computed, in shapes that depend on the values; without it the others are too, and count 0.
        class_terms: of an enumerated y, the classes of every row that are computed (see `likeliest_and_one`); 0: all.
        among: one-hot labels [B_l, K] of the first rows, which are then among those classes.
    """
    values: dict[str, Tensor | Shared] = {f.observed: x} if y is None else {f.observed: x, "y": y}
    drawn: dict[str, Any] = {}
    weights: Tensor | None = None
    kept: Kept | None = None
    few: Few | None = None
    q_y: Categorical | None = None

    def noise_of(name: str) -> Tensor:
        if given is None:
            return noise[name]
        parts = given.noise[name], noise[name]
        return torch.cat(parts, 2) if kept is None else kept.noise(*parts)

    def score(name: str, density: Any) -> Tensor:
        is_analytic = name in analytic
        term = density.expected_log_prob(drawn[name]) if is_analytic else density.log_prob(rows(values[name]))
        only = kept or few
        return term if only is None else only.spread(term)

    values |= {name: noise_of(name)[0, 0] for name in f.dropout_shapes(len(x)) if name in noise}
    q, p = {}, {}
    for name, factor in f.q.items():
        if name not in f.latents:
            values[name] = factor(values)  # type: ignore[assignment]
            continue
        drawn[name] = factor(values)
        if name not in values:
            values[name] = drawn[name].rsample(noise_of(name))
        q[name] = score(name, drawn[name])
        if name == "y":
            q_y = dataclasses.replace(drawn["y"], features=values["h"]) if "h" in f.q else drawn["y"]
        if name == "y" and class_terms:
            known = q["y"] if among is None else _with_labels(q["y"], among)
            few = Few(*likeliest_and_one(known, noise["y"].squeeze(-1), class_terms), q["y"])
            weights, values["y"] = few.weights, few.y
        if name != "y" or not class_threshold:
            continue
        others = q["y"] if given is None else q["y"][..., len(given.y) :]
        weights = roulette(others, noise["y"].squeeze(-1), class_threshold)
        if given is not None:
            kept = Kept(given.y, weights)
            values = {known: kept.pick(rows(value)) for known, value in values.items()}
    for name, factor in f.p.items():
        p[name] = score(name, factor(values))
    shape = torch.broadcast_shapes((1, 1, 1), *(term.shape for term in (*p.values(), *q.values())))
    p, q = ({name: term.expand(shape) for name, term in terms.items()} for terms in (p, q))
    return Trace(p, q, values, weights, q_y)


def traces(
    f: Factorisation,
    x: tuple[Tensor, Tensor],
    y: Tensor,
    noise: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    analytic: Collection[str],
    class_threshold: float,
    sizes: str = "smaller",
    class_terms: int = 0,
) -> tuple[Trace, Trace]:
    """The trace of labelled rows with their y, and that of unlabelled rows with y enumerated, by one walk for both.

    The same as two calls of `trace`, but for networks that see more than one row at once (BatchNorm).

    Args:
        x: labelled [B_l, D] and unlabelled [B_u, D].
        y: one-hot, [B_l, K].
        noise: of either.
        sizes: 'smaller': only terms that count are computed, in shapes that depend on the values, for a
            `class_threshold` above 0; 'same': as many classes of labelled rows as of the others.
        class_terms: how many these are; 0: all.
    """
    num = len(y)
    if sizes == "smaller":
        both = trace(f, torch.cat(x), classes(f, x[0]), noise[1], analytic, class_threshold, Given(y, noise[0]))
    else:
        own = {name: _repeated(noise[0].get(name), drawn, num) for name, drawn in noise[1].items()}
        together = {name: torch.cat([own[name], drawn], 2) for name, drawn in noise[1].items()}
        both = trace(
            f, torch.cat(x), classes(f, x[0]), together, analytic, class_threshold, class_terms=class_terms, among=y
        )

    def given(terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: (term[..., :num] * y.T).sum(1, keepdim=True) for name, term in terms.items()}

    def enumerated(terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: term[..., num:] for name, term in terms.items()}

    q_y, weights = both.q_y, both.weights
    assert q_y is not None
    if weights is not None and weights.shape[-1] > x[1].shape[0]:
        weights = weights[..., num:]
    labelled_rows = Trace(given(both.p), given(both.q), both.values, q_y=rows_of(q_y, slice(num)))
    others = rows_of(q_y, slice(num, None))
    return labelled_rows, Trace(enumerated(both.p), enumerated(both.q), both.values, weights, others)


def _with_labels(log_q_y: Tensor, labels: Tensor) -> Tensor:
    """log q(y | .) [.., K, B] that is sure of the labels [B_l, K] of the first rows."""
    first, others = labels.T.log(), log_q_y[..., len(labels) :]
    return torch.cat([first.expand(*others.shape[:-1], len(labels)), others], -1)


def _repeated(given: Tensor | None, like: Tensor, num: int) -> Tensor:
    """Noise of `num` rows with one class [M, 1, B_l, D] for every class of `like` [M, K, B_u, D]; zeros without any."""
    if given is None:
        return like.new_zeros(*like.shape[:2], num, like.shape[3])
    return given.expand(-1, like.shape[1], -1, -1)


def rows_of(q_y: Categorical, rows: slice) -> Categorical:
    """q(y | .) of some rows, with its features."""
    features = None if q_y.features is None else q_y.features[..., rows, :]
    return Categorical(q_y.log_probs[..., rows, :], features)


def classes(f: Factorisation, like: Tensor) -> Tensor:
    """All K one-hot classes as [K, 1, K]: y enumerated."""
    return torch.eye(f.num_classes, dtype=like.dtype, device=like.device).unsqueeze(1)


def log_weight(t: Trace) -> Tensor:
    """log p(x, y, h) - log q(h | x, y) of every draw and class, h being all latents but y: [M, K, B]."""
    latents = [term for name, term in t.q.items() if name != "y"]
    return sum(t.p.values()) - sum(latents)  # type: ignore[return-value]


def class_weights(t: Trace) -> Tensor:
    """q(y | .) of every class, times what an incomplete enumeration counts it: [M, K, B], without gradient."""
    q_y = t.q["y"].detach().exp()
    return q_y if t.weights is None else q_y * t.weights


def labelled(t: Trace) -> Tensor:
    """L(x, y) = E_q[ log p(x, y, h) - log q(h | x, y) ], [B] (Kingma et al. 2014, eq. 6; AEVB eq. 3 without y)."""
    return log_weight(t).mean(0).squeeze(0)


def unlabelled(t: Trace) -> Tensor:
    """U(x) = E_q[ sum_y q(y | .) ( log p(x, y, h) - log q(h | x, y) - log q(y | .) ) ], [B] (eq. 7)."""
    log_q_y = t.q["y"]
    if t.weights is None:
        return (log_q_y.exp() * (log_weight(t) - log_q_y)).sum(1).mean(0)
    # sum_y q(y) (L_y - c) + c is the same sum for any c that is constant; one near L_y takes the noise out of leaving
    # some of its terms away. The classes that are kept for sure have weight 1; c is their mean.
    q_y, bounds = log_q_y.exp(), log_weight(t)
    sure = q_y.detach() * (t.weights == 1)
    c = (sure * bounds.detach()).sum(1, keepdim=True) / sure.sum(1, keepdim=True)
    return ((q_y * (t.weights * (bounds - c) - log_q_y)).sum(1) + c.squeeze(1)).mean(0)


def classification(t: Trace) -> Tensor:
    """log q(y | x) of given labels, [B] (the last term of eq. 9); draws are averaged as probabilities."""
    return (t.q["y"].logsumexp(0) - math.log(t.q["y"].shape[0])).squeeze(0)


def relaxed(t: Trace) -> Tensor:
    """E_q[ log p(x | z) - w_G (log q(z | h, y) - log p(z | y)) ] - w_C KL( q(y | h) || p(y) ), [B].

    Of one relaxed draw of y; w_G and w_C are those that the trace was scaled by (Figueroa and Rivera, section 4).
    """
    return (sum(t.p.values()) - sum(t.q.values())).mean(0).squeeze(0)  # type: ignore[union-attr]


def divergence(t: Trace, name: str) -> Tensor:
    """The expected KL of one latent variable, the mean over the rows, without gradient; a scalar."""
    kl = (t.q[name] - t.p[name]).detach()
    return (kl if kl.shape[1] == 1 else kl * class_weights(t)).sum(1).mean()


def slots_in_use(t: Trace) -> Tensor:
    """exp of the entropy of the mean of q(y | .) over the rows: 1 when all are of one class, K when evenly spread."""
    mean = t.q_y.log_probs.detach().exp().flatten(0, -2).mean(0)  # type: ignore[union-attr]
    return torch.special.entr(mean).sum().exp()


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
        drawn = factor(values)
        values[name] = drawn.rsample(noise[name]) if name in f.latents else drawn  # type: ignore[assignment]
    log_probs = f.q["y"](values).log_probs  # [B, K] or [M, 1, B, K]
    return log_probs if log_probs.dim() == 2 else (log_probs.logsumexp(0) - math.log(len(log_probs))).squeeze(0)

"""Sums over classes of which only some terms are computed.

The term of a class carries the factor q(y | .), so that late in training most terms are next to nothing. Each is kept
with a probability that falls with q(y | .) and weighted by its inverse, which leaves the sum and its gradient unbiased.
`roulette` decides class by class, so that rows keep different numbers; `likeliest_and_one` keeps the same of every row.

Shape legend: M draws, K classes, B rows, P kept (draw, class, row) triples, C classes kept of every row, D dimensions.
"""

import torch
from torch import Tensor

from ssl_dgm.probability.networks import Shared

LEAST = 1e-3  # of q(y | .), as far as drawing one of the improbable classes goes: it bounds what a drawn one counts


@torch.no_grad()
def roulette(log_q_y: Tensor, noise: Tensor, threshold: float) -> Tensor:
    """1 / pi where a class is kept and 0 where it is not, [M, K, B]; pi = min(1, q(y | .) / min(threshold, max q)).

    The likeliest class of a row is thus always kept, and each that is as likely. A threshold of 0 keeps all whose q is
    not 0.

    Args:
        log_q_y: [M or 1, K, B].
        noise: standard normal, [M, K, B].
    """
    q = log_q_y.exp()
    pi = (q / q.amax(-2, keepdim=True).clamp(max=threshold)).clamp(max=1.0)
    # Not the comparison alone: ndtr is 1 for large noise.
    return torch.where((torch.special.ndtr(noise) < pi) | (pi == 1), 1 / pi, 0.0)


class Kept:
    """The terms that are computed of a batch whose first rows have a given class, and the way there and back.

    Args:
        given: one-hot classes of the first B_l rows, [B_l, K].
        weights: of the classes of the other B_u rows, [M, K, B_u]; those of weight 0 are left out.
    """

    def __init__(self, given: Tensor, weights: Tensor) -> None:
        draws, num_classes, others = weights.shape
        first = torch.arange(draws * len(given), device=given.device)
        row = first % len(given)
        draw, given_class = first.div(len(given), rounding_mode="floor"), given.argmax(1)[row]
        self.shape = (draws, num_classes, len(given) + others)
        self.enumerated = weights.nonzero(as_tuple=True)
        m, k, b = self.enumerated
        # Of every triple its draw, class and row, [P] each.
        self.places = torch.cat([draw, m]), torch.cat([given_class, k]), torch.cat([row, b + len(given)])

    def pick(self, value: Tensor) -> Shared:
        """What the triples see of a value [.., .., B or 1, D] that may lack the draws or the classes: [P, D]."""
        full = value[(None,) * (4 - value.dim())]
        index, stride = torch.zeros_like(self.places[0]), 1
        for size, place in reversed(list(zip(full.shape[:3], self.places))):
            index, stride = index + place * stride if size > 1 else index, stride * size
        return Shared(full.flatten(0, 2), index)

    def noise(self, given: Tensor, others: Tensor) -> Tensor:
        """The triples' own of noise [M, 1, B_l, D] and [M, K, B_u, D]: [P, D]."""
        return torch.cat([given.flatten(0, 2), others[self.enumerated]])

    def spread(self, term: Tensor) -> Tensor:
        """Terms of the triples [P] at their places in [M, K, B], 0 elsewhere."""
        return term.new_zeros(self.shape).index_put(self.places, term)


@torch.no_grad()
def likeliest_and_one(log_q_y: Tensor, noise: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """The C - 1 likeliest classes of every row and one drawn of the others; what each counts, [M, C, B].

    The likeliest count 1, the one that is drawn 1 / pi, pi being its share of the others' q(y | .): the sum over the
    others in expectation (Liu et al. 2019, "Rao-Blackwellized stochastic gradients for discrete distributions").

    Args:
        log_q_y: [M or 1, K, B].
        noise: standard normal, [M, K, B]; its distribution function is the uniform draw behind a Gumbel's.
        terms: C, from 2 to K.
    """
    q = log_q_y.exp().expand(noise.shape)
    likeliest = q.topk(terms - 1, dim=-2).indices
    others = q.clamp(min=LEAST).scatter(-2, likeliest, 0.0)
    pi = others / others.sum(-2, keepdim=True)
    uniform = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-7)
    drawn = (pi.log() - (-uniform.log()).log()).argmax(-2, keepdim=True)
    counts = torch.cat([torch.ones_like(q[..., : terms - 1, :]), 1 / pi.gather(-2, drawn)], -2)
    return torch.cat([likeliest, drawn], -2), counts


class Few:
    """C classes of every row, computed in tensors of [M, C, B] instead of [M, K, B].

    Args:
        index: which, [M, C, B].
        counts: what each counts in the sum over classes, [M, C, B].
        like: log q(y | .) of all, [M or 1, K, B].
    """

    def __init__(self, index: Tensor, counts: Tensor, like: Tensor) -> None:
        self.index, self.num_classes = index, like.shape[-2]
        every = torch.arange(self.num_classes, device=index.device)
        self.y = (index.unsqueeze(-1) == every).to(like.dtype)  # one-hot, [M, C, B, K]
        self.weights = self.spread(counts)

    def spread(self, term: Tensor) -> Tensor:
        """Terms of these classes [M, C, B] at their places in [M, K, B], 0 elsewhere; those of all, [M, 1, B], stay."""
        term = term[(None,) * (3 - term.dim())]
        if term.shape[1] == 1:
            return term
        draws, _, rows = self.index.shape
        return term.new_zeros(draws, self.num_classes, rows).scatter(1, self.index, term)

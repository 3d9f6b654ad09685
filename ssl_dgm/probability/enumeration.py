"""Sums over classes of which only some terms are computed.

The term of a class carries the factor q(y | .), so that late in training most terms are next to nothing. Each is kept
with a probability that falls with q(y | .) and weighted by its inverse, which leaves the sum and its gradient unbiased.

Shape legend: M draws, K classes, B rows, P kept (draw, class, row) triples, D dimensions.
"""

import torch
from torch import Tensor

from ssl_dgm.probability.networks import Shared


@torch.no_grad()
def roulette(log_q_y: Tensor, noise: Tensor, threshold: float) -> Tensor:
    """1 / pi where a class is kept and 0 where it is not, [M, K, B]; pi = min(1, q(y | .) / threshold).

    The likeliest class of a row is always kept. A threshold of 0 keeps all.

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

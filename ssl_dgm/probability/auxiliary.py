"""Auxiliary tasks of Figueroa and Rivera: classes for unlabelled rows, and features that keep classes apart.

Functions of one seed whose shapes don't depend on values, so that they may be batched over seeds and compiled.
Shape legend: B rows, of which the labelled ones are B_l; K classes; H features.
"""

import torch
from torch import Tensor


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, in float32 at least, [A, B]; the gradient is 0 where two rows coincide."""
    a, b = (rows.to(torch.promote_types(rows.dtype, torch.float32)) for rows in (a, b))
    # Not |a|^2 + |b|^2 - 2ab, which cancels: rows that coincide would be as far apart as rounding says.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def nearest_classes(h_labelled: Tensor, y_labelled: Tensor, h: Tensor, neighbours: int) -> Tensor:
    """One-hot classes of the features h by a vote of the nearest labelled rows, each with weight 1 / distance: [B, K].

    Rows as near as the last neighbour vote too, so that no order of rows matters. Where there are rows at distance 0,
    they alone vote. Of classes with the same votes the first wins. Figueroa and Rivera, eq. 8.

    Args:
        h_labelled: [B_l, H], B_l > 0.
        y_labelled: one-hot, [B_l, K].
        h: [B, H].
        neighbours: how many vote; all rows, where there are fewer.
    """
    d = _distances(h, h_labelled)
    nearest_first = d.topk(min(neighbours, len(h_labelled)), largest=False, sorted=True).values
    nearest, farthest = nearest_first[:, :1], nearest_first[:, -1:]
    weights = torch.where(nearest > 0, 1 / d, (d == 0).to(d.dtype)).where(d <= farthest, 0.0)  # [B, B_l]
    votes = (weights.unsqueeze(-1) * y_labelled).sum(1)  # not a matrix product, which may run in a shorter precision
    return torch.zeros_like(votes).scatter(1, votes.argmax(1, keepdim=True), 1.0)


def assignment(log_q_y: Tensor, classes: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean log q(y | .) of the assigned classes, a scalar to be maximised: minus Figueroa's L_A.

    Args:
        log_q_y: [B, K].
        classes: one-hot, [B, K].
        counts: what every row counts in the mean, [B]; None: all the same.
    """
    rows = log_q_y.where(classes > 0, 0.0).sum(1)
    return rows.mean() if counts is None else (counts * rows).sum() / counts.sum()


def lifted_structured(h: Tensor, classes: Tensor, margin: float, counts: Tensor | None = None) -> Tensor:
    """Lifted structured loss of the features, a scalar to be minimised: Figueroa's L_M.

        1 / (2 |P|)  sum_{(i, j) in P}  max(0, J_ij)^2
        J_ij = log( sum_k exp(margin - d_ik) + sum_l exp(margin - d_jl) ) + d_ij

    P are the pairs of rows of one class, k and l the rows of other classes than i's and j's, d the Euclidean distances
    of the features, which are not normalised. Song et al. 2016, as TensorFlow's contrib.losses has it. 0 where there
    are no such pairs, or no other class. With counts c, a pair counts c_i c_j, and c_k and c_l weigh the exponentials.

    Args:
        h: [B, H].
        classes: one-hot, [B, K].
        counts: what every row counts, 0 or more, [B]; None: all 1.
    """
    d = _distances(h, h)
    same = classes @ classes.T > 0.5
    pairs = same & ~torch.eye(len(h), dtype=torch.bool, device=h.device)
    counts = d.new_ones(len(h)) if counts is None else counts
    # A finite stand-in for log 0: with -inf, gradients would be NaN on their way back in a batch of one class.
    exponents = (margin - d + counts.log()).masked_fill(same | (counts == 0), torch.finfo(d.dtype).min)
    negatives = exponents.logsumexp(1)  # [B]
    j = torch.logaddexp(negatives.unsqueeze(1), negatives) + d
    shares = counts * counts.unsqueeze(1) * pairs
    return (shares * j.where(pairs, 0.0).relu().square()).sum() / (2 * shares.sum()).clamp(
        min=torch.finfo(d.dtype).tiny
    )

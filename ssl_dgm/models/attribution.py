"""Cluster-and-label at every epoch, for all seeds at once; `evaluation.clusters` has what a record says of it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cluster_error(slots: Tensor, y: Tensor) -> Tensor:
    """Share of rows whose slot another class has most of: [S, N], one-hot [N, K] -> [S].

    Cross-fitted: the even rows say which class the odd ones' slots are, and the odd rows say it for the even ones.
    """
    taken = F.one_hot(slots, y.shape[1]).to(y.dtype).transpose(1, 2)  # [S, K, N]
    counts = torch.stack([taken[..., half::2] @ y[half::2] for half in (0, 1)])  # [2, S, K slots, K classes]
    own = torch.arange(y.shape[1], device=y.device)
    attributed = torch.where(counts.any(-1), counts.argmax(-1), own)
    return 1 - counts.flip(0).gather(-1, attributed.unsqueeze(-1)).sum((0, 2, 3)) / len(y)

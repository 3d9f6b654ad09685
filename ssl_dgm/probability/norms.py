"""Normalisation of hidden layers: over the rows of a batch, or within each row.

Shape legend: C channels, the dimension `dim`: the last of the values of a dense layer [..., C], the third from the end
of maps [N, C, h, w].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_OF_A_GROUP = 16  # at least; of fewer, a group of single numbers would be normalised to nothing


class BatchNorm(nn.Module):
    """Every channel less its mean over all rows and positions, by its s.d. (Ioffe and Szegedy 2015).

    Whatever dimensions lead are rows, which `nn.BatchNorm1d` takes for channels. In training the statistics are the
    batch's own, and the running ones, which evaluation uses, go a tenth of the way towards them, in place.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(self.dim, -1)
        # One row of many positions whose channels lie side by side: the layout that torch has a fast kernel for.
        maps = last.reshape(1, -1, 1, last.shape[-1]).permute(0, 3, 1, 2)
        weight, bias = self.weight.to(self.running_var.dtype), self.bias.to(self.running_var.dtype)
        out = F.batch_norm(maps, self.running_mean, self.running_var, weight, bias, self.training, 0.1, 1e-5)
        return out.permute(0, 2, 3, 1).reshape(last.shape).movedim(-1, self.dim)


class GroupNorm(nn.Module):
    """Every row's groups of channels less their mean, by their s.d. (Wu and He 2018): no row sees another."""

    def __init__(self, channels: int, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim
        most = max(1, channels // CHANNELS_OF_A_GROUP)
        self.groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]) if self.dim == -1 else x
        return F.group_norm(rows, self.groups, self.weight, self.bias).view_as(x)


NORMS = {"none": lambda channels, dim: nn.Identity(), "batch": BatchNorm, "group": GroupNorm}


def norm(kind: str, channels: int, dim: int = -1) -> nn.Module:
    """The layer that network.norm names: none, batch or group."""
    return NORMS[kind](channels, dim)

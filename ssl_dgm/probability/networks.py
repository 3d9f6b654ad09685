"""Multilayer perceptrons from several parents to the parameters of one density."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

ACTIVATIONS = {"softplus": F.softplus, "relu": F.relu, "tanh": F.tanh}


@dataclass(frozen=True)
class Architecture:
    """Hidden sizes, activation and initialisation that the networks of a model share."""

    hidden: tuple[int, ...] = (500,)
    activation: str = "softplus"
    init: str = "torch"
    init_sd: float = 0.001


class Shared(NamedTuple):
    """Rows that stand for several: row i is `value[index[i]]`. [N, D] and [P] are [P, D]."""

    value: Tensor
    index: Tensor


Values = Mapping[str, Tensor | Shared]


def rows(value: Tensor | Shared) -> Tensor:
    """Every row by itself."""
    return value if isinstance(value, Tensor) else value.value.index_select(0, value.index)


class Network(nn.Module):
    """Hidden layers fed by one Linear per parent, then one Linear per named head.

    The sum W_x x + W_y y + b equals a Linear on the concatenation (and is initialised as one), but lets a parent of
    shape [B, D] meet one of shape [K, 1, K] by broadcasting: W_x x is computed once for all K classes.

    Args:
        parents: size of every parent, in the order of its name's place behind the bar.
        heads: size of every output.
    """

    def __init__(self, parents: dict[str, int], heads: dict[str, int], architecture: Architecture) -> None:
        super().__init__()
        first, *rest = architecture.hidden
        self.activation = ACTIVATIONS[architecture.activation]
        self.inputs = nn.ModuleDict({p: nn.Linear(d, first, bias=i == 0) for i, (p, d) in enumerate(parents.items())})
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(architecture.hidden, rest))
        self.heads = nn.ModuleDict({h: nn.Linear(architecture.hidden[-1], d) for h, d in heads.items()})
        self._initialise(sum(parents.values()), architecture)

    def _initialise(self, fan_in: int, architecture: Architecture) -> None:
        places = [("input", layer) for layer in self.inputs.values()]
        places += [("hidden", layer) for layer in self.hidden]
        places += list(self.heads.items())
        for place, layer in places:
            assert isinstance(layer, nn.Linear)
            fan, is_head = fan_in if place == "input" else layer.in_features, place in self.heads
            if architecture.init == "torch":
                for parameter in layer.parameters():
                    init.uniform_(parameter, -1 / math.sqrt(fan), 1 / math.sqrt(fan))
                continue
            # Kingma et al.'s code: anglepy's VAE_Z_X uses N(0, 1/fan_in), its VAE_YZ_X a fixed N(0, 0.001^2).
            scaled = architecture.init == "fan_in"
            init.normal_(layer.weight, std=1 / math.sqrt(fan) if scaled else architecture.init_sd)
            if layer.bias is not None:
                init.normal_(layer.bias, std=0.0 if is_head else 0.01 if scaled else architecture.init_sd)
            if place == "log_var" and scaled:
                init.zeros_(layer.weight)

    def features(self, values: Values) -> Tensor:
        """The last hidden layer, [..., H]."""
        h = self.activation(reduce(torch.add, (_projected(layer, values[p]) for p, layer in self.inputs.items())))
        for layer in self.hidden:
            h = self.activation(layer(h))
        return h

    def forward(self, values: Values) -> dict[str, Tensor]:
        """Every head's output."""
        return self.outputs(self.features(values))

    def outputs(self, h: Tensor) -> dict[str, Tensor]:
        """Every head of the last hidden layer, in float32 at least, whatever precision the layers before it ran in."""
        outputs = {name: head(h) for name, head in self.heads.items()}
        return {name: out.to(torch.promote_types(out.dtype, torch.float32)) for name, out in outputs.items()}


def _projected(layer: nn.Module, value: Tensor | Shared) -> Tensor:
    """W v; of shared rows once each."""
    if isinstance(value, Tensor):
        return layer(value)
    projected = layer(value.value)
    # In float32, because the gradient of a shared row is a sum.
    return projected.to(torch.promote_types(projected.dtype, torch.float32)).index_select(0, value.index)

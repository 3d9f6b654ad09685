"""Multilayer perceptrons from several parents to the parameters of one density."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

ACTIVATIONS = {
    "softplus": F.softplus,
    "relu": F.relu,
    "tanh": F.tanh,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.01),
}


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


class Sum(nn.ModuleDict):
    """One Linear per parent, added.

    W_x x + W_y y + b equals a Linear on the concatenation (and is initialised as one), but lets a parent of shape
    [B, D] meet one of shape [K, 1, K] by broadcasting: W_x x is computed once for all K classes.

    Args:
        parents: size of every parent, in the order of its name's place behind the bar.
        size: of the sum.
    """

    def __init__(self, parents: Mapping[str, int], size: int) -> None:
        super().__init__({p: nn.Linear(d, size, bias=i == 0) for i, (p, d) in enumerate(parents.items())})

    def forward(self, values: Values) -> Tensor:
        return reduce(torch.add, (_projected(layer, values[p]) for p, layer in self.items()))


class Network(nn.Module):
    """Hidden layers, the first of which is a `Sum` over the parents, then one Linear per named head.

    Without hidden layers every head is a `Sum` itself.

    Args:
        parents: size of every parent.
        heads: size of every output.
        hidden: sizes of the hidden layers instead of the architecture's; () for none.
    """

    def __init__(
        self,
        parents: Mapping[str, int],
        heads: Mapping[str, int],
        architecture: Architecture,
        hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        sizes = architecture.hidden if hidden is None else tuple(hidden)
        self.activation = ACTIVATIONS[architecture.activation]
        self.inputs = Sum(parents, sizes[0]) if sizes else None
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.heads = nn.ModuleDict({h: nn.Linear(sizes[-1], d) if sizes else Sum(parents, d) for h, d in heads.items()})
        self._initialise(sum(parents.values()), architecture)

    def _initialise(self, fan_in: int, architecture: Architecture) -> None:
        for where, module in self.named_modules():
            if isinstance(module, nn.Linear):
                place, _, name = where.partition(".")
                summed = place == "inputs" or self.inputs is None
                head = name.partition(".")[0] if place == "heads" else None
                _initialise(module, fan_in if summed else module.in_features, head, architecture)

    def features(self, values: Values) -> Tensor:
        """The last hidden layer, [..., H], of a network that has one."""
        assert self.inputs is not None
        h = self.activation(self.inputs(values))
        for layer in self.hidden:
            h = self.activation(layer(h))
        return h

    def forward(self, values: Values) -> dict[str, Tensor]:
        """Every head's output."""
        return self.outputs(values if self.inputs is None else self.features(values))

    def outputs(self, h: Any) -> dict[str, Tensor]:
        """Every head of the last hidden layer, in float32 at least, whatever precision the layers before it ran in."""
        outputs = {name: head(h) for name, head in self.heads.items()}
        return {name: out.to(torch.promote_types(out.dtype, torch.float32)) for name, out in outputs.items()}


def _initialise(layer: nn.Linear, fan_in: int, head: str | None, architecture: Architecture) -> None:
    """Draws a layer's parameters.

    Args:
        fan_in: over all parents that are added to this layer's output.
        head: its name if the layer is part of one.
    """
    kind = architecture.init
    if kind == "torch":
        for parameter in layer.parameters():
            init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        return
    if kind == "glorot" and head is None:
        init.normal_(layer.weight, std=math.sqrt(2 / (fan_in + layer.out_features)))
        if layer.bias is not None:
            init.zeros_(layer.bias)
        return
    # Kingma et al.'s code: anglepy's VAE_Z_X uses N(0, 1/fan_in), its VAE_YZ_X a fixed N(0, 0.001^2).
    scaled, sd = kind == "fan_in", architecture.init_sd
    init.normal_(layer.weight, std=1 / math.sqrt(fan_in) if scaled else sd)
    if layer.bias is not None:
        starts_at_0 = head is not None and kind != "glorot"
        init.normal_(layer.bias, std=0.0 if starts_at_0 else 0.01 if scaled else sd)
    if head == "log_var" and scaled:
        init.zeros_(layer.weight)


def _projected(layer: nn.Module, value: Tensor | Shared) -> Tensor:
    """W v; of shared rows once each."""
    if isinstance(value, Tensor):
        return layer(value)
    projected = layer(value.value)
    # In float32, because the gradient of a shared row is a sum.
    return projected.to(torch.promote_types(projected.dtype, torch.float32)).index_select(0, value.index)

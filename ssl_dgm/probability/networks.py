"""Networks from several parents to the parameters of one density: dense, and convolutional where there are images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise, repeat
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init

from ssl_dgm.probability.convolutions import Activation, Image, Picture, Trunk, decoder
from ssl_dgm.probability.norms import norm as norm_layer

ACTIVATIONS = {
    "softplus": F.softplus,
    "relu": F.relu,
    "tanh": F.tanh,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.01),
}


@dataclass(frozen=True)
class Architecture:
    """What the networks of a model share.

    Attributes:
        hidden: sizes of the hidden layers.
        kind: mlp, or the convolutions (see `convolutions.encoder`) of the variables in `images`.
        images: shape by variable.
        features: units that Figueroa's decoder starts from.
        norm: of the convolutions that see an image.
        dropout: share of the hidden units that is 0 where `Network.features` is given noise for it.
        dropout_y: of q(y | .).
    """

    hidden: tuple[int, ...] = (500,)
    activation: str = "softplus"
    init: str = "torch"
    init_sd: float = 0.001
    kind: str = "mlp"
    images: Mapping[str, Image] = field(default_factory=dict)
    features: int = 100
    norm: str = "none"
    dropout: float = 0.0
    dropout_y: float = 0.0


class Shared(NamedTuple):
    """Rows that stand for several: row i is `value[index[i]]`. [N, D] and [P] are [P, D]."""

    value: Tensor
    index: Tensor


Values = Mapping[str, Tensor | Shared]


def rows(value: Tensor | Shared) -> Tensor:
    """Every row by itself."""
    return value if isinstance(value, Tensor) else value.value.index_select(0, value.index)


class Sum(nn.ModuleDict):
    """One Linear per parent, added; of an image, a `Trunk` that ends in one.

    W_x x + W_y y + b equals a Linear on the concatenation (and is initialised as one), but lets a parent of shape
    [B, D] meet one of shape [K, 1, K] by broadcasting: W_x x is computed once for all K classes.

    Args:
        parents: size of every parent, in the order of its name's place behind the bar.
        size: of the sum.
        classifier: whether it is for q(y | .), which may see images through other convolutions.
    """

    def __init__(
        self, parents: Mapping[str, int], size: int, architecture: Architecture, classifier: bool = False
    ) -> None:
        super().__init__()
        a = architecture
        for i, (parent, dim) in enumerate(parents.items()):
            image, bias = a.images.get(parent), i == 0
            if image is None:
                self[parent] = nn.Linear(dim, size, bias)
            else:
                self[parent] = Trunk(image, a.kind, size, ACTIVATIONS[a.activation], a.norm, bias, classifier)
        self.fan_in = sum(layer.in_features for layer in self.modules() if isinstance(layer, nn.Linear))

    def forward(self, values: Values) -> Tensor:
        return reduce(torch.add, (_projected(layer, values[p]) for p, layer in self.items()))


class Heads(nn.ModuleDict):
    """What every head makes of the same input, by name."""

    def forward(self, h: Any) -> dict[str, Tensor]:
        return {name: head(h) for name, head in self.items()}


class Network(nn.Module):
    """Hidden layers, the first of which is a `Sum` over the parents, then one Linear per named head.

    Without hidden layers every head is a `Sum` itself. The heads of an image share a `Picture`.

    Args:
        parents: size of every parent.
        heads: size of every output.
        hidden: sizes of the hidden layers instead of the architecture's; () for none.
        norm: none, batch or group. batch is not for parents with a dimension of classes, whose rows would be taken for
            rows of the batch.
        image: shape of the variable that the heads are of, if it is an image.
        classifier: whether it is q(y | .).

    Attributes:
        noise: name among the values of the noise of its dropout; those of q have one.
    """

    noise = ""

    def __init__(
        self,
        parents: Mapping[str, int],
        heads: Mapping[str, int],
        architecture: Architecture,
        hidden: Sequence[int] | None = None,
        norm: str = "none",
        image: Image | None = None,
        classifier: bool = False,
    ) -> None:
        super().__init__()
        activation: Activation = ACTIVATIONS[architecture.activation]
        sizes = architecture.hidden if hidden is None else tuple(hidden)
        if image is not None:
            # A linear map alone: Figueroa's to as many units as there are features, Ojha's to the first maps.
            maps, _ = decoder(architecture.kind, image, 1)
            sizes = (architecture.features if architecture.kind == "figueroa" else math.prod(maps),)
        self.activation: Activation = activation if image is None else _same
        self.dropout = architecture.dropout_y if classifier else architecture.dropout
        self.sizes = list(sizes)
        self.inputs = Sum(parents, sizes[0], architecture, classifier) if sizes else None
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        if image is None:
            self.heads: nn.Module = Heads(
                {h: nn.Linear(sizes[-1], d) if sizes else Sum(parents, d, architecture) for h, d in heads.items()}
            )
        else:
            self.heads = Picture(image, architecture.kind, sizes[-1], heads, activation, norm)
        # Neither decoder has any in its dense layers.
        self.norms = nn.ModuleList(norm_layer(norm if image is None else "none", size) for size in sizes)
        self._initialise(architecture)

    def _initialise(self, architecture: Architecture) -> None:
        sums = [module for module in self.modules() if isinstance(module, Sum)]
        fan_in: dict[nn.Module, int] = {
            layer: module.fan_in for module in sums for layer in module.modules() if isinstance(layer, nn.Linear)
        }
        if isinstance(self.heads, Picture):
            head_of: dict[nn.Module, str] = {self.heads.convolutions[-1]: "picture"}
        else:
            head_of = {layer: name for name, head in self.heads.named_children() for layer in head.modules()}
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                own, head = layer.weight[0].numel(), head_of.get(layer)
                if architecture.init == "fan_in" and isinstance(layer, nn.ConvTranspose2d):
                    own = layer.weight[:, 0].numel()  # torch's own rule takes the other side
                # Where nothing tells the components of p(z | y) apart, y stays without use.
                spread = architecture.init == "willetts" and self.inputs is None and head == "log_var"
                _initialise(layer, fan_in.get(layer, own), None if spread else head, architecture)

    def features(self, values: Values) -> Tensor:
        """The last hidden layer, [..., H], of a network that has one.

        Standard-normal `noise` among the values, [B, `dropped_units`], tells which units are 0, of all draws and
        classes of a row; without it none are.
        """
        assert self.inputs is not None
        h, noise = self.inputs(values), values.get(self.noise)
        pieces = repeat(None) if noise is None else rows(noise).split(self.sizes, -1)
        for layer, norm, piece in zip((_same, *self.hidden), self.norms, pieces):
            h = self.activation(norm(layer(h)))
            h = h if piece is None else _dropped(h, piece, self.dropout)
        return h

    @property
    def dropped_units(self) -> int:
        """Units of a row that dropout decides on; 0 without any."""
        return sum(self.sizes) if self.dropout else 0

    def forward(self, values: Values) -> dict[str, Tensor]:
        """Every head's output."""
        return self.outputs(values if self.inputs is None else self.features(values))

    def outputs(self, h: Any) -> dict[str, Tensor]:
        """Every head of the last hidden layer, in float32 at least, whatever precision the layers before it ran in."""
        outputs = self.heads(h)
        return {name: out.to(torch.promote_types(out.dtype, torch.float32)) for name, out in outputs.items()}


class FeatureNetwork(Network):
    """A function h = g(parents), [..., size]: a network's last hidden layer, after its norm and non-linearity.

    Of images it is the first dense layer after the convolutions, of anything else one more than the architecture has.
    """

    def __init__(self, parents: Mapping[str, int], size: int, architecture: Architecture, norm: str = "none") -> None:
        before = () if set(parents) & set(architecture.images) else architecture.hidden
        super().__init__(parents, {}, architecture, (*before, size), norm)

    def forward(self, values: Values) -> Tensor:  # type: ignore[override]
        return self.features(values)


def _same(x: Tensor) -> Tensor:
    return x


def _dropped(h: Tensor, noise: Tensor, share: float) -> Tensor:
    """h [..., B, H] with a share of its elements 0 and the others so much larger that the mean stays."""
    return torch.where(noise >= NormalDist().inv_cdf(share), h / (1 - share), 0.0)


def _initialise(
    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, fan_in: int, head: str | None, architecture: Architecture
) -> None:
    """Draws a layer's parameters.

    Args:
        fan_in: over all parents that are added to this layer's output.
        head: its name if the layer is part of one.
    """
    kind, fan_out = architecture.init, layer.weight[:, 0].numel()
    if kind == "torch":
        for parameter in layer.parameters():
            init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        return
    if kind == "xavier" or (kind in ("glorot", "willetts") and head is None):
        init.normal_(layer.weight, std=math.sqrt(2 / (fan_in + fan_out)))
        if layer.bias is not None:
            init.zeros_(layer.bias)
        return
    # Kingma et al.'s code: anglepy's VAE_Z_X uses N(0, 1/fan_in), its VAE_YZ_X a fixed N(0, 0.001^2).
    scaled, sd = kind == "fan_in", architecture.init_sd
    std = 1 / math.sqrt(fan_in) if scaled else sd
    if kind == "maaloe" and head not in ("mean", "log_var"):
        # Lasagne's GlorotNormal, of every parent by itself, and sqrt(2) times as much before a ReLU.
        std = math.sqrt((4 if head is None else 2) / (layer.weight[0].numel() + fan_out))
    init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        starts_at_0 = head is not None and kind not in ("glorot", "willetts", "maaloe")
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

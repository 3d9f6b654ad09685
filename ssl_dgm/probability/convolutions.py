"""Images to vectors and back, in the place of a Linear: what `networks` puts there where a variable is an image.

An image is (channels, height, width); its rows [..., D] are flattened pixel by pixel, the channels of a pixel side by
side: [H, W, C], as files of images are. Any dimensions may lead, and all of them count rows.

Maps are kept channels last in memory, which took 390 ms instead of 500 for a forward and backward pass of the encoder
and the decoder of `figueroa` (200 images of 28 x 28, one thread, AVX-512; oneDNN's kernels; without it 900 ms).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.norms import norm

Image = tuple[int, int, int]
Activation = Callable[[Tensor], Tensor]
KINDS = ("conv", "figueroa")


class Layer(NamedTuple):
    """A square convolution, or its transpose, and whether the maps are then halved by the largest of 2 x 2."""

    channels: int
    kernel: int
    stride: int
    padding: int
    pooled: bool = False

    def shrunk(self, size: int) -> int:
        """Height or width after the convolution."""
        return ((size + 2 * self.padding - self.kernel) // self.stride + 1) // (2 if self.pooled else 1)

    @property
    def extra(self) -> int:
        """Rows and columns that the transpose adds, so that it gives back a size that the stride divides."""
        return (2 * self.padding - self.kernel) % self.stride


def encoder(kind: str, image: Image, classifier: bool = False) -> list[Layer]:
    """The convolutions of a network that sees images.

    conv: Ojha, section 3, with widths and strides from the notebooks of B. Keng that he describes, one for grey images
    and one for colours. q(y | x) is another network, with max-pooling.
    figueroa: Figueroa and Rivera 2019, table 4; its last layer is as large as the maps, hence a Linear on all of them,
    the one that follows here.
    """
    if kind == "figueroa":
        # Paper: (filters @ size, stride, padding), which never comes down to 1 x 1; here: the two numbers are strides.
        return [Layer(16, 5, 1, 0), Layer(32, 5, 1, 0), Layer(64, 4, 2, 1), Layer(128, 4, 2, 1)]
    if classifier:
        return [Layer(32, 3, 1, 1, pooled=True), Layer(64, 3, 1, 1, pooled=True), Layer(64, 3, 1, 1)]
    if image[0] == 1:
        return [Layer(64, 3, 1, 1), Layer(64, 3, 1, 1), Layer(64, 3, 2, 1)]
    return [Layer(128, 3, 1, 1), Layer(64, 3, 2, 1), Layer(32, 3, 2, 1)]


def decoder(kind: str, image: Image, channels: int) -> tuple[Image, list[Layer]]:
    """The maps that come first, and the transposed convolutions from there to so many channels of an image.

    figueroa: table 5, the mirror of table 4. conv: the encoder's layers in the encoder's order, so that maps are many
    where they are small, and a fourth that mixes the channels of a pixel, as in the notebooks.
    """
    layers = encoder(kind, image)
    maps = sizes(image, layers)[-1]
    if kind == "conv":
        return maps, [*layers, Layer(channels, 1, 1, 0)]
    ends = [layer.channels for layer in reversed(layers[:-1])] + [channels]
    return maps, [layer._replace(channels=end) for layer, end in zip(reversed(layers), ends, strict=True)]


def sizes(image: Image, layers: Sequence[Layer]) -> list[Image]:
    """The maps after every layer."""
    found = [image]
    for layer in layers:
        _, height, width = found[-1]
        found.append((layer.channels, layer.shrunk(height), layer.shrunk(width)))
    return found[1:]


def fits(kind: str, image: Image) -> bool:
    """Whether the decoder gives back the image's size."""
    (_, *size), layers = decoder(kind, image, 1)
    for layer in layers:
        size = [(s - 1) * layer.stride - 2 * layer.padding + layer.kernel + layer.extra for s in size]
    return min(sizes(image, encoder(kind, image))[-1]) > 0 and tuple(size) == image[1:]


class Trunk(nn.Module):
    """Convolutions, each normalised and followed by its non-linearity, then a Linear: rows [..., D] to [..., size].

    Args:
        bias: whether the Linear has one.
    """

    def __init__(
        self, image: Image, kind: str, size: int, activation: Activation, normed: str, bias: bool, classifier: bool
    ) -> None:
        super().__init__()
        self.image, self.activation = image, activation
        self.layers = encoder(kind, image, classifier)
        shapes = [image, *sizes(image, self.layers)]
        self.widest = max(map(math.prod, shapes))
        # Ojha's q(y | x) has none.
        normed = "none" if classifier and kind == "conv" else normed
        self.convolutions = nn.ModuleList(
            nn.Conv2d(shape[0], layer.channels, layer.kernel, layer.stride, layer.padding)
            for shape, layer in zip(shapes, self.layers)
        )
        self.norms = nn.ModuleList(norm(normed, layer.channels, dim=-3) for layer in self.layers)
        self.linear = nn.Linear(math.prod(shapes[-1]), size, bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = _maps(x, self.image)
        for layer, convolution, normalise in zip(self.layers, self.convolutions, self.norms):
            maps = self.activation(normalise(_applied(convolution, maps)))
            maps = F.max_pool2d(maps, 2) if layer.pooled else maps
        return self.linear(maps.permute(0, 2, 3, 1).flatten(1)).reshape(*x.shape[:-1], -1)


class Picture(nn.Module):
    """Transposed convolutions from hidden rows [..., H] to all heads of an image at once.

    Every layer but the last is followed by a non-linearity. Figueroa's decoder has a Linear more between H and the
    first maps; Ojha's rows are these maps.

    Args:
        heads: size of every output: D, or D times the parameters of a pixel, which stand side by side.
    """

    def __init__(
        self, image: Image, kind: str, size: int, heads: Mapping[str, int], activation: Activation, normed: str
    ) -> None:
        super().__init__()
        self.per_pixel = {head: number // math.prod(image) for head, number in heads.items()}
        self.maps, layers = decoder(kind, image, image[0] * sum(self.per_pixel.values()))
        # Ojha's decoder has no normalisation, Figueroa's has ReLU whatever his encoder has.
        self.activation, normed = (F.relu, normed) if kind == "figueroa" else (activation, "none")
        widths = [self.maps[0], *(layer.channels for layer in layers)]
        self.widest = max(math.prod(self.maps), max(widths) * math.prod(image[1:]))
        self.linear = nn.Linear(size, math.prod(self.maps)) if kind == "figueroa" else nn.Identity()
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(width, layer.channels, layer.kernel, layer.stride, layer.padding, layer.extra)
            for width, layer in zip(widths, layers)
        )
        self.norms = nn.ModuleList(norm(normed, width, dim=-3) for width in widths[:-1])

    def forward(self, h: Tensor) -> dict[str, Tensor]:
        maps = _maps(self.linear(h), self.maps)
        for normalise, convolution in zip(self.norms, self.convolutions):
            maps = _applied(convolution, self.activation(normalise(maps)))
        per_pixel = maps.permute(0, 2, 3, 1).reshape(*h.shape[:-1], -1, sum(self.per_pixel.values()))
        pieces = per_pixel.split(list(self.per_pixel.values()), -1)
        return {head: piece.flatten(-2) for head, piece in zip(self.per_pixel, pieces)}


def _maps(rows: Tensor, image: Image) -> Tensor:
    """Rows [..., D] as maps [N, C, H, W], channels last in memory."""
    channels, height, width = image
    return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def _applied(c: nn.Module, maps: Tensor) -> Tensor:
    assert isinstance(c, nn.Conv2d | nn.ConvTranspose2d)
    # Under vmap, autocast does not see convolutions.
    maps = maps.to(c.weight.dtype)
    if isinstance(c, nn.Conv2d):
        return c(maps)
    # With the bias inside, its gradient takes a CPU longer than those of the weight and of the maps together.
    out = F.conv_transpose2d(maps, c.weight, None, c.stride, c.padding, c.output_padding)  # type: ignore[arg-type]
    return out if c.bias is None else out + c.bias.view(-1, 1, 1)

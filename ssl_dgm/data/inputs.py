"""What a model sees of a row: a fresh draw at every training step, its mean at evaluation.

Images are uint8 and stay so on the device, or on the disk; real numbers are what they are; the latents of an M1 are
Gaussians. Any of them is shared by all seeds.
Shape legend: S seeds, B rows, D dimensions.
"""

from typing import Protocol

import torch
from torch import Tensor

from ssl_dgm.data.shards import Shards
from ssl_dgm.probability.randomness import Streams

EVERY = slice(None)


class Inputs(Protocol):
    """Rows of a data set as distributions over what the model observes."""

    x_dim: int

    def draw(self, rows: Tensor, streams: Streams, part: slice = EVERY) -> Tensor:
        """A fresh draw of rows [S, B] for every seed, [S, B, D]; of a `part` of them, as it is when all are drawn."""
        ...

    def mean(self, rows: Tensor) -> Tensor:
        """The expectation of rows [B]: [B, D]."""
        ...

    def to(self, device: torch.device) -> "Inputs":
        """The same rows on another device."""
        ...


class OnDisk:
    """Rows of files [N, D] as what indexing a tensor of them gives; a row that several seeds want is read once."""

    def __init__(self, shards: Shards, device: torch.device | str = "cpu") -> None:
        self.shards, self.device, self.shape = shards, torch.device(device), shards.shape

    def __getitem__(self, rows: Tensor) -> Tensor:
        wanted, where = rows.unique(return_inverse=True)
        images = torch.from_numpy(self.shards[wanted.cpu().numpy()])
        return images.to(self.device)[where.to(self.device)]

    def to(self, device: torch.device) -> "OnDisk":
        """The same rows, put on another device when they are read."""
        return OnDisk(self.shards, device)


class Pixels:
    """uint8 images [N, D]; in training binarised afresh, a pixel being 1 with probability value / 255.

    Args:
        binarise: False feeds the grey values themselves in training too.
    """

    def __init__(self, images: Tensor | OnDisk, binarise: bool = True) -> None:
        self.images, self.binarise, self.x_dim = images, binarise, images.shape[1]

    def draw(self, rows: Tensor, streams: Streams, part: slice = EVERY) -> Tensor:
        images = self.images[rows[:, part]]
        if not self.binarise:
            return images.float() / 255
        # One byte a pixel instead of one float: uniform on 0..254, P(threshold < value) = value / 255 exactly.
        return (images > streams.bytes_below(255, (rows.shape[1], self.x_dim))[:, part]).float()

    def mean(self, rows: Tensor) -> Tensor:
        return self.images[rows].float() / 255

    def to(self, device: torch.device) -> "Pixels":
        return Pixels(self.images.to(device), self.binarise)


class Reals:
    """Rows of real numbers, float32 [N, D], the same whenever they are seen."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.x_dim = values, values.shape[1]

    def draw(self, rows: Tensor, streams: Streams, part: slice = EVERY) -> Tensor:
        return self.values[rows[:, part]]

    def mean(self, rows: Tensor) -> Tensor:
        return self.values[rows]

    def to(self, device: torch.device) -> "Reals":
        return Reals(self.values.to(device))


class Posteriors:
    """Rows that are Gaussians N(mean, exp(log_var)), both [N, D]: z1 ~ q(z1 | x) of an M1."""

    def __init__(self, means: Tensor, log_vars: Tensor) -> None:
        self.means, self.sds, self.x_dim = means, torch.exp(0.5 * log_vars), means.shape[1]
        self.log_vars = log_vars

    def draw(self, rows: Tensor, streams: Streams, part: slice = EVERY) -> Tensor:
        noise = streams.normal((rows.shape[1], self.x_dim))[:, part]
        return self.means[rows[:, part]] + self.sds[rows[:, part]] * noise

    def mean(self, rows: Tensor) -> Tensor:
        return self.means[rows]

    def to(self, device: torch.device) -> "Posteriors":
        return Posteriors(self.means.to(device), self.log_vars.to(device))

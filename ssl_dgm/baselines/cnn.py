"""A small convolutional network on the labelled rows alone."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.baselines.neural import Image, NeuralClassifier, batches, built, dropped, image_of, to_maps


class ConvolutionalNetwork(NeuralClassifier):
    """ "CNN" of Kingma et al. 2014, table 1: convolutions halved by pooling, a dense layer, a softmax.

    The published numbers go back to Weston et al. 2008, who do not tell the network; this is the usual small one.

    Args:
        image: (channels, height, width) of a row; None: a square grey image, or one line of pixels.
        channels: of the convolutions, each of `kernel` x `kernel` pixels and followed by the largest of 2 x 2.
        hidden: units of the dense layer.
        dropout: share of the dense layer's inputs and outputs that is 0 in an update.
        updates: at whatever number of labelled rows; the learning rate falls to 0 within them.
        batch_size: labelled rows per update.
        learning_rate: Adam's, at the start.
        weight_decay: AdamW's.
    """

    def __init__(
        self,
        image: Image | None = None,
        channels: Sequence[int] = (32, 64),
        kernel: int = 5,
        hidden: int = 256,
        dropout: float = 0.5,
        updates: int = 1500,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.image = image
        self.channels = channels
        self.kernel = kernel
        self.hidden = hidden
        self.dropout = dropout
        self.updates = updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _trained(self, x: Tensor, labelled: Tensor, targets: Tensor) -> nn.Module:
        image = image_of(self.image, x.shape[1])
        sizes = (image, self.channels, self.kernel, self.hidden, len(self.classes_), self.dropout)
        network = built(lambda: _Convolutions(*sizes), self._generator("weights"))
        order = batches(len(labelled), self.batch_size, self._generator("order"))
        noise = self._generator("dropout")

        def loss() -> Tensor:
            rows = next(order)
            return F.cross_entropy(network(x[labelled[rows]], noise), targets[rows])

        adam = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        self._minimise(loss, adam, self.updates)
        return network


class _Convolutions(nn.Module):
    def __init__(
        self, image: Image, channels: Sequence[int], kernel: int, hidden: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.image, self.dropout = image, dropout
        depth, height, width = image
        self.convolutions = nn.ModuleList()
        for width_of_layer in channels:
            self.convolutions.append(nn.Conv2d(depth, width_of_layer, kernel, padding="same"))
            depth, height, width = width_of_layer, -(-height // 2), -(-width // 2)
        self.dense = nn.Linear(depth * height * width, hidden)
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        maps = to_maps(x, self.image)
        for convolution in self.convolutions:
            # Rounded up, so that a line of pixels stays one.
            maps = F.max_pool2d(F.relu(convolution(maps)), 2, ceil_mode=True)
        h = F.relu(self.dense(dropped(maps.flatten(1), self.dropout, noise)))
        return self.output(dropped(h, self.dropout, noise))

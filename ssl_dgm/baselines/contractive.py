"""Contractive auto-encoders, stacked on all rows and fine-tuned on the labelled ones.

B rows of D inputs, H hidden units, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.baselines.neural import NeuralClassifier, batches


class ContractiveLayer(nn.Module):
    """h = sigmoid(W x + b), and back with the same weights: x ~ sigmoid(W' h + c).

    Rifai, Vincent, Muller, Glorot and Bengio 2011, "Contractive Auto-Encoders".
    """

    def __init__(self, num_inputs: int, num_units: int, generator: torch.Generator) -> None:
        super().__init__()
        device = generator.device
        weight = torch.empty(num_units, num_inputs, device=device)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(weight, generator=generator))
        self.bias = nn.Parameter(torch.zeros(num_units, device=device))
        self.decoder_bias = nn.Parameter(torch.zeros(num_inputs, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """h [B, H] of x [B, D]."""
        return torch.sigmoid(F.linear(x, self.weight, self.bias))

    def decode(self, h: Tensor) -> Tensor:
        """Logits [B, D] of the reconstruction from h [B, H]."""
        return F.linear(h, self.weight.T, self.decoder_bias)

    def contraction(self, h: Tensor) -> Tensor:
        """||dh/dx||_F^2 = sum_j (h_j (1 - h_j))^2 sum_i W_ji^2, [B]."""
        return (h * (1 - h)).square() @ self.weight.square().sum(1)

    def curvature(self, h: Tensor, moved: Tensor) -> Tensor:
        """||dh/dx (x) - dh/dx (x + e)||_F^2, [B], of h(x) and h(x + e)."""
        return (h * (1 - h) - moved * (1 - moved)).square() @ self.weight.square().sum(1)


class SigmoidNetwork(nn.Module):
    """The encoders of stacked layers, and a Linear to the logits of K classes that starts at 0."""

    def __init__(self, layers: Sequence[ContractiveLayer], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        num_units, device = layers[-1].weight.shape[0], layers[-1].weight.device
        self.weight = nn.Parameter(torch.zeros(num_classes, num_units, device=device))
        self.bias = nn.Parameter(torch.zeros(num_classes, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K] of x [B, D]."""
        for layer in self.layers:
            x = layer(x)
        return F.linear(x, self.weight, self.bias)


class ContractiveAutoEncoder(NeuralClassifier):
    """ "CAE" of Kingma et al. 2014, table 1, the pre-training of Rifai et al. 2011.

    Layer by layer, all rows minimise cross-entropy(x, reconstruction) + lambda ||dh/dx||_F^2, summed over inputs; with
    `hessian` also gamma ||dh/dx (x) - dh/dx (x + e)||_F^2, e ~ N(0, sd^2): "CAE+H" of Rifai et al., "Higher order
    contractive auto-encoder", 2011. Then the whole network with a softmax is fitted to the labelled rows.

    Args:
        hidden: units of every layer.
        contraction: lambda.
        hessian: gamma; 0: none.
        corruption: sd, where there is a gamma.
        epochs: passes of every layer over all rows; the learning rate falls to 0 within them.
        batch_size: rows per update, of either kind.
        learning_rate: Adam's, of the pre-training.
        updates: of the fine-tuning.
        tuning_rate: Adam's, of the fine-tuning; it falls to 0 too.
    """

    uses_unlabelled = True

    def __init__(
        self,
        hidden: Sequence[int] = (1000, 1000),
        contraction: float = 1.0,
        hessian: float = 0.0,
        corruption: float = 0.1,
        epochs: int = 20,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        updates: int = 500,
        tuning_rate: float = 1e-3,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.contraction = contraction
        self.hessian = hessian
        self.corruption = corruption
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.updates = updates
        self.tuning_rate = tuning_rate
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _trained(self, x: Tensor, labelled: Tensor, targets: Tensor) -> nn.Module:
        return self._fine_tuned(self._pretrained(x), x, labelled, targets)

    def _pretrained(self, x: Tensor) -> list[ContractiveLayer]:
        weights, order, noise = (self._generator(purpose) for purpose in ("weights", "pre-training", "corruption"))
        layers = []
        for number, num_units in enumerate(self.hidden):
            layers.append(ContractiveLayer(x.shape[1], num_units, weights))
            self._contract(layers[-1], x, order, noise, f"layer {number + 1}")
            if number + 1 < len(self.hidden):
                with torch.no_grad():
                    x = torch.cat([layers[-1](rows) for rows in x.split(1000)])
        return layers

    def _contract(
        self, layer: ContractiveLayer, x: Tensor, order: torch.Generator, noise: torch.Generator, what: str
    ) -> None:
        rows = batches(len(x), self.batch_size, order)

        def loss() -> Tensor:
            seen = x[next(rows)]
            h = layer(seen)
            crossed = F.binary_cross_entropy_with_logits(layer.decode(h), seen, reduction="none").sum(1)
            value = crossed + self.contraction * layer.contraction(h)
            if self.hessian:
                moved = seen + self.corruption * torch.empty_like(seen).normal_(generator=noise)
                value = value + self.hessian * layer.curvature(h, layer(moved))
            return value.mean()

        adam = torch.optim.Adam(layer.parameters(), self.learning_rate)
        self._minimise(loss, adam, self.epochs * -(-len(x) // self.batch_size), what)

    def _fine_tuned(
        self, layers: list[ContractiveLayer], x: Tensor, labelled: Tensor, targets: Tensor
    ) -> SigmoidNetwork:
        network = SigmoidNetwork(layers, len(self.classes_))
        order = batches(len(labelled), self.batch_size, self._generator("fine-tuning"))
        penalty = self._penalty(network, x)

        def loss() -> Tensor:
            rows = next(order)
            seen = x[labelled[rows]]
            return F.cross_entropy(network(seen), targets[rows]) + penalty(seen)

        tuned = [p for name, p in network.named_parameters() if not name.endswith("decoder_bias")]
        self._minimise(loss, torch.optim.Adam(tuned, self.tuning_rate), self.updates, "fine-tuning")
        return network

    def _penalty(self, network: SigmoidNetwork, x: Tensor) -> Any:
        """What an update of the fine-tuning adds to the loss, as a function of its labelled rows [B, D]."""
        return lambda seen: 0.0

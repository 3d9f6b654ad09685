"""The manifold tangent classifier: a network whose output must not change along the directions in which data vary.

B rows of D inputs, H units of the last hidden layer, k directions, K classes.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ssl_dgm.baselines.contractive import ContractiveAutoEncoder, ContractiveLayer, SigmoidNetwork
from ssl_dgm.baselines.neural import batches

OVERSAMPLED = 5  # directions that are followed beyond those wanted, so that the wanted ones are right sooner


class ManifoldTangentClassifier(ContractiveAutoEncoder):
    """ "MTC" of Kingma et al. 2014, table 1: Rifai, Dauphin, Vincent, Bengio and Muller 2011.

    A CAE+H, and the k leading right singular vectors u of the Jacobian dh/dx of its last layer, where data vary, at
    each row: its tangent space B_x. Fine-tuning adds

        beta sum_{u in B_x} ||do/dx u||^2,    o(x) the class probabilities,

    the mean over the labelled rows of an update and over as many other rows as `penalised_rows` tells. The encoder that
    B_x is of is the pre-trained one throughout.

    Args:
        tangents: k.
        beta: 0: none, and nothing differs from the CAE.
        penalised_rows: rows per update, of all, at which the penalty is added besides the labelled ones.
        iterations: of the power method that finds the singular vectors.
    The others are of the CAE.
    """

    def __init__(
        self,
        tangents: int = 15,
        beta: float = 10.0,
        penalised_rows: int = 30,
        iterations: int = 2,
        hidden: Sequence[int] = (1000, 1000),
        contraction: float = 1.0,
        hessian: float = 1.0,
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
        super().__init__(
            hidden, contraction, hessian, corruption, epochs, batch_size, learning_rate, updates, tuning_rate,
            random_state, device, verbose,
        )  # fmt: skip
        self.tangents = tangents
        self.beta = beta
        self.penalised_rows = penalised_rows
        self.iterations = iterations

    def _penalty(self, network: SigmoidNetwork, x: Tensor) -> Callable[[Tensor], Tensor | float]:
        if not self.beta:
            return super()._penalty(network, x)
        encoder = cast(list[ContractiveLayer], list(copy.deepcopy(network.layers)))
        others = batches(len(x), max(self.penalised_rows, 1), self._generator("penalised rows"))
        starts = self._generator("tangents")

        def penalty(seen: Tensor) -> Tensor:
            rows = torch.cat([seen, x[next(others)]]) if self.penalised_rows else seen
            directions = leading_directions(encoder, rows, self.tangents, self.iterations, starts)
            return self.beta * change_along(network, rows, directions)

        return penalty


def change_along(network: torch.nn.Module, x: Tensor, directions: Tensor) -> Tensor:
    """The mean over rows [B, D] of sum_u ||do/dx u||^2 over directions u [k, B, D]; o: the class probabilities."""

    def along(u: Tensor) -> Tensor:
        return torch.func.jvp(lambda rows: network(rows).softmax(1), (x,), (u,))[1]

    with warnings.catch_warnings():  # torch's forward derivatives load a part of it that torch deprecates
        warnings.filterwarnings("ignore", "`torch.jit")
        return torch.func.vmap(along)(directions).square().sum() / len(x)


@torch.no_grad()
def leading_directions(
    encoder: Sequence[ContractiveLayer], x: Tensor, number: int, iterations: int, generator: torch.Generator
) -> Tensor:
    """The leading right singular vectors of dh/dx at each row, orthonormal, [k, B, D], the first the most leading.

    dh/dx = diag(h2 (1 - h2)) W2 diag(h1 (1 - h1)) W1 is never formed: a block of random vectors is multiplied by it and
    by its transpose `iterations` times, which for a batch are products with W1 and W2.

    Args:
        x: rows [B, D].
        number: of vectors; no more than the Jacobian's rank can be are given.
    """
    slopes, h = [], x
    for layer in encoder:
        h = layer(h)
        slopes.append((h * (1 - h))[:, None])
    widest = min(x.shape[1], *(layer.weight.shape[0] for layer in encoder))
    block = min(number + OVERSAMPLED, widest)

    def forth(v: Tensor) -> Tensor:  # [B, block, D] -> [B, block, H]
        for layer, slope in zip(encoder, slopes):
            v = (v @ layer.weight.T) * slope
        return v

    def back(v: Tensor) -> Tensor:
        for layer, slope in zip(reversed(encoder), reversed(slopes)):
            v = (v * slope) @ layer.weight
        return v

    def orthonormal(v: Tensor) -> Tensor:
        return torch.linalg.qr(v.mT).Q.mT

    start = torch.empty(len(x), block, x.shape[1], device=x.device)
    v = start.normal_(generator=generator)
    for _ in range(iterations):
        v = orthonormal(back(forth(v)))
    images = forth(v)
    _, mixing = torch.linalg.eigh(images @ images.mT)  # ascending
    return (mixing.mT @ v).flip(1)[:, :number].transpose(0, 1)

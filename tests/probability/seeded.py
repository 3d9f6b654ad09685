"""Small sizes and seeded numbers for tests of bounds; heads answer in float32, which sets the tolerances."""

import torch
from torch import Tensor

from ssl_dgm.probability.factors import Factorisation

K, B, D, L = 3, 6, 4, 2


def agree(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected.double(), atol=3e-5, rtol=1e-5)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_of(
    f: Factorisation, batch: int, draws: int = 1, enumerate_y: bool = True, seed: int = 9
) -> dict[str, Tensor]:
    shapes = f.noise_shapes(batch, draws, enumerate_y)
    return {name: randn(seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def one_hot(classes: list[int]) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[classes]

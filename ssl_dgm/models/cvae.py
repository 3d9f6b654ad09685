"""CVAE, conditional generation: an image given a part of itself."""

import torch

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class CVAE(DeepGenerativeModel):
    """p(x, z | c) = p(z) p(x | c, z)        q(z | x) = q(z | x), c = part(x)

    The slides on Auto-Encoding Variational Bayes, 'conditional generation': c, the central pixels (condition=center),
    is always given and stands where y does in M2. A draw of z completes the picture around it.
    """

    def dims(self) -> dict[str, int]:
        mask = self.mask
        return super().dims() | {"c": int(mask.sum())}

    @property
    def mask(self) -> torch.Tensor:
        """Which elements of x are given, [D]."""
        return torch.ones(self.x_dim, dtype=torch.bool) if self.condition is None else self.condition

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.standard("z"), f.likelihood("x | c z")],
            q=[f.part("c | x", self.mask), f.normal("z | x")],
        )

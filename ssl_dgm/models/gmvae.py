"""GMVAE, the Gaussian-mixture variational auto-encoder that auxiliary tasks teach its classes."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class GMVAE(DeepGenerativeModel):
    """p(x, y, z) = p(y) p(z | y) p(x | z)        q(y, z | x) = q(y | h) q(z | h, y), h = g(x)

    Figueroa and Rivera, sections 3 and 4. y is one relaxed draw instead of a sum, and no label enters the bound: labels
    act through the auxiliary tasks on h and q(y | h) alone (`objective.assignment`, `objective.metric`). Without
    labels it clusters.
    """

    def factors(self, f: Factors) -> Factorisation:
        h_dim, z_dim = f.dims["h"], f.dims["z"]
        return Factorisation(
            p=[f.prior("y"), f.normal("z | y", hidden=()), f.likelihood("x | z", norm="batch")],
            q=[f.features("h | x"), f.relaxed("y | h", hidden=(h_dim,)), f.normal("z | h y", hidden=(z_dim, z_dim))],
        )

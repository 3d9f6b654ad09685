"""AVAE, a variational auto-encoder whose auxiliary variable makes the posterior of z richer than a Gaussian."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class AVAE(DeepGenerativeModel):
    """p(x, a, z) = p(z) p(x | z) p(a | x, z)        q(a, z | x) = q(a | x) q(z | a, x)

    Maaloe et al. 2016, section 2.2. The marginal p(x, z) is that of M1, whatever a is.
    """

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.standard("z"), f.likelihood("x | z"), f.normal("a | x z")],
            q=[f.normal("a | x"), f.normal("z | a x")],
        )

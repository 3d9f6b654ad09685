"""ADGM, the auxiliary deep generative model: M2 with an auxiliary variable in its posterior."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class ADGM(DeepGenerativeModel):
    """p(x, a, y, z) = p(y) p(z) p(x | y, z) p(a | x, y, z)        q(a, y, z | x) = q(a | x) q(y | a, x) q(z | a, x, y)

    Maaloe et al. 2016, section 3; Ojha, eqs. 13-24. One draw of a feeds q(y | a, x) and q(z | a, x, y); classes are
    predicted by q(y | a, x) averaged over draws of a.
    """

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.prior("y"), f.standard("z"), f.likelihood("x | y z"), f.normal("a | x y z")],
            q=[f.normal("a | x"), f.categorical("y | a x"), f.normal("z | a x y")],
        )

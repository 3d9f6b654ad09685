"""SDGM, the skip deep generative model: two stochastic layers below the class, with skip connections."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class SDGM(DeepGenerativeModel):
    """p(x, a, y, z) = p(y) p(z) p(a | y, z) p(x | a, y, z)        q(a, y, z | x) = q(a | x) q(y | a, x) q(z | a, x, y)

    Maaloe et al. 2016, section 3.3. The posterior is that of ADGM; here a is a latent variable of p too.
    """

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.prior("y"), f.standard("z"), f.normal("a | y z"), f.likelihood("x | a y z")],
            q=[f.normal("a | x"), f.categorical("y | a x"), f.normal("z | a x y")],
        )

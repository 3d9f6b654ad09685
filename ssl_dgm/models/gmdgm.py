"""GM-DGM, the Gaussian-mixture deep generative model, for semi-unsupervised learning."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class GMDGM(DeepGenerativeModel):
    """p(x, y, z) = p(y) p(z | y) p(x | z)        q(y, z | x) = q(y | x) q(z | x, y)

    Willetts et al. 2018, section 3. p(z | y) is a learned diagonal Gaussian for every class, and p(y) is given; classes
    act on x through z alone, so that one without a labelled row is a cluster of its own.
    """

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.prior("y"), f.normal("z | y", hidden=()), f.likelihood("x | z")],
            q=[f.categorical("y | x"), f.normal("z | x y")],
        )

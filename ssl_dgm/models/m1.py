"""M1, the latent-feature discriminative model: a variational auto-encoder whose latents serve a classifier."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class M1(DeepGenerativeModel):
    """p(x, z) = p(z) p(x | z)        q(z | x) = q(z | x)

    Kingma et al. 2014, section 2, eqs. 1, 3 and 5; AEVB, section 3. Labels are not used; a classifier is fitted on
    z ~ q(z | x) or on its mean afterwards.
    """

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.standard("z"), f.likelihood("x | z")],
            q=[f.normal("z | x")],
        )

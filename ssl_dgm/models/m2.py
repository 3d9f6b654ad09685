"""M2, the generative semi-supervised model."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class M2(DeepGenerativeModel):
    """p(x, y, z) = p(y) p(z) p(x | y, z)        q(y, z | x) = q(y | x) q(z | x, y)

    Kingma et al. 2014, section 2, eqs. 2, 4 and 6-9. Ojha's has q(z | x) (`model.q_z=x`).
    """

    def factors(self, f: Factors) -> Factorisation:
        q_z = f.normal("z | x") if self.stage.model.q_z == "x" else f.normal("z | x y", log_var=self.log_var_parents)
        return Factorisation(
            p=[f.prior("y"), f.standard("z"), f.likelihood("x | y z")],
            q=[f.categorical("y | x"), q_z],
        )

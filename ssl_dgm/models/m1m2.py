"""M1+M2, the stacked model: an M2 whose observed variable is the latent of an M1."""

from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.factors import Factorisation
from ssl_dgm.probability.notation import Factors


class M1M2(DeepGenerativeModel):
    """p(z1, y, z2) = p(y) p(z2) p(z1 | y, z2)        q(y, z2 | z1) = q(y | z1) q(z2 | z1, y)

    Kingma et al. 2014, section 2, 'Stacked generative semi-supervised model'. The whole is p(x | z1) p(z1, y, z2);
    p(x | z1) and q(z1 | x) are those of an M1 that was trained before and is kept fixed. Training draws z1 ~ q(z1 | x)
    afresh at every update, evaluation takes its mean.
    """

    def dims(self) -> dict[str, int]:
        return {"z1": self.x_dim, "y": self.num_classes, "z2": self.stage.model.z_dim}

    def factors(self, f: Factors) -> Factorisation:
        return Factorisation(
            p=[f.prior("y"), f.standard("z2"), f.normal("z1 | y z2")],
            q=[f.categorical("y | z1"), f.normal("z2 | z1 y", log_var=self.log_var_parents)],
            observed="z1",
        )

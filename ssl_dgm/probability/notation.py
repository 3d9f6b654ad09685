"""Notation such as 'z | x y' to factors: what a model's file is written in."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from ssl_dgm.probability.factors import (
    BernoulliFactor,
    CategoricalFactor,
    Factor,
    Features,
    GivenCategorical,
    LevelsFactor,
    NetworkFactor,
    NormalFactor,
    Part,
    RelaxedCategoricalFactor,
    SplitNormalFactor,
    SquaredFactor,
    StandardNormal,
)
from ssl_dgm.probability.networks import Architecture

LIKELIHOODS: dict[str, type[NetworkFactor]] = {
    "auto": BernoulliFactor, "gaussian": NormalFactor, "categorical": LevelsFactor, "mse": SquaredFactor,
}  # fmt: skip
WITHOUT_CLASSES = {"x", "z1", "h", "a"}  # the same for all classes of an enumerated y


class Factors:
    """Builds factors from notation such as 'z | x y', knowing the size of every variable.

    Args:
        dims: size of every variable by name.
        likelihood: of pixels, as in model.likelihood: auto (Bernoulli), gaussian, categorical or mse.
        trials: of a Bernoulli pixel; more than 1 where pixels are shares of ones among several binary draws.
        mse_scale: of the squared error summed over the D pixels; None: 1 / D.
        prior: p(y) of every class; None: uniform.
    """

    def __init__(
        self,
        dims: dict[str, int],
        architecture: Architecture,
        likelihood: str = "auto",
        trials: int = 1,
        mse_scale: float | None = None,
        prior: Sequence[float] | None = None,
    ) -> None:
        self.dims, self.architecture, self.trials, self.mse_scale = dims, architecture, trials, mse_scale
        self._likelihood, self._prior = LIKELIHOODS[likelihood], prior

    def _build(
        self,
        kind: type[NetworkFactor],
        notation: str,
        norm: str | None = None,
        hidden: Sequence[int] | None = None,
        **more: Any,
    ) -> NetworkFactor:
        name, _, parents = (part.strip() for part in notation.partition("|"))
        sizes, architecture = {p: self.dims[p] for p in parents.split()}, self.architecture
        if hidden is not None:
            architecture = dataclasses.replace(architecture, hidden=tuple(hidden))
        return kind(name, self.dims[name], sizes, architecture, self._norm(name, sizes, norm), **more)

    def _norm(self, name: str, parents: Collection[str], wish: str | None) -> str:
        """What normalises the hidden layers of a network where network.norm is what it is.

        Args:
            wish: instead of BatchNorm or GroupNorm by the parents' names, where the model knows better.

        Raises:
            ValueError: for a wish of BatchNorm where y is a parent.
        """
        if wish == "batch" and "y" in parents:
            factor = f"{name} | {' '.join(parents)}"
            raise ValueError(f"norm='batch' of '{factor}' would take the classes of y for rows; use norm='group'")
        norm = self.architecture.norm
        if self.architecture.kind == "figueroa" and name not in self.architecture.images:
            return "none"  # his has some after convolutions only
        if norm != "batch":
            return norm
        return wish or ("batch" if WITHOUT_CLASSES.issuperset(parents) else "group")

    def prior(self, name: str) -> Factor:
        """p(y): 1/K, or what the prior tells."""
        num_classes = self.dims[name]
        return GivenCategorical(name, self._prior or [1 / num_classes] * num_classes)

    def standard(self, name: str) -> Factor:
        """p(z) = N(0, I)."""
        return StandardNormal(name)

    def likelihood(self, notation: str, norm: str | None = None) -> Factor:
        """p(x | ...), as the settings and the data ask.

        Args:
            norm: batch where no parent has a dimension of classes although y is one of the variables.
        """
        factor = self._build(self._likelihood, notation, norm)
        if isinstance(factor, BernoulliFactor):
            factor.trials = self.trials
        if isinstance(factor, SquaredFactor):
            factor.scale = self.mse_scale or 1 / factor.dim
        return factor

    def normal(self, notation: str, hidden: Sequence[int] | None = None, log_var: str = "all") -> Factor:
        """A diagonal Gaussian with learned mean and log-variance.

        Args:
            hidden: sizes of the hidden layers; () for mean and log-variance that are linear in the parents.
            log_var: parents of the log-variance, 'all' or their names.
        """
        if log_var == "all":
            return self._build(NormalFactor, notation, hidden=hidden)
        return self._build(SplitNormalFactor, notation, hidden=hidden, log_var_parents=log_var.split())

    def categorical(self, notation: str) -> Factor:
        """A softmax over the classes."""
        return self._build(CategoricalFactor, notation)

    def relaxed(self, notation: str, hidden: Sequence[int] | None = None) -> Factor:
        """A softmax over the classes of which training takes one Gumbel-Softmax draw."""
        return self._build(RelaxedCategoricalFactor, notation, hidden=hidden)

    def features(self, notation: str) -> Factor:
        """h = g(x), which what q draws sees in the place of x."""
        name, _, parent = (part.strip() for part in notation.partition("|"))
        return Features(name, self.dims[name], {parent: self.dims[parent]}, self.architecture)

    def part(self, notation: str, mask: Tensor) -> Factor:
        """c, the elements of x that a mask [D] tells."""
        name, _, parent = (part.strip() for part in notation.partition("|"))
        return Part(name, parent, mask)

"""Conditional factors and the two ordered lists that make a model.

Shape legend: M draws, K classes (or 1), B rows. The observed variable enters as [B, D], y as [K, 1, K] when it is
enumerated and as [B, K] when it is given, a latent as [M, 1, B, D] if q draws it before y and [M, K, B, D] if after.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.distributions import Bernoulli, Categorical, Distribution, Gaussian
from ssl_dgm.probability.networks import Architecture, Network, Values


class Factor(nn.Module):
    """log-density of `name` given `parents`; subclasses map the parents' values to a distribution."""

    dim: int  # of the variable, where the factor has to know it

    def __init__(self, name: str, parents: Sequence[str] = ()) -> None:
        super().__init__()
        self.name = name
        self.parents = tuple(parents)

    def forward(self, values: Values) -> Distribution:
        """The distribution of this factor's variable, given the values of its parents."""
        raise NotImplementedError

    def label(self, letter: str) -> str:
        """'q(z | x, y)'."""
        return f"{letter}({self.name}{' | ' + ', '.join(self.parents) if self.parents else ''})"


class StandardNormal(Factor):
    """N(0, I)."""

    zero: Tensor

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, values: Values) -> Gaussian:
        return Gaussian(self.zero, self.zero)


class UniformCategorical(Factor):
    """1/K for every class."""

    log_probs: Tensor

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__(name)
        self.register_buffer("log_probs", torch.full((num_classes,), -math.log(num_classes)), persistent=False)

    def forward(self, values: Values) -> Categorical:
        return Categorical(self.log_probs)


class NetworkFactor(Factor):
    """A factor whose parameters a network computes from the parents."""

    heads: tuple[str, ...]

    def __init__(self, name: str, dim: int, parents: dict[str, int], architecture: Architecture) -> None:
        super().__init__(name, tuple(parents))
        self.dim = dim
        self.network = Network(parents, dict.fromkeys(self.heads, dim), architecture)


class NormalFactor(NetworkFactor):
    """N(mean, diag exp(log_var)), both linear in the last hidden layer."""

    heads = ("mean", "log_var")

    def forward(self, values: Values) -> Gaussian:
        return Gaussian(**self.network(values))


class BernoulliFactor(NetworkFactor):
    """Independent Bernoulli pixels, or Binomial ones of several trials."""

    heads = ("logits",)
    trials = 1

    def forward(self, values: Values) -> Bernoulli:
        return Bernoulli(**self.network(values), trials=self.trials)


class CategoricalFactor(NetworkFactor):
    """softmax over K classes."""

    heads = ("logits",)

    def forward(self, values: Values) -> Categorical:
        return Categorical(F.log_softmax(self.network(values)["logits"], -1))


class Factorisation(nn.Module):
    """p (generative) and q (inference), each a list in the order in which its variables are drawn.

    Args:
        p: factors of the joint density; one of them is the observed variable's.
        q: factors of the approximate posterior of all that `observed` leaves over.
        observed: the variable that is always given.

    Raises:
        ValueError: when the two lists don't cover the same variables, or a factor of q needs what is drawn after it.
    """

    p: Mapping[str, Factor]
    q: Mapping[str, Factor]

    def __init__(self, p: Sequence[Factor], q: Sequence[Factor], observed: str = "x") -> None:
        super().__init__()
        self.observed = observed
        self.p = nn.ModuleDict({factor.name: factor for factor in p})  # type: ignore[assignment]
        self.q = nn.ModuleDict({factor.name: factor for factor in q})  # type: ignore[assignment]
        if set(self.p) != {observed, *self.q}:
            raise ValueError(f"p draws {sorted(self.p)} but q and {observed} give {sorted([observed, *self.q])}")
        known = [observed]
        for factor in q:
            if missing := set(factor.parents) - set(known):
                raise ValueError(f"{factor.label('q')} needs {sorted(missing)} before it is drawn")
            known.append(factor.name)

    @property
    def num_classes(self) -> int:
        """K, or 1 for a model without y."""
        return self.q["y"].dim if "y" in self.q else 1

    @property
    def analytic(self) -> tuple[str, ...]:
        """Gaussian latents whose KL has a closed form: p's parents of them are known before q draws them."""
        order = [self.observed, *self.q]
        return tuple(
            name
            for i, name in enumerate(order)
            if i and isinstance(self.q[name], NormalFactor) and set(self.p[name].parents) <= set(order[:i])
        )

    def noise_shapes(
        self, batch: int, draws: int = 1, enumerate_y: bool = False, incomplete: bool = False
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard-normal noise that `bounds.trace` takes: [M, 1 or K, B, D] for every latent of q.

        An `incomplete` enumeration of y takes some too, [M, K, B, 1].
        """
        shapes, classes = {}, 1
        for name, factor in self.q.items():
            if name == "y":
                classes = self.num_classes if enumerate_y else 1
                shapes |= {"y": (draws, classes, batch, 1)} if incomplete else {}
            else:
                shapes[name] = (draws, classes, batch, factor.dim)
        return shapes

    def __str__(self) -> str:
        """'p(x, z) = p(z) p(x | z)        q(z | x) = q(z | x)'."""
        p = f"p({', '.join(sorted(self.p, key=[self.observed, *sorted(self.q)].index))}) = "
        q = f"q({', '.join(sorted(self.q))} | {self.observed}) = "
        p += " ".join(factor.label("p") for factor in self.p.values())
        return p + "        " + q + " ".join(factor.label("q") for factor in self.q.values())


class Factors:
    """Builds factors from notation such as 'z | x y', knowing the size of every variable.

    Args:
        dims: size of every variable by name.
        likelihood: 'bernoulli' or 'gaussian', the density of the observed variable.
        trials: of a Bernoulli pixel; more than 1 where pixels are shares of ones among several binary draws.
        prior: p(y) of every class; None: uniform.
    """

    def __init__(
        self,
        dims: dict[str, int],
        architecture: Architecture,
        likelihood: str = "bernoulli",
        trials: int = 1,
        prior: Sequence[float] | None = None,
    ) -> None:
        self.dims, self.architecture, self.trials = dims, architecture, trials
        self._prior = prior
        self._likelihood = {"bernoulli": BernoulliFactor, "gaussian": NormalFactor}[likelihood]

    def _build(self, kind: type[NetworkFactor], notation: str) -> NetworkFactor:
        name, _, parents = (part.strip() for part in notation.partition("|"))
        return kind(name, self.dims[name], {p: self.dims[p] for p in parents.split()}, self.architecture)

    def uniform(self, name: str) -> Factor:
        """p(y) = 1/K."""
        return UniformCategorical(name, self.dims[name])

    def standard(self, name: str) -> Factor:
        """p(z) = N(0, I)."""
        return StandardNormal(name)

    def likelihood(self, notation: str) -> Factor:
        """p(x | ...), as the data ask: Bernoulli, Binomial or Gaussian."""
        factor = self._build(self._likelihood, notation)
        if isinstance(factor, BernoulliFactor):
            factor.trials = self.trials
        return factor

    def normal(self, notation: str) -> Factor:
        """A diagonal Gaussian with learned mean and log-variance."""
        return self._build(NormalFactor, notation)

    def categorical(self, notation: str) -> Factor:
        """A softmax over the classes."""
        return self._build(CategoricalFactor, notation)

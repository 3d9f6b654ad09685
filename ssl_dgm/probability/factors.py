"""Conditional factors and the two ordered lists that make a model.

Shape legend: M draws, K classes (or 1), B rows. The observed variable enters as [B, D], y as [K, 1, K] when it is
enumerated and as [B, K] when it is given, a latent as [M, 1, B, D] if q draws it before y and [M, K, B, D] if after.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.distributions import Bernoulli, Categorical, Distribution, Gaussian, Levels, Squared
from ssl_dgm.probability.networks import Architecture, Network, Values


class Factor(nn.Module):
    """log-density of `name` given `parents`; subclasses map the parents' values to a distribution."""

    dim: int  # of the variable, where the factor has to know it
    parameters_per_value = 1  # numbers that each head of a network has for one of the variable's

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
    classifier = False

    def __init__(
        self, name: str, dim: int, parents: dict[str, int], architecture: Architecture, norm: str = "none"
    ) -> None:
        super().__init__(name, tuple(parents))
        self.dim = dim
        heads = dict.fromkeys(self.heads, dim * self.parameters_per_value)
        image = architecture.images.get(name)
        self.network = Network(parents, heads, architecture, norm=norm, image=image, classifier=self.classifier)


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


class LevelsFactor(NetworkFactor):
    """A softmax over the 256 grey levels of every pixel."""

    heads = ("logits",)
    parameters_per_value = Levels.count

    def forward(self, values: Values) -> Levels:
        return Levels(self.network(values)["logits"].unflatten(-1, (self.dim, Levels.count)))


class SquaredFactor(NetworkFactor):
    """N(sigmoid(logits), 1 / (2 scale)): the squared error of pixels, times `scale`."""

    heads = ("logits",)
    scale = 1.0

    def forward(self, values: Values) -> Squared:
        return Squared(**self.network(values), scale=self.scale)


class CategoricalFactor(NetworkFactor):
    """softmax over K classes."""

    heads = ("logits",)
    classifier = True

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
    """

    def __init__(
        self,
        dims: dict[str, int],
        architecture: Architecture,
        likelihood: str = "auto",
        trials: int = 1,
        mse_scale: float | None = None,
    ) -> None:
        self.dims, self.architecture, self.trials, self.mse_scale = dims, architecture, trials, mse_scale
        self._likelihood = LIKELIHOODS[likelihood]

    def _build(self, kind: type[NetworkFactor], notation: str, norm: str | None = None) -> NetworkFactor:
        name, _, parents = (part.strip() for part in notation.partition("|"))
        sizes = {p: self.dims[p] for p in parents.split()}
        return kind(name, self.dims[name], sizes, self.architecture, self._norm(name, sizes, norm))

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
        return wish or ("batch" if "y" not in self.dims or WITHOUT_CLASSES.issuperset(parents) else "group")

    def uniform(self, name: str) -> Factor:
        """p(y) = 1/K."""
        return UniformCategorical(name, self.dims[name])

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

    def normal(self, notation: str) -> Factor:
        """A diagonal Gaussian with learned mean and log-variance."""
        return self._build(NormalFactor, notation)

    def categorical(self, notation: str) -> Factor:
        """A softmax over the classes."""
        return self._build(CategoricalFactor, notation)

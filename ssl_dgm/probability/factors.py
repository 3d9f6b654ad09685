"""Conditional factors and the two ordered lists that make a model.

Shape legend: M draws, K classes (or 1), B rows. The observed variable enters as [B, D], y as [K, 1, K] when it is
enumerated and as [B, K] when it is given, a latent as [M, 1, B, D] if q draws it before y and [M, K, B, D] if after.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm.probability.distributions import Bernoulli, Categorical, Distribution, Gaussian, Levels, Squared
from ssl_dgm.probability.networks import Architecture, FeatureNetwork, Network, Values, rows


def dropout_of(name: str) -> str:
    """What the noise of the dropout in a variable's network is called."""
    return f"dropout of {name}"


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


class GivenCategorical(Factor):
    """Probabilities that are told, 1/K for every class or others."""

    log_probs: Tensor

    def __init__(self, name: str, probs: Sequence[float]) -> None:
        super().__init__(name)
        self.register_buffer("log_probs", torch.tensor([math.log(p) for p in probs]), persistent=False)

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


class SplitNormalFactor(NormalFactor):
    """A Gaussian whose mean and log-variance have networks of their own, and different parents.

    Dropout leaves out the same units of both.
    """

    heads = ("mean",)

    def __init__(
        self,
        name: str,
        dim: int,
        parents: dict[str, int],
        architecture: Architecture,
        norm: str = "none",
        log_var_parents: Sequence[str] = (),
    ) -> None:
        super().__init__(name, dim, parents, architecture, norm)
        self.log_var = Network({p: parents[p] for p in log_var_parents}, {"log_var": dim}, architecture, norm=norm)

    def forward(self, values: Values) -> Gaussian:
        return Gaussian(**self.network(values), **self.log_var(values))


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
        h = self.network.features(values)
        return Categorical(F.log_softmax(self.network.outputs(h)["logits"], -1), features=h)


class RelaxedCategoricalFactor(CategoricalFactor):
    """softmax over K classes, drawn as a point of the simplex (Gumbel-Softmax) and not summed over.

    Attributes:
        temperature: of the draws, a scalar that training lowers; towards 0 they become one-hot.
    """

    temperature: Tensor

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("temperature", torch.ones(()), persistent=False)

    def forward(self, values: Values) -> Categorical:
        return dataclasses.replace(super().forward(values), temperature=self.temperature)


class Deterministic(Factor):
    """A function and no density, 'h = g(x)', whose value the factors after it see."""

    function = "g"

    def label(self, letter: str) -> str:
        """'h = g(x)'."""
        return f"{self.name} = {self.function}({', '.join(self.parents)})"


class Features(Deterministic):
    """h = g(x), a network."""

    def __init__(self, name: str, dim: int, parents: dict[str, int], architecture: Architecture) -> None:
        super().__init__(name, tuple(parents))
        self.dim, self.network = dim, FeatureNetwork(parents, dim, architecture, architecture.norm)

    def forward(self, values: Values) -> Tensor:  # type: ignore[override]
        """[B, H] of the parents' values [B, D]."""
        return self.network(values)


class Part(Deterministic):
    """c, the elements of x that a mask [D] tells: given, and not inferred."""

    function = "part"
    index: Tensor

    def __init__(self, name: str, parent: str, mask: Tensor) -> None:
        super().__init__(name, (parent,))
        self.register_buffer("index", mask.nonzero()[:, 0], persistent=False)
        self.dim = int(mask.sum())

    def forward(self, values: Values) -> Tensor:  # type: ignore[override]
        """[B, C] of x [B, D]."""
        return rows(values[self.parents[0]]).index_select(-1, self.index)


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
        if set(self.p) != {observed, *self.latents}:
            raise ValueError(f"p draws {sorted(self.p)} but q and {observed} give {sorted([observed, *self.latents])}")
        known = [observed]
        for factor in q:
            if missing := set(factor.parents) - set(known):
                raise ValueError(f"{factor.label('q')} needs {sorted(missing)} before it is drawn")
            known.append(factor.name)
            for network in factor.modules():
                if isinstance(network, Network):
                    network.noise = dropout_of(factor.name)

    @property
    def latents(self) -> tuple[str, ...]:
        """What q draws, y included, in its order; not the deterministic features."""
        return tuple(name for name, factor in self.q.items() if not isinstance(factor, Deterministic))

    @property
    def conditions(self) -> tuple[str, ...]:
        """What p is conditioned on and does not draw."""
        parents = {parent for factor in self.p.values() for parent in factor.parents}
        return tuple(name for name in self.q if name in parents and name not in self.p)

    @property
    def before_y(self) -> tuple[str, ...]:
        """The latents that q draws before y."""
        return self.latents[: self.latents.index("y")] if "y" in self.q else ()

    @property
    def relaxed(self) -> bool:
        """Whether y is drawn as a point of the simplex in training, instead of being summed out."""
        return isinstance(self.q["y"], RelaxedCategoricalFactor) if "y" in self.q else False

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
            if name in self.latents
            and isinstance(self.q[name], NormalFactor)
            and set(self.p[name].parents) <= set(order[:i])
        )

    def dropout_shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the noise of q's dropout, [1, 1, B, units], by a name that is no variable's; `trace` takes it."""
        units = {name: f.network.dropped_units for name, f in self.q.items() if isinstance(f, NetworkFactor | Features)}
        return {dropout_of(name): (1, 1, batch, number) for name, number in units.items() if number}

    def noise_shapes(
        self,
        batch: int,
        draws: int = 1,
        enumerate_y: bool = False,
        incomplete: bool = False,
        relaxed: bool = False,
        class_terms: int = 0,
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard-normal noise that `bounds.trace` takes: [M, 1 or K, B, D] for every latent of q.

        An `incomplete` enumeration of y takes some too, [M, K, B, 1], and a `relaxed` y [M, 1, B, K]. With
        `class_terms` latents after y have so many instead of K.
        """
        shapes, classes = {}, 1
        for name in self.latents:
            if name == "y":
                shapes |= {"y": (draws, self.num_classes, batch, 1)} if incomplete else {}
                classes = (class_terms or self.num_classes) if enumerate_y else 1
                shapes |= {"y": (draws, 1, batch, self.num_classes)} if relaxed else {}
            else:
                shapes[name] = (draws, classes, batch, self.q[name].dim)
        return shapes

    def __str__(self) -> str:
        """'p(x, z) = p(z) p(x | z)        q(z | x) = q(z | x)'."""
        names = sorted(self.latents)
        given = f" | {', '.join(self.conditions)}" if self.conditions else ""
        p = f"p({', '.join(sorted(self.p, key=[self.observed, *names].index))}{given}) = "
        q = f"q({', '.join(names)} | {self.observed}) = "
        p += " ".join(factor.label("p") for factor in self.p.values())
        q += " ".join(self.q[name].label("q") for name in self.latents)
        functions = [factor.label("q") for name, factor in self.q.items() if name not in self.latents]
        return ", ".join([p + "        " + q, *functions])

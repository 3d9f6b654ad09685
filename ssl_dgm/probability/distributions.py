"""Densities of one variable given its parents, event dimension last and summed.

Shapes: [..., D] for values and parameters, [...] for log-densities, in nats.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
LOG_VAR_LIMIT = 10.0  # exp(-10) to exp(10): a wider log-variance only ever meant divergence


@dataclass
class Gaussian:
    """N(mean, diag exp(log_var)); the log-variance is unconstrained but for a clamp to [-10, 10]."""

    mean: Tensor
    log_var: Tensor

    def __post_init__(self) -> None:
        self.log_var = self.log_var.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)

    def rsample(self, noise: Tensor) -> Tensor:
        """mean + sd * noise, with noise ~ N(0, I) (the reparameterisation of AEVB, section 2.4)."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def sample(self, noise: Tensor) -> Tensor:
        """As `rsample`."""
        return self.rsample(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, exp(log_var)), [..., D] -> [...]."""
        return -0.5 * (LOG_2PI + self.log_var + (x - self.mean).square() * torch.exp(-self.log_var)).sum(-1)

    def expected_log_prob(self, q: "Gaussian") -> Tensor:
        """E_q[log self(x)] in closed form (AEVB, appendix B); with q = self, the negative entropy."""
        spread = q.log_var.exp() + (q.mean - self.mean).square()
        return -0.5 * (LOG_2PI + self.log_var + spread * torch.exp(-self.log_var)).sum(-1)


@dataclass
class Bernoulli:
    """Independent binary pixels; a grey value in (0, 1) is scored by its expectation over binarisations.

    With several trials, Binomial pixels: x is the share of ones among `trials` draws.
    """

    logits: Tensor
    trials: int = 1

    @property
    def mean(self) -> Tensor:
        """The probabilities of a 1, in (0, 1)."""
        return torch.sigmoid(self.logits)

    def sample(self, noise: Tensor) -> Tensor:
        """Pixels where the distribution function reaches that of standard-normal `noise`, in 0, 1/trials, ..., 1."""
        n, uniform, log_odds = self.trials, torch.special.ndtr(noise), self.logits
        mass = n * F.logsigmoid(-log_odds)  # log P(0 ones), then of one more at a time
        below, drawn = mass.exp(), torch.zeros_like(uniform)
        for ones in range(n):
            drawn = drawn + (uniform > below)
            mass = mass + log_odds + math.log((n - ones) / (ones + 1))
            below = below + mass.exp()
        return drawn / n

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_d x log p + (1 - x) log(1 - p), [..., D] -> [...]; of n trials n times that, and log binomial(n, n x)."""
        # x l - softplus(l), in torch's form of it, whose gradient is one pass over the logits.
        logits, x = torch.broadcast_tensors(self.logits, x)
        log_p = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        if self.trials == 1:
            return log_p
        n = self.trials
        ways = math.lgamma(n + 1) - torch.lgamma(n * x + 1) - torch.lgamma(n * (1 - x) + 1)
        return n * log_p + ways.sum(-1)


@dataclass
class Levels:
    """Independent pixels that are one of 256 levels 0/255, 1/255, ..., 1; x in between counts as the nearest."""

    logits: Tensor  # [..., D, 256]
    count: ClassVar[int] = 256

    @property
    def mean(self) -> Tensor:
        """The expected pixels, [..., D]."""
        levels = torch.linspace(0, 1, self.count, dtype=self.logits.dtype, device=self.logits.device)
        return self.logits.softmax(-1) @ levels

    def sample(self, noise: Tensor) -> Tensor:
        """Levels where the distribution function reaches that of standard-normal `noise`, [..., D]."""
        below = self.logits.softmax(-1).cumsum(-1)[..., :-1]
        return (torch.special.ndtr(noise).unsqueeze(-1) > below).sum(-1).to(below.dtype) / (self.count - 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of every pixel's level, summed, [..., D] -> [...]."""
        shape = torch.broadcast_shapes(x.shape, self.logits.shape[:-1])
        level = (x * (self.count - 1)).round().long().expand(shape).unsqueeze(-1)
        return self.logits.log_softmax(-1).expand(*shape, -1).gather(-1, level).squeeze(-1).sum(-1)


@dataclass
class Squared:
    """N(sigmoid(logits), 1 / (2 scale)) of every pixel: the squared error times `scale`, up to a constant."""

    logits: Tensor
    scale: float

    @property
    def mean(self) -> Tensor:
        """In (0, 1)."""
        return torch.sigmoid(self.logits)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + noise / sqrt(2 scale), with noise ~ N(0, I)."""
        return self.mean + noise / math.sqrt(2 * self.scale)

    def log_prob(self, x: Tensor) -> Tensor:
        """-scale sum_d (x - mean)^2 - D/2 log(pi / scale), [..., D] -> [...]."""
        error = (x - self.mean).square().sum(-1)
        return -self.scale * error - 0.5 * self.logits.shape[-1] * math.log(math.pi / self.scale)


@dataclass
class Categorical:
    """One of K classes, as one-hot vectors."""

    log_probs: Tensor  # [..., K], normalised
    features: Tensor | None = None  # [..., H], what a network computed them from
    temperature: Tensor | None = None  # of relaxed draws

    def rsample(self, noise: Tensor) -> Tensor:
        """softmax((log p + Gumbel) / temperature), a point of the simplex, [..., K] (Jang et al. 2017, eq. 2).

        Args:
            noise: standard normal; its distribution function is the uniform draw behind a Gumbel's.
        """
        assert self.temperature is not None
        uniform = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-7)
        return F.softmax((self.log_probs - (-uniform.log()).log()) / self.temperature, -1)

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y) of one-hot y, [..., K] -> [...]."""
        return (y * self.log_probs).sum(-1)

    def expected_log_prob(self, q: "Categorical") -> Tensor:
        """E_q[log self(y)]; with q = self, the negative entropy."""
        return (q.log_probs.exp() * self.log_probs).sum(-1)


Distribution = Gaussian | Bernoulli | Levels | Squared | Categorical

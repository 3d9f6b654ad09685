"""What an epoch's validation measures, for all seeds at once.

Shape legend: S seeds, K values of y, B rows of a batch, N rows.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ssl_dgm.data.slots import LEAST_SHARE
from ssl_dgm.models.attribution import cluster_error
from ssl_dgm.probability.distributions import Categorical
from ssl_dgm.probability.randomness import Streams

VALIDATION_DRAWS = 10  # of what q draws before y
# Names of the scores; the first is the one that chooses the best epoch.
OF_CLASSES = ("error", "entropy_y", "entropy_slots", "slots_used")
OF_BOUNDS = ("bound",)


class Validation:
    """What a model says of the validation rows, batch by batch, and in the end their scores."""

    def __init__(self, model: Any) -> None:
        self.streams = Streams(model.seeds, "validation", model.device)  # the same draws at every epoch
        self.attributes_slots = model.free_slots
        self.bounds: list[Tensor] = []
        self.slots: list[Tensor] = []  # the most probable value of y
        self.entropies: list[Tensor] = []
        self.given: list[Tensor] = []

    def add(self, model: Any, x: Tensor, y: Tensor) -> None:
        """Takes a batch: rows x [B, D] and their classes y, one-hot [B, K], which a bound has no use for."""
        f, draws = model.factorisation, 1
        if model.has_classes and f.before_y:
            draws = min(VALIDATION_DRAWS, model.prediction_draws)
        noise = model.noise(self.streams, x=f.noise_shapes(len(x), draws))["x"]
        if not model.has_classes:
            self.bounds.append(model.per_seed(lambda one: model.bound(x, one), noise))
            return
        q = Categorical(model.per_seed(lambda one: model.log_q_y(x, one), noise))
        self.slots.append(q.log_probs.argmax(-1))
        self.entropies.append(-q.expected_log_prob(q))
        self.given.append(y)

    def scores(self) -> dict[str, Tensor]:
        """By name, [S]: the mean bound; or the error and how y is used.

        entropy_y is the mean entropy of q(y | x), entropy_slots that of the shares of rows whose most probable value
        each is, both in nats; slots_used is how many values take `LEAST_SHARE` of the rows at least. A lost seed's are
        nan.
        """
        if self.bounds:
            return dict(zip(OF_BOUNDS, [torch.cat(self.bounds, -1).mean(-1)], strict=True))
        slots, y = torch.cat(self.slots, -1), torch.cat(self.given)
        error = cluster_error(slots, y) if self.attributes_slots else (slots != y.argmax(-1)).float().mean(-1)
        entropy_y = torch.cat(self.entropies, -1).mean(-1)
        num_rows, num_slots = y.shape
        counts = slots.new_zeros(len(slots), num_slots).scatter_add_(1, slots, torch.ones_like(slots))
        entropy_slots = torch.special.entr(counts / num_rows).sum(-1)
        used = (counts >= math.ceil(LEAST_SHARE * num_rows)).sum(-1).float()
        # Where nothing is finite every row has the same arg max, which is neither an error nor a collapse.
        lost = entropy_y.isnan()
        error, entropy_slots, used = (value.masked_fill(lost, math.nan) for value in (error, entropy_slots, used))
        return dict(zip(OF_CLASSES, (error, entropy_y, entropy_slots, used), strict=True))

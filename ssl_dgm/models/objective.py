"""What a model maximises: its bounds, the classification term, and auxiliary terms that attach to any of them.

Shape legend: M draws, K classes, B_l and B_u labelled and unlabelled rows. All of it is of one seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_dgm.config import ObjectiveConfig
from ssl_dgm.data.datamodule import Batch
from ssl_dgm.models import algorithms
from ssl_dgm.probability import auxiliary, bounds
from ssl_dgm.probability.bounds import Trace
from ssl_dgm.probability.distributions import Categorical
from ssl_dgm.probability.factors import Factorisation

Noise = dict[str, Tensor]
Groups = dict[str, dict[str, tuple[int, ...]]]


class Shares(NamedTuple):
    """What a mean over this process's rows counts in the mean over all rows of the batch; 1 where nothing is shared."""

    labelled: float = 1.0
    unlabelled: float = 1.0


EVERY_ROW = Shares()


@dataclass(frozen=True)
class Objective:
    """The loss of one update.

    Args:
        settings: its weights.
        labelled_weight: r, of the mean labelled bound.
        has_labels: whether there are labelled rows.
        joint: whether labelled and unlabelled rows must go through the networks together (BatchNorm).
        smaller: whether terms that are left out may change the shapes of tensors, as in a loop over seeds.
    """

    settings: ObjectiveConfig
    labelled_weight: float
    has_labels: bool
    joint: bool = False
    smaller: bool = False

    @property
    def updates(self) -> int:
        """Of the weights, by one batch."""
        return self.settings.updates_per_draw if self.settings.algorithm == "monte_carlo_em" else 1

    def noise_shapes(self, f: Factorisation, num_labelled: int, num_unlabelled: int) -> Groups:
        """Shapes of the noise that `losses` takes: by group of rows, of the latents and of q's dropout."""
        draws = self.settings.draws
        if self.settings.algorithm == "wake_sleep":
            own = f.noise_shapes(num_unlabelled, draws)
            return {"unlabelled": own, "dreams": own | {f.observed: (draws, 1, num_unlabelled, f.p[f.observed].dim)}}
        if self.settings.algorithm == "monte_carlo_em":
            decisions = {name: (1, 1, num_unlabelled, 1) for name in f.latents}
            return {"unlabelled": f.noise_shapes(num_unlabelled), "decisions": decisions}
        if f.relaxed:
            num = num_labelled + num_unlabelled
            return {"unlabelled": f.noise_shapes(num, draws, relaxed=True) | f.dropout_shapes(num)}
        terms = self._class_terms(f)
        incomplete = "y" in f.q and (self.settings.class_threshold > 0 or terms > 0)
        own = f.noise_shapes(num_unlabelled, draws, True, incomplete, class_terms=terms)
        shapes = {"unlabelled": own | f.dropout_shapes(num_unlabelled)}
        if not self.has_labels:
            return shapes
        return shapes | {"labelled": f.noise_shapes(num_labelled, draws) | f.dropout_shapes(num_labelled)}

    def losses(
        self, f: Factorisation, batch: Batch, noise: Mapping[str, Noise], passed: Tensor, shares: Shares = EVERY_ROW
    ) -> dict[str, Tensor]:
        """Scalars: 'loss' and all that it is made of, by name.

        With y, loss = -(mean U(x) + r mean L(x, y) + R mean log q(y | x)): Kingma et al. 2014, eq. 9, per unlabelled
        row. Without y, the negative mean bound (AEVB, eq. 3). With a relaxed y, the negative mean of its bound over all
        rows, into which no label enters. From each, the auxiliary terms are taken off. Other algorithms than 'bound'
        have losses of their own (see `algorithms`); of 'monte_carlo_em' the noise is the latents themselves.
        Weights that rise do so with `passed`, the epochs so far, a scalar.
        """
        if self.settings.algorithm == "wake_sleep":
            return algorithms.wake_sleep(f, batch.x_unlabelled, noise["unlabelled"], noise["dreams"])
        if self.settings.algorithm == "monte_carlo_em":
            return algorithms.monte_carlo_em(f, batch.x_unlabelled, noise["unlabelled"])
        if "y" not in f.q:
            t = self._weighted(bounds.trace(f, batch.x_unlabelled, None, noise["unlabelled"], self._analytic(f)), f,
                               passed)  # fmt: skip
            bound = bounds.labelled(t).mean() * shares.unlabelled
            return {"loss": -bound, "bound": bound, **_named(t, "", shares.unlabelled)}
        if f.relaxed:
            return self._relaxed(f, batch, noise["unlabelled"], passed)
        return self._semi_supervised(f, batch, noise, passed, shares)

    def _semi_supervised(
        self, f: Factorisation, batch: Batch, noise: Mapping[str, Noise], passed: Tensor, shares: Shares
    ) -> dict[str, Tensor]:
        t_l, t_u = self._traces(f, batch, noise)
        t_u = self._weighted(t_u, f, passed)
        unlabelled = bounds.unlabelled(t_u).mean() * shares.unlabelled
        in_use = bounds.slots_in_use(t_u) * shares.unlabelled
        logs = _named(t_u, "unlabelled_", bounds.class_weights(t_u) * shares.unlabelled) | {"slots_in_use": in_use}
        if t_l is None:
            return {"loss": -unlabelled, "bound_unlabelled": unlabelled, **logs}
        t_l = self._weighted(t_l, f, passed)
        labelled = bounds.labelled(t_l).mean() * shares.labelled
        classification = bounds.classification(t_l).mean() * shares.labelled
        total = unlabelled + self.labelled_weight * labelled + self.settings.classification * classification
        summary = {"bound_unlabelled": unlabelled, "bound_labelled": labelled, "classification": classification}
        assert t_l.q_y is not None and t_u.q_y is not None
        attached, terms = self._auxiliary(t_l.q_y, t_u.q_y, batch.y_labelled, passed)
        return {"loss": -(total + attached), **summary, **terms, **logs, **_named(t_l, "labelled_", shares.labelled)}

    def _traces(self, f: Factorisation, batch: Batch, noise: Mapping[str, Noise]) -> tuple[Trace | None, Trace]:
        x, analytic, threshold = batch.x_unlabelled, self._analytic(f), self.settings.class_threshold
        terms = self._class_terms(f)
        if self.has_labels and (self.joint or (threshold and self.smaller)):
            pair = noise["labelled"], noise["unlabelled"]
            sizes = "smaller" if self.smaller and threshold else "same"
            return bounds.traces(f, (batch.x_labelled, x), batch.y_labelled, pair, analytic, threshold, sizes, terms)
        t_u = bounds.trace(f, x, bounds.classes(f, x), noise["unlabelled"], analytic, threshold, class_terms=terms)
        if not self.has_labels:
            return None, t_u
        return bounds.trace(f, batch.x_labelled, batch.y_labelled, noise["labelled"], analytic), t_u

    def _relaxed(self, f: Factorisation, batch: Batch, noise: Noise, passed: Tensor) -> dict[str, Tensor]:
        x = torch.cat([batch.x_labelled, batch.x_unlabelled])
        t = self._weighted(bounds.trace(f, x, None, noise, [*self._analytic(f), "y"]), f, passed)
        bound, q_y, num = bounds.relaxed(t).mean(), t.q_y, len(batch.x_labelled)
        assert q_y is not None
        logs = {"slots_in_use": bounds.slots_in_use(t), **_named(t, "", 1.0)}
        if not self.has_labels:
            return {"loss": -bound, "bound": bound, **logs}
        q_l, q_u = bounds.rows_of(q_y, slice(num)), bounds.rows_of(q_y, slice(num, None))
        total, summary = bound, {"bound": bound}
        if self.settings.classification:
            summary["classification"] = (q_l.log_probs * batch.y_labelled).sum(-1).mean()
            total = total + self.settings.classification * summary["classification"]
        attached, terms = self._auxiliary(q_l, q_u, batch.y_labelled, passed)
        return {"loss": -(total + attached), **summary, **terms, **logs}

    def _auxiliary(
        self, q_l: Categorical, q_u: Categorical, y: Tensor, passed: Tensor
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """w_A (assignment) - w_M (lifted structured loss), and both by name; nothing where both weights are 0.

        Figueroa and Rivera, sections 4.1 and 4.2: unlabelled rows take the classes of their nearest labelled rows, and
        may count less at first than labelled ones.
        """
        o = self.settings
        if not (o.assignment or o.metric):
            return 0.0, {}
        h_l, h_u = (_of_a_row(q.features) for q in (q_l, q_u) if q.features is not None)
        classes = torch.cat([y, auxiliary.nearest_classes(h_l, y, h_u, o.neighbours)])
        log_q_y = torch.cat([_of_a_row(q_l.log_probs), _of_a_row(q_u.log_probs)])
        counts = None
        if o.assignment_epochs:
            counts = torch.cat([passed.new_ones(len(h_l)), _rising(o.assignment_epochs, passed).expand(len(h_u))])
        terms = {"assignment": auxiliary.assignment(log_q_y, classes, counts)}
        attached = o.assignment * terms["assignment"]
        if o.metric:
            terms["metric_loss"] = auxiliary.lifted_structured(torch.cat([h_l, h_u]), classes, o.margin, counts)
            attached = attached - o.metric * terms["metric_loss"]
        return attached, terms

    def _class_terms(self, f: Factorisation) -> int:
        """Terms of the sum over y that are computed, 0 where all are."""
        return 0 if self.settings.class_terms >= f.num_classes else self.settings.class_terms

    def _analytic(self, f: Factorisation) -> tuple[str, ...]:
        return f.analytic if self.settings.kl == "analytic" else ()

    def _weighted(self, t: Trace, f: Factorisation, passed: Tensor) -> Trace:
        """The trace with the weights that its latents' terms have in the objective."""
        o, weights = self.settings, {}
        for name in f.latents:
            if name == "y":
                weights |= {"y": o.classes_weight} if f.relaxed and o.classes_weight != 1 else {}
                continue
            if o.warm_up_epochs or o.latents_weight != 1:
                weights[name] = _rising(o.warm_up_epochs, passed) * o.latents_weight
            if o.free_bits:
                costs = (bounds.divergence(t, name) > o.free_bits).to(passed.dtype)
                weights[name] = weights.get(name, 1.0) * costs
        return t.scaled(weights) if weights else t


def _rising(epochs: float, passed: Tensor) -> Tensor:
    """From 0 to 1, linearly, over so many epochs; 1 where there are none."""
    return (passed / epochs).clamp(max=1.0) if epochs else torch.ones_like(passed)


def _of_a_row(value: Tensor) -> Tensor:
    """[B, H] of [B, H] or [M, 1, B, H]: the first draw's."""
    return value if value.dim() == 2 else value[0, 0]


def _named(t: Trace, prefix: str, weights: Tensor | float) -> dict[str, Tensor]:
    """A trace's terms as they enter the bound, as 'p_x' and the like: for logs, and to name the first that is NaN.

    Args:
        weights: of draws, classes and rows in the sum over classes.
    """
    terms = {f"{prefix}{side}_{name}": term for side in "pq" for name, term in getattr(t, side).items()}
    expected = (torch.stack([term.detach() for term in terms.values()]) * weights).sum(2)
    return dict(zip(terms, expected.flatten(1).mean(1).unbind()))

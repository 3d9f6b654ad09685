"""The LightningModule that every model is: the loss, the optimiser and the scores, for S seeds at once.

Shape legend: S seeds, M draws, K classes, B rows, D dimensions. Methods say whether they see one seed or all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.func import functional_call
from torch.optim.lr_scheduler import LRScheduler

from ssl_dgm.config import Stage
from ssl_dgm.data.datamodule import Batch, Part, SeededDataModule
from ssl_dgm.models import optimizers
from ssl_dgm.models.algorithms import Chains
from ssl_dgm.models.captured import Captured, make_capturable
from ssl_dgm.models.compiled import Compiled
from ssl_dgm.models.objective import Noise, Objective, Shares
from ssl_dgm.models.validation import OF_BOUNDS, OF_CLASSES, Validation
from ssl_dgm.probability import bounds, replicas
from ssl_dgm.probability.convolutions import Image, Picture, Trunk
from ssl_dgm.probability.factors import Factorisation, RelaxedCategoricalFactor
from ssl_dgm.probability.networks import Architecture
from ssl_dgm.probability.norms import BatchNorm
from ssl_dgm.probability.notation import Factors
from ssl_dgm.probability.randomness import Streams


class DeepGenerativeModel(pl.LightningModule):
    """A factorisation and what it takes to train S independent replicas of it.

    Args:
        stage: the settings of this optimisation.
        x_dim: D of the observed variable.
        num_classes: K, slots that belong to no class included.
        seeds: the S seeds, each of which initialises, and draws noise for, its own replica.
        num_labelled: N_l; 0 for a model without labels.
        num_unlabelled: N_u.
        trials: binary draws behind a pixel (1: binary or grey pixels).
        replicas_mode: 'vmap', 'loop' or 'auto' (see `replicas.over_seeds`).
        prediction_draws: of what q draws before y, for predicted classes.
        prior: p(y); None: uniform.
        condition: bool [D], the part of x on which a conditional model is conditioned.
        image: shape of x for convolutions; None where there are none.
    """

    def __init__(
        self,
        stage: Stage,
        x_dim: int,
        num_classes: int,
        seeds: Sequence[int],
        num_labelled: int,
        num_unlabelled: int,
        trials: int = 1,
        replicas_mode: str = "auto",
        prediction_draws: int = 100,
        prior: Sequence[float] | None = None,
        condition: Tensor | None = None,
        image: Image | None = None,
    ) -> None:
        super().__init__()
        self.prediction_draws, self.prior, self.condition, self.image = prediction_draws, prior, condition, image
        self.stage, self.seeds, self.replicas_mode = stage, tuple(seeds), replicas_mode
        self.x_dim, self.num_classes, self.trials = x_dim, num_classes, trials
        self.num_labelled, self.num_unlabelled = num_labelled, num_unlabelled
        self.factorisation = replicas.stack(self.build, self.seeds)
        self.statistics = tuple(replicas.buffers(self))  # names of running statistics, which no gradient moves
        self.analytic: tuple[str, ...] = self.factorisation.analytic if stage.objective.kl == "analytic" else ()
        self.joint = any(isinstance(module, BatchNorm) for module in self.factorisation.modules())
        self.noise_streams = Streams(self.seeds, "noise")
        self.parts: dict[str, Part] = {}  # of a batch that several processes share
        self.all_losses: Callable[..., dict[str, Tensor]] = partial(self.per_seed, self.losses)  # each [S]
        self.captures = False
        self.captured: Captured | None = None
        self.automatic_optimization = self.objective.updates == 1
        self.chains: Chains | None = None  # of Monte-Carlo EM
        self.terms: dict[str, Tensor] = {}  # of the last update, [S]
        self.free_slots = False  # whether values of y are attributed to classes by the validation rows
        self.validation: dict[str, Tensor] = {}  # the last scores of the validation rows by name, [S]

    def dims(self) -> dict[str, int]:
        """Size of every variable by name."""
        m = self.stage.model
        return {"x": self.x_dim, "y": self.num_classes, "z": m.z_dim, "a": m.a_dim, "h": m.h_dim}

    @property
    def log_var_parents(self) -> str:
        """Parents of the log-variance of q(z | x, y): all, or what is observed alone."""
        return "all" if self.stage.model.q_log_var == "all" else next(iter(self.dims()))

    def factors(self, f: Factors) -> Factorisation:
        """The model's two lists."""
        raise NotImplementedError

    def build(self) -> Factorisation:
        """One replica's factorisation with freshly initialised networks."""
        n, m = self.stage.network, self.stage.model
        images = {} if self.image is None else {"x": self.image}
        dropped = n.dropout, n.dropout if n.dropout_y is None else n.dropout_y
        sizes = tuple(n.hidden)
        architecture = Architecture(sizes, n.activation, n.init, n.init_sd, n.name, images, m.h_dim, n.norm, *dropped)
        return self.factors(
            Factors(self.dims(), architecture, m.likelihood, self.trials, m.mse_scale, prior=self.prior)
        )

    def __str__(self) -> str:
        return str(self.factorisation)

    @property
    def has_classes(self) -> bool:
        """Whether the model infers y."""
        return "y" in self.factorisation.q

    @property
    def widest(self) -> int:
        """Numbers per row of the widest layer."""
        likelihood = self.factorisation.p[self.factorisation.observed]
        convolutional = (module.widest for module in self.modules() if isinstance(module, Picture | Trunk))
        return max(self.x_dim * likelihood.parameters_per_value, *self.stage.network.hidden, *convolutional)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of what validation measures (see `Validation.scores`)."""
        return OF_CLASSES if self.has_classes else OF_BOUNDS

    @property
    def score(self) -> str:
        """The first of them, which tells the best epoch: the error, or the bound of a model without classes."""
        return self.scores[0]

    # All seeds from one

    @property
    def replicas(self) -> str:
        """How S seeds are run: 'vmap' or 'loop'."""
        if self.replicas_mode == "auto":
            return "loop" if self.device.type == "cpu" else "vmap"
        return self.replicas_mode

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        """Any method of one seed, run while that seed's parameters are in place (see `per_seed`)."""
        return function(*args)

    def per_seed(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function` of one seed for all S: tensors among the arguments and results have S in front."""
        return self._over_seeds(partial(self._one_seed, function), *args)

    def _one_seed(self, function: Callable[..., Any], parameters: dict[str, Tensor], *args: Any) -> Any:
        return functional_call(self, parameters, (function, *args), tie_weights=False)  # there are none to look for

    def _over_seeds(self, one: Callable[..., Any], *args: Any) -> Any:
        parameters: dict[str, Tensor] = dict(self.named_parameters())
        kind = self.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Autocast would shorten a seed's slice anew in every layer that reads it: it remembers only parameters.
            dtype = torch.get_autocast_dtype(kind)
            parameters = {name: parameter.to(dtype) for name, parameter in parameters.items()}
        parameters |= {name: self.get_buffer(name) for name in self.statistics}
        return replicas.over_seeds(one, parameters, *args, mode=self.replicas)

    def noise(self, streams: Streams, **shapes: Mapping[str, Sequence[int]]) -> dict[str, Noise]:
        """Standard-normal draws [S, *shape] by group and name (see `Objective.noise_shapes`), from one draw a seed."""
        sizes = [math.prod(shape) for group in shapes.values() for shape in group.values()]
        pieces = iter(streams.normal((sum(sizes),)).split(sizes, dim=1))
        return {
            group: {name: next(pieces).unflatten(1, tuple(shape)) for name, shape in named.items()}
            for group, named in shapes.items()
        }

    # Training

    @property
    def objective(self) -> Objective:
        """What is maximised."""
        r = self.stage.objective.labelled
        r = self.num_labelled / self.num_unlabelled if r is None else r
        return Objective(self.stage.objective, r, self.num_labelled > 0, self.joint, smaller=self.replicas == "loop")

    def losses(self, batch: Batch, noise: Mapping[str, Noise], passed: Tensor) -> dict[str, Tensor]:
        """Scalars of one seed: 'loss' and all that it is made of, by name (see `Objective.losses`)."""
        shares = Shares(**{group: part.share for group, part in self.parts.items()})
        return self.objective.losses(self.factorisation, batch, noise, passed, shares)

    @property
    def passed(self) -> float:
        """Epochs that the updates so far make."""
        return self.global_step / float(self.trainer.num_training_batches)

    @property
    def temperature(self) -> float:
        """Of a relaxed y in this epoch: exponentially from the first to the final one."""
        o = self.stage.objective
        if not o.temperature_epochs:
            return o.final_temperature
        passed = min(1.0, self.current_epoch / o.temperature_epochs)
        return o.temperature * (o.final_temperature / o.temperature) ** passed

    def on_train_epoch_start(self) -> None:
        if self.noise_streams.device != self.device:
            self.noise_streams = Streams(self.seeds, "noise", self.device)
        self.noise_streams.begin(self.current_epoch)
        if self.stage.objective.algorithm == "monte_carlo_em":
            self.chains = (self.chains or Chains.begun(self)).to(self.device)
        if self.factorisation.relaxed:
            # In place: a captured update reads it where it is.
            cast(RelaxedCategoricalFactor, self.factorisation.q["y"]).temperature.fill_(self.temperature)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        num_labelled, num_unlabelled = batch.x_labelled.shape[1], batch.x_unlabelled.shape[1]
        if self.parts:
            num_labelled, num_unlabelled = self.parts["labelled"].total, self.parts["unlabelled"].total
        shapes = self.objective.noise_shapes(self.factorisation, num_labelled, num_unlabelled)
        noise = self.noise(self.noise_streams, **shapes)
        for group, part in self.parts.items():
            noise[group] = {name: drawn[..., part.rows, :] for name, drawn in noise.get(group, {}).items()}
        if self.chains is not None:
            rows = cast(SeededDataModule, self.trainer.datamodule).dealt.unlabelled[batch_idx]  # type: ignore[attr-defined]
            noise["unlabelled"] = {"z": self.chains.move(self, batch.x_unlabelled, rows, noise)}
        passed = torch.full((len(self.seeds),), self.passed, device=self.device)
        if not self.automatic_optimization:
            self._step_by_hand(batch, noise, passed)
            return None
        losses = self.all_losses(batch, noise, passed)
        self.terms = {name: value.detach() for name, value in losses.items()}
        return losses["loss"].sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        o = self.stage.optimizer
        if o.clip_prior:
            for p in self.parameters():
                if p.grad is not None:
                    p.grad.add_(p.detach(), alpha=self.decay)
        if o.clip_norm is not None:
            replicas.clip_per_seed(list(self.parameters()), o.clip_norm)
        if o.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters(), o.clip_value)

    @property
    def decay(self) -> float:
        """What the prior on the weights adds of them to the gradient of the loss of one row."""
        return optimizers.decay(self.stage.objective.weight_prior_sd, self.num_labelled + self.num_unlabelled)

    def compile_losses(self, say: Callable[[str], None]) -> None:
        """From now on runs the losses compiled; in a loop over seeds, those of one seed."""
        if self.replicas == "vmap":
            self.all_losses = Compiled(self.all_losses, say)
        else:
            one = Compiled(partial(self._one_seed, self.losses), say)
            self.all_losses = partial(self._over_seeds, one)

    # The same step where it is of several updates, or to be captured as a CUDA graph: Lightning's own can't be.

    def capture_updates(self) -> None:
        """From now on runs an update as one CUDA graph, where there is a GPU; before the Trainer is made."""
        self.automatic_optimization, self.captures = False, True

    def _step_by_hand(self, batch: Batch, noise: dict[str, Noise], passed: Tensor) -> None:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        update: Callable[..., dict[str, Tensor]] = partial(self._update, optimizer.optimizer)
        if self.captures:
            if self.captured is None:
                make_capturable(optimizer.optimizer, self.device)
                self.captured = Captured(update)
            update = self.captured
        optimizer._on_before_step()  # counts the step
        for _ in range(self.objective.updates):
            self.terms = update(batch, noise, passed)
        optimizer._on_after_step()
        if isinstance(schedule, LRScheduler):
            schedule.step()  # type: ignore[call-arg]

    def _update(
        self, optimizer: torch.optim.Optimizer, batch: Batch, noise: dict[str, Noise], passed: Tensor
    ) -> dict[str, Tensor]:
        optimizer.zero_grad()
        losses = self.all_losses(batch, noise, passed)
        with torch.autocast(self.device.type, enabled=False):
            losses["loss"].sum().backward()
        self.on_before_optimizer_step(optimizer)
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def configure_optimizers(self) -> Any:
        o = self.stage.optimizer
        optimizer = optimizers.create(self.parameters(), o, 0.0 if o.clip_prior else self.decay)
        if o.schedule == "constant":
            return optimizer
        total, epochs = float(self.trainer.estimated_stepping_batches), self.trainer.max_epochs or 1
        schedule = optimizers.scheduled(optimizer, o, total, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Scores of one seed

    def log_q_y(self, x: Tensor, noise: Noise) -> Tensor:
        """log q(y | x), [B, K]."""
        return bounds.class_log_probs(self.factorisation, x, noise)

    def trace(self, x: Tensor, noise: Noise, analytic: Sequence[str] = ()) -> bounds.Trace:
        """The trace of x [B, D] with y, if there is one, enumerated."""
        y = bounds.classes(self.factorisation, x) if self.has_classes else None
        return bounds.trace(self.factorisation, x, y, noise, analytic)

    def bound(self, x: Tensor, noise: Noise) -> Tensor:
        """The bound on log p(x), [B]."""
        t = self.trace(x, noise, self.analytic)
        return bounds.unlabelled(t) if self.has_classes else bounds.labelled(t)

    def importance_weighted(self, x: Tensor, noise: Noise) -> Tensor:
        """log p(x) by importance sampling, y summed out, [B]."""
        return bounds.importance_weighted(self.trace(x, noise))

    def class_log_joint(self, x: Tensor, noise: Noise) -> Tensor:
        """log p(x, y) of every class by importance sampling, [B, K]."""
        return bounds.class_log_joint(self.trace(x, noise)).T

    # Validation, all seeds

    def on_validation_epoch_start(self) -> None:
        self.validating = Validation(self)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validating.add(self, *batch)

    def on_validation_epoch_end(self) -> None:
        self.validation = self.validating.scores()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["chains"] = vars(self.chains) if self.chains else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.chains = Chains(**chains) if (chains := checkpoint.get("chains")) else None
        # What `make_capturable` made of it is not for every device on which the run may be continued.
        for state in checkpoint.get("optimizer_states", ()):
            for group in state["param_groups"]:
                group["lr"] = float(group["lr"])
                group |= {"capturable": False} if "capturable" in group else {}

"""What settings may not be, by themselves and together: refused before anything expensive starts, without torch."""

import dataclasses
import math
from pathlib import Path

from ssl_dgm import data_rules
from ssl_dgm.checks import example, nearest, seconds
from ssl_dgm.config import (
    CLASSIFIERS,
    INDUCTIVE,
    TRANSDUCTIVE,
    WITHOUT_CLASSES,
    Config,
    Stage,
    UserError,
    ends_in_estimator,
    first_stage,
    flatten,
    is_estimator,
    stages,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "classifier": ("none", *CLASSIFIERS),
    "baseline": (*INDUCTIVE, *TRANSDUCTIVE),
    "estimator.kernel": ("rbf", "linear"),
    "estimator.scaling": ("imagenet", "paper"),
    "features": ("mean", "sample"),
    "classify": ("discriminative", "generative"),
    "condition": ("center",),
    "likelihood_estimator": ("q", "hmc"),
    "selection": ("last", "best_validation"),
    "data.pixels": ("sampled", "grey"),
    "budget.precision": ("32", "bf16", "tf32"),
    "trainer.compile": ("auto", "always", "never"),
    "trainer.replicas": ("auto", "vmap", "loop"),
    "trainer.figures": ("none", "few", "quick", "all"),
    "logger.name": ("csv", "wandb", "tensorboard"),
    "logger.mode": ("auto", "online", "offline"),
    "data.pool": ("train", "train+validation"),
    "data.order": ("shuffled", "by_class"),
    "model.likelihood": ("auto", "gaussian", "categorical", "mse"),
    "model.q_z": ("xy", "x"),
    "model.q_log_var": ("all", "x"),
    "network.name": ("mlp", "conv", "figueroa"),
    "network.activation": ("softplus", "relu", "tanh", "leaky_relu"),
    "network.init": ("torch", "fan_in", "normal", "glorot", "xavier", "willetts", "maaloe"),
    "network.norm": ("none", "batch", "group"),
    "objective.algorithm": ("bound", "wake_sleep", "monte_carlo_em"),
    "objective.kl": ("monte_carlo", "analytic"),
    "optimizer.name": ("adam", "adam_uncorrected", "adagrad"),
    "optimizer.schedule": ("constant", "cosine", "step"),
}
POSITIVE = (
    "generative_samples", "prediction_draws", "seeds_at_once", "model.z_dim", "model.a_dim", "model.h_dim",
    "model.mse_scale", "network.init_sd", "objective.draws", "optimizer.lr", "optimizer.eps", "budget.epochs",
    "budget.updates_per_epoch", "budget.unlabelled_per_step", "trainer.validate_every", "trainer.checkpoint_every",
    "trainer.devices", "objective.weight_prior_sd", "objective.neighbours", "objective.temperature",
    "objective.final_temperature", "optimizer.clip_norm", "optimizer.clip_value", "optimizer.step_epochs",
    "optimizer.step_factor", "estimator.neighbours", "estimator.restarts", "estimator.components", "estimator.updates",
    "estimator.epochs", "data.pca", "data.side", "data.validation", "budget.passes", "data.train_rows",
    "objective.leapfrogs", "objective.updates_per_draw", "likelihood_rows",
)  # fmt: skip

NOT_NEGATIVE = (
    "objective.classification", "objective.labelled", "objective.warm_up_epochs", "objective.free_bits",
    "objective.latents_weight", "objective.classes_weight", "objective.assignment", "objective.metric",
    "objective.assignment_epochs", "objective.temperature_epochs", "optimizer.final_lr", "data.min_pixel_sd",
    "objective.class_terms", "estimator.contraction", "m1_seed",
)  # fmt: skip


def check(config: Config) -> None:
    """Refuses what no data set or device could make valid.

    Raises:
        UserError: one sentence with the value and the remedy.
    """
    seeds = list(config.seeds)
    if not seeds:
        raise UserError("seeds=[] names no seed; use seeds=[0] or more")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={seeds} repeats a seed; name each once")
    if min(seeds) < 0:
        raise UserError(f"seeds={seeds} has a negative seed; use 0, 1, 2, ...")
    values = dict(flatten(dataclasses.asdict(config)))
    for key, value in values.items():
        stem = key.removeprefix("m1.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value} is not a finite number; use for example {example(key)}")
        if stem in CHOICES and value is not None and value not in CHOICES[stem]:
            raise UserError(f"{key}={value} is unknown; {nearest(str(value), list(CHOICES[stem]))}")
        if stem in POSITIVE and value is not None and value <= 0:
            raise UserError(f"{key}={value} is not positive; use for example {example(key)}")
        if stem in NOT_NEGATIVE and value is not None and value < 0:
            raise UserError(f"{key}={value} is negative; use for example {example(key)}")
    for prefix, stage in stages(config):
        hidden, per_step = list(stage.network.hidden), stage.budget.labelled_per_step
        if not hidden or min(hidden) <= 0:
            raise UserError(f"{prefix}network.hidden={hidden} is no list of layer sizes; use for example [500]")
        if not 0 <= stage.objective.class_threshold <= 1:
            threshold = f"{prefix}objective.class_threshold={stage.objective.class_threshold}"
            raise UserError(f"{threshold} is no probability; use for example 0.1, or 0 for exact sums over classes")
        for name in ("dropout", "dropout_y"):
            if (share := getattr(stage.network, name)) is not None and not 0 <= share < 1:
                raise UserError(f"{prefix}network.{name}={share} is no share of units; use 0, or for example 0.5")
        if stage.network.dropout_y is not None and (prefix or config.model.name in ("m1", *WITHOUT_CLASSES)):
            which = f"{prefix}network.dropout_y={stage.network.dropout_y}"
            raise UserError(
                f"{which} is of q(y | x), which {'M1' if prefix else config.model.name} has not; leave it out"
            )
        _check_class_terms(stage, prefix)
        o = stage.optimizer
        if o.schedule != "constant" and o.final_lr > o.lr:
            raise UserError(
                f"{prefix}optimizer.final_lr={o.final_lr} is above {prefix}optimizer.lr={o.lr}, where the rate "
                "begins; use a smaller one"
            )
        if per_step not in ("share", "all") and (isinstance(per_step, str) or per_step < 1):
            raise UserError(f"{prefix}budget.labelled_per_step={per_step} is unknown; use share, all or a number")
    if isinstance(config.labels, str) and config.labels != "all":
        raise UserError(f"labels={config.labels} is neither a number nor all; use for example labels=100")
    if not isinstance(config.labels, str) and config.labels < 0:
        raise UserError(f"labels={config.labels} is not positive; use for example labels=100, or 0 for clusters")
    _check_classes(config)
    if (config.condition is None) == (config.model.name == "cvae"):
        raise UserError(
            f"condition={config.condition} is not for model={config.model.name}; use model=cvae condition=center, that "
            "draws images around their centre, or leave it out"
        )
    _check_auxiliary(config)
    _check_q(config)
    _check_estimator(config)
    data_rules.check(config)
    _check_algorithm(config)
    _check_likelihood(config)
    _check_memmap(config)
    _check_selection(config)
    if config.time_limit is not None:
        seconds(config.time_limit)
    if config.csv is not None and Path(config.csv).is_dir():
        raise UserError(f"csv={config.csv} is a folder; name a file in it, for example csv={config.csv}/rows.csv")


def _check_selection(config: Config) -> None:
    """Refuses a best epoch where classes are not told by q(y | x), and where not every epoch could be it."""
    if config.selection != "best_validation" or ends_in_estimator(config):
        return
    if config.classify == "generative":
        raise UserError(
            "selection=best_validation takes the epoch at which q(y | x) errs least, and classify=generative does not "
            "classify by it; use selection=last"
        )
    if (every := config.trainer.validate_every) > 1:
        raise UserError(
            f"selection=best_validation takes the best of all epochs, and trainer.validate_every={every} looks at some "
            "of them; add trainer.validate_every=1"
        )


def _check_classes(config: Config) -> None:
    """Refuses classes that contradict each other or the number of labels; what the data have is checked with them."""
    labelled, hidden, extra = config.classes.labelled, config.classes.hidden, config.classes.extra
    for name, classes in (("labelled", labelled), ("hidden", hidden)):
        if classes is not None and (len(set(classes)) < len(classes) or min(classes, default=0) < 0):
            raise UserError(f"classes.{name}={list(classes)} is no list of classes; use for example [0,1,2], each once")
    if both := sorted({*(labelled or ())} & {*(hidden or ())}):
        raise UserError(f"class {both[0]} is in classes.labelled and in classes.hidden; leave it out of one")
    if extra < 0:
        raise UserError(f"classes.extra={extra} is negative; use 0 or a number of slots")
    if config.labels and labelled is not None and not labelled:
        raise UserError(f"classes.labelled=[] labels no class and labels={config.labels}; use labels=0 for clusters")
    if config.labels == 0 and (labelled or hidden):
        name = "labelled" if labelled else "hidden"
        told = f"classes.{name}={list(labelled or hidden or ())}"
        raise UserError(f"labels=0 labels no class, whatever {told} says; use classes.{name}=null")
    if config.labels == 0 and ends_in_estimator(config):
        on_pixels = is_estimator(config)
        what = f"model={config.model.name}" + ("" if on_pixels else f" classifier={config.classifier}")
        raise UserError(f"labels=0 leaves {what} nothing to learn from; use for example labels=100, or model=m2")


def _check_class_terms(stage: Stage, prefix: str) -> None:
    """Refuses sums over some classes that would be biased, and those that are left out twice."""
    terms, threshold = stage.objective.class_terms, stage.objective.class_threshold
    given = f"{prefix}objective.class_terms={terms}"
    if terms == 1:
        raise UserError(f"{given} would leave the sum without all classes but the likeliest; use 2, or 0 for all")
    if terms and threshold:
        raise UserError(f"{given} and objective.class_threshold={threshold} both leave classes out; use 0 for one")


def _check_auxiliary(config: Config) -> None:
    """Refuses auxiliary terms where no label can act through them, and where their rows would be apart."""
    o, name, given = config.objective, config.model.name, _auxiliary(config)
    if name == "gmvae" and config.labels and not (o.assignment or o.classification):
        raise UserError(
            f"labels={config.labels} tells gmvae nothing with objective.assignment=0 and objective.classification=0; "
            "use objective.assignment=1, or labels=0 for clusters"
        )
    for setting in ("assignment", "metric", "assignment_epochs"):
        if config.m1 is not None and (value := getattr(config.m1.objective, setting)):
            raise UserError(f"m1.objective.{setting}={value} needs classes, and M1 has none; use 0")
    if not (o.assignment or o.metric):
        if o.assignment_epochs:
            rising = f"objective.assignment_epochs={o.assignment_epochs}"
            raise UserError(f"{rising} is of the auxiliary terms, which {given} leaves out; use 0")
        return
    if name == "m1" or is_estimator(config) or name in WITHOUT_CLASSES:
        raise UserError(f"{given} needs a model with classes, and {name} has none; use 0 for both")
    if config.labels == 0:
        raise UserError(f"{given} takes classes from labelled rows, and labels=0; use 0 for both, or labels=100")


def _check_q(config: Config) -> None:
    """Refuses settings of q that the model has no use for."""
    m, name, threshold = config.model, config.model.name, config.objective.class_threshold
    if m.q_z != "xy" and name != "m2":
        raise UserError(f"model.q_z={m.q_z} is of model=m2, and {name} has no use for it; leave it out")
    if m.q_log_var != "all" and (name not in ("m2", "m1m2") or m.q_z == "x"):
        what = f"{name} with model.q_z=x" if m.q_z == "x" else name
        raise UserError(f"model.q_log_var={m.q_log_var} is of m2 and m1m2, and {what} has no use for it; leave it out")
    for setting, value in (("class_threshold", threshold), ("class_terms", config.objective.class_terms)):
        if name == "gmvae" and value:
            raise UserError(f"objective.{setting}={value} leaves out classes of a sum, and gmvae has none; use 0")
    if name == "gmvae" and (r := config.objective.labelled) is not None:
        raise UserError(f"objective.labelled={r} weighs the bound of labelled rows, and gmvae has none; leave it out")


def _check_estimator(config: Config) -> None:
    """Refuses what is of a classifier on an M1 where there is none, the reverse, and too many neighbours."""
    name, classifier, default = config.model.name, config.classifier, Config()
    if name != "m1" and classifier not in ("none", default.classifier):
        raise UserError(f"classifier={classifier} is fitted on the features of model=m1, not of {name}; leave it out")
    if name == "m1" and ends_in_estimator(config):
        for setting in ("selection", "likelihood_samples"):
            if (value := getattr(config, setting)) != getattr(default, setting):
                alone = f"of an M1 by itself, and classifier={classifier} is what is scored here"
                raise UserError(f"{setting}={value} is {alone}; use classifier=none")
    if config.features != "mean" and not (name == "m1" and ends_in_estimator(config)):
        what = f"model={name}" + (" classifier=none" if name == "m1" else "")
        raise UserError(f"features={config.features} is what a classifier on an M1 sees; leave it out of {what}")
    nearest_rows = ends_in_estimator(config) and "knn" in (name, config.classifier if name == "m1" else "")
    neighbours, labels = config.estimator.neighbours or 1, config.labels
    if nearest_rows and isinstance(labels, int) and 0 < labels < neighbours:
        raise UserError(f"estimator.neighbours={neighbours} is more than labels={labels}; use as many at most")


def _check_algorithm(config: Config) -> None:
    """Refuses other algorithms than maximising the bound where they are not defined, and weights of the bound there."""
    o, name = config.objective, config.model.name
    if config.m1 is not None and config.m1.objective.algorithm != "bound":
        algorithm = f"m1.objective.algorithm={config.m1.objective.algorithm}"
        raise UserError(f"{algorithm} is not for the first stage of {name}; use bound, or model=m1")
    if o.algorithm == "bound":
        return
    if name != "m1":
        raise UserError(
            f"objective.algorithm={o.algorithm} is for Gaussian latents without classes, as m1 has, and {name} has "
            "others; use model=m1, or objective.algorithm=bound"
        )
    if config.data.name == "memmap":
        raise UserError(f"objective.algorithm={o.algorithm} is not for data=memmap; use objective.algorithm=bound")
    for setting, plain in (("warm_up_epochs", 0.0), ("free_bits", 0.0), ("latents_weight", 1.0)):
        if (value := getattr(o, setting)) != plain:
            raise UserError(
                f"objective.{setting}={value} weighs terms of the bound, which objective.algorithm={o.algorithm} does "
                f"not maximise; add objective.{setting}={plain:g}"
            )
    if config.network.dropout:
        raise UserError(
            f"network.dropout={config.network.dropout} is of updates of the bound, which objective.algorithm="
            f"{o.algorithm} does not maximise; use network.dropout=0"
        )
    if o.algorithm == "monte_carlo_em" and o.draws > 1:
        raise UserError(f"objective.draws={o.draws}, but monte_carlo_em has one chain a row; use objective.draws=1")


def _check_likelihood(config: Config) -> None:
    """Refuses settings of the test likelihood that nothing would read, and a chain's where there is none."""
    if config.likelihood_samples < 0:
        raise UserError(f"likelihood_samples={config.likelihood_samples} is negative; use 0 for none, or for example 9")
    for setting, value, plain in (
        ("likelihood_estimator", config.likelihood_estimator, "q"), ("likelihood_rows", config.likelihood_rows, None),
    ):  # fmt: skip
        if value != plain and not config.likelihood_samples:
            raise UserError(f"{setting}={value} has no use with likelihood_samples=0; add likelihood_samples=100")
    if config.likelihood_estimator == "hmc" and config.model.name != "m1":
        raise UserError(
            "likelihood_estimator=hmc moves chains of Gaussian latents without classes, as m1 has, and "
            f"{config.model.name} has others; use likelihood_estimator=q"
        )


def _auxiliary(config: Config) -> str:
    return f"objective.assignment={config.objective.assignment} with objective.metric={config.objective.metric}"


def _check_memmap(config: Config) -> None:
    """Refuses what only data in memory can do, and for those what only memmap has a use for."""
    if config.data.name != "memmap":
        return
    for name, value, instead in (("pool", config.data.pool, "train"), ("order", config.data.order, "shuffled")):
        if value != instead:
            needs = "rows that are in memory" if name == "pool" else "the class of every row"
            raise UserError(f"data.{name}={value} needs {needs}, and data=memmap has not; use data.{name}={instead}")
    # Without a folder it is refused where the folder is looked for.
    if config.data.folder is not None and (first := first_stage(config)) is not None:
        what = config.model.name if config.m1 else f"{config.model.name} classifier={config.classifier}"
        raise UserError(
            f"model={what} keeps q(z | x) of every row in memory, which data=memmap is too large for; use model=m2, or "
            f"model={first.model.name} classifier=none"
        )
    if config.model.name in TRANSDUCTIVE:
        raise UserError(
            f"model={config.model.name} keeps every unlabelled row in memory, which data=memmap is too large for; use "
            "model=m2, or model=svm on the labelled rows alone"
        )
    if config.trainer.devices > 1 and config.network.norm == "batch":
        raise UserError(
            f"network.norm=batch needs whole batches, but trainer.devices={config.trainer.devices} shares out those of "
            "data=memmap; use network.norm=group, or trainer.devices=1"
        )
    o = config.objective
    if config.trainer.devices > 1 and (o.assignment or o.metric or config.model.name == "gmvae"):
        what = "model=gmvae" if config.model.name == "gmvae" else _auxiliary(config)
        raise UserError(
            f"{what} sees labelled and unlabelled rows together, but trainer.devices={config.trainer.devices} shares "
            "out the batches of data=memmap; use trainer.devices=1"
        )
    if config.trainer.devices > 1 and o.free_bits:
        raise UserError(
            f"objective.free_bits={o.free_bits} compares the mean cost of a whole batch, but trainer.devices="
            f"{config.trainer.devices} shares out those of data=memmap; use 0, or trainer.devices=1"
        )
    if config.trainer.devices < 1:
        raise UserError(f"trainer.devices={config.trainer.devices} is not positive; use for example trainer.devices=1")

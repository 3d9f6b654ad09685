"""The typed schema of a run, and its key.

Defaults are frozen: a run is identified by how it departs from them (`key`), so a changed default would silently
rename every run made so far. Nothing here imports torch.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


class UserError(Exception):
    """One sentence for the person at the keyboard: the value and the remedy. Exit code 2."""


class Stopped(Exception):
    """Training ended early and cleanly; the sentence says where and why, and the same command resumes it."""

    def __init__(self, sentence: str, by_signal: bool) -> None:
        super().__init__(sentence)
        self.by_signal = by_signal


@dataclass
class ModelConfig:
    """Which model, and its sizes."""

    name: str = MISSING
    z_dim: int = 50
    a_dim: int = 100  # auxiliary variable of avae, adgm, sdgm
    h_dim: int = 100  # features of gmvae
    likelihood: str = "auto"  # of pixels: auto (Bernoulli, or Binomial), gaussian, categorical (256 levels) or mse
    mse_scale: float | None = None  # of the squared error summed over pixels; null: 1 / number of pixels
    q_z: str = "xy"  # m2: parents of z in q; x: Ojha's q(z | x)
    q_log_var: str = "all"  # parents of the log-variance of q(z | x, y): all, or x as printed in Kingma's eq. 4
    min_unit_sd: float = 0.1  # m1m2: units of M1 whose posterior means vary less are dropped


@dataclass
class NetworkConfig:
    """The networks of all factors."""

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [500])
    activation: str = "softplus"
    # torch: Linear's own; fan_in: N(0, 1/fan_in); normal: N(0, init_sd^2); xavier: Glorot's; glorot: his, heads as
    # normal; willetts: so, but Glorot's log-variances of p(z | y); maaloe: Glorot's, hidden ones sqrt(2) as large
    init: str = "torch"
    init_sd: float = 0.001
    norm: str = "none"  # batch: BatchNorm where parents are x, z1, h or a and GroupNorm elsewhere; group
    dropout: float = 0.0  # share of the hidden units of q's networks that an update leaves out
    dropout_y: float | None = None  # of those of q(y | .); null: the same


@dataclass
class ObjectiveConfig:
    """What is maximised, per unlabelled row."""

    algorithm: str = "bound"  # or, of m1 alone, wake_sleep or monte_carlo_em
    leapfrogs: int = 10  # monte_carlo_em: of one transition of a row's chain
    updates_per_draw: int = 5  # monte_carlo_em: of the weights after it
    classification: float = 0.1  # R, weight of the mean of log q(y | x)
    labelled: float | None = None  # r, weight of the mean labelled bound; null: N_l / N_u
    draws: int = 1  # M, draws of every latent per row and class
    kl: str = "monte_carlo"  # or analytic
    class_threshold: float = 0.0  # a class with a smaller q(y | x) is summed over only now and then; 0: always
    class_terms: int = 0  # of the sum over y, for every row: the likeliest and, of the others, a drawn one; 0: all
    warm_up_epochs: float = 0.0  # the latents' terms grow linearly from weight 0 to 1
    free_bits: float = 0.0  # nats that each latent variable may carry at no cost
    latents_weight: float = 1.0  # w_G of Figueroa: of the latents' terms, on top of the warm-up
    classes_weight: float = 1.0  # w_C, of KL(q(y | .) || p(y)), where y is relaxed
    assignment: float = 0.0  # w_A, of the cross-entropy with the classes of the nearest labelled rows
    neighbours: int = 5  # so many of them
    metric: float = 0.0  # w_M, of the lifted structured loss of the features
    margin: float = 1.0  # of the lifted structured loss
    assignment_epochs: float = 0.0  # rows with a class of neighbours count in both terms from 0 to 1, linearly
    temperature: float = 1.0  # of a relaxed y at the start
    final_temperature: float = 0.5
    temperature_epochs: float = 50.0  # from one to the other, exponentially
    weight_prior_sd: float | None = 1.0  # N(0, sd^2) on all parameters; null: none


@dataclass
class OptimizerConfig:
    """How it is maximised."""

    name: str = "adam"
    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: str = "constant"  # cosine: from lr down to final_lr; step: times step_factor, not below final_lr
    final_lr: float = 0.0
    step_epochs: int = 200
    step_factor: float = 0.75
    clip_norm: float | None = None  # cap of each seed's own gradient norm
    clip_value: float | None = None  # cap of each element of the gradient, after that of the norm
    clip_prior: bool = False  # whether the gradient of the prior on the weights is capped with the rest, or added to it


@dataclass
class BudgetConfig:
    """How long, and how an epoch is cut into updates."""

    name: str = "paper"
    epochs: int = 3000  # an epoch is one pass over the unlabelled pool, or several:
    passes: int = 1
    updates_per_epoch: int = 200  # at most; never more than there are labelled rows where labels are split over steps
    unlabelled_per_step: int = 1  # at least: a small pool is cut into fewer updates
    labelled_per_step: int | str = "share"  # share: N_l / updates; all; or a number
    precision: str = "32"  # or, of matrix products only, bf16 (bfloat16, if the CPU has it) or tf32 (of GPUs)


@dataclass
class Stage:
    """What one optimisation needs; M1+M2 has two."""

    model: ModelConfig = field(default_factory=ModelConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)


@dataclass
class DataConfig:
    """Which rows, and what a model sees of them."""

    name: str = MISSING
    folder: str | None = None  # of memmap's shards, of folder's and lfw's images
    file: str | None = None  # of npz and csv; a relative one is looked for here, then in $SSL_DGM_DATA
    test_file: str | None = None  # csv's test rows; null: a fifth of the rows with a class, drawn once and for all
    target: str | None = None  # csv's column of classes; empty where none is known
    title: str | None = None  # what data of your own are called in tables and pictures
    extra: bool = True  # svhn: the extra training images too
    side: int | None = None  # norb, lfw, folder: images are resized to so many pixels each way
    validation: int | None = None  # labelled rows of your own data that are held out; null: a tenth, 10,000 at most
    pca: int | None = None  # whitened to so many principal components of the training images
    pixels: str = "sampled"  # sampled: Bernoulli draws afresh at every step; grey: intensities
    min_pixel_sd: float = 0.0  # pixels whose s.d. over the training images is not above this are dropped
    labelled_in_pool: bool = False  # whether the labelled rows are in the unlabelled pool too
    pool: str = "train"  # or train+validation: the validation rows are unlabelled rows too, as in Maaloe et al. 2016
    train_rows: int | None = None  # only the first so many training rows; the validation rows stay what they are
    order: str = "shuffled"  # by_class: the leak of a released code, for the experiment that shows it

    @property
    def called(self) -> str:
        """What people read: the title, or the name."""
        return self.title or self.name


@dataclass
class EstimatorConfig:
    """Classifiers that are no deep generative models, on pixels or on M1's features; each has a use for some."""

    neighbours: int | None = None  # knn: null is 1; label_spreading: null is 7
    kernel: str = "rbf"  # svm, tsvm: or linear
    restarts: int = 1  # tsvm: starts, of which the one with the smallest objective is kept
    # Null here and below: the estimator's own number.
    components: int | None = None  # tsvm: Nyström features of kernel=rbf; null is 1000
    # Of the labelled rows: cnn, cae, mtc.
    updates: int | None = None
    epochs: int | None = None  # cae, mtc: of every layer's pre-training; inception: at most
    contraction: float | None = None  # cae, mtc: lambda, of the Jacobian's squared norm
    weights: str = "imagenet"  # inception: or random, or the file of a state_dict
    scaling: str = "imagenet"  # inception: of its inputs; or paper


@dataclass
class ClassesConfig:
    """Semi-unsupervised learning: which classes have labelled rows, and slots of y that belong to no known class."""

    labelled: list[int] | None = None  # null: all that are not hidden
    hidden: list[int] | None = None  # classes without a labelled row; null: all but the labelled, if those are told
    extra: int = 0  # slots besides one per class


@dataclass
class SplitConfig:
    """Where the labelled rows come from when they are not drawn."""

    file: str | None = None  # a published manifest to use instead of drawing one
    sha256: str | None = None  # of the file's split, filled in when it is read


@dataclass
class TrainerConfig:
    """How a run is carried out."""

    validate_every: int = 1  # epochs
    checkpoint_every: int = 5  # epochs; long ones have a checkpoint each
    replicas: str = "auto"  # vmap, loop, or auto: loop on a CPU, vmap elsewhere
    progress: bool = True
    compile: str = "auto"  # torch.compile: always, never, or auto: long runs on a CPU whose tensors keep their shapes
    cuda_graph: bool = True  # on a GPU: launch an update's kernels as one graph
    devices: int = 1  # of one run, which share its seeds
    figures: str = "quick"  # drawn at the end: quick, those that take seconds; all; few; none


@dataclass
class LoggerConfig:
    """Where scalars and pictures go besides the run's own CSV."""

    name: str = "csv"  # csv: only there; wandb; tensorboard
    project: str = "ssl_dgm"
    group: str | None = None  # null: the experiment's name
    mode: str = "auto"  # wandb: online, offline, or auto: online when this machine has an account's key


@dataclass
class Config(Stage):
    """A whole run."""

    m1: Stage | None = None  # the first stage of m1m2
    m1_seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    labels: int | str = 100  # 0: none, y is a cluster; all: every training row with a label, whatever their balance
    seeds: list[int] = field(default_factory=lambda: [0])
    split_seed: int | None = None  # null: every seed draws its own labels
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    condition: str | None = None  # cvae: the part of an image that is given; center: the central half of both sides
    classifier: str = "svm"  # m1: what is fitted on its features; none: only the VAE
    features: str = "mean"  # m1: mean or sample of q(z | x)
    classify: str = "discriminative"  # or generative: class posteriors from importance samples
    prediction_draws: int = 100  # of what q draws before y, whose class probabilities are averaged at test
    generative_samples: int = 100
    likelihood_samples: int = 0  # importance samples of the test log-likelihood; 0: not estimated
    likelihood_estimator: str = "q"  # their proposal: the model's q, or hmc: a Gaussian fitted to a chain of every row
    likelihood_rows: int | None = None  # so many test rows, from the first on; null: all
    selection: str = "last"  # or best_validation
    baseline: str | None = "nn"  # reported beside the model on the same labels
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    device: str = "auto"
    seeds_at_once: int = 10
    time_limit: str | None = None
    force: bool = False
    runs: str = "runs"
    csv: str | None = None  # null: rows.csv in the runs folder


LONGEST_WORD = 40  # characters of a title in a folder's name
# Settings that say where and how a run is carried out, not what it computes.
NOT_IDENTITY = (
    "seeds", "baseline", "device", "seeds_at_once", "time_limit", "force", "runs", "csv", "trainer",
    "logger", "split.file", "data.folder", "data.file", "data.test_file", "data.target", "data.title",
)  # fmt: skip
# Settings that a bare M1, which reads no label, and an estimator, which has no bound, do not use.
UNUSED_BY_BARE_M1 = (
    "labels", "split_seed", "split", "features", "classify", "generative_samples", "m1_seed", "classes",
    "prediction_draws", "data.labelled_in_pool",
)  # fmt: skip
WITHOUT_CLASSES = ("avae", "cvae")
# Estimators by how they learn: from the labelled rows alone, or from the unlabelled pool too.
INDUCTIVE = ("nn", "knn", "svm", "cnn", "inception")
TRANSDUCTIVE = ("tsvm", "cae", "mtc", "label_spreading", "self_training")
# What may stand on the features of an M1.
CLASSIFIERS = ("logistic", "knn", "svm", "tsvm", "label_spreading", "self_training")
UNUSED_BY_ESTIMATOR = (
    "objective", "optimizer", "budget", "m1_seed", "classifier", "features", "classify", "generative_samples",
    "prediction_draws", "likelihood_samples", "likelihood_estimator", "likelihood_rows", "selection", "network.name",
    "network.activation", "network.init", "network.init_sd", "network.norm", "network.dropout", "network.dropout_y",
    "model.z_dim", "model.a_dim", "model.h_dim", "model.likelihood", "model.mse_scale", "model.q_z", "model.q_log_var",
    "model.min_unit_sd", "classes.extra", "data.order",
)  # fmt: skip


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) pairs of nested dicts."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def first_stage(config: Config) -> Config | None:
    """The run of the M1 that `config` builds on: same data, no labels, one seed; None when it builds on none."""
    if config.m1 is None and (config.model.name != "m1" or config.classifier == "none"):
        return None
    source = config.m1 or config
    stage = {f.name: getattr(source, f.name) for f in dataclasses.fields(Stage)}
    of_last = ("selection", "likelihood_samples", "likelihood_estimator", "likelihood_rows", "csv")
    plain = {name: getattr(Config(), name) for name in of_last}
    return dataclasses.replace(
        config, **stage, **plain, m1=None, classifier="none", seeds=[config.m1_seed], baseline=None
    )


def stages(config: Config) -> list[tuple[str, Stage]]:
    """The settings of every optimisation, each after what its keys begin with."""
    return [("", config), *([("m1.", config.m1)] if config.m1 else [])]


def is_estimator(config: Config) -> bool:
    """Whether the model is a classifier with fit and predict, on pixels, and no deep generative model."""
    return config.model.name in (*INDUCTIVE, *TRANSDUCTIVE)


def ends_in_estimator(config: Config) -> bool:
    """Whether the classifier is an estimator: on pixels, or on the features of an M1."""
    return is_estimator(config) or (config.model.name == "m1" and config.classifier != "none")


def needs_labels(config: Config) -> bool:
    """Whether anything in the run reads a label: all but a bare M1 and the other models without classes."""
    return not (config.model.name in WITHOUT_CLASSES or (config.model.name == "m1" and config.classifier == "none"))


def departures(config: Config) -> dict[str, Any]:
    """What identifies a run: its settings that differ from the schema's defaults, by dotted key."""
    default = Config(m1=None if config.m1 is None else Stage())
    defaults = dict(flatten(dataclasses.asdict(default)))
    unused = NOT_IDENTITY
    unused += () if needs_labels(config) else UNUSED_BY_BARE_M1
    unused += UNUSED_BY_ESTIMATOR if is_estimator(config) else ()
    unused += () if ends_in_estimator(config) else ("estimator",)
    return {
        name: value
        for name, value in sorted(flatten(dataclasses.asdict(config)))
        if value != defaults[name] and not any(name == u or name.startswith(f"{u}.") for u in unused)
    }


def _word(data: DataConfig) -> str:
    """What a folder's name says of the data: the title in letters, digits and underscores, which any system takes."""
    plain = unicodedata.normalize("NFKD", data.title or "").encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:LONGEST_WORD].rstrip("_") or data.name


def key(config: Config, data_sha256: str) -> str:
    """The name of a run's folder: words for people, then a hash of `departures` and of the data."""
    identity = json.dumps({"settings": departures(config), "data_sha256": data_sha256}, sort_keys=True)
    words = [config.model.name, _word(config.data), str(config.labels), config.budget.name]
    if not needs_labels(config):
        words.remove(str(config.labels))
    if is_estimator(config):
        words.remove(config.budget.name)
    return "-".join([*words, hashlib.sha256(identity.encode()).hexdigest()[:10]])

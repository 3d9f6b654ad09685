"""The typed schema of a run, the sentences that refuse a bad one, and its key.

Nothing here imports torch: a mistake is told in a fraction of a second. Defaults
are frozen: a run is identified by how it departs from them (`key`), so a changed
default would silently rename every run made so far.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf


class UserError(Exception):
    """One sentence for the person at the keyboard: the value and the remedy. Exit code 2."""


@dataclass
class ModelConfig:
    name: str = MISSING
    z_dim: int = 50
    min_unit_sd: float = 0.1  # m1m2: units of M1 whose posterior means vary less are dropped


@dataclass
class NetworkConfig:
    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [500])
    activation: str = "softplus"
    init: str = "torch"  # torch: its default for Linear; fan_in: N(0, 1/fan_in); normal: N(0, init_sd^2)
    init_sd: float = 0.001


@dataclass
class ObjectiveConfig:
    classification: float = 0.1  # R, weight of the mean of log q(y | x)
    labelled: float | None = None  # r, weight of the mean labelled bound; null: N_l / N_u
    draws: int = 1  # M, draws of every latent per row and class
    kl: str = "monte_carlo"  # or analytic
    warm_up_epochs: float = 0.0  # the latents' terms grow linearly from weight 0 to 1
    weight_prior_sd: float | None = 1.0  # N(0, sd^2) on all parameters; null: none


@dataclass
class OptimizerConfig:
    name: str = "adam"
    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: str = "constant"  # or cosine: from lr down to final_lr
    final_lr: float = 0.0
    clip_norm: float | None = None  # cap of each seed's own gradient norm


@dataclass
class BudgetConfig:
    name: str = "paper"
    epochs: int = 3000  # an epoch is one pass over the unlabelled pool
    updates_per_epoch: int = 200  # at most; never more than there are labelled rows where labels are split over steps
    labelled_per_step: int | str = "share"  # share: N_l / updates; all; or a number


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
    name: str = MISSING
    pixels: str = "sampled"  # sampled: Bernoulli draws afresh at every step; grey: intensities
    min_pixel_sd: float = 0.0  # pixels whose s.d. over the training images is not above this are dropped
    labelled_in_pool: bool = False  # whether the labelled rows are in the unlabelled pool too


@dataclass
class SplitConfig:
    file: str | None = None  # a published manifest to use instead of drawing one
    sha256: str | None = None  # of the file's split, filled in when it is read


@dataclass
class TrainerConfig:
    precision: str = "32"  # 32, or bf16: matrix products in bfloat16, weights and sums in float32
    validate_every: int = 1  # epochs
    checkpoint_every: int = 5  # epochs
    replicas: str = "auto"  # vmap, loop, or auto: loop on a CPU, vmap elsewhere
    progress: bool = True


@dataclass
class Config(Stage):
    m1: Stage | None = None  # the first stage of m1m2
    m1_seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    labels: int = 100
    seeds: list[int] = field(default_factory=lambda: [0])
    split_seed: int | None = None  # null: every seed draws its own labels
    classifier: str = "svm"  # m1: what is fitted on its features; none: only the VAE
    features: str = "mean"  # m1: mean or sample of q(z | x)
    classify: str = "discriminative"  # or generative: class posteriors from importance samples
    generative_samples: int = 100
    likelihood_samples: int = 0  # importance samples of the test log-likelihood; 0: not estimated
    selection: str = "last"  # or best_validation
    baseline: str | None = "nn"  # reported beside the model on the same labels
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    device: str = "auto"
    seeds_at_once: int = 10
    time_limit: str | None = None
    force: bool = False
    runs: str = "runs"
    csv: str | None = None  # null: rows.csv in the runs folder


# Settings that say where and how a run is carried out, not what it computes.
NOT_IDENTITY = (
    "seeds", "baseline", "device", "seeds_at_once", "time_limit", "force", "runs", "csv", "trainer.validate_every",
    "trainer.checkpoint_every", "trainer.replicas", "trainer.progress", "split.file",
)  # fmt: skip
# Settings that a bare M1, which reads no label, and an estimator, which has no bound, do not use.
UNUSED_BY_BARE_M1 = ("labels", "split_seed", "split", "features", "classify", "generative_samples", "m1_seed")
UNUSED_BY_ESTIMATOR = (
    "objective", "optimizer", "budget", "trainer", "m1_seed", "classifier", "features", "classify",
    "generative_samples", "likelihood_samples", "selection", "network.name", "network.activation", "network.init",
    "network.init_sd", "model.z_dim", "model.min_unit_sd",
)  # fmt: skip

CHOICES = {
    "classifier": ("none", "logistic", "svm", "knn"),
    "features": ("mean", "sample"),
    "classify": ("discriminative", "generative"),
    "selection": ("last", "best_validation"),
    "data.pixels": ("sampled", "grey"),
    "trainer.precision": ("32", "bf16"),
    "trainer.replicas": ("auto", "vmap", "loop"),
    "network.activation": ("softplus", "relu", "tanh"),
    "network.init": ("torch", "fan_in", "normal"),
    "objective.kl": ("monte_carlo", "analytic"),
    "optimizer.name": ("adam", "adam_uncorrected"),
    "optimizer.schedule": ("constant", "cosine"),
}
POSITIVE = (
    "labels", "generative_samples", "seeds_at_once", "model.z_dim", "network.init_sd", "objective.draws",
    "optimizer.lr", "optimizer.eps", "budget.epochs", "budget.updates_per_epoch",
    "trainer.validate_every", "trainer.checkpoint_every", "objective.weight_prior_sd", "optimizer.clip_norm",
)  # fmt: skip


def valid_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, groups included."""
    for f in dataclasses.fields(schema):
        yield prefix + f.name
        nested = Stage if f.name == "m1" else f.type
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            yield from valid_keys(nested, f"{prefix}{f.name}.")


def nearest(word: str, known: list[str]) -> str:
    """'; the nearest is ...' or a list of what there is."""
    close = [name for name in known if word and name.startswith(word)]
    close += difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(sorted(known))}"


def check_keys(overrides: list[str]) -> None:
    """Refuses a key that the schema does not have, naming the nearest one; Hydra's own flags and keys pass.

    Raises:
        UserError: for the first unknown key of the `key=value` words.
    """
    known = list(valid_keys())
    for before, word in zip(("", *overrides), overrides):
        key, sign, _ = word.partition("=")
        key = key.lstrip("+~").partition("@")[0]
        if word.startswith(("-", "~")) or before.startswith("-") or key.startswith("hydra"):
            continue
        if not sign:
            raise UserError(f"'{word}' is not a key=value pair; write for example labels=100")
        if key == "experiment" or key in known:
            continue
        tails = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
        hint = f"write {tails[0]}" if tails else nearest(key, known)
        raise UserError(f"'{key}' is not a setting; {hint}")


def explain(message: str, choices: dict[str, list[str]]) -> str:
    """One sentence for an error that Hydra or OmegaConf raised while composing.

    Args:
        message: theirs.
        choices: options of every group of conf/.
    """
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    where = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    if match := re.match(r"(?:In '.*': )?Could not find '(.+)/(.+)'", lines[0]):
        group = match[1].partition("/")[0]
        # A budget is found by its own name and by that of the model it is for.
        option = match[1].partition("/")[2] or match[2]
        if group in choices:
            return f"{group}={option} is unknown; {nearest(option, choices[group])}"
    not_converted = r"Value '(.*)' of type '.*?' could not be converted to (\w+)"
    if match := re.match(rf"{not_converted}|Value '(.*)' is not a valid (bool)", lines[0]):
        value, kind = match[1] or match[3], match[2] or match[4]
        words = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return f"{where}={value} is not {words.get(kind, kind)}; use for example {_example(where)}"
    if lines[0].startswith("Invalid value assigned") or lines[0].endswith("is not Optional"):
        return f"{where} has a value of the wrong kind; use for example {_example(where)}"
    if match := re.match(r"Key '(.*)' (?:is )?not in", lines[0]):
        return f"'{where or match[1]}' is not a setting; {nearest(where or match[1], list(valid_keys()))}"
    return lines[0].rstrip(".") + (f" ({where})" if where else "") + "; see --help"


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
            raise UserError(f"{key}={value} is not a finite number; use for example {_example(key)}")
        if stem in CHOICES and value not in CHOICES[stem]:
            raise UserError(f"{key}={value} is unknown; {nearest(str(value), list(CHOICES[stem]))}")
        if stem in POSITIVE and value is not None and value <= 0:
            raise UserError(f"{key}={value} is not positive; use for example {_example(key)}")
    for prefix, stage in (("", config), *((("m1.", config.m1),) if config.m1 else ())):
        hidden, per_step = list(stage.network.hidden), stage.budget.labelled_per_step
        if not hidden or min(hidden) <= 0:
            raise UserError(f"{prefix}network.hidden={hidden} is no list of layer sizes; use for example [500]")
        if per_step not in ("share", "all") and (isinstance(per_step, str) or per_step < 1):
            raise UserError(f"{prefix}budget.labelled_per_step={per_step} is unknown; use share, all or a number")
    if config.time_limit is not None:
        seconds(config.time_limit)


def _example(key: str) -> str:
    """'key=value' with the default, or with 1 where that is null."""
    stem = key.partition("[")[0]
    default = dict(flatten(dataclasses.asdict(Config()))).get(stem.removeprefix("m1."))
    value = 1 if default is None else str(default).lower() if isinstance(default, bool) else default
    return f"{stem}={value}"


def seconds(duration: str) -> float:
    """'90s', '9m', '1.5h' or a bare number of seconds, as seconds.

    Raises:
        UserError: for anything else, or for no time at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(duration).strip())
    if not match or float(match[1]) == 0:
        raise UserError(f"time_limit={duration} is no duration; write 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) pairs of nested dicts."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def from_composed(composed: DictConfig) -> Config:
    """The plain dataclass of a composed configuration, checked."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check(config)
    return config


def first_stage(config: Config) -> Config | None:
    """The run of the M1 that `config` builds on: same data, no labels, one seed; None when it builds on none."""
    if config.m1 is None and (config.model.name != "m1" or config.classifier == "none"):
        return None
    source = config.m1 or config
    stage = {f.name: getattr(source, f.name) for f in dataclasses.fields(Stage)}
    plain = {name: getattr(Config(), name) for name in ("selection", "likelihood_samples", "csv")}
    return dataclasses.replace(
        config, **stage, **plain, m1=None, classifier="none", seeds=[config.m1_seed], baseline=None
    )


def is_estimator(config: Config) -> bool:
    """Whether the model is fitted by scikit-learn on the labelled rows alone."""
    return config.model.name == "nn"


def needs_labels(config: Config) -> bool:
    """Whether anything in the run reads a label: all but a bare M1."""
    return not (config.model.name == "m1" and config.classifier == "none")


def departures(config: Config) -> dict[str, Any]:
    """What identifies a run: its settings that differ from the schema's defaults, by dotted key."""
    default = Config(m1=None if config.m1 is None else Stage())
    defaults = dict(flatten(dataclasses.asdict(default)))
    unused = NOT_IDENTITY
    unused += () if needs_labels(config) else UNUSED_BY_BARE_M1
    unused += UNUSED_BY_ESTIMATOR if is_estimator(config) else ()
    return {
        name: value
        for name, value in sorted(flatten(dataclasses.asdict(config)))
        if value != defaults[name] and not any(name == u or name.startswith(f"{u}.") for u in unused)
    }


def key(config: Config, data_sha256: str) -> str:
    """The name of a run's folder: words for people, then a hash of `departures` and of the data."""
    identity = json.dumps({"settings": departures(config), "data_sha256": data_sha256}, sort_keys=True)
    words = [config.model.name, config.data.name, str(config.labels), config.budget.name]
    if not needs_labels(config):
        words.remove(str(config.labels))
    if is_estimator(config):
        words.remove(config.budget.name)
    return "-".join([*words, hashlib.sha256(identity.encode()).hexdigest()[:10]])

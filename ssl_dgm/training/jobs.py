"""A run under way: what its parts share, and how each seed's record is written."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_dgm import config as schema
from ssl_dgm import models, records
from ssl_dgm.config import Config, UserError
from ssl_dgm.data import splits
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.data.inputs import Inputs, OnDisk, Pixels, Posteriors, Reals
from ssl_dgm.data.shards import Shards
from ssl_dgm.data.slots import Slots
from ssl_dgm.data.source import Source
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import convolutions
from ssl_dgm.probability.convolutions import Image
from ssl_dgm.training.loggers import Log
from ssl_dgm.training.precision import of_products

Say = Callable[[str], None]
OF_IMAGES = ("cnn", "inception")  # estimators that look at a pixel's neighbours


@dataclass
class Result:
    """What a run left: the records of its seeds, and what was lost."""

    config: Config
    folder: Path
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    first: "Result | None" = None  # of the M1 that it builds on

    @property
    def name(self) -> str:
        """The model as a table names it."""
        return records.model_name(self.config)

    @property
    def pictures(self) -> list[Path]:
        """The pictures and animations that were drawn."""
        return records.pictures(self.folder)


@dataclass
class Job:
    """A run under way: everything that its parts share."""

    config: Config
    source: Source
    splits: dict[int, splits.Split]
    device: torch.device
    deadline: float | None
    say: Say
    key: str
    folder: Path
    first: "FirstStage | None" = None
    log: Log = field(default_factory=Log)
    # Asked at the start: the checkout may have moved on by the end.
    git_commit: str = field(default_factory=records.git_commit)

    @property
    def slots(self) -> Slots:
        """What the values of y stand for."""
        return Slots.of(self.config, self.source)

    @property
    def pool(self) -> int:
        """Rows from which the unlabelled ones are taken: the training rows, the validation rows among them or not."""
        source = self.source
        return len(source.train_y) if self.config.data.pool == "train+validation" else source.num_train

    @property
    def attributes_slots(self) -> bool:
        """Whether the labels of the validation rows say which class a value of y is."""
        has_y = schema.needs_labels(self.config) and not schema.ends_in_estimator(self.config)
        return has_y and self.slots.num_free > 0


@dataclass
class FirstStage:
    """A trained M1 as its successor sees it."""

    result: Result
    model: DeepGenerativeModel
    train: Posteriors
    test: Posteriors
    live: Tensor  # [D] bool
    sha256: str

    def live_part(self, q: Posteriors) -> Posteriors:
        """q without the units that were dropped."""
        return Posteriors(q.means[:, self.live], q.log_vars[:, self.live])


def outline(config: Config, source: Source) -> DeepGenerativeModel:
    """The model with one unit per latent, for its factorisation's text."""
    small = dataclasses.replace(config.network, name="mlp", hidden=[1])
    stage = schema.Stage(config.model, small, config.objective, config.optimizer, config.budget)
    slots = Slots.of(config, source)
    return models.create(
        stage, x_dim=1, num_classes=slots.num_slots, prior=slots.prior, seeds=[0], num_labelled=0, num_unlabelled=1
    )


def check(config: Config, source: Source) -> None:
    """Refuses models, of both stages, that such rows are not for.

    Raises:
        UserError: for convolutions, likelihoods and conditions that the rows have no use for, and for a classifier of a
            single class.
    """
    image_of(config, source)
    likelihood = config.model.likelihood
    real = source.real or config.data.pca is not None
    if config.model.name in OF_IMAGES and (real or not source.is_image):
        raise UserError(
            f"model={config.model.name} sees images, and rows of data={source.name} are real numbers"
            f"{' once they are whitened' if config.data.pca else ''}; use model=nn, or images as they are"
        )
    if config.model.name in OF_IMAGES and config.data.min_pixel_sd > 0:
        raise UserError(
            f"model={config.model.name} sees images, and data.min_pixel_sd={config.data.min_pixel_sd} drops pixels; "
            "use data.min_pixel_sd=0, or model=nn"
        )
    known = Slots.of(config, source).labelled if config.labels and schema.ends_in_estimator(config) else ()
    if len(known) == 1:
        raise UserError(
            f"only class {known[0]} of data={source.name} has labels, and a classifier tells two or more apart; label "
            "another by classes.labelled, or use a deep generative model"
        )
    if real and likelihood not in ("auto", "gaussian") and not schema.is_estimator(config):
        what = "real numbers" if source.real else "whitened"
        raise UserError(
            f"model.likelihood={likelihood} is of pixels, and rows of data={source.name} are {what}; use auto, which "
            "is a Gaussian with a learned variance for them"
        )
    _condition(config, source)
    if (first := schema.first_stage(config)) is not None:
        check(first, source)


def image_of(config: Config, source: Source) -> Image | None:
    """The shape of x that the convolutions of network.name see; None where there are none.

    Raises:
        UserError: for rows that are no images, or of a size that the convolutions do not divide.
    """
    kind = config.network.name
    if kind not in convolutions.KINDS or schema.is_estimator(config):
        return None
    flat = isinstance(source.train_x, Shards) and len(source.train_x.files[0].shape) == 2
    if flat or source.kept is not None:
        what = "flat rows" if flat else "images without their constant pixels"
        remedy = "write shards of images [n, H, W]" if flat else "add data.min_pixel_sd=0"
        raise UserError(f"network.name={kind} sees images, but data={source.name} has {what}; {remedy}, or use mlp")
    if not source.is_image:
        raise UserError(f"network.name={kind} sees images, but rows of data={source.name} are none; use network=mlp")
    height, width, channels = (*source.shape, 1)[:3]
    if not convolutions.fits(kind, (channels, height, width)):
        raise UserError(
            f"network.name={kind} does not fit the {height} x {width} images of data={source.name}: its decoder would "
            "not give back their size (28 x 28 and 32 x 32 do fit); use network=mlp"
        )
    return channels, height, width


def create(job: Job, seeds: Sequence[int], x_dim: int) -> DeepGenerativeModel:
    """The job's model for these seeds, freshly initialised."""
    config, split = job.config, next(iter(job.splits.values()), None)
    stage = config
    if job.source.real and config.model.likelihood == "auto":
        stage = dataclasses.replace(config, model=dataclasses.replace(config.model, likelihood="gaussian"))
    model = models.create(
        stage,
        x_dim=x_dim,
        num_classes=job.slots.num_slots,
        prior=job.slots.prior,
        seeds=seeds,
        num_labelled=0 if split is None else len(split.labelled),
        num_unlabelled=job.pool if split is None else len(split.unlabelled),
        trials=job.source.trials if job.config.data.pixels == "grey" else 1,
        replicas_mode=config.trainer.replicas,
        prediction_draws=config.prediction_draws,
        condition=_condition(config, job.source),
        image=image_of(config, job.source),
    )
    model.free_slots = job.attributes_slots
    return model


def _condition(config: Config, source: Source) -> Tensor | None:
    """The part of x that is given, bool [D], by `condition`.

    Raises:
        UserError: for rows that are no images, and have no centre.
    """
    if config.condition is None:
        return None
    real = source.real or config.data.pca is not None
    if real or min(source.shape[:2]) < 4:
        what = "real numbers" if real else " x ".join(map(str, source.shape))
        raise UserError(f"condition=center needs images, but rows of data={source.name} are {what}; use model=m1")
    return torch.from_numpy(source.central())


def inputs(job: Job) -> tuple[Inputs, Inputs]:
    """What the model observes, of the training and of the test rows."""
    if job.first is not None:
        return job.first.live_part(job.first.train), job.first.live_part(job.first.test)
    binarise = job.config.data.pixels == "sampled"
    train_x, test = job.source.train_x, torch.from_numpy(job.source.test_x)
    train = OnDisk(train_x) if isinstance(train_x, Shards) else torch.from_numpy(train_x)
    if job.source.real and isinstance(train, Tensor):
        return Reals(train).to(job.device), Reals(test).to(job.device)
    return Pixels(train, binarise).to(job.device), Pixels(test, binarise).to(job.device)


def data_module(job: Job, train: Inputs, seeds: Sequence[int]) -> SeededDataModule:
    """The batches of these seeds, whose rows `train` has.

    Raises:
        UserError: for BatchNorm where an update has a single row, which has no s.d., and for auxiliary terms where it
            has a single labelled row.
    """
    source = job.source
    data = SeededDataModule(
        train, torch.from_numpy(source.train_y), job.slots.num_slots,
        [job.splits[seed] for seed in seeds] if job.splits else None, source.num_train, seeds, job.config.budget,
        job.device, shared_order=isinstance(source.train_x, Shards), pool=job.pool,
        by_class=job.config.data.order == "by_class",
    )  # fmt: skip
    # Labelled and unlabelled rows go through BatchNorm together.
    if job.config.network.norm == "batch" and data.labelled_per_step + data.unlabelled_per_step == 1:
        raise UserError(
            "network.norm=batch has no s.d. of the 1 row of an update; use for example "
            f"budget.updates_per_epoch={max(1, data.updates // 2)}, or network.norm=group"
        )
    o = job.config.objective
    if (o.assignment or o.metric) and data.labelled_per_step == 1:
        raise UserError(
            f"objective.assignment={o.assignment} with objective.metric={o.metric} compares rows with the labelled "
            "rows of their update, of which there is 1; use budget.labelled_per_step=all, or 0 for both"
        )
    return data


def assembled(job: Job, seeds: Sequence[int], device: torch.device) -> tuple[DeepGenerativeModel, SeededDataModule]:
    """The model of these seeds and their batches, on a device, as every process makes them that trains them."""
    job = dataclasses.replace(job, device=device)
    train, _ = inputs(job)
    return create(job, seeds, train.x_dim), data_module(job, train, seeds)


def trained(
    job: Job, model: DeepGenerativeModel | None, seed: int, rows: tuple[Inputs, Inputs] | None = None
) -> Trained:
    """A seed as its figures see it.

    Args:
        model: of this seed alone; None where it is an estimator.
        rows: what it observes of the training and of the test rows, where that is at hand.
    """
    first = job.first and (job.first.model, job.first.live)
    train, test = rows or inputs(job)
    here = (job.config, job.source, job.slots, job.folder, seed, model, train, test)
    return Trained(*here, first, job.attributes_slots)


def save(job: Job, seed: int, metrics: dict[str, float], facts: dict[str, Any]) -> None:
    """Writes a seed's split and record; `facts` are those that the job does not know."""
    config, split = job.config, job.splits.get(seed)
    if split is not None:
        facts = {"labels": len(split.labelled), **facts}
        splits.save(split, job.folder / f"seed-{seed}" / "split.json")
    chosen = config.selection == "best_validation" and not schema.ends_in_estimator(config)
    validated = len(job.source.train_y) - job.source.num_train if chosen or job.attributes_slots else 0
    facts = {
        "split_seed": None if split is None else split.split_seed,
        "split_sha256": None if split is None else split.sha256,
        "data_sha256": job.source.sha256,
        "rows": job.source.describe(),
        "m1_sha256": None if job.first is None else job.first.sha256,
        "validation_labels": validated,
        **_unlabelled(job, split),
        "n_test": len(job.source.test_y),
        "device": _device_name(config, job.device),
        "torch": torch.__version__,
        "git_commit": job.git_commit,
        **facts,
    }
    records.save(job.folder, records.new(config, job.key, seed, metrics, **facts))
    job.log.result(seed, metrics)


def _unlabelled(job: Job, split: splits.Split | None) -> dict[str, Any]:
    """How many unlabelled rows the training drew on, and in which order; of a classifier on an M1, that of its M1."""
    if schema.is_estimator(job.config):
        learns = job.config.model.name in schema.TRANSDUCTIVE
        return {"pool": len(split.unlabelled) if split is not None and learns else None, "order": None}
    of_m1 = schema.ends_in_estimator(job.config)
    pool = job.pool if split is None or of_m1 else len(split.unlabelled)
    return {"pool": pool, "order": job.config.data.order}


def _device_name(config: Config, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    trained = not schema.ends_in_estimator(config)
    replaced = trained and of_products(config.budget.precision, device) != config.budget.precision
    return f"{name} (bf16 as float32)" if replaced else name

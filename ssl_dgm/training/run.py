"""A configuration to records: what is missing is trained, what is finished is read."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ssl_dgm import config as schema
from ssl_dgm import models
from ssl_dgm.baselines import estimators
from ssl_dgm.config import Config, UserError
from ssl_dgm.data import sources, splits
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.data.inputs import Inputs, Pixels, Posteriors
from ssl_dgm.evaluation import figures, scores
from ssl_dgm.evaluation.curves import read_curves
from ssl_dgm.files import locked, sha256_of, write_atomic
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.probability.replicas import one_seed
from ssl_dgm.training import checkpoints, records
from ssl_dgm.training.fit import deadline_of, find_device, fit

Say = Callable[[str], None]


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
        """The pictures that were drawn."""
        return sorted(self.folder.glob("*.png"))


@dataclass
class _Job:
    """A run under way: everything that its parts share."""

    config: Config
    source: sources.Source
    splits: dict[int, splits.Split]
    device: torch.device
    deadline: float | None
    say: Say
    key: str
    folder: Path
    first: "_FirstStage | None" = None


@dataclass
class _FirstStage:
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


def run(config: Config, say: Say, command: str = "", deadline: float | None = None) -> Result:
    """Carries out a run: adds the seeds that have no record yet, and returns the records of all.

    Args:
        say: takes a sentence for the person who waits.
        command: what to type to get this run, for its README.
        deadline: of a run that this one is part of; otherwise `config.time_limit` from now.

    Raises:
        UserError: before anything is written, when the settings, the data or the device are not usable.
        Stopped: when the time was up or a signal came; the same command continues.
    """
    if deadline is None and config.time_limit is not None:
        deadline = deadline_of(schema.seconds(config.time_limit))
    source = sources.load(config.data.name)
    say(source.describe())
    seen = source.drop_constant_pixels(config.data.min_pixel_sd) if config.data.min_pixel_sd else source
    drawn = _splits(config, source) if schema.needs_labels(config) else {}
    if config.split.file is not None and drawn:
        published = dataclasses.replace(config.split, sha256=drawn[config.seeds[0]].sha256)
        config = dataclasses.replace(config, split=published)
    device = find_device(config.device)
    key = schema.key(config, source.sha256)
    outline = "" if schema.is_estimator(config) else str(_outline(config, seen))
    folder = records.open_folder(config, key, source.sha256, outline, command)
    job = _Job(config, seen, drawn, device, deadline, say, key, folder)
    if outline:
        say(outline)
    result = Result(config, folder)
    if (first := schema.first_stage(config)) is not None:
        say(f"first stage: {first.model.name}, seed {config.m1_seed}")
        result.first = run(first, lambda line: say(f"  {line}"), command, deadline)
        if config.m1_seed in result.first.lost:
            result.lost = dict.fromkeys(config.seeds, f"its M1 is lost: {result.first.lost[config.m1_seed]}")
            return result
    with locked(folder / ".lock", folder.name, say):
        done = {} if config.force else {s: r for s in config.seeds if (r := records.load(folder, s, say))}
        missing = [seed for seed in config.seeds if seed not in done]
        if done:
            say(f"finished before: {'seed' if len(done) == 1 else 'seeds'} {', '.join(map(str, done))} of {key}")
        if missing and result.first is not None:
            job.first = _open_first_stage(job, result.first)
        for group in _chunks(missing, config.seeds_at_once):
            if schema.is_estimator(config) or (job.first is not None and config.model.name == "m1"):
                _fit_estimators(job, group)
            else:
                result.lost |= _train_group(job, group)
        for seed in config.seeds:
            if record := records.load(folder, seed, say):
                result.records[seed] = record
        figures.curves(folder)
    return result


def _splits(config: Config, source: sources.Source) -> dict[int, splits.Split]:
    if config.split.file is not None:
        published = splits.load_manifest(Path(config.split.file), source)
        if len(published.labelled) != config.labels:
            n = len(published.labelled)
            raise UserError(f"labels={config.labels} but {config.split.file} labels {n} rows; use labels={n}")
        return dict.fromkeys(config.seeds, published)
    seed_of = {seed: seed if config.split_seed is None else config.split_seed for seed in config.seeds}
    in_pool = config.data.labelled_in_pool
    return {seed: splits.draw(source, config.labels, seed_of[seed], in_pool) for seed in config.seeds}


def _chunks(seeds: Sequence[int], size: int) -> list[list[int]]:
    return [list(seeds[i : i + size]) for i in range(0, len(seeds), size)]


def _outline(config: Config, source: sources.Source) -> DeepGenerativeModel:
    """The model with one unit per latent, for its factorisation's text."""
    small = dataclasses.replace(config.network, hidden=[1])
    stage = schema.Stage(config.model, small, config.objective, config.optimizer, config.budget)
    return models.create(stage, x_dim=1, num_classes=source.num_classes, seeds=[0], num_labelled=0, num_unlabelled=1)


def _create(job: _Job, seeds: Sequence[int], x_dim: int) -> DeepGenerativeModel:
    config, split = job.config, next(iter(job.splits.values()), None)
    return models.create(
        config,
        x_dim=x_dim,
        num_classes=job.source.num_classes,
        seeds=seeds,
        num_labelled=0 if split is None else len(split.labelled),
        num_unlabelled=job.source.num_train if split is None else len(split.unlabelled),
        replicas_mode=config.trainer.replicas,
    )


def _inputs(job: _Job) -> tuple[Inputs, Inputs]:
    """What the model observes, of the training and of the test rows."""
    if job.first is not None:
        return job.first.live_part(job.first.train), job.first.live_part(job.first.test)
    binarise = job.config.data.pixels == "sampled"
    train, test = torch.from_numpy(job.source.train_x), torch.from_numpy(job.source.test_x)
    return Pixels(train, binarise).to(job.device), Pixels(test, binarise).to(job.device)


def _train_group(job: _Job, seeds: list[int]) -> dict[int, str]:
    """Trains seeds together and writes their records; returns the lost ones."""
    config, source = job.config, job.source
    train, test = _inputs(job)
    group = job.folder / f"group-{'-'.join(map(str, seeds))}"
    model = _create(job, seeds, train.x_dim)
    group_splits = [job.splits[seed] for seed in seeds] if job.splits else None
    data = SeededDataModule(
        train, torch.from_numpy(source.train_y), source.num_classes, group_splits, source.num_train, seeds,
        config.budget, job.device,
    )  # fmt: skip
    lost = fit(config, model, data, group, job.device, job.deadline, job.say)
    metrics = _metrics(job, model, train, test)
    epochs = read_curves(group / "metrics.csv")
    facts = {
        "epochs": config.budget.epochs,
        "updates": config.budget.epochs * data.updates,
        "train_seconds": round(sum(row["seconds"] for row in epochs if row["seed"] == seeds[0]), 1),
        "live_units": None if job.first is None else int(job.first.live.sum()),
    }
    weights = dict(model.named_parameters())
    for s, seed in enumerate(seeds):
        if seed in lost:
            continue
        tensors = {name: tensor.cpu() for name, tensor in one_seed(weights, s).items()}
        if job.first is not None:
            tensors["m1_live_units"] = job.first.live.cpu()
        # One entry: several would be written in an order that changes from run to run.
        content = to_safetensors(tensors, {"about": f"{job.key}: {model}"})
        write_atomic(job.folder / f"seed-{seed}" / "weights.safetensors", content)
        _save(job, seed, {name: value[s] for name, value in metrics.items()}, facts)
    checkpoints.remove(group)
    _draw(job, model, train)
    return lost


def _metrics(job: _Job, model: DeepGenerativeModel, train: Inputs, test: Inputs) -> dict[str, list[float]]:
    """Every metric of every seed; the one place that reads the test rows of a trained model."""
    config, source = job.config, job.source
    y, num_train = torch.from_numpy(source.train_y).to(job.device), source.num_train
    y_test = torch.from_numpy(source.test_y).to(job.device)
    model.eval()
    found: dict[str, Tensor] = {}
    if model.has_classes:
        predict = _posterior_of_classes(config, model)
        found["validation_error"] = scores.error(predict(train, len(y))[:, num_train:], y[num_train:])
        found["test_error"] = scores.error(predict(test, len(y_test)), y_test)
    if isinstance(test, Pixels):
        found["test_bound"] = scores.sampled(model, model.bound, test, len(y_test), 1, draw_inputs=True).mean(1)
        if config.likelihood_samples:
            samples = config.likelihood_samples
            log_px = scores.sampled(model, model.importance_weighted, test, len(y_test), samples, draw_inputs=True)
            found["test_log_likelihood"] = log_px.mean(1)
    if not model.has_classes:
        found["validation_bound"] = model.validation["bound"] if model.validation else found["test_bound"]
        live = [
            scores.live_units(scores.posteriors(model, train, len(y), s), num_train, config.model.min_unit_sd).sum()
            for s in range(len(model.seeds))
        ]
        found["live_units"] = torch.stack(live)
    return {name: [float(v) for v in value] for name, value in found.items()}


def _posterior_of_classes(config: Config, model: DeepGenerativeModel) -> Callable[[Inputs, int], Tensor]:
    if config.classify == "discriminative":
        return lambda inputs, rows: scores.log_q_y(model, inputs, rows)
    samples = config.generative_samples
    return lambda inputs, rows: scores.sampled(model, model.class_log_joint, inputs, rows, samples, draw_inputs=False)


def _save(job: _Job, seed: int, metrics: dict[str, float], facts: dict[str, Any]) -> None:
    config, split = job.config, job.splits.get(seed)
    if split is not None:
        splits.save(split, job.folder / f"seed-{seed}" / "split.json")
    validated = len(job.source.train_y) - job.source.num_train if config.selection == "best_validation" else 0
    facts = {
        "split_seed": None if split is None else split.split_seed,
        "split_sha256": None if split is None else split.sha256,
        "data_sha256": job.source.sha256,
        "m1_sha256": None if job.first is None else job.first.sha256,
        "validation_labels": validated,
        "n_test": len(job.source.test_y),
        "device": _device_name(job.device),
        "torch": torch.__version__,
        **facts,
    }
    records.save(job.folder, records.new(config, job.key, seed, metrics, **facts))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _fit_estimators(job: _Job, seeds: list[int]) -> None:
    """A supervised estimator per seed, on pixels or on the features of the M1, and their records."""
    config, source = job.config, job.source
    name = config.model.name if job.first is None else config.classifier
    for seed in seeds:
        x, x_test = _features(job, seed)
        rows, held_out = job.splits[seed].labelled, slice(source.num_train, None)
        started = time.monotonic()
        validation_error, test_error = estimators.error(
            name,
            seed,
            (x[rows], source.train_y[rows]),
            (x[held_out], source.train_y[held_out]),
            (x_test, source.test_y),
            hidden=config.network.hidden,
        )
        facts = {"epochs": 0, "updates": 0, "train_seconds": round(time.monotonic() - started, 1)}
        facts["live_units"] = None if job.first is None else int(job.first.live.sum())
        _save(job, seed, {"validation_error": validation_error, "test_error": test_error}, facts)


def _features(job: _Job, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What an estimator sees of the training and test rows, [N, D]: pixels, or the M1's live units."""
    if job.first is None:
        return job.source.train_x.astype(np.float32) / 255, job.source.test_x.astype(np.float32) / 255
    train, test = job.first.live_part(job.first.train), job.first.live_part(job.first.test)
    if job.config.features == "mean":
        return train.means.cpu().numpy(), test.means.cpu().numpy()

    # Paper: approximate samples of q(z | x); here: the mean by default, the usual choice, since it carries no noise.
    def draw(inputs: Posteriors, purpose: str) -> np.ndarray:
        rows = torch.arange(len(inputs.means), device=job.device)
        return inputs.draw(rows[None], Streams([seed], purpose, job.device))[0].cpu().numpy()

    return draw(train, "features"), draw(test, "test features")


def _open_first_stage(job: _Job, result: Result) -> _FirstStage:
    """The M1 with its weights, and q(z1 | x) of all rows, on the device."""
    seed = job.config.m1_seed
    path = result.folder / f"seed-{seed}" / "weights.safetensors"
    first = dataclasses.replace(job, config=result.config, splits={}, first=None)
    train, test = _inputs(first)
    model = _create(first, [seed], train.x_dim)
    model.load_state_dict({name: tensor[None] for name, tensor in load_file(path).items()})
    model = model.to(job.device).eval()
    q_train = scores.posteriors(model, train, len(job.source.train_y))
    q_test = scores.posteriors(model, test, len(job.source.test_y))
    live = scores.live_units(q_train, job.source.num_train, job.config.model.min_unit_sd)
    if not live.any():
        threshold = job.config.model.min_unit_sd
        raise UserError(
            f"none of the {len(live)} latent units of {result.folder.name} has posterior means with an s.d. above "
            f"model.min_unit_sd={threshold}; train it longer (m1.budget.epochs) or lower the threshold"
        )
    job.say(f"M1: {int(live.sum())} of {len(live)} latent units are live (s.d. of their means above threshold)")
    return _FirstStage(result, model, q_train, q_test, live, sha256_of(path))


def _draw(job: _Job, model: DeepGenerativeModel, train: Inputs) -> None:
    """Samples of the group's first seed."""
    means = figures.samples(model, job.first and (job.first.model, job.first.live))
    images = job.source.to_images(means.cpu().numpy())
    figures.save_samples(job.folder / "samples.png", images, model.has_classes, records.model_name(job.config))

"""A group of seeds of a deep generative model: trained, scored, drawn."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ssl_dgm.config import Config, UserError
from ssl_dgm.data.inputs import Inputs, Pixels
from ssl_dgm.data.shards import Shards
from ssl_dgm.drawing import kinds
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import clusters, likelihood, scores
from ssl_dgm.evaluation.clusters import Clusters
from ssl_dgm.files import sha256_of, write_atomic
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.replicas import one_seed
from ssl_dgm.records import read_curves
from ssl_dgm.training import checkpoints
from ssl_dgm.training.fit import fit
from ssl_dgm.training.jobs import FirstStage, Job, Result, assembled, create, data_module, inputs, save, trained
from ssl_dgm.training.loggers import Log

AFTER_LAST = "its bound is not finite after the last update"


def train(job: Job, seeds: list[int]) -> dict[int, str]:
    """Trains seeds together and writes their records; returns the lost ones."""
    config = job.config
    train, test = inputs(job)
    group = job.folder / f"group-{'-'.join(map(str, seeds))}"
    model = create(job, seeds, train.x_dim)
    data = data_module(job, train, seeds)
    _begin_on(job, group)
    again = partial(assembled, dataclasses.replace(job, say=_nothing, log=Log()), seeds)
    lost = fit(config, model, data, group, job.device, job.deadline, job.say, job.log, again)
    metrics, found, confusions = _metrics(job, model, train, test)
    lost |= _diverged(job, seeds, metrics["test/bound"], lost)
    epochs = read_curves(group / "metrics.csv")
    facts = {
        "epochs": config.budget.epochs,
        "updates": config.budget.epochs * data.updates * model.objective.updates,
        "train_seconds": round(sum(row["seconds"] for row in epochs if row["seed"] == seeds[0]), 1),
        "live_units": None if job.first is None else int(job.first.live.sum()),
    }
    weights, drawn = model.state_dict(), min(set(seeds) - lost.keys(), default=None)
    figures = kinds.SETS[config.trainer.figures]
    for s, seed in enumerate(seeds):
        if seed in lost:
            continue
        tensors = {name: tensor.cpu() for name, tensor in one_seed(weights, s).items()}
        if job.first is not None:
            tensors["m1_live_units"] = job.first.live.cpu()
        # One entry: several would be written in an order that changes from run to run.
        content = to_safetensors(tensors, {"about": f"{job.key}: {model}"})
        write_atomic(job.folder / f"seed-{seed}" / "weights.safetensors", content)
        own = {**facts, "weights_sha256": hashlib.sha256(content).hexdigest()}
        if confusions:
            write_atomic(job.folder / f"seed-{seed}" / "confusion.csv", confusions[s])
        if found:
            own["attribution"] = found[s].attribution.tolist()
        # Before the record: what has one is not looked at again.
        if seed == drawn:
            one = partial(_one_of, job, model, s, (train, test))
            kinds.at_end(one, job.folder, seed, figures, job.say)
        save(job, seed, {name: value[s] for name, value in metrics.items()}, own)
    checkpoints.remove(group)
    return lost


def _diverged(job: Job, seeds: list[int], values: list[float], lost: Mapping[int, str]) -> dict[int, str]:
    """Seeds whose last update left weights that have no bound: no term of a loss comes after it."""
    bad = [seed for seed, value in zip(seeds, values) if not math.isfinite(value) and seed not in lost]
    for seed in bad:
        job.say(f"seed {seed} is lost: {AFTER_LAST}; lower optimizer.lr or set optimizer.clip_norm")
    return dict.fromkeys(bad, AFTER_LAST)


def _one_of(job: Job, model: DeepGenerativeModel, s: int, rows: tuple[Inputs, Inputs]) -> Trained:
    """The seed in place s alone."""
    one = create(job, [model.seeds[s]], model.x_dim)
    one.load_state_dict({name: tensor[s : s + 1] for name, tensor in model.state_dict().items()})
    return trained(job, one.to(job.device).eval(), model.seeds[s], rows)


def _begin_on(job: Job, group: Path) -> None:
    """Notes the M1 that a group's stage 2 stands on; where it was begun on other weights, it begins anew."""
    if job.first is None:
        return
    noted = group / checkpoints.FIRST_STAGE
    if noted.is_file() and noted.read_text() != job.first.sha256 and checkpoints.checkpoints(group):
        begun = f"{group.parent.name} was begun on an M1 with other weights"
        job.say(f"{begun} than the one that is there now; beginning anew")
        checkpoints.remove(group)
    write_atomic(noted, job.first.sha256.encode())


def _nothing(line: str) -> None:
    """What the other processes of a training say."""


def _metrics(
    job: Job, model: DeepGenerativeModel, train: Inputs, test: Inputs
) -> tuple[dict[str, list[float]], list[Clusters], list[str]]:
    """Every metric of every seed; the slots of each, if they are attributed to classes; and its confusion.csv.

    The one place that reads the test rows of a trained model.
    """
    config, source = job.config, job.source
    y, num_train = torch.from_numpy(source.train_y).to(job.device), source.num_train
    y_test = torch.from_numpy(source.test_y).to(job.device)
    if isinstance(source.train_x, Shards):
        # Nothing here needs the training rows but live units, for which the validation rows do as well.
        held_out = torch.from_numpy(source.train_x[num_train:])
        train, y, num_train = Pixels(held_out, config.data.pixels == "sampled").to(job.device), y[num_train:], 0
    model.eval()
    found: dict[str, Tensor] = {}
    of_slots: list[Clusters] = []
    confusions: list[str] = []
    if model.has_classes:
        predict = _posterior_of_classes(config, model)
        validation, unseen = predict(train, len(y), num_train), predict(test, len(y_test), 0)
        if job.attributes_slots:
            of_slots = _clusters(job, validation, unseen)
            found = {
                name: torch.tensor([of.metrics[name] for of in of_slots], dtype=torch.double)
                for name in of_slots[0].metrics
            }
            found["test/entropy_y"] = scores.entropy(unseen)
            confusions = [one.to_csv(source.class_names) for one in of_slots]
        else:
            found["validation/error"] = scores.error(validation, y[num_train:])
            found["test/error"] = scores.error(unseen, y_test)
            predicted = unseen.argmax(-1).cpu().numpy()
            confusions = [clusters.of_classes(one, source.test_y, source.class_names) for one in predicted]
    found |= _densities(job, model, test)
    if not model.has_classes:
        held_out = scores.sampled(model, model.bound, train, len(y), 1, draw_inputs=True, first=num_train)
        found["validation/bound"] = held_out.mean(1)
        live = [
            scores.live_units(posterior, num_train or len(y), config.model.min_unit_sd).sum()
            for posterior in scores.posteriors(model, train, len(y))
        ]
        found["live_units"] = torch.stack(live)
    return {name: [float(v) for v in value] for name, value in found.items()}, of_slots, confusions


def _densities(job: Job, model: DeepGenerativeModel, test: Inputs) -> dict[str, Tensor]:
    """The bound on the test rows' log p(x), and an estimate of it where that is asked for, [S] each."""
    config, num_rows, verbose = job.config, len(job.source.test_y), job.config.trainer.progress
    some = min(config.likelihood_rows or num_rows, num_rows)
    if job.first is not None:
        _, pixels = inputs(dataclasses.replace(job, first=None))
        stack = partial(likelihood.of_stack, model, (job.first.model, job.first.live), pixels)
        bound = stack(num_rows, 1, model.bound)
        estimate = partial(stack, score=model.importance_weighted)
    else:
        bound = scores.sampled(model, model.bound, test, num_rows, 1, draw_inputs=True, verbose=verbose)
        by = likelihood.by_chains if config.likelihood_estimator == "hmc" else likelihood.by_q
        estimate = partial(by, model, test)
    found = {"test/bound": bound.mean(1)}
    if job.source.whitening is not None:
        found["test/bound_pixels"] = found["test/bound"] + job.source.whitening.log_jacobian
    if samples := config.likelihood_samples:
        job.say(f"log p(x) of {some:,} test rows, {samples:,} importance samples each")
        found["test/log_likelihood"] = estimate(some, samples, verbose=verbose).mean(1)
    return found


def _clusters(job: Job, validation: Tensor, test: Tensor) -> list[Clusters]:
    """Of every seed, from log-probabilities [S, N, K] of both sets of rows."""
    slots = [log_probs.argmax(-1).cpu().numpy() for log_probs in (validation, test)]
    targets = job.source.train_y[job.source.num_train :].astype(int), job.source.test_y.astype(int)
    return [clusters.score(job.slots, (v, targets[0]), (t, targets[1])) for v, t in zip(*slots)]


def _posterior_of_classes(config: Config, model: DeepGenerativeModel) -> Callable[[Inputs, int, int], Tensor]:
    """log-probabilities of the classes [S, N, K] of the rows of inputs, from a first one to the last."""
    if config.classify == "discriminative":
        return lambda inputs, rows, first: scores.log_q_y(model, inputs, rows, first)
    score = partial(scores.sampled, model, model.class_log_joint, samples=config.generative_samples, draw_inputs=False)
    return lambda inputs, rows, first: score(inputs, rows, first=first, verbose=config.trainer.progress)


def open_first_stage(job: Job, result: Result) -> FirstStage:
    """The M1 with its weights, and q(z1 | x) of all rows, on the device."""
    seed = job.config.m1_seed
    path = result.folder / f"seed-{seed}" / "weights.safetensors"
    first = dataclasses.replace(job, config=result.config, splits={}, first=None)
    train, test = inputs(first)
    model = create(first, [seed], train.x_dim)
    model.load_state_dict({name: tensor[None] for name, tensor in load_file(path).items()})
    model = model.to(job.device).eval()
    (q_train,) = scores.posteriors(model, train, len(job.source.train_y))
    (q_test,) = scores.posteriors(model, test, len(job.source.test_y))
    live = scores.live_units(q_train, job.source.num_train, job.config.model.min_unit_sd)
    if not live.any():
        threshold = job.config.model.min_unit_sd
        epochs = "budget.epochs" if job.config.m1 is None else "m1.budget.epochs"
        raise UserError(
            f"none of the {len(live)} latent units of {result.folder.name} has posterior means with an s.d. above "
            f"model.min_unit_sd={threshold}; train it longer ({epochs}) or lower the threshold"
        )
    job.say(f"M1: {int(live.sum())} of {len(live)} latent units are live (s.d. of their means above threshold)")
    return FirstStage(result, model, q_train, q_test, live, sha256_of(path))

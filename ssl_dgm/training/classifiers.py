"""Estimators with fit and predict, on pixels or on the features of an M1, as runs."""

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from ssl_dgm import config as schema
from ssl_dgm.baselines import estimators
from ssl_dgm.config import Stopped
from ssl_dgm.data.inputs import Posteriors
from ssl_dgm.drawing import kinds
from ssl_dgm.evaluation import clusters
from ssl_dgm.files import write_atomic
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.training.jobs import Job, save, trained


def fit(job: Job, seeds: list[int]) -> None:
    """An estimator per seed, and their records.

    Raises:
        Stopped: when the time is up before a seed; one that is being fitted is fitted to its end.
    """
    source = job.source
    for done, seed in enumerate(seeds):
        if job.deadline is not None and time.monotonic() > job.deadline:
            sentence = f"stopped {job.folder.name} after {done} of {len(seeds)} seeds (time_limit)"
            raise Stopped(f"{sentence}; the same command continues it", by_signal=False)
        started = time.monotonic()
        estimator = fitted(job, seed)
        validation = np.arange(source.num_train, len(source.train_y))
        x, x_test = _features(job, seed, validation)
        predicted = estimator.predict(x_test)
        metrics = {
            "validation/error": estimators.error(estimator, x, source.train_y[validation]),
            "test/error": float(np.mean(predicted != source.test_y)),
        }
        if job.slots.hidden:
            num_classes = source.num_classes
            counts = clusters.confusion(predicted, source.test_y, num_classes, num_classes)
            right = clusters.right(counts, np.arange(num_classes))
            metrics |= clusters.accuracies("test/accuracy", right, counts, job.slots)
        facts = {"epochs": 0, "updates": 0, "train_seconds": round(time.monotonic() - started, 1)}
        facts["live_units"] = None if job.first is None else int(job.first.live.sum())
        confusion = clusters.of_classes(predicted, source.test_y, source.class_names)
        write_atomic(job.folder / f"seed-{seed}" / "confusion.csv", confusion)
        if seed == min(seeds):
            make, names = partial(trained, job, None, seed), kinds.SETS[job.config.trainer.figures]
            kinds.at_end(make, job.folder, seed, names, job.say)
        save(job, seed, metrics, facts)


def fitted(job: Job, seed: int) -> Any:
    """The estimator of a seed, fitted to its labelled rows, and to its unlabelled pool where it learns from that."""
    config, split = job.config, job.splits[seed]
    name = config.model.name if job.first is None else config.classifier
    rows = split.labelled
    if name in schema.TRANSDUCTIVE:
        rows = np.concatenate([rows, np.setdiff1d(split.unlabelled, rows)])
    x, _ = _features(job, seed, rows)
    y = np.full(len(rows), estimators.UNLABELLED)
    y[: len(split.labelled)] = job.source.train_y[split.labelled]
    return estimators.fitted(estimators.create(name, seed, config, _image(job), str(job.device)), x, y)


def _image(job: Job) -> tuple[int, int, int] | None:
    """(channels, height, width) of what the estimator sees; None where that is no image."""
    source = job.source
    if job.first is not None or source.real or source.kept is not None or not source.is_image:
        return None
    height, width, channels = (*source.shape, 1)[:3]
    return channels, height, width


def _features(job: Job, seed: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an estimator sees of these training rows and of the test rows, [N, D]: pixels, or the M1's live units."""
    source = job.source
    if job.first is None:
        return source.values(source.train_x[rows]), source.values(source.test_x)
    train, test = job.first.live_part(job.first.train), job.first.live_part(job.first.test)
    if job.config.features == "mean":
        return train.means.cpu().numpy()[rows], test.means.cpu().numpy()

    # Paper: approximate samples of q(z | x); here: the mean by default, the usual choice, since it carries no noise.
    def draw(inputs: Posteriors, purpose: str) -> np.ndarray:
        every = torch.arange(len(inputs.means), device=job.device)
        return inputs.draw(every[None], Streams([seed], purpose, job.device))[0].cpu().numpy()

    return draw(train, "features")[rows], draw(test, "test features")

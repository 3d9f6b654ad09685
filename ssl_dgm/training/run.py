"""A configuration to records: what is missing is trained, what is finished is read."""

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.checks import seconds
from ssl_dgm.config import Config, Stopped, UserError
from ssl_dgm.data import sources, splits
from ssl_dgm.data.slots import Slots
from ssl_dgm.data.source import Source
from ssl_dgm.files import locked, remove_torn
from ssl_dgm.training import checkpoints, classifiers, devices, estimates, generative, loggers
from ssl_dgm.training.fit import check_device, deadline_of, flush_denormals
from ssl_dgm.training.jobs import Job, Result, Say, check, outline


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
        deadline = deadline_of(seconds(config.time_limit))
    flush_denormals()  # before torch has threads
    config = dataclasses.replace(config, data=sources.located(config.data))
    source = sources.load(config.data)
    drawn = _splits(config, source) if schema.needs_labels(config) else {}
    if config.split.file is not None and drawn:
        published = dataclasses.replace(config.split, sha256=drawn[config.seeds[0]].sha256)
        config = dataclasses.replace(config, split=published)
    shared = devices.find_devices(config)
    check_device(config, shared[0])
    check(config, source)
    loggers.check(config)
    source = sources.preprocessed(source, config.data)
    say(source.describe())
    key = schema.key(config, source.sha256)
    factorisation = "" if schema.is_estimator(config) else str(outline(config, source))
    folder = records.open_folder(config, key, source.sha256, factorisation, command, source.describe())
    job = Job(config, source, drawn, shared[0], deadline, say, key, folder)
    if factorisation:
        say(factorisation)
    result = Result(config, folder)
    try:
        _carry_out(job, result, command, shared)
    except Stopped:
        raise
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        with contextlib.suppress(UserError):  # a full disk, say, of which `error` tells
            records.fail(folder, f"{kind}{error}".splitlines()[0], traceback.format_exc())
        raise
    if result.lost:
        records.fail(folder, "; ".join(f"seed {seed}: {reason}" for seed, reason in result.lost.items()))
    return result


def _carry_out(job: Job, result: Result, command: str, shared: Sequence[torch.device]) -> None:
    """Trains the seeds that have no record, and reads the records of all, into `result`."""
    config, folder, say = job.config, job.folder, job.say
    if (first := schema.first_stage(config)) is not None:
        say(f"first stage: {first.model.name}, seed {config.m1_seed}")
        result.first = run(first, lambda line: say(f"  {line}"), command, job.deadline)
        if config.m1_seed in result.first.lost:
            result.lost = dict.fromkeys(config.seeds, f"its M1 is lost: {result.first.lost[config.m1_seed]}")
            return
    with locked(folder / ".lock", folder.name, say):
        records.clear_failure(folder)
        done = records.finished(folder, config.seeds, say)
        if config.force:
            # Only what is finished is thrown away, so that a forced run that was interrupted is continued.
            records.forget(folder, done)
            done = []
        missing = [seed for seed in config.seeds if seed not in done]
        _compare_first_stages(job, result, done)
        if done:
            say(f"finished before: {'seed' if len(done) == 1 else 'seeds'} {', '.join(map(str, done))} of {job.key}")
        if missing and result.first is not None:
            job.first = generative.open_first_stage(job, result.first)
        if not schema.ends_in_estimator(config):
            result.lost |= devices.train(job, _groups(job, missing, len(shared)), shared)
        else:
            for group in _chunks(missing, config.seeds_at_once):
                with loggers.opened(config, job.key, folder, group) as job.log:
                    classifiers.fit(job, group)
                    for picture in result.pictures:
                        job.log.picture(picture)
        for seed in config.seeds:
            if record := records.load(folder, seed, say):
                result.records[seed] = record
                _mend_manifest(job, seed)
        _clear(folder, result)


def _clear(folder: Path, result: Result) -> None:
    """Removes what processes that were killed left behind; under the run's lock nobody else writes there."""
    for part in [*folder.glob("seed-*"), *folder.glob("group-*")]:
        remove_torn(part)
    for group in folder.glob("group-*"):
        if all(int(seed) in result.records for seed in group.name.split("-")[1:]):
            checkpoints.remove(group)


def _compare_first_stages(job: Job, result: Result, done: Sequence[int]) -> None:
    """Says so when finished seeds stand on other weights than the M1 that is there now."""
    if result.first is None:
        return
    now = records.weights_sha256(result.first.folder, job.config.m1_seed)
    earlier = {seed: (records.load(job.folder, seed, job.say) or {}).get("m1_sha256") for seed in done}
    if others := [str(seed) for seed, sha256 in earlier.items() if sha256 != now]:
        job.say(
            f"seeds {', '.join(others)} of {job.key} were trained on an M1 with other weights than the one that is "
            "there now (column m1_sha256); force=true trains them again"
        )


def _mend_manifest(job: Job, seed: int) -> None:
    """Writes the manifest of a finished seed again where it is not what it was."""
    if (split := job.splits.get(seed)) is None:
        return
    path = job.folder / f"seed-{seed}" / "split.json"
    try:
        whole = splits.load_manifest(path, job.source).sha256 == split.sha256
    except UserError:
        whole = False
    if not whole:
        job.say(f"{path} is damaged or gone; written again")
        splits.save(split, path)


def _splits(config: Config, source: Source) -> dict[int, splits.Split]:
    labelled = Slots.of(config, source).labelled
    if config.split.file is not None:
        published = splits.load_manifest(Path(config.split.file), source)
        if len(published.labelled) != config.labels:
            n = len(published.labelled)
            raise UserError(f"labels={config.labels} but {config.split.file} labels {n} rows; use labels={n}")
        if hidden := [c for c, count in enumerate(published.class_counts) if count and c not in labelled]:
            raise UserError(
                f"{config.split.file} labels rows of class {hidden[0]}, which is hidden; leave it out of "
                "classes.hidden, or add it to classes.labelled"
            )
        if lacking := [c for c in labelled if not published.class_counts[c]]:
            raise UserError(
                f"{config.split.file} labels no row of class {lacking[0]}, which is not hidden; hide it by "
                f"classes.hidden=[{','.join(map(str, lacking))}]"
            )
        _check_pool(config, source, published)
        return dict.fromkeys(config.seeds, published)
    seed_of = {seed: seed if config.split_seed is None else config.split_seed for seed in config.seeds}
    in_pool, validation = config.data.labelled_in_pool, config.data.pool == "train+validation"
    return {
        seed: splits.draw(source, config.labels, seed_of[seed], in_pool, labelled, validation) for seed in config.seeds
    }


def _check_pool(config: Config, source: Source, published: splits.Split) -> None:
    pool = published.unlabelled
    has = not isinstance(pool, splits.Rest) and int(pool.max()) >= source.num_train
    if has != (config.data.pool == "train+validation"):
        remedy = "train+validation" if has else "train"
        raise UserError(
            f"{config.split.file} has {'' if has else 'no '}validation rows in its pool but data.pool="
            f"{config.data.pool}; use data.pool={remedy}"
        )


def _groups(job: Job, missing: Sequence[int], num_devices: int) -> list[list[int]]:
    """Which seeds are trained together: those that were begun so, then the others, shared out over the devices."""
    at_once = job.config.seeds_at_once
    found = devices.begun(job.folder, missing, at_once)
    fresh = [seed for seed in missing if not any(seed in group for group in found)]
    if not fresh:
        return found
    share = min(at_once, math.ceil(len(missing) / num_devices), len(fresh))
    processes = num_devices if job.device.type == "cpu" else 1
    size = estimates.seeds_at_once(job, fresh, share, processes)
    return found + _chunks(fresh, size)


def _chunks(seeds: Sequence[int], size: int) -> list[list[int]]:
    return [list(seeds[i : i + size]) for i in range(0, len(seeds), size)]

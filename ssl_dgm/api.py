"""ssl_dgm.fit and ssl_dgm.load: trained models as objects that predict, transform and sample."""

import operator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.checks import nearest
from ssl_dgm.compose import compose
from ssl_dgm.config import Config, UserError
from ssl_dgm.data import given, npz, sources, splits
from ssl_dgm.data.inputs import Posteriors
from ssl_dgm.drawing import kinds
from ssl_dgm.drawing.trained import Trained
from ssl_dgm.evaluation import generated, scores
from ssl_dgm.files import sha256_of
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import bounds
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.tables import collect
from ssl_dgm.training import classifiers, generative
from ssl_dgm.training.fit import find_device
from ssl_dgm.training.jobs import Job, Result, create, inputs, trained
from ssl_dgm.training.run import run as carry_out


def fit(*overrides: str, seed: int | None = None, verbose: bool = True, **arrays: Any) -> "Fitted":
    """Trains what the words name, as `python -m ssl_dgm.train` would, and returns it ready for use.

    What is finished is not trained again, and there is no baseline beside it. `seeds=[0,1,2]` trains three;
    `load(fitted, seed=1)` is the next one. The rows go to `runs/rows.csv` all the same.

    Args:
        overrides: 'model=m2', 'data=digits', 'labels=100', ...
        seed: of the seeds, the one to return; the first by default.
        verbose: whether progress is printed.
        arrays: data of your own instead of `data=...`: x, y, x_test and y_test, and x_unlabelled if there is any, as
            `data=npz` takes them (docs/own_data.md). They are kept in the runs folder, where `load` looks for them.

    Raises:
        UserError: one sentence, before anything expensive, for what cannot be, as arrays beside `data=...`; and when
            the seed is lost.
        Stopped: when `time_limit` was reached; the same call continues.
    """
    words = [*overrides, *([] if verbose else ["trainer.progress=false"])]
    if arrays:
        if named := [word for word in map(str, overrides) if word.startswith(("data=", "data.file="))]:
            raise UserError(f"ssl_dgm.fit has {named[0]} and arrays; give it one of them")
        words.insert(0, "data=npz")
    config = compose(words)
    chosen = config.seeds[0] if seed is None else _whole(seed, "seed")
    if chosen not in config.seeds:
        raise UserError(f"seed={chosen} is not of seeds={list(config.seeds)}, which are trained; name one of them")
    kept, is_new = _kept(arrays, Path(config.runs)) if arrays else (None, False)
    if kept is not None:
        config.data.file = str(kept)
    sources.check_available(config.data)
    command = f"ssl_dgm.fit({', '.join([*map(repr, overrides), *(f'{name}=...' for name in arrays)])})"
    say, csv = print if verbose else lambda line: None, Path(config.csv or f"{config.runs}/rows.csv")
    collect.check_ours(csv)
    try:
        result = carry_out(config, say, command)
    except UserError:
        if kept is not None and is_new:
            kept.unlink(missing_ok=True)
        raise
    collect.append(csv, [row for record in result.records.values() for row in collect.rows(record)], say)
    if chosen in result.lost:
        raise UserError(f"seed {chosen} has no result: {result.lost[chosen]}")
    return load(result.folder, seed=chosen, device=config.device)


def _kept(arrays: dict[str, Any], runs: Path) -> tuple[Path, bool]:
    """The file of `data=npz` with these arrays, in the runs folder, and whether it was not there before."""
    names = {"x": "x_train", "y": "y_train", "x_test": "x_test", "y_test": "y_test", "x_unlabelled": "x_unlabelled"}
    if unknown := [name for name in arrays if name not in names]:
        raise UserError(f"ssl_dgm.fit takes no {unknown[0]}; {nearest(unknown[0], [*names, 'seed', 'verbose'])}")
    if missing := [name for name in ("x", "y", "x_test", "y_test") if arrays.get(name) is None]:
        raise UserError(f"ssl_dgm.fit has no {missing[0]}; give x, y, x_test and y_test, or none and data=...")
    made = {names[name]: given.array_of(a, name) for name, a in arrays.items() if a is not None}
    npz.parts(made, lambda name: next(ours for ours, theirs in names.items() if theirs == name), [])
    return npz.keep(runs / "arrays", made)


def load(run: "str | Path | Fitted", seed: int | None = None, device: str = "auto") -> "Fitted":
    """A finished seed of a run.

    Args:
        run: its folder, or a `Fitted` of the same run; `python -m ssl_dgm.runs ls` lists them.
        seed: which; the smallest finished one by default.

    Raises:
        UserError: when there is no such run or seed, or its weights are damaged.
    """
    folder = run.folder if isinstance(run, Fitted) else records.find(Path(run))
    done = records.seeds(folder)
    if not done:
        raise UserError(f"{folder} has no finished seed; the command in its README.md continues it")
    chosen = done[0] if seed is None else _whole(seed, "seed")
    if chosen not in done:
        raise UserError(f"seed {chosen} of {folder.name} is not finished; there are {', '.join(map(str, done))}")
    return Fitted(folder, chosen, device)


class Fitted:
    """A trained seed of a run.

    Attributes:
        folder, seed, config: which run it is.
        record: everything that was noted of it; `metrics` is a part of that.
    """

    def __init__(self, folder: Path, seed: int, device: str = "auto") -> None:
        record = records.load(folder, seed, lambda line: None)
        if record is None:
            raise UserError(f"the record of seed {seed} in {folder} is damaged; run its command again to mend it")
        self.folder, self.seed, self.record = folder, seed, record
        self.config: Config = records.settings(folder)
        self.config.runs = str(folder.parent)
        self._job = _reopened(self.config, folder, record, find_device(device))
        if self._job.first is not None and self._job.first.sha256 != record["m1_sha256"]:
            raise UserError(
                f"{self._job.first.result.folder} was trained again and has other weights than the M1 that seed "
                f"{seed} of {folder.name} was trained on; run the command in its README.md with force=true"
            )
        self._network = None if schema.ends_in_estimator(self.config) else _network(self._job, seed)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"<{self.record['model']} on {self.config.data.called}, seed {self.seed}: {found}>"

    @cached_property
    def model(self) -> Any:
        """The LightningModule with its weights, or a scikit-learn estimator, which is fitted when it is asked for."""
        # The same rows and the same seed make the same estimator.
        return classifiers.fitted(self._job, self.seed) if self._network is None else self._network

    @property
    def metrics(self) -> dict[str, float]:
        """By name; errors are fractions, bounds nats per row."""
        return self.record["metrics"]

    @property
    def classes(self) -> np.ndarray:
        """Names of the classes [C], numbers where they have none: `fitted.classes[fitted.predict(x)]`."""
        source = self._job.source
        return np.arange(source.num_classes) if source.classes is None else np.array(source.classes)

    @cached_property
    def split(self) -> splits.Split | None:
        """The rows whose labels it saw; None of a bare M1."""
        return self._job.splits.get(self.seed)

    def predict(self, x: Any) -> np.ndarray:
        """The most probable class of every row, int64 [N]: by q(y | x), or by the classifier on the M1's means.

        That is how a run is scored unless it has classify=generative or features=sample, which draw samples. Of a model
        with free slots, the class that the most probable slot is attributed to, -1 where it is to none.

        Args:
            x: images [N, H, W] or rows [N, D]: uint8 from 0 to 255, or floats from 0 to 1; any numbers where the data
                are real numbers.

        Raises:
            UserError: for another shape or range, and for a model without classes.
        """
        if isinstance(self.model, DeepGenerativeModel):
            slots = self._log_q_y(x).argmax(-1).cpu().numpy()
            attribution = self.record.get("attribution")
            return slots if attribution is None else np.asarray(attribution, np.int64)[slots]
        return np.asarray(self.model.predict(self._features(x)), np.int64)

    def predict_proba(self, x: Any) -> np.ndarray:
        """q(y | x) of every row, float32 [N, K]; an estimator's probabilities, 0 for classes without a labelled row.

        Of a model with free slots the columns are slots: `record["attribution"]` says which class each one is.

        Raises:
            UserError: as `predict`, and for an SVM, which has none.
        """
        if isinstance(self.model, DeepGenerativeModel):
            return self._log_q_y(x).exp().cpu().numpy()
        if not hasattr(self.model, "predict_proba"):
            raise UserError(f"{self.record['model']} has no probabilities; use predict, or classifier=logistic")
        found = np.asarray(self.model.predict_proba(self._features(x)), np.float32)
        probabilities = np.zeros((len(found), self._job.source.num_classes), np.float32)
        probabilities[:, self.model.classes_] = found
        return probabilities

    def transform(self, x: Any) -> np.ndarray:
        """Means of q(z | x) of the M1: its own, or the live units of the one that this model builds on, [N, D].

        Raises:
            UserError: for a model without an M1.
        """
        rows = self._rows(x)
        if self._job.first is not None:
            return self._through_first(rows).means.cpu().numpy()
        if self.config.model.name != "m1":
            raise UserError(f"{self.record['model']} has no M1 whose features could be had; use model=m1 or m1m2")
        return scores.posteriors(self.model, _exactly(rows), len(rows))[0].means.cpu().numpy()

    def sample(self, n: int, y: int | str | None = None, seed: int = 0) -> np.ndarray:
        """Mean images of n draws from the generative model, float32 [n, H, W] or [n, H, W, C]; [n, D] of other rows.

        Args:
            y: the class by its number or name, or the slot, of all of them; None: all in turn, 0, 1, 2, ..., for a
                model that has any.

        Raises:
            UserError: for an estimator, for less than one draw, and for a class that is not there.
        """
        if not isinstance(self.model, DeepGenerativeModel):
            raise UserError(f"{self.record['model']} generates nothing; use model=m1, m2 or m1m2")
        if self.model.factorisation.conditions:
            raise UserError(f"{self.record['model']} draws images around a part that is given; use complete")
        if (n := _whole(n, "n")) < 1:
            raise UserError(f"n={n} is no number of samples; use 1 or more")
        classes, one_hot = self._job.slots.num_slots, None
        if isinstance(y, str):
            names = list(self._job.source.classes or ()) if self.model.has_classes else []
            if y not in names:
                raise UserError(f"y={y} is no class; {nearest(y, names) if names else 'use its number'}")
            y = names.index(y)
        y = None if y is None else _whole(y, "y")
        if y is not None and not (self.model.has_classes and 0 <= y < classes):
            known = f"there are 0 to {classes - 1}" if self.model.has_classes else "the model has no classes"
            raise UserError(f"y={y} is no class; {known}")
        if self.model.has_classes:
            chosen = torch.arange(n, device=self.model.device) % classes if y is None else torch.full((n,), y)
            like = next(self.model.parameters())
            one_hot = bounds.classes(self.model.factorisation, like)[chosen.to(like.device), 0]
        first = self._job.first and (self._job.first.model, self._job.first.live)
        streams = Streams([seed], "samples asked for", self.model.device)
        with torch.no_grad():
            means = generated.draw(self.model, first, n, one_hot, streams)
        return self._job.source.to_images(means.view(n, -1).cpu().numpy())

    def complete(self, x: Any) -> np.ndarray:
        """Mean images around the part of x that the model is given, float32 [N, draws, H, W] or [N, draws, H, W, C].

        Raises:
            UserError: for a model that is not conditional.
        """
        if not (isinstance(self.model, DeepGenerativeModel) and self.model.factorisation.conditions):
            raise UserError(f"{self.record['model']} is not conditioned on a part of x; use model=cvae")
        completed = generated.completions(self.model, self._rows(x))[:, 2:]
        return self._job.source.to_images(completed.cpu().numpy())

    def draw(self, *names: str, folder: Path | str | None = None) -> list[Path]:
        """Draws figures of it as PNG and PDF, or GIF, with their captions (docs/figures.md); returns PNGs and GIFs.

        Args:
            names: which, or the name of a set; all by default. Those that it does not have are left out.
            folder: where to; the run's own `figures` by default.

        Raises:
            UserError: for a name that is none, and when the folder cannot be written to.
        """
        to = self.folder / "figures" if folder is None else Path(folder)
        return kinds.draw(self.trained, to, kinds.named(names or ("all",)))

    @cached_property
    def trained(self) -> Trained:
        """It as its figures see it, for functions of `ssl_dgm.drawing`."""
        return trained(self._job, self._network, self.seed)

    def _rows(self, x: Any) -> Tensor:
        """x as the rows that the model sees: float32 [N, x_dim], pixels in [0, 1], on its device."""
        return torch.from_numpy(given.rows_of(x, self._job.source)).to(self._job.device)

    def _through_first(self, rows: Tensor) -> Posteriors:
        first = self._job.first
        assert first is not None
        return first.live_part(scores.posteriors(first.model, _exactly(rows), len(rows))[0])

    def _features(self, x: Any) -> np.ndarray:
        rows = self._rows(x)
        return (rows if self._job.first is None else self._through_first(rows).means).cpu().numpy()

    def _log_q_y(self, x: Any) -> Tensor:
        if not self.model.has_classes:
            raise UserError(f"{self.record['model']} has no classes; use transform, or add classifier=svm")
        rows = self._rows(x)
        seen = _exactly(rows) if self._job.first is None else self._through_first(rows)
        return scores.log_q_y(self.model, seen, len(rows))[0]


def _whole(value: Any, name: str) -> int:
    """A whole number, Python's or NumPy's."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise UserError(f"{name}={value!r} is no whole number; give one") from error


def _exactly(rows: Tensor) -> Posteriors:
    """Rows that are known: Gaussians of no width."""
    return Posteriors(rows, torch.full_like(rows, -torch.inf))


def _reopened(config: Config, folder: Path, record: dict[str, Any], device: torch.device) -> Job:
    """What the run's parts shared, with the seed's split as its manifest has it, and the M1 that it builds on."""
    # Arrays given to `fit` move with their runs folder.
    if config.data.file is not None and not Path(config.data.file).exists():
        beside = folder.parent / "arrays" / Path(config.data.file).name
        config.data.file = str(beside) if beside.is_file() else config.data.file
    try:
        source = sources.preprocessed(sources.load(config.data), config.data)
    except UserError as error:
        is_own = config.data.file or config.data.folder
        hint = "; the command in its README.md with their new place notes it, and trains nothing" if is_own else ""
        raise UserError(f"{folder.name} is loaded with the rows it was trained on: {error}{hint}") from error
    if source.sha256 != record["data_sha256"]:
        found = f"the rows of {config.data.called} are not those that {folder.name} was trained on"
        raise UserError(f"{found}, which loading needs; put those back, or train on the new ones")
    manifest = folder / f"seed-{record['seed']}" / "split.json"
    drawn = {record["seed"]: splits.load_manifest(manifest, source)} if schema.needs_labels(config) else {}
    job = Job(config, source, drawn, device, None, lambda line: None, folder.name, folder)
    if (first := schema.first_stage(config)) is not None:
        first_folder = folder.parent / schema.key(first, source.sha256)
        _check_weights(first_folder, config.m1_seed)
        job.first = generative.open_first_stage(job, Result(first, first_folder))
    return job


def _network(job: Job, seed: int) -> DeepGenerativeModel:
    _check_weights(job.folder, seed)
    weights = load_file(job.folder / f"seed-{seed}" / "weights.safetensors")
    weights.pop("m1_live_units", None)
    model = create(job, [seed], inputs(job)[0].x_dim)
    model.load_state_dict({name: tensor[None] for name, tensor in weights.items()})
    return model.to(job.device).eval()


def _check_weights(folder: Path, seed: int) -> None:
    path = folder / f"seed-{seed}" / "weights.safetensors"
    record = records.load(folder, seed, lambda line: None)
    if record is None or not path.is_file():
        raise UserError(f"{path} or its record is gone; run the command in the README.md of the run again")
    if sha256_of(path) != record.get("weights_sha256", sha256_of(path)):
        raise UserError(f"{path} is damaged; run the command in {folder / 'README.md'} again to mend it")

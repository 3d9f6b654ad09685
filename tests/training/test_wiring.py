"""What a run's settings, splits and rows say arrives where it is used: in the model, its batches and its scores."""

from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import made_jobs
import numpy as np
import pytest
import torch
from conftest import SMOKE
from torch import Tensor

import ssl_dgm
from ssl_dgm import config as schema
from ssl_dgm.baselines import estimators
from ssl_dgm.data import sources, splits
from ssl_dgm.data.inputs import Pixels, Posteriors
from ssl_dgm.evaluation import likelihood, scores
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.training import classifiers, generative
from ssl_dgm.training.callbacks import Best, Curves
from ssl_dgm.training.jobs import FirstStage, Job, Result, create, data_module, inputs
from ssl_dgm.training.loggers import Log

SOURCE = sources.load("digits")
CPU = torch.device("cpu")
job_of = partial(made_jobs.job_of, "budget=smoke", "trainer.progress=false", "seeds=[0,3]")


def model_of(job: Job) -> DeepGenerativeModel:
    model = create(job, job.config.seeds, inputs(job)[0].x_dim)
    return model.eval()


# --- Which labels teach


@pytest.fixture
def as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators are not fitted: what they would have been fitted to is returned."""
    monkeypatch.setattr(estimators, "fitted", lambda estimator, x, y: (estimator, x, y))


@pytest.mark.usefixtures("as_given")
@pytest.mark.parametrize("in_pool", ["false", "true"])
@pytest.mark.parametrize("name", schema.TRANSDUCTIVE)
def test_an_estimator_sees_the_labels_of_its_split_and_no_others(name: str, in_pool: str) -> None:
    job = job_of(f"model={name}", f"data.labelled_in_pool={in_pool}")
    for seed, split in job.splits.items():
        _, x, y = classifiers.fitted(job, seed)
        rows = np.concatenate([split.labelled, np.setdiff1d(np.arange(SOURCE.num_train), split.labelled)])
        np.testing.assert_array_equal(x, SOURCE.values(SOURCE.train_x[rows]))
        np.testing.assert_array_equal(y[:100], SOURCE.train_y[split.labelled])
        assert (y[100:] == estimators.UNLABELLED).all() and len(y) == SOURCE.num_train


@pytest.mark.usefixtures("as_given")
def test_an_inductive_estimator_sees_nothing_else_and_has_its_own_seed() -> None:
    job = job_of("model=nn")
    for seed, split in job.splits.items():
        estimator, x, y = classifiers.fitted(job, seed)
        assert estimator.random_state == seed
        np.testing.assert_array_equal(x, SOURCE.values(SOURCE.train_x[split.labelled]))
        np.testing.assert_array_equal(y, SOURCE.train_y[split.labelled])


def test_every_seed_of_a_model_learns_from_its_own_split() -> None:
    job = job_of("model=m2")
    data = data_module(job, inputs(job)[0], job.config.seeds)
    for s, seed in enumerate(job.config.seeds):
        assert data.labelled[s].tolist() == job.splits[seed].labelled.tolist()
        assert data.unlabelled[s].tolist() == np.asarray(job.splits[seed].unlabelled).tolist()
    assert data.labelled[0].tolist() != data.labelled[1].tolist()


def test_seeds_share_the_labels_of_split_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    first = ssl_dgm.fit("model=knn", "data=digits", "labels=50", "seeds=[0,1]", "split_seed=7", verbose=False)
    for seed in (0, 1):
        record = ssl_dgm.load(first, seed=seed).record
        assert (record["split_seed"], record["split_sha256"]) == (7, splits.draw(SOURCE, 50, 7).sha256)


def test_the_validation_error_of_an_estimator_is_of_the_validation_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted = ssl_dgm.fit("model=knn", "data=digits", "labels=50", verbose=False)
    held_out = slice(SOURCE.num_train, None)
    of_rows = {
        "validation": (SOURCE.train_x, SOURCE.train_y, held_out),
        "test": (SOURCE.test_x, SOURCE.test_y, slice(None)),
    }
    for name, (x, y, rows) in of_rows.items():
        wrong = fitted.model.predict(SOURCE.values(x[rows])) != y[rows]
        assert fitted.metrics[f"{name}/error"] == pytest.approx(np.mean(wrong))


# --- What the model is told


def test_a_model_knows_how_many_rows_it_has() -> None:
    for in_pool, unlabelled in (("false", 997), ("true", 1097)):
        model = model_of(job_of("model=m2", f"data.labelled_in_pool={in_pool}"))
        assert (model.num_labelled, model.num_unlabelled) == (100, unlabelled)
        assert model.objective.labelled_weight == pytest.approx(100 / unlabelled)
    assert model_of(job_of("model=avae")).num_unlabelled == 1097


def test_the_prior_of_y_is_that_of_the_slots() -> None:
    job = job_of("model=gmdgm", "classes.hidden=[3,4]", "classes.extra=2", "labels=80")
    prior = model_of(job).factorisation.p["y"]({}).log_probs.exp()  # type: ignore[operator]
    assert job.slots.prior is not None and len(set(job.slots.prior)) > 1, "it is not uniform"
    torch.testing.assert_close(prior.flatten(), torch.tensor(job.slots.prior), check_dtype=False)


def test_grey_values_of_few_levels_are_counts_and_drawn_ones_are_bits() -> None:
    for pixels, trials in (("grey", SOURCE.trials), ("sampled", 1)):
        job = job_of("model=avae", f"data.pixels={pixels}")
        assert model_of(job).factorisation.p["x"].trials == trials
        for rows in inputs(job):
            assert isinstance(rows, Pixels) and rows.binarise == (pixels == "sampled")
    assert SOURCE.trials == 16


# --- What stands on an M1


def on_an_m1(*words: str) -> Job:
    """A job on an M1 of five units, the second and the last of which are dropped."""
    job = job_of(*words)
    job.config.model.min_unit_sd = 0.1

    def rows(n: int, seed: int) -> Posteriors:
        generator = torch.Generator().manual_seed(seed)
        return Posteriors(torch.randn(n, 5, generator=generator), torch.randn(n, 5, generator=generator))

    live = torch.tensor([True, False, True, True, False])
    train, test = rows(len(SOURCE.train_y), 1), rows(len(SOURCE.test_y), 2)
    job.first = FirstStage(Result(job.config, Path()), None, train, test, live, "")  # type: ignore[arg-type]
    return job


def test_stage_2_sees_fresh_draws_of_the_live_units() -> None:
    job = on_an_m1("model=m1m2")
    assert job.first is not None
    for rows, q in zip(inputs(job), (job.first.train, job.first.test)):
        streams = Streams([0], "inputs", CPU)
        streams.begin(0)
        first = torch.arange(400)[None]
        drawn = torch.stack([rows.draw(first, streams)[0] for _ in range(200)])
        means, sds = q.means[:400][:, job.first.live], (0.5 * q.log_vars[:400][:, job.first.live]).exp()
        assert ((drawn.mean(0) - means).abs() < 6 * sds / 200**0.5).all()
        assert (drawn.std(0) / sds - 1).abs().max() < 0.35


@pytest.mark.usefixtures("as_given")
def test_a_classifier_on_an_m1_sees_means_or_draws_of_its_own_seed() -> None:
    job = on_an_m1("model=m1", "classifier=svm", "features=mean")
    assert job.first is not None
    live = job.first.live
    for seed, split in job.splits.items():
        x = classifiers.fitted(job, seed)[1]
        np.testing.assert_array_equal(x, job.first.train.means[split.labelled][:, live].numpy())
    job.config.features = "sample"
    seen = {seed: classifiers._features(job, seed, np.arange(300)) for seed in job.config.seeds}
    for drawn, q in zip(zip(*seen.values()), (job.first.train, job.first.test)):
        standard = [
            (torch.from_numpy(x[:300]) - q.means[:300, live]) / (0.5 * q.log_vars[:300, live]).exp() for x in drawn
        ]
        for noise in standard:
            assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.1
        assert abs((standard[0] * standard[1]).mean()) < 0.15, "seeds have noise of their own"


def test_units_are_live_by_their_s_d_over_the_training_rows() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    means = torch.cat([signs * torch.tensor([0.05, 0.2, 0.0]), 9 * signs[:10] * torch.tensor([0.0, 0.0, 1.0])])
    of_units = Posteriors(means, torch.zeros_like(means))
    assert scores.live_units(of_units, 100, 0.1).tolist() == [False, True, False]


# --- What is scored


class NoMeans(Pixels):
    """Pixels whose expectation nobody may ask for."""

    def mean(self, rows: Tensor) -> NoReturn:
        raise AssertionError("a bound of grey values is none on the log-probability of bits")


def test_bounds_and_likelihoods_are_of_drawn_pixels() -> None:
    job = job_of("model=m2", "data.pixels=sampled", "likelihood_samples=3", "likelihood_rows=7")
    model, test = model_of(job), NoMeans(torch.from_numpy(SOURCE.test_x))
    assert set(generative._densities(job, model, test)) == {"test/bound", "test/log_likelihood"}


def test_the_likelihood_is_of_so_many_rows_by_so_many_samples_and_by_the_proposal_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = job_of("model=avae", "likelihood_samples=5", "likelihood_rows=7")
    model, (_, test) = model_of(job), inputs(job)
    found = generative._densities(job, model, test)["test/log_likelihood"]
    torch.testing.assert_close(found, likelihood.by_q(model, test, 7, 5).mean(1), rtol=1e-6, atol=0)
    asked = []

    def by_chains(model: Any, test: Any, num_rows: int, samples: int, verbose: bool) -> Tensor:
        asked.append((num_rows, samples))
        return torch.zeros(2, num_rows)

    monkeypatch.setattr(likelihood, "by_chains", by_chains)
    job.config.likelihood_estimator = "hmc"
    assert not generative._densities(job, model, test)["test/log_likelihood"].any() and asked == [(7, 5)]


def test_classes_are_scored_by_q_or_by_so_many_importance_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sampled = [], scores.sampled

    def noted(model: Any, score: Any, *rest: Any, **named: Any) -> Tensor:
        if score == model.class_log_joint:
            asked.append(named["samples"])
        return sampled(model, score, *rest, **named)

    monkeypatch.setattr(scores, "sampled", noted)
    job = job_of("model=m2", "generative_samples=7")
    model, (train, test) = model_of(job), inputs(job)
    y = torch.from_numpy(SOURCE.test_y)
    for classify, expected in (("discriminative", []), ("generative", [7, 7])):
        job.config.classify = classify
        metrics, _, _ = generative._metrics(job, model, train, test)
        assert asked == expected
        if classify == "discriminative":
            log_q = scores.log_q_y(model, test, len(y))
            np.testing.assert_allclose(metrics["test/error"], (log_q.argmax(-1) != y).float().mean(1), rtol=1e-6)


def test_every_seed_has_its_own_live_units() -> None:
    job = job_of("model=m1", "classifier=none", "model.min_unit_sd=0.001")
    model, rows = model_of(job), inputs(job)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q.z" in name:
                parameter[1] = 0
    metrics, _, _ = generative._metrics(job, model, *rows)
    assert metrics["live_units"][0] > 0 == metrics["live_units"][1]


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_the_entropy_of_uniform_classes_is_that_of_as_many(shift: float) -> None:
    log_probs = torch.full((2, 6, 10), shift)
    torch.testing.assert_close(scores.entropy(log_probs), torch.full((2,), 10.0).log())


# --- What a training keeps


def test_curves_are_means_over_the_updates_of_an_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    seen, watch = [], Curves.on_train_batch_end

    def noted(self: Curves, trainer: Any, model: DeepGenerativeModel, *rest: Any) -> None:
        seen.append(model.terms["loss"].detach().clone())
        watch(self, trainer, model, *rest)

    monkeypatch.setattr(Curves, "on_train_batch_end", noted)
    words = ("budget.epochs=1", "budget.updates_per_epoch=3", "seeds=[0,1]")
    run = ssl_dgm.fit(*SMOKE, *words, verbose=False).folder
    assert len(seen) == 3
    rows = ssl_dgm.records.read_curves(run / "group-0-1" / "metrics.csv")
    torch.testing.assert_close(torch.tensor([row["train/loss"] for row in rows]), torch.stack(seen).mean(0))


def test_callbacks_are_resumed_as_they_were(tmp_path: Path) -> None:
    best = Best()
    best.score, best.epoch, best.parameters = torch.tensor([0.1]), torch.tensor([4]), {"w": torch.ones(1, 2)}
    curves = partial(Curves, tmp_path / "metrics.csv", print, Log())
    (watched := curves()).lost = {3: "all terms became non-finite"}
    (again := Best()).load_state_dict(best.state_dict())
    assert vars(again) == vars(best)
    (resumed := curves()).load_state_dict(watched.state_dict())
    assert resumed.lost == watched.lost

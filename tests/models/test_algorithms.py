"""Wake-sleep and Monte-Carlo EM: what teaches what, where chains go, and whole runs on the digits."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import SEEDS, every_mode, losses_of, make, make_batch, make_noise, replica, roughen

from ssl_dgm.config import ObjectiveConfig
from ssl_dgm.models.algorithms import FIRST_STEP, GAIN, Chains
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability import hmc
from ssl_dgm.probability.randomness import Streams

every_algorithm = pytest.mark.parametrize("algorithm", ["wake_sleep", "monte_carlo_em"])


def model_of(algorithm: str, seeds: tuple[int, ...] = SEEDS, mode: str = "loop") -> DeepGenerativeModel:
    model = make("m1", seeds, mode, objective=ObjectiveConfig(algorithm=algorithm))
    roughen(model)
    return model


def gradients(model: DeepGenerativeModel, s: int, side: str) -> list[Tensor]:
    parameters = getattr(model.factorisation, side).parameters()
    return [p.grad[s] for p in parameters if p.grad is not None]


@every_mode
def test_wake_sleep_teaches_p_by_q_s_draws_and_q_by_dreams(mode: str) -> None:
    model = model_of("wake_sleep", mode=mode)
    batch = make_batch(model)
    noise = make_noise(model, batch)
    losses_of(model, batch, noise)["loss"].sum().backward()
    for s in range(len(SEEDS)):
        f, x = replica(model, s), batch.x_unlabelled[s]
        with torch.no_grad():
            q = f.q["z"]({"x": x})
            z = q.mean + q.log_var.exp().sqrt() * noise["unlabelled"]["z"][s]
            dreamt = noise["dreams"]["z"][s]
            dreams = (torch.special.ndtr(noise["dreams"]["x"][s]) > 1 - f.p["x"]({"z": dreamt}).mean).float()
        awake = f.p["x"]({"z": z}).log_prob(x).mean()
        asleep = f.q["z"]({"x": dreams}).log_prob(dreamt).mean()
        assert 0.1 < dreams.mean() < 0.9
        for side, objective in (("p", awake), ("q", asleep)):
            expected = torch.autograd.grad(-objective, list(getattr(f, side).parameters()))
            for own, other in zip(gradients(model, s, side), expected, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


@every_mode
def test_monte_carlo_em_teaches_p_by_the_chains_alone(mode: str) -> None:
    model = model_of("monte_carlo_em", mode=mode)
    batch = make_batch(model)
    z = make_noise(model, batch)["unlabelled"]["z"]
    losses_of(model, batch, {"unlabelled": {"z": z}})["loss"].sum().backward()
    for s in range(len(SEEDS)):
        f, x = replica(model, s), batch.x_unlabelled[s]
        for side, density in (("p", f.p["x"]({"z": z[s]}).log_prob(x)), ("q", f.q["z"]({"x": x}).log_prob(z[s]))):
            expected = torch.autograd.grad(-density.mean(), list(getattr(f, side).parameters()))
            for own, other in zip(gradients(model, s, side), expected, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def moved(mode: str, rows: Tensor, x: Tensor, times: int) -> tuple[Chains, Tensor]:
    """Chains after some transitions of `rows` [S, B], and the states on the way, [times, S, B, 2]."""
    model = model_of("monte_carlo_em", SEEDS[: len(rows)], mode)
    chains, streams, visited = Chains.begun(model), Streams(model.seeds, "test"), []
    for _ in range(times):
        num = rows.shape[1]
        noise = model.noise(streams, unlabelled={"z": (1, 1, num, 2)}, decisions={"z": (1, 1, num, 1)})
        visited.append(chains.move(model, x, rows, noise)[:, 0, 0])
    return chains, torch.stack(visited)


def test_chains_of_the_rows_asked_for_move_in_a_loop_as_by_vmap() -> None:
    rows = torch.tensor([[3, 9], [0, 1], [7, 2]])
    x = make_batch(model_of("monte_carlo_em")).x_unlabelled[:, :2]
    (loop, _), (batched, _) = (moved(mode, rows, x, 3) for mode in ("loop", "vmap"))
    torch.testing.assert_close(loop.z, batched.z)
    still = torch.ones(loop.z.shape[:2], dtype=torch.bool).scatter_(1, rows, False)
    before = Chains.begun(model_of("monte_carlo_em")).z
    assert torch.equal(loop.z[still], before[still]) and not torch.equal(loop.z, before)


def test_chains_go_to_the_posteriors_of_their_rows() -> None:
    model = model_of("monte_carlo_em", SEEDS[:1])
    both = make_batch(model).x_unlabelled[:, :2]
    chains, visited = moved("loop", torch.arange(36)[None], both.repeat_interleave(18, 1), 80)
    found = visited[40:, 0].unflatten(1, (2, 18)).mean((0, 2))
    z = torch.cartesian_prod(*[torch.linspace(-5, 5, 101)] * 2).unsqueeze(1)
    density = replica(model, 0).p["x"]({"z": z}).log_prob(both[0]) - 0.5 * z.square().sum(-1)
    exact = (density.softmax(0).unsqueeze(-1) * z).sum(0).detach()
    assert exact.std() > 0.3
    torch.testing.assert_close(found, exact, atol=0.2, rtol=0)
    assert chains.step > 0.2


# --- Whole runs


def words(algorithm: str, epochs: int = 4) -> list[str]:
    return [
        "model=m1", "classifier=none", "data=digits", f"objective={algorithm}", "optimizer=adagrad", "optimizer.lr=0.1",
        "optimizer.schedule=constant", "model.z_dim=3", "network.hidden=[40]", "network.activation=tanh",
        f"budget.epochs={epochs}", "budget.updates_per_epoch=10", "trainer.progress=false", "trainer.compile=never",
        "trainer.checkpoint_every=1", "baseline=null",
    ]  # fmt: skip


def records(folder: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/seed-*/result.json")}


@every_algorithm
def test_a_run_learns_and_is_the_same_stopped_and_alone(
    algorithm: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    asked = words(algorithm)
    whole = command(*asked, "seeds=[1,4]", "runs=whole")
    assert whole.code == 0, whole.err
    stopped = command(*asked, "seeds=[1,4]", "runs=parts", "time_limit=0.1s")
    assert "stopped m1 after epoch 1" in stopped.out
    assert command(*asked, "seeds=[1,4]", "runs=parts").code == 0
    assert command(*asked, "seeds=[4]", "runs=alone").code == 0
    found = {name: records(tmp_path / name) for name in ("whole", "parts", "alone")}
    for seed in ("seed-1", "seed-4"):
        own, other = found["whole"][seed], found["parts"][seed]
        assert (own["weights_sha256"], own["metrics"]) == (other["weights_sha256"], other["metrics"])
    updates = 40 * (5 if algorithm == "monte_carlo_em" else 1)
    assert found["whole"]["seed-4"]["updates"] == updates
    metrics, alone = found["whole"]["seed-4"]["metrics"], found["alone"]["seed-4"]["metrics"]
    assert metrics["test/bound"] == pytest.approx(alone["test/bound"], rel=1e-3)
    (curve,) = (tmp_path / "whole").glob("*/group-1-4/metrics.csv")
    bounds = [float(row["validation/bound"]) for row in csv.DictReader(curve.open()) if row["seed"] == "4"]
    assert bounds[-1] > bounds[0] + 0.5


def test_both_estimates_of_the_likelihood_agree_on_a_trained_model(command: Callable[..., Any], tmp_path: Path) -> None:
    found = {}
    for estimator, samples in (("q", 2000), ("hmc", 500)):
        estimate = [
            "data.pixels=sampled",
            f"likelihood_samples={samples}",
            f"likelihood_estimator={estimator}",
            "likelihood_rows=60",
        ]
        assert command(*words("bound", 15), *estimate, f"runs={estimator}").code == 0
        found[estimator] = records(tmp_path / estimator)["seed-0"]["metrics"]
    assert found["q"]["test/bound"] == found["hmc"]["test/bound"]
    assert found["hmc"]["test/log_likelihood"] == pytest.approx(found["q"]["test/log_likelihood"], abs=0.05)


def test_a_seed_s_step_follows_the_acceptance_of_its_own_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    acceptance = torch.tensor([[1.0, 1.0], [0.0, 0.4], [0.9, 0.9]])
    monkeypatch.setattr(hmc, "transition", lambda density, z, *rest: hmc.Moved(z, acceptance))
    rows = torch.tensor([[3, 9], [0, 1], [7, 2]])
    chains, _ = moved("loop", rows, make_batch(model_of("monte_carlo_em")).x_unlabelled[:, :2], 1)
    torch.testing.assert_close(chains.step, FIRST_STEP * (GAIN * torch.tensor([0.1, -0.7, 0.0])).exp())

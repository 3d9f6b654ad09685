"""Updates that are captured as a CUDA graph, against Lightning's plain ones."""

from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from test_fitting import quiet, train
from zoo import every_model

from ssl_dgm.config import ObjectiveConfig, OptimizerConfig

GPU = torch.cuda.is_available()
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
SETTINGS: dict[str, Any] = {
    "plain": {},
    "scheduled and capped": {"optimizer": OptimizerConfig(lr=0.02, schedule="cosine", clip_norm=0.5)},
    "adam_uncorrected": {"optimizer": OptimizerConfig("adam_uncorrected", lr=0.02, schedule="cosine")},
    "adagrad": {"optimizer": OptimizerConfig("adagrad", lr=0.02, schedule="cosine")},
    "warmed up": {"objective": ObjectiveConfig(warm_up_epochs=2, draws=2)},
    "classes left out": {"objective": ObjectiveConfig(class_threshold=0.2)},
    "few classes": {"objective": ObjectiveConfig(class_terms=2, draws=2)},
}


@quiet
@every_model
@devices
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_captured_updates_are_lightning_s_own(name: str, device: str, settings: dict[str, Any]) -> None:
    plain, by_lightning = train(name, mode="vmap", device=device, **settings)
    captured, as_graph = train(name, mode="vmap", device=device, captured=True, **settings)
    assert plain.automatic_optimization and not captured.automatic_optimization
    assert (captured.captured.graph is not None) == (device == "cuda")
    assert len(by_lightning.losses) == len(as_graph.losses) == 20 == captured.trainer.global_step
    torch.testing.assert_close(torch.stack(as_graph.losses), torch.stack(by_lightning.losses), rtol=1e-4, atol=1e-4)
    assert as_graph.rates == pytest.approx(by_lightning.rates)
    assert as_graph.passed == by_lightning.passed
    for (parameter, a), b in zip(captured.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda m, p=parameter: f"{p}: {m}")


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("terms", [0, 2])
def test_compiled_losses_are_the_plain_ones(terms: int) -> None:
    said: list[str] = []
    objective = ObjectiveConfig(class_terms=terms)
    _, plainly = train("m2", objective=objective)
    model, compiled = train("m2", objective=objective, compiled=said.append)
    assert not said and model.all_losses.args[0].works
    torch.testing.assert_close(torch.stack(compiled.losses), torch.stack(plainly.losses), rtol=1e-5, atol=1e-5)


@quiet
def test_without_a_compiler_the_losses_are_run_as_they_are() -> None:
    said: list[str] = []
    _, plainly = train("m2")
    with torch._inductor.config.patch("cpp.cxx", ("no-such-compiler",)):
        torch._dynamo.reset()
        _, compiled = train("m2", compiled=said.append)
    assert len(said) == 1 and said[0].startswith("torch.compile does not work here (")
    torch.testing.assert_close(torch.stack(compiled.losses), torch.stack(plainly.losses))

"""The loops of ssl_dgm: as a run does it, and bare, without Lightning."""

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from ssl_dgm.data.datamodule import Batch, SeededDataModule
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.probability.randomness import Streams
from ssl_dgm.training.fit import find_device, fit, flush_denormals, keep_freed_memory
from ssl_dgm.training.loggers import Log

from .cases import UNLABELLED, Case, build, settings
from .race import Turns


def ours(case: Case, turns: Turns) -> None:
    """A run's own training: Lightning's Trainer, curves, checkpoints, row gathering, binarisation, noise, Adam."""
    config = settings(case)
    model, data = build(case, config)
    _make_sure(model, data, case.warm)
    turns.forget_peak()
    # Lightning calls it behind the callbacks of the same update, the curves among them.
    model.on_train_batch_end = lambda *_: turns()  # type: ignore[method-assign]
    turns.facts["deal ms"] = lambda: _milliseconds_to_deal(data)
    if model.has_classes:
        turns.facts["classes kept"] = lambda: _classes_kept(model, data)
    with tempfile.TemporaryDirectory() as folder:
        fit(config, model, data, Path(folder), find_device(case.device), None, _silent, Log())


def _silent(sentence: str) -> None:
    pass


class Bare:
    """The same updates without Lightning, callbacks and logs."""

    def __init__(self, case: Case) -> None:
        config = settings(case)
        self.device = find_device(case.device)
        self.model, self.data = build(case, config)
        self.model.to(self.device).train()
        self.optimizer = self.model.configure_optimizers()
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=case.precision == "bf16")
        self.model.on_train_epoch_start()
        self.count = 0

    def update(self) -> None:
        """The next update."""
        self.step(self.data.batch(*divmod(self.count, self.data.updates)))
        self.count += 1

    def step(self, batch: Batch) -> None:
        """Loss, gradients and optimiser step of one batch."""
        with self.autocast:
            loss = self.model.training_step(batch, 0)
        assert loss is not None
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def bare(case: Case, turns: Turns) -> None:
    """`Bare`, as a racer."""
    keep_freed_memory()
    flush_denormals()
    loop = Bare(case)
    while True:
        loop.update()
        turns()


def _make_sure(model: DeepGenerativeModel, data: SeededDataModule, updates: int) -> None:
    """Fits q(y | x) to the labels of all rows: it is then about as sure as late in a run, which takes thousands."""
    model.to(data.one_hot.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(updates):
        rows = torch.randint(data.num_train, (UNLABELLED,), device=data.one_hot.device)
        log_likelihood = (_log_q_y(model, data, rows) * data.one_hot[data.targets[rows]]).sum(-1).mean(1)
        optimizer.zero_grad()
        (-log_likelihood.sum()).backward()
        optimizer.step()


def _log_q_y(model: DeepGenerativeModel, data: SeededDataModule, rows: Tensor) -> Tensor:
    """log q(y | x) of rows [B], [S, B, K]."""
    x, streams = data.inputs.mean(rows), Streams(model.seeds, "benchmark", rows.device)
    noise = model.noise(streams, x=model.factorisation.noise_shapes(len(rows)))["x"]
    return model.per_seed(lambda one: model.log_q_y(x, one), noise)


def _milliseconds_to_deal(data: SeededDataModule) -> float:
    started = time.perf_counter()
    data.begin(data.begun)
    if data.one_hot.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


@torch.no_grad()
def _classes_kept(model: DeepGenerativeModel, data: SeededDataModule) -> float:
    """Classes per unlabelled row whose terms are computed, a mean over 1,000 rows."""
    threshold = getattr(model.stage.objective, "class_threshold", 0.0)
    if not threshold:
        return float(model.num_classes)
    from ssl_dgm.probability.enumeration import roulette

    log_q_y = _log_q_y(model, data, data.unlabelled[0, :1000]).transpose(1, 2)  # [S, K, B]
    return float((roulette(log_q_y, torch.randn_like(log_q_y), threshold) > 0).float().sum(1).mean())

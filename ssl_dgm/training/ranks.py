"""Several processes that train one model together, for rows that stay on the disk: a batch is shared out among them.

Rank 0 is the process that was called. It starts the others, which make the same model and batches, and it alone writes.
Every rank draws for the whole batch and computes its own rows (`datamodule.Part`). A mean over rows is the sum over
ranks of their means, each weighted by its share, and so is its gradient: several compute what one does, to rounding.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from ssl_dgm.config import Config, UserError
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.models.base import DeepGenerativeModel

PATIENCE = timedelta(minutes=10)  # of a rank that waits for another: no epoch ends with a longer pause
Assemble = Callable[[torch.device], tuple[DeepGenerativeModel, SeededDataModule]]


@dataclass(frozen=True)
class Orders:
    """What a rank is told."""

    config: Config
    assemble: Assemble
    folder: Path
    resumed: Path | None
    rank: int
    device: torch.device
    port: int
    threads: int


@dataclass(frozen=True)
class Other:
    """A process that this one started, and the file that holds what it says."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]


class NoAnswer(Exception):
    """Another rank is gone, or has not answered for as long as `PATIENCE`."""


class Together(pl.Callback):
    """Sums gradients and terms over the ranks at every update, and stops all where rank 0 stops.

    On rank 0 it stands after the callbacks that may stop the training and before those that save it.
    """

    # The whole gradient in one piece: these models are small, and there is little to overlap it with.
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, DeepGenerativeModel)
        tensors = [*pl_module.terms.values(), *(p.grad for p in pl_module.parameters() if p.grad is not None)]
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _answered():
            dist.all_reduce(flat)
        for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(piece.view_as(tensor))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop = torch.tensor(int(trainer.should_stop), device=pl_module.device)
        with _answered():
            dist.broadcast(stop, src=0)
        trainer.should_stop = bool(stop)


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise NoAnswer(str(error)) from error


def devices(first: torch.device, ranks: int) -> list[torch.device]:
    """The device of every rank: the first GPUs, of which `find_devices` has found enough, or the CPU for all."""
    return [torch.device("cuda", rank) if first.type == "cuda" else first for rank in range(ranks)]


def join(model: DeepGenerativeModel, data: SeededDataModule, rank: int, ranks: int) -> None:
    """Makes them those of one rank.

    Raises:
        UserError: when a batch has fewer rows than there are ranks.
    """
    data.take(rank, ranks)
    model.parts = data.parts
    for group, part in data.parts.items():
        if 0 < part.total < ranks:
            remedy = "budget.labelled_per_step" if group == "labelled" else "budget.unlabelled_per_step"
            raise UserError(
                f"trainer.devices={ranks} is more than the {part.total} {group} rows of an update; use "
                f"trainer.devices={part.total} or {remedy}={ranks}"
            )


@contextlib.contextmanager
def leading(
    config: Config, assemble: Assemble, folder: Path, resumed: Path | None, places: list[torch.device]
) -> Iterator[Together]:
    """Starts ranks 1, 2, ... for what is done inside, as rank 0; they are gone when it ends, however it ends.

    Raises:
        UserError: when one of them is lost; the same command continues from the last checkpoint.
    """
    store = _store(0, is_master=True)
    others: list[Other] = []
    try:
        for rank, place in list(enumerate(places))[1:]:
            orders = Orders(config, assemble, folder, resumed, rank, place, store.port, torch.get_num_threads())
            others.append(_start(orders))
        _wait_for(store, others)
        with _answered():
            _meet(store, 0, len(places), places[0])
        yield Together()
        for other in others:
            other.process.wait(PATIENCE.total_seconds())
    except (NoAnswer, subprocess.TimeoutExpired) as error:
        lost = _lost(others)
        raise UserError(f"trainer.devices={len(places)}: {lost}; the same command continues") from error
    finally:
        for other in others:
            _end(other)
        if dist.is_initialized():
            dist.destroy_process_group()


def following() -> Orders:
    """The orders of this process, which is then one of the ranks, and ends when rank 0 does."""
    orders: Orders = pickle.load(sys.stdin.buffer)  # of rank 0, through a pipe

    def end_with_rank_0() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=end_with_rank_0, daemon=True).start()
    torch.set_num_threads(orders.threads)
    store = _store(orders.port, is_master=False)
    store.set(f"here {orders.rank}", "")
    _meet(store, orders.rank, orders.config.trainer.devices, orders.device)
    return orders


def _store(port: int, is_master: bool) -> Any:
    return dist.TCPStore("127.0.0.1", port, None, is_master, PATIENCE, False)  # type: ignore[reportPrivateImportUsage]


def _meet(store: Any, rank: int, ranks: int, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)


def _start(orders: Orders) -> Other:
    """One of the other ranks; in a session of its own, so that Ctrl-C reaches rank 0 alone, which ends them all."""
    said = tempfile.TemporaryFile()  # noqa: SIM115 - `_end` closes it
    # Not multiprocessing, which runs the script again that called ssl_dgm.fit.
    process = subprocess.Popen(
        [sys.executable, "-c", "from ssl_dgm.training.fit import follow; follow()"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(pickle.dumps(orders))
        process.stdin.flush()
    except BrokenPipeError:  # it is told where it is waited for
        pass
    return Other(process, said)


def _end(other: Other) -> None:
    other.process.kill()
    other.process.wait()
    assert other.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        other.process.stdin.close()
    other.said.close()


def _wait_for(store: Any, others: list[Other]) -> None:
    limit = time.monotonic() + PATIENCE.total_seconds()
    while not store.check([f"here {rank + 1}" for rank in range(len(others))]):
        if any(other.process.poll() is not None for other in others) or time.monotonic() > limit:
            raise NoAnswer
        time.sleep(0.05)


def _lost(others: list[Other]) -> str:
    """Which rank is gone and why, as far as that can be told."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        for rank, other in enumerate(others, start=1):
            if (code := other.process.poll()) is not None:
                other.said.seek(0)
                last = (other.said.read().decode(errors="replace").strip().splitlines() or [""])[-1]
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed ({last})"
                return f"process {rank} {how}"
        time.sleep(0.05)
    return f"a process has not answered for {PATIENCE.total_seconds():.0f} s"

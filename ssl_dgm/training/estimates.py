"""What a training takes, told before it happens: memory, arithmetic and, once a few updates were timed, time.

One seed's update is carried out on torch's meta device, where tensors have a shape and no content, in about 0.1 s: what
autograd keeps for the backward pass is weighed, and the matrix products are counted. Nothing here knows a model.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_dgm.config import UserError
from ssl_dgm.data.datamodule import Batch
from ssl_dgm.tables.cells import duration
from ssl_dgm.training.jobs import Job, Say, create, data_module, inputs

# Fitted to the measured peaks that `Update.memory` tells of.
OVERHEAD = 25e6  # bytes
TEMPORARIES = 4.4  # tensors as large as the largest that is kept, alive at once in a backward pass
FRAGMENTATION = 1.22  # of what is kept for the backward pass
STATES = 5  # of a parameter: itself, its gradient as a slice and in the stack, Adam's two moments
SHARE = 0.9  # of the free memory that may be planned with
SKIPPED, TIMED = 5, 10  # a CUDA graph is captured by the fourth
WORTH_TELLING = 20.0  # seconds: a shorter training is over before the sentence is read
SURPRISE = 1.3  # how many times longer or shorter a training is than was told, that it is told anew


@dataclass(frozen=True)
class Update:
    """One update of one seed; sizes in bytes."""

    batched: bool  # whether seeds are one batched program (vmap), whose temporaries are of all seeds
    parameters: int
    kept: int  # tensors that autograd keeps for the backward pass
    largest: int  # of them
    flops: int  # multiplications and additions of matrix products, forward and backward
    per_epoch: int  # updates of an epoch

    def memory(self, seeds: int) -> float:
        """Peak bytes of training so many seeds at once, beside the data and what the process itself takes.

        Estimated and measured (VmHWM of a fresh process, first updates of budget=paper on MNIST, float32, CPU):

            MiB    1 seed     5 seeds    10 seeds
            m1     80, 77     278, 265   525, 503
            m2     194, 191   613, 605   1136, 1095
            m1m2   135, 134   410, 428   755, 758

        Matrix products in bfloat16 take less: 343, 307 for 5 seeds of m2 at budget=short. One seed on digits was
        estimated up to 1.7 times too high, by what does not grow with seeds. vmap and GPUs were not measured.
        """
        temporaries = TEMPORARIES * self.largest * (seeds if self.batched else 1)
        return OVERHEAD + temporaries + seeds * (STATES * self.parameters + FRAGMENTATION * self.kept)

    def fitting(self, free: float) -> int:
        """How many seeds at once fit into so many free bytes; at least one, which is tried anyway."""
        one, two = self.memory(1), self.memory(2)
        return max(1, 1 + int((SHARE * free - one) // (two - one)))


def update(job: Job, seed: int) -> Update:
    """What an update of this seed takes; nothing is computed, and nothing is put on the device."""
    config = job.config
    # As the model would decide on the device itself: the programs keep different tensors.
    mode = (
        config.trainer.replicas if config.trainer.replicas != "auto" else "loop" if job.device.type == "cpu" else "vmap"
    )
    trainer = dataclasses.replace(config.trainer, replicas=mode)
    # Classes that may be left out are all kept while q(y | x) is not sure of any.
    objective = dataclasses.replace(config.objective, class_threshold=0.0)
    config = dataclasses.replace(config, trainer=trainer, objective=objective)
    job = dataclasses.replace(job, config=config, device=torch.device("cpu"), first=None)
    pixels, _ = inputs(job)
    data = data_module(job, pixels, [seed])
    # Of a stack an upper bound: units of its M1 may be dropped.
    x_dim = pixels.x_dim if config.m1 is None else config.m1.model.z_dim
    kept: dict[int, Tensor] = {}

    def weigh(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        model = create(job, [seed], x_dim)
        rows = {"unlabelled": data.unlabelled_per_step, "labelled": data.labelled_per_step}
        x = {name: torch.empty(1, number, x_dim) for name, number in rows.items()}
        shapes = model.objective.noise_shapes(model.factorisation, rows["labelled"], rows["unlabelled"])
        noise = {n: {z: torch.empty(1, *shape) for z, shape in group.items()} for n, group in shapes.items()}
        y = torch.empty(1, rows["labelled"], job.slots.num_slots)
        batch = Batch(x_labelled=x["labelled"], y_labelled=y, x_unlabelled=x["unlabelled"])
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
                losses = model.per_seed(model.losses, batch, noise, torch.ones(1))
            losses["loss"].sum().backward()
    # Counted with their states.
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return Update(mode == "vmap", parameters, sum(sizes), max(sizes), counter.get_total_flops(), data.updates)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device now; None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError):
        if device.type == "cpu" and (found := re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())):
            return int(found[1]) * 1024
    return None


def seeds_at_once(job: Job, seeds: Sequence[int], size: int, processes: int = 1) -> int:
    """How many of these seeds to train at once: `size`, or fewer where more would not fit; says what it takes.

    Args:
        processes: that share the device's memory.
    """
    one, free = update(job, seeds[0]), free_memory(job.device)
    fitting = size if free is None else min(size, one.fitting(free / processes))
    updates = one.per_epoch * job.config.budget.epochs
    needed, asked = one.memory(fitting), one.memory(size)
    has = "" if free is None else f" of the {amount(free / processes, 'B')} that are free"
    if fitting < size:
        job.say(
            f"{size} seeds at once would take about {amount(asked, 'B')}{has}: trained {fitting} at once instead, as "
            f"seeds_at_once={fitting} does, which gives the same results up to rounding"
        )
    if free is not None and needed > free / processes:
        job.say(f"one seed takes about {amount(needed, 'B')}{has}: it is tried, but may run out of memory")
    job.say(
        f"about {amount(needed, 'B')} of memory for {fitting} {'seed' if fitting == 1 else 'seeds'} at once; "
        f"{updates:,} updates of {amount(one.flops, 'FLOP')} for each seed, {amount(updates * one.flops, 'FLOP')}"
    )
    return fitting


def amount(number: float, unit: str) -> str:
    """'1.1 GB', '72 PFLOP': two or more digits."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.{1 if number < 9.95 else 0}f} {prefixes[0]}{unit}"


@contextlib.contextmanager
def memory_errors(job: Job, seeds: Sequence[int]) -> Iterator[None]:
    """Tells what to do when memory runs out within.

    Raises:
        UserError: in place of what the allocators of the CPU, of the GPU and of NumPy raise.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known and "can't allocate memory" not in str(error):
            raise
        budget, labels = job.config.budget, len(next(iter(job.splits.values())).labelled) if job.splits else 0
        fewer = f"seeds_at_once={len(seeds) // 2}, or " if len(seeds) > 1 else ""
        smaller = f"budget.updates_per_epoch={2 * budget.updates_per_epoch}"
        if budget.labelled_per_step == "share" and job.splits and labels < 2 * budget.updates_per_epoch:
            # Labels that are shared out over the updates allow no more updates than there are labels.
            smaller = (
                f"budget.labelled_per_step=all budget.updates_per_epoch={2 * min(labels, budget.updates_per_epoch)}"
            )
        what = f"{len(seeds)} seeds at once do" if len(seeds) > 1 else "one seed does"
        raise UserError(
            f"{what} not fit into the memory of {job.device}; use {fewer}smaller batches, for example {smaller}"
        ) from error


class Forecast(pl.Callback):
    """Says how long a training will take once its first updates were timed, and anew where epochs tell otherwise.

    The first updates sum over classes that are left out later, and wait for the compiler; an update of stage 2 of M1+M2
    is four times shorter in the end. Epochs are looked at after the second, fourth, eighth and so on.
    """

    def __init__(self, say: Say) -> None:
        self.say, self.done, self.epochs = say, 0, 0
        self.ended = 0.0  # when the last epoch was that was looked at
        self.told: float | None = None  # seconds per epoch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.done += 1
        if self.done not in (SKIPPED, SKIPPED + TIMED):
            return
        now = _now(pl_module.device)
        if self.done == SKIPPED:
            self.started = now
            return
        epoch = int(trainer.num_training_batches) * (now - self.started) / TIMED
        if self._tell((trainer.max_epochs or 0) - trainer.current_epoch, epoch, "for {} {}"):
            self.told = epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1
        if self.epochs & (self.epochs - 1):
            return  # no power of two
        now, before = _now(pl_module.device), self.ended
        self.ended = now
        if self.told is None:
            return  # in a short first epoch, nothing was told yet
        epoch = (now - before) / (self.epochs / 2)
        if self.epochs > 1 and not 1 / SURPRISE < epoch / self.told < SURPRISE:
            self.told = epoch
            self._tell((trainer.max_epochs or 0) - trainer.current_epoch - 1, epoch, "for the other {} {}")

    def _tell(self, epochs: int, seconds: float, of: str) -> bool:
        """Whether so many epochs of so many seconds each were worth a sentence."""
        left = epochs * seconds
        if left > WORTH_TELLING:
            ready = time.strftime("%H:%M" if left < 43_200 else "%a %d %b %H:%M", time.localtime(time.time() + left))
            which = of.format(f"{epochs:,}", "epoch" if epochs == 1 else "epochs")
            self.say(f"about {duration(left)} {which}, ready at {ready}")
        return left > WORTH_TELLING


def _now(device: torch.device) -> float:
    """Seconds, once what was asked of the device has been computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()

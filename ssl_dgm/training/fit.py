"""One training: a group of seeds through Lightning's Trainer, resumed if it was begun before."""

import contextlib
import ctypes
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch

from ssl_dgm.config import Config, Stopped, UserError
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.training import precision, ranks
from ssl_dgm.training.callbacks import Best, Curves, Progress, Stop
from ssl_dgm.training.checkpoints import Checkpoint, newest_whole
from ssl_dgm.training.estimates import Forecast
from ssl_dgm.training.loggers import Log

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
UPDATES_WORTH_COMPILING = 50_000  # some 20 minutes of M2 on two cores


def keep_freed_memory() -> None:
    """Tells glibc to keep the memory of freed tensors, which it else returns to the kernel after every update.

    An update of stage 2 of M1+M2 with three seeds was 1.15 times faster so (2 cores). Elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def flush_denormals() -> None:
    """Tells the CPU to take numbers below 1.2e-38 for 0: a product of matrices that hold some was 95 times slower.

    The N(0, 1) prior brings the weights of dead units there, and Adam's means of their gradients: the epochs of ADGM
    on colour images became nine times as long. For the thread that calls, and those of torch that are not there yet.
    """
    torch.set_flush_denormal(True)


def find_device(name: str) -> torch.device:
    """The device to run on; 'auto' is the first GPU, or else the CPU.

    Raises:
        UserError: when this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise UserError(f"device={name} is not on this machine; use {' or '.join(['cpu', *gpus])}") from error
    return torch.device("cuda:0") if name == "cuda" else device


def check_device(config: Config, device: torch.device) -> None:
    """Refuses what the device cannot do.

    Raises:
        UserError: for tf32 elsewhere than on a GPU, and for compiling where classes are left out.
    """
    if config.trainer.compile == "always" and _changes_shapes(config, device):
        raise UserError(
            f"trainer.compile=always is not possible with objective.class_threshold={config.objective.class_threshold} "
            f"on {device}, where it changes the sizes of tensors; use trainer.compile=auto"
        )
    precision.check(config, device)


def compiles(config: Config, device: torch.device, updates_per_epoch: int) -> bool:
    """Whether the losses are compiled: it saves a sixth of an update on a CPU, and costs 15 to 40 s once.

    Not where tensors change their shapes at every update, which would be compiled for each.

    Args:
        updates_per_epoch: of all seeds.
    """
    wish, long = config.trainer.compile, config.budget.epochs * updates_per_epoch >= UPDATES_WORTH_COMPILING
    return wish == "always" or (
        wish == "auto" and long and device.type == "cpu" and not _changes_shapes(config, device)
    )


def _changes_shapes(config: Config, device: torch.device) -> bool:
    """Whether classes are left out by smaller tensors instead of weights of 0, as in a loop over seeds."""
    return config.objective.class_threshold > 0 and (config.trainer.replicas == "loop" or device.type == "cpu")


def fit(
    config: Config,
    model: DeepGenerativeModel,
    data: SeededDataModule,
    folder: Path,
    device: torch.device,
    deadline: float | None,
    say: Callable[[str], None],
    log: Log,
    again: ranks.Assemble | None = None,
) -> dict[int, str]:
    """Trains `model` in place to the end of its budget, and returns why seeds were lost, by seed.

    With selection=best_validation the model ends with every seed's parameters of its best epoch.

    Args:
        folder: of this group: curves and checkpoints.
        deadline: time.monotonic() by which to have stopped.
        again: makes the model and the data once more, in the other processes of data=memmap with trainer.devices=2 or
            more; it is sent there.

    Raises:
        UserError: when more devices are asked for than there are, or than a batch has rows; when a process is lost.
        Stopped: at the deadline or after a signal, with a checkpoint.
    """
    keep_freed_memory()
    flush_denormals()
    curves, stop, best = Curves(folder / "metrics.csv", say, log), Stop(deadline), Best()
    folder.mkdir(parents=True, exist_ok=True)
    if precision.of_products(config.budget.precision, device) != config.budget.precision:
        say("this CPU has no bfloat16 products, so that bf16 would be many times slower: they are made in float32")
    resumed = newest_whole(folder, say)
    if resumed is not None:
        say(f"resuming {folder.parent.name} after epoch {resumed.name[6:].split('.')[0]} of {config.budget.epochs}")
    callbacks: list[pl.Callback] = [curves, stop, Forecast(say)]
    callbacks += [best] if config.selection == "best_validation" else []
    last: list[pl.Callback] = [Checkpoint(folder, config.trainer.checkpoint_every)]
    last += [Progress(f"{config.model.name} {config.data.called}")] if config.trainer.progress else []
    shared = config.data.name == "memmap" and config.trainer.devices > 1
    # Running statistics are written to in place, in slices of their stack.
    can = not model.statistics or config.trainer.compile == "always"
    if not shared and can and compiles(config, device, len(model.seeds) * data.updates):
        model.compile_losses(say)
    if not shared and device.type == "cuda" and config.trainer.cuda_graph:
        model.capture_updates()
    with contextlib.ExitStack() as others:
        if shared and again is not None:
            places = ranks.devices(device, config.trainer.devices)
            ranks.join(model, data, 0, len(places))
            callbacks += [others.enter_context(ranks.leading(config, again, folder, resumed, places))]
        trainer = _trained(config, model, data, folder, device, resumed, [*callbacks, *last])
    by_signal = stop.reason.startswith("SIG")
    # A signal in the last epoch ends the command too, which may have other runs to do.
    if by_signal or (trainer.current_epoch < config.budget.epochs and len(curves.lost) < len(model.seeds)):
        where = f"after epoch {trainer.current_epoch} of {config.budget.epochs}"
        sentence = f"stopped {config.model.name} {where} ({stop.reason}); the same command continues it"
        raise Stopped(sentence, by_signal=by_signal)
    if config.selection == "best_validation":
        model.load_state_dict(best.parameters, strict=False)
    model.to(device)
    return curves.lost


def follow() -> None:
    """Trains as one of the other ranks: the same updates, and nothing written."""
    keep_freed_memory()
    flush_denormals()
    orders = ranks.following()
    model, data = orders.assemble(orders.device)
    ranks.join(model, data, orders.rank, orders.config.trainer.devices)
    _trained(orders.config, model, data, orders.folder, orders.device, orders.resumed, [ranks.Together()])


def _trained(
    config: Config,
    model: DeepGenerativeModel,
    data: SeededDataModule,
    folder: Path,
    device: torch.device,
    resumed: Path | None,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    """The trainer, after it has trained."""
    with warnings.catch_warnings(), precision.products(config.budget.precision, device) as format_:
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer = pl.Trainer(
            max_epochs=config.budget.epochs,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index] if device.type == "cuda" else 1,
            precision=format_,  # type: ignore[arg-type]
            check_val_every_n_epoch=config.trainer.validate_every,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, data, ckpt_path=resumed, weights_only=True)
    return trainer


def deadline_of(seconds: float | None) -> float | None:
    """A duration from now, as a time of the monotonic clock."""
    return None if seconds is None else time.monotonic() + seconds

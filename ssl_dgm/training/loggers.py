"""Where scalars and pictures go besides the run's own files: Weights & Biases, TensorBoard, or nowhere.

Every seed is a run of its own there, all under the names that metrics.csv and result.json have: train/bound_unlabelled,
validation/error, test/error.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_dgm.config import Config, Stopped, UserError


class Log:
    """A log that keeps nothing: metrics.csv and result.json are written anyway."""

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of metrics.csv of one epoch, one per seed."""

    def result(self, seed: int, metrics: Mapping[str, float]) -> None:
        """Takes the final metrics of a seed."""

    def picture(self, path: Path) -> None:
        """Takes a picture of the run; animations stay in its folder."""

    def close(self, stopped: bool) -> None:
        """Ends the log; `stopped` when the same command continues the training."""


def check(config: Config) -> None:
    """Refuses a logger that cannot work here, before anything is written.

    Raises:
        UserError: when its package is missing, or wandb is to be online without an account.
    """
    name = config.logger.name
    if name != "csv" and importlib.util.find_spec(name) is None:
        raise UserError(f"logger={name} needs the package {name}; install it with pip install {name}")
    if name == "wandb" and _mode(config) not in ("online", "offline", "disabled"):
        raise UserError(f"WANDB_MODE={_mode(config)} is unknown; use online, offline or disabled, or unset it")
    if name == "wandb" and _mode(config) == "online" and not _has_account():
        asked = "WANDB_MODE" if config.logger.mode == "auto" else "logger.mode"
        raise UserError(f"{asked}=online needs an account's key; run 'wandb login', or use logger.mode=offline")


@contextlib.contextmanager
def opened(config: Config, key: str, folder: Path, seeds: Sequence[int]) -> Iterator[Log]:
    """The log that `config.logger` names, for these seeds, closed whatever happens."""
    log = {"csv": Log, "wandb": WandbLog, "tensorboard": TensorBoardLog}[config.logger.name]
    one = log() if log is Log else log(config, key, folder, seeds)
    stopped = False
    try:
        yield one
    except Stopped:
        stopped = True
        raise
    finally:
        one.close(stopped)


class WandbLog(Log):
    """A Weights & Biases run per seed, resumed under the same id; it has failed when its seed ends without a result."""

    def __init__(self, config: Config, key: str, folder: Path, seeds: Sequence[int]) -> None:
        import wandb

        mode = _mode(config)
        self.image = wandb.Image
        self.runs: dict[int, Any] = {}
        self.finished: set[int] = set()
        try:
            for seed in seeds:
                self.runs[seed] = wandb.init(
                    project=config.logger.project,
                    group=config.logger.group or key,
                    name=f"{key}-seed-{seed}",
                    id=f"{key}-seed-{seed}",
                    resume="allow" if mode == "online" else None,
                    mode=mode,  # type: ignore[arg-type]
                    dir=str(folder.absolute()),  # wandb writes from a process that stays where it was started
                    config={**dataclasses.asdict(config), "seed": seed},
                    reinit="create_new",
                    settings=wandb.Settings(silent=True),
                )
        except wandb.Error as error:  # a key that it does not take, or a server that does not answer
            self.close(stopped=False)
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"wandb could not begin a run ({reason}); use logger.mode=offline or logger=csv") from error

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            # At once: an epoch still held back would write its scores over the result's in the summary.
            self.runs[row["seed"]].log(_scalars(row), step=row["epoch"], commit=True)

    def result(self, seed: int, metrics: Mapping[str, float]) -> None:
        self.runs[seed].summary.update(dict(metrics))
        self.finished.add(seed)

    def picture(self, path: Path) -> None:
        for run in self.runs.values() if path.suffix == ".png" else ():
            run.log({path.stem: self.image(str(path))})

    def close(self, stopped: bool) -> None:
        for seed, run in self.runs.items():
            run.finish(exit_code=int(not stopped and seed not in self.finished))


class TensorBoardLog(Log):
    """TensorBoard events per seed; epochs that a resumed run trains again are written again, with equal values."""

    def __init__(self, config: Config, key: str, folder: Path, seeds: Sequence[int]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.last = config.budget.epochs  # unless an epoch follows
        self.writers: dict[int, Any] = {}
        for seed in seeds:
            self.writers[seed] = SummaryWriter(str(folder / "tensorboard" / f"seed-{seed}"))

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.last = row["epoch"]
            for name, value in _scalars(row).items():
                self.writers[row["seed"]].add_scalar(name, value, row["epoch"])

    def result(self, seed: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writers[seed].add_scalar(name, value, self.last)

    def picture(self, path: Path) -> None:
        import matplotlib.image as images

        for writer in self.writers.values() if path.suffix == ".png" else ():
            writer.add_image(path.stem, images.imread(path)[..., :3], self.last, dataformats="HWC")

    def close(self, stopped: bool) -> None:
        for writer in self.writers.values():
            writer.close()


def _scalars(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in row.items() if name not in ("epoch", "seed") and value != ""}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _mode(config: Config) -> str:
    """online, offline, or what WANDB_MODE asks for where the settings leave it open."""
    if config.logger.mode != "auto":
        return config.logger.mode
    return os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")


def _has_account() -> bool:
    """Whether this machine has a key of Weights & Biases: in the environment, or stored by 'wandb login'."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")

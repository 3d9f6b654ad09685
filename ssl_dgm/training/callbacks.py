"""What watches a training: its curve, its bar, its end, seeds that turn NaN, and the best epoch.

Shape legend: S seeds, T terms of the loss.
"""

import csv
import io
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_dgm.bars import bar
from ssl_dgm.files import write_atomic
from ssl_dgm.models.base import DeepGenerativeModel
from ssl_dgm.records import read_curves
from ssl_dgm.training.loggers import Log


class Curves(pl.Callback):
    """metrics.csv: a row per epoch and seed, with the epoch's mean of every term and the validation scores.

    It also watches every term of every update for the first that is not finite; that seed is lost from then on, and
    `lost` says why.
    """

    def __init__(self, path: Path, say: Callable[[str], None], log: Log) -> None:
        self.path, self.say = path, say
        self.elsewhere = log  # not self.log, which Lightning sets
        self.lost: dict[int, str] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"lost": dict(self.lost)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lost = dict(state_dict["lost"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Rows newer than the checkpoint are of epochs that are about to be trained again.
        kept = [row for row in read_curves(self.path) if row["epoch"] <= trainer.current_epoch]
        self.columns = list(kept[0]) if kept else []
        write_atomic(self.path, _csv(kept, self.columns, header=bool(kept)))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.sums: Tensor | None = None
        self.started = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DeepGenerativeModel)
        terms = torch.stack(list(pl_module.terms.values()))  # [T, S]
        if self.sums is None:
            self.sums = torch.zeros_like(terms)
            self.first_bad = torch.full_like(terms, math.inf)
        self.sums += terms
        self.first_bad = torch.where(terms.isfinite(), self.first_bad, self.first_bad.clamp(max=batch_idx))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DeepGenerativeModel)
        assert self.sums is not None
        epoch, names = trainer.current_epoch + 1, list(pl_module.terms)
        means = (self.sums / trainer.num_training_batches).tolist()
        self._name_the_lost(pl_module.seeds, names, epoch)
        seconds = round(time.monotonic() - self.started, 3)
        validated = bool(pl_module.validation) and epoch % (trainer.check_val_every_n_epoch or 1) == 0
        rows = []
        for s, seed in enumerate(pl_module.seeds):
            row = {"epoch": epoch, "seed": seed, "seconds": seconds}
            row |= {f"train/{name}": values[s] for name, values in zip(names, means)}
            scores = {n: pl_module.validation[n][s].item() if validated else "" for n in pl_module.scores}
            rows.append(row | {f"validation/{name}": score for name, score in scores.items()})
        columns = self.columns or list(rows[0])  # a file that an older version began keeps its own
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_csv(rows, columns, header=not self.columns))
        self.columns = columns
        self.elsewhere.epoch(rows)
        if len(self.lost) == len(pl_module.seeds):
            trainer.should_stop = True

    def _name_the_lost(self, seeds: tuple[int, ...], names: list[str], epoch: int) -> None:
        first_bad = self.first_bad.tolist()
        for s, seed in enumerate(seeds):
            step = min(row[s] for row in first_bad)
            if seed in self.lost or step == math.inf:
                continue
            bad = [name for name, row in zip(names, first_bad) if row[s] == step]
            # The loss and its sums come first in the list; the factor that broke them is more telling.
            factor = next((name for name in bad if "p_" in name or "q_" in name), bad[0])
            what = "all terms" if len(bad) == len(names) else f"the term {factor}"
            self.lost[seed] = f"{what} became non-finite in epoch {epoch}, update {int(step) + 1}"
            self.say(f"seed {seed} is lost: {self.lost[seed]}; lower optimizer.lr or set optimizer.clip_norm")


def _csv(rows: list[dict[str, Any]], columns: list[str], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Stop(pl.Callback):
    """Ends training at the end of an epoch when a signal came, or when the next epoch would pass the deadline.

    A second signal ends it at once; the same command resumes from the last checkpoint then.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline, self.reason = deadline, ""

    # Not earlier: Lightning sets handlers of its own after on_fit_start.
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.previous = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        for s in self.previous:
            signal.signal(s, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.reason:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.reason = signal.Signals(number).name
        # Not print: the signal may have come in the middle of one, to the bar say, which refuses to be entered again.
        os.write(2, f"{self.reason}: stopping at the end of this epoch; once more stops at once\n".encode())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.monotonic()
        if self.deadline is not None and now + (now - self.started) > self.deadline:
            self.reason = self.reason or "time_limit"
        if self.reason:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for s, handler in getattr(self, "previous", {}).items():
            signal.signal(s, handler)


class Best(pl.Callback):
    """Keeps every seed's parameters, and running statistics, of its epoch with the best validation score."""

    def __init__(self) -> None:
        self.score: Tensor | None = None  # [S], lower is better
        self.epoch: Tensor | None = None
        self.parameters: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "parameters": self.parameters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]
        self.parameters = state_dict["parameters"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DeepGenerativeModel)
        value = pl_module.validation[pl_module.score]
        score = (value if pl_module.score == "error" else -value).nan_to_num(math.inf).cpu()
        named = {n: p.cpu() for n, p in pl_module.state_dict().items()}
        now = torch.full_like(score, trainer.current_epoch + 1)
        if self.score is None or self.epoch is None:
            self.score, self.epoch = score, now
            self.parameters = {n: p.clone() for n, p in named.items()}
            return
        better = score < self.score
        self.score, self.epoch = torch.where(better, score, self.score), torch.where(better, now, self.epoch)
        for n, p in named.items():
            self.parameters[n][better] = p[better]


class Progress(pl.Callback):
    """One bar over all updates of the run: time left, terms of the loss, the validation score, as means over seeds."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        updates, epochs = int(trainer.num_training_batches), trainer.max_epochs or 0
        done = trainer.current_epoch * updates
        self.bar = bar(self.title, "up", total=epochs * updates, initial=done, smoothing=0.05)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DeepGenerativeModel)
        shown = {"epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}"}
        for name in ("bound", "bound_unlabelled", "classification"):
            if name in pl_module.terms:
                shown[name] = f"{pl_module.terms[name].mean().item():.2f}"
        if (value := pl_module.validation.get(pl_module.score)) is not None:
            percent = pl_module.score == "error"
            shown[f"val_{pl_module.score}"] = f"{100 * value.mean():.2f} %" if percent else f"{value.mean():.2f}"
        self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bar.close()

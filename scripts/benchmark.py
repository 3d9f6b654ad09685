"""Times an update of M2 (784-500-50, 10 labelled + 100 unlabelled rows) against a hand-written PyTorch loop.

    python scripts/benchmark.py [--updates 400] [--block 20] [--precision 32|bf16]

Both train on the same random bytes in the same process, in alternating blocks, so that a noisy machine slows both. Ours
is the whole of it: Lightning's Trainer, the curves that a run writes, row gathering, binarisation and the optimiser.
Prints the median time of an update of each, and the median of the blocks' ratios.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dgm import models
from ssl_dgm.config import BudgetConfig, ModelConfig, NetworkConfig, ObjectiveConfig, Stage
from ssl_dgm.data.datamodule import SeededDataModule
from ssl_dgm.data.inputs import Pixels
from ssl_dgm.data.splits import Split
from ssl_dgm.training.callbacks import Curves
from ssl_dgm.training.fit import PRECISIONS
from ssl_dgm.training.loggers import Log

ROWS, PIXELS, CLASSES, LATENTS, HIDDEN = 10_000, 784, 10, 50, 500
LABELLED, UNLABELLED = 10, 100


class HandWritten(nn.Module):
    """M2 as a careful author writes it for one seed: y enumerated by broadcasting, the KL in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.class_hidden, self.class_logits = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.encoder_x, self.encoder_y = nn.Linear(PIXELS, HIDDEN), nn.Linear(CLASSES, HIDDEN, bias=False)
        self.encoder_mean, self.encoder_log_var = nn.Linear(HIDDEN, LATENTS), nn.Linear(HIDDEN, LATENTS)
        self.decoder_z, self.decoder_y = nn.Linear(LATENTS, HIDDEN), nn.Linear(CLASSES, HIDDEN, bias=False)
        self.pixels = nn.Linear(HIDDEN, PIXELS)

    def log_q_y(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.class_logits(F.softplus(self.class_hidden(x))), -1)

    def bound_given_y(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.softplus(self.encoder_x(x) + self.encoder_y(y))
        mean, log_var = self.encoder_mean(h), self.encoder_log_var(h)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        logits = self.pixels(F.softplus(self.decoder_z(z) + self.decoder_y(y)))
        log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)
        return log_px - kl - np.log(CLASSES)

    def loss(self, x_labelled: Tensor, y_labelled: Tensor, x_unlabelled: Tensor, r: float) -> Tensor:
        log_q = self.log_q_y(x_unlabelled).T  # [K, B]
        bound = self.bound_given_y(x_unlabelled, torch.eye(CLASSES).unsqueeze(1))
        unlabelled = (log_q.exp() * (bound - log_q)).sum(0).mean()
        classification = (y_labelled * self.log_q_y(x_labelled)).sum(-1).mean()
        return -(unlabelled + r * self.bound_given_y(x_labelled, y_labelled).mean() + 0.1 * classification)


class HandWrittenLoop:
    """The usual training loop around it."""

    def __init__(self, images: Tensor, one_hot: Tensor, precision: str) -> None:
        self.images, self.one_hot, self.model = images, one_hot, HandWritten()
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4, weight_decay=1 / ROWS)

    def update(self) -> None:
        labelled = torch.randint(0, 100, (LABELLED,))
        unlabelled = torch.randint(100, ROWS, (UNLABELLED,))
        x_labelled = torch.bernoulli(self.images[labelled].float() / 255)
        x_unlabelled = torch.bernoulli(self.images[unlabelled].float() / 255)
        with self.autocast:
            loss = self.model.loss(x_labelled, self.one_hot[labelled], x_unlabelled, 0.01)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Alternate(pl.Callback):
    """Times blocks of our updates, and after each as many of the other loop."""

    def __init__(self, other: HandWrittenLoop, block: int) -> None:
        self.other, self.block = other, block
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.block:
            return
        self.ours.append((time.perf_counter() - self.started) / self.block)
        started = time.perf_counter()
        for _ in range(self.block):
            self.other.update()
        self.theirs.append((time.perf_counter() - started) / self.block)
        self.started = time.perf_counter()


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--block", type=int, default=20)
    parser.add_argument("--precision", choices=PRECISIONS, default="32")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (ROWS, PIXELS), dtype=torch.uint8)
    targets = torch.arange(ROWS) % CLASSES
    rows = np.arange(ROWS)
    split = Split(rows[:100], rows[100:], "bytes", "", CLASSES, (10,) * CLASSES, 0)
    budget = BudgetConfig(epochs=1, updates_per_epoch=99, labelled_per_step=LABELLED)
    stage = Stage(ModelConfig("m2", LATENTS), NetworkConfig(), ObjectiveConfig(kl="analytic"), budget=budget)
    data = SeededDataModule(Pixels(images), targets, CLASSES, [split], ROWS, [0], budget, torch.device("cpu"))
    assert (data.labelled_per_step, data.unlabelled_per_step) == (LABELLED, UNLABELLED)
    data.updates = min(arguments.updates, data.updates)
    model = models.create(
        stage, x_dim=PIXELS, num_classes=CLASSES, seeds=[0], num_labelled=100, num_unlabelled=ROWS - 100
    )
    other = HandWrittenLoop(images, F.one_hot(targets).float(), arguments.precision)
    alternate = Alternate(other, arguments.block)
    epochs = -(-arguments.updates // data.updates)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False,
            precision=PRECISIONS[arguments.precision],  # type: ignore[arg-type]
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, limit_val_batches=0,
            callbacks=[Curves(Path(folder) / "c.csv", print, Log()), alternate],
        )  # fmt: skip
        trainer.fit(model, data)
    skip = 2  # blocks in which memory is first touched
    ours, theirs = alternate.ours[skip:], alternate.theirs[skip:]
    ratios = sorted(b / a for a, b in zip(ours, theirs))
    print(f"\nM2 784-500-50, {LABELLED} + {UNLABELLED} rows, {arguments.precision}, {torch.get_num_threads()} threads")
    print(f"  ssl_dgm, Lightning included   {1e3 * median(ours):7.2f} ms an update")
    print(f"  hand-written loop             {1e3 * median(theirs):7.2f} ms an update")
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    print(f"  hand-written / ssl_dgm        {median(ratios):7.2f}   (80 % of blocks: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

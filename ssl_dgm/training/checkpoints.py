"""Checkpoints at the ends of epochs: the last and the one before, each named by its own content."""

import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl

from ssl_dgm.files import sha256_of, write_atomic

FIRST_STAGE = "m1.sha256"  # of the weights of the M1 that a group of a stack stands on
LONGEST = 300.0  # seconds without a checkpoint after which the next end of an epoch has one, whatever its number


def checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first; names are epoch-<finished epochs>.<16 digits of SHA-256>.ckpt."""
    return sorted(folder.glob("epoch-*.ckpt"), key=lambda path: int(path.name[6:].split(".")[0]), reverse=True)


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose content matches its name; says so when it has to fall back."""
    for path in checkpoints(folder):
        if sha256_of(path)[:16] == path.name.split(".")[1]:
            return path
        say(f"{path} is damaged; going back to the checkpoint before it")
        path.unlink()
    return None


class Checkpoint(pl.Callback):
    """Saves the trainer's whole state every few epochs or minutes and whenever it stops, keeping the previous file."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every, self.saved = folder, every, time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        late = time.monotonic() - self.saved > LONGEST
        if (trainer.current_epoch + 1) % self.every == 0 or late or trainer.should_stop:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Writes under a temporary name first, since the final one depends on the content."""
        epochs = trainer.current_epoch + 1
        staged = self.folder / f"epoch-{epochs}.writing"
        write_atomic(staged, lambda path: trainer.save_checkpoint(path))
        staged.rename(self.folder / f"epoch-{epochs}.{sha256_of(staged)[:16]}.ckpt")
        for old in checkpoints(self.folder)[2:]:
            old.unlink()
        self.saved = time.monotonic()


def remove(folder: Path) -> None:
    """Deletes the checkpoints of a finished group, and what they stand on; its seeds' weights and records stay."""
    for path in [*checkpoints(folder), *folder.glob("*.writing"), *folder.glob(FIRST_STAGE)]:
        path.unlink()

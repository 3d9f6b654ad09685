"""The LightningDataModule: data on the device once, batches as blocks of row numbers.

Shape legend: S seeds, T updates of an epoch, B_l and B_u labelled and unlabelled rows of an update, K classes,
D dimensions.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dgm.config import BudgetConfig
from ssl_dgm.data.inputs import Inputs
from ssl_dgm.data.splits import Split
from ssl_dgm.probability.randomness import Streams

ROWS_PER_EVALUATION = 1000


class Batch(NamedTuple):
    """What one update sees."""

    x_labelled: Tensor  # [S, B_l, D]; B_l = 0 for a model without labels
    y_labelled: Tensor  # one-hot [S, B_l, K]
    x_unlabelled: Tensor  # [S, B_u, D]


class Rows(NamedTuple):
    """Row numbers of an epoch's updates."""

    labelled: Tensor  # [T, S, B_l]
    unlabelled: Tensor  # [T, S, B_u]


class Blocks:
    """Row numbers in blocks; a bare list would be taken for several loaders."""

    def __init__(self, rows: Tensor) -> None:
        self.blocks = rows.split(ROWS_PER_EVALUATION)

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.blocks)


class SeededDataModule(pl.LightningDataModule):
    """Batches for S seeds at once, each in the order of its own random stream.

    Args:
        inputs: all rows, training and validation.
        targets: class of every row, [N].
        num_classes: K.
        splits: one per seed; None for a model that uses no labels, which then sees all `num_train` rows.
        num_train: rows before the validation rows.
        seeds: the S seeds.
        budget: says how an epoch is cut into updates.
        device: where the rows lie and the draws happen.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Tensor,
        num_classes: int,
        splits: Sequence[Split] | None,
        num_train: int,
        seeds: Sequence[int],
        budget: BudgetConfig,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.inputs, self.num_train, self.num_rows = inputs.to(device), num_train, len(targets)
        self.one_hot = F.one_hot(targets, num_classes).float().to(device)
        if splits is None:
            self.labelled = torch.empty(len(seeds), 0, dtype=torch.long, device=device)
            self.unlabelled = torch.arange(num_train, device=device).expand(len(seeds), -1)
        else:
            self.labelled = torch.stack([torch.from_numpy(s.labelled) for s in splits]).to(device)
            self.unlabelled = torch.stack([torch.from_numpy(s.unlabelled) for s in splits]).to(device)
        self.updates, self.labelled_per_step = self._cut(budget)
        self.order = Streams(seeds, "order", device)
        self.draws = Streams(seeds, "inputs", device)
        self.begun = -1

    def _cut(self, budget: BudgetConfig) -> tuple[int, int]:
        """Updates of an epoch, and labelled rows of an update."""
        updates = min(budget.updates_per_epoch, max(1, self.unlabelled.shape[1] // budget.unlabelled_per_step))
        num_labelled = self.labelled.shape[1]
        if num_labelled == 0:
            return updates, 0
        if budget.labelled_per_step == "share":
            updates = min(updates, num_labelled)
            return updates, num_labelled // updates
        if budget.labelled_per_step == "all":
            return updates, num_labelled
        return updates, min(int(budget.labelled_per_step), num_labelled)

    @property
    def unlabelled_per_step(self) -> int:
        """B_u; what an epoch's last rows leave over is seen in another epoch, since the order is drawn afresh."""
        return self.unlabelled.shape[1] // self.updates

    def begin(self, epoch: int) -> None:
        """Deals the rows of an epoch, a function of (seed, epoch) alone."""
        self.order.begin(epoch)
        self.draws.begin(epoch)
        labelled, unlabelled = (self.labelled, self.labelled_per_step), (self.unlabelled, self.unlabelled_per_step)
        self.begun, self.dealt = epoch, Rows(self._deal(*labelled), self._deal(*unlabelled))

    def _deal(self, rows: Tensor, per_step: int) -> Tensor:
        """A shuffled pool [S, N], begun anew as often as the epoch needs, as [T, S, per_step]."""
        needed = self.updates * per_step
        order = self.order.permutations(rows.shape[1], -(-needed // max(1, rows.shape[1])))[:, :needed]
        return rows.gather(1, order).view(len(rows), self.updates, per_step).transpose(0, 1)

    def train_dataloader(self) -> range:
        """The updates of an epoch by number; `batch` makes them."""
        return range(self.updates)

    def val_dataloader(self) -> Blocks:
        """Blocks of validation row numbers, the same for all seeds."""
        return Blocks(torch.arange(self.num_train, self.num_rows, device=self.one_hot.device))

    def batch(self, epoch: int, update: int) -> Batch:
        """What the model sees at an update, drawn afresh; updates are asked for in their order."""
        # The first update deals anew even for the epoch dealt last: it may have been broken off.
        if update == 0 or self.begun != epoch:
            self.begin(epoch)
        labelled, unlabelled = self.dealt.labelled[update], self.dealt.unlabelled[update]
        x_labelled = self.inputs.draw(labelled, self.draws)
        return Batch(x_labelled, self.one_hot[labelled], self.inputs.draw(unlabelled, self.draws))

    def on_after_batch_transfer(self, batch: int | Tensor, dataloader_idx: int) -> Batch | tuple[Tensor, Tensor]:
        """Update numbers to training batches, row numbers to validation batches."""
        if isinstance(batch, Tensor):
            return self.inputs.mean(batch), self.one_hot[batch]
        # Asked here, not when the loader starts: Lightning starts it before it has counted the epoch up on a resume.
        assert self.trainer is not None
        return self.batch(self.trainer.current_epoch, batch)

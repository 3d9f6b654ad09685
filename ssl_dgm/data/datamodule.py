"""The LightningDataModule: data on the device once, batches as blocks of row numbers.

Shape legend: S seeds, T updates of an epoch, B_l and B_u labelled and unlabelled rows of an update, K classes,
D dimensions.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_dgm.config import BudgetConfig
from ssl_dgm.data.inputs import Inputs
from ssl_dgm.data.splits import Split
from ssl_dgm.probability.randomness import Streams

ROWS_PER_EVALUATION = 1000
SHARED = 0  # what the order that all seeds share is drawn from, whichever seeds there are


class Batch(NamedTuple):
    """What one update sees."""

    x_labelled: Tensor  # [S, B_l, D]; B_l = 0 for a model without labels
    y_labelled: Tensor  # one-hot [S, B_l, K]
    x_unlabelled: Tensor  # [S, B_u, D]


class Updates(Protocol):
    """Row numbers [S, B] of an epoch's updates, by the update's number: a tensor [T, S, B], or what stands for it."""

    def __getitem__(self, update: int, /) -> Tensor: ...


class Rows(NamedTuple):
    """Row numbers of an epoch's updates."""

    labelled: Tensor  # [T, S, B_l]
    unlabelled: Updates  # [T, S, B_u]


class Part(NamedTuple):
    """Rows `start` to `stop` - 1 of the `total` rows of a batch: what one of several processes computes."""

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """For indexing."""
        return slice(self.start, self.stop)

    @property
    def share(self) -> float:
        """The weight of these rows' mean in the mean of all; 1 of a batch without rows."""
        return (self.stop - self.start) / self.total if self.total else 1.0


class OneOrder:
    """An epoch in one order of all training rows for all seeds, by update [S, B_u].

    The pool of a seed lacks its own labelled rows. Where one of them comes up, the seed is dealt a row instead that the
    epoch would not have come to, so that it sees every row of its pool once at most, and the seeds share all but a few.

    Args:
        order: [N].
        labelled: of each seed, [S, N_l].
        left_out: whether the labelled rows are to be left out.
    """

    def __init__(self, order: Tensor, labelled: Tensor, left_out: bool, updates: int, per_step: int) -> None:
        needed = updates * per_step
        self.order, self.updates, self.seeds = order[:needed].view(updates, per_step), updates, len(labelled)
        self.swaps: list[tuple[Tensor, Tensor]] = []  # of each seed: places in the order, rows to stand there
        for own in labelled if left_out else []:
            is_own = torch.zeros(len(order), dtype=torch.bool).index_fill_(0, own, True)[order]
            places, spare = is_own[:needed].nonzero()[:, 0], order[needed:][~is_own[needed:]]
            self.swaps.append((places, spare[: len(places)]))

    def __len__(self) -> int:
        return self.updates

    def __getitem__(self, update: int) -> Tensor:
        rows = self.order[update].repeat(self.seeds, 1)
        for own, (places, instead) in zip(rows, self.swaps):
            here = places // rows.shape[1] == update
            own[places[here] % rows.shape[1]] = instead[here]
        return rows


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
        targets: class of every row, -1 for none, [N].
        num_slots: K, the values of y, of which the classes are the first.
        splits: one per seed, all with as many labelled rows, perhaps none; None for a model that uses no labels, which
            then sees the first `pool` rows.
        num_train: rows before the validation rows.
        seeds: the S seeds.
        budget: says how an epoch is cut into updates.
        device: where the rows lie and the draws happen.
        pool: rows that a model without labels sees; None: `num_train`.
        by_class: deals the unlabelled rows class by class, those of a class in the order of their numbers, alike in
            every epoch, instead of shuffled: updates are of one class each. What is left over at the end is not seen.
        shared_order: deals the same unlabelled rows to all seeds at an update, for rows that have to be read, in an
            order that is a function of the epoch alone. Row numbers stay on the CPU then.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Tensor,
        num_slots: int,
        splits: Sequence[Split] | None,
        num_train: int,
        seeds: Sequence[int],
        budget: BudgetConfig,
        device: torch.device,
        shared_order: bool = False,
        pool: int | None = None,
        by_class: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.num_train, self.num_rows = inputs.to(device), num_train, len(targets)
        home = torch.device("cpu") if shared_order else device
        # The last row is of -1, no class.
        self.targets, self.one_hot = targets.to(home), torch.eye(num_slots + 1, num_slots, device=device)
        if splits is None:
            self.labelled = torch.empty(len(seeds), 0, dtype=torch.long, device=home)
        else:
            self.labelled = torch.stack([torch.from_numpy(s.labelled) for s in splits]).to(home)
        pool = num_train if pool is None else pool
        self.num_unlabelled, self.by_class = pool if splits is None else len(splits[0].unlabelled), by_class
        self.shared = Streams([SHARED], "shared order") if shared_order else None
        if self.shared is None:
            pools = [torch.arange(pool)] if splits is None else [torch.as_tensor(s.unlabelled) for s in splits]
            self.unlabelled = torch.stack(pools).to(device).expand(len(seeds), -1)
            if by_class:
                places = self.targets[self.unlabelled].argsort(dim=1, stable=True)
                self.unlabelled = self.unlabelled.gather(1, places)
        self.dealt_per_epoch = self.num_unlabelled * budget.passes
        self.updates, self.labelled_per_step = self._cut(budget)
        self.order = Streams(seeds, "order", home)
        self.draws = Streams(seeds, "inputs", device)
        self.take(0, 1)
        self.begun = -1

    def _cut(self, budget: BudgetConfig) -> tuple[int, int]:
        """Updates of an epoch, and labelled rows of an update."""
        updates = min(budget.updates_per_epoch, max(1, self.dealt_per_epoch // budget.unlabelled_per_step))
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
        return self.dealt_per_epoch // self.updates

    def take(self, rank: int, processes: int) -> None:
        """Makes this the data of one of several processes: batches have the rows of its own part, drawn as in all."""

        def part(total: int) -> Part:
            return Part(total * rank // processes, total * (rank + 1) // processes, total)

        self.parts = {"labelled": part(self.labelled_per_step), "unlabelled": part(self.unlabelled_per_step)}

    def begin(self, epoch: int) -> None:
        """Deals the rows of an epoch, a function of (seed, epoch) alone."""
        self.order.begin(epoch)
        self.draws.begin(epoch)
        labelled = self._deal(self.labelled, self.labelled_per_step)
        if self.shared is None:
            unlabelled: Updates = self._deal(self.unlabelled, self.unlabelled_per_step, shuffled=not self.by_class)
        else:
            order = self.shared.begin(epoch).permutations(self.num_train)[0]
            left_out = self.num_train - self.num_unlabelled > 0
            unlabelled = OneOrder(order, self.labelled, left_out, self.updates, self.unlabelled_per_step)
        self.begun, self.dealt = epoch, Rows(labelled, unlabelled)

    def _deal(self, rows: Tensor, per_step: int, shuffled: bool = True) -> Tensor:
        """A pool [S, N], shuffled and begun anew as often as the epoch needs, or as it stands, as [T, S, per_step]."""
        needed = self.updates * per_step
        if shuffled:
            rows = rows.gather(1, self.order.permutations(rows.shape[1], -(-needed // max(1, rows.shape[1]))))
        return rows[:, :needed].reshape(len(rows), self.updates, per_step).transpose(0, 1)

    def train_dataloader(self) -> range:
        """The updates of an epoch by number; `batch` makes them."""
        return range(self.updates)

    def val_dataloader(self) -> Blocks:
        """Blocks of validation row numbers, the same for all seeds."""
        return Blocks(torch.arange(self.num_train, self.num_rows, device=self.targets.device))

    def batch(self, epoch: int, update: int) -> Batch:
        """What the model sees at an update, drawn afresh; updates are asked for in their order."""
        # The first update deals anew even for the epoch dealt last: it may have been broken off.
        if update == 0 or self.begun != epoch:
            self.begin(epoch)
        labelled, unlabelled = self.dealt.labelled[update], self.dealt.unlabelled[update]
        of_labelled, of_unlabelled = self.parts["labelled"].rows, self.parts["unlabelled"].rows
        x_labelled = self.inputs.draw(labelled, self.draws, of_labelled)
        y_labelled = self._classes(labelled[:, of_labelled])
        return Batch(x_labelled, y_labelled, self.inputs.draw(unlabelled, self.draws, of_unlabelled))

    def _classes(self, rows: Tensor) -> Tensor:
        """One-hot classes of rows [...], [..., K], on the device."""
        # The Trainer has moved the row numbers of a validation batch to the device, where the targets need not be.
        return self.one_hot[self.targets[rows.to(self.targets.device)].to(self.one_hot.device, torch.long)]

    def on_after_batch_transfer(self, batch: int | Tensor, dataloader_idx: int) -> Batch | tuple[Tensor, Tensor]:
        """Update numbers to training batches, row numbers to validation batches."""
        if isinstance(batch, Tensor):
            return self.inputs.mean(batch), self._classes(batch)
        # Asked here, not when the loader starts: Lightning starts it before it has counted the epoch up on a resume.
        assert self.trainer is not None
        return self.batch(self.trainer.current_epoch, batch)

"""Batches are a function of (seed, epoch), and an input is a fresh draw of its row.

Shape legend: S seeds, T steps of an epoch, B rows, D dimensions.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dgm.config import BudgetConfig
from ssl_dgm.data.datamodule import ROWS_PER_EVALUATION, Batch, Rows, SeededDataModule
from ssl_dgm.data.inputs import Inputs, Pixels, Posteriors
from ssl_dgm.data.splits import Split
from ssl_dgm.probability.randomness import Streams

K, SEEDS = 3, (4, 0, 7)
quick = settings(max_examples=30)


def split_of(num_labelled: int, num_unlabelled: int, seed: int) -> Split:
    """Other rows for every seed; `num_labelled + num_unlabelled` training rows in all."""
    rows = np.random.default_rng(seed).permutation(num_labelled + num_unlabelled)
    return Split(np.sort(rows[:num_labelled]), np.sort(rows[num_labelled:]), "toy", "", K, (), seed)


def make(
    num_labelled: int = 6,
    num_unlabelled: int = 31,
    seeds: tuple[int, ...] = SEEDS,
    updates: int = 5,
    per_step: int | str = "share",
    num_validation: int = 4,
    inputs: Inputs | None = None,
    passes: int = 1,
) -> SeededDataModule:
    num_train = num_labelled + num_unlabelled
    targets = torch.arange(num_train + num_validation) % K
    # The grey value of a row's pixels is the row's number: an input tells which row it is.
    numbers = torch.arange(len(targets), dtype=torch.uint8).view(-1, 1).expand(-1, 2)
    splits = [split_of(num_labelled, num_unlabelled, seed) for seed in seeds] if num_labelled else None
    budget = BudgetConfig(passes=passes, updates_per_epoch=updates, labelled_per_step=per_step)
    inputs = inputs or Pixels(numbers, binarise=False)
    return SeededDataModule(inputs, targets, K, splits, num_train, seeds, budget, torch.device("cpu"))


def dealt(data: SeededDataModule, epoch: int) -> Rows:
    """The rows of all steps of an epoch, [T, S, B]."""
    data.begin(epoch)
    return data.dealt


# --- How an epoch is cut


@pytest.mark.parametrize(
    ("per_step", "num_labelled", "updates", "expected"),
    [
        ("share", 6, 3, (3, 2)),
        ("share", 7, 3, (3, 2)),
        ("share", 6, 20, (6, 1)),  # never more updates than labels to share
        ("all", 6, 20, (20, 6)),
        (4, 6, 20, (20, 4)),
        (40, 6, 20, (20, 6)),
        ("share", 6, 100, (6, 1)),
        ("all", 6, 100, (31, 6)),  # nor than unlabelled rows
        ("share", 0, 5, (5, 0)),
    ],
)
def test_steps_and_labelled_rows_of_a_step(
    per_step: int | str, num_labelled: int, updates: int, expected: tuple[int, int]
) -> None:
    data = make(num_labelled=num_labelled, updates=updates, per_step=per_step)
    rows = dealt(data, 0)
    assert rows.labelled.shape == (expected[0], 3, expected[1])
    assert rows.unlabelled.shape == (expected[0], 3, 31 // expected[0])
    assert list(data.train_dataloader()) == list(range(expected[0]))


sizes = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 12))
budgets = st.one_of(st.sampled_from(["share", "all"]), st.integers(1, 12))


@quick
@given(sizes, budgets, st.integers(0, 99))
def test_every_row_is_of_its_pool_and_dealt_evenly(size: tuple[int, int, int], per_step: int | str, epoch: int) -> None:
    num_labelled, num_unlabelled, updates = size
    data = make(num_labelled, num_unlabelled, updates=updates, per_step=per_step)
    rows = dealt(data, epoch)
    for s, seed in enumerate(SEEDS):
        split = split_of(num_labelled, num_unlabelled, seed)
        unlabelled = rows.unlabelled[:, s].flatten().tolist()
        assert len(set(unlabelled)) == len(unlabelled) and set(unlabelled) <= set(split.unlabelled)
        assert num_unlabelled - len(unlabelled) < len(rows.unlabelled)  # less than one row a step is left over
        labelled = rows.labelled[:, s].flatten().numpy()
        times = [np.count_nonzero(labelled == row) for row in split.labelled]
        assert sum(times) == len(labelled) and max(times) - min(times) <= 1
        if per_step == "share":
            assert max(times) == 1
        if per_step == "all":
            assert all(sorted(step) == sorted(split.labelled) for step in rows.labelled[:, s].tolist())


def test_an_epoch_of_several_passes_deals_every_row_as_often_in_another_order() -> None:
    rows = dealt(make(num_unlabelled=12, updates=6, passes=3), 0).unlabelled
    assert rows.shape == (6, len(SEEDS), 6)
    first, second, third = rows[:, 0].reshape(3, 12)
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(third.tolist())
    assert len(set(first.tolist())) == 12 and not torch.equal(first, second)


def test_labelled_rows_that_come_again_come_in_another_order() -> None:
    data = make(num_labelled=8, updates=8, per_step=2)  # two passes
    first, second = dealt(data, 0).labelled[:, 0].view(2, 8)
    assert sorted(first.tolist()) == sorted(second.tolist()) and not torch.equal(first, second)


def test_without_labels_all_training_rows_are_unlabelled() -> None:
    data = make(num_labelled=0, num_unlabelled=30)
    rows = dealt(data, 0)
    assert all(sorted(of_seed.flatten().tolist()) == list(range(30)) for of_seed in rows.unlabelled.unbind(1))
    batch = data.batch(0, 0)
    assert batch.x_labelled.shape == (3, 0, 2) and batch.y_labelled.shape == (3, 0, K)


def test_splits_without_a_label_are_as_none() -> None:
    empty = [Split(np.empty(0, np.int64), np.arange(30), "toy", "", K, (), seed) for seed in SEEDS]
    inputs, targets = Pixels(torch.zeros(34, 2, dtype=torch.uint8)), torch.arange(34) % K
    for splits in (None, empty):
        data = SeededDataModule(inputs, targets, K, splits, 30, SEEDS, BudgetConfig(), torch.device("cpu"))
        batch = data.batch(0, 0)
        assert (data.updates, data.labelled_per_step, data.unlabelled_per_step) == (30, 0, 1)
        assert batch.y_labelled.shape == (3, 0, K)


@pytest.mark.parametrize("labels", [0, 6])
def test_rows_in_the_order_of_their_classes(labels: int) -> None:
    targets = torch.from_numpy(np.random.default_rng(0).integers(K, size=40))
    splits = [split_of(labels, 40 - labels, seed) for seed in SEEDS] if labels else None
    budget, inputs = BudgetConfig(updates_per_epoch=5), Pixels(torch.zeros(40, 2, dtype=torch.uint8))
    data = SeededDataModule(inputs, targets, K, splits, 36, SEEDS, budget, torch.device("cpu"), pool=38, by_class=True)
    rows = dealt(data, 0)
    assert torch.equal(rows.unlabelled, dealt(data, 1).unlabelled), "the same in every epoch"
    for s, seed in enumerate(SEEDS):
        pool = split_of(labels, 40 - labels, seed).unlabelled if labels else np.arange(38)
        expected = pool[np.argsort(targets.numpy()[pool], kind="stable")]
        assert rows.unlabelled[:, s].flatten().tolist() == expected[: 5 * (len(pool) // 5)].tolist()


# --- A function of (seed, epoch)


def epoch_of(data: SeededDataModule, epoch: int) -> list[Batch]:
    return [data.batch(epoch, update) for update in data.train_dataloader()]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def binarised(seeds: tuple[int, ...] = SEEDS) -> SeededDataModule:
    images = torch.randint(256, (41, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return make(seeds=seeds, inputs=Pixels(images))


def test_an_epoch_is_the_same_whatever_came_before() -> None:
    fresh, used = binarised(), binarised()
    epoch_of(used, 0)
    used.batch(1, 0)  # broken off
    assert same(epoch_of(fresh, 2), epoch_of(used, 2))


def test_an_epoch_that_is_trained_again_is_the_same() -> None:
    data = binarised()
    assert same(epoch_of(data, 2), epoch_of(data, 2))


def test_epochs_and_seeds_differ() -> None:
    rows = [dealt(binarised(), epoch) for epoch in (0, 1)]
    assert not torch.equal(rows[0].unlabelled, rows[1].unlabelled)
    assert not torch.equal(rows[0].labelled, rows[1].labelled)
    unlabelled_data = make(num_labelled=0)  # where seeds share the pool
    rows = dealt(unlabelled_data, 0)
    assert not torch.equal(rows.unlabelled[:, 0], rows.unlabelled[:, 1])


def test_a_seed_s_batches_are_the_same_alone_and_in_a_group() -> None:
    group = epoch_of(binarised(), 3)
    for s, seed in enumerate(SEEDS):
        assert same([Batch(*(t[s : s + 1] for t in batch)) for batch in group], epoch_of(binarised((seed,)), 3))


def test_batches_are_of_the_epoch_that_the_trainer_trains() -> None:
    data, other = binarised(), binarised()
    data.trainer = SimpleNamespace()  # type: ignore[assignment]
    for epoch in (0, 1, 3):
        data.trainer.current_epoch = epoch
        batches = [data.on_after_batch_transfer(update, 0) for update in data.train_dataloader()]
        assert same(batches, epoch_of(other, epoch))


# --- What a batch holds


def test_all_inputs_are_fresh_draws() -> None:
    data = make(num_labelled=10, inputs=Pixels(torch.full((45, 50), 128, dtype=torch.uint8)))  # all rows alike
    for group in (0, 2):
        drawn = torch.stack([batch[group] for batch in epoch_of(data, 0)]).flatten(0, 2)  # of a step, seed and row
        assert drawn.unique().tolist() == [0, 1] and len(drawn.unique(dim=0)) == len(drawn)


def test_rows_are_drawn_anew_in_every_epoch() -> None:
    data = make(inputs=Pixels(torch.full((41, 50), 128, dtype=torch.uint8)))  # whatever their order, rows are alike
    first, second, again = (data.batch(epoch, 0) for epoch in (0, 1, 0))
    for group in (0, 2):
        assert not torch.equal(first[group], second[group]) and torch.equal(first[group], again[group])


def test_a_training_batch_holds_inputs_and_labels_of_its_rows() -> None:
    data = make(num_labelled=9, updates=4)
    for batch, labelled, unlabelled in zip(epoch_of(data, 2), *data.dealt, strict=True):
        assert torch.equal((batch.x_labelled * 255).round()[..., 0].long(), labelled)
        assert torch.equal((batch.x_unlabelled * 255).round()[..., 0].long(), unlabelled)
        assert torch.equal(batch.y_labelled.argmax(-1), labelled % K)
        assert batch.y_labelled.dtype == torch.float32 and torch.equal(batch.y_labelled.sum(-1), torch.ones(3, 2))


def test_validation_holds_the_means_of_all_validation_rows_once() -> None:
    images = torch.randint(256, (37 + 2500, 2), dtype=torch.uint8)
    data = make(num_validation=2500, inputs=Pixels(images))
    blocks = list(data.val_dataloader())
    assert len(blocks) == len(data.val_dataloader()) == 3 and max(map(len, blocks)) == ROWS_PER_EVALUATION
    assert torch.equal(torch.cat(blocks), torch.arange(37, 37 + 2500))
    x, y = data.on_after_batch_transfer(blocks[1], 0)
    assert torch.equal(x, images[blocks[1]].float() / 255) and torch.equal(y.argmax(-1), blocks[1] % K)


# --- Inputs

DRAWS = 40_000
VALUES = torch.tensor([[0, 1, 64, 128, 254, 255]], dtype=torch.uint8)
one_row = torch.zeros(2, DRAWS, dtype=torch.long)  # [S, B] of the row 0


def test_a_pixel_is_one_with_probability_value_over_255() -> None:
    drawn = Pixels(VALUES).draw(one_row, Streams([4, 0], "inputs"))
    assert drawn.shape == (2, DRAWS, 6) and drawn.dtype == torch.float32
    assert ((drawn == 0) | (drawn == 1)).all()
    assert not drawn[..., 0].any() and drawn[..., 5].all()
    p = VALUES[0].double() / 255
    error = (p * (1 - p) / DRAWS).sqrt()
    assert ((drawn.double().mean(1) - p).abs() <= 4.5 * error).all()
    covariance = torch.cov(drawn[0, :, 1:5].T)  # pixels are drawn independently
    assert (covariance - covariance.diag().diag()).abs().max() < 0.01


def test_grey_pixels_are_not_drawn() -> None:
    rows = torch.zeros(2, 3, dtype=torch.long)
    grey = VALUES.float() / 255
    assert torch.equal(Pixels(VALUES, binarise=False).draw(rows, Streams([4, 0], "inputs")), grey.expand(2, 3, 6))
    assert torch.equal(Pixels(VALUES).mean(rows[0]), grey.expand(3, 6))


def test_moving_pixels_keeps_what_they_are() -> None:
    for binarise in (False, True):
        moved = Pixels(VALUES, binarise).to(torch.device("cpu"))
        drawn = [pixels.draw(one_row, Streams([4, 0], "inputs")) for pixels in (moved, Pixels(VALUES, binarise))]
        assert torch.equal(*drawn) and moved.x_dim == 6


def test_posteriors_are_drawn_from_their_gaussians() -> None:
    means, log_vars = torch.tensor([[0.0, 0.0], [5.0, -2.0]]), torch.tensor([[0.0, 0.0], [-3.0, 1.0]])
    posteriors = Posteriors(means, log_vars)
    for q in (posteriors, posteriors.to(torch.device("cpu"))):
        drawn = q.draw(one_row + 1, Streams([4, 0], "inputs"))
        assert drawn.shape == (2, DRAWS, 2) and q.x_dim == 2
        sd = log_vars[1].exp().sqrt()
        assert ((drawn.mean(1) - means[1]).abs() < 4.5 * sd / DRAWS**0.5).all()
        torch.testing.assert_close(drawn.std(1), sd.expand(2, 2), rtol=0.02, atol=0)
        assert torch.equal(q.mean(torch.tensor([1, 0])), means[[1, 0]])


@pytest.mark.parametrize("inputs", [Pixels(VALUES), Posteriors(torch.zeros(1, 6), torch.zeros(1, 6))])
def test_draws_are_fresh_and_each_seed_s_own(inputs: Inputs) -> None:
    streams = Streams([4, 0], "inputs")
    first, second = inputs.draw(one_row, streams), inputs.draw(one_row, streams)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    assert torch.equal(inputs.draw(one_row[:1], Streams([0], "inputs"))[0], first[1])


@pytest.mark.parametrize("inputs", [Pixels(VALUES), Posteriors(torch.zeros(1, 6), torch.zeros(1, 6))])
def test_a_part_of_the_rows_is_drawn_as_it_is_among_all(inputs: Inputs) -> None:
    rows, whole, part = torch.zeros(2, 9, dtype=torch.long), Streams([4, 0], "inputs"), Streams([4, 0], "inputs")
    for _ in range(2):  # nor does it leave the generators anywhere else
        assert torch.equal(inputs.draw(rows, part, slice(3, 7)), inputs.draw(rows, whole)[:, 3:7])

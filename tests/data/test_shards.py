"""Rows that stay on the disk: what a folder has to hold, which of its bytes are read, and in what order.

Shape legend: S seeds, B rows, D pixels.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_dgm.config import BudgetConfig, DataConfig, UserError
from ssl_dgm.data import shards, sources, splits
from ssl_dgm.data.datamodule import Batch, SeededDataModule
from ssl_dgm.data.inputs import OnDisk, Pixels
from ssl_dgm.data.shards import Shards, read_folder
from ssl_dgm.data.splits import Rest
from ssl_dgm.data.validation import held_out

D, K, SIZES = 6, 3, (40, 1, 29)
N, SEEDS = sum(SIZES), (4, 0, 7)


def put(
    folder: Path, sizes: tuple[int, ...] = SIZES, unlabelled: slice = slice(5, 25)
) -> tuple[np.ndarray, np.ndarray]:
    """A folder of shards, and its training rows and labels as they stand in the files."""
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(sum(sizes), 2, 3), dtype=np.uint8)
    y = rng.permutation(np.arange(sum(sizes)) % K)
    y[unlabelled] = -1
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum(sizes)
    for i, (a, b) in enumerate(zip(ends - sizes, ends)):
        np.save(folder / f"train-x-{i}.npy", x[a:b] if i else x[a:b].reshape(-1, 2, 3))
        np.save(folder / f"train-y-{i}.npy", y[a:b].astype(np.int8))
    np.save(folder / "test-x.npy", x[:5])
    np.save(folder / "test-y.npy", np.arange(5) % K)
    return x.reshape(-1, D), y


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "rows")
    return tmp_path / "rows"


# --- Reading


@given(st.lists(st.integers(0, N - 1), max_size=90), st.sets(st.integers(0, N - 1)))
def test_rows_are_those_of_the_files_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], last: set[int]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "hypothesis-rows"
    x, _ = put(folder)
    held = np.array(sorted(last), np.int64)
    files = [shards.read_header(path) for path in sorted(folder.glob("train-x-*.npy"))]
    read, expected = Shards(files, held), np.concatenate([np.delete(x, held, 0), x[held]])
    assert read.shape == (N, D) and len(read) == N
    np.testing.assert_array_equal(read[np.array(rows, np.int64)], expected[rows])
    np.testing.assert_array_equal(read[3:N:2], expected[3:N:2])


def bytes_read() -> int:
    """By this process so far, from the page cache or not."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc")
def test_nothing_but_the_rows_asked_for_is_read_and_each_once_for_all_seeds(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((100, 10_000), np.uint8))
    images = OnDisk(Shards([shards.read_header(tmp_path / f"{name}.npy") for name in "ab"], np.arange(0)))
    before = bytes_read()
    images[torch.tensor([[3, 190, 101, 3], [3, 190, 101, 7]])]
    # Little else is read meanwhile, the count itself for one.
    assert 40_000 <= bytes_read() - before < 50_000


def test_a_file_that_shrinks_or_goes_while_it_is_used_is_named(folder: Path) -> None:
    read = read_folder(folder).train_x
    path = folder / "train-x-0.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-x-0\.npy has become shorter"):
        read[:40]
    path.unlink()
    with pytest.raises(UserError, match=r"train-x-0\.npy cannot be read any more .*; put it back"):
        read[np.array([0])]
    with pytest.raises(IndexError):
        read[np.array([N])]


# --- What a folder holds


def test_the_validation_rows_come_last_and_are_of_all_classes(tmp_path: Path) -> None:
    x, y = put(tmp_path)
    held = held_out(y, None, "")
    found = read_folder(tmp_path)
    assert found.num_validation == len(held) == 5 and found.num_classes == K and found.shape == (2, 3)
    np.testing.assert_array_equal(found.train_y, np.concatenate([np.delete(y, held), y[held]]))
    np.testing.assert_array_equal(found.train_x[-5:], x[held])
    np.testing.assert_array_equal(found.test_x, x[:5])
    assert sources.load(DataConfig("memmap", str(tmp_path), validation=9)).num_validation == 9


def test_the_digest_is_of_labels_and_pixels_not_of_how_they_are_cut(tmp_path: Path, folder: Path) -> None:
    whole = sources.load(DataConfig("memmap", str(folder))).sha256
    put(tmp_path / "otherwise", (30, 40))
    assert sources.digest_of(DataConfig("memmap", str(tmp_path / "otherwise"))) == whole
    for name in ("train-x-1", "train-y-2", "test-x", "test-y"):
        put(tmp_path / name)
        array = np.load(tmp_path / name / f"{name}.npy")
        array.flat[0] = 1 if array.flat[0] != 1 else 0
        np.save(tmp_path / name / f"{name}.npy", array)
        assert sources.digest_of(DataConfig("memmap", str(tmp_path / name))) != whole


def replace(name: str, array: np.ndarray | None, **options: bool) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / f"{name}.npy").unlink()
        if array is not None:
            np.save(folder / f"{name}.npy", array, **options)

    return change


def cut(name: str, length: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / f"{name}.npy"
        path.write_bytes(path.read_bytes()[:length])

    return change


class Executed(Exception):
    """What unpickling would do."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (3,))


BYTES = np.zeros((40, 2, 3), np.uint8)
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "objects": (replace("train-x-0", np.array([Executed()] * 40), allow_pickle=True), "x-0.npy holds object"),
    "object labels": (replace("train-y-0", np.array([Executed()] * 40), allow_pickle=True), "y-0.npy holds object"),
    "columns": (replace("train-x-0", np.asfortranarray(BYTES)), "its rows one after the other"),
    "floats": (replace("train-x-0", BYTES / 255), "holds float64 [40, 2, 3], and has to hold uint8 rows"),
    "another shape": (replace("train-x-2", np.zeros((29, 3, 2), np.uint8)), "rows of 2 x 3 values, as train-x-0.npy"),
    "one dimension": (replace("train-x-0", np.zeros(40, np.uint8)), "has to hold uint8 rows [n, D]"),
    "no rows": (replace("train-x-1", np.zeros((0, 2, 3), np.uint8)), "rows; leave the file out if it has none"),
    "test rows of another shape": (replace("test-x", np.zeros((5, 7), np.uint8)), "test-x.npy holds uint8 [5, 7]"),
    "float labels": (replace("train-y-0", np.zeros(40)), "has to hold a whole number for every row"),
    "too few labels": (replace("train-y-0", np.zeros(39, np.int8)), "40 labels, one for every row of train-x-0.npy"),
    "no labels": (replace("train-y-2", None), "3 train-x-*.npy but 2 train-y-*.npy"),
    "a label of -2": (replace("train-y-0", np.full(40, -2)), "has a label -2; use 0, 1, 2, ... or -1"),
    "a huge label": (replace("train-y-0", np.full(40, 2**40)), "has a label 1099511627776"),
    "a stray label": (replace("train-y-1", np.array([9_999])), "has a label 9,999 but only"),
    "an unlabelled test row": (replace("test-y", np.array([0, 1, -1, 0, 1])), "has a label -1; use 0, 1, 2, ..."),
    "a class of the test rows alone": (replace("test-y", np.arange(5)), "a label 4 that no training row has"),
    "no test rows": (replace("test-x", None), "test-x.npy cannot be read (No such file"),
    "cut short": (cut("train-x-2", -3), "train-x-2.npy has 299 bytes where its header promises 302"),
    "a cut header": (cut("train-x-2", 40), "train-x-2.npy is no .npy file"),
    "an empty file": (cut("train-y-0", 0), "train-y-0.npy is no .npy file"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_folder_is_refused_with_one_sentence(folder: Path, what: str) -> None:
    change, sentence = HOSTILE[what]
    change(folder)
    with pytest.raises(UserError) as refused:
        read_folder(folder)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_a_header_is_read_and_not_executed(folder: Path) -> None:
    text = b"{'descr': '|u1', 'fortran_order': __import__('os')._exit(3), 'shape': (40, 2, 3)}"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(240)
    (folder / "train-x-0.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"is no \.npy file"):
        read_folder(folder)


def test_too_few_labels_and_an_absent_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "few", unlabelled=slice(0, N - 9))
    for folder, sentence in ((tmp_path / "few", "has 9 training rows with a label"), (None, "data.folder=...")):
        with pytest.raises(UserError, match=sentence):
            sources.load(DataConfig("memmap", str(folder)))
    with pytest.raises(UserError, match="is no folder"):
        sources.check_available(DataConfig("memmap", str(tmp_path / "absent")))
    put(tmp_path / "rows")
    source = sources.load(DataConfig("memmap", str(tmp_path / "rows")))
    with pytest.raises(UserError, match="would read every row"):
        source.drop_constant_pixels(0.1)


# --- Splits


def test_a_manifest_whose_pool_has_the_validation_rows_is_read_again(folder: Path, tmp_path: Path) -> None:
    source = sources.load(DataConfig("memmap", str(folder)))
    split = splits.draw(source, 12, 5, validation_in_pool=True)
    splits.save(split, tmp_path / "m.json")
    again = splits.load_manifest(tmp_path / "m.json", source)
    np.testing.assert_array_equal(np.asarray(again.unlabelled), np.asarray(split.unlabelled))
    assert len(again.unlabelled) == len(source.train_y) - 12


@pytest.mark.parametrize("in_pool", [False, True])
def test_a_split_has_known_labels_and_a_small_manifest(folder: Path, tmp_path: Path, in_pool: bool) -> None:
    source = sources.load(DataConfig("memmap", str(folder)))
    split = splits.draw(source, 12, 5, in_pool)
    assert (source.train_y[split.labelled] >= 0).all() and split.class_counts == (4, 4, 4)
    pool = set(np.asarray(split.unlabelled).tolist())
    assert pool == set(range(source.num_train)) - (set() if in_pool else set(split.labelled.tolist()))
    assert isinstance(split.unlabelled, Rest) and len(split.unlabelled) == len(pool)
    splits.save(split, tmp_path / "m.json")
    again = splits.load_manifest(tmp_path / "m.json", source)
    np.testing.assert_array_equal(again.labelled, split.labelled)
    assert isinstance(again.unlabelled, Rest) and again.sha256 == split.sha256
    assert (tmp_path / "m.json").stat().st_size < 1000


def test_no_label_is_drawn_that_is_not_known(folder: Path) -> None:
    source = sources.load(DataConfig("memmap", str(folder)))
    every = np.bincount(source.train_y[: source.num_train][source.train_y[: source.num_train] >= 0])
    with pytest.raises(UserError, match=f"has only {every.min()}; use at most {K * every.min()}, or"):
        splits.draw(source, K * int(every.min()) + K, 0)
    with pytest.raises(UserError, match="a multiple of the 3 classes"):
        splits.draw(source, source.num_train, 0, labelled_in_pool=True)


# --- Batches


def make(
    folder: Path, seeds: tuple[int, ...] = SEEDS, updates: int = 4, rank: int = 0, ranks: int = 1
) -> SeededDataModule:
    source = sources.load(DataConfig("memmap", str(folder)))
    assert isinstance(source.train_x, Shards)
    drawn = [splits.draw(source, 6, seed) for seed in seeds]
    data = SeededDataModule(
        Pixels(OnDisk(source.train_x)), torch.from_numpy(source.train_y), K, drawn, source.num_train, seeds,
        BudgetConfig(updates_per_epoch=updates, labelled_per_step=5), torch.device("cpu"), shared_order=True,
    )  # fmt: skip
    data.take(rank, ranks)
    return data


def epoch_of(data: SeededDataModule, epoch: int) -> list[Batch]:
    return [data.batch(epoch, update) for update in data.train_dataloader()]


def test_all_seeds_see_the_same_unlabelled_rows_but_for_their_own_labelled_ones(folder: Path) -> None:
    data = make(folder)
    by_epoch = []
    for epoch in (0, 1):
        data.begin(epoch)
        rows = torch.stack([data.dealt.unlabelled[update] for update in range(data.updates)])  # [T, S, B]
        for s, own in enumerate(data.labelled):
            seen = rows[:, s].flatten().tolist()
            assert len(set(seen)) == len(seen) and not set(seen) & set(own.tolist())
            assert set(seen) <= set(range(data.num_train))
        # Two seeds differ where the order has a labelled row of one of them: 6 each.
        assert 0 < (rows[:, 0] != rows[:, 1]).sum() <= 12
        by_epoch.append(rows)
    assert not torch.equal(*by_epoch)
    assert not torch.equal(data.dealt.labelled[:, 0], data.dealt.labelled[:, 1])


def test_a_seed_s_batches_are_the_same_alone_and_in_a_group(folder: Path) -> None:
    group = epoch_of(make(folder), 3)
    assert not torch.equal(group[0].x_unlabelled[0], group[0].x_unlabelled[1]), "binarised for each seed by itself"
    for s, seed in enumerate(SEEDS):
        for of_group, own in zip(group, epoch_of(make(folder, (seed,)), 3), strict=True):
            assert all(torch.equal(a[s], b[0]) for a, b in zip(of_group, own, strict=True))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_out_the_batch_of_one_process(folder: Path, ranks: int) -> None:
    parts = [epoch_of(make(folder, rank=rank, ranks=ranks), 2) for rank in range(ranks)]
    for whole, *shares in zip(epoch_of(make(folder), 2), *parts, strict=True):
        assert all(torch.equal(t, torch.cat(own, 1)) for t, *own in zip(whole, *shares, strict=True))
    assert len({batch[0].x_labelled.shape[1] for batch in parts}) == 2, "5 rows do not divide evenly"


def test_an_input_is_drawn_as_it_is_from_memory(folder: Path) -> None:
    data, source = make(folder), sources.load(DataConfig("memmap", str(folder)))
    images = torch.from_numpy(source.train_x[:])
    for from_disk in epoch_of(data, 0):
        assert from_disk.x_unlabelled.unique().tolist() == [0, 1]
    data_in_memory = make(folder)
    data_in_memory.inputs = Pixels(images)
    for a, b in zip(epoch_of(data, 1), epoch_of(data_in_memory, 1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    blocks = list(data.val_dataloader())
    x, y = data.on_after_batch_transfer(blocks[0], 0)
    assert torch.equal(x, images[source.num_train :].float() / 255)
    np.testing.assert_array_equal(y.argmax(-1), source.train_y[source.num_train :])

"""Which rows a draw labels, and which it leaves in the pool."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_dgm.config import UserError
from ssl_dgm.data import sources
from ssl_dgm.data.source import Source, digest
from ssl_dgm.data.splits import Split, draw, load_manifest, save


def synthetic(sizes: list[int], num_validation: int = 7, seed: int = 0) -> Source:
    """`sizes[c]` training rows of class c in random order, before validation rows of any class."""
    rng, k = np.random.default_rng(seed), len(sizes)
    y = np.concatenate([rng.permutation(np.repeat(np.arange(k), sizes)), rng.integers(k, size=num_validation)])
    x = rng.integers(256, size=(len(y), 4), dtype=np.uint8)
    test_x, test_y = x[:5] // 2, y[:5]
    return Source("toy", x, y, test_x, test_y, num_validation, k, (2, 2), digest(x, y, test_x, test_y))


some_sources = st.builds(
    synthetic, st.lists(st.integers(3, 12), min_size=2, max_size=6), st.integers(0, 9), st.integers(0, 99)
)
seeds = st.integers(0, 2**32)


def same(a: Split, b: Split) -> bool:
    arrays = all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("labelled", "unlabelled"))
    rest = [(s.data, s.data_sha256, s.num_classes, s.class_counts, s.split_seed, s.sha256) for s in (a, b)]
    return arrays and rest[0] == rest[1]


def test_the_first_rows_keep_the_validation_rows_and_bound_the_split(tmp_path: Path) -> None:
    whole = synthetic([20, 20])
    first = whole.first_rows(12)
    np.testing.assert_array_equal(first.train_x, np.concatenate([whole.train_x[:12], whole.train_x[40:]]))
    np.testing.assert_array_equal(first.train_y, np.concatenate([whole.train_y[:12], whole.train_y[40:]]))
    assert (first.num_train, first.num_validation, first.sha256) == (12, 7, whole.sha256)
    split = draw(first, 4, 0)
    assert sorted([*split.labelled, *split.unlabelled]) == list(range(12))
    save(split, tmp_path / "split.json")
    assert same(load_manifest(tmp_path / "split.json", first), split)
    assert whole.first_rows(None) is whole
    with pytest.raises(UserError, match=r"data\.train_rows=41 is more than the 40 training rows of toy; use at most"):
        whole.first_rows(41)


@given(some_sources, seeds, st.integers(1, 3), st.booleans())
def test_balanced_and_disjoint(source: Source, seed: int, per_class: int, in_pool: bool) -> None:
    k = source.num_classes
    if k * per_class == source.num_train:
        return
    split = draw(source, k * per_class, seed, in_pool)
    labelled, unlabelled = set(split.labelled.tolist()), set(split.unlabelled.tolist())
    assert len(labelled) == len(split.labelled) == k * per_class
    assert split.class_counts == tuple(np.bincount(source.train_y[split.labelled])) == (per_class,) * k
    assert len(unlabelled) == len(split.unlabelled)
    rows = set(range(source.num_train))  # neither validation rows nor more
    assert unlabelled == (rows if in_pool else rows - labelled)
    assert labelled <= rows
    assert split.labelled.dtype == split.unlabelled.dtype == np.int64


@given(some_sources, seeds)
def test_nested_as_a_balanced_prefix(source: Source, seed: int) -> None:
    k, most = source.num_classes, int(np.bincount(source.train_y[: source.num_train]).min())
    more = draw(source, k * most, seed, labelled_in_pool=True)
    if len(more.labelled) == source.num_train:
        return
    for n in range(1, most):
        fewer = draw(source, k * n, seed).labelled
        np.testing.assert_array_equal(fewer, more.labelled[: k * n])
    np.testing.assert_array_equal(source.train_y[more.labelled], np.tile(np.arange(k), most))


@given(some_sources, seeds)
def test_a_function_of_the_seed_alone(source: Source, seed: int) -> None:
    k = source.num_classes
    first = draw(source, k, seed)
    np.random.seed(seed % 7)  # the global generator has no say
    shuffled_pixels = dataclasses.replace(source, train_x=source.train_x[::-1], test_y=source.test_y[::-1])
    assert same(first, draw(shuffled_pixels, k, seed))


def test_seeds_differ() -> None:
    source = synthetic([50, 50])
    assert len({draw(source, 20, seed).sha256 for seed in range(50)}) == 50


def test_every_row_is_drawn_as_often() -> None:
    source = synthetic([8, 12])
    times = sum(np.bincount(draw(source, 4, seed).labelled, minlength=20) for seed in range(2000))
    expected = np.where(source.train_y[:20] == 0, 2000 * 2 / 8, 2000 * 2 / 12)
    sd = np.sqrt(expected * (1 - expected / 2000))
    assert np.abs((times - expected) / sd).max() < 4


def test_validation_and_test_labels_are_not_read() -> None:
    source = synthetic([9, 9], num_validation=6)
    y = source.train_y.copy()
    y[source.num_train :] = 1 - y[source.num_train :]
    other = dataclasses.replace(source, train_y=y, test_y=1 - source.test_y)
    assert same(draw(source, 8, 3), draw(other, 8, 3))


def test_all_labels() -> None:
    source = synthetic([5, 9])
    split = draw(source, 14, 0, labelled_in_pool=True)
    assert split.labelled.tolist() == split.unlabelled.tolist() == list(range(14))
    assert split.class_counts == (5, 9)
    with pytest.raises(UserError, match=r"labels=14 .*leaves none unlabelled; set data\.labelled_in_pool=true"):
        draw(source, 14, 0)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (105, "labels=105 is not a multiple of the 10 classes of toy; use 100 or 110"),
        (5, "labels=5 is not a multiple of the 10 classes of toy; use 10"),
        (109, "labels=109 is not a multiple of the 10 classes of toy; use 100 or 110"),
        (111, "labels=111 is not a multiple of the 10 classes of toy; use 110"),
        (-10, "labels=-10 is not positive; use 10 or another multiple of the 10 classes of toy"),
        (
            1200,
            "labels=1200 is more than the 1,191 training rows of toy; "
            "use at most 110, or all 1191 with data.labelled_in_pool=true",
        ),
        (
            120,
            "labels=120 takes 12 rows of every class, and class 3 of toy has only 11; "
            "use at most 110, or all 1191 with data.labelled_in_pool=true",
        ),
        (
            125,
            "labels=125 is not a multiple of the 10 classes of toy; "
            "use at most 110, or all 1191 with data.labelled_in_pool=true",
        ),
    ],
)
def test_impossible_numbers_of_labels(labels: int, sentence: str) -> None:
    source = synthetic([131, 131, 131, 11, 131, 131, 131, 131, 131, 132])
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        draw(source, labels, 0)


@given(some_sources, seeds, st.data())
def test_hidden_classes_have_no_labelled_row_and_are_in_the_pool(
    source: Source, seed: int, data: st.DataObject
) -> None:
    classes = data.draw(st.sets(st.integers(0, source.num_classes - 1), min_size=1))
    split = draw(source, 2 * len(classes), seed, classes=classes)
    assert split.class_counts == tuple(2 * (c in classes) for c in range(source.num_classes))
    np.testing.assert_array_equal(np.union1d(split.labelled, split.unlabelled), np.arange(source.num_train))
    assert not np.intersect1d(split.labelled, split.unlabelled).size
    # A class has the same labelled rows whichever others are labelled, and fewer are a prefix of more.
    every = draw(source, 2 * source.num_classes, seed).labelled
    np.testing.assert_array_equal(split.labelled, every[np.isin(source.train_y[every], list(classes))])
    np.testing.assert_array_equal(
        split.labelled[: len(classes)], draw(source, len(classes), seed, False, classes).labelled
    )


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (5, "labels=5 is not a multiple of the 2 labelled classes of toy; use 4 or 6"),
        (
            24,
            "labels=24 takes 12 rows of every class, and class 1 of toy has only 11; use at most 22, or other classes",
        ),
        (27, "labels=27 is not a multiple of the 2 labelled classes of toy; use at most 22"),
    ],
)
def test_numbers_of_labels_that_labelled_classes_cannot_have(labels: int, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}"):
        draw(synthetic([3, 11, 16]), labels, 0, classes=[1, 2])


@given(some_sources, seeds, st.booleans())
def test_validation_rows_in_the_pool_are_never_labelled(
    tmp_path_factory: pytest.TempPathFactory, source: Source, seed: int, in_pool: bool
) -> None:
    split = draw(source, source.num_classes, seed, in_pool, validation_in_pool=True)
    np.testing.assert_array_equal(split.labelled, draw(source, source.num_classes, seed).labelled)
    rows = np.arange(len(source.train_y))
    np.testing.assert_array_equal(split.unlabelled, rows if in_pool else np.setdiff1d(rows, split.labelled))
    path = tmp_path_factory.mktemp("manifests") / "split.json"
    save(split, path)
    assert same(load_manifest(path, source), split)


def test_all_training_rows_can_be_labelled_where_validation_rows_are_not() -> None:
    split = draw(synthetic([5, 9], num_validation=4), 14, 0, validation_in_pool=True)
    assert split.unlabelled.tolist() == [14, 15, 16, 17]


@pytest.mark.parametrize("in_pool", [False, True])
def test_no_labels_at_all(tmp_path: Path, in_pool: bool) -> None:
    source = synthetic([5, 9])
    split = draw(source, 0, 3, in_pool)
    assert split.labelled.dtype == np.int64 and split.class_counts == (0, 0)
    np.testing.assert_array_equal(split.unlabelled, np.arange(14))
    save(split, tmp_path / "m.json")
    assert same(load_manifest(tmp_path / "m.json", source), split)


def test_advice_can_be_followed() -> None:
    source = synthetic([5, 8, 6])
    for labels in range(-3, 30):
        try:
            draw(source, labels, 0)
        except UserError as error:
            advised = re.findall(r"\d+", str(error).partition(";")[2].partition(" with ")[0].partition("the ")[0])
            for number in map(int, advised):
                draw(source, number, 0, labelled_in_pool=True)
            assert advised or labels == source.num_train


def test_a_class_without_rows() -> None:
    source = synthetic([4, 0, 4], num_validation=0)
    with pytest.raises(UserError, match=r"class 1 of toy has only 0; use all 8 with data\.labelled_in_pool=true"):
        draw(source, 3, 0)


def test_negative_seed() -> None:
    with pytest.raises(UserError, match="split_seed=-1 is negative"):
        draw(synthetic([5, 5]), 2, -1)


def test_the_draw_is_the_published_one() -> None:
    """Fails where NumPy draws otherwise than when results were made: published manifests then are the way back."""
    split = draw(sources.load("digits"), 100, 0)
    assert split.sha256 == "2231355c04704c834de9eef72c0fcf86cc6ba564a9158421f0f3493d0a253d21"


def test_hash_sees_order_and_limits() -> None:
    a, b = np.arange(4), np.arange(4, 8)
    pairs = [(a, b), (a[::-1], b), (a, b[::-1]), (b, a), (a[:3], np.append(a[3], b))]
    base = draw(synthetic([5, 5]), 2, 0)
    assert len({dataclasses.replace(base, labelled=p, unlabelled=q).sha256 for p, q in pairs}) == len(pairs)


@given(some_sources, seeds)
def test_all_labels_are_those_that_are_known_and_not_held_out(source: Source, seed: int) -> None:
    y = source.train_y.copy()
    y[np.flatnonzero(y == 0)[1 : source.num_train : 2]] = -1
    source = dataclasses.replace(source, train_y=y)
    known = np.flatnonzero(y[: source.num_train] >= 0)
    split = draw(source, "all", seed)
    np.testing.assert_array_equal(split.labelled, known)
    np.testing.assert_array_equal(split.unlabelled, np.flatnonzero(y[: source.num_train] < 0))
    assert split.sha256 == draw(source, "all", seed + 1).sha256, "there is nothing to draw"
    np.testing.assert_array_equal(
        draw(source, "all", seed, classes=[1]).labelled, np.flatnonzero(y[: source.num_train] == 1)
    )


def test_all_labels_need_a_pool_and_a_row_of_every_class() -> None:
    source = synthetic([5, 5])
    with pytest.raises(
        UserError, match=r"labels=all labels every training row of toy .*; set data.labelled_in_pool=true, or"
    ):
        draw(source, "all", 0)
    assert len(draw(source, "all", 0, labelled_in_pool=True).unlabelled) == 10
    without = dataclasses.replace(source, train_y=np.where(source.train_y == 1, -1, source.train_y))
    with pytest.raises(
        UserError, match=r"labels=all finds no row of class 1 of toy; label some, .* classes.hidden=\[1\]"
    ):
        draw(without, "all", 0)


def test_as_many_labels_as_rows_are_all_rows_only_where_every_class_is_labelled() -> None:
    with pytest.raises(UserError, match="labels=24 takes 12 rows of every class, and class 1 of toy has only 9"):
        draw(synthetic([5, 9, 10]), 24, 0, labelled_in_pool=True, classes=[1, 2])

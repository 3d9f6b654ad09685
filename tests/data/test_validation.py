"""Which labelled rows are held out of data of users' own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_dgm.config import UserError
from ssl_dgm.data import validation
from ssl_dgm.data.validation import held_out, stratified


def labels(counts: list[int], unlabelled: int = 0) -> np.ndarray:
    """So many rows of every class, and some without a label, in random order."""
    y = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])
    return np.random.default_rng(0).permutation(y)


some_counts = st.lists(st.integers(2, 40), min_size=1, max_size=6)


@given(some_counts, st.integers(0, 30), st.integers(0, 10_000))
def test_every_class_gives_its_share_and_keeps_a_row(counts: list[int], unlabelled: int, number: int) -> None:
    y, k = labels(counts, unlabelled), len(counts)
    wanted = k + number % (sum(counts) - 2 * k + 1)
    rows = stratified(y, wanted, 0)
    assert len(rows) == len(np.unique(rows)) == wanted
    given = np.bincount(y[rows], minlength=k)  # raises for a row without a label
    assert (given >= 1).all() and (given <= np.array(counts) - 1).all()
    exact = wanted * np.array(counts) / sum(counts)
    if (exact >= 1).all() and (exact <= np.array(counts) - 1).all():
        assert np.abs(given - exact).max() < 1
    np.testing.assert_array_equal(rows, np.sort(rows))
    np.testing.assert_array_equal(rows, stratified(y, wanted, 0))


def test_a_tenth_is_held_out_of_balanced_and_of_other_classes() -> None:
    y = labels([500, 500], 3000)
    assert np.bincount(y[held_out(y, None, "rows")]).tolist() == [50, 50]
    y = labels([980, 20])
    assert np.bincount(y[held_out(y, None, "rows")]).tolist() == [98, 2]
    y = labels([3, 3, 3])
    assert np.bincount(y[held_out(y, None, "rows")]).tolist() == [1, 1, 1], "one of every class at least"
    assert len(held_out(y, 6, "rows")) == 6


def test_not_more_than_ten_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validation.MOST == 10_000
    monkeypatch.setattr(validation, "MOST", 7)
    assert len(held_out(labels([60, 60]), None, "rows")) == 7


def test_draws_for_different_purposes_differ() -> None:
    y = labels([100, 100])
    assert not np.array_equal(stratified(y, 50, 0), stratified(y, 50, 1))


@pytest.mark.parametrize(
    ("counts", "asked", "sentence"),
    [
        ([5, 1], None, "rows has 1 row of class 1 with a label; label 2 at least"),
        ([5, 5], 1, "data.validation=1 cannot be held out of the 10 labelled rows of rows, .* use 2 to 8"),
        ([5, 5], 9, "data.validation=9 cannot be held out"),
    ],
)
def test_what_cannot_be_held_out_is_refused(counts: list[int], asked: int | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        held_out(labels(counts, 4), asked, "rows")

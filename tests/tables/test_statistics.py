"""Means, intervals and differences against SciPy's, and the verdicts that are made of them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssl_dgm.tables.statistics import Summary, best, paired, summarise, verdict

NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda value: round(value, 3))
SAMPLES = st.lists(NUMBERS, min_size=2, max_size=20)


def interval(values: list[float]) -> Summary:
    """The summary of several finite values, which has all its parts."""
    summary = summarise(values)
    assert summary is not None and summary.sd is not None and summary.low is not None and summary.high is not None
    return summary


def numbers(summary: Summary) -> list[float]:
    parts = [summary.mean, summary.sd, summary.low, summary.high]
    return [part for part in parts if part is not None]


@given(SAMPLES)
def test_mean_spread_and_interval_are_scipys(values: list[float]) -> None:
    sem = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem) if sem else [values[0]] * 2
    expected = [np.mean(values), np.std(values, ddof=1), low, high]
    assert numbers(interval(values)) == pytest.approx(expected, rel=1e-9, abs=1e-8)


@given(SAMPLES)
def test_the_interval_is_around_the_mean_in_any_order(values: list[float]) -> None:
    found = interval(values)
    assert found.low is not None and found.high is not None
    assert found.low <= found.mean <= found.high
    assert found.mean - found.low == pytest.approx(found.high - found.mean, abs=1e-9)
    assert interval(random.Random(0).sample(values, len(values))) == found


@given(SAMPLES, NUMBERS, NUMBERS)
def test_shifting_and_scaling_the_values_shifts_and_scales_the_summary(
    values: list[float], shift: float, scale: float
) -> None:
    found, moved = interval(values), interval([shift + scale * value for value in values])
    ends = [shift + scale * end for end in (found.low or 0.0, found.high or 0.0)]
    expected = [shift + scale * found.mean, abs(scale) * (found.sd or 0.0), *sorted(ends)]
    assert numbers(moved) == pytest.approx(expected, rel=1e-8, abs=1e-6)


def test_a_known_interval() -> None:
    # Student's original data: the extra sleep of ten patients, mean 1.58, standard error 0.389, t = 2.262.
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert numbers(interval(differences)) == pytest.approx([1.58, 1.230, 0.700, 2.460], abs=5e-4)


def test_one_value_has_no_spread_and_none_no_summary() -> None:
    assert summarise([3.0]) == Summary(1, 3.0, None, None, None)
    assert summarise([]) is None


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_leaves_no_interval(bad: float) -> None:
    found = summarise([1.0, bad, 2.0])
    assert found is not None and not math.isfinite(found.mean)
    assert (found.n, found.sd, found.low, found.high) == (3, None, None, None)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=20))
def test_paired_differences_are_those_of_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    ours = {(f"split {k}", k): a for k, (a, _) in enumerate(pairs)}
    theirs = {(f"split {k}", k): b for k, (_, b) in enumerate(pairs)}
    found = paired(ours, theirs)
    differences = [a - b for a, b in pairs]
    assert found == summarise(differences)
    if np.std(differences) > 1e-6:  # without any spread SciPy divides by zero
        low, high = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs]).confidence_interval()
        assert found is not None
        assert [found.low, found.high] == pytest.approx([low, high], rel=1e-6, abs=1e-8)


def test_pairs_are_of_the_same_split_and_seed_in_any_order() -> None:
    ours = {("a", 0): 5.0, ("b", 1): 7.0, ("c", 2): 100.0}
    theirs = {("b", 1): 3.0, ("a", 0): 4.0, ("c", 3): 0.0, ("other", 2): 0.0}
    assert paired(ours, theirs) == summarise([1.0, 4.0])
    assert paired({("a", 0): 5.0}, {("b", 0): 4.0}) is None
    assert paired({}, theirs) is None


VALIDATION = st.dictionaries(st.integers(0, 30), NUMBERS, min_size=1, max_size=10)


@given(VALIDATION, st.randoms(use_true_random=False), st.booleans())
def test_the_best_run_is_chosen_by_validation_alone(
    validation: dict[int, float], chance: random.Random, lower: bool
) -> None:
    chosen = best(chance.sample(list(validation), len(validation)), validation, lower)
    wanted = (min if lower else max)(validation.values())
    assert chosen == min(seed for seed, value in validation.items() if value == wanted), "of equals, the first seed"


def test_no_best_run_where_a_validation_value_is_lacking() -> None:
    assert best([0, 1], {0: 0.5}, lower=True) is None
    assert best([], {0: 0.5}, lower=True) is None
    assert best([0], {0: 0.5, 1: 0.1}, lower=True) == 0, "a seed that has no test value yet is no candidate"


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_run_without_a_real_validation_value_is_not_the_best(broken: int, lower: bool) -> None:
    validation = {0: 0.5, 1: 0.5, 2: 0.5} | {broken: math.nan}
    assert best([0, 1, 2], validation, lower) != broken


OURS = Summary(3, 4.0, 0.4, 3.0, 5.0)
ABOVE_OURS, BELOW_OURS, TOUCHING = 5.5, 2.5, 5.0


@pytest.mark.parametrize(
    ("value", "spread", "of_error", "of_bound"),
    [
        (ABOVE_OURS, None, "better", "worse"),
        (ABOVE_OURS, 0.25, "better", "worse"),
        (ABOVE_OURS, 0.5, "within", "within"),
        (ABOVE_OURS, 0.75, "within", "within"),
        (TOUCHING, None, "within", "within"),
        (4.0, None, "within", "within"),
        (4.0, 9.0, "within", "within"),
        (BELOW_OURS, 0.75, "within", "within"),
        (BELOW_OURS, 0.25, "worse", "better"),
        (BELOW_OURS, None, "worse", "better"),
    ],
)
def test_verdicts(value: float, spread: float | None, of_error: str, of_bound: str) -> None:
    assert verdict(OURS, value, spread, lower_is_better=True) == of_error
    assert verdict(OURS, value, spread, lower_is_better=False) == of_bound


@pytest.mark.parametrize("lower", [True, False])
def test_without_a_useful_interval_there_is_no_verdict(lower: bool) -> None:
    assert verdict(Summary(1, 4.0, None, None, None), 9.0, 0.1, lower) == "one seed"
    assert verdict(Summary(2, 4.0, 0.1, 3.1, 4.9), 9.0, 0.1, lower) == "two seeds"
    assert verdict(Summary(3, math.inf, None, None, None), 9.0, 0.1, lower) == "no interval"

"""What a cell says of its seeds: mean, spread, interval, differences, and a verdict against a published number."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95
FEW = {1: "one seed", 2: "two seeds"}


@dataclass(frozen=True)
class Summary:
    """Of n values: their mean, sample standard deviation (ddof = 1) and Student's t interval.

    The latter are None where n = 1, or where a value is not finite.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary | None:
    """The summary of the values of a cell's seeds; None of no value.

    The interval is mean ± t sd / sqrt(n), with t the 97.5 % quantile of Student's distribution of n - 1 degrees.
    """
    n = len(values)
    if n == 0:
        return None
    mean = statistics.fmean(values)
    if n == 1 or not all(map(math.isfinite, values)):
        return Summary(n, mean, None, None, None)
    sd = statistics.stdev(values)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired(ours: Mapping[tuple, float], theirs: Mapping[tuple, float]) -> Summary | None:
    """The summary of ours - theirs over what both have: values by (split, seed)."""
    return summarise([ours[pair] - theirs[pair] for pair in ours if pair in theirs])


def best(seeds: Collection[int], validation: Mapping[int, float], lower: bool) -> int | None:
    """The seed whose validation value is best; of equals, the smallest. None where one lacks it."""
    if not seeds or not set(seeds) <= validation.keys():
        return None

    def cost(seed: int) -> float:
        value = validation[seed] if lower else -validation[seed]
        return math.inf if math.isnan(value) else value  # nan is neither below nor above anything, and would win

    return min(sorted(seeds), key=cost)


def verdict(summary: Summary, value: float, spread: float | None, lower_is_better: bool) -> str:
    """better, within or worse than a published value ± spread.

    'within' where our interval and theirs overlap. One seed has no interval, and that of two, thirteen standard errors
    to either side, holds nearly anything: no verdict.
    """
    if summary.n in FEW:
        return FEW[summary.n]
    if summary.low is None or summary.high is None:
        return "no interval"
    below, above = value - (spread or 0.0), value + (spread or 0.0)
    if summary.high < below:
        return "better" if lower_is_better else "worse"
    if summary.low > above:
        return "worse" if lower_is_better else "better"
    return "within"

"""A draw is a function of (seed, epoch, purpose) and of nothing else."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_dgm.probability.randomness import Streams, derived_seed

quick = settings(max_examples=25)
purposes = st.sampled_from(["noise", "order", "inputs", "validation"])
keys = st.tuples(st.integers(0, 2**32), st.integers(0, 10_000), purposes)
DRAWS: list[Callable[[Streams], Tensor]] = [
    lambda s: s.normal((40, 3)),
    lambda s: s.bytes_below(255, (40, 3)),
    lambda s: s.permutations(40, 3),
]
each_draw = pytest.mark.parametrize("draw", DRAWS, ids=["normal", "bytes_below", "permutations"])


@given(keys, keys)
def test_different_seeds_epochs_and_purposes_start_differently(
    one: tuple[int, int, str], other: tuple[int, int, str]
) -> None:
    assert (derived_seed(*one) == derived_seed(*other)) == (one == other)
    assert 0 <= derived_seed(*one) < 2**32


def test_digits_of_seed_and_epoch_are_not_confused() -> None:
    assert len({derived_seed(1, 11, "noise"), derived_seed(11, 1, "noise"), derived_seed(111, 0, "noise")}) == 3


def test_derived_seeds_are_the_same_on_every_machine() -> None:
    assert derived_seed(3, 7, "noise") == 0x9DE0BDCB  # printf 3/7/noise | sha256sum, first four bytes


@each_draw
def test_a_seed_draws_the_same_alone_and_in_any_group(draw: Callable[[Streams], Tensor]) -> None:
    group, turned = Streams([3, 1, 8], "noise").begin(5), Streams([8, 3, 1], "noise").begin(5)
    alone = [Streams([seed], "noise").begin(5) for seed in (3, 1, 8)]
    for _ in range(2):  # a second draw as well as the first
        drawn = draw(group)
        assert torch.equal(drawn, torch.cat([draw(one) for one in alone]))
        assert torch.equal(drawn, draw(turned)[[1, 2, 0]])


@each_draw
def test_an_epoch_begins_the_same_whatever_was_drawn_before(draw: Callable[[Streams], Tensor]) -> None:
    fresh, used = Streams([3, 1], "noise").begin(5), Streams([3, 1], "noise")
    for _ in range(3):
        draw(used)
    assert torch.equal(draw(fresh), draw(used.begin(4).begin(5)))


@each_draw
def test_seeds_epochs_and_purposes_draw_differently(draw: Callable[[Streams], Tensor]) -> None:
    base = draw(Streams([3, 4], "noise").begin(5))
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(base, draw(Streams([3, 4], "noise").begin(6)))
    assert not torch.equal(base, draw(Streams([3, 4], "order").begin(5)))
    streams = Streams([3, 4], "noise").begin(5)
    assert not torch.equal(draw(streams), draw(streams))


def test_a_stream_that_was_not_begun_is_at_epoch_0() -> None:
    assert torch.equal(Streams([3], "noise").normal((5,)), Streams([3], "noise").begin(0).normal((5,)))


@quick
@given(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True), st.integers(1, 30), st.integers(1, 3))
def test_permutations_are_permutations(seeds: list[int], length: int, times: int) -> None:
    dealt = Streams(seeds, "order").permutations(length, times)
    assert dealt.shape == (len(seeds), times * length)
    for piece in dealt.view(len(seeds) * times, length):
        assert sorted(piece.tolist()) == list(range(length))


def test_consecutive_permutations_are_independent() -> None:
    first, second = Streams([0], "order").permutations(50, 2)[0].split(50)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("stop", [2, 10, 255])
def test_bytes_below_covers_its_range_evenly(stop: int) -> None:
    drawn = Streams([0, 1], "inputs").bytes_below(stop, (200 * stop,))
    assert drawn.dtype == torch.uint8
    for row in drawn:
        counts = torch.bincount(row.int(), minlength=256)
        assert not counts[stop:].any()
        # Pearson's statistic has mean stop - 1 and variance 2 (stop - 1); 5 s.d. above it is far out.
        statistic = (counts[:stop] - 200).square().sum() / 200
        assert statistic < stop - 1 + 5 * (2 * (stop - 1)) ** 0.5


def test_normal_draws_are_standard_and_independent_between_seeds() -> None:
    drawn = Streams([0, 1, 2], "noise").normal((20_000,))
    torch.testing.assert_close(drawn.mean(1), torch.zeros(3), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(drawn), torch.eye(3), atol=0.05, rtol=0)


def test_streams_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    streams = Streams([3, 1], "noise").begin(2)
    for draw in DRAWS:
        draw(streams)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_does_not_reach_streams() -> None:
    torch.manual_seed(1)
    one = Streams([3], "noise").normal((5,))
    torch.manual_seed(2)
    assert torch.equal(one, Streams([3], "noise").normal((5,)))

"""Auxiliary tasks: against loops over rows, against answers by hand, and where distances or pairs are missing."""

import math

import pytest
import torch
from torch import Tensor

from ssl_dgm.probability.auxiliary import assignment, lifted_structured, nearest_classes

B, H, K, MARGIN = 9, 4, 3, 1.5


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(classes: list[int]) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[classes]


h, y = randn(0, B, H), one_hot([0, 1, 2, 0, 1, 2, 0, 1, 0])


def nearest_by_loops(h_labelled: Tensor, y_labelled: Tensor, h: Tensor, neighbours: int) -> list[int]:
    labels = y_labelled.argmax(1).tolist()
    winners = []
    for row in h.tolist():
        near = sorted((math.dist(row, other), label) for other, label in zip(h_labelled.tolist(), labels))
        votes = [0.0] * K
        for distance, label in near[:neighbours]:
            votes[label] += 1 / distance
        winners.append(votes.index(max(votes)))
    return winners


def lifted_by_loops(h: Tensor, classes: Tensor, margin: float, counts: Tensor | None = None) -> float:
    rows, labels = h.tolist(), classes.argmax(1).tolist()
    counted = [1.0] * len(rows) if counts is None else counts.tolist()
    total, num = 0.0, 0.0
    for i in range(len(rows)):
        for j in range(i):
            if labels[i] != labels[j]:
                continue
            negatives = 0.0
            for k in range(len(rows)):
                if labels[k] != labels[i]:
                    negatives += counted[k] * math.exp(margin - math.dist(rows[i], rows[k]))
                    negatives += counted[k] * math.exp(margin - math.dist(rows[j], rows[k]))
            share = counted[i] * counted[j]
            total += share * max(0.0, math.log(negatives) + math.dist(rows[i], rows[j])) ** 2
            num += share
    return total / num / 2


# --- Classes of the nearest labelled rows


@pytest.mark.parametrize("neighbours", [1, 3, 5, 100])
def test_nearest_classes_are_those_of_a_loop_over_rows(neighbours: int) -> None:
    others = randn(1, 40, H)
    found = nearest_classes(h, y, others, neighbours)
    assert (found.sum(1) == 1).all()
    assert found.argmax(1).tolist() == nearest_by_loops(h, y, others, neighbours)
    assert len(set(found.argmax(1).tolist())) > 1


@pytest.mark.parametrize(
    ("at", "neighbours", "winner"),
    [
        (0.0, 3, 2),  # 1/1 against 1/4 + 1/4
        (-3.0, 3, 0),  # 1 + 1/1 against 1/4
        (1.0, 3, 2),  # at distance 0
        (-2.0, 3, 0),  # 1/2 + 1/2 + 0 against 1/3
        (1.0, 99, 2),
        (-8.0, 5, 0),
        (50.0, 1, 1),
    ],
)
def test_votes_by_hand(at: float, neighbours: int, winner: int) -> None:
    labelled, labels = torch.tensor([[-4.0], [-4.0], [1.0], [9.0], [10.0]]), one_hot([0, 0, 2, 1, 1])
    assert nearest_classes(labelled, labels, torch.tensor([[at]]), neighbours).argmax(1).item() == winner


def test_ties_go_to_the_first_class_and_rows_as_near_as_the_last_neighbour_vote() -> None:
    around, here = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [-1.0, 0.0]]), torch.zeros(1, 2)
    for labels, neighbours, winner in (
        ([2, 1, 1, 2], 4, 2),  # 2 against 1
        ([2, 1, 1, 1], 4, 1),  # 1 against 2
        ([2, 2, 2, 1], 1, 1),  # 1 against 1, though one neighbour was asked for
        ([2, 0, 0, 1], 3, 0),  # 1 against 1 against 1
    ):
        order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
        for rows in (torch.arange(4), order):
            found = nearest_classes(around[rows], one_hot(labels)[rows], here, neighbours)
            assert found.argmax(1).item() == winner


def test_distances_of_nothing_and_next_to_nothing_are_no_trouble() -> None:
    """Two rows of class 1 and one of class 0 at the first place, one of class 2 beside it."""
    labelled = torch.tensor([[3.0], [3.0], [3.0], [3.0000002], [4.0]])
    found = nearest_classes(labelled, one_hot([1, 0, 1, 2, 2]), labelled[2:4], 5)
    assert found.tolist() == one_hot([1, 2]).tolist()


def test_no_gradient_goes_through_the_assignment() -> None:
    assert not nearest_classes(h.clone().requires_grad_(), y, h.clone().requires_grad_(), 3).requires_grad


def test_assignment_is_the_mean_log_probability_of_the_classes() -> None:
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    value = assignment(probabilities.log(), one_hot([1, 0]))
    assert value.item() == pytest.approx((math.log(0.5) + math.log(0.25)) / 2)
    logits = randn(2, B, K)
    expected = -torch.nn.functional.cross_entropy(logits, y.argmax(1))
    torch.testing.assert_close(assignment(logits.log_softmax(1), y), expected)


def test_rows_that_count_less_do_so_in_both_terms_and_those_that_count_nothing_are_not_there() -> None:
    counts, log_q_y = torch.tensor([1, 1, 1, 1, 0.25, 0.5, 0, 2, 0], dtype=torch.float64), randn(2, B, K).log_softmax(1)
    weighted = sum(c * row[k] for c, row, k in zip(counts, log_q_y, y.argmax(1)))
    torch.testing.assert_close(assignment(log_q_y, y, counts), weighted / counts.sum())
    for margin in (-2.0, 0.5, 3.0):
        value = lifted_structured(h, y, margin, counts)
        assert value.item() == pytest.approx(lifted_by_loops(h, y, margin, counts), rel=1e-9)
    few = (torch.arange(B) < 6).double()
    torch.testing.assert_close(lifted_structured(h, y, MARGIN, few), lifted_structured(h[:6], y[:6], MARGIN))
    torch.testing.assert_close(assignment(log_q_y, y, few), assignment(log_q_y[:6], y[:6]))
    ones = torch.ones(B, dtype=torch.float64)
    torch.testing.assert_close(lifted_structured(h, y, MARGIN, ones), lifted_structured(h, y, MARGIN))
    features = h.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: lifted_structured(h, y, MARGIN, counts), features)
    assert not torch.autograd.grad(lifted_structured(features, y, MARGIN, few), features)[0][6:].any()


# --- Lifted structured loss


@pytest.mark.parametrize("margin", [-2.0, 0.5, 3.0])
def test_lifted_loss_is_that_of_a_loop_over_pairs(margin: float) -> None:
    assert lifted_structured(h, y, margin).item() == pytest.approx(lifted_by_loops(h, y, margin), rel=1e-9)


def test_lifted_loss_by_hand() -> None:
    """A pair at distance 3 whose only negative is 4 from one end and 5 from the other."""
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    j = math.log(math.exp(2 - 4) + math.exp(2 - 5)) + 3
    assert lifted_structured(corner, one_hot([1, 1, 0]), 2.0).item() == pytest.approx(j**2 / 2)
    assert lifted_structured(corner, one_hot([1, 1, 0]), -9.0).item() == 0  # of a J below 0


def test_lifted_loss_does_not_know_the_order_of_rows_or_classes_or_where_the_features_are() -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    value = lifted_structured(h, y, MARGIN)
    torch.testing.assert_close(lifted_structured(h[order], y[order], MARGIN), value)
    torch.testing.assert_close(lifted_structured(h, y[:, [2, 0, 1]], MARGIN), value)
    torch.testing.assert_close(lifted_structured(h + 7, y, MARGIN), value)


def test_gradients_by_finite_differences() -> None:
    logits = randn(2, B, K).requires_grad_()
    features = h.clone().requires_grad_()
    assert lifted_structured(features, y, MARGIN) > 0
    assert torch.autograd.gradcheck(lambda h: lifted_structured(h, y, MARGIN), features)
    assert torch.autograd.gradcheck(lambda logits: assignment(logits.log_softmax(1), y), logits)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("count", [None, 1.0, 0.0])
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1], [0]], ids=["no pairs", "one class", "one row"])
def test_without_pairs_or_negatives_there_is_no_loss(labels: list[int], count: float | None) -> None:
    counts = None if count is None else torch.full((len(labels),), count, dtype=torch.float64)
    features = h[: len(labels)].clone().requires_grad_()
    with torch.autograd.detect_anomaly():  # of a NaN in any step, even one that is masked afterwards
        value = lifted_structured(features, one_hot(labels), MARGIN, counts)
        value.backward()
    assert value.item() == 0
    assert (features.grad == 0).all()


def test_rows_that_coincide_have_a_finite_gradient() -> None:
    features = h.repeat(2, 1).float().requires_grad_()  # every row with a twin of its class
    features.data[1] = features.data[0]  # and one of another
    value = lifted_structured(features, y.repeat(2, 1).float(), MARGIN)
    value.backward()
    assert value > 0
    assert features.grad.isfinite().all() and (features.grad != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_far_away_features_do_not_overflow(dtype: torch.dtype) -> None:
    features = (1e4 * h).to(dtype).requires_grad_()
    value = lifted_structured(features, y.to(dtype), MARGIN)
    value.backward()
    assert value.isfinite() and features.grad.isfinite().all()


# --- All of them, batched over seeds, compiled, and where there are no values


def auxiliaries(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As a training step uses them: the first rows are labelled, the others take the classes of the nearest."""
    classes = torch.cat([y[:5], nearest_classes(h[:5], y[:5], h[5:], 3)])
    return assignment(h[:, :K].log_softmax(1), classes), lifted_structured(h, classes, MARGIN)


def test_batched_over_seeds_they_are_those_of_a_loop() -> None:
    features, labels = randn(3, 4, B, H).requires_grad_(), torch.stack([y, y.roll(1, 0), y.roll(2, 0), y])
    at_once = torch.vmap(auxiliaries)(features, labels)
    one_by_one = [torch.stack(values) for values in zip(*map(auxiliaries, features, labels))]
    for a, b in zip(at_once, one_by_one):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(*(torch.autograd.grad(value.sum(), features, retain_graph=True) for value in (a, b)))


def test_their_shapes_do_not_depend_on_values() -> None:
    on_meta = torch.vmap(auxiliaries)(randn(3, 4, B, H).to("meta"), y.expand(4, -1, -1).to("meta"))
    assert [value.shape for value in on_meta] == [(4,), (4,)]
    # One graph without breaks, run as it is: no compiler of another language is needed.
    traced = torch.compile(torch.vmap(auxiliaries), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        traced(randn(3, 4, B, H), y.expand(4, -1, -1)), torch.vmap(auxiliaries)(randn(3, 4, B, H), y.expand(4, -1, -1))
    )

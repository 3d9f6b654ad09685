"""Slots, classes and what is right, against counts made by hand, scikit-learn, and all ways to match."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from ssl_dgm.data.slots import Slots
from ssl_dgm.evaluation import clusters
from ssl_dgm.models.attribution import cluster_error

# Three classes, five slots: slot 0 is mostly class 1, slots 2 and 4 are empty, slot 3 is of class 2.
SLOTS = np.array([0, 0, 0, 1, 1, 3, 3, 3, 1, 0])
TARGETS = np.array([1, 1, 0, 1, 1, 2, 2, 0, 0, 1])
COUNTS = np.array([[1, 1, 0, 1, 0], [3, 2, 0, 0, 0], [0, 0, 0, 2, 0]])
some_rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40).map(
    lambda rows: tuple(np.array(rows).T)
)


def test_what_slots_mean() -> None:
    counts = clusters.confusion(SLOTS, TARGETS, 3, 5)
    np.testing.assert_array_equal(counts, COUNTS)
    attributed = clusters.attribution(counts)
    assert attributed.tolist() == [1, 1, 2, 2, -1], "an empty slot is its own class's, or none's"
    assert clusters.right(counts, attributed).tolist() == [0, 5, 2]
    assert clusters.attribution(np.array([[1, 0], [1, 0]])).tolist() == [0, 1]


def test_a_slot_of_no_class_is_wrong_for_every_row() -> None:
    counts = np.array([[0, 0, 7], [0, 0, 9]])
    assert clusters.right(counts, np.array([0, 1, -1])).tolist() == [0, 0]


@given(some_rows)
def test_matching_is_the_best_of_all(rows: tuple[np.ndarray, np.ndarray]) -> None:
    counts = clusters.confusion(*rows, 3, 5)
    best = max(sum(counts[c, k] for c, k in enumerate(ks)) for ks in itertools.permutations(range(5), 3))
    assert clusters.cluster_accuracy(counts) == pytest.approx(best / len(rows[0]))


@given(some_rows)
def test_mutual_information_is_scikit_learn_s(rows: tuple[np.ndarray, np.ndarray]) -> None:
    expected = normalized_mutual_info_score(rows[1], rows[0])
    assert clusters.nmi(clusters.confusion(*rows, 3, 5)) == pytest.approx(expected, abs=1e-9)


def test_slots_in_use_take_a_thousandth_of_the_rows() -> None:
    assert clusters.slots_used(np.array([[1000, 1, 0, 0], [996, 0, 2, 1]])) == 2
    assert clusters.slots_used(np.array([[1000, 2, 0, 0], [995, 0, 2, 1]])) == 3


def test_scores_of_labelled_and_of_hidden_classes() -> None:
    validation = np.array([0, 0, 1, 1, 3, 3, 2, 2]), np.array([0, 0, 1, 1, 1, 1, 2, 2])
    test = np.array([0, 3, 3, 4, 4, 2]), np.array([0, 1, 0, 2, 2, 2])
    found = clusters.score(Slots(3, 5, (0,)), validation, test)
    assert found.attribution.tolist() == [0, 1, 2, 1, -1]
    np.testing.assert_array_equal(found.confusion, clusters.confusion(*test, 3, 5))
    expected = {
        "validation/error": 0, "test/error": 3 / 6,
        "validation/accuracy": 1, "validation/accuracy_labelled_classes": 1, "validation/accuracy_hidden_classes": 1,
        # Slot 3 is of class 1, so that one row of class 0 is wrong, and rows in slot 4 are.
        "test/accuracy": 3 / 6, "test/accuracy_labelled_classes": 1 / 2, "test/accuracy_hidden_classes": 2 / 4,
        # By the test rows slot 3 is of class 0, as likely as 1, and slot 4 of class 2.
        "test/accuracy_test_attributed": 5 / 6, "test/accuracy_labelled_classes_test_attributed": 1,
        "test/accuracy_hidden_classes_test_attributed": 3 / 4, "test/slots_used": 4,
    }  # fmt: skip
    assert found.metrics == pytest.approx(expected)


def test_clusters_have_the_scores_of_clusterings() -> None:
    perfect = np.array([4, 4, 3, 3, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    found = clusters.score(Slots(3, 5, ()), perfect, perfect).metrics
    for name in ("test/cluster_accuracy", "validation/cluster_accuracy", "test/nmi", "test/accuracy"):
        assert found[name] == pytest.approx(1)
    assert not [name for name in found if "classes" in name]


def test_validation_rows_do_not_attribute_themselves() -> None:
    """Every row in a slot of its own class among as many slots as rows: by itself all right, by others none."""
    slots, targets = np.arange(4, 10), np.array([0, 1, 2, 3, 0, 1])
    found = clusters.score(Slots(4, 10, ()), (slots, targets), (slots, targets)).metrics
    assert (found["validation/accuracy"], found["test/accuracy"]) == (0, 1)


@given(st.lists(some_rows, min_size=1, max_size=1), st.integers(0, 9))
def test_the_error_of_an_epoch_is_that_of_the_record(drawn: list[tuple[np.ndarray, np.ndarray]], shift: int) -> None:
    slots, targets = drawn[0]
    both = np.stack([slots, (slots + shift) % 5])  # two seeds
    y = torch.eye(5)[torch.from_numpy(targets)]
    errors = cluster_error(torch.from_numpy(both), y)
    for error, of_seed in zip(errors, both):
        record = clusters.score(Slots(3, 5, ()), (of_seed, targets), (of_seed, targets)).metrics
        assert error.item() == pytest.approx(record["validation/error"], abs=1e-6)


def test_every_score_is_of_its_own_rows() -> None:
    """Validation rows in the slots of their classes, and test rows all in one slot."""
    targets = np.array([0, 0, 1, 1, 2, 2])
    found = clusters.score(Slots(3, 3, ()), (targets, targets), (np.zeros_like(targets), targets)).metrics
    assert (found["validation/accuracy"], found["validation/cluster_accuracy"]) == (1, 1)
    assert (found["test/accuracy"], found["test/cluster_accuracy"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (found["test/nmi"], found["test/slots_used"]) == (0, 1)

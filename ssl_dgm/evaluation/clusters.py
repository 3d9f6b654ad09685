"""Cluster-and-label: what the slots of y mean, and how well they tell the classes apart.

Everything is a function of one table of counts, rows of every true class by the slot they were put into.
Shape legend: N rows, C classes, K slots, the first C of which are the classes' own.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy

from ssl_dgm.data.slots import LEAST_SHARE, Slots


def confusion(slots: np.ndarray, targets: np.ndarray, num_classes: int, num_slots: int) -> np.ndarray:
    """How many rows of every true class are in every slot: [N], [N] -> int64 [C, K]."""
    counts = np.bincount(targets * num_slots + slots, minlength=num_classes * num_slots)
    return counts.reshape(num_classes, num_slots)


def attribution(counts: np.ndarray) -> np.ndarray:
    """The class that most rows of every slot have, [C, K] -> [K]; of equally many, the lowest.

    An empty slot is its own class's, and -1 where it has none: a row that comes into it later counts as wrong.
    """
    num_classes, num_slots = counts.shape
    own = np.where(np.arange(num_slots) < num_classes, np.arange(num_slots), -1)
    return np.where(counts.any(0), counts.argmax(0), own)


def right(counts: np.ndarray, attributed: np.ndarray) -> np.ndarray:
    """How many rows of every class are in a slot that is attributed to it: [C, K], [K] -> [C]."""
    return (counts * (attributed == np.arange(len(counts))[:, None])).sum(1)


def cluster_accuracy(counts: np.ndarray) -> float:
    """Share of rows that are right when every slot is matched to one class at most, as well as can be (Hungarian)."""
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


def nmi(counts: np.ndarray) -> float:
    """Mutual information of class and slot over the arithmetic mean of their entropies; 1 where both are constant."""
    of_classes, of_slots = entropy(counts.sum(1)), entropy(counts.sum(0))
    mutual = of_classes + of_slots - entropy(counts.ravel())
    # Not 0 / 0, nor the rounding error of a slot that takes all rows.
    return float(max(0.0, 2 * mutual / (of_classes + of_slots))) if of_classes + of_slots else 1.0


def slots_used(counts: np.ndarray) -> int:
    """Slots that take 0.1 % of the rows at least."""
    return int((counts.sum(0) >= LEAST_SHARE * counts.sum()).sum())


@dataclass(frozen=True, eq=False)
class Clusters:
    """The slots of a trained seed."""

    attribution: np.ndarray  # [K], by the validation rows
    confusion: np.ndarray  # [C, K], of the test rows
    metrics: dict[str, float]

    def to_csv(self, names: Sequence[str]) -> str:
        """The test rows of every class by slot, and in the last line the class that every slot is attributed to.

        Args:
            names: of the classes [C].
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["class", *(f"slot {k}" for k in range(len(self.attribution)))])
        writer.writerows([name, *counts] for name, counts in zip(names, self.confusion.tolist()))
        writer.writerow(["attributed to", *(names[c] if c >= 0 else c for c in self.attribution.tolist())])
        return text.getvalue()


def score(slots: Slots, validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Clusters:
    """What a seed's slots mean on the validation rows, and what that is worth.

    Accuracies are of slots that the validation rows were attributed by: on the test rows by all of them, on the
    validation rows themselves by the other half, the even ones for the odd and the odd for the even. Those that end in
    _test_attributed take the test rows' own majorities, as published numbers do; the one of all rows is an upper bound.

    Args:
        validation, test: slot and true class of every row, int64 [N] each.
    """

    def counted(rows: tuple[np.ndarray, np.ndarray], part: slice = slice(None)) -> np.ndarray:
        return confusion(rows[0][part], rows[1][part], slots.num_classes, slots.num_slots)

    even, odd = counted(validation, slice(0, None, 2)), counted(validation, slice(1, None, 2))
    seen, unseen = even + odd, counted(test)
    attributed = attribution(seen)
    crossed = right(odd, attribution(even)) + right(even, attribution(odd))
    found = accuracies("validation/accuracy", crossed, seen, slots)
    found |= accuracies("test/accuracy", right(unseen, attributed), unseen, slots)
    upper = accuracies("test/accuracy", right(unseen, attribution(unseen)), unseen, slots)
    found |= {f"{name}_test_attributed": value for name, value in upper.items()}
    errors = {f"{part}/error": 1 - found[f"{part}/accuracy"] for part in ("validation", "test")}
    found = errors | found | {"test/slots_used": float(slots_used(unseen))}
    if not slots.labelled:
        found |= {
            f"{part}/cluster_accuracy": cluster_accuracy(n) for part, n in (("validation", seen), ("test", unseen))
        }
        found["test/nmi"] = nmi(unseen)
    return Clusters(attributed, unseen, found)


def of_classes(predicted: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> str:
    """The CSV of test rows by true and predicted class, int64 [N] each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *(f"predicted {name}" for name in names)])
    counts = confusion(predicted, targets, len(names), len(names))
    writer.writerows([name, *row] for name, row in zip(names, counts.tolist()))
    return text.getvalue()


def accuracies(name: str, right: np.ndarray, counts: np.ndarray, slots: Slots) -> dict[str, float]:
    """Share of rows that are right, of all and, where some classes are labelled and some hidden, of either kind.

    Args:
        name: of the first; the others' end in _labelled_classes and _hidden_classes.
        right: rows of every class that are right, [C].
        counts: [C, K].
    """
    of: dict[str, Sequence[int]] = {name: range(slots.num_classes)}
    if slots.labelled and slots.hidden:
        of |= {f"{name}_labelled_classes": slots.labelled, f"{name}_hidden_classes": slots.hidden}
    totals = {part: counts[list(classes)].sum() for part, classes in of.items()}
    return {part: float(right[list(classes)].sum() / totals[part]) for part, classes in of.items() if totals[part]}

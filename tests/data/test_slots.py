"""What the values of y stand for, and how probable each is before a row is seen."""

import numpy as np
import pytest

from ssl_dgm.config import ClassesConfig, Config, UserError
from ssl_dgm.data.slots import Slots
from ssl_dgm.data.source import Source


def source(num_classes: int) -> Source:
    x, y = np.zeros((num_classes, 1), np.uint8), np.arange(num_classes)
    return Source("toy", x, y, x, y, 0, num_classes, (1, 1), "")


def slots(num_classes: int = 10, labels: int = 100, **classes: object) -> Slots:
    return Slots.of(Config(labels=labels, classes=ClassesConfig(**classes)), source(num_classes))  # type: ignore[arg-type]


def test_ten_slots_for_five_hidden_classes_have_half_the_mass() -> None:
    found = slots(labelled=[9, 0, 1, 2, 8], extra=5)
    assert (found.num_classes, found.num_slots, found.num_free) == (10, 15, 10)
    assert (found.labelled, found.hidden) == ((0, 1, 2, 8, 9), (3, 4, 5, 6, 7))
    assert found.prior is not None
    assert [round(p, 10) for p in found.prior] == [0.1, 0.1, 0.1, *[0.05] * 5, 0.1, 0.1, *[0.05] * 5]
    assert sum(found.prior) == pytest.approx(1)
    assert slots(hidden=[7, 3, 4, 5, 6], extra=5) == found


@pytest.mark.parametrize(
    ("found", "num_slots", "labelled"),
    [
        (slots(4), 4, (0, 1, 2, 3)),
        (slots(4, hidden=[1]), 4, (0, 2, 3)),
        (slots(4, labels=0), 4, ()),
        (slots(4, labels=0, labelled=[], extra=3), 7, ()),
    ],
)
def test_slots_that_are_all_as_probable(found: Slots, num_slots: int, labelled: tuple[int, ...]) -> None:
    assert (found.num_slots, found.labelled, found.prior) == (num_slots, labelled, None)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({"labelled": [0, 4]}, r"classes.labelled=\[0, 4\] names class 4, and toy has the classes 0 to 3"),
        ({"hidden": [5]}, r"classes.hidden=\[5\] names class 5"),
        ({"labelled": [0], "hidden": [1, 3]}, "class 2 of toy is neither in classes.labelled"),
        ({"hidden": [0, 1, 2, 3]}, "hides every class of toy and labels=100; use labels=0"),
        ({"extra": 2}, r"classes.extra=2 adds slots that p\(y\) has no share for"),
    ],
)
def test_classes_that_the_data_cannot_have(classes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        slots(4, **classes)

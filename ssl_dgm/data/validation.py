"""Which labelled rows are held out where data of users' own do not say so themselves: one rule for all of them.

Nothing here imports torch.
"""

from collections.abc import Sequence

import numpy as np

from ssl_dgm.config import UserError

SHARE = 10  # one of so many labelled rows is a validation row
MOST = 10_000


def held_out(y: np.ndarray, asked: int | None, where: str, names: Sequence[str] | None = None) -> np.ndarray:
    """The row numbers of the validation rows, ascending: a tenth of the rows with a label, at most 10,000.

    Every class gives the same share of its labelled rows, but one at least, and keeps one at least. The draw is a
    function of y and of the number alone.

    Args:
        y: classes [N], -1 where no label is known.
        asked: so many rows instead of a tenth.
        where: what the rows are called in sentences.
        names: of the classes, for sentences.

    Raises:
        UserError: when a class has too few labelled rows to give one and keep one, and for a number that is not to be
            had.
    """
    known = np.flatnonzero(y >= 0)
    classes, counts = np.unique(y[known], return_counts=True)
    if counts.min(initial=2) < 2:
        short = classes[counts < 2][0]
        called = f"{short} ({names[short]})" if names else short
        raise UserError(
            f"{where} has 1 row of class {called} with a label; label 2 at least, one to learn from and one that is "
            "held out for validation"
        )
    least, most = len(classes), len(known) - len(classes)
    if asked is not None and not least <= asked <= most:
        raise UserError(
            f"data.validation={asked} cannot be held out of the {len(known):,} labelled rows of {where}, of which "
            f"every class gives one and keeps one; use {least} to {most}"
        )
    wanted = max(least, min(MOST, len(known) // SHARE)) if asked is None else asked
    return stratified(y, wanted, purpose=0)


def stratified(y: np.ndarray, wanted: int, purpose: int) -> np.ndarray:
    """`wanted` row numbers, ascending, of which every class has its share, but one at least and not all of its rows.

    Args:
        y: classes [N], -1 where no label is known; two rows of every class at least.
        purpose: tells one draw from another.
    """
    known = np.flatnonzero(y >= 0)
    by_class = known[np.argsort(y[known], kind="stable")]
    _, starts, counts = np.unique(y[by_class], return_index=True, return_counts=True)
    exact = wanted * counts / len(known)
    share = exact.astype(np.int64).clip(1, counts - 1)
    while (missing := wanted - share.sum()) != 0:
        step = int(np.sign(missing))
        may = share < counts - 1 if step > 0 else share > 1
        share[np.argmax(np.where(may, step * (exact - share), -np.inf))] += step
    rng = np.random.Generator(np.random.PCG64(purpose))
    rows = [start + rng.permutation(count)[:n] for start, count, n in zip(starts, counts, share)]
    return np.sort(by_class[np.concatenate(rows)])

"""The bar of long work: how much is done, and the time left."""

import sys
from typing import Any

from tqdm import tqdm

ON_SCREEN, IN_FILES = 0.2, 20  # seconds between two states of a bar


def bar(title: str, unit: str, **more: Any) -> tqdm:
    """A bar on standard error, drawn seldom where that is a file.

    Args:
        more: of `tqdm`: iterable or total, disable, ...
    """
    every = ON_SCREEN if sys.stderr.isatty() else IN_FILES
    return tqdm(desc=title, unit=unit, mininterval=every, dynamic_ncols=True, **more)

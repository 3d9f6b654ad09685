"""The user's own rows, which stay on the disk: a folder of .npy files as a data set."""

from pathlib import Path

import numpy as np

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data.shards import read_folder
from ssl_dgm.data.source import Source, digest

ROWS_IN_DIGEST = 1000  # training rows of a folder of shards whose pixels are part of its identity


def check(data: DataConfig) -> None:
    """Nothing, once it is known that there is a folder.

    Raises:
        UserError: when there is none.
    """
    if data.folder is None:
        raise UserError("data=memmap reads files of your own; name their folder with data.folder=...")
    if not Path(data.folder).expanduser().is_dir():
        raise UserError(f"data.folder={data.folder} is no folder; name the one that holds train-x-*.npy")


def read(data: DataConfig) -> Source:
    """The rows of a folder.

    The sha256 is known without reading them all. It is of every label, of the test rows, of the number of rows, and of
    the pixels of 1,000 training rows spread evenly over all files, wherever one ends and the next begins. Two folders
    that have it have the same splits; that all their other pixels are the same is for their owner to know.

    Raises:
        UserError: for files that are no such rows.
    """
    check(data)
    c = read_folder(Path(data.folder or "").expanduser())
    some = np.linspace(0, len(c.train_x) - 1, min(ROWS_IN_DIGEST, len(c.train_x))).astype(np.int64)
    sha256 = digest(c.train_x[some], c.train_y, c.test_x, c.test_y)
    return Source("memmap", c.train_x, c.train_y, c.test_x, c.test_y, c.num_validation, c.num_classes, c.shape, sha256)

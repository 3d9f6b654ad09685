"""A data set in memory, or with its rows in files: what is in it, and which of its pixels are left.

N rows, D pixels per image, x_dim of them kept. Nothing here imports torch.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass

import numpy as np

from ssl_dgm.config import UserError
from ssl_dgm.data.scaling import Scaling
from ssl_dgm.data.shards import Shards
from ssl_dgm.data.whitening import Whitening


# Arrays have no single truth value, so that a generated == would only raise.
@dataclass(frozen=True, eq=False)
class Source:
    """A data set; the validation rows are the last `num_validation` training rows."""

    name: str
    train_x: np.ndarray | Shards  # uint8 or float32 [N, x_dim], validation rows included; Shards stay on the disk
    train_y: np.ndarray  # int64 [N]; -1 where no label is known
    test_x: np.ndarray  # as train_x, [N_test, x_dim]
    test_y: np.ndarray  # int64 [N_test]
    num_validation: int
    num_classes: int  # 0: the rows have none
    shape: tuple[int, ...]  # of one image, [H, W] or [H, W, C]; (D,) of rows that are no images
    sha256: str  # of the four arrays with every pixel; of rows on the disk, see `_memmap`
    kept: np.ndarray | None = None  # bool [D], the pixels left; None: all of them
    trials: int = 1  # binary draws whose share of ones a pixel is
    classes: tuple[str, ...] | None = None  # names of the classes; None: their numbers
    columns: tuple[str, ...] | None = None  # names of the columns [D], if they have any
    scaling: Scaling | None = None  # of real rows that are standardised, back to units of their own
    whitening: Whitening | None = None  # what made rows of pixels into these
    notes: tuple[str, ...] = ()  # what was done to the files' rows, for the screen and the records

    @property
    def num_train(self) -> int:
        """Training rows before the validation rows."""
        return len(self.train_x) - self.num_validation

    @property
    def x_dim(self) -> int:
        """Pixels per row that are left."""
        return self.train_x.shape[1]

    @property
    def real(self) -> bool:
        """Whether rows are real numbers (float32), seen as they are, and not pixels (uint8), seen in [0, 1]."""
        return isinstance(self.train_x, np.ndarray) and self.train_x.dtype.kind == "f"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes 0, 1, 2, ..."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    @property
    def is_image(self) -> bool:
        """Whether rows have a height and a width."""
        return len(self.shape) > 1

    def values(self, x: np.ndarray) -> np.ndarray:
        """Rows of `train_x` or `test_x` as a model without noise sees them, float32."""
        return x if self.real else x.astype(np.float32) / 255

    def first_rows(self, count: int | None) -> "Source":
        """The same with only the first `count` training rows before the validation rows; None: all. `sha256` stays.

        Raises:
            UserError: if there are fewer.
        """
        if count is None:
            return self
        if count > self.num_train:
            raise UserError(
                f"data.train_rows={count} is more than the {self.num_train:,} training rows of {self.name}; use at "
                f"most {self.num_train}, or null for all"
            )
        kept = np.r_[:count, self.num_train : len(self.train_y)]
        return dataclasses.replace(self, train_x=self.train_x[kept], train_y=self.train_y[kept])

    def drop_constant_pixels(self, min_sd: float) -> "Source":
        """The same rows with only the pixels whose s.d. is above `min_sd` (pixels in [0, 1]; real numbers as they are).

        The s.d. is over the training rows without validation. `sha256` stays that of the full data.

        Raises:
            UserError: if no pixel would be left, and for rows that stay on the disk.
        """
        if isinstance(self.train_x, Shards):
            raise UserError(
                f"data.min_pixel_sd={min_sd} would read every row of data={self.name}; use 0 and write shards without "
                "the pixels that don't vary"
            )
        x, n = self.train_x[: self.num_train], self.num_train
        if self.real:
            sd = np.where(x.max(0) == x.min(0), 0, x.std(0, dtype=np.float64))
        else:
            # Integer sums: a constant pixel's variance is exactly 0, and no float copy of the images is made.
            total, squares = x.sum(0, dtype=np.int64), np.einsum("nd,nd->d", x, x, dtype=np.int64)
            sd = np.sqrt(n * squares - total**2) / n / 255
        varied = sd > min_sd
        if not varied.any():
            remedy = f"use a number below {sd.max():.3f}"
            raise UserError(f"data.min_pixel_sd={min_sd} drops every pixel of {self.name}; {remedy}")
        if varied.all():
            return self
        kept = np.ones(math.prod(self.shape), bool) if self.kept is None else self.kept.copy()
        kept[kept] = varied
        return dataclasses.replace(self, train_x=self.train_x[:, varied], test_x=self.test_x[:, varied], kept=kept)

    def whiten(self, k: int) -> "Source":
        """The same rows as k whitened principal components of the training rows without validation.

        Raises:
            UserError: for rows that are no pixels or stay on the disk, and for more components than they have.
        """
        if self.real or isinstance(self.train_x, Shards):
            what = "real numbers" if self.real else "read from the disk while training"
            raise UserError(f"data.pca={k} is of images, and rows of data={self.name} are {what}; leave it out")
        if (self.sha256, self.num_train, k) not in _fitted:
            _fitted.clear()
            _fitted[self.sha256, self.num_train, k] = Whitening.fit(self.train_x[: self.num_train], k, self.name)
        w = _fitted[self.sha256, self.num_train, k]
        note = f"whitened to {k} components with {w.explained:.2%} of the variance of {w.num_rows:,} training images"
        train_x, test_x = w.apply(self.train_x), w.apply(self.test_x)
        return dataclasses.replace(self, train_x=train_x, test_x=test_x, whitening=w, notes=(*self.notes, note))

    def central(self) -> np.ndarray:
        """Which pixels that are left are in the central half of both sides of an image, bool [x_dim]."""
        height, width = self.shape[:2]
        mask = np.zeros(self.shape, bool)
        mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
        return mask.reshape(-1) if self.kept is None else mask.reshape(-1)[self.kept]

    def to_images(self, x: np.ndarray) -> np.ndarray:
        """[..., *shape] from [..., x_dim], in x's type, dropped pixels as 0.

        Whitened rows are pixels in [0, 1] again, and standardised ones have their units.
        """
        if self.whitening is not None:
            x = self.whitening.invert(x).clip(0, 1)
        if self.kept is not None:
            full = np.zeros((*x.shape[:-1], self.kept.size), x.dtype)
            full[..., self.kept] = x
            x = full
        return (x if self.scaling is None else self.scaling.invert(x)).reshape(*x.shape[:-1], *self.shape)

    def describe(self) -> str:
        """Lines for the screen: what there is, and the notes."""
        return "\n".join([self._counts(), *self.notes])

    def _counts(self) -> str:
        sizes = " x ".join(map(str, self.shape))
        what = f"images of {sizes}" if self.is_image else f"rows of {sizes} numbers"
        rows = (
            f"{self.name}: {self.num_train:,} training, {self.num_validation:,} validation and {len(self.test_x):,} "
            f"test {what}, {self.num_classes or 'no'} classes"
        )
        if isinstance(self.train_x, Shards):
            known = int((self.train_y[: self.num_train] >= 0).sum())
            return f"{rows}, {known:,} training rows with a label, read from {len(self.train_x.files)} files"
        dropped = 0 if self.kept is None else int((~self.kept).sum())
        lost = f"{dropped} {'pixels' if self.is_image else 'columns'} dropped"
        values = f"values {self.train_x.min():.4g} to {self.train_x.max():.4g}"
        return ", ".join([rows, values, lost])


# The last one: a stack, its M1 and the network beside them ask for the same, which takes a minute of SVHN.
_fitted: dict[tuple[str, int, int], Whitening] = {}


def build(
    name: str,
    arrays: list[np.ndarray],
    num_validation: int,
    num_classes: int | None = None,
    classes: tuple[str, ...] | None = None,
) -> Source:
    """The data set of its training images and classes and its test images and classes.

    Args:
        arrays: images [N, ...] (uint8) or rows of real numbers [N, D] (float32), classes [N], and the same of the test
            rows; a class of -1 is not known.
        num_classes: None: one more than the largest training class.
        classes: names of the classes, if they have other names than their numbers.
    """
    shape = arrays[0].shape[1:]
    train_x, test_x = (x.reshape(len(x), -1) for x in arrays[::2])
    train_y, test_y = (y.astype(np.int64) for y in arrays[1::2])
    sha256 = digest(train_x, train_y, test_x, test_y)
    num_classes = int(train_y.max()) + 1 if num_classes is None else num_classes
    return Source(name, train_x, train_y, test_x, test_y, num_validation, num_classes, shape, sha256, classes=classes)


def digest(*arrays: np.ndarray) -> str:
    """The SHA-256 of the arrays' types, shapes and elements, the same on every machine."""
    total = hashlib.sha256()
    for array in arrays:
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return total.hexdigest()

"""Rows that are given to a trained model: checked, and made into what it was trained on.

Nothing here imports torch.
"""

from typing import Any

import numpy as np

from ssl_dgm.config import UserError
from ssl_dgm.data.source import Source


def array_of(x: Any, name: str) -> np.ndarray:
    """An array of what people have: lists, frames, tensors, whether they want gradients or not.

    Raises:
        UserError: for what makes no array, as rows of different lengths.
    """
    try:
        return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} makes no array ({str(error).splitlines()[0]}); give rows of one length") from error


def rows_of(x: Any, source: Source) -> np.ndarray:
    """x as the rows that a model of this data set sees: float32 [N, x_dim], pixels in [0, 1].

    Args:
        x: images [N, H, W] or rows [N, D]: uint8 from 0 to 255, or floats from 0 to 1; any numbers where the data are
            real numbers. Of a frame the columns that the model was trained on, in any order.

    Raises:
        UserError: for another shape or range, missing columns, and numbers that are not finite, be it only after they
            were standardised.
    """
    if source.columns is not None and hasattr(x, "columns"):
        if missing := [name for name in source.columns if name not in x.columns]:
            raise UserError(f"x has no column {missing[0]}; give all that the model was trained on")
        x = x[list(source.columns)]
    array = array_of(x, "x")
    pixels = int(np.prod(source.shape))
    if array.ndim and not len(array):
        raise UserError("x has no rows; give one at least")
    if array.ndim < 2 or array[0].size != pixels:
        shape = " x ".join(map(str, source.shape))
        images = f" or N images of {shape}" if source.is_image else ""
        raise UserError(f"x has shape {array.shape}; use [N, {pixels}]{images}")
    array = array.reshape(len(array), pixels)
    if source.real and source.whitening is None:
        if array.dtype.kind not in "iufb":
            raise UserError(f"x holds {array.dtype} and not numbers; convert it, x.astype(float)")
        _check_finite(array, array, source, "fill it in, or leave it out")
        if source.scaling is not None:
            scaled = source.scaling.apply(array)
            _check_finite(scaled, array, source, "too far from the training rows for 32 bits: mend it, or leave it out")
            array = scaled
    elif array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    elif not (np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1):
        found = f"{array.dtype} from {array.min()} to {array.max()}" if array.dtype.kind in "iufb" else array.dtype
        raise UserError(f"x is {found}; give uint8 from 0 to 255, or floats from 0 to 1: x / 255 if 255 is white")
    array = array if source.kept is None else array[:, source.kept]
    return array.astype(np.float32, copy=False) if source.whitening is None else source.whitening.apply(array)


def _check_finite(array: np.ndarray, shown: np.ndarray, source: Source, remedy: str) -> None:
    if len(bad := np.argwhere(~np.isfinite(array))):
        row, column = bad[0]
        name = f"{column} (counted from 0)" if source.columns is None else source.columns[column]
        raise UserError(f"x has {shown[row, column]} in row {row} (from 0), column {name}; {remedy}")

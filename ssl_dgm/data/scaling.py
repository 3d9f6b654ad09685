"""Columns of numbers in units of their own, as standardised columns and back. Nothing here imports torch."""

from dataclasses import dataclass

import numpy as np

ROWS_PER_BLOCK = 10_000  # converted at a time: no copy of all rows in double precision is made


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and s.d. of every column, float64 [D]; the s.d. of a column that does not vary is 1."""

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "Scaling":
        """Of rows [N, D], by their own mean and s.d. (ddof = 0)."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = x.mean(0, dtype=np.float64)
            sd = np.where(x.max(0) == x.min(0), 1.0, x.std(0, dtype=np.float64))
        return cls(mean, sd)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Rows [N, D] in units of their own as standardised rows, float32."""
        out = np.empty(x.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(x), ROWS_PER_BLOCK):
                block = slice(start, start + ROWS_PER_BLOCK)
                out[block] = (x[block] - self.mean) / self.sd
        return out

    def invert(self, x: np.ndarray) -> np.ndarray:
        """Standardised rows [..., D] in units of their own, in x's type."""
        return (x * self.sd + self.mean).astype(x.dtype)

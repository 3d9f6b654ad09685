"""PCA whitening of images: k uncorrelated numbers of s.d. 1 in the place of D pixels, and back.

N rows, D pixels in [0, 1], k components. Nothing here imports torch.
"""

from dataclasses import dataclass

import numpy as np

from ssl_dgm.config import UserError

MOST_ROWS = 50_000  # of the training images; Paper: the authors' code takes 10,000; here: more, since it costs a minute
ROWS_AT_ONCE = 5_000  # so that no float copy of all images is made


@dataclass(frozen=True, eq=False)
class Whitening:
    """w = diag(1 / sds) components (x - mean).

    The authors' code divides by one s.d. of all pixels before it looks for components; dividing by each component's own
    s.d. afterwards undoes that, so it isn't here.
    """

    mean: np.ndarray  # float64 [D]
    components: np.ndarray  # float64 [k, D], orthonormal
    sds: np.ndarray  # float64 [k], descending: of the pixels along each component
    explained: float  # share of the pixels' variance that the k components have
    num_rows: int  # that it was fitted to

    @classmethod
    def fit(cls, x: np.ndarray, k: int, name: str) -> "Whitening":
        """The k directions in which uint8 images [N, D] vary most.

        Fitted to at most 50,000 of the rows, evenly spaced, which makes it a function of the images alone: it is the
        same, up to rounding, whenever and wherever it is computed.

        Args:
            name: of the data set, for the sentence.

        Raises:
            UserError: for more components than there are directions in which the rows vary.
        """
        from scipy.linalg import eigh

        num_pixels = x.shape[1]
        if k > num_pixels:
            raise UserError(f"data.pca={k} is more than the {num_pixels:,} pixels of {name}; use at most {num_pixels}")
        some = np.linspace(0, len(x) - 1, min(MOST_ROWS, len(x))).astype(np.int64)
        totals = [x[rows].sum(0, dtype=np.int64) for rows in _blocks(some)]
        mean = np.sum(totals, 0) / len(some) / 255
        covariance = np.zeros((num_pixels, num_pixels))
        for rows in _blocks(some):
            centred = x[rows] / 255 - mean
            covariance += centred.T @ centred
        covariance /= len(some)
        total = float(np.trace(covariance))
        variances, vectors = eigh(covariance, subset_by_index=[num_pixels - k, num_pixels - 1], overwrite_a=True)
        variances, components = variances[::-1], vectors.T[::-1]
        rank = int((variances > total * num_pixels * np.finfo(float).eps).sum())
        if rank < k:
            raise UserError(
                f"data.pca={k} is more than the {rank:,} directions in which the {len(some):,} training images of "
                f"{name} vary; use at most {rank}"
            )
        # An eigenvector's sign is a matter of the library.
        largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
        return cls(mean, components * np.sign(largest), np.sqrt(variances), variances.sum() / total, len(some))

    @property
    def log_jacobian(self) -> float:
        """log |det dw/dx| in nats per row: log p(x) = log p(w) + this.

        With k = D, p(x) is the density of the pixels, taken as real numbers in [0, 1]. With k < D it is that of their
        projection on the subspace of the components, in k orthonormal coordinates of the same scale, and says nothing
        of what lies outside.
        """
        return -float(np.log(self.sds).sum())

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Whitened rows, float32 [N, k], of uint8 images [N, D], or of floats in [0, 1]."""
        matrix = (self.components / self.sds[:, None]).T.astype(np.float32)
        mean, scale = self.mean.astype(np.float32), np.float32(255 if x.dtype == np.uint8 else 1)
        whitened = np.empty((len(x), len(self.sds)), np.float32)
        for rows in _blocks(np.arange(len(x))):
            here = slice(rows[0], rows[-1] + 1)
            np.matmul(x[here].astype(np.float32) / scale - mean, matrix, out=whitened[here])
        return whitened

    def invert(self, w: np.ndarray) -> np.ndarray:
        """Pixels, float32 [..., D], of whitened rows [..., k], which may leave [0, 1].

        With k < D, those nearest to the mean of the images that have these components.
        """
        return (w * self.sds @ self.components + self.mean).astype(np.float32)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE)]

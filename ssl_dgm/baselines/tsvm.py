"""The transductive support vector machine, all classes at once: labelled rows, and many without a label."""

from itertools import count
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

UNLABELLED = -1
KERNELS = ("linear", "rbf")
PART = 5  # of so many rows without a label, other starts than the first see one until the last step
TOLERANCE = 1e-4  # of the shares of the classes, while W is sought


class TSVM(ClassifierMixin, BaseEstimator):
    """min over W, P of ½ |W|² + C Σ_i l(f(x_i), y_i) + C' (Σ_jk p_jk (l(f(x_j), k) + T log p_jk) + N_u r KL(m | π))

    Rows i have a label. The N_u rows j have none, but probabilities p_jk of the classes, Σ_k p_jk = 1, whose mean over
    the rows is m; π are the shares that the classes ought to have. f(x) = W' φ(x) has an output per class, and l is the
    squared hinge of all of them, l(f, k) = Σ_c max(0, 1 - t_c f_c)² with t_c = 1 for c = k and -1 for the others. So a
    column of W is the SVM of a class against the rest (exactly scikit-learn's `LinearSVC` where every row has a label),
    and what makes one problem of them is P. Given f it is the softmax of (a_k - l(f(x_j), k)) / T, whose potentials a
    keep m near π (at π, for r = inf) and maximise a concave function of K numbers. With them put in, the objective is
    smooth in W, and L-BFGS minimises it: from the SVM of the labelled rows, for C' that grows to its full weight.

    Sources: Joachims 1999 (labels sought along with the margin, their shares held, C' growing); Sindhwani, Keerthi and
    Chapelle 2006 (probabilities and their entropy in place of labels), who take one class at a time; Chizat et al. 2018
    (shares that are not held but weighed). Kingma et al. 2014 do not say which TSVM theirs is.

    Args:
        kernel: 'linear', or 'rbf' by Nyström features: exact where there are as many components as rows.
        gamma: of exp(-gamma |x - x'|²); 'scale' is scikit-learn's 1 / (D Var x).
        components: Nyström features of 'rbf', at most N; their landmarks are the labelled rows, then others at random.
        C: weight of a labelled row.
        unlabelled: C' / C, the weight of a row without a label beside one with a label.
        temperature: T, in units of the loss of a row. Where 8 / T is not well above log K, rows without a label lose
            their classes and every p becomes the same.
        steps: values of C', from a thousandth to the full weight in equal ratios; 1: the full weight at once.
        balance: π, [K], in ascending order of the classes; None: their shares among the labelled rows.
        balance_weight: r, how hard the shares are held: 0 not at all, inf as nearly as Newton's steps get.
        restarts: starts, of which the one with the smallest objective is kept. Others than the first add a random
            function to the SVM, a draw of the kernel's Gaussian process, and see a random fifth of the rows without a
            label until C' has its full weight.
        standardise: whether features are scaled to mean 0 and variance 1 over all rows. Pixels, of which some hardly
            vary, are better left as they are.
        max_iter: iterations of L-BFGS at every C'.
        random_state: of the landmarks and the starts.
        verbose: whether progress is printed.

    Attributes:
        classes_: [K], sorted.
        coef_: W, [features of φ, K]; the last row belongs to a constant feature, as in LIBLINEAR.
        balance_: m, [K]; π where every row has a label.
        objective_: of every start, at the full weight.
        n_iter_: iterations of the start that was kept.
    """

    def __init__(
        self,
        *,
        kernel: str = "rbf",
        gamma: float | str = "scale",
        components: int = 1000,
        C: float = 1.0,
        unlabelled: float = 1.0,
        temperature: float = 1.0,
        steps: int = 1,
        balance: Any = None,
        balance_weight: float = 1.0,
        restarts: int = 1,
        standardise: bool = True,
        max_iter: int = 200,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.components = components
        self.C = C
        self.unlabelled = unlabelled
        self.temperature = temperature
        self.steps = steps
        self.balance = balance
        self.balance_weight = balance_weight
        self.restarts = restarts
        self.standardise = standardise
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "TSVM":
        """Learns from rows [N, D] and their classes [N], -1 where a row has none.

        It computes in float32 where X is that, else in float64.

        Raises:
            ValueError: for data or settings that cannot be, before anything is computed.
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        labelled = np.ones(len(y), bool) if y.dtype.kind in "OUS" else y != UNLABELLED
        self.classes_, targets = np.unique(y[labelled], return_inverse=True)
        shares = self._checked(targets)
        rng = check_random_state(self.random_state)
        self._scaler = StandardScaler(with_mean=self.standardise, with_std=self.standardise).fit(X)
        # Labelled rows come first from here on.
        X = np.asarray(self._scaler.transform(X[np.argsort(~labelled, kind="stable")]))
        self._set_features(X, len(targets), rng)
        problem = _Problem(self._features(X), targets, shares, self.balance_weight, self.C, self.temperature)
        starts = self._minima(problem, rng)
        self.objective_ = [value for _, value, _ in starts]
        self.coef_, _, self.n_iter_ = starts[int(np.argmin(self.objective_))]
        self.balance_ = problem.shares_at(self.coef_) if len(targets) < len(X) else shares
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """f of every row, [N, K]; of two classes half the difference of the second and the first, [N]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        f = self._features(np.asarray(self._scaler.transform(X))) @ self.coef_
        return (f[:, 1] - f[:, 0]) / 2 if len(self.classes_) == 2 else f

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest output, [N]."""
        f = self.decision_function(X)
        return self.classes_[(f > 0).astype(int) if f.ndim == 1 else f.argmax(1)]

    def _checked(self, targets: np.ndarray) -> np.ndarray:
        """π, once it is known that the settings can be."""
        k = len(self.classes_)
        if k == 0:
            raise ValueError(f"none of the rows has a label, as every y is {UNLABELLED}; give at least two classes one")
        if k == 1:
            raise ValueError(f"all labelled rows are of one class, {self.classes_[0]}; label rows of another")
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel={self.kernel} is unknown; use {' or '.join(KERNELS)}")
        if self.gamma != "scale" and not (isinstance(self.gamma, int | float) and self.gamma > 0):
            raise ValueError(f"gamma={self.gamma} is no positive number; use for example 'scale'")
        for name in ("components", "C", "temperature", "steps", "restarts", "max_iter"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0; use {getattr(TSVM(), name)}")
        for name in ("unlabelled", "balance_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is below 0; use 0 for none")
        if self.balance is None:
            return np.bincount(targets) / len(targets)
        shares = np.asarray(self.balance, float)
        if shares.shape != (k,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
            raise ValueError(
                f"balance={self.balance} is not {k} positive shares that sum to 1; give one for each class"
            )
        return shares

    def _set_features(self, X: np.ndarray, num_labelled: int, rng: np.random.RandomState) -> None:
        """Landmarks B and the root R of their inverse kernel matrix, so that φ(x) φ(x')' = k(x, B) R R' k(B, x')."""
        if self.kernel == "linear":
            return
        self._gamma = 1 / (X.shape[1] * (float(X.var()) or 1)) if self.gamma == "scale" else self.gamma
        first, others = np.arange(num_labelled), num_labelled + rng.permutation(len(X) - num_labelled)
        first = first if num_labelled <= self.components else rng.permutation(num_labelled)
        self._landmarks = X[np.concatenate([first, others])[: self.components]]
        values, vectors = np.linalg.eigh(rbf_kernel(self._landmarks, gamma=self._gamma).astype(float))
        kept = values > 1e-6 * values.max()
        self._root = (vectors[:, kept] / np.sqrt(values[kept])).astype(X.dtype)

    def _features(self, X: np.ndarray) -> np.ndarray:
        """φ of standardised rows, with the constant that a bias needs."""
        mapped = X if self.kernel == "linear" else rbf_kernel(X, self._landmarks, gamma=self._gamma) @ self._root
        return np.hstack([mapped, np.ones((len(X), 1), X.dtype)])

    def _minima(self, problem: "_Problem", rng: np.random.RandomState) -> list[tuple[np.ndarray, float, int]]:
        """W of every start, its objective, and the iterations that led there."""

        def minimised(part: _Problem, W: np.ndarray, C: float, what: str) -> Any:
            # The SVM that all else starts from is cheap, and is the answer where every row has a label.
            options = {"maxiter": self.max_iter, "maxcor": 20, "ftol": 1e-6, "gtol": 1e-6} if C else {"ftol": 1e-12}
            done = count(1)

            def tell(intermediate_result: Any) -> None:
                if (iteration := next(done)) % 20 == 0:
                    print(
                        f"TSVM: {what}, C' = {C:.3g}, iteration {iteration}: {intermediate_result.fun:.6g}", flush=True
                    )

            callback = tell if self.verbose else None
            found = minimize(part, W, (C,), "L-BFGS-B", jac=True, callback=callback, options=options)
            if self.verbose:
                print(f"TSVM: {what}, C' = {C:.3g}: {found.fun:.6g} after {found.nit} iterations", flush=True)
            return found

        shape = problem.features.shape[1], len(self.classes_)
        labelled = minimised(problem, np.zeros(shape[0] * shape[1]), 0, "labelled rows")
        full = self.C * self.unlabelled
        growing = np.geomspace(full / 1000, full, self.steps) if self.steps > 1 and full else np.array([full])
        starts = []
        for start in range(self.restarts if full and len(problem.targets) < len(problem.features) else 0):
            part = problem.part(rng) if start else problem
            W = labelled.x + (rng.normal(size=labelled.x.shape) if start else 0)
            what, found, iterations = f"start {start + 1} of {self.restarts}", labelled, labelled.nit
            for rows, C in [*((part, C) for C in growing), *([(problem, full)] if start else [])]:
                found = minimised(rows, W, C, f"{what}, {len(rows.features)} rows")
                W, iterations = found.x, iterations + found.nit
            starts.append((found, iterations))
        return [
            (found.x.reshape(shape).astype(problem.features.dtype), float(found.fun), max(iterations, 1))
            for found, iterations in starts or [(labelled, labelled.nit)]
        ]


class _Problem:
    """The objective as a function of W alone.

    Args:
        features: φ of all rows, [N, F], the labelled ones first.
        targets: classes of the labelled rows, [N_l], int.
        shares: π, [K].
        hold: r.
        C: weight of a labelled row.
        temperature: T.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, shares: np.ndarray, hold: float, C: float, temperature: float
    ) -> None:
        self.features, self.targets, self.shares = features, targets, shares
        self.hold, self.C, self.temperature = hold, C, temperature
        self.one_hot = np.eye(len(shares), dtype=features.dtype)[targets]
        self.assignment = _Assignment(shares, hold, temperature)

    def __call__(self, flat: np.ndarray, C: float) -> tuple[float, np.ndarray]:
        """Objective and gradient at W [F K] with C' = C; 0 leaves rows without a label out."""
        n, dtype = len(self.targets), self.features.dtype
        phi = self.features if C else self.features[:n]
        f = phi @ flat.reshape(phi.shape[1], -1).astype(dtype)
        below, above = np.maximum(0, 1 - f), np.maximum(0, 1 + f)
        # l(f, k) = Σ_c above_c² + loss_k, so that the first term, which all classes share, needs no p.
        every, loss = (above**2).sum(1), below**2 - above**2
        p, row_weights = self.one_hot, np.full(n, self.C)
        value = float(row_weights @ (every[:n] + (p * loss[:n]).sum(1)))
        if C:
            least, q = self.assignment(loss[n:])
            value += C * (float(every[n:].sum(dtype=float)) + len(q) * least)
            p = np.concatenate([p, q])
            row_weights = np.concatenate([row_weights, np.full(len(q), C)])
        slope = (2 * row_weights[:, None]).astype(dtype) * ((1 - p) * above - p * below)
        return value + 0.5 * float(flat @ flat), flat + (phi.T @ slope).ravel()

    def part(self, rng: np.random.RandomState) -> "_Problem":
        """The same with a fraction of the rows without a label."""
        n = len(self.targets)
        others = n + rng.permutation(len(self.features) - n)[: -(-(len(self.features) - n) // PART)]
        rows = np.concatenate([np.arange(n), others])
        return _Problem(self.features[rows], self.targets, self.shares, self.hold, self.C, self.temperature)

    def shares_at(self, W: np.ndarray) -> np.ndarray:
        """m at this W."""
        f = self.features[len(self.targets) :] @ W
        loss = np.maximum(0, 1 - f) ** 2 - np.maximum(0, 1 + f) ** 2
        return self.assignment(loss)[1].mean(0, dtype=float)


class _Assignment:
    """min over P of the mean over rows of Σ_k p_jk (loss_jk + T log p_jk), plus r KL(m | π).

    It is the max over a of -T mean log Σ_k exp((a_k - loss_jk) / T) - r Σ_k π_k (exp(-a_k / r) - 1). The last term is
    a' π for r = inf, and a is 0 for r = 0. Newton's method takes a step or two, a starting where the last W left it.
    """

    def __init__(self, shares: np.ndarray, hold: float, temperature: float) -> None:
        self.shares, self.hold, self.temperature = shares, hold, temperature
        self.potentials = np.zeros(len(shares))  # a

    def __call__(self, loss: np.ndarray) -> tuple[float, np.ndarray]:
        """The minimum, and its P [N, K]."""
        value, p = self._dual(self.potentials, loss)
        for _ in range(50 if self.hold else 0):
            mean, wanted = p.mean(0, dtype=float), self.shares * np.exp(-self.potentials / self.hold)
            gradient = wanted - mean
            if abs(gradient).max() < TOLERANCE:
                break
            curvature = (np.diag(mean) - (p.T @ p).astype(float) / len(p)) / self.temperature
            # With r = inf the same added to every potential changes nothing: curvature is lent to that direction.
            curvature += np.diag(wanted / self.hold) + 1e-6 * np.eye(len(mean)) + (1e-3 if np.isinf(self.hold) else 0)
            step = np.linalg.solve(curvature, gradient)
            step *= min(1, 5 * self.temperature / abs(step).max())
            for _ in range(10):
                ahead, q = self._dual(self.potentials + step, loss)
                if ahead >= value - 1e-7:
                    break
                step /= 4
            self.potentials, value, p = self.potentials + step, ahead, q
        return value, p

    def _dual(self, potentials: np.ndarray, loss: np.ndarray) -> tuple[float, np.ndarray]:
        """The concave function at these potentials, and the P that goes with them."""
        logits = (potentials.astype(loss.dtype) - loss) / loss.dtype.type(self.temperature)
        largest = logits.max(1, keepdims=True)
        p = np.exp(logits - largest)
        total = p.sum(1, keepdims=True)
        if np.isinf(self.hold):
            held = potentials @ self.shares
        else:
            held = -self.hold * (self.shares @ np.expm1(-potentials / self.hold)) if self.hold else 0.0
        return float(held) - self.temperature * float((np.log(total) + largest).mean(dtype=float)), p / total

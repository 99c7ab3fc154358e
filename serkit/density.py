"""Gaussian mixtures as values: evaluate, differentiate, sample, take apart.

Covariances come in scikit-learn's four shapes: ``full`` (K, D, D), ``tied`` (D, D), ``diag``
(K, D), ``spherical`` (K,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from .arrays import as_rows, numbered
from .errors import InputError
from .options import (
    Choice,
    Count,
    Number,
    RandomState,
    as_numbers,
    check_argument,
    generator_of,
    in_words,
)
from .reading import array_in

_STEPS, _VALLEY = 41, 0.01  # along the line between two means, and what it must fall below

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
DIAGONAL_TYPES = ("diag", "spherical")
_ROUNDING = 1e-6  # of float32, in which some come
_BLOCK_VALUES = 2**16  # half a megabyte, which stays in the processor's cache


@dataclass(frozen=True, eq=False, repr=False)
class MixtureDensity:
    """A Gaussian mixture as a value: ``p(x) = sum_k pi_k N(x; mu_k, Sigma_k)``.

    `serkit.modules.GMM.density` and `serkit.modules.GMMClassifier.density` give one; measures,
    paths and walks take it.

    Parameters
    ----------
    weights : array-like, shape (K,)
        Mixing weights pi_k, which add up to 1.
    means : array-like, shape (K, D)
    covariances : array-like
        In the shape of `covariance_type`; symmetric and positive definite, variances positive.
    covariance_type : {"full", "tied", "diag", "spherical"}
    checked : bool
        Whether to look at the numbers, and not only at shapes; for code that has just made them.

    Raises
    ------
    InputError
        For shapes that do not fit, and for numbers of which this is no density.

    Examples
    --------
    Two humps on a line, at 0 and at 4, the second one wider:

    >>> from serkit import MixtureDensity
    >>> density = MixtureDensity([0.5, 0.5], [[0.0], [4.0]], [1.0, 4.0], "spherical")
    >>> density.mean(), density.covariance()
    (array([2.]), array([[6.5]]))
    >>> density.responsibilities([[1.0]]).round(2)
    array([[0.79, 0.21]])
    >>> rows, components = density.sample(100, random_state=0)
    >>> rows.shape
    (100, 1)
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    covariance_type: str = "full"
    checked: InitVar[bool] = field(default=True, kw_only=True)

    def __post_init__(self, checked: bool) -> None:
        check_argument("MixtureDensity", "checked", checked, Choice(False, True))
        for name in ("weights", "means", "covariances"):
            value = getattr(self, name)
            numbers = as_numbers("MixtureDensity", name, value) if checked else value
            object.__setattr__(self, name, np.asarray(numbers, dtype=np.float64))
        kinds = Choice(*COVARIANCE_TYPES)
        check_argument("MixtureDensity", "covariance_type", self.covariance_type, kinds)
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        shape = shape_of_covariances(self.covariance_type, k, d)
        fits = self.weights.shape == (k,) and self.covariances.shape == shape
        if not (fits and k and d):
            raise InputError(
                "MixtureDensity: expected weights (K,), means (K, D) and "
                f"{self.covariance_type} covariances {shape}, got "
                f"{self.weights.shape}, {self.means.shape} and {self.covariances.shape}"
            )
        if checked and (problem := self._problem()):
            raise InputError(f"MixtureDensity: {problem}")

    def _problem(self) -> str | None:
        """Why finite numbers are no density, in words; None if they are one."""
        total = self.weights.sum()
        if self.weights.min() < 0 or abs(total - 1) > _ROUNDING:
            return (
                "weights must be probabilities that add up to 1, got a minimum of "
                f"{self.weights.min():g} and a sum of {total:g}"
            )
        with np.errstate(over="ignore"):
            squares = np.square(self.means - self.means.mean(axis=0))
        if not np.isfinite(squares.sum()):
            return f"means up to {np.abs(self.means).max():g} are too far apart to square"
        diagonal = self.covariance_type in DIAGONAL_TYPES
        return problem_of_covariances(self.covariances, diagonal=diagonal)

    def __repr__(self) -> str:
        size = f"{self.n_components} components of {self.n_dims} dimensions"
        return f"{type(self).__name__}({size}, {self.covariance_type})"

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return len(self.means)

    @property
    def n_dims(self) -> int:
        """Number of dimensions D."""
        return self.means.shape[1]

    @cached_property
    def whitening(self) -> tuple[np.ndarray, np.ndarray]:
        """Matrices W (K, D, D) with W W^T the precisions; log determinants (K,) of covariances.

        For diagonal types W is given by its diagonal, (K, D). A covariance that is not positive
        definite raises `np.linalg.LinAlgError`.
        """
        if self.covariance_type in DIAGONAL_TYPES:
            variances = self.variances()
            if not (variances > 0).all():
                raise np.linalg.LinAlgError("a variance is not positive")
            return 1 / np.sqrt(variances), np.log(variances).sum(axis=1)
        lower = np.linalg.cholesky(self.covariances)
        log_det = 2 * np.log(np.diagonal(lower, axis1=-2, axis2=-1)).sum(axis=-1)
        white = np.swapaxes(np.linalg.inv(lower), -2, -1)
        k, d = self.means.shape
        return np.broadcast_to(white, (k, d, d)), np.broadcast_to(log_det, (k,))

    @cached_property
    def precisions(self) -> np.ndarray:
        """Inverses of the covariances, (K, D, D), or their diagonals (K, D) for diagonal types."""
        white, _ = self.whitening
        return white**2 if white.ndim == 2 else white @ np.swapaxes(white, 1, 2)

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row in nats: (N, D) -> (N,)."""
        return logsumexp(self._log_joint(x), axis=1)

    def component_log_prob(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row under each component, in nats: (N, D) -> (N, K)."""
        log_density = log_gaussians(self._rows(x), self)
        check_near(log_density, "MixtureDensity")
        return log_density

    def responsibilities(self, x: ArrayLike) -> np.ndarray:
        """P(k | row): (N, D) -> (N, K)."""
        return np.exp(log_softmax(self._log_joint(x), axis=1))

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Gradient of the log density at each row: (N, D) -> (N, D)."""
        return self.log_prob_and_gradient(x)[1]

    def log_prob_and_gradient(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Log density (N,) and gradient ``sum_k P(k | x) Sigma_k^-1 (mu_k - x)`` (N, D) at once."""
        rows = self._rows(x)
        joint = self._log_joint(rows)
        r = np.exp(log_softmax(joint, axis=1))  # (N, K)
        if self.precisions.ndim == 2:  # (K, D), the diagonals
            centre = self.means.mean(axis=0)  # differences are exact far from the origin too
            means, rows = self.means - centre, rows - centre
            gradient = r @ (self.precisions * means) - rows * (r @ self.precisions)
        else:
            pulls = (self.means[:, None] - rows) @ self.precisions  # (K, N, D)
            gradient = np.einsum("nk,knd->nd", r, pulls)
        return logsumexp(joint, axis=1), gradient

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows, independently of each other.

        Parameters
        ----------
        n_samples : int
            At least 1, else InputError.
        random_state : int, np.random.Generator or np.random.RandomState, optional
            The same seed gives the same rows; a generator goes on.

        Returns
        -------
        rows : np.ndarray, shape (n_samples, D)
        components : np.ndarray, shape (n_samples,)
            The component of each row.
        """
        range_ = Count(each=self.n_dims)
        check_argument("MixtureDensity.sample", "n_samples", n_samples, range_)
        rng = generator_of("MixtureDensity.sample", random_state)
        weights = self.weights / self.weights.sum()  # exactly, as NumPy wants it
        components = rng.choice(self.n_components, n_samples, p=weights)
        lower = np.linalg.cholesky(self.full_covariances())  # (K, D, D)
        rows = rng.standard_normal((n_samples, self.n_dims))
        for k in np.unique(components):  # one by one: (n, D, D) would be large
            drawn = components == k
            rows[drawn] = self.means[k] + rows[drawn] @ lower[k].T
        return rows, components

    def _log_joint(self, x: ArrayLike) -> np.ndarray:
        """``log pi_k N(x; mu_k, Sigma_k)``, (N, K)."""
        with np.errstate(divide="ignore"):  # a weight may be 0
            return self.component_log_prob(x) + np.log(self.weights)

    def _rows(self, x: ArrayLike) -> np.ndarray:
        """Finite rows (N, D) in float64."""
        rows, d = as_rows(x, "MixtureDensity").astype(np.float64, copy=False), self.n_dims
        if rows.shape[1:] != (d,):
            raise InputError(f"MixtureDensity: expected rows of {d} columns, got {rows.shape}")
        return rows

    def component(self, k: int) -> MixtureDensity:
        """Component k alone, as a mixture of one; InputError if there is no such component."""
        if not isinstance(k, Integral) or k not in range(self.n_components):
            raise InputError(f"component={k} does not exist; they are 0 to {self.n_components - 1}")
        return replace(self.permuted(np.array([k])), weights=np.ones(1), checked=False)

    def marginal(self, columns: ArrayLike) -> MixtureDensity:
        """The density of some dimensions alone, in the order given: columns (d,) of int."""
        numbers = self._numbers("marginal", "columns", columns, self.n_dims)
        covariances = self.covariances
        if self.covariance_type in ("full", "tied"):
            covariances = covariances[..., numbers[:, None], numbers]
        elif self.covariance_type == "diag":
            covariances = covariances[:, numbers]
        means = self.means[:, numbers]
        return replace(self, means=means, covariances=covariances, checked=False)

    def _numbers(self, method: str, name: str, numbers: ArrayLike, n: int) -> np.ndarray:
        """Numbers of `n` columns or components, (m,) of int; InputError for others."""
        array = array_in(numbers, f"MixtureDensity.{method}: {name}")
        in_range = array.ndim == 1 and array.dtype.kind in "iu" and array.size > 0
        once = in_range and len(np.unique(array)) == len(array)
        if not (once and (array >= 0).all() and (array < n).all()):
            raise InputError(
                f"MixtureDensity.{method}: {name} must be a list of integers from 0 to {n - 1}, "
                f"each at most once, got {in_words(numbers)}"
            )
        return array

    def mean(self) -> np.ndarray:
        """The mean E[x], (D,)."""
        return self.weights @ self.means

    def covariance(self) -> np.ndarray:
        """The covariance Cov[x], (D, D): within components and between them."""
        offsets = self.means - self.mean()
        between = (self.weights[:, None] * offsets).T @ offsets
        return np.einsum("k,kde->de", self.weights, self.full_covariances()) + between

    def full_covariances(self) -> np.ndarray:
        """Covariances as (K, D, D), whatever their type."""
        if self.covariance_type in DIAGONAL_TYPES:
            return self.variances()[:, :, None] * np.eye(self.n_dims)
        return np.broadcast_to(self.covariances, (*self.means.shape, self.n_dims))

    def variances(self) -> np.ndarray:
        """The diagonals of the covariances, (K, D)."""
        values = self.covariances
        if self.covariance_type == "spherical":
            values = values[:, None]
        elif self.covariance_type != "diag":
            values = np.diagonal(values, axis1=-2, axis2=-1)
        return np.broadcast_to(values, self.means.shape)

    def typed(self, matrices: np.ndarray) -> np.ndarray:
        """Matrices (K, D, D) or diagonals (K, D), one a component, in the shape of covariances."""
        matrices = as_numbers("MixtureDensity.typed", "matrices", matrices)
        if matrices.shape[:2] != self.means.shape:
            raise InputError(
                f"MixtureDensity.typed: matrices must be of shape (K, D, D) or (K, D), K and D "
                f"{self.means.shape}, got {matrices.shape}"
            )
        in_type = {"tied": matrices[0], "spherical": matrices[:, 0]}
        return in_type.get(self.covariance_type, matrices)

    def permuted(self, order: np.ndarray) -> MixtureDensity:
        """The components numbered `order`, in that order, their weights normalised."""
        order = self._numbers("permuted", "order", order, self.n_components)
        weights, covariances = self.weights[order], self.covariances
        if len(order) != self.n_components:
            weights = weights / (weights.sum() or 1.0)
        if self.covariance_type != "tied":
            covariances = covariances[order]
        means = self.means[order]
        return replace(self, weights=weights, means=means, covariances=covariances, checked=False)

    def n_free(self, *, weights: bool = True) -> int:
        """Number of free parameters, for AIC and BIC; of the components alone without `weights`."""
        check_argument("MixtureDensity.n_free", "weights", weights, Choice(False, True))
        (k, d), symmetric = self.means.shape, self.n_dims * (self.n_dims + 1) // 2
        counts = {"full": k * symmetric, "tied": symmetric, "diag": k * d, "spherical": k}
        return counts[self.covariance_type] + k * d + (k - 1 if weights else 0)

    def are_apart(self) -> np.ndarray:
        """Whether components lie apart from all others, (K,) of bool.

        On the line between the means of two that do, their density falls below a hundredth of that
        at either mean. Two of equal weight and variance 1 do so from a distance of 6.5 on.

        Examples
        --------
        >>> from serkit import MixtureDensity
        >>> means = [[0.0], [4.0], [20.0]]
        >>> MixtureDensity([0.3, 0.3, 0.4], means, [1.0, 1.0, 1.0], "spherical").are_apart()
        array([False, False,  True])
        """
        (white, log_det), offsets = self.whitening, self.means - self.means[:, None]  # (K, K, D)
        whitened = offsets * white[:, None] if white.ndim == 2 else offsets @ white
        squares = np.square(whitened).sum(axis=2)  # [i, j]: of mean j, as component i sees it
        with np.errstate(divide="ignore"):
            top = np.log(self.weights) - 0.5 * log_det  # log density at the means, and a constant
        steps = np.linspace(0, 1, _STEPS)[:, None, None]
        near, far = steps**2 * squares, (1 - steps) ** 2 * squares.T
        line = np.logaddexp(top[:, None] - 0.5 * near, top - 0.5 * far)  # (steps, K, K)
        with np.errstate(invalid="ignore"):  # of weights that are 0
            dips = line.min(axis=0) - np.minimum(line[0], line[-1])
        return (dips < np.log(_VALLEY)).sum(axis=1) == self.n_components - 1

    def penalty(self, n_rows: float) -> float:
        """What twice the log-likelihood of rows has to make up for, by the number of parameters.

        As in the Bayesian information criterion a parameter costs log N, for N rows. But those of a
        component that lies apart (`are_apart`), with more than two rows for each, are told by its
        own N_k rows alone, and cost log N_k.

        Examples
        --------
        >>> from serkit import MixtureDensity
        >>> one = MixtureDensity([1.0], [[0.0]], [1.0], "spherical")
        >>> bool(np.isclose(one.penalty(100), 2 * np.log(100)))
        True
        """
        check_argument("MixtureDensity.penalty", "n_rows", n_rows, Number(above=0))
        (k, d), is_tied = self.means.shape, self.covariance_type == "tied"
        total = self.n_free(weights=False)
        of_each = d if is_tied else total // k
        counts = n_rows * self.weights
        own = self.are_apart() & (counts > 2 * of_each)
        of_components = of_each * np.log(np.where(own, counts, n_rows)).sum()
        return float(of_components + (total - k * of_each + k - 1) * np.log(n_rows))


def shape_of_covariances(covariance_type: str, k: int, d: int) -> tuple[int, ...]:
    """Shape of the covariances, or of their inverses, of K components in D dimensions."""
    shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
    return shapes[covariance_type]


def combine(
    densities: Sequence[MixtureDensity], weights: ArrayLike, *, checked: bool = True
) -> MixtureDensity:
    """The mixture ``sum_c w_c p_c(x)`` of C densities, whose components are those of all, in order.

    Covariances keep their type where all have the same one, but "tied" ones become "full".
    InputError for another number of weights (C,), weights that do not add up to 1 (unless not
    `checked`), or densities of different dimensions.
    """
    weights = as_numbers("combine", "weights", weights)
    if weights.shape != (len(densities),):
        raise InputError(f"got weights of shape {weights.shape} for {len(densities)} densities")
    if len({density.n_dims for density in densities}) != 1:
        dims = ", ".join(str(density.n_dims) for density in densities)
        raise InputError(f"expected densities over the same space, got {dims} dimensions")
    kinds = {density.covariance_type for density in densities}
    typed = len(kinds) == 1 and kinds != {"tied"}
    covariances = [d.covariances if typed else d.full_covariances() for d in densities]
    return MixtureDensity(
        np.concatenate([w * d.weights for w, d in zip(weights, densities, strict=True)]),
        np.concatenate([density.means for density in densities]),
        np.concatenate(covariances),
        kinds.pop() if typed else "full",
        checked=checked,
    )


def problem_of_covariances(covariances: np.ndarray, *, diagonal: bool) -> str | None:
    """Why numbers are no covariances, (..., D, D) or diagonals, in words; None if they are."""
    if diagonal:
        smallest = covariances.min()
        return None if smallest > 0 else f"variances must be above 0, the smallest is {smallest:g}"
    transposed = np.swapaxes(covariances, -2, -1)
    difference = np.abs(covariances - transposed).max(axis=(-2, -1))
    if (difference > _ROUNDING * np.abs(covariances).max(axis=(-2, -1))).any():
        return f"covariances must be symmetric, some differ by {difference.max():g} from that"
    try:
        np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(covariances).min()
        return f"covariances must be positive definite, the smallest eigenvalue is {smallest:g}"
    return None


def check_near(log_density: np.ndarray, what: str) -> None:
    """Raise InputError for rows whose log densities (N, K) are -inf under every component."""
    far = np.flatnonzero(log_density.max(axis=1) == -np.inf)
    if len(far):
        raise InputError(
            f"{what}: {len(far)} of {len(log_density)} rows (rows {numbered(far)}) are so far from "
            "every component that their squared distance is beyond floating point; check their "
            "scale"
        )


def log_gaussians(
    x: np.ndarray, density: MixtureDensity, variances: np.ndarray | None = None
) -> np.ndarray:
    """Log density in nats of each row (N, D) under each component, whatever the weights, (N, K).

    With `variances` (N, D) its expectation over ``N(x_n, diag(variances_n))``. It is -inf where
    the squared distance is beyond floating point. Rows are worked on in blocks that stay in the
    processor's cache.
    """
    white, log_det = density.whitening
    k, d = density.means.shape
    centre = density.means.mean(axis=0)  # keeps the products small, far from the origin too
    means = density.means - centre
    diagonal = white.ndim == 2
    offset = means * white if diagonal else (means[:, None] @ white)[:, 0]  # (K, D)
    matrix = white if diagonal else white.transpose(0, 2, 1).reshape(k * d, d)
    precisions = white**2 if diagonal else (white**2).sum(axis=2)  # their diagonals, (K, D)
    squares = np.empty((len(x), k))
    step = max(_BLOCK_VALUES // (k * d), 1)
    for start in range(0, len(x), step):
        block = slice(start, start + step)
        columns = x[block].T - centre[:, None]  # (D, n)
        with np.errstate(over="ignore", invalid="ignore"):  # of rows that are too far
            whitened = (
                white[:, :, None] * columns if diagonal else (matrix @ columns).reshape(k, d, -1)
            )
            whitened -= offset[:, :, None]  # (K, D, n)
            squares[block] = np.square(whitened, out=whitened).sum(axis=1).T
            if variances is not None:  # tr(Sigma_k^-1 diag(variances_n))
                squares[block] += variances[block] @ precisions.T
    squares[np.isnan(squares)] = np.inf
    return -0.5 * (d * np.log(2 * np.pi) + log_det + squares)

"""What both modules of mixtures share: arguments, their checks, and the messages they take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ...density import (
    COVARIANCE_TYPES,
    DIAGONAL_TYPES,
    MixtureDensity,
    problem_of_covariances,
    shape_of_covariances,
)
from ...errors import InputError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...module import Module
from ...options import (
    Choice,
    Count,
    Number,
    PositiveInt,
    Randomness,
    RandomState,
    as_numbers,
    check_argument,
    seed_of,
)
from ..common.inputs import split_columns
from .components import Prior
from .rows import Rows

_SHARE_OF_VARIANCE = 0.1  # that Serket's S0 = 0.1 I has of columns of variance 1


@dataclass(eq=False, repr=False, kw_only=True)
class MixtureModule(Module):
    """Abstract base of modules that fit Gaussian mixtures to rows; see `GMM` for the arguments."""

    covariance_type: Annotated[str, Choice(*COVARIANCE_TYPES)] = "full"
    inference: Annotated[str, Choice("map", "ml", "gibbs")] = "map"
    labels: ArrayLike | None = None
    max_iter: PositiveInt = 200
    tol: Annotated[float, Number(at_least=0)] = 1e-3
    mean_precision_prior: Annotated[float, Number(above=0)] = 1.0
    degrees_of_freedom_prior: Annotated[float | None, Number(above=0, or_none=True)] = None
    covariance_prior: float | ArrayLike | None = None
    reg_covar: Annotated[float, Number(at_least=0)] = 1e-6
    sample_weight: ArrayLike | None = None
    device: str = "auto"

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture
    learns_from_shares = True

    def _checked_weight(self, n_rows: int) -> np.ndarray:
        """The argument `sample_weight` as an array (n_rows,), 1 unless given.

        InputError unless it is one finite number >= 0 per row, and some are above 0.
        """
        if self.sample_weight is None:
            return np.ones(n_rows)
        wanted = f"{n_rows} finite numbers >= 0, one a row"
        weight = as_numbers(self.label, "sample_weight", self.sample_weight, wanted)
        minimum = weight.min(initial=np.inf)
        if weight.ndim == 1 and len(weight) != n_rows:
            raise InputError(
                f"{self.label}: sample_weight has {len(weight)} entries for {n_rows} rows"
            )
        if weight.ndim != 1 or minimum < 0:
            raise InputError(
                f"{self.label}: sample_weight must be {wanted}, got shape {weight.shape} with "
                f"minimum {minimum:g}"
            )
        if not weight.any():
            raise InputError(f"{self.label}: every sample_weight is 0")
        return weight

    def _checked_prior(
        self,
        mean: np.ndarray,
        variances: np.ndarray,
        certain: np.ndarray | bool,
        concentration: float,
    ) -> Prior:
        """The prior about `mean` of rows whose columns have these variances, (D,) each.

        Of diagonal covariances, which have few parameters for so many degrees of freedom, a
        component without rows has a tenth of these in columns known for `certain`, all or (D,).
        InputError for arguments that are no parameters of one.
        """
        d = len(variances)
        degrees = self.degrees_of_freedom_prior
        nu = d + 2 if degrees is None else float(degrees)
        if self.covariance_prior is None:
            widened = self.covariance_type in DIAGONAL_TYPES and certain
            scale = np.diag(_SHARE_OF_VARIANCE * variances * np.where(widened, nu + d + 2, 1.0))
        else:
            scale = as_numbers(self.label, "covariance_prior", self.covariance_prior)
            scale = scale * np.eye(d) if scale.ndim == 0 else scale
        if scale.shape != (d, d) or mean.shape != (d,) or nu <= d - 1:
            raise InputError(
                f"{self.label}: for D={d} dimensions expected mean_prior ({d},), covariance_prior "
                f"a number or ({d}, {d}) and degrees_of_freedom_prior > {d - 1}, got "
                f"{mean.shape}, {scale.shape} and {nu}"
            )
        if problem_of_covariances(scale, diagonal=False):
            raise InputError(
                f"{self.label}: covariance_prior must be positive definite and symmetric, got "
                f"{self.covariance_prior!r:.60}"
            )
        return Prior(mean, self.mean_precision_prior, nu, scale, concentration)

    def _check_columns(self, rows: Rows, n_columns: int) -> None:
        """Raise InputError unless rows are as wide as those it was fitted to."""
        if rows.n_columns != n_columns:
            raise InputError(f"{self.label}: fitted on {n_columns} columns, got {rows.n_columns}")

    def _seed_of_draw(self, n_samples: int, random_state: RandomState) -> int:
        """The seed of `sample`, after a check of its arguments; the module's own unless given."""
        check_argument(self.label, "n_samples", n_samples, Count(each=1))
        check_argument(self.label, "random_state", random_state, Randomness())
        return self.seed() if random_state is None else seed_of(random_state)

    def _by_parent(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows (n, D) cut into those of each parent."""
        return split_columns(rows, [cast(int, parent.n_outputs) for parent in self.parents])


def messages_down(
    inputs: list[Message], density: MixtureDensity, log_weights: np.ndarray, log_prob: np.ndarray
) -> tuple[Mixture, ...]:
    """A mixture and each row's log P(k | row), (N, K), for each parent in its own dimensions."""
    covariances = density.full_covariances()
    mixture = Mixture(log_prob, density.means, covariances, log_weights, checked=False)
    return tuple(mixture.split([math.prod(message.shape) for message in inputs]))


class Components(Count):
    """A number of components, or "auto"."""

    wanted = "an integer >= 1 or 'auto'"

    def fits(self, value: Any) -> bool:
        """Whether it is one."""
        return value == "auto" if isinstance(value, str) else super().fits(value)


def check_no_start(module: Any) -> None:
    """Raise InputError for where to start from, of a module that is to find how many components."""
    starts = ("weights_init", "means_init", "precisions_init", "responsibilities_init")
    given = [name for name in starts if getattr(module, name) is not None]
    if given:
        raise InputError(
            f"{module.label}: n_components='auto' finds where to start from; leave "
            f"{' and '.join(given)} out, or give the number of components"
        )


def checked_means(label: str, means_init: ArrayLike, k: int, d: int | None = None) -> np.ndarray:
    """The argument `means_init` as an array (k, d); of any dimensions unless d is given."""
    means = as_numbers(label, "means_init", means_init)
    if means.ndim != 2 or len(means) != k or d not in (None, means.shape[1]):
        raise InputError(
            f"{label}: expected means_init of shape ({k}, {'D' if d is None else d}), got "
            f"{means.shape}"
        )
    return means


def check_weights_init(label: str, weights_init: ArrayLike | None, k: int) -> None:
    """Raise InputError unless the argument is None or k probabilities that add up to 1."""
    if weights_init is None:
        return
    weights = as_numbers(label, "weights_init", weights_init)
    if weights.shape != (k,) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
        raise InputError(
            f"{label}: weights_init must be {k} numbers >= 0 that add up to 1, got "
            f"{weights_init!r:.60}"
        )


def check_precisions_init(
    label: str, precisions_init: ArrayLike | None, k: int, d: int, covariance_type: str
) -> None:
    """Raise InputError unless the argument is None or positive definite, in the type's shape."""
    if precisions_init is None:
        return
    precisions = as_numbers(label, "precisions_init", precisions_init)
    shape = shape_of_covariances(covariance_type, k, d)
    diagonal = covariance_type in DIAGONAL_TYPES
    fits = precisions.shape == shape
    if not fits or problem_of_covariances(precisions, diagonal=diagonal):
        raise InputError(
            f"{label}: precisions_init must be positive definite and symmetric, of shape {shape} "
            f"for covariance_type={covariance_type!r}, got shape {precisions.shape}: "
            f"{precisions_init!r:.60}"
        )


def checked_responsibilities(label: str, values: ArrayLike, n_rows: int, k: int) -> np.ndarray:
    """The argument `responsibilities_init` as an array (n_rows, k)."""
    responsibilities = as_numbers(label, "responsibilities_init", values)
    shape, minimum = responsibilities.shape, responsibilities.min(initial=np.inf)
    if shape and shape[0] != n_rows:
        raise InputError(f"{label}: responsibilities_init has {shape[0]} entries for {n_rows} rows")
    if shape != (n_rows, k) or minimum < 0:
        raise InputError(
            f"{label}: expected responsibilities_init of shape ({n_rows}, {k}) without negative "
            f"entries, got {shape} with minimum {minimum}"
        )
    if not np.allclose(responsibilities.sum(axis=1), 1, atol=1e-3):
        raise InputError(f"{label}: the rows of responsibilities_init must add up to 1")
    return responsibilities

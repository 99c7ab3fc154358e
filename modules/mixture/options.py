"""What mixtures are given: arguments that both modules have, and checks that need the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ... import processes
from ...density import COVARIANCE_TYPES
from ...errors import InputError
from ...messages import Categorical, Message
from ...module import Arguments
from ...options import Choice, Constraint, Count, Number, PositiveInt, as_numbers
from .components import Prior
from .rows import Rows, filled


@dataclass(eq=False, repr=False, kw_only=True)
class MixtureOptions(Arguments):
    """Constructor arguments that both modules of mixtures have; see `GMM`."""

    covariance_type: Annotated[str, Choice(*COVARIANCE_TYPES)] = "full"
    inference: Annotated[str, Choice("map", "ml", "gibbs")] = "map"
    labels: ArrayLike | None = None
    max_iter: PositiveInt = 200
    tol: Annotated[float, Number(at_least=0)] = 1e-3
    mean_precision_prior: Annotated[float, Number(above=0)] = 1.0
    degrees_of_freedom_prior: Annotated[float | None, Number(above=0, or_none=True)] = None
    covariance_prior: float | ArrayLike = 0.1
    reg_covar: Annotated[float, Number(at_least=0)] = 1e-6
    sample_weight: ArrayLike | None = None


@dataclass(frozen=True, kw_only=True)
class Starts(Constraint):
    """A number of starts, or a sequence of them, one an update."""

    def fits(self, value: Any) -> bool:
        """Whether it is one; later updates may have none."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            return Count().fits(value)
        return bool(value) and Count().fits(value[0]) and all(map(Count(at_least=0).fits, value))

    @property
    def wanted(self) -> str:
        """The values accepted, in words."""
        return "an integer >= 1, or several of which further ones may be 0"


def checked_weight(options: MixtureOptions, n_rows: int) -> np.ndarray:
    """The argument `sample_weight` as an array (n_rows,), 1 unless given.

    Raises
    ------
    InputError
        Unless it is one finite number >= 0 per row, and some are above 0.
    """
    if options.sample_weight is None:
        return np.ones(n_rows)
    label, wanted = options.label, f"{n_rows} finite numbers >= 0, one a row"
    weight = as_numbers(label, "sample_weight", options.sample_weight, wanted)
    minimum = weight.min(initial=np.inf)
    if weight.ndim == 1 and len(weight) != n_rows:
        raise InputError(f"{label}: sample_weight has {len(weight)} entries for {n_rows} rows")
    if weight.ndim != 1 or minimum < 0:
        raise InputError(
            f"{label}: sample_weight must be {wanted}, got shape {weight.shape} with minimum "
            f"{minimum:g}"
        )
    if not weight.any():
        raise InputError(f"{label}: every sample_weight is 0")
    return weight


def check_batches(options: MixtureOptions, step_size: float | None) -> None:
    """Raise InputError for arguments that learning from batches has no use for."""
    label = options.label
    if options.inference == "gibbs":
        raise InputError(f"{label}: partial_fit needs inference='map' or 'ml', not 'gibbs'")
    for name in ("labels", "sample_weight"):
        if getattr(options, name) is not None:
            raise InputError(
                f"{label}: {name} belong to fixed rows, which batches are not; leave them out for "
                "partial_fit"
            )
    if step_size is not None and not (isinstance(step_size, Real) and 0 < step_size <= 1):
        raise InputError(f"{label}: step_size must be in (0, 1], got {step_size!r:.60}")


def checked_classes(
    label: str, from_children: Message | None, n_classes: int, name: str
) -> Categorical | None:
    """What the children say of the classes; raise InputError if it is of another number."""
    if from_children is None:
        return None
    classes = cast(Categorical, from_children)
    if classes.shape != (n_classes,):
        raise InputError(
            f"{label}: its children sent probabilities of {classes.shape[0]} classes for "
            f"{name}={n_classes}"
        )
    return classes


def checked_means(label: str, means_init: ArrayLike, k: int, d: int | None = None) -> np.ndarray:
    """The argument `means_init` as an array (k, d); of any dimensions unless d is given."""
    means = as_numbers(label, "means_init", means_init)
    if means.ndim != 2 or len(means) != k or d not in (None, means.shape[1]):
        raise InputError(
            f"{label}: expected means_init of shape ({k}, {'D' if d is None else d}), got "
            f"{means.shape}"
        )
    return means


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


def checked_rows(options: MixtureOptions, rows: Rows, n_components: int) -> Rows:
    """Rows with what is missing filled in, those of which nothing is observed without weight.

    Raises
    ------
    InputError
        For values beyond floating point, fewer distinct rows than components, no weight at all, or
        missing values where they cannot be filled in.
    """
    label = options.label
    if rows.observed is not None and options.inference == "gibbs":
        raise InputError(
            f"{label}: some rows miss a parent's values, which inference='gibbs' cannot fill in; "
            "use inference='map' or 'ml'"
        )
    check_squares(label, rows.x)
    rows = filled(rows)
    n_distinct = count_distinct(rows.x, n_components)
    if n_distinct < n_components:
        raise InputError(
            f"{label}: n_components={n_components}, but only {n_distinct} of the "
            f"{int(processes.total(len(rows)))} rows are distinct"
        )
    if rows.observed is not None:
        rows = replace(rows, weight=rows.weights * rows.observed.any(axis=1))
    if not processes.any_of(bool(rows.weights.any())):
        raise InputError(f"{label}: no row with a weight above 0 is observed in any parent")
    return rows


def check_squares(label: str, x: np.ndarray) -> None:
    """Raise InputError for values whose squares are beyond floating point."""
    largest = float(max(x.max(initial=0), -x.min(initial=0)))
    if largest > np.sqrt(np.finfo(np.float64).max / max(x.size, 1)):
        raise InputError(
            f"{label}: values up to {largest:g} are too large to square; scale the data"
        )


def count_distinct(x: np.ndarray, enough: int) -> int:
    """Number of different rows of all processes, or `enough`; looks no further than needed."""
    n_read, distinct = 0, x[:0]
    while len(distinct) < enough and n_read < len(x):
        n_read = min(len(x), max(2 * n_read, 4 * enough))
        distinct = np.unique(x[:n_read], axis=0)
    some = processes.gather(distinct[:enough])
    return min(len(np.unique(some, axis=0)), enough)


def prior_of(options: MixtureOptions, d: int, mean: np.ndarray, concentration: float) -> Prior:
    """The prior of a mixture in D dimensions.

    Raises
    ------
    InputError
        For hyperparameters of other dimensions, or that are no parameters of a distribution.
    """
    scale = as_numbers(options.label, "covariance_prior", options.covariance_prior)
    scale = scale * np.eye(d) if scale.ndim == 0 else scale
    degrees = options.degrees_of_freedom_prior
    nu = d + 2 if degrees is None else float(degrees)
    if scale.shape != (d, d) or mean.shape != (d,) or nu <= d - 1:
        raise InputError(
            f"{options.label}: for D={d} dimensions expected mean_prior ({d},), covariance_prior "
            f"a number or ({d}, {d}) and degrees_of_freedom_prior > {d - 1}, got "
            f"{mean.shape}, {scale.shape} and {nu}"
        )
    if not np.allclose(scale, scale.T) or np.linalg.eigvalsh(scale).min() <= 0:
        raise InputError(
            f"{options.label}: covariance_prior must be positive definite and symmetric, got "
            f"{options.covariance_prior!r:.60}"
        )
    return Prior(mean, options.mean_precision_prior, nu, scale, concentration)

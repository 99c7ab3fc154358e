"""GMM's constructor arguments: their checks, and the fitting problem they make of given rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np

from .. import processes
from ..density import COVARIANCE_TYPES
from ..errors import InputError
from ..messages import Categorical
from ._em import Problem
from ._gaussians import Prior
from ._options import (
    as_numbers,
    check_count,
    check_number,
    check_option,
    check_random_state,
    is_count,
)
from ._rows import Rows, filled


def check_options(module: Any, n_rows: int) -> None:
    """Raise InputError for arguments of a mixture that cannot work with `n_rows` rows."""
    check_fit_options(module)
    _check_n_init(module)
    check_number(module, "weight_concentration_prior", at_least=1)
    if module.n_components > n_rows:
        raise InputError(
            f"{module.label}: n_components={module.n_components} is more than the {n_rows} rows"
        )
    check_labels(module, n_rows)
    check_sample_weight(module, n_rows)
    _check_starts(module, n_rows)


def check_fit_options(module: Any) -> None:
    """Raise InputError for arguments of the fit that no rows can suit."""
    check_count(module, "n_components", "max_iter")
    check_random_state(module, module.random_state)
    check_option(module, "covariance_type", COVARIANCE_TYPES)
    check_option(module, "inference", ("map", "ml", "gibbs"))
    check_number(module, "tol", "reg_covar", at_least=0)
    check_number(module, "mean_precision_prior", above=0)
    if module.degrees_of_freedom_prior is not None:
        check_number(module, "degrees_of_freedom_prior", above=0)


def _check_n_init(module: Any) -> None:
    several = [module.n_init] if isinstance(module.n_init, Number) else module.n_init
    counts = isinstance(several, Sequence) and all(n == 0 or is_count(n) for n in several)
    if not counts or not several or several[0] == 0:
        raise InputError(
            f"{module.label}: n_init must be an integer >= 1, or several of which further ones "
            f"may be 0, got {module.n_init!r}"
        )


def check_batch_options(module: Any, step_size: float | None) -> None:
    """Raise InputError for arguments that learning from batches has no use for."""
    check_fit_options(module)
    _check_n_init(module)
    check_number(module, "weight_concentration_prior", at_least=1)
    if module.inference == "gibbs":
        raise InputError(f"{module.label}: partial_fit needs inference='map' or 'ml', not 'gibbs'")
    for name in ("labels", "sample_weight"):
        if getattr(module, name) is not None:
            raise InputError(
                f"{module.label}: {name} belong to fixed rows, which batches are not; leave them "
                "out for partial_fit"
            )
    if step_size is not None and not 0 < step_size <= 1:
        raise InputError(f"{module.label}: step_size must be in (0, 1], got {step_size!r}")


def check_labels(module: Any, n_rows: int) -> None:
    """Raise InputError unless `labels` is None or one known class a row."""
    if module.labels is None:
        return
    labels = np.asarray(module.labels)
    missing = labels.dtype.kind == "f" and np.isnan(labels).any()
    if labels.dtype.kind == "O":
        missing = any(label is None or label != label for label in labels.ravel())
    if labels.ndim != 1 or missing:
        raise InputError(
            f"{module.label}: labels must be one known class a row, shape ({n_rows},), got shape "
            f"{labels.shape}{' with missing values' if missing else ''}: {module.labels!r:.40}"
        )
    if len(labels) != n_rows:
        raise InputError(f"{module.label}: labels has {len(labels)} entries for {n_rows} rows")


def _check_starts(module: Any, n_rows: int) -> None:
    k = module.n_components
    if module.means_init is not None:
        means = as_numbers(module, "means_init")
        if means.ndim != 2 or len(means) != k:
            raise InputError(
                f"{module.label}: expected means_init of shape ({k}, D), got {means.shape}"
            )
    if module.responsibilities_init is not None:
        given = as_numbers(module, "responsibilities_init")
        if len(given) != n_rows:
            raise InputError(
                f"{module.label}: responsibilities_init has {len(given)} entries for {n_rows} rows"
            )
        if given.shape != (n_rows, k) or given.min() < 0:
            raise InputError(
                f"{module.label}: expected responsibilities_init of shape ({n_rows}, {k}) without "
                f"negative entries, got {given.shape} with minimum {given.min()}"
            )
        if not np.allclose(given.sum(axis=1), 1, atol=1e-3):
            raise InputError(f"{module.label}: the rows of responsibilities_init must add up to 1")


def check_sample_weight(module: Any, n_rows: int) -> np.ndarray:
    """The argument as weights (n_rows,), 1 unless given; raise InputError if they cannot be."""
    if module.sample_weight is None:
        return np.ones(n_rows)
    weight = as_numbers(module, "sample_weight", f"{n_rows} finite numbers >= 0, one a row")
    if weight.ndim == 1 and len(weight) != n_rows:
        raise InputError(
            f"{module.label}: sample_weight has {len(weight)} entries for {n_rows} rows"
        )
    if weight.ndim != 1 or weight.min() < 0:
        raise InputError(
            f"{module.label}: sample_weight must be {n_rows} finite numbers >= 0, one a row, got "
            f"shape {weight.shape} with minimum {weight.min():g}"
        )
    if not weight.any():
        raise InputError(f"{module.label}: every sample_weight is 0")
    return weight


def own_weight(module: Any, n_rows: int) -> np.ndarray:
    """`sample_weight` of the `n_rows` rows of this process, (n_rows,)."""
    if module.sample_weight is None:
        return np.ones(n_rows)
    whole = check_sample_weight(module, int(processes.total(n_rows)))
    return processes.own(whole, n_rows)


def make_problem(module: Any, rows: Rows, weight: np.ndarray, prior: Categorical | None) -> Problem:
    """What a mixture with these arguments has to solve on `rows` (n, D) of weights (n,).

    Raises
    ------
    InputError
        For values beyond floating point, fewer distinct rows than components, a prior or starting
        means of other dimensions, or a message of another number of classes.
    """
    if prior is not None and prior.shape != (module.n_components,):
        raise InputError(
            f"{module.label}: its children sent probabilities of {prior.shape[0]} classes for "
            f"n_components={module.n_components}"
        )
    if rows.seen is not None and module.inference == "gibbs":
        raise InputError(
            f"{module.label}: some rows miss a parent's values, which inference='gibbs' cannot "
            "fill in; use inference='map' or 'ml'"
        )
    check_squares(module, rows.x)
    d = rows.n_columns
    rows = filled(rows)
    if module.means_init is not None and np.shape(module.means_init)[1] != d:
        raise InputError(
            f"{module.label}: expected means_init of shape ({module.n_components}, {d}), got "
            f"{np.shape(module.means_init)}"
        )
    _check_distinct(module, rows.x)
    weight = weight * rows.any_seen()
    if not processes.any_of(weight.any()):
        raise InputError(f"{module.label}: no row with a weight above 0 was seen by any parent")
    return _problem(module, rows, weight, prior, rows.mean(weight))


def batch_problem(module: Any, rows: Rows, centre: np.ndarray) -> Problem:
    """The same for one of many batches, the prior and all statistics about `centre` (D,)."""
    check_squares(module, rows.x)
    rows = replace(rows, origin=centre)
    return _problem(module, rows, np.ones(len(rows)), None, centre)


def _problem(
    module: Any, rows: Rows, weight: np.ndarray, told: Categorical | None, mean: np.ndarray
) -> Problem:
    return Problem(
        rows,
        weight,
        told,
        module.n_components,
        module.covariance_type,
        None if module.inference == "ml" else _hyperparameters(module, mean),
        module.reg_covar,
        module.max_iter,
        module.tol,
    )


def check_squares(module: Any, x: np.ndarray) -> None:
    """Raise InputError for values whose squares are beyond floating point."""
    largest = float(max(x.max(initial=0), -x.min(initial=0)))
    if largest > np.sqrt(np.finfo(np.float64).max / max(x.size, 1)):
        raise InputError(
            f"{module.label}: values up to {largest:g} are too large to square; scale the data"
        )


def _check_distinct(module: Any, x: np.ndarray) -> None:
    """Raise unless there are at least K different rows."""
    n_distinct = count_distinct(x, module.n_components)
    if n_distinct < module.n_components:
        raise InputError(
            f"{module.label}: n_components={module.n_components}, but only {n_distinct} of "
            f"the {int(processes.total(len(x)))} rows are distinct"
        )


def count_distinct(x: np.ndarray, enough: int) -> int:
    """Number of different rows of all processes, or `enough`; looks no further than needed."""
    n_seen, distinct = 0, x[:0]
    while len(distinct) < enough and n_seen < len(x):
        n_seen = min(len(x), max(2 * n_seen, 4 * enough))
        distinct = np.unique(x[:n_seen], axis=0)
    some = processes.gather(distinct[:enough])
    return min(len(np.unique(some, axis=0)), enough)


def _hyperparameters(module: Any, mean: np.ndarray) -> Prior:
    """The module's prior, its mean `mean` (D,) unless the module has one."""
    d = len(mean)
    nu = d + 2
    scale = as_numbers(module, "covariance_prior")
    scale = scale * np.eye(d) if scale.ndim == 0 else scale
    if module.mean_prior is not None:
        mean = as_numbers(module, "mean_prior")
    if module.degrees_of_freedom_prior is not None:
        nu = as_numbers(module, "degrees_of_freedom_prior").item()
    if scale.shape != (d, d) or mean.shape != (d,) or nu <= d - 1:
        raise InputError(
            f"{module.label}: for D={d} dimensions expected mean_prior ({d},), covariance_prior "
            f"a number or ({d}, {d}) and degrees_of_freedom_prior > {d - 1}, got "
            f"{mean.shape}, {scale.shape} and {nu}"
        )
    if not np.allclose(scale, scale.T) or np.linalg.eigvalsh(scale).min() <= 0:
        raise InputError(
            f"{module.label}: covariance_prior must be positive definite and symmetric, got "
            f"{module.covariance_prior!r:.60}"
        )
    concentration = module.weight_concentration_prior
    return Prior(mean, module.mean_precision_prior, nu, scale, concentration)

"""GMMClassifier's arguments and data: their checks, and the mixture and priors they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from ..errors import InputError
from ._class_mixtures import Group, pooled_covariance
from ._mixture_options import check_fit_options, check_squares
from ._options import as_numbers, check_count, check_number
from .gmm import GMM


def check_options(module: Any) -> None:
    """Raise InputError for arguments of a classifier that no data can suit."""
    check_fit_options(module)
    check_count(module, "n_init")
    for name in ("reject_quantile", "validation_fraction"):
        check_number(module, name, at_least=0)
        if getattr(module, name) >= 1:
            raise InputError(f"{module.label}: {name} must be below 1, got {getattr(module, name)}")
    if isinstance(module.covariance_prior, str) and module.covariance_prior != "pooled":
        raise InputError(
            f"{module.label}: covariance_prior must be 'pooled', a number or a matrix, got "
            f"{module.covariance_prior!r}"
        )


def validated_rows(module: Any, x: ArrayLike, *, reset: bool) -> np.ndarray:
    """Rows as float64 (N, D), by scikit-learn's own checks."""
    try:
        rows = validate_data(module, x, dtype=np.float64, reset=reset)
    except ValueError as error:
        raise InputError(f"{module.label}: {error}") from None
    if reset:
        check_squares(module, rows)
    return rows


def validated_targets(
    module: Any, y: ArrayLike, sample_weight: ArrayLike | None, n_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Classes and weights of rows, (n_rows,) each."""
    if y is None:
        raise InputError(f"{module.label} requires y to be passed, but the target y is None")
    try:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        rows = np.empty((n_rows, 1))
        weight = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{module.label}: {error}") from None
    if len(y) != n_rows:
        raise InputError(f"{module.label}: y has {len(y)} entries for {n_rows} rows")
    if not weight.any():
        raise InputError(f"{module.label}: every sample_weight is 0")
    return y, weight


class Targets(NamedTuple):
    """What there is to learn: classes (C,), and of the rows kept codes (n,) and weights (n,).

    `kept` (N,) leaves out rows of weight 0; `priors` (C,) are P(c).
    """

    kept: np.ndarray
    classes: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    priors: np.ndarray


def make_targets(
    module: Any, y: ArrayLike, sample_weight: ArrayLike | None, n_rows: int
) -> Targets:
    """Checked classes and weights of `n_rows` rows; the priors given, else the classes' shares."""
    y, weight = validated_targets(module, y, sample_weight, n_rows)
    kept = weight > 0
    try:
        classes, codes = np.unique(y[kept], return_inverse=True)
    except TypeError as error:
        raise InputError(f"{module.label}: classes must be of one type: {error}") from None
    shares = np.bincount(codes, weights=weight[kept]) / weight.sum()
    return Targets(kept, classes, codes, weight[kept], _priors(module, shares))


def make_template(module: Any, groups: Sequence[Group]) -> GMM:
    """The mixture to fit to each class's rows."""
    own = module.get_params(deep=False)
    shared = {name: own[name] for name in GMM(1).get_params(deep=False) if name in own}
    shared |= {"labels": None, "name": module.label}
    if isinstance(module.covariance_prior, str):
        d, nu = groups[0].rows.shape[1], module.degrees_of_freedom_prior
        shared["covariance_prior"] = (d + 2 if nu is None else nu) * pooled_covariance(groups)
    return GMM(**shared)


def _priors(module: Any, shares: np.ndarray) -> np.ndarray:
    if module.priors is None:
        return shares
    priors = as_numbers(module, "priors")
    if priors.shape != shares.shape or priors.min() < 0 or abs(priors.sum() - 1) > 1e-6:
        raise InputError(
            f"{module.label}: priors must be {len(shares)} probabilities, one a class, that add up "
            f"to 1, got {module.priors!r:.60}"
        )
    return priors

"""A Gaussian mixture a class: fitted one by one, evaluated together, on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import log_softmax
from sklearn.base import clone

from ... import processes
from ...density import MixtureDensity, combine
from ...errors import InputError
from ...options import as_numbers
from ..common.inputs import checked_targets
from .base import MixtureModule
from .gmm import GMM
from .rows import Rows, count_distinct

ByName: TypeAlias = Mapping[Any, MixtureDensity]  # classes' mixtures


class ClassMixtures(NamedTuple):
    """A mixture p(x | c) for each of C classes, and the classes' priors P(c)."""

    components: MixtureDensity  # all M, one class after the other, whose weights add up to 1
    owners: np.ndarray  # (M,), the class, 0..C-1, of each component; ascending
    priors: np.ndarray  # (C,)

    @property
    def log_priors(self) -> np.ndarray:
        """Log P(c), (C,); -inf for a class whose given prior is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.priors)

    @property
    def log_weights(self) -> np.ndarray:
        """Log P(m) = log P(c(m)) + log pi_m, (M,)."""
        return self.log_priors[self.owners] + np.log(self.components.weights)

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """Log p(x_n | c), (N, C)."""
        return self.by_class(self.log_weighted(Rows(x)))

    def by_class(self, log_values: np.ndarray) -> np.ndarray:
        """Sum the probabilities of each class's components: log (N, M) -> log (N, C)."""
        starts = np.flatnonzero(np.diff(self.owners, prepend=-1))
        return np.logaddexp.reduceat(log_values, starts, axis=1)

    def log_posterior(self, log_likelihood: np.ndarray) -> np.ndarray:
        """Log P(c | x_n), (N, C); the priors where a row is infinitely far from every class."""
        return normalised(log_likelihood + self.log_priors, self.log_priors)

    @classmethod
    def of(cls, densities: Sequence[MixtureDensity], priors: np.ndarray) -> ClassMixtures:
        """Those of one density per class."""
        owners = np.repeat(np.arange(len(densities)), [d.n_components for d in densities])
        return cls(combine(densities, np.ones(len(densities)), checked=False), owners, priors)

    def density(self, code: int | None = None) -> MixtureDensity:
        """p(x | c), or p(x) where no class is given."""
        if code is not None:
            return self.components.permuted(np.flatnonzero(self.owners == code))
        weights = self.priors[self.owners] * self.components.weights
        return replace(self.components, weights=weights, checked=False)

    def log_weighted(self, rows: Rows) -> np.ndarray:
        """Log pi_m N(x_n; mu_m, Sigma_m), (N, M); -inf where the distance is beyond floats."""
        return rows.log_gaussians(self.components) + np.log(self.components.weights)


def normalised(log_joint: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """Log probabilities of each row, (N, K), and the prior's where all are 0."""
    lost = np.isneginf(log_joint).all(axis=1, keepdims=True)
    return log_softmax(np.where(lost, log_prior, log_joint), axis=1)


# -- what there is to learn ------------------------------------------------------------------------


class Targets(NamedTuple):
    """What there is to learn."""

    kept: np.ndarray  # (N,) of bool, False for rows of weight 0 or of no known class
    classes: np.ndarray  # (C,)
    codes: np.ndarray  # (n,), of the rows kept, indices into the classes
    weight: np.ndarray  # (n,)
    priors: np.ndarray  # P(c), (C,)


def targets_of(
    label: str,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None,
    n_rows: int,
    priors: ArrayLike | None,
) -> Targets:
    """Checked classes and weights of rows; P(c) are the classes' frequencies unless given.

    InputError for what is no class or no weight, and `priors` that are not one probability a class.
    """
    labels, weight = checked_targets(label, y, sample_weight, n_rows)
    kept = weight > 0
    present, codes = np.unique(labels.codes[kept], return_inverse=True)
    classes = labels.classes[present]
    if priors is None:
        p = np.bincount(codes, weights=weight[kept]) / weight.sum()
    else:
        p = as_numbers(label, "priors", priors)
        if p.shape != classes.shape or p.min() < 0 or abs(p.sum() - 1) > 1e-6:
            raise InputError(
                f"{label}: priors must be {len(classes)} probabilities, one a class, that add up "
                f"to 1, got {priors!r:.60}"
            )
    return Targets(kept, classes, codes, weight[kept], p)


def grouped(x: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_classes: int) -> list[Rows]:
    """Each class's different rows, in ascending order, and their weights: of (N, D), (N,), (N,).

    Equal rows are one row of their common weight, so the order of the rows and whether a row's
    weight is 2 or it is there twice make no difference.
    """
    groups = []
    for code in range(n_classes):
        members = codes == code
        rows, which = np.unique(x[members], axis=0, return_inverse=True)
        total = np.bincount(which.ravel(), weights=weight[members], minlength=len(rows))
        groups.append(Rows(rows, weight=total.astype(float)))
    return groups


def fit_mixtures(
    groups: Sequence[Rows], classes: Sequence, template: GMM, rng: Generator, previous: ByName
) -> list[GMM]:
    """Fit a copy of `template` to the rows of each class, by `previous` where it has a mixture.

    A class gets at most as many components as it has different rows.
    """
    mixtures = []
    for rows, name in zip(groups, classes, strict=True):
        before, start = previous.get(name), None
        n_components = count_distinct(rows.x, cast(int, template.n_components))
        if before is not None and _can_start(before, rows.x):
            n_components = before.n_components
            start = before.responsibilities(rows.x) if len(rows) else np.empty((0, n_components))
        mixture = clone(template).set_params(
            n_components=n_components,
            name=f"{template.name}, class {name}",
            random_state=int(rng.integers(2**31)),
        )
        mixture.fit_rows(rows, start=start)
        mixtures.append(mixture)
    return mixtures


def _can_start(density: MixtureDensity, x: np.ndarray) -> bool:
    """Whether a mixture is over the same space as rows, and enough of them are different."""
    k = density.n_components
    return density.n_dims == x.shape[1] and count_distinct(x, k) == k


def template_of(
    classifier: MixtureModule, n_components: int, n_init: int, groups: Sequence[Rows]
) -> GMM:
    """The mixture to fit to each class's rows, by a classifier's arguments."""
    shared = {field.name: getattr(classifier, field.name) for field in fields(MixtureModule)}
    shared |= {"name": classifier.label, "labels": None, "sample_weight": None}
    if isinstance(classifier.covariance_prior, str):  # "pooled"
        d, nu = groups[0].n_columns, classifier.degrees_of_freedom_prior
        shared["covariance_prior"] = (d + 2 if nu is None else nu) * pooled_covariance(groups)
    return GMM(n_components, n_init=n_init, **shared)


def occupied(mixture: GMM, rows: Rows) -> MixtureDensity:
    """A fitted mixture's density, without components of less than half of the lightest row."""
    density, total = mixture.density(), processes.total(rows.weights.sum())
    lightest = -processes.largest(-rows.weights.min(initial=np.inf))
    heavy = density.weights * total >= 0.5 * lightest
    return density if heavy.all() else density.permuted(np.flatnonzero(heavy))


def pooled_covariance(groups: Sequence[Rows]) -> np.ndarray:
    """Covariance about the class means, (D, D), with 1e-6 of the mean variance on the diagonal."""
    weights = processes.total(np.array([rows.weights.sum() for rows in groups]))  # (C,)
    sums = processes.total(np.stack([rows.weights @ rows.x for rows in groups]))  # (C, D)
    means, fractions = sums / weights[:, None], weights / weights.sum()
    centre = np.average(means, axis=0, weights=fractions)
    within = np.zeros((len(centre), len(centre)))
    for rows, mean in zip(groups, means, strict=True):
        within += ((rows.x - mean).T * (rows.weights / weights.sum())) @ (rows.x - mean)
    within = processes.total(within)
    between = np.average((means - centre) ** 2, axis=0, weights=fractions)
    floor = 1e-6 * (np.diag(within) + between).mean() or 1e-6  # one row has no variance at all
    return within + floor * np.eye(len(centre))


def held_out_rows(codes: np.ndarray, fraction: float, rng: Generator, label: str) -> np.ndarray:
    """A random fraction of each class's rows, as a mask (N,); none for a fraction of 0.

    InputError if some class would have none on one side.
    """
    mask = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes) if fraction else ():
        members = np.flatnonzero(codes == code)
        n_held_out = round(fraction * len(members))
        if n_held_out not in range(1, len(members)):
            raise InputError(
                f"{label}: validation_fraction={fraction} of the {len(members)} rows of one class "
                "leaves none on one side"
            )
        mask[rng.permutation(members)[:n_held_out]] = True
    return mask


def thresholds(
    log_likelihood: np.ndarray, codes: np.ndarray, weight: np.ndarray, quantile: float
) -> np.ndarray:
    """The weighted `quantile` of each class's log-likelihood over its own rows: (N, C) -> (C,)."""
    quantiles = []
    for code, column in enumerate(log_likelihood.T):
        own = codes == code
        options = {"weights": weight[own], "method": "inverted_cdf"}
        quantiles.append(np.quantile(column[own], quantile, **options))
    return np.array(quantiles)

"""Gaussian mixture: the module that finds clusters and sends their means down."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from ... import processes
from ...arrays import as_rows
from ...density import COVARIANCE_TYPES, MixtureDensity
from ...errors import InputError, NotFittedError, TrainingError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...metrics import scores_of
from ...module import Module
from ...options import (
    as_numbers,
    check_component,
    check_count,
    check_n_samples,
    check_number,
    check_option,
    check_random_state,
    is_count,
)
from ..common.inputs import any_observed, split_columns
from .components import Prior
from .em import (
    Problem,
    Solution,
    Stream,
    align,
    draw_classes,
    expectation_maximisation,
    gibbs_sampling,
    learn_batch,
    neutral_bound,
    plus_plus_starts,
    start_from_means,
    stream_of,
)
from .rows import Rows, filled, stack
from .statistics import log_joint, mean_bound, to_log_probabilities


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
    return processes.share_of(whole, n_rows)


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
    weight = weight * rows.any_observed()
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


class FittedMixture(Module):
    """Abstract base of GMM; see there for parameters and attributes."""

    def density(self) -> MixtureDensity:
        """The fitted mixture as a value: to evaluate, sample, measure and walk on."""
        if not hasattr(self, "means_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call update() or fit(x) first")
        return MixtureDensity(self.weights_, self.means_, self.covariances_, self.covariance_type)

    def _log_joint(self, rows: Rows, told: Message | None = None) -> np.ndarray:
        parameters = self.density()
        if rows.n_columns != parameters.n_dims:
            raise InputError(
                f"{self.label}: fitted on {parameters.n_dims} columns, got {rows.n_columns}"
            )
        return log_joint(rows, parameters, told)

    def _log_joint_of(self, x: ArrayLike) -> np.ndarray:
        return self._log_joint(stack([Data(as_rows(x, self.label))]))

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Most probable component of each row: (N, D) -> (N,) of int."""
        return self._log_joint_of(x).argmax(axis=1)

    def predict_proba(self, x: ArrayLike) -> np.ndarray:
        """P(k | row): (N, D) -> (N, K)."""
        return np.exp(to_log_probabilities(self._log_joint_of(x)))

    def score_samples(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row in nats: (N, D) -> (N,)."""
        return logsumexp(self._log_joint_of(x), axis=1)

    def sample(
        self, n_samples: int = 1, component: int | None = None, random_state: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the mixture, or from one of its components.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            In 0..K-1; drawn from the mixing weights unless given.
        random_state : int, optional
            Seed of the draw; the module's own unless given, so the same call repeats its draw.

        Returns
        -------
        rows : np.ndarray, shape (n_samples, D)
        components : np.ndarray, shape (n_samples,)

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for a component that does not exist.
        """
        density = self.density()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        seed = self.seed_ if random_state is None else random_state
        if component is None:
            return density.sample(n_samples, seed)
        check_component(self, component, self.n_components)
        own = np.random.default_rng([seed, component])  # other noise for each component
        rows, _ = density.component(component).sample(n_samples, own)
        return rows, np.full(n_samples, component)

    def bic(self, x: ArrayLike) -> float:
        """Bayesian information criterion on x; lower is better."""
        score = self.score_samples(x)
        return float(-2 * score.sum() + self.density().n_free() * np.log(len(score)))

    def aic(self, x: ArrayLike) -> float:
        """Akaike information criterion on x; lower is better."""
        return float(-2 * self.score_samples(x).sum() + 2 * self.density().n_free())


class GMM(FittedMixture):
    """Gaussian mixture model, fitted by MAP-EM, maximum likelihood or Gibbs sampling.

    ``p(x) = sum_k pi_k N(x; mu_k, Sigma_k)``. Takes latents or data from its parents (several are
    set side by side), sends `Categorical` class probabilities up and a `Mixture` down. Usable by
    itself on arrays through `fit` and the methods below it.

    Parameters
    ----------
    n_components : int
        Number of clusters K.
    covariance_type : {"full", "tied", "diag", "spherical"}
    inference : {"map", "ml", "gibbs"}
        Expectation-maximisation under a normal-inverse-Wishart prior, the same without a prior,
        or blocked Gibbs sampling (`max_iter` sweeps, same prior).
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    n_init : int or sequence of int
        Number of k-means++ starts in each update; of a sequence, one entry an update, the last for
        all further ones, and 0 to go on from the last parameters alone. The solution with the
        highest log-likelihood is kept. (Not the highest posterior density: under the default prior
        that is mostly won by solutions that leave components empty.)
    max_iter, tol : int, float
        EM stops when the bound, in nats a row, gains less than `tol`.
    use_variance : bool
        Whether the variances that a VAE sends with its latents count. If so, the mixture is
        fitted to the encoder's distributions N(m_n, diag(s_n^2)) and not to their means, so that
        each update raises the joint objective (but for the prior's pull), and latents the encoder
        leaves undecided do not look like clusters. Better where the latents hold much of the
        data; where they hold little (a KL term of a few nats), no clusters may be left to find.
    means_init : array-like of shape (K, D), optional
        The only start of the first update, instead of k-means++.
    responsibilities_init : array-like of shape (N, K), optional
        The same, as probabilities of each row's cluster.
    mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior
        Prior m0 (D,), kappa, nu and S0 (a number s standing for s I, or a matrix (D, D)).
        Defaults: the data's mean, 1, D + 2 and 0.1 I.
    weight_concentration_prior : float
        Of the symmetric Dirichlet prior on the mixing weights, at least 1 (flat, the default).
        Large values make all clusters about equally frequent, where that is known of the classes.
    reg_covar : float
        Added to the diagonal of covariances under ``inference="ml"``.
    sample_weight : array-like of shape (N,), optional
        Non-negative weights of the training rows.
    warm_start : bool
        Later updates also start from the last parameters, keep whichever log-likelihood is
        higher, and number the components as before.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    weights_, means_, covariances_ : np.ndarray
        Shapes (K,), (K, D) and scikit-learn's for `covariance_type`.
    responsibilities_ : np.ndarray of shape (N, K)
        P(k | row), the children's prior included; of this process's rows, where several share them.
    log_likelihood_, lower_bound_ : np.ndarray
        Mean log-likelihood a row by iteration; the same plus the log prior of the parameters (up
        to a constant), which EM never lowers.
    empty_components_ : np.ndarray
        Components with less than one row's weight.
    converged_ : bool
        Whether EM stopped by `tol`; always true of Gibbs sampling.
    stream_ : dict
        What `partial_fit` keeps of all batches so far.
    """

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture
    learns_from_shares = True
    row_attributes = ("responsibilities_",)

    def __init__(
        self,
        n_components: int,
        *,
        covariance_type: str = "full",
        inference: str = "map",
        labels: ArrayLike | None = None,
        n_init: int | Sequence[int] = 5,
        max_iter: int = 200,
        tol: float = 1e-3,
        use_variance: bool = False,
        means_init: ArrayLike | None = None,
        responsibilities_init: ArrayLike | None = None,
        mean_prior: ArrayLike | None = None,
        mean_precision_prior: float = 1.0,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: float | ArrayLike = 0.1,
        weight_concentration_prior: float = 1.0,
        reg_covar: float = 1e-6,
        sample_weight: ArrayLike | None = None,
        warm_start: bool = True,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.inference = inference
        self.labels = labels
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.use_variance = use_variance
        self.means_init = means_init
        self.responsibilities_init = responsibilities_init
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.weight_concentration_prior = weight_concentration_prior
        self.reg_covar = reg_covar
        self.sample_weight = sample_weight
        self.warm_start = warm_start

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of components K."""
        return self.n_components

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options, labels or weights that cannot work with `n_rows` rows."""
        check_options(self, n_rows)

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit to the parents' rows side by side, with the children's message as prior a row."""
        rows = self._rows(inputs)
        self.fit_rows(rows, own_weight(self, len(rows)), prior)
        report = {
            "log_likelihood": float(self.log_likelihood_[-1]),
            "lower_bound": float(self.lower_bound_[-1]),
            "n_iter": len(self.log_likelihood_),
        }
        return report | scores_of(self.labels, self.responsibilities_.argmax(axis=1))

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI of the message last sent against `labels`, if there are any."""
        return scores_of(self.labels, self.clusters())

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k | row) from the row alone: what the children said is left out."""
        rows = self._rows(inputs)
        return Categorical(
            to_log_probabilities(self._log_joint(rows)),
            log_prior=np.log(self.weights_),
            observed=any_observed(inputs),
        )

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Mixture]:
        """The mixture with P(k | row), children's prior included: each parent's own dimensions."""
        joint = self._log_joint(self._rows(inputs), prior)
        parameters = self.density()
        mixture = Mixture(
            to_log_probabilities(joint),
            parameters.means,
            parameters.full_covariances(),
            np.log(parameters.weights),
        )
        return mixture.split([math.prod(message.shape) for message in inputs])

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """E_q(z)r(k)[log p(z | k) + log p(k) + log P(k | n) K - log r(k)], in nats a row.

        The responsibilities r are those that `backward` sends. A child's prior stands in place of
        log p(k) and its own term. Before the mixture has learnt, the neutral
        E_q(z)[log N(z; 0, I)].
        """
        rows = stack(inputs)
        if not hasattr(self, "means_"):
            return neutral_bound(rows)
        exact = self.use_variance or rows.variances is None
        believed = rows if exact else replace(rows, variances=None)
        return mean_bound(rows, believed, self.density(), prior)

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Draws from the mixture or one component, each parent's own dimensions."""
        rows, _ = self.sample(n_samples, component, random_state)
        return split_columns(rows, [parent.size for parent in self.parents])

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws of the components that class probabilities (n, K) pick, for each parent."""
        picked = draw_classes(values, rng)
        lower = np.linalg.cholesky(self.density().full_covariances())  # (K, D, D)
        noise = rng.standard_normal((len(values), self.means_.shape[1]))
        rows = self.means_[picked] + np.einsum("nde,ne->nd", lower[picked], noise)
        return split_columns(rows, [parent.size for parent in self.parents])

    def artefacts(self) -> dict[str, np.ndarray]:
        """The original's class_learn.txt, Pdz_learn.txt, mu_learn.txt and acc_learn.txt."""
        probabilities = np.exp(self.messages_down[0].log_prob)
        files = {
            "class_learn.txt": probabilities.argmax(axis=1),
            "Pdz_learn.txt": probabilities,
            "mu_learn.txt": self.means_,
            "log_likelihood.txt": self.log_likelihood_,
        }
        if self.labels is not None:
            files["acc_learn.txt"] = np.array([entry["accuracy"] for entry in self.history_])
        return files

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, x: ArrayLike, y: None = None) -> GMM:
        """Fit to an array x (N, D) without a graph; returns self. `y` is ignored.

        Raises
        ------
        InputError
            For NaN, too few (distinct) rows, or options that do not fit; nothing is changed.
        TrainingError
            If a covariance matrix is not positive definite (``inference="ml"``).
        """
        rows = as_rows(x, f"{self.label}.fit")
        self.check([Data(rows)], len(rows))
        self.record(self.learn([Data(rows[processes.share(len(rows))])], None))
        return self

    def partial_fit(self, x: ArrayLike, y: None = None, *, step_size: float | None = None) -> GMM:
        """Learn from one batch of a stream, by a step of stepwise EM; returns self.

        The first batch is fitted as by `fit`; after `fit`, what that learnt counts as the first.
        Statistics of the batches fade: those of batch t replace the share ``(t + 1)^-0.6`` of all
        before them (Cappé and Moulines, 2009).

        Parameters
        ----------
        x : array-like of shape (n, D)
        y
            Ignored.
        step_size : float, optional
            In (0, 1]: another share, such as a constant one for a stream that drifts. Of no effect
            on the first batch.

        Raises
        ------
        InputError
            For bad rows or another number of columns, fewer rows than processes, `labels`,
            `sample_weight`, or ``inference="gibbs"``; nothing is changed.
        TrainingError
            If a covariance matrix is not positive definite (``inference="ml"``).
        """
        check_batch_options(self, step_size)
        x, fitted = as_rows(x, f"{self.label}.partial_fit"), hasattr(self, "means_")
        if x.ndim != 2 or (fitted and x.shape[1] != self.means_.shape[1]):
            wanted = f"(n, {self.means_.shape[1]})" if fitted else "(n, D)"
            raise InputError(f"{self.label}.partial_fit: expected rows {wanted}, got {x.shape}")
        rows = Rows(x[processes.share(len(x))])
        start = time.perf_counter()
        if fitted:
            self._step(rows, step_size)
        else:
            check_options(self, len(x))
            self.fit_rows(rows, np.ones(len(rows)), None)
            self.stream_ = vars(stream_of(self.density(), processes.total(len(rows))))
        score, seconds = float(self.log_likelihood_[-1]), time.perf_counter() - start
        self.record({"log_likelihood": score, "seconds": seconds})
        return self

    def _step(self, rows: Rows, step_size: float | None) -> None:
        """A step of stepwise EM; nothing is changed if it fails."""
        before, n_fitted = self.density(), processes.total(len(self.responsibilities_))
        known = hasattr(self, "stream_")
        stream = Stream(**self.stream_) if known else stream_of(before, n_fitted)
        problem = batch_problem(self, rows, stream.centre)
        with self._explained():
            density, stream, score = learn_batch(problem, before, stream, step_size)
            responsibilities = problem.responsibilities(density)
            bound = score + problem.log_prior(before) * problem.total_weight / stream.weight
        self._check_likelihood(bound)
        self._keep_parameters(density)
        self.responsibilities_ = responsibilities
        self.log_likelihood_ = np.append(self.log_likelihood_, score)
        self.lower_bound_ = np.append(self.lower_bound_, bound)
        self.converged_, self.stream_ = False, vars(stream)

    def fit_rows(
        self,
        rows: Rows,
        weight: np.ndarray,
        prior: Message | None,
        start: np.ndarray | None = None,
    ) -> None:
        """Fit to the rows (n, D) of this process, with their weights (n,) and what is told of them.

        `start` (n, K) are responsibilities to start from, in place of any other start.
        """
        problem = make_problem(self, rows, weight, prior)
        rng = self.rng()
        previous = self._previous(rows)
        with self._explained():
            if prior is not None and prior.is_prior and previous is not None:
                problem, starts = replace(problem, max_iter=1), [self.density()]
            elif start is not None:
                starts = [problem.start(start.__getitem__)]
            else:
                starts = self._starts(problem, previous, rng)
            best = max(
                (self._solve(problem, start, rng) for start in starts),
                key=lambda solution: solution.log_likelihood[-1],
            )
        self._check_likelihood(best.lower_bound[-1])
        responsibilities = problem.responsibilities(best.parameters)
        if previous is not None:
            best, responsibilities = align(problem, best, responsibilities, previous)
        self._keep(best, responsibilities, problem)

    def _check_likelihood(self, bound: float) -> None:
        if not np.isfinite(bound):
            raise TrainingError(
                f"{self.label}: the likelihood became {bound}; scale the data, or choose a prior "
                "closer to it. What was learnt before is kept"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do where a covariance matrix is not positive definite."""
        try:
            yield
        except np.linalg.LinAlgError:
            raise TrainingError(
                f"{self.label}: a covariance matrix is not positive definite; raise "
                f"reg_covar={self.reg_covar}, or use inference='map' or covariance_type='diag'"
            ) from None

    def _rows(self, inputs: list[Message]) -> Rows:
        rows = stack(inputs)
        return rows if self.use_variance else replace(rows, variances=None)

    def _solve(self, problem: Problem, start: MixtureDensity, rng: np.random.Generator) -> Solution:
        if self.inference == "gibbs":
            return gibbs_sampling(problem, start, rng)
        return expectation_maximisation(problem, start)

    def _previous(self, rows: Rows) -> np.ndarray | None:
        """The last responsibilities, if they are of as many rows, components and dimensions.

        In every process: if in one they are not, all start afresh.
        """
        if not self.warm_start or not hasattr(self, "means_"):
            return None
        same = self.responsibilities_.shape == (len(rows), self.n_components)
        same &= self.means_.shape[1] == rows.n_columns
        return None if processes.any_of(not same) else self.responsibilities_

    def _starts(
        self, problem: Problem, previous: np.ndarray | None, rng: np.random.Generator
    ) -> list[MixtureDensity]:
        if previous is None and self.responsibilities_init is not None:
            given = processes.share_of(as_numbers(self, "responsibilities_init"), len(problem.rows))
            return [problem.start(given.__getitem__)]
        if previous is None and self.means_init is not None:
            return [start_from_means(problem, as_numbers(self, "means_init"))]
        several = [self.n_init] if isinstance(self.n_init, Number) else self.n_init
        n_init = several[min(len(self.history_), len(several) - 1)]
        if not n_init and previous is not None:
            return [self.density()]
        starts = list(plus_plus_starts(problem, max(n_init, 1), rng))
        if problem.told is not None and self.inference != "gibbs":
            # random starts number the components against what is told
            starts.append(problem.start(lambda part: np.exp(problem.told.log_prob[part])))
        return starts if previous is None else [self.density(), *starts]

    def _keep(self, solution: Solution, responsibilities: np.ndarray, problem: Problem) -> None:
        self._keep_parameters(solution.parameters)
        vars(self).pop("stream_", None)  # of batches before
        self.responsibilities_ = responsibilities
        self.log_likelihood_ = np.array(solution.log_likelihood)
        self.lower_bound_ = np.array(solution.lower_bound)
        self.converged_ = solution.converged
        counts = processes.total(problem.weight @ self.responsibilities_)
        self.empty_components_ = np.flatnonzero(counts < 1)
        enough = problem.total_weight > self.n_components
        if len(self.empty_components_) and enough and processes.is_first():
            warnings.warn(
                f"{self.label}: components {self.empty_components_.tolist()} lost all their rows; "
                "they stay where the prior puts them. Use fewer components or more n_init",
                stacklevel=5,
            )

    def _keep_parameters(self, parameters: MixtureDensity) -> None:
        self.weights_ = parameters.weights
        self.means_ = parameters.means
        self.covariances_ = parameters.covariances

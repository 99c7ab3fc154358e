"""Gaussian mixture: the module that finds clusters and sends their means down."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin

from ... import arrays, processes
from ...arrays import as_rows
from ...density import DIAGONAL_TYPES, MixtureDensity, check_near
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Data, Message
from ...metrics import scores_of
from ...module import Module, Node, Part, Posterior, Values, learns, warn_unless_converged
from ...options import (
    Count,
    EachUpdate,
    Flag,
    Kind,
    Number,
    PositiveInt,
    RandomState,
    as_numbers,
    check_argument,
    of_update,
)
from ..common.devices import resolve_device
from ..common.estimators import ArrayEstimator, check_batches, check_columns, forget
from ..common.inputs import (
    any_observed,
    check_component,
    check_labels,
    checked_classes,
    draw_classes,
)
from . import em
from .base import (
    Components,
    MixtureModule,
    check_no_start,
    check_precisions_init,
    check_weights_init,
    checked_means,
    checked_responsibilities,
    messages_down,
)
from .components import Prior
from .parts import posterior_part
from .rows import Rows, check_squares, prepared, stack
from .search import find_components
from .split_merge import Exchange, Triple, split_and_merge
from .statistics import (
    log_likelihoods,
    log_posterior,
    log_weights_of,
    mean_half_trace,
    responsibilities_of,
)


@dataclass(eq=False, repr=False)
class GMM(DensityMixin, ArrayEstimator, MixtureModule):
    """Gaussian mixture model, fitted by MAP-EM, maximum likelihood or Gibbs sampling.

    ``p(x) = sum_k pi_k N(x; mu_k, Sigma_k)``. Takes latents or data from its parents (several are
    set side by side), sends `Categorical` class probabilities up and a `Mixture` down. Usable by
    itself on arrays through `fit` and the methods below it.

    Parameters
    ----------
    n_components : int or "auto"
        Number of clusters K, at least 1. "auto" finds it at the first fit or update
        (`serkit.modules.mixture.search`) and keeps it, as its neighbours in a graph are sized by
        it: that of the latents of an encoder which has heard no mixture yet, or what children have
        said by then. An array fit finds it anew with ``warm_start=False``.
    max_components : int
        The most that "auto" starts from; fewer where that is not two rows for each column.
    covariance_type : {"full", "tied", "diag", "spherical"}
    inference : {"map", "ml", "gibbs"}
        Expectation-maximisation under a normal-inverse-Wishart prior, the same without a prior,
        or blocked Gibbs sampling (`max_iter` sweeps, same prior).
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    n_init : int or sequence of int
        Starts in each update, by k-means from k-means++ centres; of a sequence, one entry an
        update, the last for all further ones, and 0 to go on from the last parameters alone. The
        less likely half is given up after 10 steps of EM and half of the rest after 20, but three
        go on. The highest log-likelihood wins (the highest posterior density
        under the default prior often leaves components empty).
    max_iter, tol : int, float
        EM stops when the bound, in nats per row, gains less than `tol`.
    n_split_merge : int, optional
        Tries of split-and-merge EM after the starts (Ueda et al., 2000): two components become one,
        a third becomes two, EM goes on, and what has a higher log-likelihood is kept. A way out of
        optima with two components in one cluster and one over two. By default there are up to K
        tries in an update where the latents have changed and at most 5 % of the rows their
        component, if the only child connected is an `MLDA` that is not frozen: in its next update
        it learns what the new components mean. Otherwise there are none unless a number is given,
        and never under ``inference="gibbs"`` or with messages from any other child.
    use_variance : bool
        Whether the mixture is fitted to a VAE's distributions N(m_n, diag(s_n^2)) and not to their
        means, so that each update raises the joint objective (but for the prior's pull), and
        latents left undecided do not look like clusters. Better where the latents hold much of the
        data; where they hold little (a KL term of a few nats), no clusters may be left to find.
    weights_init, means_init, precisions_init : array-like, optional
        Where the first update starts, (K,), (K, D) and, in the shape of `covariances_`, the
        inverses of the covariances. With means there is but one start, instead of those of
        k-means, and what is not given is that of each row's nearest mean.
    responsibilities_init : array-like of shape (N, K), optional
        The same, as probabilities of each row's cluster.
    mean_prior, mean_precision_prior, degrees_of_freedom_prior, covariance_prior
        Prior m0 (D,), kappa, nu and S0 (a number s standing for s I, or a matrix (D, D)).
        Defaults: the data's mean, 1, D + 2, and on the diagonal a tenth of the data's variances,
        whatever the units of the columns; of a VAE's latents, which vary by their means and by
        q(z | x), together by about 1, so about Serket's 0.1 I. Diagonal and spherical covariances
        of data take nu + D + 2 times that, so that a component without rows has a tenth of the
        variances.
    weight_concentration_prior : float
        Of the symmetric Dirichlet prior on the mixing weights, at least 1 (flat, the default).
        Large values make all clusters about equally frequent, where that is known of the classes.
    reg_covar : float
        Added to the diagonal of covariances under ``inference="ml"``.
    sample_weight : array-like of shape (N,), optional
        Non-negative weights of the training rows.
    warm_start : bool
        Later updates also start from the last parameters and number the components as before.
        Another number of components or covariance type starts afresh in any case.
    device : {"auto", "cpu", "cuda", ...}
        Where E-steps of EM with many rows and components are computed, in float64 anywhere; "auto"
        is a GPU where there is one. All else runs on the processor.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    weights_, means_, covariances_ : np.ndarray
        Shapes (K,), (K, D) and scikit-learn's for `covariance_type_`.
    n_components_ : int
        K, as it was given or found.
    precisions_, precisions_cholesky_ : np.ndarray
        Inverses of the covariances, and their upper triangular roots, in the same shape.
    n_iter_ : int
        Steps of EM, or sweeps, from the start that won to what was kept.
    covariance_type_ : str
        The argument they were fitted with.
    responsibilities_ : np.ndarray of shape (N, K)
        P(k | row), what the children said included; of this process's rows.
    log_likelihood_, lower_bound_ : np.ndarray
        Mean log-likelihood per row by iteration; that plus the parameters' log prior (up to a
        constant), which EM never lowers.
    empty_components_, degenerate_components_ : np.ndarray
        Components with less than one row's weight; under ``inference="ml"`` those of very few rows,
        or that are no wider than `reg_covar` in directions in which the data are.
    converged_ : bool
        Whether EM stopped by `tol`; always true of Gibbs sampling.
    n_exchanges_ : int
        Exchanges of components by which split-and-merge led to what was kept.
    exchanges_ : dict
        Those made where a child spoke: all, and those of the last update with any, by which the
        child's messages are translated until it has learnt what the new components mean.
    stream_ : dict
        What `partial_fit` keeps of all batches so far.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Observation
    >>> from serkit.modules import GMM
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(0, 1, (50, 2)), rng.normal(6, 1, (50, 2))])
    >>> gmm = GMM(2, random_state=0).fit(x)
    >>> np.sort(gmm.means_[:, 0]).round()
    array([0., 6.])

    As a module, which sends class probabilities up and the mixture down:

    >>> gmm = GMM(2, random_state=0).connect(Observation(x)).update()
    >>> gmm.message_up.shape, gmm.messages_down[0].means.shape
    ((2,), (2, 2))
    """

    n_components: Annotated[int | str, Components()]
    _: KW_ONLY
    max_components: PositiveInt = 50
    n_init: Annotated[int | Sequence[int], EachUpdate(Count(), Count(at_least=0))] = 5
    n_split_merge: Annotated[int | None, Count(at_least=0, or_none=True)] = None
    use_variance: Flag = False
    weights_init: ArrayLike | None = None
    means_init: ArrayLike | None = None
    precisions_init: ArrayLike | None = None
    responsibilities_init: ArrayLike | None = None
    mean_prior: ArrayLike | None = None
    weight_concentration_prior: Annotated[float, Number(at_least=1)] = 1.0
    warm_start: Flag = True

    row_attributes = ("responsibilities_",)
    can_regroup = True

    # -- module contract -----------------------------------------------------------------------

    @property
    def n_outputs(self) -> int | None:
        """Number of components K; None before "auto" has found it."""
        if not isinstance(self.n_components, str):
            return self.n_components
        return self.n_components_ if getattr(self, "is_found_", False) else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for starts, labels or weights that cannot work with `n_rows` rows."""
        k = self.n_outputs
        if k is None:
            check_no_start(self)
            k = 1
        if k > n_rows:
            raise InputError(f"{self.label}: n_components={k} is more than the {n_rows} rows")
        if self.frozen and hasattr(self, "means_") and len(self.means_) != k:
            raise InputError(
                f"{self.label} is frozen with {len(self.means_)} components: unfreeze() it for "
                f"n_components={k} to take effect"
            )
        check_labels(self.label, self.labels, n_rows)
        resolve_device(self.device, self.label)  # raises for one that is not there
        self._checked_weight(n_rows)
        if self.means_init is not None:
            checked_means(self.label, self.means_init, k)
        check_weights_init(self.label, self.weights_init, k)
        if self.responsibilities_init is not None:
            checked_responsibilities(self.label, self.responsibilities_init, n_rows, k)

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit to the parents' rows side by side, by what the children say of their classes."""
        rows = stack(inputs)
        weight = self._checked_weight(int(processes.total(len(rows))))
        converged_before = getattr(self, "converged_", True)
        self.fit_rows(replace(rows, weight=processes.share_of(weight, len(rows))), from_children)
        self._warn_of_components(are_distributions=rows.variances is not None)
        if len(self.log_likelihood_) > self.max_iter:  # a single step is meant to be one
            warn_unless_converged(self, converged_before)
        report = {
            "log_likelihood": float(self.log_likelihood_[-1]),
            "lower_bound": float(self.lower_bound_[-1]),
            "n_iter": len(self.log_likelihood_),
            "exchanges": self.n_exchanges_,
        }
        if isinstance(self.n_components, str):
            report["n_components"] = self.n_components_
        return report | scores_of(self.labels, self.responsibilities_.argmax(axis=1))

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """P(k | row), with and without what the children say, and the mixture.

        The bound is E_q(z)r(k)[log p(z | k) + log p(k) + log P(k | n) K - log r(k)], where r are
        the responsibilities sent down, P(k | n) is what the children say (a prior of theirs stands
        in place of log p(k) and its own term), and q(z) has the parents' variances, whether or not
        the responsibilities count them (`use_variance`).
        """
        rows, density = stack(inputs), self.density()
        k, log_weights = density.n_components, log_weights_of(density)
        children = checked_classes(self.label, from_children, k, "n_components")
        log_likelihood = self._log_likelihoods(self._believed(rows), density)
        log_prob_up, log_evidence = log_posterior(log_likelihood, log_weights)
        log_prob, observed = log_prob_up, any_observed(inputs)
        if children is not None:
            log_prob, log_evidence = log_posterior(log_likelihood, log_weights, children)

        def bound() -> float:
            trace = 0.0 if self.use_variance else mean_half_trace(rows, density, log_prob)
            return float(log_evidence.mean()) - trace

        return Posterior(
            up=Categorical(log_prob_up, log_prior=log_weights, observed=observed, checked=False),
            down=messages_down(inputs, density, log_weights, log_prob),
            bound=bound,
            classes=Categorical(log_prob, checked=False),
        )

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Draw from the mixture, a component, or those that class probabilities (n, K) pick."""
        density = self.density()
        if values is not None:
            classes = draw_classes(values, rng)
            lower = np.linalg.cholesky(density.full_covariances())  # (K, D, D)
            noise = rng.standard_normal((len(values), density.n_dims))
            rows = density.means[classes] + np.einsum("nde,ne->nd", lower[classes], noise)
        else:
            if component is not None:
                check_component(self.label, component, density.n_components)
                density = density.component(component)
            rows, _ = density.sample(n_samples, rng)
        return self._by_parent(rows)

    def parts(self) -> list[Part]:
        """The posterior P(k | row), without what the children say."""
        density = self.density()
        owners, log_weights = np.arange(density.n_components), log_weights_of(density)
        counts = self.use_variance
        return [posterior_part(self, density, log_weights, owners, counts_variances=counts)]

    def _believed(self, rows: Rows) -> Rows:
        """The rows with their variances only if those count."""
        return rows if self.use_variance else replace(rows, variances=None)

    # -- what was fitted -----------------------------------------------------------------------

    def density(self) -> MixtureDensity:
        """The fitted mixture as a value: to evaluate, sample, measure and walk on."""
        if not hasattr(self, "means_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call update() or fit(x) first")
        return MixtureDensity(self.weights_, self.means_, self.covariances_, self.covariance_type_)

    def set_density(self, density: MixtureDensity) -> Self:
        """Take over a mixture in place of learning; returns self.

        All that asks for a fitted mixture then works, and in a graph, after `freeze`, updates that
        only pass messages. Without `freeze` the next update starts from it too, if `warm_start`.

        Raises
        ------
        InputError
            For another number of components or type of covariance than the arguments say.
        """
        self.check_options()
        check_argument(self.label, "density", density, Kind(MixtureDensity))
        kind = density.n_components, density.covariance_type
        k = kind[0] if isinstance(self.n_components, str) else self.n_components
        if kind != (k, self.covariance_type):
            raise InputError(
                f"{self.label}: expected a density of n_components={self.n_components} and "
                f"covariance_type={self.covariance_type!r}, got {kind[0]} and {kind[1]!r}"
            )
        forget(self, "stream_", "log_likelihood_", "lower_bound_", "converged_")
        forget(self, "empty_components_", "degenerate_components_")
        forget(self, "exchanges_", "n_exchanges_")
        self._keep_density(density)
        self.responsibilities_ = np.empty((0, density.n_components))  # of no rows yet
        self.rng()  # settles the seed that draws begin from
        self.record({})
        return self

    @property
    def n_components_(self) -> int:
        """Number of components K that was given or found."""
        return self.density().n_components

    @property
    def precisions_(self) -> np.ndarray:
        """Inverses of `covariances_`, in the same shape."""
        density = self.density()
        return density.typed(density.precisions)

    @property
    def precisions_cholesky_(self) -> np.ndarray:
        """Upper triangular U with U U^T the precisions, in the shape of `covariances_`."""
        density = self.density()
        return density.typed(density.whitening[0])

    @property
    def n_iter_(self) -> int:
        """Steps of EM, or sweeps, from the start that won to what was kept; at least 1."""
        self.density()
        return max(len(self.log_likelihood_) - 1, 1)

    @np.errstate(under="ignore")
    def predict(self, x: ArrayLike) -> np.ndarray:
        """Most probable component of each row: (N, D) -> (N,) of int."""
        return self._log_posterior(x, "predict")[0].argmax(axis=1)

    def fit_predict(self, x: ArrayLike, y: None = None) -> np.ndarray:
        """Fit, and tell the most probable component of each row: (N, D) -> (N,) of int."""
        return self.fit(x).predict(x)

    @np.errstate(under="ignore")
    def predict_proba(self, x: ArrayLike) -> np.ndarray:
        """P(k | row): (N, D) -> (N, K)."""
        return np.exp(self._log_posterior(x, "predict_proba")[0])

    @np.errstate(under="ignore")
    def score_samples(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row in nats: (N, D) -> (N,)."""
        return self._log_posterior(x, "score_samples")[1]

    def score(self, x: ArrayLike, y: None = None) -> float:
        """Mean log density of the rows (N, D), in nats; higher is better."""
        return float(self.score_samples(x).mean())

    def bic(self, x: ArrayLike) -> float:
        """Bayesian information criterion on x; lower is better."""
        score = self.score_samples(x)
        return float(-2 * score.sum() + self.density().n_free() * np.log(len(score)))

    def aic(self, x: ArrayLike) -> float:
        """Akaike information criterion on x; lower is better."""
        return float(-2 * self.score_samples(x).sum() + 2 * self.density().n_free())

    def sample(
        self, n_samples: int = 1, component: int | None = None, random_state: RandomState = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the mixture, or from one of its components.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            In 0..K-1; drawn from the mixing weights unless given.
        random_state : int, np.random.Generator or np.random.RandomState, optional
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
        seed = self._seed_of_draw(n_samples, random_state)
        if component is None:
            return density.sample(n_samples, seed)
        check_component(self.label, component, density.n_components)
        rng = np.random.default_rng([seed, component])  # other noise for each component
        rows, _ = density.component(component).sample(n_samples, rng)
        return rows, np.full(n_samples, component)

    def _log_posterior(self, x: ArrayLike, method: str) -> tuple[np.ndarray, np.ndarray]:
        """Log P(k | row), (N, K), and log p(row), (N,)."""
        rows = self.new_rows(x, method)
        density = self.density()
        joint = self._log_likelihoods(Rows(rows.reshape(len(rows), -1)), density)
        return log_posterior(joint, log_weights_of(density), out=joint)

    def _log_likelihoods(self, rows: Rows, density: MixtureDensity) -> np.ndarray:
        self._check_columns(rows, density.n_dims)
        log_likelihood = log_likelihoods(rows, density)
        check_near(log_likelihood, self.label)
        return log_likelihood

    # -- fitting -------------------------------------------------------------------------------

    def fit_rows(
        self, rows: Rows, from_children: Message | None = None, start: np.ndarray | None = None
    ) -> None:
        """Fit to the rows (n, D) of this process.

        `start` (n, K) are responsibilities to start from, in place of any other start.
        """
        if rows.observed is not None and self.inference == "gibbs":
            raise InputError(
                f"{self.label}: some rows miss a parent's values, which inference='gibbs' cannot "
                "fill in; use inference='map' or 'ml'"
            )
        told = from_children.shape[0] if isinstance(from_children, Categorical) else None
        known = self.n_outputs or told
        k = known or 1
        children = checked_classes(self.label, from_children, k, "n_components")
        rows = prepared(self.label, rows, k)
        if self.means_init is not None:
            checked_means(self.label, self.means_init, k, rows.n_columns)
        kind = k, rows.n_columns, self.covariance_type
        check_precisions_init(self.label, self.precisions_init, *kind)
        mean = rows.mean(rows.weights)
        own = rows.mean_variances(rows.weights)
        variances = rows.scale(rows.weights, mean)
        rows = self._believed(rows)
        about, rng = (mean, variances, own == 0), self.rng()
        problem, previous = self._problem(rows, children, k, *about), self._previous(rows)
        with em.explained(self.label, self.reg_covar):
            if known is None:
                prior = self._prior(*about)
                found = find_components(replace(problem, prior=prior), self.max_components, rng)
                problem = replace(problem, n_components=found.n_components)
                starts = [found, *self._starts(problem, None, rng)]
            elif start is not None:
                starts = [em.start_from(problem, start.__getitem__)]
            elif self._takes_one_step(children, previous):
                problem, starts = replace(problem, max_iter=1), [self.density()]
            else:
                starts = self._starts(problem, previous, rng)
            if self.inference == "gibbs":
                chains = [em.gibbs_sampling(problem, start, rng) for start in starts]
                best = em.best_first(chains)[0]
            else:
                best = em.expectation_maximisation(problem, *starts)
            em.check_finite(self.label, best.curve[-1])
            exchanges: list[Exchange] = []
            if self.inference != "gibbs":
                n_tries = self._n_tries(problem, best.density, previous)
                earlier = [] if children is None else self._earlier_exchanges()
                problem, best, exchanges = split_and_merge(problem, best, n_tries, rng, earlier)
        responsibilities = responsibilities_of(rows, best.density, problem.from_children)
        if previous is not None:
            best, responsibilities = em.align(problem, best, responsibilities, previous)
        self._keep(best, responsibilities, problem)
        self.n_exchanges_ = len(exchanges)
        if exchanges and children is not None:
            self.exchanges_: dict[str, Any] = {
                "made": [*self._earlier_exchanges(), *(e.triple for e in exchanges)],
                "last": [*map(tuple, exchanges)],
                "n_sent": self.n_sent_,
            }

    def translated(self, child: Node, message: Message) -> Message:
        """A child's message, of the components as they are now.

        A child that has not learnt since components were exchanged speaks of them as they were.
        """
        if isinstance(message, Categorical) and self._is_unheard(child):
            for exchange in self.exchanges_["last"]:
                message = Exchange(*exchange).translated(message)
        return message

    def _is_unheard(self, child: Node) -> bool:
        """Whether a child is yet to learn what components mean that were exchanged."""
        if not hasattr(self, "exchanges_") or not isinstance(child, Module):
            return False
        pairs = zip(child.parents, child.learnt_from_, strict=False)  # () of one that learns none
        return any(p is self and n_sent <= self.exchanges_["n_sent"] for p, n_sent in pairs)

    def _earlier_exchanges(self) -> list[Triple]:
        return self.exchanges_["made"] if hasattr(self, "exchanges_") else []

    def _n_tries(
        self, problem: em.Problem, density: MixtureDensity, previous: np.ndarray | None
    ) -> int:
        """Tries of split-and-merge, by a mixture and by what the rows' responsibilities were."""
        children = problem.from_children
        if children is None:
            return self.n_split_merge or 0
        if previous is None or self._takes_one_step(children, previous) or not self._is_followed():
            return 0
        n_tries = problem.n_components if self.n_split_merge is None else self.n_split_merge
        return n_tries if n_tries and em.are_settled(problem, density, previous) else 0

    def _is_followed(self) -> bool:
        """Whether the only child learns what components mean, and has learnt it of those now."""
        if len(self.children) != 1:
            return False
        [child] = self.children
        learns = isinstance(child, Module) and child.learns_classes and not child.frozen
        return learns and not self._is_unheard(child)

    def _goes_on(self) -> bool:
        """Whether there is a mixture of the components and the covariance type asked for."""
        kind = self.n_outputs, self.covariance_type
        return hasattr(self, "means_") and (len(self.means_), self.covariance_type_) == kind

    def _previous(self, rows: Rows) -> np.ndarray | None:
        """The last responsibilities, if there are any of this mixture and of no more rows.

        Rows added since have those of the last mixture.
        """
        if not self.warm_start or not self._goes_on():
            return None
        n_before = len(self.responsibilities_)
        fits = n_before <= len(rows) and self.means_.shape[1] == rows.n_columns
        if processes.any_of(not fits):
            return None
        if n_before == len(rows):
            return self.responsibilities_
        extended = arrays.empty((len(rows), len(self.means_)), np.float64, rows.x)
        extended[:n_before] = self.responsibilities_
        extended[n_before:] = responsibilities_of(rows[n_before:], self.density(), None)
        return extended

    def _takes_one_step(self, children: Categorical | None, previous: np.ndarray | None) -> bool:
        """Whether a prior came for rows that are those of the last update, and not others.

        Then one step of EM is half a step of the algorithm that the sender takes the other half of
        (Baum-Welch under a Markov model). Parameters of latents that have moved since are no place
        to take it from.
        """
        told = children is not None and children.is_prior and not children.regroups
        return previous is not None and told and self.is_current

    def _starts(
        self, problem: em.Problem, previous: np.ndarray | None, rng: np.random.Generator
    ) -> list[MixtureDensity]:
        if previous is None and self.responsibilities_init is not None:
            values = as_numbers(self.label, "responsibilities_init", self.responsibilities_init)
            share = processes.share_of(values, len(problem.rows))
            return [self._set_out(em.start_from(problem, share.__getitem__))]
        if previous is None and self.means_init is not None:
            means = as_numbers(self.label, "means_init", self.means_init)
            return [self._set_out(em.start_from_means(problem, means))]
        n_init = int(of_update(self.n_init, len(self.history_)))
        told = problem.from_children
        regroups = told is not None and told.regroups
        starts = [] if previous is None or regroups else [self.density()]
        if told is not None and (regroups or self.inference != "gibbs"):
            starts += em.starts_from_children(problem, told)
        if n_init or not starts:
            starts += em.plus_plus_starts(problem, max(n_init, 1), rng)
        return starts if previous is not None else [*map(self._set_out, starts)]

    def _set_out(self, start: MixtureDensity) -> MixtureDensity:
        """A start with the weights, means and precisions that the arguments say."""
        given = {"weights": self.weights_init, "means": self.means_init}
        values: dict[str, Any] = {
            n: as_numbers(self.label, f"{n}_init", v) for n, v in given.items() if v is not None
        }
        if self.precisions_init is not None:
            precisions = as_numbers(self.label, "precisions_init", self.precisions_init)
            is_diagonal = self.covariance_type in DIAGONAL_TYPES
            values["covariances"] = 1 / precisions if is_diagonal else np.linalg.inv(precisions)
        return replace(start, checked=False, **values) if values else start

    def _problem(
        self, rows: Rows, children: Categorical | None, k: int, *about: np.ndarray | bool
    ) -> em.Problem:
        """What is to be solved; for what else there is to know of the rows see `_prior`."""
        prior = None if self.inference == "ml" else self._prior(*about)
        kind, limits = (k, self.covariance_type), (self.max_iter, self.tol)
        device = resolve_device(self.device, self.label)
        return em.Problem(rows, children, *kind, prior, self.reg_covar, *limits, device)

    def _prior(self, mean: Any, variances: Any, certain: np.ndarray | bool = True) -> Prior:
        """The prior, about rows' mean, variances and whether they are certain, (D,) each."""
        if self.mean_prior is not None:
            mean = as_numbers(self.label, "mean_prior", self.mean_prior)
        return self._checked_prior(mean, variances, certain, self.weight_concentration_prior)

    def _keep(self, solution: em.Solution, r: np.ndarray, problem: em.Problem) -> None:
        """Take over a solution and its responsibilities (N, K)."""
        self._keep_density(solution.density)
        self.__dict__.pop("stream_", None)  # of batches before
        self.responsibilities_, self.converged_ = r, solution.converged
        curve = np.array(solution.curve)  # (iterations, 2)
        self.log_likelihood_, self.lower_bound_ = curve[:, 0], curve[:, 1]
        counts = processes.total(problem.rows.weights @ r)
        empty = counts < 1 if problem.total_weight > len(counts) else counts < 0
        self.empty_components_ = np.flatnonzero(empty)
        degenerate = em.are_degenerate(problem, solution.density, counts) & ~empty
        self.degenerate_components_ = np.flatnonzero(degenerate)

    def _warn_of_components(self, *, are_distributions: bool = False) -> None:
        """Warn of components that lost their rows, lie on each other, or rest on a few rows."""
        empty, degenerate = self.empty_components_.tolist(), self.degenerate_components_.tolist()
        remedy = "Use fewer components or more n_init"
        if self.use_variance and are_distributions:
            remedy += (
                ", or use_variance=False: where latents hold little of the data (a VAE's KL term "
                "is a few nats), their variances leave no clusters to be found"
            )
        clusters = self.responsibilities_.argmax(axis=1)
        n_rows = processes.total(np.bincount(clusters, minlength=self.n_components_))
        if empty and processes.is_first():
            where = "data's own Gaussian" if self.inference == "ml" else "prior"
            warnings.warn(
                f"{self.label}: components {empty} lost all their rows; they stay where the "
                f"{where} puts them. {remedy}",
                stacklevel=4,
            )
        elif self.n_components_ > 1 and (n_rows > 0).sum() == 1 and processes.is_first():
            warnings.warn(
                f"{self.label}: all rows are most probably of component {n_rows.argmax()}, on "
                f"which the others lie. {remedy}",
                stacklevel=4,
            )
        if degenerate and processes.is_first():
            warnings.warn(
                f"{self.label}: components {degenerate} rest on very few rows, or are no wider "
                f"than reg_covar={self.reg_covar:g} in some direction: inference='ml' knows no "
                "other limit. Use inference='map', fewer components, or a reg_covar of the data's "
                "scale",
                stacklevel=4,
            )

    def _keep_density(self, density: MixtureDensity) -> None:
        self.weights_, self.means_ = density.weights, density.means
        self.covariances_, self.covariance_type_ = density.covariances, density.covariance_type
        self.is_found_ = isinstance(self.n_components, str)

    # -- batches of a stream -------------------------------------------------------------------

    @learns
    def partial_fit(self, x: ArrayLike, y: None = None, *, step_size: float | None = None) -> Self:
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
        self.check_options()
        self._check_batches(step_size)
        values, goes_on = as_rows(x, f"{self.label}.partial_fit"), self._goes_on()
        if goes_on:
            check_columns(self.label, self, x, values)
        if values.ndim != 2 or (goes_on and values.shape[1] != self.means_.shape[1]):
            wanted = f"(n, {self.means_.shape[1]})" if goes_on else "(n, D)"
            raise InputError(
                f"{self.label}.partial_fit: expected rows {wanted}, got {values.shape}"
            )
        rows = Rows(values[processes.share(len(values))])
        start = time.perf_counter()
        if goes_on:
            self._step(rows, step_size)
        else:
            self.begin_fit(x, values)
            self.check([Data(values)], len(values))
            self.fit_rows(rows)
            self._warn_of_components()
            self.stream_ = vars(em.stream_of(self.density(), processes.total(len(rows))))
        seconds = time.perf_counter() - start
        self.record({"log_likelihood": float(self.log_likelihood_[-1]), "seconds": seconds})
        return self

    def _check_batches(self, step_size: float | None) -> None:
        """Raise InputError for arguments that learning from batches has no use for."""
        if self.inference == "gibbs":
            raise InputError(
                f"{self.label}: partial_fit needs inference='map' or 'ml', not 'gibbs'"
            )
        check_batches(self, step_size, "labels", "sample_weight")

    def _step(self, rows: Rows, step_size: float | None) -> None:
        """A step of stepwise EM; nothing is changed if it fails."""
        before = self.density()
        n_rows = processes.total(len(self.responsibilities_))
        stream = em.stream_of(before, n_rows)
        if hasattr(self, "stream_"):
            stream = replace(stream, **self.stream_)
        check_squares(self.label, rows.x)
        rows = replace(rows, origin=stream.centre)
        k = self.n_components_
        problem = self._problem(rows, None, k, stream.centre, stream.variances)
        with em.explained(self.label, self.reg_covar):
            density, stream, score = em.learn_batch(problem, before, stream, step_size)
            responsibilities = responsibilities_of(rows, density, None)
        em.check_finite(self.label, score)
        self._keep_density(density)
        self.responsibilities_ = responsibilities
        curves = (getattr(self, name, ()) for name in ("log_likelihood_", "lower_bound_"))
        latest = (score.log_likelihood, score.bound)
        self.log_likelihood_, self.lower_bound_ = map(np.append, curves, latest)
        self.converged_, self.stream_ = False, vars(stream)

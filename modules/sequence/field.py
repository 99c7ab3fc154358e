"""Markov random field: the module that says that rows near each other are of one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.special import log_softmax, logsumexp

from ...errors import GraphError, InputError, MessageError, NotFittedError
from ...messages import Categorical, Data, Gaussian, Message
from ...metrics import scores_of
from ...module import Module, Node, Posterior, warn_unless_converged
from ...options import Number, PositiveInt
from ..common.inputs import any_observed, check_labels, checked_classes, flat, log_class_prior

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors


@dataclass(eq=False, repr=False, kw_only=True)
class NeighbourField(Module):
    """Markov random field over the classes of rows: neighbours tend to be of one class.

    A Potts model (Potts, 1952, "Some generalized order-disorder transformations") on the graph of
    each row's nearest neighbours: ``P(k_1, ..., k_N) = prod_n P(k_n) exp(-coupling / 2 sum_nm w_nm
    [k_n != k_m]) / Z``. A pair's weight is the mean of what each counts for the other, 1 /
    n_neighbors for a neighbour and else 0, so that those of a row add up to 1 in the mean over all
    rows. A class of which all neighbours are certain thus gains about `coupling` nats.

    Takes class probabilities from its first parent and latents or data from its second. Finds the
    posteriors ``q_n(k) ~ p(row n | k) P(k) exp(coupling sum_m w_nm q_m(k))``, P(k) the first
    parent's, by mean field: all rows at once, beginning with the parent's own posteriors. A step
    that would lower the bound is replaced by a shorter one, which cannot (Baqué, Bagautdinov,
    Fleuret and Fua, 2016, "Principled parallel mean-field inference for discrete random fields").
    With ``coupling=0`` all stays as the parent says.

    Down to the classes goes, in place of P(k), ``P(k) exp(coupling sum_m w_nm q_m(k))``,
    normalised; to the latents nothing. What the parent said of row n itself is left out of it, yet
    the neighbours have heard it: of a change of q_n(k), to first order, ``coupling^2 sum_m w_nm^2
    q_m(k) (1 - q_m(k))`` comes back, in nats; of decided neighbours nothing. (The exact marginals
    of all other rows, as `MarkovModel` sends them, cannot be had on such a graph.)

    What the children say counts as at the parent: as evidence, or in place of P(k) if it is a
    prior. Rows without latents have no neighbours; rows of which only the latents are known get
    their class from them. Rows other than all those learnt from get theirs one by one, from their
    nearest neighbours among those learnt from, whose posteriors stay as they are (some of the same
    rows again would be their own nearest). Samples are drawn from the module below:
    ``graph.sample(leaf=gmm)``. Several processes cannot learn it together.

    Parameters
    ----------
    n_neighbors : int
        Neighbours of each row, by Euclidean distance.
    coupling : float
        At least 0, in nats.
    max_iter, tol : int, float
        Mean field stops when its bound gains less than `tol` nats per row.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    name, random_state
        See `serkit.Module`; nothing here is random.

    Attributes
    ----------
    rows_ : np.ndarray of shape (N, D)
        The latents learnt from; like all attributes, saved with the graph.
    neighbours_ : np.ndarray of shape (N, n_neighbors), of int32
        Numbers of each row's neighbours; -1 in rows without latents.
    probabilities_ : np.ndarray of shape (N, K)
        q_n(k), what the children said included.
    lower_bound_ : np.ndarray
        The bound by iteration, in nats per row, of the parent's likelihoods p(row | k) / p(row).
        It never falls.
    converged_ : bool
        Whether mean field stopped by `tol`.

    Examples
    --------
    The third row's neighbours know better:

    >>> import numpy as np
    >>> from serkit import Observation
    >>> from serkit.modules import GMM, NeighbourField
    >>> grey = Observation([[0.0], [1.0], [6.0], [9.0], [10.0], [11.0]], name="grey")
    >>> place = Observation([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]], name="place")
    >>> gmm = GMM(2, means_init=[[0.0], [10.0]]).connect(grey).update()
    >>> gmm.posterior.clusters
    array([0, 0, 1, 1, 1, 1])
    >>> NeighbourField(n_neighbors=2).connect(gmm, place).update().posterior.clusters
    array([0, 0, 0, 1, 1, 1])
    """

    n_neighbors: PositiveInt = 15
    coupling: Annotated[float, Number(at_least=0)] = 8.0
    max_iter: PositiveInt = 200
    tol: Annotated[float, Number(at_least=0)] = 1e-6
    labels: ArrayLike | None = None

    takes_from_parents = (Categorical, Gaussian, Data)
    why_no_parts = "what it says of a row depends on the rows around it"
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Categorical

    @property
    def n_outputs(self) -> int | None:
        """Number of classes K, where the first parent knows it."""
        return self.parents[0].n_outputs if self.parents else None

    def sends_down_to(self, parent: Node) -> type[Message] | None:
        """Class probabilities to the classes, nothing to latents or data."""
        return Categorical if parent is self.parents[0] else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for parents that do not suit, fewer rows than neighbours, or wrong labels."""
        kinds = [parent.sends_up for parent in self.parents]
        if len(kinds) != 2 or kinds[0] is not Categorical or kinds[1] is Categorical:
            raise GraphError(
                f"{self.label}: expected two parents, one that sends class probabilities and one "
                "that sends latents or data, as in connect(gmm, vae), got "
                f"{', '.join(parent.label for parent in self.parents)}"
            )
        check_labels(self.label, self.labels, n_rows)
        n_observed = n_rows if inputs[1] is None else int(inputs[1].is_observed.sum())
        if n_observed <= self.n_neighbors and not self.frozen:
            raise InputError(
                f"{self.label}: n_neighbors={self.n_neighbors} must be less than the number of "
                f"rows with latents, {n_observed}"
            )

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Find each row's neighbours, and by them all rows' posteriors."""
        classes, latents = cast(Categorical, inputs[0]), inputs[1]
        if self._has_learnt(latents) and self.neighbours_.shape[1] == self.n_neighbors:
            neighbours = self.neighbours_
        else:
            neighbours = neighbours_among(flat(latents), latents.is_observed, self.n_neighbors)
        log_joint = self._log_joint(classes, self._class_prior(classes, from_children))
        solution = self._mean_field(neighbours)(log_joint)
        self.rng()  # settles the seed
        self.rows_: np.ndarray = flat(latents)
        self.neighbours_: np.ndarray = neighbours
        self.probabilities_: np.ndarray = np.exp(solution.log_prob)
        converged_before = getattr(self, "converged_", True)
        self.lower_bound_, self.converged_ = np.array(solution.bounds), solution.converged
        warn_unless_converged(self, converged_before)
        report = {"lower_bound": solution.bounds[-1], "n_iter": len(solution.bounds)}
        return report | scores_of(self.labels, solution.log_prob.argmax(axis=1))

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Posteriors of the rows' classes, and what their neighbours say of them.

        The bound is mean field's, with Z left out, less the parent's own term: ``[sum_nk q_n(k) log
        p(row n | k) P(k) / q_n(k) - coupling / 2 sum_nm w_nm (1 - sum_k q_n(k) q_m(k)) - sum_n log
        sum_k m_n(k) p(row n | k)] / N``, m the message last sent down (before any, P(k)). As Z <=
        1, the joint objective is a lower bound on the log evidence given the graph of neighbours.
        What it lacks for Z, ``-log Z / N``, is at most ``-log max_k P(k)``, and at most ``coupling
        (1 - sum_k P(k)^2) / 2``. It may fall from update to update, as mean field begins afresh
        and may find another optimum. None for other rows than those learnt from, and for latents
        that no other module hears, whose prior no term would hold.
        """
        classes, latents = cast(Categorical, inputs[0]), inputs[1]
        self._check_fitted(classes, latents)
        solve, prior_sent = self._solver(latents), self._log_prior_sent(classes)
        prior = self._class_prior(classes, None)
        alone = told = solve(self._log_joint(classes, prior))
        if from_children is not None:
            prior = self._class_prior(classes, from_children)
            told = solve(self._log_joint(classes, prior))

        def bound() -> float:
            parents_term = logsumexp(classes.log_likelihood + prior_sent, axis=1).mean()
            return told.bounds[-1] - float(parents_term)

        up = Categorical(
            alone.log_prob,
            log_prior=classes.log_prior,
            observed=any_observed(inputs),
            checked=False,
        )
        down = Categorical(log_softmax(prior + told.field, axis=1), is_prior=True, checked=False)
        return Posterior(
            up=up,
            down=(down, None),
            bound=bound if self._has_term(latents) else None,
            classes=Categorical(told.log_prob, checked=False),
        )

    def _solver(self, latents: Message) -> Callable[[np.ndarray], Solution]:
        """What finds posteriors from log p(row, k), (N, K), by the rows' neighbours."""
        if self._has_learnt(latents):
            return self._mean_field(self.neighbours_)
        nearest = neighbours_of(flat(latents), latents.is_observed, self.rows_, self.neighbours_)
        means = self.probabilities_[nearest].mean(axis=1)  # (N, K), of rows without any arbitrary
        field = np.where(nearest[:, :1] >= 0, self.coupling * means, 0.0)
        return partial(under_field, field)

    def _mean_field(self, neighbours: np.ndarray) -> Callable[[np.ndarray], Solution]:
        weights = self.coupling * weights_of(neighbours)
        return partial(mean_field, weights=weights, max_iter=self.max_iter, tol=self.tol)

    def _has_learnt(self, latents: Message) -> bool:
        """Whether these rows are the ones last learnt from."""
        if not hasattr(self, "rows_"):
            return False
        has_neighbours = self.neighbours_[:, 0] >= 0
        same = np.array_equal(has_neighbours, latents.is_observed)
        return same and np.array_equal(self.rows_, flat(latents))

    def _has_term(self, latents: Message) -> bool:
        """Whether the bound is known, and some other module's term has the latents' prior."""
        others = [child for child in self.parents[1].children if child is not self]
        return self._has_learnt(latents) and (bool(others) or not isinstance(latents, Gaussian))

    def _check_fitted(self, classes: Categorical, latents: Message) -> None:
        """Raise unless fitted, to as many classes and columns."""
        if not hasattr(self, "rows_"):
            raise NotFittedError(f"{self.label} knows no neighbours yet: call update() first")
        fitted = self.probabilities_.shape[1], self.rows_.shape[1]
        shape = classes.shape[0], flat(latents).shape[1]
        if shape != fitted:
            raise InputError(
                f"{self.label}: fitted on K={fitted[0]} classes and D={fitted[1]} columns, got "
                f"{shape[0]} and {shape[1]}"
            )

    def _class_prior(self, classes: Categorical, from_children: Message | None) -> np.ndarray:
        """Log P(k) times what the children say, (K,) or (N, K)."""
        k = classes.shape[0]
        prior = np.full(k, -np.log(k)) if classes.log_prior is None else classes.log_prior
        if not isinstance(from_children, Categorical):
            return prior
        children = checked_classes(self.label, from_children, k, "the parent's K")
        return log_class_prior(prior, children)

    def _log_joint(self, classes: Categorical, prior: np.ndarray) -> np.ndarray:
        """Log p(row, k) up to a constant per row, (N, K)."""
        log_joint = classes.log_likelihood + prior
        impossible = np.flatnonzero(log_joint.max(axis=1) == -np.inf)
        if len(impossible):
            raise MessageError(
                f"{self.label}: its parent and its children contradict each other in row "
                f"{impossible[0]}: no class has a positive probability in both"
            )
        return log_joint

    def _log_prior_sent(self, classes: Categorical) -> np.ndarray:
        """Log class probabilities that went into the parent's term, (N, K) or (K,)."""
        sent = next(iter(self.messages_down), None)
        if isinstance(sent, Categorical) and sent.log_prob.shape == classes.log_prob.shape:
            return sent.log_prob
        return self._class_prior(classes, None)


# -- the graph of neighbours -----------------------------------------------------------------------


def neighbours_among(rows: np.ndarray, observed: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Each row's nearest others among those observed, (N, n_neighbors); -1 where not observed."""
    neighbours = np.full((len(rows), n_neighbors), -1, dtype=np.int32)
    known = rows[observed]
    centred = known - known.mean(axis=0, dtype=np.float64)  # distances are of products, maybe
    search = _nearest_among(centred, n_neighbors)
    nearest = search.kneighbors(return_distance=False)  # without the row itself
    neighbours[observed] = np.flatnonzero(observed)[nearest]
    return neighbours


def neighbours_of(
    rows: np.ndarray, observed: np.ndarray, others: np.ndarray, neighbours: np.ndarray
) -> np.ndarray:
    """Each row's nearest among others that have neighbours, as many as those have, (n, .)."""
    nearest = np.full((len(rows), neighbours.shape[1]), -1, dtype=np.int32)
    known = neighbours[:, 0] >= 0
    if observed.any():
        centre = others[known].mean(axis=0, dtype=np.float64)
        search = _nearest_among(others[known] - centre, neighbours.shape[1])
        found = search.kneighbors(rows[observed] - centre, return_distance=False)
        nearest[observed] = np.flatnonzero(known)[found]
    return nearest


def _nearest_among(rows: np.ndarray, n_neighbors: int) -> NearestNeighbors:
    """What finds the nearest of some rows, loaded here, as that takes a while."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=n_neighbors).fit(rows)


def weights_of(neighbours: np.ndarray) -> csr_array:
    """Symmetric weights (N, N) of pairs; those of all rows add up to the number with neighbours."""
    n, n_neighbors = neighbours.shape
    known = neighbours[:, 0] >= 0
    ends = np.concatenate([[0], np.cumsum(known * n_neighbors)])
    columns = neighbours[known].ravel()
    counts = csr_array((np.full(len(columns), 1 / n_neighbors), columns, ends), shape=(n, n))
    return ((counts + counts.T) / 2).tocsr()


# -- mean field ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beliefs:
    """Posteriors of all rows' classes under what their neighbours say."""

    field: np.ndarray  # (N, K), what they say, in nats
    log_prob: np.ndarray  # (N, K), log q
    next_field: np.ndarray  # (N, K), what they would say by q
    bound: float  # nats per row


@dataclass(frozen=True)
class Solution:
    """What mean field found."""

    field: np.ndarray
    log_prob: np.ndarray
    bounds: list[float]  # by iteration
    converged: bool


def under_field(field: np.ndarray, log_joint: np.ndarray) -> Solution:
    """Each row's posterior under a field, (N, K), that stays as it is."""
    log_prob, _ = posterior_under(field, log_joint)
    return Solution(field, log_prob, bounds=[], converged=True)


def mean_field(log_joint: np.ndarray, weights: csr_array, max_iter: int, tol: float) -> Solution:
    """Posteriors of the classes by log p(row, k) (N, K) and weights in nats, (N, N).

    ``F(q) = sum_nk q_n(k) (log p(row n, k) - log q_n(k)) - sum_nm w_nm (1 - q_n q_m) / 2``, the
    bound, is raised by a step of all rows at once to ``q_n ~ p(row n, k) exp(sum_m w_nm q_m(k))``.
    As no eigenvalue of the weights is below minus its row's sum d_n, and ``KL(q || p) >= |q -
    p|^2``, F is at least its linear part less ``sum_n d_n / 2 KL(q'_n || q_n)`` (Baqué et al.). The
    step that maximises this goes the part ``1 / (1 + d_n / 2)`` of the way in log q, which here is
    the field, and never lowers F. It is taken where the whole step would.
    """
    safe_part = 1 / (1 + weights.sum(axis=1)[:, None] / 2)  # (N, 1)
    beliefs = beliefs_under(np.zeros_like(log_joint), log_joint, weights)
    bounds, converged = [beliefs.bound], False
    while not converged and len(bounds) < max_iter:
        proposed = beliefs_under(beliefs.next_field, log_joint, weights)
        if proposed.bound < beliefs.bound:
            way = beliefs.next_field - beliefs.field
            proposed = beliefs_under(beliefs.field + safe_part * way, log_joint, weights)
        converged = proposed.bound - beliefs.bound < tol
        beliefs = proposed
        bounds.append(beliefs.bound)
    return Solution(beliefs.field, beliefs.log_prob, bounds, converged)


def beliefs_under(field: np.ndarray, log_joint: np.ndarray, weights: csr_array) -> Beliefs:
    """Each row's posterior under a field, (N, K), what it makes of the field, and the bound."""
    log_prob, log_evidence = posterior_under(field, log_joint)
    q = np.exp(log_prob)
    next_field = weights @ q
    energies = (q * (next_field / 2 - field)).sum(axis=1) - weights.sum(axis=1) / 2  # (N,)
    return Beliefs(field, log_prob, next_field, float((log_evidence + energies).mean()))


def posterior_under(field: np.ndarray, log_joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log posteriors (N, K) by log p(row, k) and a field, (N, K) each, and log evidence (N,)."""
    joint = log_joint + field
    log_evidence = logsumexp(joint, axis=1)
    return joint - log_evidence[:, None], log_evidence

"""Messages, which modules exchange: frozen, checked values with one row per data row.

=============  ==================================================  =========================
message        holds                                               sent
=============  ==================================================  =========================
`Data`         array (N, ...)                                      up from Observation; down:
                                                                   the reconstruction
`Gaussian`     mean (N, D), var (N, D) or None                     up from AE and VAE
`Categorical`  log_prob (N, K), normalised over K                  up from GMM; down from
                                                                   MarkovModel, MLDA, Supervised
`Mixture`      log_prob (N, K), means (K, D), covariances          down from GMM
=============  ==================================================  =========================

Messages of the same kind multiply (`a * b`): a module combines what its children say by their
product, so no child overwrites another and a uniform message changes nothing.

Every message can carry `observed` (N,), false for rows in which the modality is missing. The
values of such a row are replaced by neutral ones: 0, N(0, I) or equal probabilities.

Messages are checked when they are made: shapes, finite values, probabilities that add up to 1. A
module that has just computed its arrays may leave out the checks that go through all rows, with
``checked=False``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import log_softmax, logsumexp

from . import arrays
from .arrays import as_observed, as_rows
from .density import problem_of_covariances
from .errors import InputError, MessageError
from .markup import element, fragment, table
from .options import (
    Choice,
    Count,
    Counts,
    Function,
    Kind,
    Several,
    as_numbers,
    check_argument,
    in_words,
)

_ROUNDING = 1e-4  # of log-probabilities in float32, which add up to 0 as those of all classes
_SHOWN_ROWS, _SHOWN_VALUES, _SHOWN_CLASSES = 5, 6, 3  # in notebooks
_ALIGNED = ("array", "mean", "var", "log_prob", "values")  # attributes with a row per data row


def _row_in_words(row: np.ndarray, name: str) -> str:
    """A row in a few words: its first values, or of log-probabilities the likeliest classes."""
    if name == "log_prob":
        order = np.argsort(-row, kind="stable")[:_SHOWN_CLASSES]
        return ", ".join(f"{k}: {np.exp(row[k]):.3f}" for k in order)
    values = np.ravel(row)
    more = ", ..." if len(values) > _SHOWN_VALUES else ""
    return ", ".join(f"{value:.4g}" for value in values[:_SHOWN_VALUES]) + more


@dataclass(frozen=True, eq=False, repr=False)
class Message:
    """Abstract base of all messages, which hold one row per data row.

    Attributes
    ----------
    observed : (N,) of bool, or None
        False for rows in which the modality is missing; None if it is there in all.
    """

    observed: np.ndarray | None = field(default=None, kw_only=True)
    checked: InitVar[bool] = field(default=True, kw_only=True)

    def __post_init__(self, checked: bool) -> None:
        raise TypeError("use Data, Gaussian, Categorical or Mixture")

    def __repr__(self) -> str:
        missing = "" if self.observed is None else f", {np.sum(~self.observed)} missing"
        return f"{type(self).__name__}({', '.join(map(str, (self.n_rows, *self.shape)))}{missing})"

    def _repr_html_(self) -> str:
        """For notebooks: the first rows."""
        rows = self.first_rows()
        columns = next(iter(rows), {})
        head = ("row", *("classes" if name == "log_prob" else name for name in columns))
        lines = [(f"{n}", *row.values()) for n, row in enumerate(rows)]
        more = element("small", f"and {self.n_rows - len(rows)} more rows")
        shown = [table(head, lines), *([more] if len(rows) < self.n_rows else [])]
        return fragment(element("b", repr(self)), *shown)

    def first_rows(self) -> list[dict[str, str]]:
        """The first rows in a few words: values, means and variances, or classes, by column."""
        names = [name for name in _ALIGNED if getattr(self, name, None) is not None]
        shown = range(min(self.n_rows, _SHOWN_ROWS))
        rows = [
            {name: _row_in_words(getattr(self, name)[n], name) for name in names} for n in shown
        ]
        for n, row in enumerate(rows):
            if not self.is_observed[n]:
                row.update(dict.fromkeys(names, "missing"))
        return rows

    @property
    def _rows(self) -> np.ndarray:
        return next(getattr(self, name) for name in _ALIGNED if hasattr(self, name))

    @property
    def n_rows(self) -> int:
        """Number of data rows N."""
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: (D,), (K,) or the data's own."""
        return self._rows.shape[1:]

    @property
    def is_observed(self) -> np.ndarray:
        """Whether the modality is there in each row, (N,) of bool."""
        return np.ones(self.n_rows, dtype=bool) if self.observed is None else self.observed

    def _set_observed(self, checked: bool) -> None:
        """Make the mask one boolean a row, and what it speaks of an array."""
        kind = type(self).__name__
        check_argument(kind, "checked", checked, Choice(False, True))
        name = next(name for name in _ALIGNED if hasattr(self, name))
        if checked:
            rows = arrays.as_array(getattr(self, name), f"{kind}.{name}")
            object.__setattr__(self, name, rows)
        mask = as_observed(self.observed, self.n_rows, type(self).__name__)
        object.__setattr__(self, "observed", mask)

    def _set(self, name: str, checked: bool, neutral: float = 0.0) -> None:
        """Make an attribute read-only, checked if asked for, `neutral` in rows that are missing."""
        rows = getattr(self, name)
        if checked or self.observed is not None:
            rows = as_rows(rows, f"{type(self).__name__}.{name}", self.observed, neutral)
        object.__setattr__(self, name, _frozen(rows))

    def _set_log_prob(self, log_prob: np.ndarray, checked: bool) -> None:
        """Make log-probabilities (N, K), which may hold -inf, read-only, checked if asked for."""
        kind = type(self).__name__
        log_prob = _as_logs(kind, "log_prob", log_prob)
        if log_prob.ndim != 2 or log_prob.size == 0:
            raise MessageError(f"{kind}.log_prob: expected shape (N, K), got {log_prob.shape}")
        self._set_observed(checked)
        if self.observed is not None:
            log_prob = arrays.copy(log_prob)
            log_prob[~self.observed] = -np.log(log_prob.shape[1])
        if checked:
            _check_normalised(log_prob, kind)
        object.__setattr__(self, "log_prob", _frozen(log_prob))

    def map_rows(self, function: Callable[[np.ndarray], np.ndarray]) -> Message:
        """The message with a function of arrays (N, ...) applied to all attributes of N rows."""
        label = f"{type(self).__name__}.map_rows"
        check_argument(label, "function", function, Function(of=("rows",)))
        names = [name for name in _ALIGNED if getattr(self, name, None) is not None]
        changed: dict[str, Any] = {name: function(getattr(self, name)) for name in names}
        # by `is_observed`, never None, as processes must all make the same calls
        return replace(self, **changed, observed=function(self.is_observed))

    def extended(self, n_rows: int) -> Message:
        """The message with rows at the end of which it knows nothing, `n_rows` in all."""
        each = max(int(np.prod(self.shape)), 1)
        range_ = Count(at_least=self.n_rows, each=each)
        check_argument(f"{type(self).__name__}.extended", "n_rows", n_rows, range_)
        n_added = n_rows - self.n_rows

        def extend(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([rows, np.zeros((n_added, *rows.shape[1:]), rows.dtype)])

        return self.map_rows(extend)  # which `observed` is false of

    def __mul__(self, other: Message) -> Message:
        if type(self) is not type(other):
            raise MessageError(
                f"cannot combine a {type(self).__name__} with a {type(other).__name__} message: "
                "the children of one module must send the same kind"
            )
        if (self.n_rows, self.factor_shape) != (other.n_rows, other.factor_shape):
            raise MessageError(
                f"cannot combine {type(self).__name__} messages of different shapes: "
                f"{self.n_rows} rows of {self.factor_shape} and "
                f"{other.n_rows} rows of {other.factor_shape}"
            )
        return self._times(other)

    @property
    def factor_shape(self) -> tuple[int, ...]:
        """Shape of what a row of the message speaks of: its own, but (D,) of a mixture over D."""
        return self.shape

    def _times(self, other: Any) -> Message:
        raise MessageError(f"{type(self).__name__} messages have no product")


@dataclass(frozen=True, eq=False, repr=False)
class Data(Message):
    """Observed or reconstructed values, array (N, ...)."""

    array: np.ndarray

    def __post_init__(self, checked: bool) -> None:
        self._set_observed(checked)
        self._set("array", checked)


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Message):
    """A diagonal Gaussian per row: mean (N, D), and var (N, D) or None where it is unknown."""

    mean: np.ndarray
    var: np.ndarray | None = None

    def __post_init__(self, checked: bool) -> None:
        self._set_observed(checked)
        self._set("mean", checked)
        if self.mean.ndim != 2:
            raise MessageError(f"Gaussian.mean: expected shape (N, D), got {self.mean.shape}")
        if self.var is None:
            return
        self._set("var", checked, neutral=1.0)
        if self.var.shape != self.mean.shape:
            raise MessageError(
                f"Gaussian: mean and var differ in shape: {self.mean.shape} and {self.var.shape}"
            )
        if checked and self.var.min() <= 0:
            raise MessageError(f"Gaussian.var: must be positive, its minimum is {self.var.min()}")

    @classmethod
    def standard(cls, n_rows: int, n_dims: int) -> Gaussian:
        """The neutral message N(0, I) for every row."""
        check_argument("Gaussian.standard", "n_dims", n_dims, Count(each=2))
        check_argument("Gaussian.standard", "n_rows", n_rows, Count(each=2 * n_dims))
        return cls(np.zeros((n_rows, n_dims)), np.ones((n_rows, n_dims)))

    def _times(self, other: Gaussian) -> Gaussian:
        if self.var is None or other.var is None:
            raise MessageError("cannot multiply Gaussian messages without a variance")
        with np.errstate(over="ignore"):  # of an infinitely sharper one nothing else counts
            share = 1 / (1 + self.var / other.var)  # of the precision
        mean, var = share * self.mean + (1 - share) * other.mean, share * self.var
        # Who misses a row says nothing of it.
        mine, theirs = self.is_observed[:, None], other.is_observed[:, None]  # (N, 1)
        mean = np.where(mine & theirs, mean, np.where(mine, self.mean, other.mean))
        var = np.where(mine & theirs, var, np.where(mine, self.var, other.var))
        observed = self.is_observed | other.is_observed
        return Gaussian(mean, var, observed=observed, checked=False)


@dataclass(frozen=True, eq=False, repr=False)
class Categorical(Message):
    """Class probabilities for each row.

    Attributes
    ----------
    log_prob : (N, K)
        Log probabilities, normalised over K; -inf is allowed.
    log_prior : (K,) or None
        Of a message up: the log P(k) that is a factor of `log_prob`, so that a receiver with
        another P(k) can divide it out; None stands for equal probabilities.
    is_prior : bool
        Of a message down: whether it stands in place of the receiver's own P(k), as a Markov
        model's P(k | other rows) does, or is evidence besides it, as the likelihood of a label is.
    regroups : bool
        Of a message down: whether its classes are others than those that the receiver sent, so that
        the receiver's own are no place to start from when it fits to the message.
    """

    log_prob: np.ndarray
    log_prior: np.ndarray | None = field(default=None, kw_only=True)
    is_prior: bool = field(default=False, kw_only=True)
    regroups: bool = field(default=False, kw_only=True)

    def __post_init__(self, checked: bool) -> None:
        self._set_log_prob(self.log_prob, checked)
        if self.log_prior is None:
            return
        log_prior = _as_logs("Categorical", "log_prior", self.log_prior).copy()
        if log_prior.shape != self.shape or not np.isfinite(logsumexp(log_prior)):
            raise MessageError(
                f"Categorical.log_prior: expected {self.shape[0]} log-probabilities, one a class, "
                f"got {log_prior}"
            )
        log_prior.flags.writeable = False
        object.__setattr__(self, "log_prior", log_prior)

    @classmethod
    def uniform(cls, n_rows: int, n_components: int) -> Categorical:
        """The neutral message: every class equally probable."""
        check_argument("Categorical.uniform", "n_components", n_components, Count(each=1))
        check_argument("Categorical.uniform", "n_rows", n_rows, Count(each=n_components))
        return cls(np.full((n_rows, n_components), -np.log(n_components)))

    @property
    def log_likelihood(self) -> np.ndarray:
        """Log p(row | k) up to a constant per row, (N, K): `log_prob` less `log_prior`.

        The emissions of a hybrid Markov model (Bourlard and Morgan, 1994, "Connectionist speech
        recognition"); 0 in rows that are missing. A class of prior probability 0 stays impossible.
        """
        possible = self.log_prob > -np.inf
        log_prior = 0.0 if self.log_prior is None else self.log_prior
        ratio = np.subtract(self.log_prob, log_prior, out=self.log_prob.copy(), where=possible)
        return ratio if self.observed is None else np.where(self.observed[:, None], ratio, 0.0)

    @property
    def log_posterior(self) -> np.ndarray:
        """Log P(k | row) up to a constant per row, (N, K); `log_prior` in rows that are missing."""
        return self.log_likelihood + (0.0 if self.log_prior is None else self.log_prior)

    def _times(self, other: Categorical) -> Categorical:
        left = self.log_likelihood if other.is_prior else self.log_posterior
        right = other.log_likelihood if self.is_prior else other.log_posterior
        joint = left + right
        impossible = np.flatnonzero(~np.isfinite(joint.max(axis=1)))
        if len(impossible):
            raise MessageError(
                f"Categorical messages contradict each other in row {impossible[0]}: "
                "no class has a positive probability in both"
            )
        is_prior = self.is_prior or other.is_prior
        priors = [m.log_prior for m in (self, other) if m.log_prior is not None and not is_prior]
        log_prior = np.sum(priors, axis=0) if priors else None
        return Categorical(
            log_softmax(joint, axis=1),
            log_prior=log_prior,
            is_prior=is_prior,
            regroups=self.regroups or other.regroups,
            checked=False,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(Message):
    """A Gaussian mixture, and the responsibilities of its components for each row.

    Attributes
    ----------
    log_prob : (N, K)
        Log responsibilities of the K components for each row, normalised over K.
    means : (K, D)
    covariances : (K, D, D)
    log_weights : (K,)
        Log mixing weights, uniform unless given.
    """

    log_prob: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    log_weights: np.ndarray | None = None

    def __post_init__(self, checked: bool) -> None:
        self._set_log_prob(self.log_prob, checked)
        for name in ("means", "covariances"):
            rows = as_rows(getattr(self, name), f"Mixture.{name}")
            object.__setattr__(self, name, rows)
        (k,) = self.shape
        if self.log_weights is None:
            object.__setattr__(self, "log_weights", np.full(k, -np.log(k)))
        log_weights = _as_logs("Mixture", "log_weights", self.log_weights)
        object.__setattr__(self, "log_weights", _frozen(log_weights))
        d = self.means.shape[1]
        expected = {"means": (k, d), "covariances": (k, d, d), "log_weights": (k,)}
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise MessageError(
                    f"Mixture.{name}: expected shape {shape} for K={k} components of D={d} "
                    f"dimensions, got {np.shape(getattr(self, name))}"
                )
        if not checked:
            return
        if not abs(logsumexp(self.log_weights)) < _ROUNDING:
            raise MessageError(
                "Mixture.log_weights: expected log-probabilities, whose probabilities add up to 1, "
                f"got {self.log_weights}"
            )
        if problem := problem_of_covariances(self.covariances, diagonal=False):
            raise MessageError(f"Mixture: {problem}")

    def assigned(self) -> Gaussian:
        """The mean of each row's most probable component, with variance 1 (Serket's message)."""
        mean = self._new_rows(self.means.dtype)  # (N, D)
        np.take(self.means, self.log_prob.argmax(axis=1), axis=0, out=mean, mode="clip")
        return _with_unit_variance(mean, self.observed)

    def expected(self) -> Gaussian:
        """The responsibility-weighted mean of the components, with variance 1."""
        mean = self._new_rows(np.float64)  # (N, D)
        for block in arrays.blocks(self.log_prob):
            np.matmul(np.exp(self.log_prob[block]), self.means, out=mean[block])
        return _with_unit_variance(mean, self.observed)

    def _new_rows(self, dtype: DTypeLike) -> np.ndarray:
        return arrays.empty((self.n_rows, self.means.shape[1]), dtype, self.log_prob)

    def split(self, sizes: Sequence[int]) -> list[Mixture]:
        """Marginals over consecutive groups of `sizes` dimensions: one message per parent."""
        check_argument("Mixture.split", "sizes", sizes, Counts())
        if sum(sizes) != self.means.shape[1]:
            raise MessageError(
                f"Mixture.split: sizes must add up to the {self.means.shape[1]} dimensions, got "
                f"{in_words(sizes)}"
            )
        ends = np.cumsum(sizes)
        groups = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        moments = [(self.means[:, g], self.covariances[:, g, g]) for g in groups]
        return [replace(self, means=m, covariances=c, checked=False) for m, c in moments]

    @property
    def factor_shape(self) -> tuple[int, ...]:
        """Shape of what a row of the message speaks of, (D,)."""
        return self.means.shape[1:]

    def _times(self, other: Mixture) -> Mixture:
        """Product of experts: every pair of components, pair (i, j) at index i * K_other + j."""
        pairs = (len(self.means), len(other.means))
        left, right = np.linalg.inv(self.covariances), np.linalg.inv(other.covariances)
        covariances = np.linalg.inv(left[:, None] + right)  # (K, L, D, D)
        pull = (left @ self.means[..., None])[:, None] + right @ other.means[..., None]
        d = self.means.shape[1]
        return Mixture(
            (self.log_prob[:, :, None] + other.log_prob[:, None]).reshape(-1, np.prod(pairs)),
            (covariances @ pull).reshape(-1, d),
            covariances.reshape(-1, d, d),
            np.add.outer(np.asarray(self.log_weights), np.asarray(other.log_weights)).ravel(),
            checked=False,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Deferred(Message):
    """A message down that its sender makes only when it is read, as a reconstruction takes long.

    Attributes
    ----------
    values : (N, ...)
        What the message is made of, such as latents.
    method : str
        Name of the sender's method that makes messages of such values, a list with one per parent.
    """

    values: np.ndarray
    method: str

    def __post_init__(self, checked: bool) -> None:
        self._set_observed(checked)
        if checked:
            as_numbers("Deferred", "values", self.values)


def _with_unit_variance(mean: np.ndarray, observed: np.ndarray | None) -> Gaussian:
    """N(mean, I), mean (N, D)."""
    var = np.broadcast_to(np.ones((), mean.dtype), mean.shape)
    return Gaussian(mean, var, observed=observed, checked=False)


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _as_logs(kind: str, name: str, value: ArrayLike | None) -> np.ndarray:
    """Logarithms as a float64 array; MessageError for what is none."""
    try:
        return as_numbers(kind, name, value, "log-probabilities", finite=False)
    except InputError as error:
        raise MessageError(str(error)) from None


def _check_normalised(log_prob: np.ndarray, kind: str) -> None:
    """Raise MessageError for rows (N, K) of log-probabilities that do not add up to 1."""
    with np.errstate(invalid="ignore"):
        total = np.logaddexp.reduce(log_prob, axis=1)
    wrong = np.flatnonzero(~(np.abs(total) < _ROUNDING))  # NaN compares false
    if len(wrong):
        raise MessageError(
            f"{kind}.log_prob: expected probabilities that add up to 1 over K, but those of row "
            f"{wrong[0]} add up to {np.exp(total[wrong[0]]):.6g}"
        )


def product(messages: Sequence[Message]) -> Message | None:
    """The product of messages of one kind; None where there are none.

    Categorical: add the logs and normalise. Gaussian: precision-weighted mean. Mixture: all pairs
    of components.

    Raises
    ------
    MessageError
        If kinds or shapes differ, or categorical messages contradict each other.
    """
    check_argument("product", "messages", messages, Several(Kind(Message)))
    return functools.reduce(operator.mul, messages) if messages else None

"""Variational autoencoder with a categorical latent: a class per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Self, cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from torch import Tensor, nn
from torch.distributions import OneHotCategorical
from torch.nn import functional as F

from ... import processes
from ...errors import InputError
from ...messages import Categorical, Data, Message
from ...metrics import scores_of
from ...module import Node, Posterior, Values, learns
from ...options import Constraint, Number, RandomState, Width
from ...stopping import AllOrNothing
from ..common.inputs import check_component, check_labels, draw_classes
from ..nets.device import as_tensor
from .base import Arrays, Autoencoder, Ramp
from .divergences import CategoricalTarget, OneHot, Target
from .parts import DecoderPart, ExpectedRows


@dataclass(frozen=True, kw_only=True)
class Temperature(Constraint):
    """A number above 0, two of them, or a function of update and epoch."""

    or_function_of: tuple[str, ...] = ("update", "epoch")
    wanted = "a number > 0, a pair of them"

    def fits(self, value: Any) -> bool:
        """Whether it is a number or a pair."""
        several = value if isinstance(value, Sequence) and len(value) == 2 else [value]
        return all(map(Number(above=0).fits, several))


@dataclass(eq=False, repr=False)
class MultinomialVAE(Autoencoder):
    """Variational autoencoder whose latent is one of K classes.

    Minimises, per row, ``-E_q[log p(x | k)] + alpha KL(q(k | x) || P(k))``. P(k) is uniform, until
    a child has sent a message, and then what that says of the row, be it a prior or evidence beside
    the module's own. A class which it rules out counts as one of probability 1e-8.

    In training the decoder gets a relaxed class, a draw from the Gumbel-softmax distribution, so
    that gradients reach the encoder (Jang, Gu and Poole, 2017; Maddison, Mnih and Teh, 2017, "The
    concrete distribution"). The KL term is that of the classes, in closed form; for rows held out,
    and for the joint objective, the expectation is a sum over the classes.

    Takes `Data`, sends `Categorical` class probabilities up and the expected rows down. Latents
    are class probabilities: `encode` gives P(k | x), `decode` gives ``sum_k P(k) E[x | k]``. Rows
    that are missing in some parent do not train, and are decoded from the children's P(k).

    With ``n_draws=n`` above 1 a row has n classes, each drawn from q, and the decoder gets what
    share of them each class has. The KL term is n times that of one, and where one class is summed
    over, n are drawn; `decode` gives the decoder's rows at the expected shares.

    Parameters
    ----------
    n_components : int
        Number of classes K.
    n_draws : int
        Classes drawn of each row.
    temperature : float, (float, float) or callable
        Of the relaxation, above 0: a constant; the first and the last of an annealing by the same
        factor an epoch, which takes the first update (with ``warm_start=False`` each) and stays
        at the last after it; or a function of (update, epoch), both counted from 0.
    temperature_decay : float, optional
        The rate r at which `temperature`, if (first, last), falls in every update instead:
        ``max(first exp(-r epoch), last)``.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    alpha : float or callable, optional
        Weight of the KL term, 1 unless given, or a function of (update, epoch).
    **options
        All further options are those of `VAE`, without `kl_target`; an own encoder returns logits
        (N, K), and an own decoder takes classes, relaxed or one-hot, (N, K).

    Attributes
    ----------
    nets_, loss_curve_, history_
        As in `VAE`.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import MultinomialVAE
    >>> rows = np.random.default_rng(0).random((20, 6))
    >>> vae = MultinomialVAE(3, hidden_sizes=(8,), epochs=2, random_state=0).fit(rows)
    >>> vae.predict(rows).shape, vae.sample(4, component=2).shape
    ((20,), (4, 6))
    """

    n_components: Width
    _: KW_ONLY
    n_draws: Width = 1
    temperature: Annotated[float | Sequence[float] | Ramp, Temperature()] = (1.0, 0.5)
    temperature_decay: Annotated[float | None, Number(above=0, or_none=True)] = None
    labels: ArrayLike | None = None

    takes_from_children = (Categorical,)
    sends_up = Categorical
    q_parameters = ("probs", "logits")
    sent_parameters = ("probabilities",)

    @property
    def n_outputs(self) -> int:
        """Number of classes K."""
        return self.n_components

    def q_of(self, x: Tensor) -> OneHotCategorical:
        """q(k | x), whose mean is the class probabilities (B, K)."""
        return OneHot(self._net("encoder")(x).float())

    def expected_log_likelihood(self, x: Tensor, q: OneHotCategorical, epoch: int) -> Tensor:
        """By a draw of relaxed classes in training; on rows held out exact, or by true classes."""
        if self.nets_.training:
            logits = q.logits[:, None].expand(-1, self.n_draws, -1)  # (B, n_draws, K)
            relaxed = F.gumbel_softmax(logits, self._temperature(epoch)).mean(dim=1)  # (B, K)
            return self.log_likelihood(x, relaxed)
        if self.n_draws == 1:
            return (q.probs * self._class_log_likelihoods(x)).sum(dim=1)
        return self.log_likelihood(x, q.sample((self.n_draws,)).mean(dim=0))

    def _class_log_likelihoods(self, x: Tensor) -> Tensor:
        """Log p(x | k) of each row and class: (B, ...) -> (B, K)."""
        classes = torch.eye(self.n_components, dtype=torch.float32, device=x.device)
        outputs = self._net("decoder")(classes).float().flatten(1)  # (K, n_features)
        rows, log_prob = x.flatten(1), self._likelihood.log_prob
        return torch.stack([log_prob(rows, output.expand_as(rows)) for output in outputs], dim=1)

    def _temperature(self, epoch: int) -> float:
        """Temperature in an epoch of the coming update; InputError for a user's of 0 or below."""
        if isinstance(self.temperature, Sequence):
            first, last = self.temperature
            if self.temperature_decay is not None:
                return max(first * math.exp(-self.temperature_decay * epoch), last)
            afresh = not self.history_ or not self.warm_start
            progress = epoch / max(self.n_epochs - 1, 1) if afresh else 1.0
            return first * (last / first) ** progress
        return self._ramped("temperature", self.temperature, epoch, Number(above=0))

    def target_of(self, from_children: Message | None, n_rows: int, device: torch.device) -> Target:
        """The children's probabilities; equal ones where there is no message."""
        log_prob = as_tensor(self._class_prior(from_children, n_rows), device)
        return CategoricalTarget(log_prob, int(self.n_draws))

    def latents_by(self, from_children: Message | None, n_rows: int) -> np.ndarray:
        """P(k) of each row, (N, K), by the children's message; uniform if None."""
        return np.exp(self._class_prior(from_children, n_rows))

    def _class_prior(self, from_children: Message | None, n_rows: int) -> np.ndarray:
        """Log P(k) of each row, (N, K), by the children's message; uniform if None."""
        k = self.n_components
        if from_children is None:
            return np.full((n_rows, k), -np.log(k))
        if (from_children.n_rows, from_children.shape) != (n_rows, (k,)):
            n_classes = from_children.shape[0]
            raise InputError(
                f"{self.label}: its children sent probabilities of {n_classes} classes for "
                f"{from_children.n_rows} rows; expected n_components={k} for {n_rows} rows"
            )
        return cast(Categorical, from_children).log_prob

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options or labels that cannot work, or data out of range."""
        check_labels(self.label, self.labels, n_rows)
        if self.temperature_decay is not None and not isinstance(self.temperature, Sequence):
            raise InputError(
                f"{self.label}: temperature_decay={self.temperature_decay} needs the first and the "
                f"last as temperature=(1.0, 0.5), got {self.temperature!r:.60}"
            )
        super().check(inputs, n_rows)

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """As `Module.update`; reports accuracy, NMI and ARI if there are labels."""
        with AllOrNothing(self):
            super().update(children)
            if not self.frozen:
                self.history_[-1].update(self.scores())
        return self

    @learns
    def fit(self, x: ArrayLike, y: None = None) -> Self:
        """Train on an array x (N, ...) without a graph; returns self. `y` is ignored."""
        super().fit(x)
        if self.labels is not None:
            clusters = self.predict(x)
            scores = scores_of(self.labels, clusters[processes.share(len(clusters))])
            self.history_[-1].update(scores)
        return self

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """q(k | x) of the parents' rows; classes of missing rows are the children's."""
        posterior = super().infer(inputs, from_children)
        up = cast(Categorical, posterior.up)
        if up.observed is None:
            return posterior
        prior = self._class_prior(from_children, up.n_rows)
        log_prob = np.where(up.observed[:, None], up.log_prob, prior)
        return replace(posterior, classes=Categorical(log_prob, checked=False))

    @staticmethod
    def sent(codes: Tensor) -> tuple[Tensor, ...]:
        """Class probabilities (B, K) of the codes, which are logits."""
        return (codes.softmax(dim=1),)

    def _decoder_part(self, nets: nn.ModuleDict, shapes: list[tuple[int, ...]]) -> DecoderPart:
        return (ExpectedRows if self.n_draws == 1 else DecoderPart)(nets, shapes)

    def _message_up(self, q: Arrays, observed: np.ndarray | None) -> Categorical:
        return Categorical(q[1], observed=observed, checked=False)

    def _row_bounds(self, rows: np.ndarray, q: Arrays, children: Message | None) -> np.ndarray:
        """E_q[log p(x | k)] - KL(q || P) of each row, (N,), by a sum over classes.

        Several classes a row are drawn instead, by the same noise every time.
        """
        probabilities, log_prob = q
        prior = torch.tensor(self._class_prior(children, len(rows)), device="cpu")
        logits = torch.tensor(log_prob, device="cpu")
        target = CategoricalTarget(prior, int(self.n_draws))
        kl = target.kl(OneHot(logits))
        if self.n_draws > 1:
            shares = self._shares(probabilities, np.random.default_rng(0))
            return self._in_blocks(self.log_likelihood, rows, shares) - kl.numpy()
        log_likelihoods = self._in_blocks(self._class_log_likelihoods, rows)  # (N, K)
        return (probabilities * log_likelihoods).sum(axis=1) - kl.numpy()

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row with all classes equally probable, in nats: (N, ...) -> (N,).

        Exact, as a sum over the classes; InputError with several classes a row (`n_draws`).
        """
        if self.n_draws > 1:
            raise InputError(
                f"{self.label}.log_prob: with n_draws={self.n_draws} a row has a density of too "
                "many terms; lower_bound(x) is below it"
            )
        rows = self.new_rows(x, "log_prob")
        self._encode([Data(rows[:1], checked=False)])  # raises for what the nets do not take
        log_likelihoods = self._in_blocks(self._class_log_likelihoods, rows)  # (N, K)
        return logsumexp(log_likelihoods.astype(np.float64), axis=1) - np.log(self.n_components)

    def sample(
        self, n_samples: int = 1, component: int | None = None, random_state: RandomState = None
    ) -> np.ndarray:
        """Decoded classes (n_samples, ...), all of one `component` or any; the same every time."""
        return self._sample(n_samples, random_state, component)

    def _draw(self, n: int, rng: Generator, values: Values, component: int | None) -> np.ndarray:
        """Shares of classes: by the probabilities given, all of one component, or any."""
        k = self.n_components
        if component is not None:
            check_component(self.label, component, k)
            return np.eye(k)[np.full(n, component)]
        return self._shares(np.full((n, k), 1 / k) if values is None else values, rng)

    def _shares(self, probabilities: np.ndarray, rng: Generator) -> np.ndarray:
        """Each class's share of `n_draws` classes drawn of each row, (N, K): one-hot if of one."""
        draws = [draw_classes(probabilities, rng) for _ in range(self.n_draws)]
        return np.mean([np.eye(self.n_components)[classes] for classes in draws], axis=0)

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Most probable class of each row: (N, ...) -> (N,) of int."""
        return self.encode(x).argmax(axis=1)

    def _decode(self, z: np.ndarray) -> np.ndarray:
        """Expected rows under class probabilities (N, K), ``sum_k p_k E[x | k]``.

        Of several draws those at the expected shares.
        """
        if z.min() < 0 or not np.allclose(z.sum(axis=1), 1, atol=1e-3):
            sums = z.sum(axis=1)
            raise InputError(
                f"{self.label}: expected latents that are class probabilities, >= 0 and adding up "
                f"to 1 per row; the least is {z.min():g}, the sums {sums.min():g} to {sums.max():g}"
            )
        if self.n_draws > 1:
            return super()._decode(z)
        return np.tensordot(z, super()._decode(np.eye(self.n_components)), axes=1)

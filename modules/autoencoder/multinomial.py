"""Variational autoencoder with a categorical latent: a class a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ...messages import Categorical, Data, Message
from ...metrics import scores_of
from ...options import check_component, check_count
from ..common.inputs import all_observed, check_labels, draw_classes, join
from ..nets.device import to_tensor
from .base import Autoencoder, Pull, check_temperature, temperature_of
from .divergences import kl_to_categorical


class MultinomialVAE(Autoencoder):
    """Variational autoencoder whose latent is one of K classes.

    Minimises, a row, ``-E_q[log p(x | k)] + alpha KL(q(k | x) || P(k))``. P(k) is what the
    children's message says of the row, be it a prior or evidence beside the module's own, which
    is uniform; and uniform until a message has come. A class the message rules out counts as one
    of probability 1e-8.

    In training the decoder gets a relaxed class, a draw from the Gumbel-softmax distribution, so
    that gradients reach the encoder (Jang, Gu and Poole, 2017, "Categorical reparameterization
    with Gumbel-softmax"; Maddison, Mnih and Teh, 2017, "The concrete distribution"); the KL term
    is that of the classes, in closed form. For rows held out, and for the joint objective, the
    expectation is a sum over the classes.

    Takes `Data`, sends `Categorical` class probabilities up and the expected rows down. Latents
    are class probabilities: `encode` gives P(k | x), `decode` gives ``sum_k P(k) E[x | k]``. Rows
    that not all parents saw do not train, and are decoded from the children's P(k).

    Parameters
    ----------
    n_components : int
        Number of classes K.
    temperature : float, (float, float) or callable
        Of the relaxation, above 0: a constant; the first and the last of an annealing by the same
        factor an epoch, which takes the first update (with ``warm_start=False`` each) and stays
        at the last after it; or a function of (update, epoch), both counted from 0.
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
    """

    takes_from_children = (Categorical,)
    sends_up = Categorical
    codes_per_latent = 1
    default_alpha = 1.0
    divergence = "kl"

    def __init__(
        self,
        n_components: int,
        *,
        net: str = "mlp",
        hidden_sizes: Sequence[int] = (128,),
        filters: Sequence[int] = (16, 32),
        batch_norm: bool = False,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: str = "bernoulli",
        noise_variance: float | str = 1.0,
        alpha: float | Callable[[int, int], float] | None = None,
        temperature: float | Sequence[float] | Callable[[int, int], float] = (1.0, 0.5),
        labels: ArrayLike | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        epochs: int | Sequence[int] = 200,
        batch_size: int = 500,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        scheduler: str | Callable | None = None,
        max_grad_norm: float | None = None,
        validation_fraction: float = 0.0,
        patience: int = 10,
        warm_start: bool = True,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            net=net,
            hidden_sizes=hidden_sizes,
            filters=filters,
            batch_norm=batch_norm,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            noise_variance=noise_variance,
            alpha=alpha,
            augment=augment,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            scheduler=scheduler,
            max_grad_norm=max_grad_norm,
            validation_fraction=validation_fraction,
            patience=patience,
            warm_start=warm_start,
            device=device,
            precision=precision,
            compile=compile,
            name=name,
            random_state=random_state,
        )
        self.n_components = n_components
        self.temperature = temperature
        self.labels = labels

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of classes K."""
        return self.n_components

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options or labels that cannot work, or data out of range."""
        check_count(self, "n_components")
        check_labels(self.label, self.labels, n_rows)
        check_temperature(self)
        super().check(inputs, n_rows)

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Train on the rows seen, their classes pulled to the children's probabilities."""
        report = super().learn(inputs, prior)
        return report | scores_of(self.labels, self._latents(inputs, prior).argmax(axis=1))

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k | x) by the encoder."""
        return Categorical(self._encode(inputs)[1], observed=all_observed(inputs))

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Decoded classes, all alike or each equally probable, for each parent."""
        return self._parts(self.sample(n_samples, component, random_state))

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Decoded draws of the classes that probabilities (n, K) pick, for each parent."""
        return self._parts(self._decode_classes(draw_classes(values, rng)))

    def clusters(self) -> np.ndarray | None:
        """Most probable class of each row, (N,), by the message last sent.

        Where a row was not seen, by the children's.
        """
        sent = self.message_up
        if sent is None:
            return None
        told = self._told(self.received_from_children(), sent.n_rows)
        return np.where(sent.is_observed[:, None], sent.log_prob, told).argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI of `clusters` against `labels`, if there are any."""
        return scores_of(self.labels, self.clusters())

    def artefacts(self) -> dict[str, np.ndarray]:
        """class_learn.txt, Pdz_learn.txt and acc_learn.txt as GMM's; x_hat_learn.txt, loss.txt."""
        files = {
            "class_learn.txt": self.clusters(),
            "Pdz_learn.txt": np.exp(self.message_up.log_prob),
            **super().artefacts(),
        }
        if self.labels is not None:
            files["acc_learn.txt"] = np.array([entry["accuracy"] for entry in self.history_])
        return files

    # -- use on new rows -----------------------------------------------------------------------

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Most probable class of each row: (N, ...) -> (N,) of int."""
        return self.encode(x).argmax(axis=1)

    def _decode(self, z: np.ndarray) -> np.ndarray:
        """Expected rows under class probabilities (N, K), ``sum_k p_k E[x | k]``."""
        if z.min() < 0 or not np.allclose(z.sum(axis=1), 1, atol=1e-3):
            raise InputError(
                f"{self.label}: expected latents that are class probabilities, >= 0 and adding up "
                f"to 1 a row; the least is {z.min():g}, the sums {z.sum(axis=1).min():g} to "
                f"{z.sum(axis=1).max():g}"
            )
        return np.tensordot(z, super()._decode(np.eye(self.n_components)), axes=1)

    def sample(
        self, n_samples: int = 1, component: int | None = None, random_state: int | None = None
    ) -> np.ndarray:
        """Decoded classes, (n_samples, ...); the same call repeats its draw.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            In 0..K-1; each equally probable unless given.
        random_state : int, optional
            Seed of the draw; the module's own unless given.
        """
        rng = self._sampler(n_samples, random_state)
        if component is None:
            return self._decode_classes(rng.integers(self.n_components, size=n_samples))
        check_component(self, component, self.n_components)
        return self._decode_classes(np.full(n_samples, component))

    def _decode_classes(self, classes: np.ndarray) -> np.ndarray:
        return self.decode(np.eye(self.n_components)[classes])

    # -- what the latents are ------------------------------------------------------------------

    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """P(k | x) and its logarithm, (B, K) each."""
        log_prob = codes.float().log_softmax(dim=1)
        return log_prob.exp(), log_prob

    def _expected_log_likelihood(
        self, x: Tensor, probabilities: Tensor, log_prob: Tensor, update: int, epoch: int
    ) -> Tensor:
        """By one draw of the relaxed class in training; exact on rows held out."""
        if not self.nets_.training:
            return (probabilities * self._class_log_likelihoods(x)).sum(dim=1)
        relaxed = F.gumbel_softmax(log_prob, temperature_of(self, update, epoch))  # (B, K)
        return self._log_likelihood(x, relaxed)

    def _class_log_likelihoods(self, x: Tensor) -> Tensor:
        """Log p(x | k) of each row and class: (B, ...) -> (B, K)."""
        rows, classes = x.flatten(1), torch.eye(self.n_components, device=x.device)
        outputs = self.nets_["decoder"](classes).float().flatten(1)  # (K, n_features)
        log_prob = self.nets_["likelihood"].log_prob
        return torch.stack([log_prob(rows, one.expand_as(rows)) for one in outputs], dim=1)

    def _pull(self, prior: Message | None, n_rows: int, device: torch.device) -> Pull:
        """KL(q || P), P being the children's probabilities."""
        target = to_tensor(self._class_prior(prior, n_rows), device)  # (N, K)
        return lambda index, _, log_prob: kl_to_categorical(log_prob, target[index])

    def _told(self, prior: Message | None, n_rows: int) -> np.ndarray:
        return np.exp(self._class_prior(prior, n_rows))

    def _class_prior(self, prior: Message | None, n_rows: int) -> np.ndarray:
        """Log P(k) of each row, (N, K), by the children's message; uniform if None."""
        k = self.n_components
        if prior is None:
            return Categorical.uniform(n_rows, k).log_prob
        if (prior.n_rows, prior.shape) != (n_rows, (k,)):
            raise InputError(
                f"{self.label}: its children sent probabilities of {prior.shape[0]} classes for "
                f"{prior.n_rows} rows; expected n_components={k} for {n_rows} rows"
            )
        return prior.log_prob

    def _bound(self, inputs: list[Data], prior: Message | None) -> np.ndarray:
        """E_q[log p(x | k)] - KL(q || P) of each row, (N,), by a sum over classes."""
        probabilities, log_prob = self._encode(inputs)
        log_likelihoods = self._in_chunks(self._class_log_likelihoods, join(inputs))  # (N, K)
        kl = kl_to_categorical(
            torch.tensor(log_prob), torch.tensor(self._class_prior(prior, len(log_prob)))
        )
        return (probabilities * log_likelihoods).sum(axis=1) - kl.numpy()

"""Rows that are like none of those a model has learnt, by the density of latents and the decoder.

An encoder may put a strange row where known ones lie; but it cannot make the decoder draw it. And a
strange row that is decoded well may lie where no known one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from .arrays import as_rows
from .density import MixtureDensity
from .errors import InputError, NotFittedError
from .options import Kind, Number, Options, check_argument, in_words
from .reading import check_names, keep_names, names_in


class Autoencoder(Protocol):
    """What has latents of rows, and rows of latents: `serkit.modules.AE`, `VAE`, or your own."""

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Latents of rows: (N, ...) -> (N, D)."""

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Rows of latents: (N, D) -> (N, ...)."""


@dataclass(eq=False)
class Novelty(Options):
    """Refuses rows whose latents are unlikely, or whose reconstructions are bad.

    A row's two scores are -log p(z) of its latents and ``|G (x - decode(z))|^2``, its squared
    reconstruction error (G is a Gaussian filter where `smoothing` asks for one). Each is ranked
    among the scores of n rows held out of training, the highest first. The better of a row's two
    ranks r (Tippett's minimum) is itself compared with those of the held-out rows:
    ``p = (1 + #{i: r_i <= r}) / (n + 1)``.

    That is a conformal p-value (Vovk et al., 2005; Bates et al., 2023); held-out rows are ranked
    without the new row, whose presence could only worsen their ranks, so that p is not below the
    exact one. Of new rows drawn as the held-out ones were, at most a share `reject_quantile` is
    refused in the mean, whatever the model and however its two scores depend on each other.

    Parameters
    ----------
    smoothing : float
        Standard deviation, in pixels, of the filter over the last two axes of the error's images
        (N, H, W) or (N, C, H, W). What remains of known images is fine (noise, texture, edges),
        of strange ones it is whole strokes, which a filter keeps. 0, for no filter, where rows are
        no images.
    reject_quantile : float
        Share of rows like the held-out ones to refuse, in (0, 1).

    Attributes
    ----------
    autoencoder_, density_
        What `fit` was given, not copied: once they have learnt more, fit again.
    scores_ : np.ndarray of shape (n, 2)
        Of the held-out rows: -log p(z) in nats, and the reconstruction error.

    Examples
    --------
    >>> import serkit as srk
    >>> from serkit.modules import AE, GMM
    >>> train, test = srk.datasets.train_test_split(srk.datasets.load_digits())
    >>> known, held_out = train.images[:1200], train.images[1200:]
    >>> ae = AE(10, epochs=20, hidden_sizes=(64,), batch_size=64, random_state=0).fit(known)
    >>> gmm = GMM(10, random_state=0).fit(ae.encode(known))
    >>> novelty = srk.Novelty(smoothing=0.5).fit(ae, gmm.density(), held_out)
    >>> bool(novelty.is_novel(test.images).mean() < 0.1)
    True
    >>> bool(novelty.is_novel(1 - test.images).mean() > 0.99)  # in negative they are no digits
    True

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer (2005). *Algorithmic Learning in a Random World*.
    S. Bates et al. (2023). Testing for outliers with conformal p-values. *Annals of Statistics*
    51(1):149-178.
    """

    smoothing: Annotated[float, Number(at_least=0)] = 0.0
    reject_quantile: Annotated[float, Number(above=0, below=1)] = 0.05

    def fit(self, autoencoder: Autoencoder, density: MixtureDensity, x: ArrayLike) -> Self:
        """Rank rows by the scores of held-out ones from now on; returns self.

        Parameters
        ----------
        autoencoder : AE, VAE or any object with `encode` and `decode`
        density : MixtureDensity
            Of its latents, as `GMM.density` and `GMMClassifier.density` give it.
        x : array-like of shape (n, ...)
            Rows that neither has learnt from, at least ``3 / reject_quantile - 1``.

        Raises
        ------
        InputError
            For options out of range, too few rows, rows that are no images where `smoothing` is
            above 0, and a density of other dimensions than the latents.
        """
        self.check_options()
        check_argument(f"{self.label}.fit", "density", density, Kind(MixtureDensity))
        if not (hasattr(autoencoder, "encode") and hasattr(autoencoder, "decode")):
            raise InputError(
                f"{self.label}.fit: autoencoder must have encode and decode, as VAE has, got "
                f"{in_words(autoencoder)}"
            )
        rows = as_rows(x, f"{self.label}.fit")
        n_needed = 3 / self.reject_quantile - 1  # 3 / (n + 1) may be the least p
        if len(rows) < n_needed:
            raise InputError(
                f"{self.label}: reject_quantile={self.reject_quantile} needs at least "
                f"{n_needed:.0f} held-out rows, got {len(rows)}"
            )
        names = names_in(x, f"{self.label}.fit")
        scores = self._scores(autoencoder, density, rows)
        self.autoencoder_, self.density_, self.scores_ = autoencoder, density, scores
        keep_names(self, names)
        return self

    def p_value(self, x: ArrayLike) -> np.ndarray:
        """Share of held-out rows that are as strange as each row: (N, ...) -> (N,), in (0, 1].

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for rows that the autoencoder does not take.
        """
        if not hasattr(self, "scores_"):
            raise NotFittedError(
                f"{self.label} is not fitted yet: call fit(autoencoder, density, x)"
            )
        rows = as_rows(x, f"{self.label}.p_value")
        check_names(self, x, f"{self.label}.p_value")
        return p_values(self._scores(self.autoencoder_, self.density_, rows), self.scores_)

    def is_novel(self, x: ArrayLike) -> np.ndarray:
        """Whether each row is refused, its p-value at most `reject_quantile`: (N, ...) -> (N,)."""
        self.check_options()
        return self.p_value(x) <= self.reject_quantile

    def _scores(
        self, autoencoder: Autoencoder, density: MixtureDensity, rows: np.ndarray
    ) -> np.ndarray:
        """How unlikely latents are, and how bad reconstructions: (N, ...) -> (N, 2)."""
        if self.smoothing and rows.ndim < 3:
            raise InputError(
                f"{self.label}: smoothing={self.smoothing} needs images (N, H, W) or "
                f"(N, C, H, W), got rows of shape {rows.shape[1:]}; reshape them, or leave it 0"
            )
        if self.smoothing > max(rows.shape[-2:]):
            raise InputError(
                f"{self.label}: smoothing={self.smoothing} pixels is more than the images have, "
                f"{rows.shape[1:]}"
            )
        z = as_rows(autoencoder.encode(rows), f"{self.label}: latents of encode")
        if z.shape[1] != density.n_dims:
            raise InputError(
                f"{self.label}: the density is of {density.n_dims} dimensions, but the "
                f"autoencoder's latents have {z.shape[1]}"
            )
        decoded = as_rows(autoencoder.decode(z), f"{self.label}: rows of decode")
        if decoded.shape != rows.shape:
            raise InputError(
                f"{self.label}: decode gives rows of shape {decoded.shape[1:]} for rows of shape "
                f"{rows.shape[1:]}"
            )
        error = reconstruction_error(rows, decoded, self.smoothing)
        return np.column_stack([-density.log_prob(z), error])


def reconstruction_error(
    x: np.ndarray, reconstruction: np.ndarray, smoothing: float = 0.0
) -> np.ndarray:
    """``|G (x - reconstruction)|^2`` of each row, G a Gaussian filter over images: (N,)."""
    residual = np.asarray(x - reconstruction, dtype=np.float64)
    if smoothing:
        residual = gaussian_filter(residual, smoothing, axes=(-2, -1))
    return np.square(residual.reshape(len(x), -1)).sum(axis=1)


def p_values(scores: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Conformal p-values of rows by the better of their ranks: (N, S), (n, S) -> (N,).

    Every one of the S scores is high for strange rows.
    """
    best = 1 + n_as_high(scores, held_out).min(axis=1)  # ranks from 1 among n + 1 rows
    held_out_best = n_as_high(held_out, held_out).min(axis=1)  # and among n
    n_as_strange = np.searchsorted(np.sort(held_out_best), best, side="right")
    return (1 + n_as_strange) / (1 + len(held_out))


def n_as_high(scores: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """How many held-out rows are as high in each score, or higher: (N, S), (n, S) -> (N, S)."""
    pairs = zip(np.sort(held_out, axis=0).T, scores.T, strict=True)
    return len(held_out) - np.stack([np.searchsorted(*pair) for pair in pairs], axis=1)

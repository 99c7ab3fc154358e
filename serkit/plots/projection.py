"""Latents in two or three dimensions, to look at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ..arrays import as_rows
from ..errors import InputError
from ..options import Choice, check_argument
from ..reading import labels_in
from .style import one_per_row


def project(z: ArrayLike, labels: ArrayLike | None, projection: str, n_dims: int) -> np.ndarray:
    """Project latents onto few dimensions, (N, D) -> (N, n_dims); zeros where there are fewer.

    "pca": principal components; latents of n_dims or fewer dimensions stay as they are.
    "lda": linear discriminants, which part the classes `labels` (N,) most for their width (Fisher,
    1936). C classes have at most C - 1; principal components of what these leave out follow.
    """
    check_argument("plots", "projection", projection, Choice("pca", "lda"))
    rows = as_rows(z, "latents")
    if rows.ndim != 2:
        raise InputError(f"expected latents of shape (N, D), got {rows.shape}")
    if projection == "lda":
        rows = _discriminants(rows, labels, n_dims)
    elif rows.shape[1] > n_dims:
        rows = PCA(min(n_dims, len(rows)), random_state=0).fit_transform(rows)
    return np.pad(rows, ((0, 0), (0, n_dims - rows.shape[1])))


def _discriminants(z: np.ndarray, labels: ArrayLike | None, n_dims: int) -> np.ndarray:
    """The linear discriminants of z, then principal components of the rest, (N, <= n_dims)."""
    codes, classes = (None, ()) if labels is None else labels_in(labels, "labels")
    if codes is None or len(classes) < 2:
        raise InputError("projection='lda' needs labels of two classes or more; or use 'pca'")
    known = one_per_row(codes, len(z)) >= 0
    try:
        lda = LinearDiscriminantAnalysis().fit(z[known], codes[known])
        projected = lda.transform(z)[:, :n_dims]  # (N, n)
    except (ValueError, IndexError) as error:  # IndexError: z does not vary at all
        raise InputError(f"projection='lda' cannot part these labels, try 'pca': {error}") from None
    directions, _ = np.linalg.qr(lda.scalings_[:, : projected.shape[1]])  # (D, n)
    n_missing = min(n_dims, *z.shape) - projected.shape[1]
    if n_missing <= 0:
        return projected
    rest = z - z.mean(axis=0)
    rest = rest - rest @ directions @ directions.T  # (N, D)
    return np.hstack([projected, PCA(n_missing, random_state=0).fit_transform(rest)])

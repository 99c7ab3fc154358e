"""Latents in few dimensions, to look at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ..arrays import as_rows
from ..errors import InputError


def project(z: ArrayLike, labels: ArrayLike | None, projection: str, n_dims: int) -> np.ndarray:
    """Latents in few dimensions: (N, D) -> (N, n_dims).

    Parameters
    ----------
    z : array-like, shape (N, D)
    labels : array-like, shape (N,), optional
        Classes of the rows; only "lda" needs them.
    projection : {"pca", "lda"}
        "pca": principal components; latents of n_dims or fewer dimensions stay as they are.
        "lda": linear discriminants, which part the classes most for their width (Fisher, 1936).
        C classes have at most C - 1; principal components of what these leave out follow.
    n_dims : int
        Where there are fewer directions, columns of zeros follow.

    Raises
    ------
    InputError
        For another projection, or labels that discriminant analysis cannot use.
    """
    z = as_rows(z, "latents")
    if z.ndim != 2:
        raise InputError(f"expected latents of shape (N, D), got {z.shape}")
    if projection == "lda":
        z = _discriminants(z, labels, n_dims)
    elif projection != "pca":
        raise InputError(f"projection must be 'pca' or 'lda', got {projection!r}")
    elif z.shape[1] > n_dims:
        z = PCA(min(n_dims, len(z))).fit_transform(z)
    return np.pad(z, ((0, 0), (0, n_dims - z.shape[1])))


def _discriminants(z: np.ndarray, labels: ArrayLike | None, n_dims: int) -> np.ndarray:
    """The linear discriminants of z, then principal components of the rest, (N, <= n_dims)."""
    if labels is None or len(np.unique(labels)) < 2:
        raise InputError("projection='lda' needs labels of two classes or more; or use 'pca'")
    labels = one_a_row(labels, len(z))
    try:
        lda = LinearDiscriminantAnalysis().fit(z, labels)
        found = lda.transform(z)[:, :n_dims]  # (N, n)
    except (ValueError, IndexError) as error:  # IndexError: z does not vary at all
        raise InputError(f"projection='lda' cannot part these labels, try 'pca': {error}") from None
    directions, _ = np.linalg.qr(lda.scalings_[:, : found.shape[1]])  # (D, n)
    rest = z - z.mean(axis=0)
    rest = rest - rest @ directions @ directions.T  # (N, D)
    n_missing = min(n_dims, *z.shape) - found.shape[1]
    return np.hstack([found, PCA(n_missing).fit_transform(rest)]) if n_missing > 0 else found


def one_a_row(groups: ArrayLike, n_rows: int) -> np.ndarray:
    """Labels or clusters as an array (N,), after a check of their number."""
    groups = np.asarray(groups)
    if groups.shape != (n_rows,):
        raise InputError(f"expected a label for each of {n_rows} rows, got shape {groups.shape}")
    return groups

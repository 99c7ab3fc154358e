"""Latents in two or three dimensions, to look at them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ..arrays import as_rows
from ..errors import InputError
from ..options import Choice, called, check_argument
from ..reading import labels_in
from .style import one_per_row

PROJECTIONS = ("pca", "lda", "umap", "tsne")
LINEAR = ("pca", "lda")
Projection = str | Callable[[np.ndarray], ArrayLike]


def name_of(projection: Projection) -> str:
    """What the axes of a projection are called."""
    names = {"umap": "UMAP", "tsne": "t-SNE"}
    if isinstance(projection, str):
        return names.get(projection, projection.upper())
    return getattr(projection, "__name__", type(projection).__name__).strip("<>")


def project(
    z: ArrayLike, labels: ArrayLike | None, projection: Projection, n_dims: int
) -> np.ndarray:
    """Project latents onto few dimensions, (N, D) -> (N, n_dims); zeros where there are fewer.

    "pca": principal components; latents of n_dims or fewer dimensions stay as they are.
    "lda": linear discriminants, which part the classes `labels` (N,) most for their width (Fisher,
    1936). C classes have at most C - 1; principal components of what these leave out follow.
    "umap": neighbours stay neighbours (McInnes et al., 2018); needs umap-learn. "tsne": the same,
    by scikit-learn (van der Maaten and Hinton, 2008). A function gets z and returns (N, n_dims).
    """
    range_ = Choice(*PROJECTIONS, or_function_of=("z",))
    check_argument("plots", "projection", projection, range_)
    rows = as_rows(z, "latents")
    if rows.ndim != 2:
        raise InputError(f"expected latents of shape (N, D), got {rows.shape}")
    if callable(projection):
        return _by_function(rows, projection, n_dims)
    if projection in ("umap", "tsne") and rows.shape[1] > n_dims:
        rows = by_neighbours(rows, projection, n_dims)
    elif projection == "lda":
        rows = _discriminants(rows, labels, n_dims)
    elif rows.shape[1] > n_dims:
        rows = PCA(min(n_dims, len(rows)), random_state=0).fit_transform(rows)
    return np.pad(rows, ((0, 0), (0, n_dims - rows.shape[1])))


def linear_map(z: ArrayLike, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a linear projection of z (N, D) is: projected = z A + b, A (D, n) and b (n,)."""
    rows = as_rows(z, "latents").astype(float)
    middle, target = rows.mean(axis=0), projected.mean(axis=0)
    matrix, *_ = np.linalg.lstsq(rows - middle, projected - target, rcond=None)
    return matrix, target - middle @ matrix


def _by_function(rows: np.ndarray, function: Callable, n_dims: int) -> np.ndarray:
    projected = called("plots: projection", function, rows)
    array = as_rows(projected, "plots: what projection returns")
    if array.shape != (len(rows), n_dims):
        raise InputError(
            f"plots: projection must return shape ({len(rows)}, {n_dims}), got {array.shape}"
        )
    return array


def by_neighbours(rows: np.ndarray, projection: str, n_dims: int) -> np.ndarray:
    """Rows (N, D) by "umap" or "tsne", (N, n_dims); few rows have few neighbours."""
    n_neighbours = min(15, len(rows) - 1)
    if n_neighbours < 3:
        raise InputError(f"projection={projection!r} needs 4 rows or more, got {len(rows)}")
    if projection == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise ImportError(
                "projection='umap' needs umap-learn: pip install umap-learn"
            ) from None
        start = (
            "spectral" if len(rows) > 2 * n_dims + 4 else "random"
        )  # of few there is no spectrum
        options = {"n_neighbors": n_neighbours, "init": start, "random_state": 0, "n_jobs": 1}
        reducer = UMAP(n_components=n_dims, **options)
    else:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(rows) - 1) / 3)
        reducer = TSNE(n_dims, perplexity=perplexity, init="pca", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it does by itself
        return reducer.fit_transform(rows)


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

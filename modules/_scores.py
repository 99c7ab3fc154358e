"""Scores of clusters against known labels, where processes share the rows too."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .. import processes
from ..metrics import clustering_scores


def scores_of(
    labels: ArrayLike | None, clusters: np.ndarray, seen: np.ndarray | None = None
) -> dict[str, float]:
    """Accuracy, NMI and ARI over the rows of all processes; none without labels.

    Parameters
    ----------
    labels : array-like of shape (N,), optional
        Classes of all rows.
    clusters : np.ndarray of int, shape (n,)
        Of the rows of this process that count.
    seen : np.ndarray of bool, optional
        Which of its rows those are, unless all.
    """
    if labels is None:
        return {}
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    own = processes.own(codes, len(clusters) if seen is None else len(seen))
    return clustering_scores(*processes.pairs(own if seen is None else own[seen], clusters))

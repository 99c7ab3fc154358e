"""Data made up for labels."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError


def make_counts(
    labels: ArrayLike,
    n_words: int = 50,
    n_tokens: int = 100,
    *,
    concentration: float = 10.0,
    random_state: int = 0,
) -> np.ndarray:
    """Make up a second modality for labelled rows: counts of words that depend on the class.

    Each class has its own distribution over the words, drawn from a symmetric Dirichlet, and each
    row draws its words from that of its class. By default the classes are alike enough that who
    knows their distributions still mistakes about one row in ten among ten classes.

    Parameters
    ----------
    labels : array-like, shape (N,)
    n_words : int
        Number of different words V, at least 2.
    n_tokens : int
        Number of words a row, which its counts add up to.
    concentration : float
        Of the Dirichlet, above 0; the higher, the more alike the classes.
    random_state : int

    Returns
    -------
    np.ndarray, shape (N, n_words)
        float32.

    Raises
    ------
    InputError
        For labels that are not one a row, or a number out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise InputError(f"expected one label a row, shape (N,), got {labels.shape}")
    for name, value, least in (("n_words", n_words, 2), ("n_tokens", n_tokens, 1)):
        if not isinstance(value, Integral) or value < least:
            raise InputError(f"{name} must be an integer >= {least}, got {value!r}")
    if not isinstance(concentration, Real) or not 0 < concentration < np.inf:
        raise InputError(f"concentration must be a number > 0, got {concentration!r}")
    if not isinstance(random_state, Integral) or random_state < 0:
        raise InputError(f"random_state must be an integer >= 0, got {random_state!r}")
    classes, index = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(random_state)
    words = rng.dirichlet(np.full(n_words, float(concentration)), len(classes))  # (C, V)
    return rng.multinomial(n_tokens, words[index]).astype(np.float32)

"""MLDA's constructor arguments: their checks, and the fitting problem they make of given counts."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import InputError
from ..messages import Message
from ._counts import with_tokens
from ._lda import Problem
from ._mixture_options import check_labels
from ._options import check_count, check_number, check_option, check_random_state


def check_options(module: Any, n_parents: int, n_rows: int) -> None:
    """Raise InputError for arguments that cannot work with so many parents and rows."""
    check_count(module, "n_components", "n_init", "max_iter")
    check_random_state(module, module.random_state)
    check_option(module, "inference", ("cvb0", "gibbs"))
    check_number(module, "tol", at_least=0)
    for name in ("doc_topic_prior", "topic_word_prior"):
        if getattr(module, name) is not None:
            check_number(module, name, above=0)
    if module.n_components > n_rows:
        raise InputError(
            f"{module.label}: n_components={module.n_components} is more than the {n_rows} rows"
        )
    check_labels(module, n_rows)
    if module.weights is not None and not _are_weights(module.weights, n_parents):
        raise InputError(
            f"{module.label}: weights must be a list of {n_parents} numbers > 0 or None, one a "
            f"modality, got {module.weights!r:.60}"
        )


def _are_weights(weights: Any, n_parents: int) -> bool:
    listed = isinstance(weights, Sequence) and len(weights) == n_parents
    return listed and all(w is None or (isinstance(w, Real) and 0 < w < np.inf) for w in weights)


def doc_topic_prior(module: Any) -> float:
    """The argument, or its default."""
    return 1 / module.n_components if module.doc_topic_prior is None else module.doc_topic_prior


def make_problem(module: Any, parts: Sequence[sparse.csr_array], prior: Message | None) -> Problem:
    """What MLDA with these arguments has to solve on the modalities' counts.

    Raises
    ------
    InputError
        For a message of another number of classes.
    """
    k = module.n_components
    row_prior = np.ones((parts[0].shape[0], k))
    if prior is not None:
        if prior.shape != (k,):
            raise InputError(
                f"{module.label}: its children sent probabilities of {prior.shape[0]} classes for "
                f"n_components={k}"
            )
        top = prior.log_prob.max(axis=1, keepdims=True)
        row_prior = np.exp(prior.log_prob - top)  # exactly 1 where it is uniform
    weights = module.weights or [None] * len(parts)
    weighted = [with_tokens(part, weight) for part, weight in zip(parts, weights, strict=True)]
    return Problem(
        sparse.hstack(weighted, format="csr"),
        tuple(part.shape[1] for part in parts),
        row_prior,
        doc_topic_prior(module),
        1 / k if module.topic_word_prior is None else module.topic_word_prior,
        module.max_iter,
        module.tol,
    )

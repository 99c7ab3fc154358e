"""Stepwise EM: a Gaussian mixture learnt from batches that come one after the other.

O. Cappé, E. Moulines (2009). On-line expectation-maximization algorithm for latent data models.
*Journal of the Royal Statistical Society B* 71(3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..density import DIAGONAL_TYPES, MixtureDensity
from ._em import Problem
from ._features import packed

_DECAY = 0.6  # between 0.5 and 1 the steps add up to infinity and their squares do not


@dataclass(frozen=True)
class Stream:
    """What is kept of all batches so far.

    Attributes
    ----------
    sums : (K, F)
        Statistics a row.
    centre : (D,)
        Mean of the rows fitted first: what statistics are about, and where the prior stands.
    weight : float
        Number of rows so far.
    n_batches : int
    """

    sums: np.ndarray
    centre: np.ndarray
    weight: float
    n_batches: int


def stream_of(density: MixtureDensity, n_rows: int) -> Stream:
    """What a mixture that was fitted to n_rows rows says of them, as the first batch."""
    centre = density.weights @ density.means
    x, diagonal = density.means - centre, density.covariance_type in DIAGONAL_TYPES
    if diagonal:
        second = density.variances() + x**2
    else:
        second = packed(density.full_covariances() + x[:, :, None] * x[:, None], diagonal)
    features = np.concatenate([second, x, np.ones((len(x), 1))], axis=1)  # (K, F)
    return Stream(density.weights[:, None] * features, centre, float(n_rows), 1)


def learn_batch(
    problem: Problem, density: MixtureDensity, stream: Stream, step_size: float | None
) -> tuple[MixtureDensity, Stream, float]:
    """One step: new mixture, new stream, and the batch's log-likelihood a row before it.

    Statistics become ``(1 - s) old + s new`` with s = (t + 1)^-0.6 for batch t = 2, 3, ... unless
    `step_size` gives s. The M-step takes them as those of all rows so far, against which a prior
    weighs less and less.
    """
    found = problem.expect(density)
    t = stream.n_batches + 1
    share = (t + 1) ** -_DECAY if step_size is None else step_size
    sums = (1 - share) * stream.sums + share * found.sums / found.weight
    stream = Stream(sums, stream.centre, stream.weight + found.weight, t)
    whole = replace(found, sums=stream.weight * sums)
    return problem.maximise(whole), stream, found.log_likelihood / found.weight

"""Stepwise EM: a Gaussian mixture learnt from batches that come one after the other.

O. Cappé, E. Moulines (2009). On-line expectation-maximization algorithm for latent data models.
*Journal of the Royal Statistical Society B* 71(3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..density import MixtureDensity
from ._em import Problem
from ._statistics import Statistics

_DECAY = 0.6  # between 0.5 and 1 the steps add up to infinity and their squares do not


@dataclass(frozen=True)
class Stream:
    """What is kept of all batches so far.

    Attributes
    ----------
    sums : (K, F)
        Statistics a row.
    centre : (D,)
        Mean of the first batch: what statistics are about, and where the prior stands.
    weight : float
        Number of rows so far.
    n_batches : int
    """

    sums: np.ndarray
    centre: np.ndarray
    weight: float
    n_batches: int


def learn_batch(
    problem: Problem, parameters: MixtureDensity, stream: Stream | None, step_size: float | None
) -> tuple[MixtureDensity, Stream, float]:
    """One step: new parameters, new stream, and the batch's log-likelihood a row before it.

    Statistics become ``(1 - s) old + s new`` with s = (t + 1)^-0.6 for batch t = 1, 2, ... unless
    `step_size` gives s; the first batch's count whole. The M-step takes them as those of all rows
    so far, against which a prior weighs less and less.
    """
    found = problem.expect(parameters)
    new = found.sums / found.weight
    if stream is None:
        stream = Stream(new, found.centre, found.weight, 1)
    else:
        t = stream.n_batches + 1
        share = (t + 1) ** -_DECAY if step_size is None else step_size
        sums = (1 - share) * stream.sums + share * new
        stream = replace(stream, sums=sums, weight=stream.weight + found.weight, n_batches=t)
    whole: Statistics = replace(found, sums=stream.sums, weight=1.0).scaled(stream.weight)
    return problem.maximise(whole), stream, found.log_likelihood / found.weight

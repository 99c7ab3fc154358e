"""Ways from one latent to another, and random walks over a mixture.

Rows that are not finite or not of the same shape, and numbers out of range, raise InputError.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from .density import MixtureDensity
from .errors import InputError
from .options import Count, Kind, Number, RandomState, as_numbers, check_argument, generator_of

_PARALLEL = 1e-8  # sine of an angle


def straight(start: ArrayLike, end: ArrayLike, n_steps: int) -> np.ndarray:
    """The straight line, in even steps.

    Parameters
    ----------
    start, end : array-like, shape (...)
        Latents (D,), or anything else of equal shapes, such as images.
    n_steps : int
        Number of points, both ends included; at least 2.

    Returns
    -------
    np.ndarray, shape (n_steps, ...)

    Examples
    --------
    >>> from serkit import paths
    >>> paths.straight([0, 0], [2, 4], n_steps=3)
    array([[0., 0.],
           [1., 2.],
           [2., 4.]])
    """
    return _line("paths.straight", start, end, n_steps)


def spherical(
    start: ArrayLike, end: ArrayLike, n_steps: int, *, centre: ArrayLike | None = None
) -> np.ndarray:
    """The arc about a centre, in even angles, with radii that go evenly from end to end.

    ``centre + r(t) (sin((1 - t) w) a + sin(t w) b) / sin(w)`` with the ends' unit directions a
    and b and the angle w between them (Shoemake, 1985). Under N(0, I) in many dimensions all rows
    lie near a sphere, which the straight line leaves and the arc does not (White, 2016,
    "Sampling generative networks"). Directions that are equal, or opposite so that no arc is the
    shortest, or that an end at the centre lacks, give the straight line.

    Parameters
    ----------
    start, end, n_steps
        As for `straight`, as is what is returned.
    centre : array-like, shape (...), optional
        0 unless given.

    Examples
    --------
    >>> from serkit import paths
    >>> paths.spherical([3, 0], [0, 3], n_steps=3).round(2)
    array([[3.  , 0.  ],
           [2.12, 2.12],
           [0.  , 3.  ]])
    """
    line = _line("paths.spherical", start, end, n_steps)
    middle = np.zeros(line.shape[1:]) if centre is None else centre
    middle = _as_shaped("paths.spherical", "centre", middle, line.shape[1:], "start")
    largest = max(np.abs(line).max(initial=0), np.abs(middle).max(initial=0))
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)  # a power of 2, so that nothing is rounded
    line, middle = line / unit, middle / unit
    a, b = (line[0] - middle).ravel(), (line[-1] - middle).ravel()
    radii = np.linalg.norm(a), np.linalg.norm(b)
    a, b = a * radii[1], b * radii[0]  # of equal length, by which Kahan's angle is exact
    angle = 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    if np.sin(angle) < _PARALLEL:
        return line * unit
    t = np.linspace(0, 1, n_steps)[:, None]
    arc = np.sin((1 - t) * angle) * a + np.sin(t * angle) * b  # (n_steps, D)
    radius = np.linspace(*radii, n_steps)[:, None] / (np.sin(angle) * radii[0] * radii[1])
    line[1:-1] = middle + (radius * arc).reshape(line.shape)[1:-1]
    with np.errstate(over="ignore"):
        arc = line * unit
    if not np.isfinite(arc).all():
        raise InputError(f"paths.spherical: the arc leaves floating point near {largest:g}")
    return arc


def densest(
    start: ArrayLike,
    end: ArrayLike,
    n_steps: int,
    density: MixtureDensity,
    *,
    stiffness: float = 10.0,
    max_iter: int = 500,
) -> np.ndarray:
    """A path through where the mixture is dense.

    Maximises ``mean_i log p(z_i) - stiffness E``: the mean log density of the points between the
    ends, less a price on the energy ``E = (n - 1) sum_i |z_i+1 - z_i|^2 / |end - start|^2``, which
    is 1 for the straight line, its minimum, and grows with length and uneven steps. The search
    (L-BFGS) climbs from the straight line to a local maximum, so the mean log density never falls
    below that line's. From a point to itself the path stays there.

    Parameters
    ----------
    start, end : array-like, shape (D,)
    n_steps : int
        Number of points, both ends included; at least 2.
    density : MixtureDensity
    stiffness : float
        In nats, at least 0: how much mean log density must be gained for E to grow by 1. Low
        values bunch the points where it is dense; high ones give the straight line.
    max_iter : int
        Of the search.

    Returns
    -------
    np.ndarray, shape (n_steps, D)

    Examples
    --------
    From end to end of a half circle, whose middle, 0, the straight line crosses:

    >>> import numpy as np
    >>> from serkit import MixtureDensity, paths
    >>> angle = np.linspace(0, np.pi, 7)
    >>> means = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> density = MixtureDensity(np.full(7, 1 / 7), means, np.full(7, 0.1), "spherical")
    >>> path = paths.densest(means[0], means[-1], 9, density, stiffness=3)
    >>> bool(np.linalg.norm(path, axis=1).min() > 2)
    True
    """
    label = "paths.densest"
    check_argument(label, "density", density, Kind(MixtureDensity))
    line = _line(label, start, end, n_steps)
    _as_shaped(label, "start", line[0], (density.n_dims,), "the mixture's rows")
    check_argument(label, "max_iter", max_iter, Count())
    check_argument(label, "stiffness", stiffness, Number(at_least=0))
    with np.errstate(over="ignore"):  # the density says of such ends that they are too far
        squared_length = ((line[-1] - line[0]) ** 2).sum()
    if n_steps == 2 or squared_length < np.finfo(np.float64).tiny:
        return line
    price = stiffness * (n_steps - 1) / squared_length

    def cost(inner: np.ndarray) -> tuple[float, np.ndarray]:
        inner = inner.reshape(-1, density.n_dims)
        steps = np.diff(inner, axis=0, prepend=line[:1], append=line[-1:])  # (n - 1, D)
        log_prob, gradient = density.log_prob_and_gradient(inner)
        value = price * (steps**2).sum() - log_prob.mean()
        slope = -2 * price * np.diff(steps, axis=0) - gradient / len(inner)
        return value, slope.ravel()

    options = {"maxiter": max_iter}
    best = minimize(cost, line[1:-1].ravel(), jac=True, method="L-BFGS-B", options=options)
    line[1:-1] = best.x.reshape(-1, density.n_dims)
    return line


class Walk(NamedTuple):
    """A random walk.

    Attributes
    ----------
    rows : np.ndarray, shape (n_steps, D)
        Where it was, the start first; a rejected proposal repeats the row before.
    acceptance : float
        Fraction of proposals accepted, in [0, 1].

    Examples
    --------
    >>> from serkit import MixtureDensity, paths
    >>> normal = MixtureDensity([1.0], [[0.0, 0.0]], [1.0], "spherical")
    >>> rows, acceptance = paths.langevin(normal, 50, start=[0, 0], random_state=0)
    >>> rows.shape, 0.5 < acceptance <= 1
    ((50, 2), True)
    """

    rows: np.ndarray
    acceptance: float


class _State(NamedTuple):
    """Where a walk is, and what its next step needs to know of the density there."""

    row: np.ndarray  # (D,)
    log_prob: float
    pull: np.ndarray  # (D,), the gradient in units of the preconditioner


def langevin(
    density: MixtureDensity,
    n_steps: int,
    *,
    start: ArrayLike | None = None,
    step_size: float | None = None,
    random_state: RandomState = None,
) -> Walk:
    """A random walk whose rows are, in the long run, distributed as the mixture.

    The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie, 1996): from z it proposes
    ``z + h/2 M grad log p(z) + sqrt(h) M^(1/2) noise`` and accepts by the exact ratio, so that the
    mixture is its stationary distribution at any step size h. The preconditioner ``M = (sum_k pi_k
    Sigma_k^-1)^-1`` makes h the same for any scale of the latents and suits narrow components too;
    it is the inverse Fisher information (optimal: Titsias, 2023) of components far apart, between
    which a walk seldom crosses.

    Parameters
    ----------
    density : MixtureDensity
    n_steps : int
        Number of rows, at least 2.
    start : array-like, shape (D,), optional
        The first row; drawn from the mixture unless given.
    step_size : float, optional
        The step size h > 0, in units of M. Unless given ``1.65^2 / (2 D^(1/3))``: half of what is
        best for one Gaussian (acceptance 0.574; Roberts and Rosenthal, 1998), as components differ.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        The same seed gives the same walk.
    """
    label = "paths.langevin"
    check_argument(label, "density", density, Kind(MixtureDensity))
    check_argument(label, "n_steps", n_steps, Count(at_least=2, each=density.n_dims))
    check_argument(label, "step_size", step_size, Number(above=0, or_none=True))
    h = step_size or 1.65**2 / (2 * np.cbrt(density.n_dims))
    rng = generator_of(label, random_state)
    first = density.sample(1, rng)[0][0] if start is None else start
    first = _as_shaped(label, "start", first, (density.n_dims,), "the mixture's rows")
    precisions = np.linalg.inv(density.full_covariances())  # (K, D, D)
    preconditioner = np.linalg.inv(np.einsum("k,kde->de", density.weights, precisions))
    scale = np.linalg.cholesky(preconditioner)
    states = [_state(density, first, scale)]
    for _ in range(n_steps - 1):
        states.append(_langevin_step(density, states[-1], scale, h, rng))
    n_accepted = sum(after is not before for before, after in pairwise(states))
    return Walk(np.array([state.row for state in states]), n_accepted / (n_steps - 1))


def _langevin_step(
    density: MixtureDensity, state: _State, scale: np.ndarray, h: float, rng: np.random.Generator
) -> _State:
    """The proposed state if it is accepted, else the same one again."""
    noise = rng.standard_normal(density.n_dims)
    step = h / 2 * state.pull + np.sqrt(h) * noise
    proposed = _state(density, state.row + scale @ step, scale)
    noise_back = (step + h / 2 * proposed.pull) / np.sqrt(h)  # of the way back
    log_ratio = proposed.log_prob - state.log_prob + (noise @ noise - noise_back @ noise_back) / 2
    return proposed if -rng.standard_exponential() < log_ratio else state


def _state(density: MixtureDensity, row: np.ndarray, scale: np.ndarray) -> _State:
    """The state of a walk at a row (D,)."""
    log_prob, gradient = density.log_prob_and_gradient(row[None])
    return _State(row, log_prob[0], gradient[0] @ scale)


def _line(label: str, start: ArrayLike, end: ArrayLike, n_steps: int) -> np.ndarray:
    """The straight line between checked ends, (n_steps, ...)."""
    first = as_numbers(label, "start", start)
    check_argument(label, "n_steps", n_steps, Count(at_least=2, each=max(first.size, 1)))
    last = _as_shaped(label, "end", end, first.shape, "start")
    return np.linspace(first / 2, last / 2, n_steps) * 2  # their difference may be beyond floats


def _as_shaped(label: str, name: str, value: ArrayLike, shape: tuple, like: str) -> np.ndarray:
    """An argument as finite numbers of a shape, which `like` has."""
    array = as_numbers(label, name, value)
    if array.shape == shape:
        return array
    raise InputError(f"{label}: {name} must be of the shape {shape} of {like}, got {array.shape}")

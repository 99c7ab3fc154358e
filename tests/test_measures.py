"""Entropies and divergences against closed forms of torch.distributions and quadrature.

pytest's default tolerance, 1e-6, stands where float64 alone errs (1e-16) and matrices are of a
condition below 1e6; other tolerances say what they allow for.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import distributions as dist

from serkit import measures
from serkit.density import combine
from serkit.errors import InputError
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, some_density

GRID = np.linspace(-40, 40, 8_001)  # steps of 0.01: deviations are above 0.5
ESTIMATES = {
    "entropy": lambda p, q, **options: measures.entropy(p, **options),
    "kl": measures.kl,
    "jensen_shannon": measures.jensen_shannon,
}
BOUNDS = {
    "entropy": lambda p, q: measures.entropy_bounds(p),
    "kl": measures.kl_bounds,
    "jensen_shannon": measures.jensen_shannon_bounds,
}

all_measures = pytest.mark.parametrize("name", ESTIMATES)
divergences = pytest.mark.parametrize("name", ["kl", "jensen_shannon"])


def on_a_line(seed, k=3):
    """A mixture in one dimension, its components from one heap to well apart."""
    return some_density(seed=seed, k=k, d=1, spread=np.random.default_rng(seed).uniform(0.1, 6.0))


def by_quadrature(name, p, q):
    log_p, log_q = (oracles.log_density_on(GRID, density) for density in (p, q))
    log_m = np.logaddexp(log_p, log_q) - np.log(2)

    def expected(log_ratio, log_density):
        return np.trapezoid(np.exp(log_density) * log_ratio, GRID)

    return {
        "entropy": lambda: -expected(log_p, log_p),
        "kl": lambda: expected(log_p - log_q, log_p),
        "jensen_shannon": lambda: (
            (expected(log_p - log_m, log_p) + expected(log_q - log_m, log_q)) / 2
        ),
    }[name]()


# -- estimates ---------------------------------------------------------------------------------


@all_measures
@pytest.mark.parametrize("seed", range(5))
def test_estimates_equal_quadrature(name, seed):
    p, q = on_a_line(seed), on_a_line(seed + 100, k=2)
    found = ESTIMATES[name](p, q)
    assert abs(found.value - by_quadrature(name, p, q)) < 5 * found.standard_error


@all_types
def test_estimates_of_single_gaussians_equal_their_closed_forms(covariance_type):
    p, q = (some_density(covariance_type, seed, k=1) for seed in (1, 2))
    first, second = (oracles.torch_mixture(density).component_distribution for density in (p, q))
    entropy, divergence = measures.entropy(p), measures.kl(p, q)
    assert abs(entropy.value - first.entropy().item()) < 5 * entropy.standard_error
    expected = dist.kl_divergence(first, second).item()
    assert abs(divergence.value - expected) < 5 * divergence.standard_error


@all_measures
def test_standard_errors_are_honest(name):
    """Over 300 seeds, errors in units of their standard errors have mean 0 and deviation 1."""
    p, q = on_a_line(1), on_a_line(2)
    truth = by_quadrature(name, p, q)
    found = [ESTIMATES[name](p, q, n_samples=500, random_state=s) for s in range(300)]
    scores = np.array([(value - truth) / error for value, error in found])
    assert oracles.within(scores, 0)
    assert oracles.within(scores**2, 1)


@all_measures
def test_more_samples_tell_more(name):
    p, q = some_density(seed=1), some_density(seed=2)
    few, many = (ESTIMATES[name](p, q, n_samples=n).standard_error for n in (1_000, 16_000))
    assert few / many == pytest.approx(4, rel=0.3)  # a deviation of 1,000 draws with heavy tails


@all_measures
def test_estimates_repeat_by_seed(name):
    p, q = some_density(seed=1), some_density(seed=2)
    estimate = partial(ESTIMATES[name], p, q, n_samples=100)
    assert estimate() == estimate(random_state=0) == estimate(random_state=np.random.default_rng(0))
    assert estimate() != estimate(random_state=1)


@divergences
def test_nothing_diverges_from_itself(name):
    p = some_density()
    again = p.permuted(np.array([1, 2, 0]))
    assert ESTIMATES[name](p, p) == pytest.approx((0, 0))
    assert ESTIMATES[name](p, again) == pytest.approx((0, 0))


def test_jensen_shannon_is_symmetric():
    p, q = some_density(seed=1), some_density(seed=2)
    there, back = measures.jensen_shannon(p, q), measures.jensen_shannon(q, p, random_state=1)
    error = np.hypot(there.standard_error, back.standard_error)
    assert abs(there.value - back.value) < 5 * error


def test_jensen_shannon_of_mixtures_far_apart_is_log_2():
    p = some_density()
    q = replace(p, means=p.means + 1e3)
    assert measures.jensen_shannon(p, q).value == pytest.approx(np.log(2))
    assert measures.jensen_shannon_bounds(p, q)[1] == np.log(2)


def test_pairwise_measures_every_ordered_pair():
    densities = [some_density(seed=seed) for seed in range(3)]
    measure = partial(measures.kl, n_samples=50)
    found = measures.pairwise(densities, measure)
    for i, p in enumerate(densities):
        for j, q in enumerate(densities):
            assert found[i, j] == (0 if i == j else measure(p, q).value)


# -- bounds ------------------------------------------------------------------------------------


@all_measures
def test_bounds_hold_for_many_mixtures(name):
    for seed in range(60):
        p, q = on_a_line(seed, k=1 + seed % 4), on_a_line(seed + 100, k=1 + seed // 4 % 4)
        lower, upper = BOUNDS[name](p, q)
        error = 1e-6  # of the quadrature, and more than float64's where a bound is exact
        assert lower - error <= by_quadrature(name, p, q) <= upper + error


@all_measures
@all_types
def test_bounds_hold_in_more_dimensions(name, covariance_type):
    p, q = some_density(covariance_type, d=5), some_density("full", seed=2, k=2, d=5)
    lower, upper = BOUNDS[name](p, q)
    value, error = ESTIMATES[name](p, q)
    assert lower - 5 * error <= value <= upper + 5 * error


@all_types
@pytest.mark.parametrize("d", [1, 4])
def test_bounds_of_single_gaussians_are_exact(covariance_type, d):
    p, q = (some_density(covariance_type, seed, k=1, d=d) for seed in (1, 2))
    first, second = (oracles.torch_mixture(density).component_distribution for density in (p, q))
    assert measures.entropy_bounds(p) == pytest.approx([first.entropy().item()] * 2)
    assert measures.kl_bounds(p, q)[1] == pytest.approx(dist.kl_divergence(first, second).item())
    assert measures.kl_bounds(p, p) == pytest.approx((0, 0), abs=1e-12)  # terms of about 1 cancel


def test_entropy_of_components_far_apart_is_known():
    """It is that of the components plus that of the weights."""
    p = replace(some_density(), means=np.array([[0.0, 0], [1e3, 0], [0, 1e3]]))
    components = oracles.torch_mixture(p)
    within = components.component_distribution.entropy() @ torch.tensor(p.weights)
    expected = within + components.mixture_distribution.entropy()
    assert measures.entropy_bounds(p) == pytest.approx([expected.item()] * 2)


def test_components_in_one_place_add_nothing_to_the_bounds():
    one = some_density(k=1)
    three = combine([one] * 3, [0.2, 0.3, 0.5])
    assert measures.entropy_bounds(three) == pytest.approx(measures.entropy_bounds(one))
    other = some_density(seed=2)
    assert measures.kl_bounds(three, other) == pytest.approx(measures.kl_bounds(one, other))
    assert measures.kl_bounds(other, three) == pytest.approx(measures.kl_bounds(other, one))


def gaussians(density):
    each = [density.component(k) for k in range(density.n_components)]
    return [oracles.torch_mixture(component).component_distribution for component in each]


def pairs(p, q, similarity):
    """similarity(p_a, q_b) of every pair of components, (A, B)."""
    return np.array([[similarity(a, b).item() for b in gaussians(q)] for a in gaussians(p)])


def log_overlap(a, b):
    summed = a.covariance_matrix + b.covariance_matrix
    return dist.MultivariateNormal(b.mean, summed).log_prob(a.mean)


def log_bhattacharyya(a, b):
    """Minus an eighth of the squared distance and half the log ratio of volumes (Kailath, 1967)."""
    middle, offset = (a.covariance_matrix + b.covariance_matrix)[0] / 2, (a.mean - b.mean)[0]
    log_dets = [torch.logdet(x.covariance_matrix[0]) for x in (a, b)]
    squared = offset @ torch.linalg.solve(middle, offset)
    return -squared / 8 - (torch.logdet(middle) - sum(log_dets) / 2) / 2


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_equal_their_definitions(seed, d, spread):
    """Among them are mixtures at which each of the two bounds on either side is the tighter."""
    p = some_density(seed=seed, d=d, spread=spread)
    q = some_density(seed=seed + 100, k=2, d=d, spread=spread)

    def mixed(q, similarity):
        return p.weights @ np.log(np.exp(pairs(p, q, similarity)) @ q.weights)

    within = p.weights @ oracles.torch_mixture(p).component_distribution.entropy().numpy()
    widest = dist.MultivariateNormal(torch.tensor(p.mean()), torch.tensor(p.covariance()))
    lower = max(-mixed(p, log_overlap), within - mixed(p, log_bhattacharyya))
    kolchinsky = within - mixed(p, lambda a, b: -dist.kl_divergence(a, b))
    upper = min(kolchinsky, widest.entropy().item())
    assert measures.entropy_bounds(p) == pytest.approx((lower, upper))
    least = -mixed(q, log_overlap) - upper
    most = within - mixed(q, lambda a, b: -dist.kl_divergence(a, b)) - lower
    assert measures.kl_bounds(p, q) == pytest.approx((max(least, 0), most))


@pytest.mark.parametrize("seed", range(10))
def test_upper_bounds_are_never_above_simpler_ones(seed):
    """Huber et al.'s for the entropy, and convexity's for the divergence."""
    p, q = some_density(seed=seed), some_density(seed=seed + 100)
    entropies = oracles.torch_mixture(p).component_distribution.entropy().numpy()
    assert measures.entropy_bounds(p)[1] <= p.weights @ (entropies - np.log(p.weights))
    convexity = p.weights @ pairs(p, q, dist.kl_divergence) @ q.weights
    assert measures.kl_bounds(p, q)[1] <= convexity


@all_measures
def test_order_of_components_never_matters_to_the_bounds(name):
    p, q = some_density(seed=1), some_density(seed=2)
    moved = p.permuted(np.array([2, 0, 1])), q.permuted(np.array([1, 0, 2]))
    assert BOUNDS[name](*moved) == pytest.approx(BOUNDS[name](p, q))


@all_measures
@all_types
def test_shape_of_covariances_never_matters_to_the_bounds(name, covariance_type):
    p, q = (some_density(covariance_type, seed) for seed in (1, 2))
    full = [replace(d, covariances=d.full_covariances(), covariance_type="full") for d in (p, q)]
    expected = pytest.approx(BOUNDS[name](p, q), abs=1e-12)  # some are 0
    assert BOUNDS[name](*full) == expected
    assert BOUNDS[name](full[0], q) == expected


@divergences
def test_linear_maps_of_both_leave_the_bounds(name):
    """Divergences do not depend on coordinates; nor may their bounds."""
    p, q = some_density(seed=1), some_density(seed=2)
    root = np.array([[2.0, 0.3], [-0.1, 0.5]])
    moved = [
        replace(d, means=d.means @ root.T + 7, covariances=root @ d.covariances @ root.T)
        for d in (p, q)
    ]
    assert BOUNDS[name](*moved) == pytest.approx(BOUNDS[name](p, q))


# -- errors ------------------------------------------------------------------------------------


@divergences
def test_dimensions_must_agree(name):
    p, q = some_density(d=2), some_density(d=3)
    for ask in (ESTIMATES[name], BOUNDS[name]):
        with pytest.raises(InputError, match="p of 2 dimensions and q of 3"):
            ask(p, q)


@all_measures
@pytest.mark.parametrize("n_samples", [1, 0, 10.5])
def test_number_of_samples_is_checked(name, n_samples):
    p, q = some_density(seed=1), some_density(seed=2)
    with pytest.raises(InputError, match=f"n_samples must be an integer >= 2, got {n_samples}"):
        ESTIMATES[name](p, q, n_samples=n_samples)

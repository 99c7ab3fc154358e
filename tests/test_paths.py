"""Paths and walks: geometry, guarantees, and what a walk's rows are distributed as.

NumPy's default tolerance, 1e-7, stands where float64 alone errs (1e-16) and matrices are of a
condition below 1e6; other tolerances say what they allow for.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from serkit import paths
from serkit.density import MixtureDensity
from serkit.errors import InputError
from tests.helpers import oracles


def half_ring(d=2, n_components=7):
    """Components along half a circle of radius 3, in a plane of D dimensions."""
    angle = np.linspace(0, np.pi, n_components)
    circle = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(d, 2)))[0].T  # (2, D)
    weights = np.full(n_components, 1 / n_components)
    return MixtureDensity(weights, circle @ plane, np.full(n_components, 0.35**2), "spherical")


def overlapping(d=2):
    """Three components a walk crosses between within a few dozen steps."""
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(3, d, d)) / np.sqrt(d)
    covariances = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(d)
    return MixtureDensity(np.array([0.5, 0.3, 0.2]), rng.normal(size=(3, d)), covariances)


def ends(d, seed=0):
    return np.random.default_rng(seed).normal(size=(2, d))


def lengths(path):
    return np.linalg.norm(np.diff(path, axis=0), axis=1)


ALL = {
    "straight": paths.straight,
    "spherical": paths.spherical,
    "densest": lambda start, end, n_steps: paths.densest(start, end, n_steps, half_ring()),
}
all_paths = pytest.mark.parametrize("path", ALL.values(), ids=ALL)


# -- all paths ---------------------------------------------------------------------------------


@all_paths
@pytest.mark.parametrize("n_steps", [2, 3, 10])
def test_paths_go_from_end_to_end(path, n_steps):
    start, end = ends(2)
    found = path(start, end, n_steps)
    assert found.shape == (n_steps, 2)
    np.testing.assert_array_equal(found[[0, -1]], [start, end])


@all_paths
def test_a_path_from_a_point_to_itself_stays(path):
    start, _ = ends(2)
    np.testing.assert_allclose(path(start, start, 5), np.tile(start, (5, 1)))


@all_paths
@pytest.mark.parametrize(
    ("end", "n_steps", "message"),
    [
        ([1, 1], 1, "n_steps must be an integer >= 2, got 1"),
        ([1, 1], 2.5, "n_steps must be an integer >= 2, got 2.5"),
        ([1, 1, 1], 4, r"end must be of the shape \(2,\) of start, got \(3,\)"),
        ([1, np.nan], 4, r"end must be finite numbers, got \[1, nan\]"),
        (["a", "b"], 4, r"end must be finite numbers, got \['a', 'b'\]"),
    ],
)
def test_ends_and_number_of_steps_are_checked(path, end, n_steps, message):
    with pytest.raises(InputError, match=message):
        path([0, 0], end, n_steps)


# -- straight and spherical --------------------------------------------------------------------


def test_straight_steps_are_even():
    start, end = ends(5)
    np.testing.assert_allclose(
        np.diff(paths.straight(start, end, 9), axis=0), 8 * [(end - start) / 8]
    )


@pytest.mark.parametrize("path", [paths.straight, paths.spherical])
def test_images_move_like_their_pixels(path):
    start, end = ends(12)
    images = path(start.reshape(3, 4), end.reshape(3, 4), 6)
    assert images.shape == (6, 3, 4)
    np.testing.assert_allclose(images.reshape(6, 12), path(start, end, 6))


def test_spherical_equals_scipys_slerp_of_rotations():
    """Unit quaternions less than a right angle apart are slerped the same way."""
    start, end = np.array([[0.5, 0.5, 0.5, 0.5], [0.8, 0.0, 0.6, 0.0]])
    expected = Slerp([0, 1], Rotation.from_quat([start, end]))(np.linspace(0, 1, 7)).as_quat()
    found = paths.spherical(start, end, 7)
    np.testing.assert_allclose(found, expected, atol=1e-12)  # entries that are 0


@pytest.mark.parametrize("with_centre", [False, True])
@pytest.mark.parametrize("angle", [1e-12, 1e-3, 1.0, 3.0, np.pi - 1e-6])
def test_angle_and_radius_go_evenly(angle, with_centre):
    """Around a circle in a plane, where the arc is known."""
    t = np.linspace(0, 1, 11)
    turned, radius = angle * t, 2 + 3 * t
    centre = np.array([4.0, -1.0]) if with_centre else np.zeros(2)
    expected = centre + radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1)
    found = paths.spherical(expected[0], expected[-1], 11, centre=centre if with_centre else None)
    # Near pi the ends' rounding (1e-16) is divided by the sine (1e-6), and radii are up to 5.
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.0, -1.0, -2.0])
def test_spherical_between_parallel_ends_is_straight(factor):
    start, _ = ends(4)
    found = paths.spherical(start, factor * start, 7)
    expected = paths.straight(start, factor * start, 7)
    np.testing.assert_allclose(found, expected, atol=1e-12)  # entries that are 0


# -- densest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 32])
@pytest.mark.parametrize("stiffness", [0, 0.1, 10.0, 1e4])
@pytest.mark.parametrize("max_iter", [1, 500])
def test_densest_is_never_less_dense_than_straight(d, stiffness, max_iter):
    density = half_ring(d)
    for seed in range(3):
        start, end = density.sample(2, seed)[0]
        found = paths.densest(start, end, 12, density, stiffness=stiffness, max_iter=max_iter)
        line = paths.straight(start, end, 12)
        rounding = 1e-9  # where the search finds nothing better
        assert density.log_prob(found).mean() >= density.log_prob(line).mean() - rounding


@pytest.mark.parametrize("d", [2, 32])
def test_densest_follows_the_ring(d):
    """The straight line crosses its empty middle; the path stays dense, in nearly even steps."""
    density = half_ring(d)
    start, end = density.means[[0, -1]]
    found = paths.densest(start, end, 20, density)
    line = paths.straight(start, end, 20)
    assert density.log_prob(found).mean() > density.log_prob(line).mean() + 5
    assert density.log_prob(found).min() > density.log_prob(line).min() + 5
    assert lengths(found).max() < 2 * lengths(found).min()


def test_stiffness_trades_density_for_straightness():
    density = half_ring()
    start, end = density.means[[0, -1]]
    found = [
        paths.densest(start, end, 20, density, stiffness=stiffness)
        for stiffness in (1.0, 10.0, 100.0, 1e5)
    ]
    assert (np.diff([density.log_prob(path).mean() for path in found]) < 0).all()
    assert (np.diff([(lengths(path) ** 2).sum() for path in found]) < 0).all()
    # Slopes of up to 25 nats per unit still bend it, at a price of 5e4 nats per squared unit.
    np.testing.assert_allclose(found[-1], paths.straight(start, end, 20), atol=1e-3)


def test_densest_in_one_gaussian_equals_its_linear_system():
    """Its objective is quadratic there, so the best path solves one linear system."""
    density = MixtureDensity(np.ones(1), np.array([[1.0, -1.0]]), np.array([[2.0, 0.5]]), "diag")
    start, end, n, stiffness = np.array([3.0, 1.0]), np.array([-2.0, 2.0]), 9, 3.0
    price = 2 * stiffness * (n - 1) / ((end - start) ** 2).sum()
    bends = price * (2 * np.eye(n - 2) - np.eye(n - 2, k=1) - np.eye(n - 2, k=-1))
    found = paths.densest(start, end, n, density, stiffness=stiffness)
    for i, (mean, variance) in enumerate(zip([1.0, -1.0], [2.0, 0.5], strict=True)):
        pull = 1 / (variance * (n - 2))
        target = np.full(n - 2, pull * mean)
        target[[0, -1]] += price * np.array([start[i], end[i]])
        expected = np.linalg.solve(bends + pull * np.eye(n - 2), target)
        # L-BFGS stops where a step gains 2e-9 of a cost of curvature about 1: within its root.
        np.testing.assert_allclose(found[1:-1, i], expected, atol=1e-3)


# -- walks -------------------------------------------------------------------------------------


def stretches(values, n_stretches=30):
    """Means of stretches long enough to be independent: what the walk's errors are told from."""
    return np.mean(np.array_split(values, n_stretches), axis=1)


@pytest.mark.parametrize(("d", "step_size"), [(2, None), (2, 3.0), (1, 1.5)])
def test_walks_have_the_moments_and_shares_of_the_mixture(d, step_size):
    density = overlapping(d)
    rows, _ = paths.langevin(density, 3_000, step_size=step_size, random_state=0)
    offsets = rows - density.mean()
    squares = offsets[:, :, None] * offsets[:, None]
    assert oracles.within(stretches(rows), density.mean()).all()
    assert oracles.within(stretches(squares), density.covariance()).all()
    assert oracles.within(stretches(density.responsibilities(rows)), density.weights).all()


def test_walks_visit_each_place_as_often_as_its_density_says():
    """In one dimension, against quadrature, between two humps of different widths."""
    density = MixtureDensity(
        np.array([0.4, 0.6]), np.array([[-1.0], [1.2]]), np.array([0.3, 1.0]), "spherical"
    )
    grid = np.linspace(-4, 5, 9_001)
    mass = np.exp(oracles.log_density_on(grid, density))
    edges = np.linspace(-2.5, 3.5, 9)  # each between them is visited dozens of times
    rows, _ = paths.langevin(density, 3_000, step_size=3.0, random_state=0)
    for low, high in pairwise(edges):
        inside = (grid >= low) & (grid <= high)
        share = np.trapezoid(mass[inside], grid[inside])
        assert oracles.within(stretches((rows[:, 0] >= low) & (rows[:, 0] < high)), share)


@pytest.mark.parametrize("d", [2, 20])
def test_walks_find_the_mixture_from_far_away(d):
    density = overlapping(d)
    rows, _ = paths.langevin(density, 2_000, start=np.full(d, 30.0), random_state=0)
    typical = density.log_prob(density.sample(10_000, 0)[0])
    np.testing.assert_array_equal(rows[0], np.full(d, 30.0))
    assert density.log_prob(rows[:1]) < typical.min() - 100
    settled = density.log_prob(rows[1_000:])
    assert settled.min() > typical.min() - 20
    assert abs(settled.mean() - typical.mean()) < typical.std()  # errs by a tenth of that


@pytest.mark.parametrize("d", [1, 5, 30])
def test_default_step_is_accepted_mostly_in_one_gaussian(d):
    """At twice the default the acceptance is the optimal 0.574 of Roberts and Rosenthal."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(d, d)) + 3 * np.eye(d)
    density = MixtureDensity(np.ones(1), rng.normal(size=(1, d)), (root @ root.T)[None])
    acceptance = paths.langevin(density, 1_000, random_state=0).acceptance
    assert 0.7 < acceptance < 0.95
    if d == 30:  # theirs is the limit of many dimensions
        optimal = paths.langevin(density, 2_000, step_size=1.65**2 / np.cbrt(d), random_state=0)
        assert optimal.acceptance == pytest.approx(0.574, abs=0.06)  # 5 errors of 2,000 draws


def test_tiny_steps_are_accepted_and_huge_ones_are_not():
    density = overlapping()
    small = paths.langevin(density, 300, step_size=1e-4, random_state=0)
    assert small.acceptance > 0.99
    assert 0 < lengths(small.rows).max() < 0.1
    assert paths.langevin(density, 300, step_size=1e4, random_state=0).acceptance < 0.01


def test_acceptance_is_the_share_of_steps_that_moved():
    rows, acceptance = paths.langevin(overlapping(), 300, step_size=3.0, random_state=0)
    assert 0.1 < acceptance < 0.9
    assert acceptance == (lengths(rows) > 0).mean()


@pytest.mark.parametrize("scale", [[[1e6, 0.0], [0.0, 1e-4]], [[8.0, 0.0], [2.0, 0.25]]])
def test_walks_do_not_depend_on_units(scale):
    """Units apart by 1e10 and axes askew, each alone: together float64 cannot hold a covariance.

    Rounding does not grow along a walk, but a covariance C it is measured by is only known to
    1e-16 times the condition of C; with each column in its own unit that is below 1e3 here.
    """
    density, scale = overlapping(), np.array(scale)
    covariances = scale @ density.covariances @ scale.T
    moved = replace(density, means=density.means @ scale.T, covariances=covariances)
    expected = paths.langevin(density, 50, start=[0.5, 0.5], random_state=0).rows @ scale.T
    found = paths.langevin(moved, 50, start=scale @ [0.5, 0.5], random_state=0).rows
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_walks_repeat_by_seed():
    density = overlapping()
    first, again = (paths.langevin(density, 20, random_state=3).rows for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, paths.langevin(density, 20, random_state=4).rows)


# -- arguments ---------------------------------------------------------------------------------


spherical = partial(paths.spherical, *ends(2), 5)
densest = partial(paths.densest, *ends(2), 5, density=half_ring())
walk = partial(paths.langevin, overlapping(), n_steps=5)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (spherical, {"centre": [0]}, r"centre must be of the shape \(2,\) of start, got \(1,\)"),
        (spherical, {"centre": [0, np.nan]}, r"centre must be finite numbers, got \[0, nan\]"),
        (densest, {"stiffness": -1.0}, "stiffness must be a number >= 0, got -1.0"),
        (densest, {"stiffness": np.nan}, "stiffness must be a number >= 0, got nan"),
        (densest, {"stiffness": "stiff"}, "stiffness must be a number >= 0, got 'stiff'"),
        (densest, {"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
        (densest, {"density": half_ring(3)}, r"start must be of the shape \(3,\) of .* got \(2,\)"),
        (walk, {"n_steps": 1}, "n_steps must be an integer >= 2, got 1"),
        (walk, {"step_size": 0.0}, "step_size must be a number > 0, got 0.0"),
        (walk, {"step_size": np.inf}, "step_size must be a number > 0, got inf"),
        (walk, {"start": [0]}, r"start must be of the shape \(2,\) of the mixture's rows, got"),
        (walk, {"start": [0, np.nan]}, r"start must be finite numbers, got \[0, nan\]"),
    ],
)
def test_arguments_are_checked(call, options, message):
    with pytest.raises(InputError, match=message):
        call(**options)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
@pytest.mark.parametrize("path", [paths.straight, paths.spherical])
def test_paths_are_the_same_on_any_scale(path, scale):
    expected = path([1.0, 0.5], [-0.5, 1.5], 5)
    found = path([scale, 0.5 * scale], [-0.5 * scale, 1.5 * scale], 5)
    np.testing.assert_allclose(found / scale, expected, rtol=1e-12)


def test_a_line_between_the_ends_of_floating_point_is_finite():
    line = paths.straight([1.7e308], [-1.7e308], 3)
    np.testing.assert_array_equal(line, [[1.7e308], [0], [-1.7e308]])


def test_an_arc_beyond_floating_point_is_refused():
    with pytest.raises(InputError, match=r"the arc leaves floating point near 1\.5e"):
        paths.spherical([1.5e308, 1.5e308], [-1.5e308, 1.5e308], 3)


@pytest.mark.parametrize(
    "walk",
    [
        lambda: paths.densest([1e300, 0], [0, 1e300], 5, half_ring()),
        lambda: paths.langevin(overlapping(), 5, start=[1e300, 0]),
    ],
)
def test_ends_too_far_from_a_mixture_are_refused(walk):
    with pytest.raises(InputError, match=r"MixtureDensity: .* so far from every component"):
        walk()

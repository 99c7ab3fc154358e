"""Mixtures as values, against scipy, torch.distributions, finite differences and sampling.

NumPy's default tolerance, 1e-7, stands where float64 alone errs (1e-16) and matrices are of a
condition below 1e6; other tolerances say what they allow for.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from scipy.special import logsumexp, softmax

from serkit.density import COVARIANCE_TYPES, MixtureDensity, combine, log_gaussians
from serkit.errors import InputError
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, matrices_of, some_density

N, K, D = 40, 3, 2


def some_rows(seed=0, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) + rng.integers(3, size=(n, 1)) * 3.0


def log_joint(x, density):
    return oracles.log_joint(x, density.weights, density.means, matrices_of(density))


# -- components --------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["near", "far"])
def test_log_densities_equal_scipy(covariance_type, offset):
    rows, density = some_rows(), some_density(covariance_type)
    expected = oracles.log_joint(rows, np.ones(K), density.means, matrices_of(density))
    found = log_gaussians(rows + offset, replace(density, means=density.means + offset))
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # rows near 1e5 are held to 1e-11 only


@all_types
def test_log_densities_of_many_rows_are_those_of_each(covariance_type):
    """So many that they are worked on in blocks."""
    rows, density = some_rows(n=25_000), some_density(covariance_type)
    some = [0, 9_999, 10_922, 10_923, 24_999]
    found = log_gaussians(rows, density)
    # A product of other shapes may add in another order.
    np.testing.assert_allclose(found[some], log_gaussians(rows[some], density), rtol=1e-9)


@all_types
def test_expected_log_densities_equal_sampling(covariance_type):
    rows, density = some_rows(), some_density(covariance_type)
    rng = np.random.default_rng(3)
    variances = rng.gamma(2.0, 0.2, size=(N, D))
    draws = (rows + rng.standard_normal((4000, N, D)) * np.sqrt(variances)).reshape(-1, D)
    samples = oracles.log_joint(draws, np.ones(K), density.means, matrices_of(density))
    found = log_gaussians(rows, density, variances)
    assert oracles.within(samples.reshape(4000, N, K), found).all()


@all_types
def test_shapes_of_covariances_agree(covariance_type):
    density = some_density(covariance_type)
    matrices = np.array(matrices_of(density))
    np.testing.assert_allclose(density.full_covariances(), matrices)
    np.testing.assert_allclose(density.variances(), [np.diag(m) for m in matrices])
    white, log_det = density.whitening
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrices)[1])
    full = white if white.ndim == 3 else np.array([np.diag(w) for w in white])
    np.testing.assert_allclose(full @ full.transpose(0, 2, 1), np.linalg.inv(matrices))


# -- evaluation --------------------------------------------------------------------------------


@all_types
def test_log_prob_and_responsibilities_equal_scipy(covariance_type):
    rows, density = some_rows(), some_density(covariance_type)
    joint = log_joint(rows, density)
    np.testing.assert_allclose(density.log_prob(rows), logsumexp(joint, axis=1))
    found = density.responsibilities(rows)
    np.testing.assert_allclose(found, softmax(joint, axis=1), atol=1e-12)  # some are about 0


@all_types
def test_gradient_equals_autograd(covariance_type):
    rows, density = some_rows(), some_density(covariance_type)
    x = torch.tensor(rows, requires_grad=True)
    oracles.torch_mixture(density).log_prob(x).sum().backward()
    found = density.gradient(rows)
    np.testing.assert_allclose(found, x.grad.numpy(), atol=1e-10)  # pulls that cancel
    log_prob, gradient = density.log_prob_and_gradient(rows)
    np.testing.assert_array_equal(log_prob, density.log_prob(rows))
    np.testing.assert_array_equal(gradient, found)


@all_types
def test_gradients_far_from_the_origin_are_those_near_it(covariance_type):
    rows, density = some_rows(), some_density(covariance_type)
    offset = 2.0**33  # the rows' last bits are lost, but no more than these
    far = replace(density, means=density.means + offset)
    near = replace(density, means=far.means - offset)
    expected = near.gradient((rows + offset) - offset)
    np.testing.assert_allclose(far.gradient(rows + offset), expected, rtol=1e-9, atol=1e-12)


@all_types
def test_gradient_equals_finite_differences(covariance_type):
    density = some_density(covariance_type)

    def log_prob(x):
        return density.log_prob(x[None])[0]

    for row in some_rows(n=5):
        # Forward differences err by their step, 1e-8, times the curvature.
        assert check_grad(log_prob, lambda x: density.gradient(x[None])[0], row) < 1e-5


def test_a_component_of_weight_zero_changes_nothing():
    density = some_density()
    without = density.permuted(np.array([0, 2]))
    silenced = replace(density, weights=np.insert(without.weights, 1, 0.0))
    rows = some_rows()
    np.testing.assert_allclose(silenced.log_prob(rows), without.log_prob(rows))
    np.testing.assert_allclose(silenced.gradient(rows), without.gradient(rows))
    assert (silenced.responsibilities(rows)[:, 1] == 0).all()
    assert (silenced.sample(100, 0)[1] != 1).all()


def test_far_away_the_log_density_stays_finite():
    density = some_density()
    rows = np.full((1, D), 1e6)
    assert np.isfinite(density.log_prob(rows)).all()
    assert density.log_prob(rows) < -1e6
    np.testing.assert_allclose(density.responsibilities(rows).sum(), 1.0)


ASKED = ["log_prob", "component_log_prob", "responsibilities", "gradient"]


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.0, 0.0], [1e300, -1e300]], r"1 of 2 rows \(rows 1\) are so far from every component"),
        (np.zeros((4, 3)), r"rows of 2 columns, got \(4, 3\)"),
        (np.zeros(2), r"shape \(N, ...\), got \(2,\)"),
        ([[0.0, np.nan]], "NaN or infinity in 1 of 1 rows"),
    ],
)
def test_rows_that_are_not_the_mixtures_are_named(ask, rows, message):
    with pytest.raises(InputError, match=f"MixtureDensity: .*{message}"):
        getattr(some_density(), ask)(rows)


# -- samples and moments -----------------------------------------------------------------------


@all_types
def test_samples_have_the_moments(covariance_type):
    density = some_density(covariance_type)
    rows, _ = density.sample(20_000, 0)
    assert oracles.within(rows, density.mean()).all()
    offsets = rows - density.mean()
    assert oracles.within(offsets[:, :, None] * offsets[:, None], density.covariance()).all()


@all_types
def test_samples_of_each_component_have_its_moments(covariance_type):
    density = some_density(covariance_type)
    rows, components = density.sample(20_000, 0)
    assert oracles.within(np.eye(K)[components], density.weights).all()
    for k, matrix in enumerate(matrices_of(density)):
        offsets = rows[components == k] - density.means[k]
        assert oracles.within(offsets, 0).all()
        assert oracles.within(offsets[:, :, None] * offsets[:, None], matrix).all()


@all_types
def test_moments_equal_torch(covariance_type):
    density = some_density(covariance_type)
    reference = oracles.torch_mixture(density)
    np.testing.assert_allclose(density.mean(), reference.mean)
    np.testing.assert_allclose(np.diag(density.covariance()), reference.variance)


def test_samples_repeat_by_seed_and_leave_global_state_alone():
    density, before = some_density(), np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(density.sample(5, 1)[0], density.sample(5, 1)[0])
    assert not np.array_equal(density.sample(5, 1)[0], density.sample(5, 2)[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_generator_goes_on():
    density, rng = some_density(), np.random.default_rng(0)
    assert not np.array_equal(density.sample(5, rng)[0], density.sample(5, rng)[0])


@pytest.mark.parametrize("n_samples", [0, 2.5, None])
def test_number_of_samples_is_checked(n_samples):
    with pytest.raises(InputError, match=f"n_samples must be an integer >= 1, got {n_samples}"):
        some_density().sample(n_samples)


# -- parts and sums ----------------------------------------------------------------------------


@all_types
def test_a_component_is_a_mixture_of_one(covariance_type):
    density, rows = some_density(covariance_type), some_rows()
    expected = oracles.log_joint(rows, np.ones(K), density.means, matrices_of(density))
    for k in range(K):
        np.testing.assert_allclose(density.component(k).log_prob(rows), expected[:, k])


@pytest.mark.parametrize("k", [-1, K])
def test_components_that_do_not_exist_are_refused(k):
    with pytest.raises(InputError, match=f"component={k} does not exist; they are 0 to {K - 1}"):
        some_density().component(k)


@all_types
def test_order_of_components_changes_only_their_numbers(covariance_type):
    density, rows, order = some_density(covariance_type), some_rows(), np.array([2, 0, 1])
    moved = density.permuted(order)
    np.testing.assert_allclose(moved.log_prob(rows), density.log_prob(rows))
    found, expected = moved.responsibilities(rows), density.responsibilities(rows)[:, order]
    np.testing.assert_allclose(found, expected)


@all_types
def test_some_components_keep_their_proportions(covariance_type):
    density, rows, order = some_density(covariance_type), some_rows(), np.array([2, 0])
    joint = log_joint(rows, density)[:, order] - np.log(density.weights[order].sum())
    np.testing.assert_allclose(density.permuted(order).log_prob(rows), logsumexp(joint, axis=1))


@pytest.mark.parametrize("second_type", COVARIANCE_TYPES)
@all_types
def test_combined_mixtures_add_their_densities(covariance_type, second_type):
    first, second = some_density(covariance_type), some_density(second_type, seed=5, k=2)
    both, rows = combine([first, second], [0.3, 0.7]), some_rows()
    parts = np.log([0.3, 0.7])[:, None] + [first.log_prob(rows), second.log_prob(rows)]
    np.testing.assert_allclose(both.log_prob(rows), np.logaddexp(*parts))
    np.testing.assert_allclose(both.means, np.concatenate([first.means, second.means]))
    same = covariance_type == second_type != "tied"
    assert both.covariance_type == (covariance_type if same else "full")


@all_types
def test_free_parameters_are_counted(covariance_type):
    """Those of scikit-learn's mixture, which counts them for its own BIC."""
    rows = some_rows(n=200)
    reference = oracles.sklearn_mixture(rows, rows[:K], covariance_type, max_iter=1)
    assert some_density(covariance_type).n_free() == reference._n_parameters()


@pytest.mark.parametrize(
    ("weights", "covariances", "kind", "text"),
    [
        ([0.5, 0.5], np.ones((2, 2)), "full", r"full covariances \(2, 2, 2\).*\(2, 2\)$"),
        ([1.0], np.ones(2), "spherical", r"weights \(K,\).*got \(1,\)"),
        (
            [0.5, 0.5],
            np.ones(2),
            "round",
            "unknown covariance_type='round'; expected one of 'full'",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(weights, covariances, kind, text):
    with pytest.raises(InputError, match=text):
        MixtureDensity(weights, [[0.0, 1.0], [2.0, 3.0]], covariances, kind)


def some_numbers(covariance_type="full", **changed):
    density = some_density(covariance_type)
    names = "weights", "means", "covariances"
    return {name: getattr(density, name).copy() for name in names} | changed


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([0.5, 0.5, 4.0], "add up to 1, got a minimum of 0.5 and a sum of 5"),
        ([1.5, 0.5, -1.0], "add up to 1, got a minimum of -1 and a sum of 1"),
        ([0.5, 0.3, 0.1], "a sum of 0.9"),
        ([np.nan, 0.5, 0.5], "weights must be finite numbers"),
        ([np.inf, 0.5, 0.5], "weights must be finite numbers"),
        (["a", "b", "c"], "weights must be finite numbers"),
    ],
)
def test_weights_that_are_no_probabilities_are_refused(weights, text):
    with pytest.raises(InputError, match=f"MixtureDensity: .*{text}"):
        MixtureDensity(**some_numbers(weights=weights))


@all_types
@pytest.mark.parametrize("factor", [-1.0, 0.0, np.nan, np.inf])
def test_covariances_that_are_not_positive_are_refused(covariance_type, factor):
    numbers = some_numbers(covariance_type)
    numbers["covariances"] = numbers["covariances"] * factor
    wanted = "finite numbers" if not np.isfinite(factor) else "(must be above 0|positive definite)"
    with pytest.raises(InputError, match=f"MixtureDensity: .*{wanted}"):
        MixtureDensity(**numbers, covariance_type=covariance_type)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_covariances_that_are_not_symmetric_are_refused(covariance_type):
    numbers = some_numbers(covariance_type)
    numbers["covariances"][..., 0, 1] += 1e-3
    with pytest.raises(InputError, match=r"must be symmetric, some differ by 0\.001"):
        MixtureDensity(**numbers, covariance_type=covariance_type)


def test_means_too_far_apart_are_refused():
    with pytest.raises(InputError, match=r"means up to 1e\+300 are too far apart to square"):
        MixtureDensity([0.5, 0.5], [[0.0], [1e300]], [1.0, 1.0], "spherical")


@all_types
def test_numbers_rounded_to_float32_will_do(covariance_type):
    """Whatever a net or a file of float32 has held; draws are by weights that add up to 1."""
    numbers = {n: v.astype(np.float32) for n, v in some_numbers(covariance_type).items()}
    numbers["weights"] = np.array([0.1, 0.7, 0.2], dtype=np.float32)  # in float64 1 - 2e-8
    MixtureDensity(**numbers, covariance_type=covariance_type).sample(10, random_state=0)


@all_types
def test_a_density_of_small_units_is_one(covariance_type):
    numbers = some_numbers(covariance_type)
    numbers["covariances"] = numbers["covariances"] * 1e-30
    assert MixtureDensity(**numbers, covariance_type=covariance_type).covariance().shape == (D, D)


def test_weights_of_combined_densities_are_probabilities():
    with pytest.raises(InputError, match=r"a minimum of 0\.5 and a sum of 2\.5"):
        combine([MixtureDensity([1.0], [[0.0]], [1.0], "spherical")] * 2, [0.5, 2.0])


def test_lists_will_do():
    density = MixtureDensity([0.5, 0.5], [[0], [2]], [1, 1], "spherical")
    np.testing.assert_allclose(density.mean(), [1.0])


def test_densities_over_different_spaces_do_not_combine():
    one, two = (MixtureDensity([1.0], np.zeros((1, d)), np.ones((1, d)), "diag") for d in (1, 2))
    with pytest.raises(InputError, match="the same space, got 1, 2 dimensions"):
        combine([one, two], [0.5, 0.5])


@all_types
def test_components_are_apart_where_the_density_between_them_is_low(covariance_type):
    density = MixtureDensity(**some_numbers(covariance_type), covariance_type=covariance_type)
    for factor in (1.0, 9.0, 81.0):
        wide = replace(density, means=factor * density.means)
        apart = np.ones((K, K), dtype=bool)
        for i, j in combinations(range(K), 2):
            two = wide.permuted([i, j])
            line = np.linspace(0, 1, 41)[:, None]
            values = two.log_prob((1 - line) * two.means[0] + line * two.means[1])
            apart[i, j] = apart[j, i] = values.min() < min(values[[0, -1]]) + np.log(0.01)
        assert wide.are_apart().tolist() == apart.all(axis=1).tolist()
    assert wide.are_apart().all()


@pytest.mark.parametrize(
    ("covariance_type", "of_each", "common"),
    [("full", 5, 0), ("tied", 2, 3), ("diag", 4, 0), ("spherical", 3, 0)],
)
def test_parameters_of_components_that_are_apart_cost_by_their_own_rows(
    covariance_type, of_each, common
):
    numbers = some_numbers(covariance_type)
    far = {**numbers, "means": 100 * numbers["means"]}
    density = MixtureDensity(**far, covariance_type=covariance_type)
    own = of_each * np.log(1000 * density.weights).sum() + (common + K - 1) * np.log(1000)
    assert density.penalty(1000) == pytest.approx(own)
    assert density.penalty(9) == pytest.approx(density.n_free() * np.log(9))  # too few rows
    near = MixtureDensity(
        **{**numbers, "means": 0 * numbers["means"]}, covariance_type=covariance_type
    )
    assert near.penalty(1000) == pytest.approx(near.n_free() * np.log(1000))

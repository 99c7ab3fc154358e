"""Messages: what they check, and how they multiply."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from serkit.arrays import as_rows
from serkit.errors import InputError, MessageError
from serkit.messages import Categorical, Data, Gaussian, Message, Mixture, product
from tests.helpers.messages import D, K, N, log_probabilities, make


def arrays_of(message):
    return [getattr(message, f.name) for f in dataclasses.fields(message) if not f.kw_only]


def assert_same(left, right, order=slice(None)):
    """Equal to rounding; `order` renumbers the components of a product of mixtures."""
    for a, b in zip(arrays_of(left), arrays_of(right), strict=True):
        b = b[:, order] if b.shape[0] == N else b[order]
        np.testing.assert_allclose(a, b, atol=1e-12)


# -- rows that come in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.ones((2, 3), np.float32), np.float32),
        (np.ones((2, 3), np.float64), np.float64),
        (np.ones((2, 3), np.uint8), np.float32),
        (np.ones((2, 3), bool), np.float32),
        ([[1, 2, 3], [4, 5, 6]], np.float32),
        (torch.ones(2, 3, requires_grad=True), np.float32),
        (torch.ones(2, 3, dtype=torch.bfloat16), np.float32),
        (np.ones((2, 3), ">f4"), np.float32),
        (np.ones((2, 3), ">f8"), np.float64),
        (np.ones((2, 3), np.float16), np.float32),
        (np.ones((2, 3), np.longdouble), np.float64),
        (np.full((2, 3), 2**24), np.float32),
        (np.full((2, 3), 2**24 + 1, ">i4"), np.float64),
        (np.full((2, 3), -(2**24) - 1), np.float64),
        (torch.full((2, 3), 2**25, dtype=torch.int64), np.float64),
        (np.full((2, 3), 2**32, np.uint64), np.float64),
        (np.full((2, 3), 2**60), np.float64),  # as 2^60 is a number in float64
    ],
)
def test_as_rows_takes_real_numbers(given, dtype):
    rows = as_rows(given, "x")
    assert rows.dtype == dtype
    expected = given.detach().float() if isinstance(given, torch.Tensor) else given
    np.testing.assert_array_equal(rows, np.asarray(expected, dtype=dtype))


def test_as_rows_is_read_only_and_leaves_the_original_writable():
    original = np.zeros((2, 2))
    rows = as_rows(original, "x")
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1
    assert original.flags.writeable


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", ">i8", "u8", "f8", ">f8", "g"])
@pytest.mark.parametrize("least", [0, 20_000_000, 1_700_000_000])
def test_numbers_that_float32_would_merge_stay_apart(dtype, least):
    values = (least + np.arange(70))[:, None].astype(dtype)
    np.testing.assert_array_equal(as_rows(values, "x").ravel().tolist(), values.ravel().tolist())


@pytest.mark.parametrize("values", [[[2**53 + 1]], [[-(2**63) + 1]], np.array([[2**64 - 1]], "u8")])
def test_integers_that_are_rounded_are_named(values):
    with pytest.warns(
        UserWarning, match=r"ids: integers up to \d+ are rounded, .* 9007199254740992"
    ):
        rows = as_rows(values, "ids")
    assert int(rows[0, 0]) != int(np.asarray(values)[0, 0])


def test_long_doubles_beyond_float64_are_named():
    with pytest.raises(InputError, match=r"NaN or infinity in 1 of 1 rows"):
        as_rows(np.array([[np.longdouble("1e4000")]]), "x")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (np.array([["a", "b"]]), r"images: expected real numbers, got dtype <U1; convert"),
        (np.array([[None, 1]], dtype=object), "NaN or infinity in 1 of 1 rows"),
        (np.ones((2, 2), complex), "got dtype complex128"),
        (np.ones(3), r"at least one row and one column, shape \(N, \.\.\.\), got \(3,\)"),
        (np.ones((0, 3)), r"got \(0, 3\)"),
        (np.ones((3, 0)), r"got \(3, 0\)"),
        (7, r"got \(\)"),
        ([[1, 2], [3]], "images: expected rows of equal length"),
    ],
)
def test_as_rows_refuses(given, match):
    with pytest.raises(InputError, match=match):
        as_rows(given, "images")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_as_rows_names_rows_that_are_not_finite(bad):
    values = np.zeros((20, 2, 2))
    values[[3, 17], 1, 0] = bad
    with pytest.raises(InputError, match=r"NaN or infinity in 2 of 20 rows \(rows 3, 17\); remove"):
        as_rows(values, "x")
    values[:] = bad
    with pytest.raises(InputError, match=r"20 of 20 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        as_rows(values, "x")


# -- each kind's own checks --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Gaussian(np.zeros((2, 3, 4))), r"Gaussian.mean: expected shape \(N, D\)"),
        (
            lambda: Gaussian(np.zeros((2, 3)), np.ones((2, 2))),
            r"mean and var differ in shape: \(2, 3\) and \(2, 2\)",
        ),
        (lambda: Gaussian(np.zeros((1, 2)), np.array([[1, 0.0]])), "must be positive.*is 0.0"),
        (lambda: Gaussian(np.full((1, 2), np.nan)), "Gaussian.mean: NaN or infinity"),
        (lambda: Categorical(np.zeros(3)), r"log_prob: expected shape \(N, K\), got \(3,\)"),
        (lambda: Categorical(np.zeros((0, 3))), r"expected shape \(N, K\), got \(0, 3\)"),
        (lambda: Categorical(np.zeros((2, 2))), "add up to 1 over K, but those of row 0 .* to 2"),
        (lambda: Categorical([[0, -np.inf], [np.nan, 0]]), "of row 1 add up to nan"),
        (lambda: Categorical([[-np.inf, -np.inf]]), "of row 0 add up to 0"),
        (lambda: Data(np.array([["a"]])), "Data.array: expected real numbers"),
        (lambda: Message(), "use Data, Gaussian, Categorical or Mixture"),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((2, D)), np.ones((K, D, D))),
            r"Mixture.means: expected shape \(3, 2\) for K=3 .* got \(2, 2\)",
        ),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((K, D)), np.ones((K, D))),
            r"Mixture.covariances: expected shape \(3, 2, 2\)",
        ),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((K, D)), np.ones((K, D, D)), [0.0]),
            r"Mixture.log_weights: expected shape \(3,\)",
        ),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((K, D)), [np.eye(D)] * K, [0.0] * K),
            r"Mixture.log_weights: expected log-probabilities, whose probabilities add up to 1",
        ),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((K, D)), [-np.eye(D)] * K),
            "Mixture: covariances must be positive definite, the smallest eigenvalue is -1",
        ),
        (
            lambda: Mixture(log_probabilities(0), np.zeros((K, D)), [[[1, 0], [0.1, 1]]] * K),
            "Mixture: covariances must be symmetric",
        ),
        *(
            (
                lambda p=p: Categorical(log_probabilities(0), log_prior=p),
                "log_prior: expected 3 log",
            )
            for p in ([np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [0.0])
        ),
    ],
)
def test_bad_values_are_refused(build, match):
    with pytest.raises((MessageError, InputError, TypeError), match=match):
        build()


def test_impossible_classes_are_allowed():
    log_prob = Categorical([[0.0, -np.inf], [-np.inf, 0.0]]).log_prob
    np.testing.assert_array_equal(np.exp(log_prob), np.eye(2))


@pytest.mark.parametrize("kind", [Gaussian, Categorical, Mixture])
def test_messages_are_frozen(kind):
    message = make(kind, 0)
    name = next(f.name for f in dataclasses.fields(message) if not f.kw_only)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, name, None)
    with pytest.raises(ValueError, match="read-only"):
        getattr(message, name)[0, 0] = 0.0


@pytest.mark.parametrize("kind", [Data, Categorical])
def test_rows_are_not_copied(kind):
    given = log_probabilities(0)
    message = kind(given)
    assert np.shares_memory(given, message.array if kind is Data else message.log_prob)
    assert given.flags.writeable


def test_rows_and_shape():
    assert (Data(np.zeros((4, 2, 3))).n_rows, Data(np.zeros((4, 2, 3))).shape) == (4, (2, 3))
    assert (make(Gaussian, 0).n_rows, make(Gaussian, 0).shape) == (N, (D,))
    assert (make(Mixture, 0).n_rows, make(Mixture, 0).shape) == (N, (K,))


# -- products ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Gaussian, Categorical, Mixture])
def test_product_commutes(kind):
    a, b = make(kind, 1), make(kind, 2)
    swapped = np.arange(K * K).reshape(K, K).T.ravel() if kind is Mixture else slice(None)
    assert_same(a * b, b * a, swapped)


@pytest.mark.parametrize("kind", [Gaussian, Categorical, Mixture])
def test_product_associates_and_folds(kind):
    a, b, c = (make(kind, seed) for seed in (1, 2, 3))
    assert_same((a * b) * c, a * (b * c))
    assert_same(product([a, b, c]), (a * b) * c)
    assert product([a]) is a
    assert product([]) is None


def test_uniform_is_neutral():
    message = make(Categorical, 0)
    np.testing.assert_allclose((message * Categorical.uniform(N, K)).log_prob, message.log_prob)
    np.testing.assert_allclose(np.exp(Categorical.uniform(N, K).log_prob), 1 / K)


def test_categorical_product_equals_bayes_rule():
    a, b, c = (make(Categorical, seed) for seed in (1, 2, 3))
    joint = np.exp(a.log_prob) * np.exp(b.log_prob) * np.exp(c.log_prob)
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(product([a, b, c]).log_prob), expected, rtol=1e-12)


def test_products_with_a_gaussian_of_no_width_are_finite():
    sharp, broad = Gaussian([[3.0]], [[1e-320]]), Gaussian([[5.0]], [[1e300]])
    for both in (sharp * broad, broad * sharp, sharp * sharp, broad * broad):
        assert np.isfinite([both.mean, both.var]).all()
    np.testing.assert_array_equal((sharp * broad).mean, 3.0)


def test_gaussian_product_is_the_product_of_densities():
    messages = [make(Gaussian, seed) for seed in (1, 2, 3)]
    z = np.random.default_rng(4).normal(size=(7, N, D))
    terms = [norm.logpdf(z, m.mean, np.sqrt(m.var)) for m in messages]
    combined = product(messages)
    gap = functools.reduce(np.add, terms) - norm.logpdf(z, combined.mean, np.sqrt(combined.var))
    np.testing.assert_allclose(gap, np.broadcast_to(gap[0], gap.shape), atol=1e-9)


def test_standard_gaussian_is_standard():
    message = Gaussian.standard(N, D)
    np.testing.assert_array_equal(message.mean, np.zeros((N, D)))
    np.testing.assert_array_equal(message.var, np.ones((N, D)))


def test_mixture_product_multiplies_every_pair_of_components():
    a, b = make(Mixture, 1), make(Mixture, 2)
    combined = a * b
    z = np.random.default_rng(4).normal(size=(7, D))
    for i in range(K):
        for j in range(K):
            pair = i * K + j
            gap = (
                multivariate_normal.logpdf(z, a.means[i], a.covariances[i])
                + multivariate_normal.logpdf(z, b.means[j], b.covariances[j])
                - multivariate_normal.logpdf(z, combined.means[pair], combined.covariances[pair])
            )
            np.testing.assert_allclose(gap, gap[0], atol=1e-9)
            np.testing.assert_allclose(
                combined.log_prob[:, pair], a.log_prob[:, i] + b.log_prob[:, j]
            )
            assert combined.log_weights[pair] == a.log_weights[i] + b.log_weights[j]


@pytest.mark.parametrize(
    ("left", "right", "match"),
    [
        (make(Gaussian, 0), make(Categorical, 0), "cannot combine a Gaussian with a Categorical"),
        (
            make(Categorical, 0),
            Categorical(log_probabilities(0, k=4)),
            r"different shapes: 5 rows of \(3,\) and 5 rows of \(4,\)",
        ),
        (make(Categorical, 0), Categorical.uniform(4, K), r"5 rows of \(3,\) and 4 rows of"),
        (make(Gaussian, 0), Gaussian(np.zeros((N, D))), "without a variance"),
        (Data(np.ones((N, D))), Data(np.ones((N, D))), "Data messages have no product"),
        (
            Categorical([[np.log(0.5), np.log(0.5)], [0.0, -np.inf]]),
            Categorical([[0.0, -np.inf], [-np.inf, 0.0]]),
            "contradict each other in row 1",
        ),
    ],
)
def test_products_that_make_no_sense_are_refused(left, right, match):
    with pytest.raises(MessageError, match=match):
        product([left, right])


# -- what a mixture says -----------------------------------------------------------------------


def test_assigned_and_expected_means():
    message = make(Mixture, 0)
    probability = np.exp(message.log_prob)
    for n in range(N):
        best = max(range(K), key=lambda k: probability[n, k])
        np.testing.assert_array_equal(message.assigned().mean[n], message.means[best])
        expected = sum(probability[n, k] * message.means[k] for k in range(K))
        np.testing.assert_allclose(message.expected().mean[n], expected)
    for target in (message.assigned(), message.expected()):
        np.testing.assert_array_equal(target.var, np.ones((N, D)))


def test_weights_are_uniform_unless_given():
    message = make(Mixture, 0)
    unweighted = Mixture(message.log_prob, message.means, message.covariances)
    np.testing.assert_allclose(np.exp(unweighted.log_weights), 1 / K)


def test_split_gives_each_parent_its_marginal():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(K, 5, 5))
    covariances = roots @ roots.transpose(0, 2, 1)
    whole = Mixture(log_probabilities(0), rng.normal(size=(K, 5)), covariances)
    first, second = whole.split([2, 3])
    for part, columns in ((first, [0, 1]), (second, [2, 3, 4])):
        np.testing.assert_array_equal(part.means, whole.means[:, columns])
        np.testing.assert_array_equal(part.log_prob, whole.log_prob)
        for k in range(K):
            block = whole.covariances[k][np.ix_(columns, columns)]
            np.testing.assert_array_equal(part.covariances[k], block)

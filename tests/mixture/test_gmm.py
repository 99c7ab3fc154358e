"""The GMM module: against scikit-learn, its messages, its starts, its use and its errors."""

import sys
import warnings
from functools import partial
from itertools import permutations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from serkit import Observation
from serkit.errors import InputError, NotReadyError, SerkitError, TrainingError
from serkit.messages import Categorical, Data, Gaussian
from serkit.module import bound_of
from serkit.modules import GMM
from serkit.modules.mixture import statistics
from serkit.modules.mixture.rows import Rows
from tests.helpers import oracles
from tests.helpers.mixtures import all_inference, all_types
from tests.helpers.modules import Teller

K = 3
em_only = pytest.mark.parametrize("inference", ["map", "ml"])


def soft(n=150, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(K), n)


def learnt(gmm, x, from_children=None):
    gmm.learn([Data(x)], from_children)
    return gmm


def assert_same_mixture(one, other, **tolerance):
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **tolerance)


def hits(gmm, blobs):
    return oracles.best_accuracy(blobs.labels.tolist(), gmm.predict(blobs.x).tolist())


# -- against references ------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("prior", [None, Categorical.uniform(150, K)], ids=["no prior", "flat"])
@pytest.mark.parametrize("max_iter", [1, 25])
def test_maximum_likelihood_equals_sklearn(x, covariance_type, prior, max_iter):
    options = {"covariance_type": covariance_type, "max_iter": max_iter}
    gmm = learnt(GMM(K, inference="ml", means_init=x[:K], tol=0, **options), x, prior)
    reference = oracles.sklearn_mixture(x, x[:K], **options)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    for name in ("weights_", "means_", "covariances_"):
        close(getattr(gmm, name), getattr(reference, name))
    close(gmm.responsibilities_, reference.predict_proba(x))
    close(gmm.log_likelihood_[-1], reference.score(x))
    new = x[:40] + 0.3
    np.testing.assert_array_equal(gmm.predict(new), reference.predict(new))
    for name in ("predict_proba", "score_samples", "bic", "aic"):
        close(getattr(gmm, name)(new), getattr(reference, name)(new))


@all_types
def test_from_the_same_start_a_step_is_scikit_learns(x, covariance_type):
    """Its attributes and scores too, from weights, means and precisions of no assignment."""
    rng = np.random.default_rng(3)
    matrices = np.stack([np.cov(rng.normal(size=(9, 3)).T) + np.eye(3) for _ in range(K)])
    shaped = {"full": matrices, "tied": matrices[0], "spherical": matrices[:, 0, 0]}
    precisions = shaped.get(covariance_type, np.diagonal(matrices, axis1=1, axis2=2))
    start = {"weights_init": rng.dirichlet(np.ones(K)), "means_init": x[:K] + 0.1}
    options = {"covariance_type": covariance_type, "max_iter": 1, "tol": 0.0, **start}
    options["precisions_init"] = precisions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        gmm = GMM(K, inference="ml", **options).fit(x)
        reference = GaussianMixture(K, **options).fit(x)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        close(getattr(gmm, name), getattr(reference, name), err_msg=name)
    for name in ("score", "aic", "bic"):
        close(getattr(gmm, name)(x), getattr(reference, name)(x), err_msg=name)
    assert gmm.n_iter_ == reference.n_iter_ == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights_init": [0.5, 0.6, 0.1]}, "weights_init must be 3 numbers >= 0 that add up to 1"),
        ({"weights_init": [0.5, 0.5]}, "weights_init must be 3 numbers"),
        ({"precisions_init": np.eye(4)}, r"precisions_init must be .* of shape \(3, 4, 4\) for"),
        ({"precisions_init": [-np.eye(4)] * 3}, "precisions_init must be positive definite"),
    ],
)
def test_starts_that_are_no_mixture_are_refused(blobs, options, text):
    with pytest.raises(InputError, match=text):
        GMM(3, **options).fit(blobs.x)


@all_types
@pytest.mark.parametrize("own", [False, True], ids=["default prior", "own prior"])
def test_the_priors_hyperparameters(x, covariance_type, own):
    """One component has a closed form.

    Defaults: the data's mean, 1, nu = D + 2, and a tenth of the data's variances, of diagonal
    covariances times nu + D + 2 = 10.
    """
    share = 1.0 if covariance_type in ("diag", "spherical") else 0.1
    hyper = x.mean(axis=0), 1.0, 5, share * np.diag(x.var(axis=0))
    options = {}
    if own:
        names = (
            "mean_prior",
            "mean_precision_prior",
            "degrees_of_freedom_prior",
            "covariance_prior",
        )
        hyper = np.full(3, 5.0), 7.0, 9.0, np.diag([1.0, 2.0, 3.0])
        options = dict(zip(names, hyper, strict=True))
    gmm = GMM(1, covariance_type=covariance_type, **options).fit(x)
    ones = np.ones((len(x), 1))
    _, means, covariances = oracles.map_update(x, 0 * x, ones, covariance_type, *hyper)
    np.testing.assert_allclose(gmm.means_, means)
    np.testing.assert_allclose(gmm.covariances_, covariances)


def test_large_concentrations_even_the_weights_out(blobs):
    few = blobs.x[np.argsort(blobs.labels, kind="stable")][:90]  # 40, 40 and 10 rows
    weights = [  # of clusters that overlap by some millionths
        np.sort(GMM(K, weight_concentration_prior=a, random_state=0).fit(few).weights_)
        for a in (1.0, 21.0, 1e6)
    ]
    np.testing.assert_allclose(weights[0], [10 / 90, 40 / 90, 40 / 90], atol=1e-5)
    np.testing.assert_allclose(weights[1], [30 / 150, 60 / 150, 60 / 150], atol=1e-5)
    np.testing.assert_allclose(weights[2], 1 / 3, atol=1e-4)


# -- invariances -------------------------------------------------------------------------------


@all_inference
@all_types
def test_a_uniform_message_changes_nothing(x, inference, covariance_type):
    make = partial(GMM, K, inference=inference, covariance_type=covariance_type, max_iter=10)
    without = learnt(make(random_state=0), x)
    uniform = learnt(make(random_state=0), x, Categorical.uniform(150, K))
    assert_same_mixture(uniform, without, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(uniform.log_likelihood_, without.log_likelihood_, rtol=1e-9)


@all_types
@em_only
def test_permuting_rows_permutes_results(x, covariance_type, inference):
    order, start, prior = np.random.default_rng(2).permutation(150), soft(seed=3), np.log(soft())
    make = partial(GMM, K, covariance_type=covariance_type, inference=inference, max_iter=30)
    still = learnt(make(responsibilities_init=start), x, Categorical(prior))
    moved = learnt(make(responsibilities_init=start[order]), x[order], Categorical(prior[order]))
    assert_same_mixture(moved, still, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moved.responsibilities_, still.responsibilities_[order], atol=1e-7)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "spherical"])
def test_rotating_the_data_rotates_the_mixture(x, covariance_type):
    """A prior that is isotropic about the data's mean knows no special direction."""
    rotation, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    options = {"covariance_type": covariance_type, "covariance_prior": 0.1}
    make = partial(GMM, K, responsibilities_init=soft(), **options)
    still, turned = make().fit(x), make().fit(x @ rotation)
    np.testing.assert_allclose(turned.means_, still.means_ @ rotation, atol=1e-8)
    expected = still.covariances_
    if covariance_type != "spherical":
        expected = rotation.T @ expected @ rotation
    np.testing.assert_allclose(turned.covariances_, expected, atol=1e-8)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_units_of_the_columns_make_no_difference(x, covariance_type):
    """With the default prior, whose scale is the data's, and starts of equal responsibilities."""
    units = np.array([1e-6, 1.0, 1e6])
    make = partial(GMM, K, covariance_type=covariance_type, responsibilities_init=soft())
    still, scaled = make().fit(x), make().fit(x * units + [1.0, 0.0, -1e3])
    # of 1e-6 at 1 ten of sixteen digits are left
    np.testing.assert_allclose(scaled.responsibilities_, still.responsibilities_, atol=1e-5)


@pytest.mark.parametrize("factor", [3e-3, 1e-3, 1e-9, 1e9])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_blobs_are_found_in_any_unit_and_anywhere(blobs, factor, offset):
    """Case C3: a fixed S0 = 0.1 I swallowed all clusters of rows in small units."""
    x = factor * (blobs.x + offset)
    gmm = GMM(len(set(blobs.labels)), random_state=0).fit(x)
    assert oracles.best_accuracy(blobs.labels.tolist(), gmm.predict(x).tolist()) == 1


def test_a_constant_column_changes_no_class(blobs):
    x = np.column_stack([blobs.x, np.full(len(blobs.x), 7.0)])
    assert hits(GMM(K, random_state=0).fit(blobs.x), blobs) == 1
    gmm = GMM(K, random_state=0).fit(x)
    assert oracles.best_accuracy(blobs.labels.tolist(), gmm.predict(x).tolist()) == 1


def test_tries_of_split_and_merge_follow_the_starts():
    """Two means in one blob and one over two, from which EM by itself finds no way out."""
    x = np.repeat([[0.0], [8.0], [12.0]], 20, axis=0)
    x += np.random.default_rng(0).normal(scale=0.1, size=x.shape)
    options = {"means_init": [[-0.1], [0.1], [10.0]], "inference": "ml", "reg_covar": 0.01}
    stuck, free = GMM(3, **options).fit(x), GMM(3, n_split_merge=3, **options).fit(x)
    assert np.sort(stuck.means_[:, 0])[1] < 1
    np.testing.assert_allclose(np.sort(free.means_[:, 0]), [0, 8, 12], atol=0.5)
    assert free.log_likelihood_[-1] > stuck.log_likelihood_[-1]


@em_only
@all_types
def test_sample_weights_count_rows(x, inference, covariance_type):
    """A weight of 2 is the row twice, of 0 no row; with m0 given, as the data's mean differs."""
    start, weight = soft(), np.random.default_rng(5).integers(0, 3, 150)
    rows = np.repeat(np.arange(150), weight)
    options = {"covariance_type": covariance_type, "inference": inference, "mean_prior": [0, 0, 0]}
    make = partial(GMM, K, max_iter=20, tol=0, **options)
    weighted = make(responsibilities_init=start, sample_weight=weight).fit(x)
    repeated = make(responsibilities_init=start[rows]).fit(x[rows])
    assert_same_mixture(weighted, repeated, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_)


def test_labels_only_score(blobs):
    shuffled = np.random.default_rng(0).permutation(blobs.labels)
    fits = [GMM(K, labels=labels, random_state=0) for labels in (None, blobs.labels, shuffled)]
    reports = [gmm.learn([Data(blobs.x)], None) for gmm in fits]
    for gmm in fits[1:]:
        np.testing.assert_array_equal(gmm.responsibilities_, fits[0].responsibilities_)
    assert "accuracy" not in reports[0]
    assert reports[1]["accuracy"] == reports[1]["nmi"] == reports[1]["ari"] == 1.0
    assert reports[2]["accuracy"] < 0.6


# -- starts ------------------------------------------------------------------------------------


@all_inference
@all_types
def test_separated_blobs_are_found(blobs, inference, covariance_type):
    gmm = GMM(K, inference=inference, covariance_type=covariance_type, random_state=0, max_iter=20)
    assert hits(gmm.fit(blobs.x), blobs) == 1.0


def test_the_best_of_n_starts_is_kept(x):
    options = {"random_state": 0, "max_iter": 9}  # none is given up
    fits = [GMM(5, n_init=n, **options).fit(x[:60]).log_likelihood_[-1] for n in (1, 2, 4, 8)]
    assert (np.diff(fits) > -1e-12).all()  # sums of other lengths round differently
    assert fits[-1] > fits[0]


@all_inference
def test_same_seed_same_bits_and_global_state_untouched(x, inference):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make = partial(GMM, K, inference=inference, max_iter=10)
    one, same, other = (make(random_state=seed).fit(x).means_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("order", list(permutations(range(K))))
@pytest.mark.parametrize("given", ["means_init", "responsibilities_init"])
def test_own_starts_number_the_components(blobs, order, given):
    centres = np.array([blobs.x[blobs.labels == k].mean(axis=0) for k in order])
    place = np.argsort(order)[blobs.labels]
    start = {"means_init": centres, "responsibilities_init": np.eye(K)[place]}[given]
    gmm = GMM(K, **{given: start}).fit(blobs.x)
    np.testing.assert_array_equal(gmm.predict(blobs.x), place)


def test_own_starts_serve_the_first_update_only(blobs):
    """From even responsibilities EM cannot leave the saddle where all components are alike."""
    gmm = GMM(K, responsibilities_init=np.full((120, K), 1 / K), random_state=0)
    gmm.connect(Observation(blobs.x)).update()
    np.testing.assert_allclose(gmm.means_ - gmm.means_[0], 0, atol=1e-9)
    assert hits(gmm.update(), blobs) == 1.0


@pytest.mark.parametrize("seed", range(2))
@all_inference
def test_warm_start_keeps_labels_put(blobs, seed, inference):
    rng = np.random.default_rng(seed)
    gmm = GMM(K, inference=inference, random_state=seed, max_iter=15).connect(Observation(blobs.x))
    first = gmm.update().predict(blobs.x)
    for _ in range(2):
        moved = blobs.x * 1.5 + 0.1 * rng.normal(size=blobs.x.shape)
        np.testing.assert_array_equal(
            gmm.connect(Observation(moved)).update().predict(moved), first
        )


def test_without_warm_start_the_numbering_is_free(blobs):
    gmm = GMM(K, warm_start=False, random_state=0).connect(Observation(blobs.x))
    assert len({tuple(gmm.update().means_[:, 0].argsort()) for _ in range(8)}) > 1


@pytest.mark.filterwarnings("ignore:GMM. components")  # five are more than these rows need
@pytest.mark.parametrize("seed", range(4))
def test_a_warm_start_is_at_least_as_good_as_going_on(x, seed):
    gmm = GMM(5, n_init=1, random_state=seed, tol=1e-7, max_iter=500).connect(Observation(x))
    first = gmm.update().log_likelihood_[-1]
    assert gmm.update().log_likelihood_[-1] >= first - 1e-4


# -- messages ----------------------------------------------------------------------------------


@all_types
def test_the_message_up_leaves_the_childrens_out_and_that_down_uses_it(x, covariance_type):
    prior = Categorical(np.log(soft()))
    gmm = learnt(GMM(K, covariance_type=covariance_type, random_state=0), x, prior)
    matrices = oracles.as_matrices(gmm.covariances_, covariance_type, K, 3)
    own = oracles.log_joint(x, gmm.weights_, gmm.means_, matrices)
    both = log_softmax(own + prior.log_prob, axis=1)
    found = gmm.infer([Data(x)], prior)
    (down,) = found.down
    close = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
    close(found.up.log_prob, log_softmax(own, axis=1))
    close(down.log_prob, both)
    close(found.classes.log_prob, both)
    close(gmm.responsibilities_, np.exp(both))
    close(down.means, gmm.means_)
    close(down.covariances, matrices)
    close(np.exp(down.log_weights), gmm.weights_)


def test_certain_children_decide_the_classes(x):
    classes = np.random.default_rng(6).integers(K, size=len(x))
    with np.errstate(divide="ignore"):
        certain = Categorical(np.log(np.eye(K)[classes]))
    gmm = learnt(GMM(K, inference="ml", random_state=0), x, certain)
    np.testing.assert_allclose(gmm.means_, [x[classes == k].mean(axis=0) for k in range(K)])
    np.testing.assert_allclose(gmm.responsibilities_, np.eye(K)[classes])


@pytest.mark.parametrize("use_variance", [True, False])
def test_parents_are_set_side_by_side_with_their_variances(x, use_variance):
    """A parent without variances counts as certain; each gets the marginal of its dimensions."""
    variances = np.random.default_rng(7).gamma(2.0, 0.1, size=(150, 2))
    inputs, start = [Data(x[:, :1, None]), Gaussian(x[:, 1:], variances)], soft()
    gmm = GMM(K, responsibilities_init=start, max_iter=1, use_variance=use_variance)
    gmm.learn(inputs, None)
    known = np.column_stack([np.zeros(150), variances]) * use_variance
    update = partial(oracles.map_update, x, known, covariance_type="full", m0=x.mean(axis=0))
    sent = np.column_stack([np.zeros(150), variances])
    variances = x.var(axis=0) + sent.mean(axis=0)
    update = partial(update, kappa=1, nu=5, scale=0.1 * np.diag(variances))
    weights, means, covariances = update(resp=start)
    precisions = [np.diag(np.linalg.inv(c)) for c in covariances]
    joint = oracles.log_joint(x, weights, means, covariances) - known @ np.transpose(precisions) / 2
    weights, means, covariances = update(resp=np.exp(log_softmax(joint, axis=1)))
    np.testing.assert_allclose(gmm.weights_, weights)
    np.testing.assert_allclose(gmm.covariances_, covariances)
    for message, columns in zip(gmm.infer(inputs, None).down, ([0], [1, 2]), strict=True):
        np.testing.assert_allclose(message.means, means[:, columns])
        marginals = [c[np.ix_(columns, columns)] for c in covariances]
        np.testing.assert_allclose(message.covariances, marginals)


@all_types
@pytest.mark.parametrize("use_variance", [True, False])
@pytest.mark.parametrize("is_prior", [True, False])
def test_the_bound_is_that_of_the_parents_distributions(x, covariance_type, use_variance, is_prior):
    """E_q(z)[log p(z, k) + log P(k | n) K - log r(k)] under the responsibilities sent down."""
    rows = Gaussian(x, np.random.default_rng(7).gamma(2.0, 0.1, size=x.shape))
    from_children = Categorical(np.log(soft()), is_prior=is_prior)
    gmm = GMM(K, covariance_type=covariance_type, use_variance=use_variance, random_state=0)
    gmm.learn([rows], from_children)
    found = gmm.infer([rows], from_children)
    (down,) = found.down
    joint = oracles.log_joint(x, np.ones(K), down.means, down.covariances)
    traces = rows.var @ np.transpose([np.diag(np.linalg.inv(c)) for c in down.covariances]) / 2
    log_prior = from_children.log_prob if is_prior else down.log_weights + np.log(soft() * K)
    terms = np.exp(down.log_prob) * (joint - traces + log_prior - down.log_prob)
    assert bound_of(found) == pytest.approx(terms.sum(axis=1).mean())


@pytest.mark.parametrize("from_children", [None, Categorical(np.log(soft()))])
def test_the_joint_density_is_evaluated_once(x, from_children, monkeypatch):
    """From it both messages, the classes and the bound, even where that alone counts variances."""
    rows = Gaussian(x, np.full(x.shape, 0.1))
    gmm, n_rows = GMM(K, random_state=0), []
    gmm.learn([rows], from_children)
    log_gaussians = Rows.log_gaussians

    def counting(rows, density):
        n_rows.append(len(rows))
        return log_gaussians(rows, density)

    monkeypatch.setattr(Rows, "log_gaussians", counting)
    bound_of(gmm.infer([rows], from_children))
    assert sum(n_rows) == len(x)


def test_the_e_step_is_eight_frames_below_update(x, monkeypatch):
    depths, softmax = [], statistics.softmax

    def look(joint):
        frame, names = sys._getframe(), []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        depths.append(names.index("update") + 1)
        return softmax(joint)

    defaults = dict(statistics.e_step.__kwdefaults__, respond=look)
    monkeypatch.setattr(statistics.e_step, "__kwdefaults__", defaults)
    GMM(K, random_state=0).connect(Observation(x)).update()
    assert max(depths) == 8


def test_a_mixture_fitted_beforehand_may_be_frozen(blobs):
    """As an encoder may: the frozen pipeline is one case of the graph."""
    gmm = GMM(K, random_state=0).fit(blobs.x)
    means = gmm.means_.copy()
    message = gmm.connect(Observation(blobs.x)).freeze().update().message_up
    np.testing.assert_array_equal(gmm.means_, means)
    np.testing.assert_allclose(np.exp(message.log_prob), gmm.predict_proba(blobs.x))


@pytest.mark.parametrize(
    "change", [{"n_components": 4}, {"covariance_type": "diag"}, {"n_components": 2}]
)
@pytest.mark.filterwarnings("ignore:GMM. components")
def test_arguments_that_change_take_effect(blobs, change):
    """Also under a child, which spoke of other components."""
    gmm = GMM(K, random_state=0).connect(Observation(blobs.x)).update()
    before, n_init = gmm.density(), gmm.n_init
    Teller(Categorical(np.log(soft(120)))).connect(gmm).update()
    gmm.set_params(**change)
    np.testing.assert_array_equal(gmm.density().means, before.means)  # until it learns
    gmm.update()
    fresh = GMM(**{"n_components": K, **change}, n_init=n_init, random_state=0)
    assert gmm.density().covariances.shape == fresh.fit(blobs.x).density().covariances.shape
    assert gmm.message_up.shape == (gmm.n_components,)


def test_a_frozen_mixture_says_that_other_components_take_no_effect(blobs):
    gmm = GMM(K, name="mine", random_state=0).connect(Observation(blobs.x)).update().freeze()
    gmm.set_params(n_components=4)
    with pytest.raises(
        InputError, match=r"GMM 'mine' is frozen with 3 .*: unfreeze\(\) it for n_c"
    ):
        gmm.update()


# -- use ---------------------------------------------------------------------------------------


@all_types
def test_rows_are_generated_from_classes_components_or_the_weights(blobs, covariance_type):
    """Each parent gets its own columns; at the means, within five standard errors."""
    parents = Observation(blobs.x[:, :1]), Observation(blobs.x[:, 1:])
    gmm = GMM(K, covariance_type=covariance_type, random_state=0).connect(*parents).update()
    certain = np.eye(K)[np.arange(900) % K]
    first, second = gmm.generate(900, np.random.default_rng(0), certain)
    assert (first.shape, second.shape) == ((900, 1), (900, 3))
    drawn = np.hstack([first, second])
    for k in range(K):
        assert oracles.within(drawn[k::K], gmm.means_[k]).all()
        rows = np.hstack(gmm.generate(300, np.random.default_rng(1), component=k))
        assert oracles.within(rows, gmm.means_[k]).all()
    rows = np.hstack(gmm.generate(900, np.random.default_rng(2)))
    assert oracles.within(rows, gmm.density().mean()).all()
    with pytest.raises(InputError, match="GMM: component=3 does not exist; they are 0 to 2"):
        gmm.generate(1, np.random.default_rng(0), component=3)


@all_types
def test_samples_have_the_mixtures_moments(blobs, covariance_type):
    gmm = GMM(K, covariance_type=covariance_type, random_state=0).fit(blobs.x)
    rows, components = gmm.sample(6000, random_state=1)
    assert oracles.within(np.eye(K)[components], gmm.weights_).all()
    matrices = oracles.as_matrices(gmm.covariances_, covariance_type, K, 4)
    for k in range(K):
        drawn, which = gmm.sample(3000, component=k, random_state=2)
        assert set(which) == {k}
        for offsets in (drawn - gmm.means_[k], rows[components == k] - gmm.means_[k]):
            assert oracles.within(offsets, 0).all()
            assert oracles.within(offsets[:, :, None] * offsets[:, None], matrices[k]).all()


def test_sampling_repeats_unless_told(blobs):
    gmm = GMM(K, random_state=0).fit(blobs.x)
    np.testing.assert_array_equal(gmm.sample(5)[0], gmm.sample(5)[0])
    assert not np.array_equal(gmm.sample(5)[0], gmm.sample(5, random_state=9)[0])
    with pytest.raises(InputError, match="GMM: component=3 does not exist; they are 0 to 2"):
        gmm.sample(1, component=3)


def test_starts_by_update():
    """Of (3, 0) the later updates go on from the last parameters alone, as from those given."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    observation = Observation(x)
    gmm = GMM(3, n_init=(3, 0), max_iter=4, tol=0.0, random_state=0).connect(observation)
    once = GMM(3, n_init=3, max_iter=4, tol=0.0, random_state=0).connect(observation).update()
    np.testing.assert_array_equal(gmm.update().means_, once.means_)
    best = gmm.update().log_likelihood_
    assert best[0] == pytest.approx(once.log_likelihood_[-1])  # where the first update ended
    assert len(best) == 5


@pytest.mark.parametrize("n_init", [0, (0, 5), (), (5, -1), 2.5, "5"])
def test_numbers_of_starts_that_cannot_be(n_init):
    with pytest.raises(InputError, match="n_init must be an integer >= 1, or several"):
        GMM(2, n_init=n_init).fit(np.random.default_rng(0).normal(size=(20, 2)))


def test_numpys_integers_are_integers(blobs):
    plain = GMM(K, n_init=2, max_iter=5, random_state=0).fit(blobs.x)
    of_numpy = GMM(np.int64(K), n_init=np.int32(2), max_iter=np.int16(5), random_state=np.int64(0))
    assert_same_mixture(of_numpy.fit(blobs.x), plain, rtol=0)


# -- where something is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(GMM(1).get_params()) - {"name"}))
@pytest.mark.parametrize("value", [np.ones((2, 2, 2)), object(), "odd", {}, [[1], [2, 3]]])
def test_odd_values_of_any_option_are_refused_by_name(blobs, name, value):
    gmm = GMM(K, random_state=0).set_params(**{name: value})
    with pytest.raises(InputError, match=f"GMM: .*{name}"):
        gmm.fit(blobs.x)


@all_inference
@all_types
def test_dead_components_stay_finite_and_are_reported(blobs, inference, covariance_type):
    start = np.eye(K + 1)[blobs.labels]
    gmm = GMM(
        K + 1,
        inference=inference,
        covariance_type=covariance_type,
        responsibilities_init=start,
        max_iter=1,
        name="mine",
        random_state=0,
    )
    with pytest.warns(UserWarning, match=r"GMM 'mine': components \[3\] lost all their rows"):
        gmm.fit(blobs.x)
    np.testing.assert_array_equal(gmm.empty_components_, [3])
    for name in ("weights_", "means_", "covariances_", "responsibilities_", "lower_bound_"):
        assert np.isfinite(getattr(gmm, name)).all()
    assert np.isfinite(gmm.score_samples(blobs.x)).all()
    np.testing.assert_allclose(gmm.means_[3], blobs.x.mean(axis=0), atol=0.1)  # or the prior's
    if inference == "ml" and covariance_type != "tied":
        matrix = oracles.as_matrices(gmm.covariances_, covariance_type, K + 1, 4)[3]
        assert np.trace(matrix) == pytest.approx(blobs.x.var(axis=0).sum(), rel=0.3)


def test_latents_that_hold_little_are_named_where_components_lose_their_rows():
    """Iris in two numbers, each row unsure: all rows end in one cluster."""
    cause = "or use_variance=False: where latents hold little of the data"
    whitened = PCA(2, whiten=True).fit_transform(load_iris().data)
    unsure = Gaussian(0.7 * whitened, np.full((150, 2), 0.255))
    gmm = GMM(K, use_variance=True, random_state=0)
    with pytest.warns(UserWarning, match=f"lost all their rows.*{cause}"):
        gmm.learn([unsure], None)
    assert len(np.unique(gmm.responsibilities_.argmax(axis=1))) == 1
    one = np.eye(K)[np.zeros(150, dtype=int)]
    certain = GMM(K, use_variance=True, responsibilities_init=one, max_iter=1)
    with pytest.warns(UserWarning, match="lost all their rows") as told:
        certain.learn([Data(unsure.mean)], None)
    assert cause not in str(told[0].message)  # rows without variances have another cause


def test_components_that_lie_on_each_other_are_named(x):
    """From equal responsibilities EM never parts them."""
    gmm = GMM(2, responsibilities_init=np.full((len(x), 2), 0.5))
    with pytest.warns(UserWarning, match=r"all rows are most probably of component [01], on which"):
        gmm.fit(x)
    assert len(gmm.empty_components_) == 0


@all_types
@all_inference
def test_constant_and_duplicated_features_are_taken(x, covariance_type, inference):
    x = np.column_stack([x, x[:, 0], np.full(len(x), 3.0)])
    gmm = GMM(K, inference=inference, covariance_type=covariance_type, random_state=0, max_iter=20)
    assert np.isfinite(gmm.fit(x).score_samples(x)).all()


@all_inference
def test_values_beyond_floating_point_are_an_error_and_nothing_is_lost(x, inference):
    gmm = GMM(K, inference=inference, random_state=0, max_iter=5).fit(x)
    means = gmm.means_.copy()
    huge = x * 1e200
    with np.errstate(all="ignore"), pytest.raises(SerkitError, match="GMM: "):
        gmm.fit(huge)
    np.testing.assert_array_equal(gmm.means_, means)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_singular_covariances_are_an_error_and_nothing_is_lost(x, covariance_type):
    x = np.column_stack([x, np.full(len(x), 3.0)])
    gmm = GMM(K, inference="ml", covariance_type=covariance_type, random_state=0)
    means = gmm.fit(x).means_.copy()
    gmm.reg_covar = 0.0
    with pytest.raises(TrainingError, match=r"not positive definite; raise reg_covar=0\.0"):
        gmm.fit(x)
    np.testing.assert_array_equal(gmm.means_, means)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_components": 0}, "n_components must be an integer >= 1 or 'auto', got 0"),
        ({"n_components": 2.0}, "n_components must be an integer >= 1 or 'auto', got 2.0"),
        ({"n_components": 121}, "n_components=121 is more than the 120 rows"),
        ({"n_init": 0}, "n_init must be an integer >= 1"),
        ({"max_iter": -1}, "max_iter must be an integer >= 1"),
        ({"tol": -1e-3}, "tol must be a number >= 0, got -0.001"),
        ({"reg_covar": np.nan}, "reg_covar must be a number >= 0, got nan"),
        ({"covariance_type": "round"}, "unknown covariance_type='round'; expected one of 'full'"),
        ({"inference": "vb"}, "unknown inference='vb'; expected one of 'map', 'ml', 'gibbs'"),
        ({"labels": [0, 1]}, "labels has 2 entries for 120 rows"),
        ({"labels": np.zeros((120, 1))}, r"labels .*\(120, 1\)"),
        ({"labels": [np.nan] * 120}, "labels "),
        ({"labels": [None] * 120}, "labels "),
        ({"labels": 3}, "labels .*3"),
        ({"sample_weight": np.ones(3)}, "sample_weight has 3 entries for 120 rows"),
        ({"sample_weight": -np.ones(120)}, "sample_weight must be 120 finite numbers >= 0"),
        ({"sample_weight": np.full(120, np.nan)}, "sample_weight must be 120 finite numbers >= 0"),
        ({"sample_weight": np.zeros(120)}, "every sample_weight is 0"),
        ({"means_init": np.zeros((2, 4))}, r"means_init of shape \(3, D\), got \(2, 4\)"),
        ({"means_init": np.full((3, 4), np.nan)}, "means_init must be finite numbers"),
        (
            {"responsibilities_init": np.ones((120, 2))},
            r"responsibilities_init of shape \(120, 3\)",
        ),
        ({"responsibilities_init": np.ones((120, 3))}, "responsibilities_init must add up to 1"),
        ({"responsibilities_init": np.ones((3, 3))}, "responsibilities_init has 3 entries"),
        ({"responsibilities_init": np.eye(3)[[0] * 120] * -1}, "without negative entries"),
        ({"mean_precision_prior": 0}, "mean_precision_prior must be a number > 0, got 0"),
        ({"mean_prior": [0.0]}, r"for D=4 dimensions expected mean_prior \(4,\).*got \(1,\)"),
        ({"covariance_prior": np.eye(3)}, r"covariance_prior a number or \(4, 4\).*\(3, 3\)"),
        ({"covariance_prior": -1.0}, "covariance_prior must be positive definite"),
        ({"covariance_prior": np.nan}, "covariance_prior "),
        ({"mean_prior": [np.nan] * 4}, "mean_prior "),
        ({"degrees_of_freedom_prior": np.nan}, "degrees_of_freedom_prior "),
        ({"weight_concentration_prior": 0.5}, "weight_concentration_prior must be a number >= 1"),
        ({"degrees_of_freedom_prior": 3}, "degrees_of_freedom_prior > 3"),
    ],
)
def test_bad_options_are_refused_before_anything_is_learnt(blobs, options, match):
    gmm = GMM(**{"n_components": K, "name": "mine", **options})
    with pytest.raises(InputError, match=f"GMM 'mine'.*{match}"):
        gmm.fit(blobs.x)
    assert not hasattr(gmm, "means_")


def test_bad_rows_are_refused(blobs):
    with pytest.raises(InputError, match=r"GMM\.fit: NaN or infinity in 1 of 120 rows \(rows 7\)"):
        GMM(K).fit(np.where(np.arange(120)[:, None] == 7, np.nan, blobs.x))
    with pytest.raises(InputError, match="n_components=3, but only 2 of the 60 rows are distinct"):
        GMM(K).fit(np.repeat([[0.0], [1.0]], 30, axis=0))
    gmm = GMM(K).fit(blobs.x)
    for use in (gmm.predict, gmm.predict_proba, gmm.score_samples, gmm.bic):
        with pytest.raises(InputError, match="X has 3 features, but GMM is expecting 4"):
            use(blobs.x[:, :3])


def test_children_with_other_classes_are_refused(blobs):
    with pytest.raises(InputError, match="sent probabilities of 5 classes for n_components=3"):
        learnt(GMM(K), blobs.x, Categorical.uniform(120, 5))


def test_nothing_can_be_asked_before_fitting(blobs):
    gmm = GMM(K, name="mine")
    for use in (gmm.predict, gmm.score_samples, gmm.bic, gmm.aic):
        with pytest.raises(NotReadyError, match="GMM 'mine' is not fitted yet"):
            use(blobs.x)
    with pytest.raises(NotReadyError, match="not fitted yet"):
        gmm.sample()

"""The variational autoencoder: its loss, every KL target, and the ELBO it shares with a GMM."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import distributions as dist

from serkit import Graph, Observation
from serkit.errors import InputError, TrainingError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.module import bound_of
from serkit.modules import AE, GMM, VAE, MultinomialVAE, RandomAffine
from serkit.modules.nets.architectures import Bernoulli, GaussianNoise
from tests.helpers import oracles

N, K, D = 20, 3, 2
TARGETS = ("assigned", "expected", "mixture", "standard_normal")
STILL = {"lr": 1e-30}  # moves nothing, so losses are those of the nets an update ends with


@pytest.fixture
def x():
    """Rows (20, 5) in [0, 1]: two different ones, ten times each, the kinds in turn."""
    return np.tile([[0.1, 0.9, 0.5, 0.3, 0.8], [0.9, 0.2, 0.4, 0.7, 0.1]], (N // 2, 1))


def tiny(**options):
    defaults = {"hidden_sizes": (16,), "epochs": 1, "lr": 1e-2, "random_state": 0}
    return VAE(D, **defaults | {"device": "cpu", "precision": "float32"} | options)


def mixture(seed=1):
    """Soft responsibilities, the same for rows of one kind; correlated covariances."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(K, D, D))
    return Mixture(
        np.log(np.tile([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], (N // 2, 1))),
        np.array([[2.0, -1.0], [0.0, 1.0], [-1.5, 0.5]]),
        roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(D),
        np.log([0.5, 0.3, 0.2]),
    )


def trained(x, message=None, **options):
    vae = tiny(**options)
    vae.learn([Data(x)], message)
    return vae


def posterior(vae, x):
    """q(z | x) as torch.distributions, in float64, from the message up."""
    message = vae.infer([Data(x)], None).up
    mean, var = torch.tensor(message.mean).double(), torch.tensor(message.var).double()
    return dist.Independent(dist.Normal(mean, var.sqrt()), 1)


def log_likelihoods(vae, x, n_draws, likelihood="bernoulli"):
    """Draws of log p(x | z), z from q(z | x), (n_draws, N), by torch.distributions."""
    q = posterior(vae, x)
    noise = np.random.default_rng(7).standard_normal((n_draws, N, D))
    z = q.mean + q.stddev * torch.tensor(noise)
    output = torch.tensor(vae.decode(z.reshape(-1, D))).reshape(n_draws, N, -1)
    p = dist.Normal(output, 1.0)
    if likelihood == "bernoulli":
        p = dist.Bernoulli(output, validate_args=False)
    return p.log_prob(torch.tensor(x, dtype=torch.float32)).sum(dim=2).double().numpy()


def expected_kl(vae, x, kl_target, message):
    """Mean KL(q || target) over rows, by torch.distributions."""
    q = posterior(vae, x)
    if kl_target == "mixture" and isinstance(message, Mixture):
        fields = (message.log_prob, message.means, message.covariances)
        fields = [field.copy() for field in fields]
        log_var = 2 * q.stddev.log()
        return oracles.kl_to_mixture(q.mean, log_var, *fields, message.log_weights).mean()
    mean, var = np.zeros((N, D)), np.ones((N, D))
    if isinstance(message, Gaussian):
        mean, var = message.mean, message.var
    elif message is not None and kl_target == "assigned":
        mean = message.means[message.log_prob.argmax(axis=1)]
    elif message is not None and kl_target == "expected":
        mean = np.exp(message.log_prob) @ message.means
    target = dist.Independent(dist.Normal(torch.tensor(mean), torch.tensor(var).sqrt()), 1)
    return dist.kl_divergence(q, target).mean().item()


# -- likelihoods -------------------------------------------------------------------------------


def test_bernoulli_equals_torch():
    rng = np.random.default_rng(0)
    x, logits = torch.tensor(rng.random((6, 4))), torch.tensor(rng.normal(0, 5, (6, 4)))
    expected = dist.Bernoulli(logits=logits, validate_args=False).log_prob(x).sum(dim=1)
    torch.testing.assert_close(Bernoulli().log_prob(x, logits), expected)
    torch.testing.assert_close(Bernoulli().mean(logits), dist.Bernoulli(logits=logits).mean)
    extreme = Bernoulli().log_prob(torch.tensor([[1.0]]), torch.tensor([[-1e4]]))
    torch.testing.assert_close(extreme, torch.tensor([-1e4]))


@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_gaussian_equals_torch(variance):
    rng = np.random.default_rng(0)
    x, output = torch.tensor(rng.normal(size=(2, 6, 4)))
    expected = dist.Normal(output, variance**0.5).log_prob(x).sum(dim=1)
    torch.testing.assert_close(
        GaussianNoise(variance).log_prob(x, output), expected, rtol=1e-6, atol=1e-6
    )


# -- the loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kl_target", TARGETS)
@pytest.mark.parametrize("informed", [False, True], ids=["no message", "message"])
def test_kl_term_equals_torch(x, kl_target, informed):
    message = mixture() if informed else None
    vae = trained(x, message, kl_target=kl_target, batch_size=7, **STILL)
    expected = expected_kl(vae, x, kl_target if informed else "standard_normal", message)
    assert vae.loss_curve_[-1]["kl"] == pytest.approx(expected, rel=1e-4)


def test_a_gaussian_message_is_the_target_with_its_variance(x):
    rng = np.random.default_rng(2)
    message = Gaussian(rng.normal(size=(N, D)), rng.gamma(2.0, size=(N, D)))
    vae = trained(x, message, **STILL)
    expected = expected_kl(vae, x, "assigned", message)
    assert vae.loss_curve_[-1]["kl"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_term_is_the_expected_log_likelihood(x, likelihood):
    """One draw of z an epoch, 300 epochs, against 2,000 draws by torch.distributions."""
    vae = trained(x, likelihood=likelihood, epochs=300, **STILL)
    drawn = np.array([epoch["reconstruction"] for epoch in vae.loss_curve_])
    draws = log_likelihoods(vae, x, 2000, likelihood).mean(axis=1)
    error = np.hypot(drawn.std() / np.sqrt(300), draws.std() / np.sqrt(2000))
    assert abs(-drawn.mean() - draws.mean()) < 5 * error


@pytest.mark.parametrize("alpha", [None, 0.0, 4.0])
def test_alpha_weighs_the_kl(x, alpha):
    terms = trained(x, mixture(), alpha=alpha).loss_curve_[-1]
    weight = 1.0 if alpha is None else alpha
    assert terms["kl"] > 0.1
    assert terms["loss"] == pytest.approx(terms["reconstruction"] + weight * terms["kl"], rel=1e-5)


@pytest.mark.parametrize("returned", [-5.0, np.nan, np.inf, "high"])
def test_a_function_that_gives_no_alpha_is_an_error(x, returned):
    with pytest.raises(InputError, match=f"VAE: alpha must return a number >= 0, got .*{returned}"):
        tiny(alpha=lambda update, epoch: returned).fit(x)


def test_alpha_may_be_a_function_of_update_and_epoch(x):
    called = []

    def alpha(update, epoch):
        called.append((update, epoch))
        return 10.0 * update + epoch

    vae = tiny(alpha=alpha, epochs=[2, 3]).connect(Observation(x)).update().update()
    expected = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert list(dict.fromkeys(called)) == expected
    for (update, epoch), terms in zip(expected, vae.loss_curve_, strict=True):
        weighted = terms["reconstruction"] + (10 * update + epoch) * terms["kl"]
        assert terms["loss"] == pytest.approx(weighted, rel=1e-5)


# -- what the targets do -----------------------------------------------------------------------


def optimum(kl_target, message):
    """Mean and variance of the diagonal Gaussian nearest to each row's target."""
    r = np.exp(message.log_prob)  # (N, K)
    if kl_target == "mixture":  # the mean weighs precision matrices, the variance their diagonals
        precisions = np.linalg.inv(message.covariances)
        total = np.einsum("nk,kij->nij", r, precisions)
        pulls = np.einsum("nk,kij,kj->ni", r, precisions, message.means)
        mean = np.array([np.linalg.solve(t, p) for t, p in zip(total, pulls, strict=True)])
        return mean, 1 / np.diagonal(total, axis1=1, axis2=2)
    means = {
        "assigned": message.means[r.argmax(axis=1)],
        "expected": r @ message.means,
        "standard_normal": np.zeros((N, D)),
    }
    return means[kl_target], np.ones((N, D))


@pytest.mark.parametrize("kl_target", TARGETS)
@pytest.mark.parametrize("augment", [None, lambda batch: batch + 0.02], ids=["", "augmented"])
def test_a_strong_alpha_moves_the_latents_to_the_target(x, kl_target, augment):
    """The target of an augmented row is its original's."""
    message = mixture()
    options = {"alpha": 1e3, "epochs": 200, "lr": 5e-2, "scheduler": "cosine"}
    vae = trained(x, message, kl_target=kl_target, augment=augment, **options)
    seen = x if augment is None else augment(x)
    up, (mean, var) = vae.infer([Data(np.clip(seen, 0, 1))], None).up, optimum(kl_target, message)
    np.testing.assert_allclose(up.mean, mean, atol=0.05)
    np.testing.assert_allclose(up.var, var, rtol=0.1)


def test_latents_follow_the_gmm_in_a_graph(x):
    """The first update knows no message, the second pulls to the means the GMM sent."""
    vae = tiny(alpha=50.0, epochs=[1, 200], lr=5e-2).connect(Observation(x)).update()
    gmm = GMM(2, random_state=0).connect(vae).update()
    before, target = vae.message_up.mean, gmm.messages_down[0].assigned().mean
    after = vae.update().message_up.mean
    assert np.abs(after - target).max() < 0.1 * np.abs(before - target).max() + 0.05


def test_conv_nets_learn_augmented_images():
    images = np.random.default_rng(0).random((30, 9, 9)) * 0.5
    images[:15, 2:7, 3:6] = 0.9
    options = {"net": "conv", "filters": (4, 8), "epochs": 60, "augment": RandomAffine()}
    vae = trained(images, **options)
    losses = [epoch["loss"] for epoch in vae.loss_curve_]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 2


# -- the objective -----------------------------------------------------------------------------


def test_objective_alone_is_the_elbo(x):
    vae = tiny(epochs=20).connect(Observation(x)).update()
    draws = log_likelihoods(vae, x, 4000)
    expected = draws.mean() - expected_kl(vae, x, "standard_normal", None)
    noise = np.sqrt(draws.var(axis=0).sum()) / N  # of one draw a row, as the objective takes
    assert abs(Graph(vae).objective() - expected) < 5 * noise


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("use_variance", [True, False])
def test_objective_of_vae_and_gmm_is_the_joint_elbo(x, covariance_type, use_variance):
    """E_q[log p(x | z)] - sum_k r_k KL(q || N_k) - KL(r || pi); the KL terms to rounding."""
    rows = x + np.random.default_rng(3).uniform(-0.05, 0.05, x.shape)
    vae = tiny(epochs=30).connect(Observation(rows)).update()
    options = {"covariance_type": covariance_type, "use_variance": use_variance}
    gmm = GMM(2, random_state=0, **options).connect(vae).update()
    (down,) = gmm.messages_down
    kl = expected_kl(vae, rows, "mixture", down)
    entropy = posterior(vae, rows).entropy().mean().item()
    assert gmm.posterior.bound + entropy == pytest.approx(-kl, rel=1e-5)
    draws = log_likelihoods(vae, rows, 4000)
    noise = np.sqrt(draws.var(axis=0).sum()) / N
    assert abs(Graph(gmm).objective() - (draws.mean() - kl)) < 5 * noise


def test_objective_before_the_first_gmm_update_takes_the_standard_normal(x):
    vae = tiny().connect(Observation(x)).update()
    alone = Graph(vae).objective()
    gmm = GMM(2).connect(vae)
    assert Graph(gmm).objective() == pytest.approx(alone, rel=1e-6)


def test_objective_of_the_gmm_counts_its_childrens_prior():
    """With K log P(k | n) added, so that a uniform prior adds nothing."""
    z = np.random.default_rng(4).normal(size=(N, D))
    prior = Categorical(mixture().log_prob)
    gmm, inputs = GMM(K, random_state=0), [Gaussian(z)]
    gmm.learn(inputs, prior)
    joint = oracles.log_joint(z, gmm.weights_, gmm.means_, gmm.covariances_)
    joint = joint + prior.log_prob + np.log(K)
    expected = np.logaddexp.reduce(joint, axis=1).mean()  # at the optimal responsibilities
    assert bound_of(gmm.infer(inputs, prior)) == pytest.approx(expected, rel=1e-9)
    with_uniform = bound_of(gmm.infer(inputs, Categorical.uniform(N, K)))
    assert with_uniform == pytest.approx(bound_of(gmm.infer(inputs, None)), rel=1e-9)


def test_a_gmm_update_never_lowers_the_joint_objective(x):
    """EM ascends the ELBO in the mixture's parameters, but for the prior's pull: so by ML."""
    rows = x + np.random.default_rng(3).uniform(-0.05, 0.05, x.shape)
    vae = tiny(epochs=30).connect(Observation(rows)).update()
    options = {"inference": "ml", "reg_covar": 0.0, "use_variance": True}
    gmm = GMM(2, random_state=0, **options).connect(vae).update()
    for _ in range(3):
        vae.update()
        before = Graph(gmm).objective()
        gmm.update()
        assert Graph(gmm).objective() >= before - 1e-9


def test_messages_up(x):
    """A VAE sends means and positive variances, an AE means only; both say nothing of children."""
    vae = tiny(epochs=20)
    vae.learn([Data(x)], None)
    message = vae.infer([Data(x)], None).up
    assert message.var.min() > 0
    np.testing.assert_array_equal(message.mean, vae.encode(x))
    ae = AE(D, epochs=1, device="cpu", random_state=0).fit(x)
    assert ae.infer([Data(x)], None).up.var is None


@pytest.mark.parametrize("change", [lambda x: x[::-1, ::-1], np.asfortranarray])
def test_memory_layout_of_rows_does_not_matter(x, change):
    """Mirrored views and columns first are learnt and encoded as their plain copies are."""
    view = change(x)
    one, other = (trained(rows) for rows in (view, np.array(view, order="C")))
    np.testing.assert_array_equal(one.encode(view), other.encode(view.copy()))


def test_augmentation_keeps_full_precision_beside_bfloat16():
    """A batch is augmented outside of autocast, which would round its matrix products."""
    x = np.random.default_rng(0).random((8, 4)).astype(np.float32)
    dtypes = []

    def augment(batch):
        dtypes.append((batch @ torch.eye(4, device=batch.device)).dtype)
        return batch

    VAE(2, epochs=1, precision="bfloat16", augment=augment, random_state=0).fit(x)
    assert dtypes == [torch.float32]


# -- draws in place of means -----------------------------------------------------------------------


def test_a_draw_is_sent_of_each_row_if_wanted(x):
    """Standardised by the posterior's mean and deviation, draws are N(0, 1)."""
    rows = np.tile(x, (100, 1))
    vae = tiny(sends="sample").connect(Observation(rows)).update()
    q = vae.infer([Data(rows)], None).up
    noise = (vae.message_up.mean - q.mean) / np.sqrt(q.var)
    assert kstest(noise.ravel(), "norm").pvalue > 1e-3  # of one seed, so the same every time
    assert len(np.unique(noise)) == noise.size
    assert vae.message_up.var.max() < 1e-30  # a draw is what it is
    np.testing.assert_array_equal(Graph(vae).predict(rows).latents, q.mean)  # not new rows


def test_each_update_sends_other_draws_and_a_frozen_one_the_same(x):
    vae = tiny(sends="sample", **STILL).connect(Observation(x))
    first, second = (vae.update().message_up.mean for _ in range(2))
    assert np.abs(first - second).min() > 0
    np.testing.assert_array_equal(vae.freeze().update().message_up.mean, second)
    same = tiny(sends="sample", **STILL).connect(Observation(x)).update()
    np.testing.assert_array_equal(same.message_up.mean, first)


def test_missing_rows_send_no_draws(x):
    observed = np.arange(N) % 4 > 0
    vae = tiny(sends="sample").connect(Observation(x, observed=observed)).update()
    np.testing.assert_array_equal(vae.message_up.mean[~observed], 0)
    np.testing.assert_array_equal(vae.message_up.var[~observed], 1)


def test_objective_of_draws_estimates_that_of_means(x):
    """E_q[log p(z)] by one draw a row or in closed form, under a mixture of one component."""
    rows = np.tile(x, (200, 1))
    vae = tiny(epochs=20).connect(Observation(rows)).update()
    exact_alone = Graph(vae).objective()
    gmm = GMM(1, inference="ml", random_state=0).connect(vae).update().freeze()
    exact = gmm.posterior.bound
    vae.set_params(sends="sample").freeze().update()
    drawn = gmm.update().posterior.bound
    log_prob = gmm.density().log_prob(vae.message_up.mean)
    error = log_prob.std() / np.sqrt(len(rows))
    assert drawn == pytest.approx(log_prob.mean(), abs=1e-6)
    assert 0 < abs(drawn - exact) < 5 * error
    gmm.disconnect()
    standard = np.square(vae.update().message_up.mean).sum(axis=1).std() / 2 / np.sqrt(len(rows))
    assert 0 < abs(Graph(vae).objective() - exact_alone) < 5 * standard


def test_a_graph_of_draws_is_saved_and_goes_on_alike(x, tmp_path):
    rows = x + 0.1 * np.random.default_rng(0).random(x.shape)
    vae = tiny(sends="sample").connect(Observation(rows.clip(0, 1)))
    graph = Graph(GMM(2, random_state=0).connect(vae)).fit(2, verbose=False)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[rows.clip(0, 1)])
    np.testing.assert_array_equal(loaded["vae"].message_up.mean, vae.message_up.mean)
    for each in (graph, loaded):
        each.fit(1, verbose=False)
    np.testing.assert_array_equal(loaded["vae"].message_up.mean, vae.message_up.mean)


# -- scales ----------------------------------------------------------------------------------------


def test_columns_on_other_scales_are_warned_of_once_and_standardised_ones_are_not():
    wine = load_wine().data
    vae = tiny(likelihood="gaussian").connect(Observation(wine))
    with pytest.warns(UserWarning, match=r"VAE: .* up to 1680 .* 0\.124 to 314, .*: standardise"):
        vae.update()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae.update()
        tiny(likelihood="gaussian").fit(StandardScaler().fit_transform(wine))


def test_where_the_loss_explodes_standardising_is_named():
    rows = 1e15 * np.random.default_rng(0).normal(size=(N, 5))
    with (
        pytest.warns(UserWarning, match="standardise"),
        pytest.raises(TrainingError, match=r"VAE: .* kept\. Values are up to .*: standardise"),
    ):
        tiny(likelihood="gaussian", lr=1e10, epochs=5).fit(rows)


@pytest.mark.parametrize("kind", [AE, VAE, MultinomialVAE])
def test_rows_of_which_nets_make_no_numbers_are_named(x, kind):
    module = kind(D, hidden_sizes=(4,), epochs=1, likelihood="gaussian", random_state=0).fit(x)
    far, latents = x.copy(), np.zeros((3, D))
    far[7], latents[1] = 1e300, -1e300
    label = kind.__name__
    for ask in (module.encode, module.reconstruct):
        with pytest.raises(InputError, match=rf"{label}: what the nets .* 1 of 20 rows \(rows 7\)"):
            ask(far)
    if kind is not MultinomialVAE:  # whose latents are probabilities
        with pytest.raises(InputError, match=rf"{label}: what the nets .* 1 of 3 rows \(rows 1\)"):
            module.decode(latents)
    with pytest.raises(InputError, match=rf"{label}: rows in float32: .* 1 of 20 rows \(rows 7\)"):
        module.fit(far)


def test_messages_of_variances_beyond_float32_are_refused(x):
    vae = trained(x, likelihood="gaussian")
    with torch.no_grad():  # an encoder that says of any row that its variance is e^200
        last = list(vae.nets_["encoder"].parameters())[-1]
        last[D:] = 200.0
    with pytest.raises(InputError, match=r"VAE: variances of latents: .* in 20 of 20 rows"):
        vae.infer([Data(x)], None)

"""KL terms against torch.distributions and sampling."""

import numpy as np
import pytest
import torch
from torch import distributions as dist

from serkit.messages import Gaussian, Mixture
from serkit.modules.autoencoder.divergences import (
    CategoricalTarget,
    DiagonalNormal,
    GaussianTarget,
    MixtureTarget,
    Point,
    PointTarget,
)
from tests.helpers import oracles

B, K, D = 6, 3, 4
CPU = torch.device("cpu")


@pytest.fixture
def q():
    """Of a batch, in float64."""
    rng = np.random.default_rng(0)
    return DiagonalNormal(
        torch.tensor(rng.normal(size=(B, D))), torch.tensor(rng.normal(size=(B, D)))
    )


def mixture(seed=1, k=K, hard=False):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, D, D))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(D)
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.eye(k)[rng.integers(k, size=B)])
    if not hard:
        log_prob = np.log(rng.dirichlet(np.ones(k), B))
    return Mixture(
        log_prob, rng.normal(size=(k, D)), covariances, np.log(rng.dirichlet(np.full(k, 3.0)))
    )


def to_mixture(q, message):
    """What serkit says, in the float32 of training."""
    return MixtureTarget.of(message, CPU).kl(coarse(q)).numpy()


def coarse(q):
    return DiagonalNormal(q.mean.float(), q.log_var.float())


def as_oracle(q, message):
    arrays = (message.log_prob.copy(), message.means.copy(), message.covariances.copy())
    return oracles.kl_to_mixture(q.mean, q.log_var, *arrays, message.log_weights)


def draws(q, n):
    """Of z, (n, B, D), and log q(z), (n, B)."""
    noise = np.random.default_rng(3).standard_normal((n, B, D))
    z = q.mean + q.stddev * torch.tensor(noise)
    return z, dist.Independent(q, 1).log_prob(z)


def components(message):
    means, covariances = (
        torch.tensor(message.means.copy()),
        torch.tensor(message.covariances.copy()),
    )
    return dist.MultivariateNormal(means, covariances)


# -- Gaussians ---------------------------------------------------------------------------------


def test_q_is_torchs_normal_and_draws_as_it(q):
    plain = dist.Normal(q.mean, (0.5 * q.log_var).exp())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = q.rsample()
        torch.manual_seed(0)
        assert torch.equal(z, plain.rsample())
    torch.testing.assert_close(q.entropy(), plain.entropy())


@pytest.mark.parametrize("shape", [(B, D), (1, D), (D,)])
def test_kl_to_gaussian_equals_torch(q, shape):
    rng = np.random.default_rng(2)
    mean, var = torch.tensor(rng.normal(size=shape)), torch.tensor(rng.gamma(2, size=shape))
    expected = dist.kl_divergence(q, dist.Normal(mean, var.sqrt())).sum(dim=1)
    torch.testing.assert_close(GaussianTarget(mean, var).kl(q), expected)


def test_kl_to_the_assigned_mean_is_serkets_formula(q):
    mu, one = torch.full((B, D), 0.7).double(), torch.ones(B, D).double()
    expected = 0.5 * (q.log_var.exp() + (q.mean - mu) ** 2 - 1 - q.log_var).sum(dim=1)
    torch.testing.assert_close(GaussianTarget(mu, one).kl(q), expected)


def test_kl_of_equal_gaussians_is_zero(q):
    zero = torch.zeros(B, dtype=torch.float64)
    torch.testing.assert_close(GaussianTarget(q.mean, q.variance).kl(q), zero)


def test_a_point_is_pulled_by_what_of_the_kl_depends_on_the_mean(q):
    target = Gaussian(*np.random.default_rng(2).gamma(2, size=(2, B, D)))
    pull = PointTarget.of(target, CPU).kl(Point(q.mean))
    torch.testing.assert_close(pull, squares(q.mean, target), check_dtype=False)
    assert torch.equal(Point(q.mean).rsample(), q.mean)


def squares(z, target):
    return 0.5 * ((z - torch.tensor(target.mean)) ** 2 / torch.tensor(target.var)).sum(dim=1)


# -- mixtures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
def test_kl_to_mixture_equals_torch(q, hard):
    message = mixture(hard=hard)
    np.testing.assert_allclose(to_mixture(q, message), as_oracle(q, message), rtol=1e-4)


def test_autocast_does_not_coarsen_the_kl(q):
    """Training autocasts the nets to bfloat16 with its three digits; the KL stays float32."""
    message = mixture()
    with torch.autocast("cpu", torch.bfloat16):
        kl = to_mixture(q, message)
    np.testing.assert_allclose(kl, as_oracle(q, message), rtol=1e-4)


def test_kl_to_mixture_equals_sampling(q):
    message = mixture()
    r = torch.tensor(message.log_prob.copy()).exp()
    z, log_q = draws(q, 20_000)
    ratio = log_q - (r * components(message).log_prob(z[:, :, None])).sum(dim=2)
    classes = (r * (r.log() - torch.tensor(message.log_weights))).sum(dim=1)
    assert oracles.within(ratio + classes, to_mixture(q, message)).all()


@pytest.mark.parametrize("hard", [False, True])
def test_kl_to_mixture_bounds_the_kl_to_the_marginal(q, hard):
    """VaDE's term is KL(q(z) r(k) || p(z, k)), which is at least KL(q(z) || p(z))."""
    message = mixture(hard=hard)
    weights = dist.Categorical(logits=torch.tensor(message.log_weights))
    z, log_q = draws(q, 5_000)
    ratio = log_q - dist.MixtureSameFamily(weights, components(message)).log_prob(z)
    error = ratio.std(dim=0) / np.sqrt(len(ratio))
    assert (ratio.mean(dim=0) <= torch.tensor(to_mixture(q, message)) + 5 * error).all()


def test_kl_to_one_diagonal_component_is_the_gaussian_kl(q):
    variances = np.array([0.5, 1.0, 2.0, 3.0])
    message = Mixture(np.zeros((B, 1)), np.ones((1, D)), np.diag(variances)[None])
    expected = GaussianTarget(torch.ones(D), torch.tensor(variances)).kl(q)
    np.testing.assert_allclose(to_mixture(q, message), expected, rtol=1e-4)


def test_gradients_of_impossible_components_are_finite(q):
    mean, log_var = (t.float().requires_grad_() for t in (q.mean, q.log_var))
    MixtureTarget.of(mixture(hard=True), CPU).kl(DiagonalNormal(mean, log_var)).sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(log_var.grad).all()


@pytest.mark.parametrize("kind", [GaussianTarget, MixtureTarget])
def test_rows_of_a_target_are_those_of_the_batch(q, kind):
    gaussian = Gaussian(*np.random.default_rng(2).gamma(2, size=(2, B, D)))
    message = mixture() if kind is MixtureTarget else gaussian
    target, index, q = kind.of(message, CPU), torch.tensor([4, 0, 4]), coarse(q)
    batch = DiagonalNormal(q.mean[index], q.log_var[index])
    torch.testing.assert_close(target.rows(index).kl(batch), target.kl(q)[index])


# -- classes -----------------------------------------------------------------------------------


def class_logs(seed):
    """Log-probabilities (B, K) in float64."""
    return torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(K), B)).log()


def kl_of_classes(logits, log_prob):
    return CategoricalTarget(log_prob).kl(dist.OneHotCategorical(logits=logits))


def test_kl_to_categorical_equals_torch():
    q, p = class_logs(0), class_logs(1)
    expected = dist.kl_divergence(dist.Categorical(logits=q), dist.Categorical(logits=p))
    torch.testing.assert_close(kl_of_classes(q, p), expected)
    torch.testing.assert_close(kl_of_classes(q, q), torch.zeros(B, dtype=torch.float64))


def test_kl_to_equal_probabilities_is_what_the_entropy_lacks():
    q = class_logs(0)
    expected = np.log(K) - dist.Categorical(logits=q).entropy()
    torch.testing.assert_close(kl_of_classes(q, torch.full((B, K), -np.log(K))), expected)


def test_classes_ruled_out_cost_much_but_not_infinitely_much():
    q = torch.randn(B, K, requires_grad=True)
    kl = kl_of_classes(q, torch.tensor([[0.0, -np.inf, -np.inf]]).expand(B, K))
    kl.sum().backward()
    assert torch.isfinite(q.grad).all()
    ruled_out = 1 - q.softmax(dim=1)[:, 0]
    entropy = dist.Categorical(logits=q).entropy()
    torch.testing.assert_close(kl, ruled_out * np.log(1e8) - entropy)


def test_kl_of_certain_classes_is_finite():
    certain = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    kl = kl_of_classes(certain, torch.full((1, K), -np.log(K)))
    kl.sum().backward()
    assert kl.item() == pytest.approx(np.log(K))
    assert torch.isfinite(certain.grad).all()

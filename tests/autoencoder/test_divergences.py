"""KL terms against torch.distributions and sampling."""

import numpy as np
import pytest
import torch
from torch import distributions as dist

from serkit.messages import Mixture
from serkit.modules.autoencoder.divergences import (
    MixtureTarget,
    kl_to_categorical,
    kl_to_gaussian,
    kl_to_mixture,
)
from tests.helpers import oracles

B, K, D = 6, 3, 4


@pytest.fixture
def q():
    """Means and log variances of a batch, in float64."""
    rng = np.random.default_rng(0)
    return torch.tensor(rng.normal(size=(B, D))), torch.tensor(rng.normal(size=(B, D)))


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


def target_of(message):
    return MixtureTarget.of(message, torch.device("cpu"))


def to_mixture(mean, log_var, message):
    """What serkit says, in the float32 of training."""
    return kl_to_mixture(mean.float(), log_var.float(), target_of(message)).numpy()


def as_oracle(mean, log_var, message):
    return oracles.kl_to_mixture(
        mean,
        log_var,
        message.log_prob.copy(),
        message.means.copy(),
        message.covariances.copy(),
        message.log_weights,
    )


@pytest.mark.parametrize("shape", [(B, D), (1, D), (D,)])
def test_kl_to_gaussian_equals_torch(q, shape):
    mean, log_var = q
    rng = np.random.default_rng(2)
    to_mean, to_var = torch.tensor(rng.normal(size=shape)), torch.tensor(rng.gamma(2, size=shape))
    expected = dist.kl_divergence(
        dist.Normal(mean, (0.5 * log_var).exp()), dist.Normal(to_mean, to_var.sqrt())
    ).sum(dim=1)
    torch.testing.assert_close(kl_to_gaussian(mean, log_var, to_mean, to_var), expected)


def test_kl_to_the_assigned_mean_is_serkets_formula(q):
    mean, log_var = q
    mu = torch.full((B, D), 0.7, dtype=torch.float64)
    expected = 0.5 * (log_var.exp() + (mean - mu) ** 2 - 1 - log_var).sum(dim=1)
    found = kl_to_gaussian(mean, log_var, mu, torch.ones(B, D, dtype=torch.float64))
    torch.testing.assert_close(found, expected)


def test_kl_of_equal_gaussians_is_zero(q):
    mean, log_var = q
    zero = torch.zeros(B, dtype=torch.float64)
    torch.testing.assert_close(kl_to_gaussian(mean, log_var, mean, log_var.exp()), zero)


@pytest.mark.parametrize("hard", [False, True])
def test_kl_to_mixture_equals_torch(q, hard):
    message = mixture(hard=hard)
    np.testing.assert_allclose(to_mixture(*q, message), as_oracle(*q, message), rtol=1e-4)


def test_autocast_does_not_coarsen_the_kl(q):
    """Training autocasts the nets to bfloat16 with its three digits; the KL stays float32."""
    message = mixture()
    with torch.autocast("cpu", torch.bfloat16):
        found = to_mixture(*q, message)
    np.testing.assert_allclose(found, as_oracle(*q, message), rtol=1e-4)


def test_kl_to_mixture_equals_sampling(q):
    mean, log_var = q
    message = mixture()
    r = torch.tensor(message.log_prob.copy()).exp()
    components = dist.MultivariateNormal(
        torch.tensor(message.means.copy()), torch.tensor(message.covariances.copy())
    )
    own = dist.Independent(dist.Normal(mean, (0.5 * log_var).exp()), 1)
    noise = np.random.default_rng(3).standard_normal((20_000, B, D))
    z = mean + (0.5 * log_var).exp() * torch.tensor(noise)  # (S, B, D)
    ratio = own.log_prob(z) - (r * components.log_prob(z[:, :, None])).sum(dim=2)
    classes = (r * (r.log() - torch.tensor(message.log_weights))).sum(dim=1)
    assert oracles.within(ratio + classes, to_mixture(*q, message)).all()


@pytest.mark.parametrize("hard", [False, True])
def test_kl_to_mixture_bounds_the_kl_to_the_marginal(q, hard):
    """VaDE's term is KL(q(z) r(k) || p(z, k)), which is at least KL(q(z) || p(z))."""
    mean, log_var = q
    message = mixture(hard=hard)
    marginal = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.tensor(message.log_weights)),
        dist.MultivariateNormal(
            torch.tensor(message.means.copy()), torch.tensor(message.covariances.copy())
        ),
    )
    own = dist.Independent(dist.Normal(mean, (0.5 * log_var).exp()), 1)
    noise = np.random.default_rng(3).standard_normal((5_000, B, D))
    z = mean + (0.5 * log_var).exp() * torch.tensor(noise)
    ratio = (own.log_prob(z) - marginal.log_prob(z)).numpy()
    error = ratio.std(axis=0) / np.sqrt(len(ratio))
    assert (ratio.mean(axis=0) <= to_mixture(*q, message) + 5 * error).all()


def test_kl_to_one_diagonal_component_is_the_gaussian_kl(q):
    mean, log_var = q
    variances = np.array([0.5, 1.0, 2.0, 3.0])
    message = Mixture(np.zeros((B, 1)), np.ones((1, D)), np.diag(variances)[None])
    expected = kl_to_gaussian(mean, log_var, torch.ones(D), torch.tensor(variances))
    np.testing.assert_allclose(to_mixture(*q, message), expected, rtol=1e-4)


def test_gradients_of_impossible_components_are_finite(q):
    mean, log_var = (t.float().requires_grad_() for t in q)
    kl_to_mixture(mean, log_var, target_of(mixture(hard=True))).sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(log_var.grad).all()


def test_rows_of_a_target_are_those_of_the_batch(q):
    mean, log_var = (t.float() for t in q)
    target, index = target_of(mixture()), torch.tensor([4, 0, 4])
    whole = kl_to_mixture(mean, log_var, target)
    part = kl_to_mixture(mean[index], log_var[index], target.rows(index))
    torch.testing.assert_close(part, whole[index])


# -- classes -----------------------------------------------------------------------------------


def class_logs(seed):
    """Log-probabilities (B, K) in float64."""
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(K), B)
    return torch.tensor(probabilities).log()


def test_kl_to_categorical_equals_torch():
    q, p = class_logs(0), class_logs(1)
    expected = dist.kl_divergence(dist.Categorical(logits=q), dist.Categorical(logits=p))
    torch.testing.assert_close(kl_to_categorical(q, p), expected)
    torch.testing.assert_close(kl_to_categorical(q, q), torch.zeros(B, dtype=torch.float64))


def test_kl_to_equal_probabilities_is_what_the_entropy_lacks():
    q = class_logs(0)
    expected = np.log(K) - dist.Categorical(logits=q).entropy()
    torch.testing.assert_close(kl_to_categorical(q, torch.full((B, K), -np.log(K))), expected)


def test_classes_ruled_out_cost_much_but_not_infinitely_much():
    q = torch.randn(B, K, requires_grad=True)
    p = torch.tensor([[0.0, -np.inf, -np.inf]]).expand(B, K)
    kl = kl_to_categorical(q.log_softmax(dim=1), p)
    kl.sum().backward()
    assert torch.isfinite(q.grad).all()
    ruled_out = 1 - q.softmax(dim=1)[:, 0]
    entropy = dist.Categorical(logits=q).entropy()
    torch.testing.assert_close(kl, ruled_out * np.log(1e8) - entropy)


def test_kl_of_certain_classes_is_finite():
    certain = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    kl = kl_to_categorical(certain.log_softmax(dim=1), torch.full((1, K), -np.log(K)))
    kl.sum().backward()
    assert kl.item() == pytest.approx(np.log(K))
    assert torch.isfinite(certain.grad).all()

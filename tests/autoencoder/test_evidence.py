"""Evidence of rows, its lower bound, and ways between rows, against models with a closed form."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch import nn

from serkit import paths
from serkit.errors import InputError
from serkit.modules import AE, VAE, MultinomialVAE

VARIANCE = 0.4
WEIGHT = np.array([[1.0, 0.5], [-0.5, 1.0], [2.0, 0.0], [0.0, 1.0]])  # orthogonal columns
SHIFT = np.array([0.3, -0.2, 0.1, 0.0])
# Of p(z | x), which is diagonal as W^T W is.
PRECISION = 1 + (WEIGHT**2).sum(axis=0) / VARIANCE
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}  # nets compute in float32


def rows(n=400):
    rng = np.random.default_rng(0)
    noise = np.sqrt(VARIANCE) * rng.standard_normal((n, 4))
    return rng.standard_normal((n, 2)) @ WEIGHT.T + SHIFT + noise


def log_evidence(x):
    """Log N(x; SHIFT, W W^T + variance I), (N,)."""
    return multivariate_normal(SHIFT, WEIGHT @ WEIGHT.T + VARIANCE * np.eye(4)).logpdf(x)


def linear(weight, bias):
    net = nn.Linear(weight.shape[1], weight.shape[0])
    net.weight.data = torch.tensor(weight, dtype=torch.float32)
    net.bias.data = torch.tensor(bias, dtype=torch.float32)
    return net


def vae(offset=0.0):
    """A VAE of the linear model, whose posterior is exact but for an offset of its means."""
    to_mean = WEIGHT.T / VARIANCE / PRECISION[:, None]  # (2, 4)
    weight = np.concatenate([to_mean, np.zeros((2, 4))])
    bias = np.concatenate([offset - to_mean @ SHIFT, -np.log(PRECISION)])
    options = {"likelihood": "gaussian", "noise_variance": VARIANCE, "epochs": 1, "lr": 1e-12}
    nets = {"encoder": linear(weight, bias), "decoder": linear(WEIGHT, SHIFT)}
    return VAE(2, random_state=0, **options, **nets).fit(rows())


def test_by_the_exact_posterior_one_draw_gives_the_evidence():
    x = rows(50)
    np.testing.assert_allclose(vae().log_prob(x, n_samples=1), log_evidence(x), **ROUNDING)


def test_the_lower_bound_is_below_the_evidence_by_the_divergence():
    """KL(N(m + d, S) || N(m, S)) = 1/2 d^2 / S a dimension; one draw a row, so 5 standard errors"""
    x = rows()
    difference = log_evidence(x) - vae(offset=0.3).lower_bound(x)
    expected = 0.5 * (0.3**2 * PRECISION).sum()
    assert abs(difference.mean() - expected) < 5 * difference.std() / np.sqrt(len(x))
    assert vae(offset=0.3).score(x) == vae(offset=0.3).lower_bound(x).mean()


def test_more_draws_near_the_evidence_from_below():
    """A weight's relative variance is exp(d^2 / S) - 1 of the offsets d: 1.3 here.

    Of 1000 draws the bias of the logarithm is half of that / 1000, and the standard error of the
    mean over 400 rows 0.002.
    """
    x = rows()
    module, exact = vae(offset=0.2), log_evidence(x).mean()
    estimates = [module.log_prob(x, n).mean() for n in (1, 10, 1000)]
    assert (np.diff(estimates) > 0).all()
    assert estimates[-1] == pytest.approx(exact, abs=0.01)
    assert estimates[0] < exact - 0.3


def test_draws_are_the_modules_own_unless_seeded():
    x, module = rows(10), vae(offset=0.5)
    np.testing.assert_array_equal(module.log_prob(x, 3), module.log_prob(x, 3))
    one, other = (module.log_prob(x, 3, random_state=seed) for seed in (1, 2))
    assert not np.array_equal(one, other)
    generators = [np.random.default_rng(1), np.random.default_rng(1)]
    first, second = (module.log_prob(x, 3, random_state=g) for g in generators)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InputError, match="n_samples must be an integer >= 1, got 0"):
        module.log_prob(x, 0)


def test_of_an_ae_the_bound_is_the_likelihood_at_its_latents():
    options = {"likelihood": "gaussian", "noise_variance": VARIANCE, "hidden_sizes": (3,)}
    x, module = rows(30), AE(2, epochs=1, random_state=0, **options).fit(rows(30))
    likelihood = norm(module.reconstruct(x), np.sqrt(VARIANCE)).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(module.lower_bound(x), likelihood, **ROUNDING)
    assert not hasattr(module, "log_prob")


def test_of_classes_the_evidence_is_a_sum():
    options = {"likelihood": "gaussian", "noise_variance": VARIANCE, "hidden_sizes": (3,)}
    x, module = rows(30), MultinomialVAE(3, epochs=1, random_state=0, **options).fit(rows(30))
    means = module.decode(np.eye(3))  # (K, D)
    log_likelihood = norm(means, np.sqrt(VARIANCE)).logpdf(x[:, None]).sum(axis=2)  # (N, K)
    expected = logsumexp(log_likelihood, axis=1) - np.log(3)
    np.testing.assert_allclose(module.log_prob(x), expected, **ROUNDING)
    assert (module.lower_bound(x) <= expected + 1e-4).all()
    with pytest.raises(InputError, match="n_draws=2"):
        MultinomialVAE(3, n_draws=2).log_prob(x)


# -- ways and own nets ---------------------------------------------------------------------------


def test_interpolation_goes_from_reconstruction_to_reconstruction():
    x, module = rows(2), vae()
    way = module.interpolate(*x, n_steps=5)
    np.testing.assert_allclose(way[[0, -1]], module.reconstruct(x), **ROUNDING)
    np.testing.assert_allclose(np.diff(way, n=2, axis=0), 0, atol=1e-5)  # a linear decoder
    arc = module.interpolate(*x, n_steps=5, path=paths.spherical)
    np.testing.assert_allclose(
        arc, module.decode(paths.spherical(*module.encode(x), n_steps=5)), **ROUNDING
    )
    with pytest.raises(InputError, match=r"start and end must be rows of one shape, got \(4,\) a"):
        module.interpolate(x[0], x[1, :3])
    with pytest.raises(InputError, match="path must be a function of start and end and n_steps"):
        module.interpolate(*x, path="straight")
    for path, text in (
        (lambda start, end, n_steps: start[9], "path fails with IndexError"),
        (lambda start, end, n_steps: np.zeros((n_steps, 7)), r"path must .* shape \(5, .*\(5, 7\)"),
        (lambda start, end, n_steps: np.zeros((3, 2)), r"path must .* shape \(5, .*, got \(3, "),
    ):
        with pytest.raises(InputError, match=f"VAE: {text}"):
            module.interpolate(*x, n_steps=5, path=path)
    with pytest.raises(InputError, match="n_steps must be an integer >= 2, got -1"):
        module.interpolate(*x, n_steps=-1)


@pytest.mark.parametrize("own", ["encoder", "decoder"])
def test_one_net_may_be_the_users_and_the_other_the_default(own):
    nets = {"encoder": nn.Linear(4, 4), "decoder": nn.Linear(2, 4)}
    options = {"likelihood": "gaussian", "epochs": 1, "hidden_sizes": (7,), "random_state": 0}
    module = VAE(2, **{own: nets[own]}, **options).fit(rows(20))
    sizes = {name: sum(p.numel() for p in module.nets_[name].parameters()) for name in nets}
    default = VAE(2, **options).fit(rows(20)).nets_
    for name in nets:
        expected = nets[name] if name == own else default[name]
        assert sizes[name] == sum(p.numel() for p in expected.parameters())
    assert module.reconstruct(rows(3)).shape == (3, 4)

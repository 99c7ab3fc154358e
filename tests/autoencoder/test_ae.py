"""The autoencoder, and what it shares with the VAE: nets, likelihoods, use and errors."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import distributions as dist
from torch import nn

from serkit import Graph, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.module import bound_of
from serkit.modules import AE, VAE, MultinomialVAE

both = pytest.mark.parametrize("kind", [AE, VAE])


def rows(*shape, seed=0):
    """Rows in [0, 1] of two kinds, light and dark."""
    rng = np.random.default_rng(seed)
    light = rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.5
    return np.where(light, 0.8, 0.2) + rng.uniform(-0.2, 0.2, shape)


def tiny(kind, **options):
    sizes = {"latent_dim": 2, "hidden_sizes": (16,), "filters": (4, 8)}
    defaults = {"epochs": 2, "lr": 1e-2, "random_state": 0, "device": "cpu"}
    return kind(**sizes | defaults | {"precision": "float32"} | options)


def pulled(x, message, **options):
    """An AE trained on the rows with a message from above."""
    ae = tiny(AE, **options)
    ae.learn([Data(x)], message)
    return ae


def mixture(n, soft=True):
    log_prob = np.log(np.random.default_rng(1).dirichlet([1.0, 1.0], n))
    return Mixture(log_prob, [[3.0, -2.0], [-1.0, 4.0]], np.array([np.eye(2)] * 2))


# -- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise_variance", "epochs"), [(0.5, 1), ("learnt", 500)])
def test_variance_is_learnt_or_fixed(noise_variance, epochs):
    """At the optimum the learnt one is the mean squared residual."""
    x = rows(60, 5)
    options = {"likelihood": "gaussian", "lr": 5e-2, "scheduler": "cosine"}
    ae = tiny(AE, noise_variance=noise_variance, epochs=epochs, **options)
    variance = ae.fit(x).nets_["likelihood"].log_var.exp().item()
    expected = ((ae.reconstruct(x) - x) ** 2).mean() if noise_variance == "learnt" else 0.5
    assert variance == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("alpha", [None, 0.0, 2.5])
@pytest.mark.parametrize(
    "message", [None, mixture(20), Gaussian(np.ones((20, 2)), np.full((20, 2), 0.5))]
)
def test_loss_is_its_definition(likelihood, alpha, message):
    """At a learning rate that moves nothing: the loss of the nets the update ends with."""
    x = rows(20, 5)
    options = {"likelihood": likelihood, "alpha": alpha, "lr": 1e-30, "epochs": 1}
    ae = pulled(x, message, **options, batch_size=7)
    z, output = ae.encode(x), torch.tensor(ae.reconstruct(x), dtype=torch.float64)
    p = dist.Bernoulli(output, validate_args=False)
    p = dist.Normal(output, 1.0) if likelihood == "gaussian" else p
    reconstruction = -p.log_prob(torch.tensor(x)).sum(dim=1).mean().item()
    mu, var = 0.0, 1.0
    if isinstance(message, Mixture):
        mu = message.means[message.log_prob.argmax(axis=1)]
    elif message is not None:
        mu, var = message.mean, message.var
    pull = 0.5 * ((z - mu) ** 2 / var).sum(axis=1).mean()
    terms = ae.loss_curve_[-1]
    assert terms["reconstruction"] == pytest.approx(reconstruction, rel=1e-5)
    assert terms["pull"] == pytest.approx(pull, rel=1e-5)
    assert terms["loss"] == pytest.approx(reconstruction + (alpha or 0) * pull, rel=1e-5)
    assert bound_of(ae.infer([Data(x)], message)) == pytest.approx(-reconstruction, rel=1e-5)


@pytest.mark.parametrize("kl_target", ["assigned", "expected", "standard_normal"])
def test_a_strong_pull_moves_the_latents_to_its_target(kl_target):
    """Rows of two kinds, so that two targets can be told apart by the encoder."""
    x = np.repeat([[0.1, 0.9, 0.5], [0.9, 0.2, 0.4]], 10, axis=0)
    probability = np.repeat([[0.9, 0.1], [0.3, 0.7]], 10, axis=0)
    message = Mixture(np.log(probability), [[3.0, -2.0], [-1.0, 4.0]], np.array([np.eye(2)] * 2))
    ae = pulled(x, message, kl_target=kl_target, alpha=1e3, epochs=150, lr=5e-2, scheduler="cosine")
    expected = {
        "assigned": message.means[probability.argmax(axis=1)],
        "expected": probability @ message.means,
        "standard_normal": np.zeros((20, 2)),
    }
    np.testing.assert_allclose(ae.encode(x), expected[kl_target], atol=0.05)


def test_without_alpha_an_ae_is_not_pulled():
    x = rows(20, 5)
    alone, with_child = (pulled(x, message, epochs=20) for message in (None, mixture(20)))
    np.testing.assert_array_equal(with_child.encode(x), alone.encode(x))


# -- nets --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        ("mlp", (7,)),
        ("mlp", (3, 4)),
        ("mlp", (2, 3, 4)),
        ("conv", (8, 8)),
        ("conv", (5, 7)),
        ("conv", (1, 9)),
        ("conv", (3, 6, 5)),
        ("conv", (49,)),
    ],
)
def test_any_layout_of_rows_is_learnt_and_given_back(kind, likelihood, net, shape):
    x = rows(30, *shape)
    module = tiny(kind, net=net, likelihood=likelihood, epochs=40).connect(Observation(x)).update()
    first, last = (
        np.mean([e["loss"] for e in module.loss_curve_[s]]) for s in (slice(5), slice(-5, None))
    )
    assert last < first - 0.005 * x[0].size
    assert module.encode(x).shape == (30, 2)
    assert module.reconstruct(x[:3]).shape == (3, *shape)
    assert module.sample(4).shape == (4, *shape)
    assert module.messages_down[0].array.shape == x.shape
    np.testing.assert_allclose(module.reconstruct(x), module.messages_down[0].array, atol=1e-6)


@both
def test_batches_do_not_mix_rows(kind):
    module = tiny(kind, net="conv").fit(rows(30, 5, 7))
    new = rows(6, 5, 7, seed=1)
    one_by_one = np.concatenate([module.encode(row[None]) for row in new])
    np.testing.assert_allclose(module.encode(new), one_by_one, atol=1e-5)


@both
def test_own_nets_are_used_and_left_as_they_are(kind):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 2 * kind.codes_per_latent)

        def forward(self, x):
            assert x.shape[1:] == (3, 4)
            return self.layer(x.flatten(1))

    encoder, decoder = Encoder(), nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 12))
    decoder.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = rows(20, 3, 4)
    module = tiny(kind, encoder=encoder, decoder=decoder, epochs=5).fit(x)
    assert isinstance(module.nets_["encoder"], Encoder)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not torch.equal(module.nets_["encoder"].layer.weight, encoder.layer.weight)
    assert encoder.layer.weight.grad is None
    assert (encoder.training, decoder.training) == (True, False)
    assert module.reconstruct(x).shape == x.shape


@both
@pytest.mark.parametrize(
    ("encoder", "decoder", "match"),
    [
        ((12, 7), (2, 12), r"encoder must return \(N, {codes}\) for 2 latents, got \(2, 7\)"),
        (
            (12, None),
            (2, 11),
            r"decoder must return 12 values per row, as in \(12,\), got \(2, 11\)",
        ),
        ((9, None), (2, 12), "encoder"),
        ((12, None), (5, 12), "decoder"),
        ((9, None), None, "encoder"),
    ],
)
def test_own_nets_of_wrong_shapes_are_refused(kind, encoder, decoder, match):
    codes = 2 * kind.codes_per_latent
    encoder = nn.Linear(encoder[0], encoder[1] or codes)
    decoder = None if decoder is None else nn.Linear(*decoder)
    module = tiny(kind, encoder=encoder, decoder=decoder)
    with pytest.raises(InputError, match=f"{kind.__name__}: .*{match.format(codes=codes)}"):
        module.fit(rows(20, 12))
    assert not hasattr(module, "nets_")


# -- use ---------------------------------------------------------------------------------------


@both
def test_several_parents_are_set_side_by_side(kind):
    left, right = Observation(rows(20, 2, 3)), Observation(rows(20, 4, seed=1))
    module = tiny(kind).connect(left, right).update()
    joined = np.hstack([left.data.reshape(20, 6), right.data])
    np.testing.assert_allclose(module.message_up.mean, module.encode(joined), atol=1e-6)
    whole = module.reconstruct(joined)
    for message, expected in zip(module.messages_down, (whole[:, :6], whole[:, 6:]), strict=True):
        np.testing.assert_allclose(message.array.reshape(20, -1), expected, atol=1e-6)
    assert [m.array.shape for m in module.messages_down] == [(20, 2, 3), (20, 4)]


@pytest.mark.parametrize("kind", [AE, VAE, MultinomialVAE])
def test_nothing_is_computed_that_nobody_asks_for(kind):
    """The encoder runs over the rows once; the decoder for the bound, and for a reader below."""
    x, n_passes = rows(20, 4), dict.fromkeys(("encoder", "decoder"), 0)
    module = kind(2, epochs=1, hidden_sizes=(16,), random_state=0, device="cpu").fit(x)

    def count(name):
        n_passes[name] += 1

    for name in n_passes:
        module.nets_[name].register_forward_hook(lambda *_, name=name: count(name))
    posterior = module.infer([Data(x)], None)
    assert list(n_passes.values()) == [1, 0]
    bound_of(posterior)
    assert list(n_passes.values()) == [1, 1]
    (down,) = module.read(posterior.down)
    assert list(n_passes.values()) == [1, 2]
    np.testing.assert_array_equal(down.array, module.reconstruct(x))


@both
def test_samples_are_decoded_draws_from_the_standard_normal(kind):
    module = tiny(kind).fit(rows(20, 4))
    decoded = []
    module.decode = lambda z: decoded.append(z) or z
    module.sample(5000, random_state=3)
    assert abs(decoded[0].mean()) < 5 / np.sqrt(decoded[0].size)
    assert abs(decoded[0].var() - 1) < 5 * np.sqrt(2 / decoded[0].size)
    np.testing.assert_array_equal(module.sample(4), module.sample(4))
    assert not np.array_equal(module.sample(4), module.sample(4, random_state=9))


@both
def test_nothing_can_be_asked_before_training(kind):
    for use in (kind(2).encode, kind(2).decode, kind(2).reconstruct):
        with pytest.raises(NotReadyError, match=f"{kind.__name__} has learnt nothing yet"):
            use(np.zeros((3, 2)))


@both
def test_bad_rows_are_refused(kind):
    module = tiny(kind, name="mine").fit(rows(20, 4))
    call = f"{kind.__name__} 'mine'"
    for values, match in [
        (np.zeros((3, 5)), rf"{call}\.encode: X has 5 features, but {kind.__name__} is"),
        (np.full((3, 4), 2.0), rf"{call}: .*values in \[0, 1\], got \[2, 2\]; divide images"),
        (np.full((3, 4), np.nan), rf"{call}\.encode: NaN or infinity in 3 of 3 rows"),
    ]:
        with pytest.raises(InputError, match=match):
            module.encode(values)
    with pytest.raises(InputError, match=r"expected latents of shape \(N, 2\), got \(3, 4\)"):
        module.decode(np.zeros((3, 4)))
    with pytest.raises(InputError, match=rf"{call}: .*values in \[0, 1\], got \[-1, 0\]"):
        tiny(kind, name="mine").fit(np.array([[-1.0], [0.0]]))
    tiny(kind, likelihood="gaussian").fit(np.array([[-1.0], [5.0]]))


@both
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"latent_dim": 0}, "latent_dim must be an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer >= 1, got 2.5"),
        ({"patience": 0}, "patience must be an integer >= 1"),
        ({"net": "rnn"}, "unknown net='rnn'; expected one of 'mlp', 'conv'"),
        ({"likelihood": "poisson"}, "unknown likelihood='poisson'; expected one of 'bernoulli'"),
        ({"kl_target": "best"}, "unknown kl_target='best'; expected one of 'assigned'"),
        ({"precision": "half"}, "unknown precision='half'; expected one of 'auto'"),
        ({"scheduler": "step"}, "unknown scheduler='step'; expected one of None, 'cosine'"),
        ({"lr": 0}, "lr must be a number > 0, got 0"),
        ({"lr": np.nan}, "lr must be a number > 0, got nan"),
        ({"weight_decay": -1}, "weight_decay must be a number >= 0, got -1"),
        (
            {"alpha": -1.0},
            "alpha must be a number >= 0, or a function of update and epoch, got -1.0",
        ),
        ({"noise_variance": "big"}, "noise_variance must be a number > 0, or 'learnt', got 'big'"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a number > 0, got 0"),
        ({"validation_fraction": 1.5}, "validation_fraction=1.5 of 20 rows"),
        ({"validation_fraction": 0.01}, "validation_fraction=0.01 of 20 rows"),
        ({"epochs": 0}, "epochs must be an integer >= 1, or several, got 0"),
        ({"epochs": []}, r"epochs must be an integer >= 1, or several, got \[\]"),
        ({"epochs": [3, -1]}, r"epochs must be an integer >= 1, or several, got \[3, -1\]"),
        ({"hidden_sizes": 128}, "hidden_sizes .*128"),
        ({"hidden_sizes": (16, 0)}, r"hidden_sizes .*\(16, 0\)"),
        ({"net": "conv", "filters": ()}, r"filters .*\(\)"),
        ({"net": "conv"}, r"net='conv' needs images .* got rows of shape \(12,\)"),
    ],
)
def test_bad_options_are_refused_before_any_training(kind, options, match):
    """By the graph's check, that is, before any other module trains for hours."""
    module = tiny(kind, name="mine", **options).connect(Observation(rows(20, 12)))
    with pytest.raises(InputError, match=f"{kind.__name__} 'mine': {match}"):
        Graph(module).check()


def test_an_ae_cannot_be_pulled_to_a_whole_mixture():
    with pytest.raises(InputError, match="AE: unknown kl_target='mixture'; expected one of"):
        tiny(AE, kl_target="mixture").fit(rows(20, 4))


@both
def test_messages_of_other_sizes_are_refused(kind):
    module = partial(tiny(kind).learn, [Data(rows(20, 4))])
    for message, match in [
        (mixture(7), "a message for 7 rows of 2 dimensions; expected 20 rows of 2"),
        (Gaussian.standard(20, 5), "a message for 20 rows of 5 dimensions; expected 20 rows of 2"),
    ]:
        with pytest.raises(InputError, match=f"{kind.__name__}: its children sent {match}"):
            module(message)
    assert Categorical not in kind.takes_from_children

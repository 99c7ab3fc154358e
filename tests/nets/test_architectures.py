"""Default nets: their shapes for any rows, and batch normalisation in them."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import serkit
from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.messages import Data
from serkit.modules import AE, VAE, NetClassifier
from serkit.modules.nets.architectures import conv_classifier, conv_pair, mlp_pair
from tests.helpers.saved import assert_same

both = pytest.mark.parametrize("kind", [AE, VAE])
either = pytest.mark.parametrize("net", ["mlp", "conv"])
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def images(n=24, seed=0):
    return np.random.default_rng(seed).random((n, 5, 6))


def tiny(kind, **options):
    sizes = {"hidden_sizes": (8,), "filters": (3, 4), "batch_norm": True}
    defaults = {"epochs": 3, "batch_size": 10, "lr": 1e-2, "random_state": 0, "device": "cpu"}
    return kind(2, **sizes | defaults | {"precision": "float32"} | options)


def pair(net, batch_norm):
    """Encoder to 6 codes and decoder from 3 latents, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if net == "mlp":
            return mlp_pair(30, (8, 7), 6, 3, batch_norm)
        return conv_pair((1, 5, 6), (3, 4), (8,), 6, 3, batch_norm)


# -- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 9), (1, 1, 1), (1, 3, 2)])
@pytest.mark.parametrize("filters", [(4,), (3, 5, 6)])
def test_conv_nets_take_images_of_any_size(shape, filters, batch_norm):
    encoder, decoder = conv_pair(shape, filters, (8,), 6, 3, batch_norm)
    classifier = conv_classifier(shape, filters, (), 5)
    x = torch.rand(2, *shape)
    assert encoder(x).shape == (2, 6)
    assert decoder(torch.rand(2, 3)).shape == (2, *shape)
    assert classifier(x).shape == classifier(x.flatten(1)).shape == (2, 5)


@pytest.mark.parametrize("hidden_sizes", [(), (8,), (8, 7)])
def test_mlps_take_rows_of_any_layout(hidden_sizes):
    encoder, decoder = mlp_pair(30, hidden_sizes, 6, 3, False)
    assert encoder(torch.rand(2, 5, 6)).shape == (2, 6)
    assert decoder(torch.rand(2, 3)).shape == (2, 30)


# -- batch normalisation -----------------------------------------------------------------------


@either
def test_batch_norm_comes_before_each_relu_and_takes_the_biases_place(net):
    for part in pair(net, True):
        layers = [layer for layer in part if isinstance(layer, (*LINEAR, *NORMS, nn.ReLU))]
        assert len(layers) == {"mlp": 7, "conv": 10}[net]
        for layer, after in pairwise(layers):
            assert isinstance(after, nn.ReLU) == isinstance(layer, NORMS)
            if isinstance(layer, LINEAR):
                assert (layer.bias is None) == isinstance(after, NORMS)
        assert isinstance(layers[-1], LINEAR)
        assert layers[-1].bias is not None


@either
def test_without_batch_norm_there_is_none_and_every_layer_has_a_bias(net):
    for part in pair(net, False):
        assert not any(isinstance(layer, NORMS) for layer in part)
        assert all(layer.bias is not None for layer in part if isinstance(layer, LINEAR))


@either
def test_what_a_relu_gets_in_training_is_standardised(net):
    """Mean 0 and variance 1 over the batch (and the image) in every channel."""
    seen, (encoder, decoder) = [], pair(net, True)
    for layer in [*encoder, *decoder]:
        if isinstance(layer, NORMS):
            layer.register_forward_hook(lambda layer, given, result: seen.append(result.detach()))
    generator = torch.Generator().manual_seed(0)
    encoder(torch.rand(64, 5, 6, generator=generator) * 50)
    decoder(torch.randn(64, 3, generator=generator) * 50)
    assert len(seen) >= 4
    for values in seen:
        channels = values.transpose(0, 1).flatten(1)  # (C, B ...)
        np.testing.assert_allclose(channels.mean(dim=1), 0, atol=1e-4)
        np.testing.assert_allclose(channels.var(dim=1, correction=0), 1, atol=1e-2)


@both
@either
def test_latents_of_a_row_do_not_depend_on_the_rows_beside_it(kind, net):
    module = tiny(kind, net=net).fit(images())
    before = {name: value.clone() for name, value in module.nets_.state_dict().items()}
    first, again = module.encode(images()), module.encode(images())
    np.testing.assert_array_equal(first, again)
    one_by_one = np.concatenate([module.encode(row[None]) for row in images()])
    np.testing.assert_allclose(first, one_by_one, atol=1e-5)
    assert_same(before, dict(module.nets_.state_dict()))


@both
@either
def test_running_statistics_are_saved_and_training_goes_on_to_the_same_bits(tmp_path, kind, net):
    module = tiny(kind, net=net).connect(Observation(images())).update()
    graph = Graph(module)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[images()])
    again = loaded.modules[-1]
    assert again.batch_norm is True
    buffers = dict(again.nets_.named_buffers())
    counts = [value for name, value in buffers.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(value.dtype == torch.int64 and value == 9 for value in counts)  # 3 epochs of 3
    assert_same(module.get_state(), again.get_state())
    assert_same(module.update().get_state(), again.update().get_state())


@both
@either
def test_a_run_that_is_resumed_ends_with_the_same_bits(tmp_path, kind, net):
    def run(rounds, **options):
        graph = Graph(tiny(kind, net=net).connect(Observation(images())))
        return graph.fit(rounds, verbose=False, **options).modules[-1].nets_.state_dict()

    whole = run(3)
    run(1, checkpoint=tmp_path / "run")
    assert_same(dict(whole), dict(run(3, checkpoint=tmp_path / "run")))


@both
@either
def test_batch_norm_trains_under_bfloat16(kind, net):
    options = {"net": net, "epochs": 20, "batch_size": 24}
    fits = [tiny(kind, precision=p, **options).fit(images()) for p in ("float32", "bfloat16")]
    exact, coarse = ([epoch["loss"] for epoch in fit.loss_curve_] for fit in fits)
    assert exact != coarse
    np.testing.assert_allclose(coarse, exact, rtol=0.03)
    for value in fits[1].nets_.state_dict().values():
        assert value.dtype in (torch.float32, torch.int64)
        assert value.isfinite().all()


@both
@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_training_and_evaluation_agree_in_the_end(kind, net):
    """Steps that move nothing, one batch: the running statistics become those of the batch."""
    still = {"net": net, "lr": 1e-30, "epochs": 100, "batch_size": 24, "alpha": 0.0}
    module = tiny(kind, **still).fit(images())
    module.nets_.train()
    with torch.no_grad():
        codes = module.nets_["encoder"](torch.tensor(images(), dtype=torch.float32))
    latents = module.encode(images())
    np.testing.assert_allclose(codes[:, :2], latents, rtol=0.05, atol=0.05)


@both
@pytest.mark.parametrize(
    ("n", "options", "alone"),
    [
        (24, {"batch_size": 1}, True),
        (5, {"batch_size": 2}, True),  # 2, 2, 1
        (6, {"batch_size": 2}, False),
        (7, {"batch_size": 3}, False),  # 3, 2, 2
        (2, {"validation_fraction": 0.5}, True),
        (4, {"validation_fraction": 0.5}, False),
        (5, {"batch_size": 2, "batch_norm": False}, False),
        (5, {"batch_size": 2, "encoder": nn.Linear(30, 4), "decoder": nn.Linear(2, 30)}, False),
    ],
)
def test_a_batch_of_a_single_row_is_refused(kind, n, options, alone):
    if "encoder" in options:
        options = options | {"encoder": nn.Linear(30, 2 * kind.codes_per_latent)}
    module, rows = tiny(kind, **options), images(n).reshape(n, 30)
    if not alone:
        assert np.isfinite(module.fit(rows).loss_curve_[-1]["loss"])
        return
    text = (
        rf"^{kind.__name__}: batch normalisation needs two rows or more in every batch, but batch"
    )
    with pytest.raises(InputError, match=text):
        module.check([Data(rows)], n)
    with pytest.raises(
        InputError, match=rf"{text}_size={module.batch_size} leaves one of \d+ train"
    ):
        module.fit(rows)
    assert not hasattr(module, "nets_")


@both
@pytest.mark.parametrize("value", ["yes", None, 2])
def test_batch_norm_is_yes_or_no(kind, value):
    with pytest.raises(InputError, match=f"unknown batch_norm={value!r}; expected one of False, "):
        tiny(kind, batch_norm=value).fit(images())


def test_own_nets_keep_their_memory_layout():
    """`view` works on nets of a user's, as it does outside."""

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)
            self.linear = nn.Linear(3 * 4 * 4, 4)

        def forward(self, rows):
            images = self.conv(rows[:, None])
            return self.linear(images.view(len(images), -1))

    x = np.random.default_rng(0).random((20, 6, 6))
    VAE(2, encoder=Views(), decoder=nn.Linear(2, 36), epochs=1, random_state=0).fit(x).encode(x)


class Own(nn.Linear):
    """A linear net that does something else with what comes out."""

    def __init__(self, n_in, n_out, then):
        super().__init__(n_in, n_out)
        self.then = then

    def forward(self, rows):
        return self.then(super().forward(rows))


def only_two(outputs):
    if len(outputs) != 2:
        raise KeyError("no such luck")
    return outputs


def first_two(outputs):
    return outputs[:2]


LONE = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
FROZEN = nn.Linear(4, 2).requires_grad_(False)
LOCKED = nn.Linear(4, 2)
LOCKED.lock = threading.Lock()
OWN = [
    (Own(4, 2, only_two), "{} fails with KeyError: 'no such luck'"),
    (Own(4, 2, first_two), "{} must return as many rows as it gets, but made 2 of 10"),
    (LONE, "{} fails with ValueError: Expected more than 1 value per channel"),
    (LOCKED, "{} cannot be copied: .*lock"),
    (FROZEN, "no parameter of {} may be learnt"),
]


def fitted_classifier(net, **options):
    machine = {"epochs": 1, "random_state": 0, "device": "cpu", "precision": "float32"}
    return NetClassifier(net, **machine | options).fit(images(10)[:, 0, :4], np.arange(10) % 2)


@pytest.mark.parametrize(("net", "text"), [*OWN, (nn.Identity(), "net must return|no parameter")])
def test_own_nets_that_cannot_be_trained_are_told(net, text):
    """By the estimators, and by the autoencoders, whose decoder is as good as the encoder's."""
    size = 1 if net is LONE else 10
    with pytest.raises(InputError, match=f"^NetClassifier: .*({text.format('net')})"):
        fitted_classifier(net, batch_size=size)
    name = "encoder and decoder" if net is FROZEN else "encoder"
    pair = {"encoder": net, "decoder": nn.Linear(2, 4).requires_grad_(net is not FROZEN)}
    if not isinstance(net, nn.Identity):
        with pytest.raises(InputError, match=f"^AE: {text.format(name)}"):
            tiny(AE, **pair, batch_size=size).fit(images(10)[:, 0, :4])


def test_own_nets_that_return_fewer_rows_in_use_are_told():
    """They may do so in evaluation mode alone."""
    classifier = fitted_classifier(Own(4, 2, lambda outputs: outputs))
    classifier.net_.then = first_two
    text = "must return as many rows as it gets, but made 2 of 10"
    with pytest.raises(InputError, match=f"^NetClassifier: net {text}"):
        classifier.predict(images(10)[:, 0, :4])
    ae = tiny(AE, encoder=Own(30, 2, lambda z: z), decoder=Own(2, 30, lambda x: x))
    ae.fit(images(10).reshape(10, 30))
    for name, use in (("decoder", ae.reconstruct), ("encoder", ae.encode)):
        ae.nets_[name].then = first_two
        with pytest.raises(InputError, match=f"^AE: {name} {text}"):
            use(images(10).reshape(10, 30))


def test_a_frozen_pair_may_learn_the_noise_alone():
    pair = {"encoder": nn.Linear(30, 2), "decoder": nn.Linear(2, 30)}
    pair = {name: net.requires_grad_(False) for name, net in pair.items()}
    ae = tiny(AE, **pair, likelihood="gaussian", noise_variance="learnt")
    assert ae.fit(images().reshape(24, 30)).nets_["likelihood"].log_var != 0


def test_weights_that_encoder_and_decoder_share_stay_shared(tmp_path):
    """Also when they are read from a file; the optimiser takes each once."""

    class Transposed(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear = linear

        def forward(self, z):
            return z @ self.linear.weight

    encoder = nn.Linear(30, 2)
    pair, rows = {"encoder": encoder, "decoder": Transposed(encoder)}, images().reshape(24, 30)
    ae = tiny(AE, **pair, name="ae").fit(rows)
    serkit.save(ae, tmp_path / "ae")
    custom = {f"ae.{name}": net for name, net in pair.items()}
    for module in (ae, serkit.load(tmp_path / "ae", custom=custom)):
        shared = module.nets_["encoder"].weight
        assert module.nets_["decoder"].linear.weight is shared
        assert shared is not encoder.weight
        assert len(module.optimizer_.param_groups[0]["params"]) == 2
        z = rows @ shared.detach().numpy().T + module.nets_["encoder"].bias.detach().numpy()
        np.testing.assert_allclose(module.encode(rows), z, rtol=1e-4, atol=1e-5)

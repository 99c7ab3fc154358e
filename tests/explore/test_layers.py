"""Nets as layers of a page: against torch, in Python and in the browser, and what is refused."""

from importlib import resources

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from serkit.errors import InputError
from serkit.explore.layers import ACTIVATIONS, layers_of, rounded, run
from serkit.explore.nets import described
from serkit.explore.packing import Blob, as_stored
from serkit.modules.nets.architectures import conv_classifier, conv_pair, mlp_pair
from tests.helpers.browser import browser


class Forward(nn.Module):
    """As people write nets: functions between layers, and sizes that are asked for."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 24), nn.BatchNorm1d(24)
        self.up, self.out = nn.ConvTranspose2d(6, 4, 3, stride=2), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, z):
        h = F.leaky_relu(self.norm(self.first(z)), 0.2)
        h = h.view(h.size(0), 6, 2, 2)
        h = F.interpolate(torch.relu(self.up(h)), scale_factor=2, mode="bilinear")
        return torch.sigmoid(self.out(h)).flatten(1)


class TwoHeads(nn.Module):
    """An encoder that returns means and log variances."""

    def __init__(self):
        super().__init__()
        self.body, self.mean, self.log_var = nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(5, 2)

    def forward(self, x):
        h = self.body(x).tanh()
        return self.mean(h), self.log_var(h)


IMAGE = (2, 6, 5)


def image(*layers):
    return nn.Sequential(*layers), IMAGE


NETS = {
    "mlp decoder": (mlp_pair(30, (8, 6), 4, 3, True)[1], (3,)),
    "mlp encoder": (mlp_pair(30, (8,), 4, 3, False)[0], (5, 6)),
    "conv decoder": (conv_pair((1, 9, 7), (4, 6), (10,), 4, 3, True)[1], (3,)),
    "conv encoder": (conv_pair((3, 9, 7), (4, 6), (10,), 4, 3, False)[0], (3, 9, 7)),
    "conv classifier": (conv_classifier((1, 7, 6), (4, 5), (8,), 3), (42,)),
    "forward": (Forward(), (3,)),
    "two heads": (TwoHeads(), (3,)),
    "strides and groups": image(nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 2), (1, 2), groups=2)),
    "back": image(nn.ConvTranspose2d(2, 4, (3, 4), (2, 3), (1, 0), (1, 2), 2, False, 1)),
    "pooling": image(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2)),
    "adaptive pooling": image(nn.AdaptiveAvgPool2d((3, 2))),
    "nearest": image(nn.UpsamplingNearest2d(scale_factor=2), nn.PixelShuffle(1)),
    "bicubic": image(nn.Upsample(size=(9, 11), mode="bicubic")),
    "padding": image(nn.ZeroPad2d((1, 2, 0, 3)), nn.Dropout(), nn.Flatten(), nn.Identity()),
    "slopes": image(nn.PReLU(2), nn.BatchNorm2d(2), nn.PReLU()),
    "last axis": (nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4)), (6,)),
    "softmax": (nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1)), (3,)),
} | {
    name: (nn.Sequential(kind()), (40,)) for name, kind in ACTIVATIONS.items() if name != "softmax"
}


@pytest.fixture(scope="module")
def page():
    with browser() as chromium:
        opened = chromium.new_page()
        text = resources.files("serkit.explore").joinpath("layers.js").read_text("utf-8")
        opened.add_script_tag(content=text)
        yield opened


def trained(name):
    """A net with numbers in it that are not those of the start, and rows for it."""
    torch.manual_seed(0)
    net, shape = NETS[name]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 2)
            for values in (module.bias.data, module.running_mean):
                values.normal_()
    return net.eval(), 3 * torch.randn(4, *shape)


def outputs(net, rows):
    with torch.no_grad():
        made = net(rows)
    return (made[0] if isinstance(made, tuple) else made).numpy()


@pytest.mark.parametrize("name", NETS)
def test_layers_give_what_torch_gives(name):
    net, rows = trained(name)
    layers = layers_of(net, tuple(rows.shape[1:]), name)
    np.testing.assert_allclose(run(layers, rows.numpy()), outputs(net, rows), rtol=1e-5, atol=1e-5)
    assert layers[-1].shape == outputs(net, rows).shape[1:]


def test_the_browser_gives_what_torch_gives(page):
    for name in NETS:
        net, rows = trained(name)
        blob = Blob()
        layers = layers_of(net, tuple(rows.shape[1:]), name)
        made = page.evaluate(
            """async ([layers, blob, rows]) => {
                const bytes = await inflated(blob);
                const net = prepared(layers, (reference) => unpacked(bytes, reference));
                return rows.map((row) => Array.from(run(net, row)));
            }""",
            [
                [described(layer, blob, "f4") for layer in layers],
                blob.text(),
                rows.flatten(1).tolist(),
            ],
        )
        wanted = outputs(net, rows).reshape(len(rows), -1)
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("code", ["u1", "i4", "f2", "f3", "f4"])
def test_the_browser_reads_numbers_as_they_were_stored(page, code):
    values = np.random.default_rng(0).normal(size=300) * 10.0 ** np.arange(-5, 5).repeat(30)
    values = {"u1": np.arange(256), "i4": np.array([-(2**31), -1, 0, 7, 2**31 - 1])}.get(
        code, values
    )
    if code == "f2":
        values = np.array([0.0, -0.0, 1e-7, 6e-8, 6.1e-5, 1 / 3, -65504.0])
    blob = Blob()
    blob.add(np.array([1, 2, 3]), "u1")
    reference = blob.add(values, code)
    script = "async ([blob, ref]) => Array.from(unpacked(await inflated(blob), ref))"
    assert page.evaluate(script, [blob.text(), reference]) == as_stored(values, code).tolist()


def test_three_bytes_keep_sixteen_bits():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert (np.abs(as_stored(values, "f3") - values) <= 2.0**-16 * np.abs(values)).all()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4)

    def forward(self, x):
        return self.gru(x)[0]


class Skips(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.layer(x)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(nn.ReLU(), nn.GroupNorm(1, 3)), r"like 1 \(GroupNorm\);"),
        (nn.Sequential(nn.Sequential(Recurrent())), r"like 0.0.gru \(GRU\)"),
        (Skips(), r"like Skips: add, which takes more than what the layer before gives"),
        (Looks(), r"like Looks, whose forward cannot be traced"),
        (nn.Sequential(nn.Softmax(dim=0)), r"like 0 \(Softmax\)"),
    ],
)
def test_other_layers_are_refused_by_name(net, named):
    with pytest.raises(InputError, match=rf"^VAE.decoder: the page has no layer {named}.*runtime="):
        layers_of(net, (3,), "VAE.decoder")


def test_weights_take_as_few_bytes_as_show_no_difference():
    net, rows = trained("mlp decoder")
    layers = layers_of(net, (3,), "net")
    wanted = outputs(net, rows)
    codes = [rounded(layers, rows.numpy(), wanted, t, "net")[1] for t in (0.1, 1e-4, 1e-6)]
    assert codes == ["f2", "f3", "f4"]
    for tolerance in (0.1, 1e-4):
        stored, _ = rounded(layers, rows.numpy(), wanted, tolerance, "net")
        assert np.abs(run(stored, rows.numpy()) - wanted).max() <= tolerance


def test_layers_that_differ_from_torch_are_refused():
    net, rows = trained("mlp decoder")
    layers = layers_of(net, (3,), "net")
    with pytest.raises(
        InputError, match=r"^net: what the page makes of latents differs .* by up to"
    ):
        rounded(layers, rows.numpy(), outputs(net, rows) + 1, 1e-4, "net")


def test_a_blob_is_the_same_text_every_time():
    blobs = [Blob(), Blob()]
    for blob in blobs:
        blob.add(np.arange(9), "f3")
    assert blobs[0].text() == blobs[1].text()

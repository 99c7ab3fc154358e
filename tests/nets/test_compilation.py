"""Nets through torch.compile, and without a compiler."""

import gc
from functools import partial

import numpy as np
import pytest
import torch

from serkit.errors import InputError
from serkit.modules import AE, VAE, MultinomialVAE, NetClassifier
from serkit.modules.nets import device

NET = {"hidden_sizes": (8,), "epochs": 2, "device": "cpu", "precision": "float32"}


@pytest.fixture
def x():
    return np.random.default_rng(0).random((40, 6))


@pytest.fixture
def compiler(monkeypatch):
    """Torch's, all but the C++ compiler at its end, which takes half a minute and is not ours."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    device._problem.cache_clear()
    yield
    device._problem.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no C++ compiler\nand more lines of no interest")

    monkeypatch.setattr(torch, "compile", fail)
    device._problem.cache_clear()
    yield
    device._problem.cache_clear()


def losses(module):
    return [epoch["loss"] for epoch in module.loss_curve_]


def n_graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_compiled_nets_learn_the_same(x, compiler):
    """And are compiled once, and forgotten with their nets."""
    before, n_nets = n_graphs(), len(device._runs)
    eager, compiled = (VAE(2, **NET, compile=c, random_state=0).fit(x) for c in (False, True))
    compiled_once = n_graphs()
    assert compiled_once > before
    np.testing.assert_allclose(losses(compiled), losses(eager), rtol=1e-5)  # float32, other order
    np.testing.assert_allclose(compiled.encode(x), eager.encode(x), rtol=1e-4, atol=1e-6)
    assert compiled.get_state()["nets_"].keys() == eager.get_state()["nets_"].keys()
    compiled.fit(x)
    assert n_graphs() == compiled_once
    assert len(device._runs) == n_nets + 2
    del compiled
    gc.collect()
    assert len(device._runs) == n_nets


@pytest.mark.parametrize("kind", [AE, VAE, MultinomialVAE])
def test_without_a_compiler_training_goes_on(x, kind, no_compiler):
    module = kind(2, **NET, compile=True, random_state=0, name="it")
    with pytest.warns(UserWarning, match=r"'it': compile=True, .* \(no C\+\+ compiler\); training"):
        module.fit(x)
    assert losses(module) == losses(kind(2, **NET, random_state=0).fit(x))


def test_a_classifier_without_a_compiler(no_compiler):
    images = np.random.default_rng(0).random((20, 4, 4))
    net = NetClassifier(filters=(2,), compile=True, random_state=0, **NET)
    with pytest.warns(UserWarning, match="NetClassifier: compile=True"):
        net.fit(images, np.arange(20) % 2)
    assert len(net.loss_curve_) == 2


def test_compile_is_yes_or_no(x):
    with pytest.raises(InputError, match="unknown compile='fast'"):
        VAE(2, **NET, compile="fast").fit(x)

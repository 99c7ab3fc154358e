"""Augmented rows: which row the likelihood is of, themselves or the one they were made from."""

import numpy as np
import pytest
import torch
from torch import distributions as dist
from torch import nn
from torch.nn import functional as F

from serkit import Observation
from serkit.errors import InputError
from serkit.modules import AE, VAE, MultinomialVAE, RandomIntensity

N, D = 12, 3
KINDS = (AE, VAE, MultinomialVAE)
STILL = {"lr": 1e-30, "epochs": 1}  # moves nothing, so the loss is that of the nets given
SHARP = {AE: (0.0, 1.0), VAE: (-30.0, 1.0), MultinomialVAE: (0.0, 1e4)}  # no draw matters


@pytest.fixture
def x():
    """Rows (12, 5) in [0, 1]."""
    return np.random.default_rng(0).random((N, 5)).astype(np.float32)


def negative(batch):
    return 1 - batch


def own_nets(kind):
    """Linear nets; of a VAE all log variances are -30, and classes are as good as certain."""
    log_var, slope = SHARP[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Linear(5, 2 * D if kind is VAE else D)
        decoder = nn.Linear(D, 5)
    with torch.no_grad():
        encoder.weight *= slope
        encoder.weight[D:], encoder.bias[D:] = 0, log_var
    return {"encoder": encoder, "decoder": decoder}


def tiny(kind, **options):
    return kind(D, **{"device": "cpu", "precision": "float32", "random_state": 0} | options)


def losses(module):
    return [epoch["loss"] for epoch in module.loss_curve_]


def loss_by_hand(kind, encoder, decoder, observed, explained):
    """Of an encoder that gets one table of rows and a decoder that is to give another."""
    z, kl = encoder(observed), torch.zeros(())
    if kind is VAE:
        z, log_var = z.chunk(2, dim=1)
        q = dist.Normal(z, (0.5 * log_var).exp())
        kl = dist.kl_divergence(q, dist.Normal(0.0, 1.0)).sum() / N
    if kind is MultinomialVAE:
        z = F.one_hot(z.argmax(dim=1), D).float()
        kl = torch.tensor(D).log()
    cross_entropy = F.binary_cross_entropy_with_logits(decoder(z), explained, reduction="sum") / N
    return (cross_entropy + kl).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["clean", "augmented"])
def test_loss_equals_the_one_by_hand(x, kind, target):
    nets, rows = own_nets(kind), torch.tensor(x)
    module = tiny(kind, augment=negative, augment_target=target, **nets, **STILL).fit(x)
    explained = rows if target == "clean" else negative(rows)
    expected = loss_by_hand(kind, **nets, observed=negative(rows), explained=explained)
    assert losses(module) == pytest.approx([expected], rel=1e-5)
    other = loss_by_hand(kind, **nets, observed=negative(rows), explained=negative(explained))
    assert abs(expected - other) > 1e-2  # the two targets can be told apart


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_for_each_update(x, kind):
    """The last of a sequence holds for all further updates."""
    nets, targets = own_nets(kind), ("clean", "augmented", "clean")
    options = {"augment": negative, **nets, **STILL}
    module = tiny(kind, augment_target=list(targets), **options).connect(Observation(x))
    for _ in range(4):
        module.update()
    alone = {t: losses(tiny(kind, augment_target=t, **options).fit(x))[0] for t in set(targets)}
    expected = [alone[target] for target in (*targets, "clean")]
    assert losses(module) == pytest.approx(expected, rel=1e-5)  # draws differ, and are as good as 0
    assert abs(alone["clean"] - alone["augmented"]) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_without_augmentation_the_target_changes_nothing(x, kind):
    clean, augmented = (tiny(kind, augment_target=t, epochs=3) for t in ("clean", "augmented"))
    assert clean.fit(x).loss_curve_ == augmented.fit(x).loss_curve_


@pytest.mark.parametrize("target", ["clean", "augmented"])
def test_rows_held_out_are_not_augmented(x, target):
    options = {"validation_fraction": 0.5, **own_nets(AE), **STILL}
    plain = tiny(AE, **options).fit(x).history_[-1]["held_out_loss"]
    module = tiny(AE, augment=negative, augment_target=target, **options).fit(x)
    assert module.history_[-1]["held_out_loss"] == plain


def test_an_augmentation_may_work_in_place(x):
    """The row it was given stays as it was."""
    options = {"augment_target": "clean", "epochs": 3, "batch_size": 5}
    apart = tiny(VAE, augment=lambda batch: batch * 0.5, **options).fit(x)
    in_place = tiny(VAE, augment=lambda batch: batch.mul_(0.5), **options).fit(x)
    assert losses(in_place) == losses(apart)


@pytest.mark.parametrize(("target", "restored"), [("clean", True), ("augmented", False)])
def test_a_clean_target_undoes_the_transformation(target, restored):
    """Images at 0.6 of their brightness come back at their own, or as they are."""
    images = np.tile(np.eye(4)[:, :, None] * [0.9, 0.6, 0.9, 0.6], (10, 1, 1)).reshape(-1, 4, 4)
    options = {"likelihood": "gaussian", "hidden_sizes": (32,), "epochs": 300, "lr": 1e-2}
    dimmed = RandomIntensity(gamma=0, gain=(0.5, 1.0))
    ae = tiny(AE, augment=dimmed, augment_target=target, **options).fit(images)
    brightness = ae.reconstruct(0.6 * images).sum() / images.sum()
    assert brightness == pytest.approx(1.0 if restored else 0.6, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_augmentation_that_leaves_the_likelihoods_range_is_told(x, kind):
    """Unless what it makes is not to be reconstructed, or any number may be."""
    options = {"augment": lambda batch: batch * 3 - 1, "epochs": 1}
    text = rf"{kind.__name__}: likelihood='bernoulli' needs .*augment made \[-[^,]*, 1\.[^,]*\] of"
    with pytest.raises(InputError, match=text):
        tiny(kind, **options).fit(x)
    tiny(kind, augment_target="clean", **options).fit(x)
    tiny(kind, likelihood="gaussian", **options).fit(x)

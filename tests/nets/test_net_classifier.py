"""The supervised net: what it learns, what it leaves alone, and what it says of bad input."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.nn import functional as F

from serkit.errors import InputError, NotReadyError, TrainingError
from serkit.modules import NetClassifier, RandomAffine
from tests.helpers.saved import assert_same

C = 3
NAMES = np.array(["cat", "dog", "panda"])


def toy(n=90, shape=(6, 7), seed=0):
    """Images whose class is the third, from left to right, that is bright; and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(C, size=n)
    images = rng.uniform(0, 0.3, (n, *shape))
    for image, label in zip(images, labels, strict=True):
        third = shape[-1] // C
        image[..., third * label : third * (label + 1)] += 0.7
    return images, labels


def tiny(net=None, **options):
    sizes = {"filters": (4, 8), "hidden_sizes": (8,), "epochs": 12, "batch_size": 16, "lr": 1e-2}
    machine = {"device": "cpu", "precision": "float32", "random_state": 0}
    return NetClassifier(net, **sizes | machine | options)


def linear(n_features=42, n_classes=C, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(n_features, n_classes))


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7), (1, 9), (36,)])
def test_separable_images_are_told_apart(shape, precision):
    classifier = tiny(precision=precision).fit(*toy(shape=shape))
    assert classifier.score(*toy(200, shape, seed=1)) > 0.97
    first, last = classifier.loss_curve_[0], classifier.loss_curve_[-1]
    assert len(classifier.loss_curve_) == 12
    assert last["loss"] < 0.5 * first["loss"]
    assert last["accuracy"] > 0.9


@pytest.mark.parametrize("labels", [NAMES, np.array([7, -2, 5]), [2.0, 0.0, 1.0]])
def test_labels_of_any_type_come_back(labels):
    images, codes = toy()
    y = np.asarray(labels)[codes]
    classifier = tiny().fit(images, list(y))
    np.testing.assert_array_equal(classifier.classes_, np.unique(y))
    assert classifier.predict(images).dtype == y.dtype
    assert (classifier.predict(images) == y).mean() > 0.97


def test_probabilities_are_the_softmax_of_the_nets_logits():
    images, labels = toy()
    classifier = tiny(linear(), epochs=2).fit(images, labels)
    layer = classifier.net_[1]
    logits = images.reshape(-1, 42) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(images), expected, rtol=1e-4)
    np.testing.assert_array_equal(classifier.predict(images), expected.argmax(axis=1))


def test_one_step_is_adams_on_the_cross_entropy():
    """A linear net, one batch, one epoch: Adam's first step is lr times the gradient's sign."""
    images, labels = toy()
    net = linear()
    loss = F.cross_entropy(net(torch.tensor(images, dtype=torch.float32)), torch.tensor(labels))
    loss.backward()
    options = {"epochs": 1, "batch_size": 90, "lr": 1e-3, "scheduler": None}
    classifier = tiny(net, **options).fit(images, labels)
    for before, after in zip(net.parameters(), classifier.net_.parameters(), strict=True):
        step = (after - before).detach()
        torch.testing.assert_close(step, -1e-3 * before.grad.sign(), rtol=1e-2, atol=1e-6)
    (terms,) = classifier.loss_curve_
    assert terms["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_rows_beside_a_row_do_not_matter_to_it():
    images, labels = toy()
    classifier = tiny().fit(images, labels)
    one_by_one = np.concatenate([classifier.predict_proba(image[None]) for image in images[:9]])
    np.testing.assert_allclose(classifier.predict_proba(images)[:9], one_by_one, atol=1e-5)


def test_many_large_rows_are_classified_in_blocks(monkeypatch):
    images, labels = toy()
    classifier = tiny().fit(images, labels)
    whole, sizes = classifier.predict_proba(images), []
    classifier.net_.register_forward_pre_hook(lambda net, given: sizes.append(len(given[0])))
    monkeypatch.setattr("serkit.modules.nets.device._BLOCK_VALUES", 42 * 40)
    np.testing.assert_allclose(classifier.predict_proba(images), whole, atol=1e-6)
    assert sizes == [40, 40, 10]


def test_augmentation_is_for_training_only():
    seen = []

    def augment(batch):
        seen.append(len(batch))
        return batch.flip(-1)

    images, labels = toy()
    classifier = tiny(augment=augment).fit(images, labels)
    assert sum(seen) == 12 * 90
    mirrored = classifier.score(images[..., ::-1], labels)
    assert mirrored > 0.97 > 0.6 > classifier.score(images, labels)
    assert sum(seen) == 12 * 90


@pytest.mark.parametrize("unknown", [None, np.nan, "masked"])
def test_steps_without_a_label_are_not_learnt_from(unknown):
    """A linear net of one number a step, which tells two classes apart; some are not told."""
    x = np.random.default_rng(0).choice([-1.0, 1.0], (60, 5, 1))
    codes = (x[:, :, 0] > 0).astype(int)
    is_known = np.random.default_rng(1).random((60, 5)) < 0.7
    told = np.array(["low", "high"], dtype=object)[np.where(is_known, codes, 1 - codes)]
    y = np.ma.masked_array(told, ~is_known if unknown == "masked" else False)
    if unknown != "masked":
        y[~is_known] = unknown
    classifier = tiny(nn.Linear(1, 2), epochs=30, lr=0.1).fit(x, y)
    assert list(classifier.classes_) == ["high", "low"]
    assert classifier.loss_curve_[-1]["accuracy"] == 1
    np.testing.assert_array_equal(classifier.predict(x), np.array(["low", "high"])[codes])


# -- seeds, and what is left alone ---------------------------------------------------------------


def test_same_seed_same_bits_and_global_state_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make = partial(tiny, augment=RandomAffine(), epochs=2)
    one, same, other = (make(random_state=seed).fit(*toy()) for seed in (0, 0, 1))
    assert_same(weights(one.net_), weights(same.net_))
    assert one.loss_curve_ == same.loss_curve_ != other.loss_curve_
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    again = weights(one.net_)
    assert_same(again, weights(one.fit(*toy()).net_))  # afresh, not on from where it was


def test_own_net_is_used_and_left_as_it_is():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(42), linear(42))
    net.eval()
    before = weights(net)
    classifier = tiny(net).fit(*toy())
    assert_same(before, weights(net))
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert isinstance(classifier.net_[1], nn.BatchNorm1d)
    assert not torch.equal(classifier.net_[2][1].weight, net[2][1].weight)
    assert classifier.score(*toy()) > 0.9


def test_scikit_learn_can_clone_and_cross_validate_it():
    classifier = tiny(filters=(2,), epochs=8)
    copied = clone(classifier)
    assert copied.get_params() == classifier.get_params()
    assert cross_val_score(copied, *toy(), cv=2).min() > 0.9
    assert not hasattr(copied, "net_")


# -- errors --------------------------------------------------------------------------------------


def test_nothing_can_be_asked_before_fitting():
    for use in (tiny().predict, tiny().predict_proba):
        with pytest.raises(NotReadyError, match=r"NetClassifier has learnt nothing yet: call fit"):
            use(toy()[0])


def bad(row=3, value=np.nan):
    images, labels = toy()
    images[row, 0, 0] = value
    return images, labels


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        (bad(), {}, r"NetClassifier\.fit: NaN or infinity in 1 of 90 rows \(rows 3\)"),
        ((toy()[0], toy()[1][:50]), {}, "NetClassifier: y has 50 entries for 90 rows"),
        ((toy()[0], np.zeros((90, 2))), {}, "NetClassifier: y should be a 1d array"),
        ((toy()[0], [4] * 90), {}, r"y must hold two classes or more, got one class, \[4\]"),
        (
            toy(),
            {"batch_size": 1},
            "batch normalisation needs two rows or more in every batch, but batch_size=1",
        ),
        (
            (toy()[0], np.ma.masked_all((90, 6))),
            {},
            "NetClassifier: y must hold two classes or more, got none",
        ),
        (toy(), {"net": "cnn"}, "net must be a torch.nn.Module, got 'cnn'"),
        (toy(), {"net": linear(9)}, r"net cannot take rows of shape \(6, 7\)"),
        (toy(), {"net": linear(42, 4)}, r"net must return \(N, 3\) for 3 classes, got \(2, 4\)"),
        (
            toy(),
            {"augment": lambda x: x[:1]},
            r"augment must return a tensor of shape \(15, 6, 7\)",
        ),
        (toy(), {"augment": "flip"}, "augment must be a function of batch, got 'flip'"),
        (toy(), {"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        (toy(), {"batch_size": 2.5}, "batch_size must be an integer >= 1, got 2.5"),
        (toy(), {"lr": 0}, "lr must be a number > 0, got 0"),
        (toy(), {"weight_decay": -1}, "weight_decay must be a number >= 0, got -1"),
        (toy(), {"filters": ()}, r"filters must be a sequence of integers >= 1, got \(\)"),
        (toy(), {"hidden_sizes": 8}, "hidden_sizes must be a sequence of integers >= 1, got 8"),
        (toy(), {"scheduler": "step"}, "unknown scheduler='step'; expected one of None, 'cosine'"),
        (toy(), {"precision": "half"}, "unknown precision='half'; expected one of 'auto'"),
        (toy(), {"device": "abacus"}, "unknown device='abacus'"),
        (
            toy(),
            {"random_state": -1},
            "random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
    ],
)
def test_bad_input_is_told_and_what_was_learnt_is_kept(rows, options, text):
    classifier = tiny(epochs=1).fit(*toy())
    before = dict(vars(classifier))
    with pytest.raises(InputError, match=text):
        classifier.set_params(**options).fit(*rows)
    assert vars(classifier) == before | options
    assert classifier.predict(toy()[0]).shape == (90,)


def test_rows_of_another_shape_are_refused():
    classifier = tiny(epochs=1).fit(*toy())
    text = r"NetClassifier: trained on rows of shape \(6, 7\), got \(7, 6\)"
    with pytest.raises(InputError, match=text):
        classifier.predict(toy()[0].transpose(0, 2, 1))
    with pytest.raises(
        InputError, match=r"NetClassifier\.predict: NaN or infinity in 1 of 90 rows"
    ):
        classifier.predict(bad()[0])


def test_a_loss_gone_nan_is_told_and_what_was_learnt_is_kept():
    classifier = tiny(epochs=1).fit(*toy())
    before, net = weights(classifier.net_), classifier.net_
    classifier.set_params(augment=lambda batch: batch * torch.nan)
    with pytest.raises(
        TrainingError, match=r"NetClassifier: loss became nan in epoch 1. Lower lr="
    ):
        classifier.fit(*toy())
    assert classifier.net_ is net
    assert_same(before, weights(net))


def test_rows_of_which_batch_norm_overflows_are_told_of():
    """Their squares are beyond float32, which the loss does not show: the net forgets its rows."""
    rows = 1e19 * np.random.default_rng(0).random((60, 4, 4)).astype(np.float32)
    with pytest.raises(TrainingError, match=r"a weight became inf in epoch 2.*Values are up to"):
        NetClassifier(epochs=2, random_state=0).fit(rows, np.arange(60) % 3)

"""The supervised net with numbers as targets; what it shares with NetClassifier is tested there."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import nn

from serkit.errors import InputError, NotReadyError, TrainingError
from serkit.modules import NetRegressor
from tests.helpers.saved import assert_same


def linear(n_outputs, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(4, n_outputs)


def toy(shape=(), seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 4))
    weights = np.random.default_rng(9).normal(size=(4, *shape))
    return x, x @ weights + 0.5


def regressor(net, **options):
    machine = {"device": "cpu", "precision": "float32", "random_state": 0}
    return NetRegressor(net, **{"epochs": 400, "lr": 0.05, "batch_size": 80} | machine | options)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_a_linear_net_finds_least_squares(shape):
    x, y = toy(shape)
    found = regressor(linear(int(np.prod(shape)))).fit(x, y)
    new, expected = toy(shape, seed=1)
    assert found.predict(new).shape == expected.shape
    np.testing.assert_allclose(found.predict(new), expected, atol=0.01)
    assert found.score(new, expected) > 0.999
    assert found.loss_curve_[-1]["loss"] < 1e-4


def test_the_loss_is_the_mean_squared_error():
    x, y = toy((2,))
    net = linear(2)
    with torch.no_grad():
        predicted = net(torch.tensor(x, dtype=torch.float32)).numpy()
    found = regressor(net, epochs=1).fit(x, y)
    assert found.loss_curve_[0]["loss"] == pytest.approx(((predicted - y) ** 2).mean(), rel=1e-5)


def test_images_have_a_default_net():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(60, 4, 4))
    y = images[:, :2].mean(axis=(1, 2)) - images[:, 2:].mean(axis=(1, 2))
    found = regressor(None, filters=(4,), hidden_sizes=(8,), epochs=60).fit(images, y)
    assert found.score(images, y) > 0.8


def test_state_goes_to_a_fresh_copy():
    x, y = toy((2,))
    trained = regressor(linear(2), epochs=3).fit(x, y)
    fresh = clone(trained)
    fresh.set_state(trained.get_state())
    np.testing.assert_array_equal(fresh.predict(x), trained.predict(x))
    assert_same(fresh.get_state(), trained.get_state())
    assert cross_val_score(clone(trained).set_params(epochs=100), x, y).min() > 0.9


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.zeros(9), r"y must be numbers of shape \(80,\) or \(80, T\).* got shape \(9,\)"),
        (np.zeros((80, 2, 2)), r"y must be numbers .* got shape \(80, 2, 2\)"),
        (np.full(80, np.nan), "NetRegressor: y: NaN or infinity in 80 of 80 rows"),
        (np.full(80, 1e39), r"NetRegressor: y: rows in float32: NaN or infinity in 80 .*; scale"),
        (np.array(["a"] * 80), "NetRegressor: y: expected real numbers"),
        (np.ma.masked_array(np.ones(80), np.arange(80) == 3), r"y: NaN .* 1 of 80 rows \(rows 3\)"),
        (np.ma.masked_all((80, 4, 1)), "NetRegressor: y holds no known target; unmask some"),
        (
            np.ma.masked_array(np.full((80, 4, 1), 1e300), mask=False),
            "NetRegressor: y: rows in float32: NaN or infinity in 80 of 80 rows",
        ),
        (np.zeros((80, 3)), r"net must return \(N, 3\) for 3 targets, got \(2, 1\)"),
    ],
)
def test_bad_targets_are_told_and_what_was_learnt_is_kept(y, text):
    found = regressor(linear(1), epochs=1).fit(*toy())
    before = dict(vars(found))
    with pytest.raises(InputError, match=text):
        found.fit(toy()[0], y)
    assert vars(found) == before


def test_rows_beyond_float32_are_named():
    x, y = toy()
    found = regressor(linear(1), epochs=1).fit(x, y)
    x = x.astype(np.float64)
    x[3, 0] = 1e300
    with pytest.raises(
        InputError, match=r"nets make of the rows: NaN .* in 1 of 80 rows \(rows 3\)"
    ):
        found.predict(x)
    with pytest.raises(
        InputError, match=r"NetRegressor: rows in float32: .* 1 of 80 rows \(rows 3\)"
    ):
        found.fit(x, y)


def test_where_the_loss_explodes_standardising_is_named():
    x, y = toy()
    with pytest.raises(TrainingError, match=r"Values are up to .*: standardise the columns"):
        regressor(linear(1), epochs=1).fit(1e30 * x, y)


def test_nothing_can_be_asked_before_fitting():
    with pytest.raises(NotReadyError, match=r"NetRegressor has learnt nothing yet: call fit"):
        regressor(linear(1)).predict(toy()[0])

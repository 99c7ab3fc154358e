"""Features: nets, transformers and functions give what they give alone, and nothing changes."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from serkit import Graph, Observation
from serkit.errors import GraphError, InputError
from serkit.messages import Categorical, Data, Gaussian
from serkit.modules import GMM, Features
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same


def a_net(n=64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Flatten(),
            nn.Linear(n, 5),
            nn.BatchNorm1d(5),
            nn.Dropout(0.5),
            nn.Unflatten(1, (5, 1)),
        )
        return nn.Sequential(*layers)


def on(rows, extractor, **options):
    observation = rows if isinstance(rows, Observation) else Observation(rows)
    return Features(extractor, name="own", **options).connect(observation).update()


# -- what goes up --------------------------------------------------------------------------------


def test_nets_run_in_evaluation_mode_and_stay_as_they_were(digits):
    net = a_net().train()
    net[3].eval()  # as where a part is kept from changing
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = on(digits.x, net).message_up.array
    linear, norm = net[1], net[2]
    expected = digits.x.reshape(200, -1) @ linear.weight.detach().numpy().T
    expected = (expected + linear.bias.detach().numpy()) / np.sqrt(1 + norm.eps)
    np.testing.assert_allclose(found, expected[:, :, None], atol=1e-5)
    assert [part.training for part in net] == [True, True, True, False, True]
    assert net.training
    assert_same(before, dict(net.state_dict()))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_many_rows_pass_a_net_in_blocks(digits, monkeypatch):
    net, sizes = a_net(), []
    whole = on(digits.x, net).message_up.array
    net.register_forward_pre_hook(lambda net, given: sizes.append(len(given[0])))
    monkeypatch.setattr("serkit.modules.nets.device._BLOCK_VALUES", 64 * 90)
    np.testing.assert_allclose(on(digits.x, net).message_up.array, whole, atol=1e-6)
    assert sizes == [90, 90, 20]


def test_nets_without_parameters_and_functions_and_transformers(digits):
    flat = digits.x.reshape(200, -1)
    np.testing.assert_array_equal(on(digits.x, nn.Flatten()).message_up.array, flat)
    pooled = on(digits.x, lambda images: images[:, ::2, ::2].tolist()).message_up
    np.testing.assert_array_equal(pooled.array, digits.x[:, ::2, ::2])
    pca = PCA(3).fit(flat)
    np.testing.assert_array_equal(on(digits.x, pca).message_up.array, pca.transform(flat))


def test_several_parents_are_set_side_by_side(digits):
    second = digits.labels[:, None]
    module = Features(np.negative).connect(Observation(digits.x), Observation(second))
    expected = -np.concatenate([digits.x.reshape(200, -1), second], axis=1)
    np.testing.assert_array_equal(module.update().message_up.array, expected)


def test_length_is_known_once_there_are_features(digits):
    module = Features(a_net())
    assert module.n_outputs is None
    assert module.connect(Observation(digits.x)).update().n_outputs == 5


def test_features_of_missing_rows_say_nothing(digits):
    observed = np.arange(200) % 2 == 0
    rows = np.where(observed[:, None, None], digits.x, np.nan)
    observation = Observation(rows, observed=observed)
    up = on(observation, lambda images: images + 1).message_up
    np.testing.assert_array_equal(up.observed, observed)
    np.testing.assert_array_equal(up.array[~observed], 0)
    np.testing.assert_array_equal(up.array[observed], digits.x[observed] + 1)


# -- what goes down ------------------------------------------------------------------------------


def test_without_an_inverse_nothing_goes_down_and_any_child_may_speak(digits):
    for message in (
        Data(np.zeros((200, 5))),
        Gaussian.standard(200, 5),
        Categorical.uniform(200, 3),
    ):
        module = on(digits.x, a_net())
        before = module.message_up
        Teller(message).connect(module).update()
        module.update()
        assert_same(before, module.message_up)
        assert module.messages_down == (None,)


def test_with_an_inverse_own_features_or_the_childrens_are_turned_back(digits):
    pca = PCA(3).fit(digits.x.reshape(200, -1))
    module = on(digits.x, pca)
    own = pca.inverse_transform(module.message_up.array).reshape(200, 8, 8)
    np.testing.assert_allclose(module.messages_down[0].array, own, atol=1e-6)
    told = np.random.default_rng(0).normal(size=(200, 3))
    for message in (Data(told), Gaussian(told)):
        inputs = [Data(digits.x, observed=np.arange(200) >= 100)]
        down = module.read(module.infer(inputs, message).down)[0]
        expected = pca.inverse_transform(told).reshape(200, 8, 8)
        if isinstance(message, Gaussian):  # of observed rows, their own
            expected[100:] = own[100:]
        np.testing.assert_allclose(down.array, expected, atol=1e-6)


def test_samples_go_down_through_an_inverse_or_not_at_all(blobs):
    halve = FunctionTransformer(lambda x: x / 2, lambda x: x * 2).fit(blobs.x)
    gmm = GMM(3, random_state=0).connect(on(blobs.x, halve))
    drawn = Graph(gmm).fit(1, verbose=False).sample(4000, component=1, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), 2 * gmm.means_[1], atol=0.1)
    gmm = GMM(3, random_state=0).connect(on(blobs.x, np.tanh))
    with pytest.raises(GraphError, match="Features 'own' cannot generate samples"):
        Graph(gmm).fit(1, verbose=False).sample(3)


def test_it_extracts_once_and_turns_back_when_it_is_read(digits, monkeypatch):
    pca, calls = PCA(3).fit(digits.x.reshape(200, -1)), []
    for name in ("transform", "inverse_transform"):
        method = getattr(pca, name)
        monkeypatch.setattr(pca, name, lambda x, m=method, n=name: calls.append(n) or m(x))
    module = on(digits.x, pca)
    assert calls == ["transform"]
    assert module.messages_down[0] is module.messages_down[0]
    assert calls == ["transform", "inverse_transform"]


def test_a_clone_is_as_trained_as_the_original(digits):
    module = on(digits.x, PCA(3).fit(digits.x.reshape(200, -1)))
    again = clone(module).connect(Observation(digits.x)).update()
    assert_same(again.message_up, module.message_up)


# -- saved ---------------------------------------------------------------------------------------


def test_a_transformer_is_in_the_file_and_code_is_asked_for(digits, tmp_path):
    for extractor, custom in ((PCA(3).fit(digits.x.reshape(200, -1)), None), (a_net(), "a net")):
        graph = Graph(GMM(3, random_state=0).connect(on(digits.x, extractor)))
        expected = graph.fit(1, verbose=False).predict(digits.x).probabilities
        graph.save(tmp_path / "graph")
        if custom:
            with pytest.raises(InputError, match=r"extractor=Sequential.*custom=\{'own.extractor'"):
                Graph.load(tmp_path / "graph").predict(digits.x)
            custom = {"own.extractor": extractor}
        loaded = Graph.load(tmp_path / "graph", custom=custom)
        np.testing.assert_array_equal(loaded.predict(digits.x).probabilities, expected)


# -- errors --------------------------------------------------------------------------------------


def broken(rows):
    raise ValueError("no such luck")


def lost(rows):
    raise KeyError("no such name")


@pytest.mark.parametrize(
    ("extractor", "text"),
    [
        (3, "extractor must be a torch.nn.Module, a fitted .* or a function .*, got 3"),
        (LogisticRegression(), "extractor must be .* got LogisticRegression"),
        (
            PCA(3),
            r"the PCA is not fitted; call its fit first, or let Sklearn\(PCA\(\.\.\.\)\) learn",
        ),
        (lambda rows: rows[:7], "must return as many rows as it gets, but made 7 of 200"),
        (lambda rows: rows.sum(axis=(1, 2)), r"returned: expected at least one row and one column"),
        (lambda rows: rows / 0, r"returned: NaN or infinity in 200 of 200 rows"),
        (broken, r"the extractor cannot take rows of shape \(8, 8\): no such luck"),
        (lost, r"the extractor cannot take rows of shape \(8, 8\): 'no such name'"),
        (a_net(9), r"the extractor cannot take rows of shape \(8, 8\): mat1 and mat2"),
        (nn.LSTM(8, 2), "returned|cannot take rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide|invalid)")
def test_what_extracts_no_features_is_told_and_nothing_changes(extractor, text, digits):
    module = on(digits.x, np.negative)
    before = module.get_state()
    with pytest.raises(InputError, match=rf"Features 'own': .*({text})"):
        module.set_params(extractor=extractor).update()
    assert_same(before["posterior"], module.get_state()["posterior"])


def test_rows_given_to_a_function_cannot_be_altered_by_it(digits):
    def spoil(rows):
        rows[:] = 0
        return rows

    with pytest.raises(InputError, match=r"cannot take rows .*read-only"):
        on(digits.x, spoil)

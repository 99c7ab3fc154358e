"""The exchange of messages in `update`, Observation, and two user-written modules."""

import re

import numpy as np
import pytest
import torch

from serkit import Graph, Module, Observation
from serkit.errors import GraphError, InputError, MessageError, NotReadyError
from serkit.messages import Categorical, Data, Gaussian
from serkit.module import Posterior
from serkit.modules import GMM, VAE
from tests.helpers.modules import NET, KMeans, Teller, chain, uniform_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")

# -- exchange ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [VAE(2), GMM(2, name="top"), KMeans(2)])
def test_update_before_connect_says_so(module):
    with pytest.raises(NotReadyError, match=f"{module.label} is not connected: call connect"):
        module.update()


def test_update_before_the_parent_says_which_first():
    gmm = GMM(2).connect(VAE(2, name="low").connect(Observation(uniform_rows())))
    with pytest.raises(NotReadyError, match="GMM got no message from VAE 'low': update that one"):
        gmm.update()


def test_update_refuses_a_kind_it_does_not_take():
    vae = chain()[0]
    second = VAE(2, name="second").connect(vae)
    with pytest.raises(GraphError, match="VAE sends Gaussian messages to VAE 'second', which take"):
        second.update()


def test_children_of_one_gmm_multiply():
    observation = Observation(uniform_rows())
    gmm = GMM(3, random_state=0).connect(observation)
    gmm.update()
    own = gmm.message_up.log_prob
    rng = np.random.default_rng(1)
    said = [np.log(rng.dirichlet(np.ones(3), size=20)) for _ in range(2)]
    tellers = [Teller(Categorical(p), name=n).connect(gmm) for p, n in zip(said, "ab", strict=True)]
    for teller in tellers:
        teller.update()
    assert gmm.children == tuple(tellers)
    weight = np.exp(said[0]) * np.exp(said[1])
    expected = weight / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(gmm.received_from_children().log_prob), expected)
    gmm.freeze().update()
    np.testing.assert_array_equal(gmm.message_up.log_prob, own)
    joint = np.exp(own) * weight
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(gmm.messages_down[0].log_prob), expected, atol=1e-12)


def test_children_of_one_vae_multiply():
    vae, gmm = chain()
    second = GMM(3, random_state=1).connect(vae)
    second.update()
    received = vae.received_from_children()
    (one,), (other,) = gmm.messages_down, second.messages_down
    assert received.shape == (6,)
    for i, j in np.ndindex(2, 3):
        pair = 3 * i + j
        both = [np.linalg.inv(m.covariances[k]) for m, k in ((one, i), (other, j))]
        covariance = np.linalg.inv(both[0] + both[1])
        mean = covariance @ (both[0] @ one.means[i] + both[1] @ other.means[j])
        np.testing.assert_allclose(received.covariances[pair], covariance)
        np.testing.assert_allclose(received.means[pair], mean)
        np.testing.assert_allclose(
            received.log_prob[:, pair], one.log_prob[:, i] + other.log_prob[:, j]
        )
    assert np.isfinite(vae.update().history_[-1]["loss"])


def test_gaussian_children_multiply_precision_weighted():
    vae = VAE(2, **NET).connect(Observation(uniform_rows()))
    vae.update()
    mean, var = np.full((2, 20, 2), [[[1.0]], [[4.0]]]), np.full((2, 20, 2), [[[1.0]], [[0.5]]])
    tellers = [Teller(Gaussian(m, v)).connect(vae).update() for m, v in zip(mean, var, strict=True)]
    received = vae.received_from_children()
    assert len(tellers) == 2
    np.testing.assert_allclose(received.var, 1 / (1 / 1.0 + 1 / 0.5))
    np.testing.assert_allclose(received.mean, (1 / 1.0 + 4 / 0.5) / (1 / 1.0 + 1 / 0.5))


def test_children_that_contradict_each_other_are_an_error():
    gmm = GMM(2, random_state=0).connect(Observation(uniform_rows()))
    gmm.update()
    sure = np.full((20, 2), [0.0, -np.inf])
    tellers = [Teller(Categorical(p)).connect(gmm).update() for p in (sure, sure[:, ::-1])]
    assert len(tellers) == 2
    with pytest.raises(MessageError, match="contradict each other in row 0"):
        gmm.update()


def test_gmm_on_two_vaes_sends_each_its_own_dimensions():
    vaes = [VAE(d, **NET).connect(Observation(uniform_rows(seed=d))) for d in (2, 3)]
    gmm = GMM(2, random_state=0).connect(*vaes)
    for module in (*vaes, gmm, *vaes):
        module.update()
    low, high = gmm.messages_down
    np.testing.assert_array_equal(np.hstack([low.means, high.means]), gmm.means_)
    np.testing.assert_array_equal(low.covariances, gmm.covariances_[:, :2, :2])
    np.testing.assert_array_equal(high.covariances, gmm.covariances_[:, 2:, 2:])
    np.testing.assert_array_equal(low.log_prob, high.log_prob)


def test_vae_on_two_observations_reconstructs_each_in_its_shape():
    images, flat = uniform_rows(d=9).reshape(20, 3, 3), uniform_rows(d=2, seed=1)
    vae = VAE(2, **NET).connect(Observation(images), Observation(flat))
    vae.update()
    assert [m.array.shape for m in vae.messages_down] == [(20, 3, 3), (20, 2)]
    whole = vae.reconstruct(np.hstack([images.reshape(20, 9), flat]))
    joined = np.hstack([m.array.reshape(20, -1) for m in vae.messages_down])
    np.testing.assert_array_equal(joined, whole)


def test_update_that_fails_keeps_the_messages_sent_before(monkeypatch):
    gmm = chain()[1]
    posterior = gmm.posterior

    def fails(inputs, from_children):
        raise ArithmeticError("on purpose")

    monkeypatch.setattr(gmm, "learn", fails)
    with pytest.raises(ArithmeticError, match="on purpose"):
        gmm.update()
    assert gmm.posterior is posterior
    assert len(gmm.history_) == 1


def test_generator_depends_on_seed_and_update_only():
    def draws(module):
        return module.rng().random(4).tolist()

    module = KMeans(2, random_state=5)
    first = draws(module)
    assert draws(module) == first == draws(KMeans(2, random_state=5))
    assert draws(KMeans(2, random_state=6)) != first
    module.connect(Observation(uniform_rows())).update()
    assert draws(module) != first


# -- what a user's module gets wrong ---------------------------------------------------------------

ROWS = uniform_rows()


class Spoilt(Module):
    """Sends its parent's rows up and down; a test replaces a method by one that errs."""

    sends_up = sends_down = Data

    def learn(self, inputs, from_children):
        return {"loss": 0.5}

    def infer(self, inputs, from_children):
        return self.posterior_with()

    def posterior_with(self, **fields):
        return Posterior(**({"up": Data(ROWS), "down": (Data(ROWS),)} | fields))


LEARN = {
    "None": (lambda *_: None, "returned None; return a dict of numbers to report"),
    "self": (lambda module, *_: module, "returned a Spoilt; return a dict"),
    "a tuple": (lambda *_: (1, 2), "returned a tuple of 2; return a dict"),
    "a number's name": (lambda *_: {1: 0.5}, "returned a dict with 1: 0.5; name numbers to"),
    "a tensor": (
        lambda *_: {"loss": torch.ones(2)},
        "returned a dict with 'loss': a Tensor of.*float.loss",
    ),
}
INFER = {
    "None": (lambda *_: None, "returned None; return a serkit.Posterior"),
    "a tuple": (lambda *_: (Data(ROWS), None), "returned a tuple of 2; return a serkit.Posterior"),
    "a message": (lambda *_: Data(ROWS), "returned a Data; return a serkit.Posterior"),
}
POSTERIORS = {
    "no message": ({"up": None}, "returned up=None; return a Data message, or state sends_up"),
    "an array": ({"up": ROWS}, r"a ndarray of shape \(20, 4\) as its message up, .* states a Data"),
    "another kind": ({"up": Gaussian(ROWS)}, "a Gaussian as its message up, .* states a Data"),
    "rows left out": ({"up": Data(ROWS[:3])}, "3 rows of 4 values as its message up; return 20"),
    "one message": ({"down": Data(ROWS)}, "down=a Data for 1 parents; return a tuple"),
    "none down": (
        {"down": ()},
        "0 messages down for 1 parents; return a tuple with one per parent",
    ),
    "an array down": ({"down": (ROWS,)}, "a ndarray .* as its message down to Observation, .* a D"),
    "another width": (
        {"down": (Data(ROWS[:, 1:]),)},
        "20 rows of 3 values .*; return 20 rows of 4",
    ),
    "classes of few": (
        {"classes": Categorical.uniform(3, 2)},
        "3 rows of 2 .* as its message of c",
    ),
    "a bound of NaN": ({"bound": np.nan}, "the bound is nan; return a finite number of nats"),
    "bounds of rows": ({"bound": lambda: ROWS}, "the bound is a ndarray of shape .*; return a fin"),
}


@pytest.mark.parametrize(
    ("name", "case"), [*(("learn", case) for case in LEARN), *(("infer", case) for case in INFER)]
)
def test_what_a_method_must_return_is_told_by_name(name, case, monkeypatch):
    method, text = {"learn": LEARN, "infer": INFER}[name][case]
    monkeypatch.setattr(Spoilt, name, method)
    with pytest.raises(GraphError, match=rf"Spoilt 'mine'\.{name} {text}"):
        Spoilt(name="mine").connect(Observation(ROWS)).update()


@pytest.mark.parametrize("case", POSTERIORS)
def test_what_a_posterior_must_hold_is_told_by_name(case, monkeypatch):
    fields, text = POSTERIORS[case]
    monkeypatch.setattr(Spoilt, "infer", lambda module, *_: module.posterior_with(**fields))
    module = Spoilt(name="mine").connect(Observation(ROWS))
    with pytest.raises(GraphError, match=rf"Spoilt 'mine'\.infer.* {text}"):
        module.update()
    assert module.posterior is None


def test_messages_that_cannot_be_made_name_the_module(monkeypatch):
    monkeypatch.setattr(Spoilt, "infer", lambda *_: Posterior(up=Data(ROWS * np.nan)))
    with pytest.raises(InputError, match=r"^Spoilt 'mine'\.infer: Data\.array: NaN .* in 20 of 20"):
        Spoilt(name="mine").connect(Observation(ROWS)).update()


def test_rows_of_training_sent_for_new_ones_are_an_error():
    graph = Graph(Spoilt(name="mine").connect(Observation(ROWS))).fit(1, verbose=False)
    with pytest.raises(GraphError, match=r"Spoilt 'mine'\.infer returned 20 rows .* return 3 rows"):
        graph.predict(ROWS[:3])


@pytest.mark.parametrize("method", ["learn", "infer", "check"])
def test_other_errors_name_the_module_and_how_its_method_is_called(method, monkeypatch):
    monkeypatch.setattr(Spoilt, method, lambda module, inputs: None)
    with pytest.raises(TypeError, match="takes 2 positional arguments") as caught:
        Spoilt(name="mine").connect(Observation(ROWS)).update()
    (note,) = caught.value.__notes__
    assert re.match(rf"raised in Spoilt 'mine'\.{method}, which is called with \(inputs, ", note)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (None, "returned None"),
        ([ROWS], r"returned a list of \[\(20, 4\)\]"),
        ([], r"returned a list of \[\]"),
        ([ROWS[:7, 1:]], r"returned a list of \[\(7, 3\)\]"),
    ],
    ids=["None", "all rows", "no parent's", "another width"],
)
def test_what_generate_must_return_is_told_by_name(rows, text, monkeypatch):
    monkeypatch.setattr(Spoilt, "generate", lambda *_, **__: rows)
    graph = Graph(Spoilt(name="mine").connect(Observation(ROWS))).fit(1, verbose=False)
    text = rf"Spoilt 'mine'\.generate {text}; return a list with .* of shapes \[\(7, 4\)\]"
    with pytest.raises(GraphError, match=text):
        graph.sample(7)


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        ({"takes_from_parents": Data}, r"takes_from_parents must be a tuple of kinds of messages"),
        ({"takes_from_children": ["Gaussian"]}, r"takes_from_children must be a tuple of kinds"),
        ({"sends_up": "Data"}, "sends_up must be a kind of message, such as Data, or None"),
        ({"sends_down": Data(ROWS)}, "sends_down must be a kind of message"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_class_must_state_is_told_when_it_is_defined(stated, text):
    with pytest.raises(GraphError, match=rf"^Own\.{text}"):
        type("Own", (Spoilt,), stated)


def test_a_constructor_of_ones_own_need_not_call_that_of_module():
    class Bare(Spoilt):
        def __init__(self):
            self.own = 1

    module = Bare().connect(Observation(ROWS)).update()
    assert (module.label, module.n_sent_) == ("Bare", 1)


@pytest.mark.parametrize("base", [GMM, VAE, Spoilt])
def test_arguments_that_a_constructor_does_not_keep_are_told_by_name(base):
    class Lossy(base):
        def __init__(self, n_wanted=3):
            self.other = n_wanted

    text = r"Lossy does not keep its argument '(\w+)'; in Lossy\.__init__ write self\.\1 = \1, or"
    with pytest.raises(InputError, match=text):
        Lossy().get_params()
    if base is not Spoilt:
        with pytest.raises(InputError, match=text):
            Graph(Lossy().connect(Observation(ROWS))).check()


# -- Observation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.ones((3, 2)), np.float64),
        (np.ones((3, 2), dtype=np.float32), np.float32),
        (np.ones((3, 2), dtype=np.uint8), np.float32),
        (np.ones((3, 2), dtype=bool), np.float32),
        ([[1, 2], [3, 4]], np.float32),
        (torch.ones(3, 2, requires_grad=True), np.float32),
    ],
    ids=["float64", "float32", "uint8", "bool", "list", "tensor"],
)
def test_observation_takes_real_numbers(data, dtype):
    observation = Observation(data)
    assert observation.data.dtype == dtype
    np.testing.assert_array_equal(observation.data, np.array(torch.as_tensor(data).tolist()))


def test_observation_sends_read_only_rows_and_leaves_the_users_writable():
    rows = uniform_rows()
    observation = Observation(rows)
    assert rows.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        observation.message_up.array[0] = 1
    assert observation.update() is observation


def test_fingerprint_tells_rows_apart():
    rows = uniform_rows()
    other = rows.copy()
    other[7, 1] += 1e-9
    prints = [Observation(r).fingerprint() for r in (rows, rows.copy(), other, rows.astype("f4"))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3

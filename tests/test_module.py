"""The exchange of messages in `update`, Observation, and two user-written modules."""

import numpy as np
import pytest
import torch

from serkit import Observation
from serkit.errors import GraphError, MessageError, NotReadyError
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


def test_wrong_number_of_messages_down_is_an_error():
    teller = Teller(Data(uniform_rows()), name="t")
    teller.infer = lambda inputs, from_children: Posterior()
    teller.connect(Observation(uniform_rows()))
    with pytest.raises(GraphError, match=r"Teller 't'\.infer returned 0 messages down for 1 p"):
        teller.update()


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

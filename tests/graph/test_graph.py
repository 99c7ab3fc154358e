"""The graph as a whole: rounds, the joint objective, several parents and children."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import distributions as dist

from serkit import Graph, Module, Observation
from serkit.errors import GraphError, InputError, TrainingError
from serkit.messages import Categorical
from serkit.module import bound_of
from serkit.modules import AE, GMM, VAE
from tests.helpers.modules import KMeans, Teller
from tests.helpers.saved import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")
NET = {"epochs": 4, "batch_size": 30, "lr": 1e-2, "hidden_sizes": (16,), "random_state": 0}


def pipeline(data, k=3, **options):
    """Observation, VAE and GMM on the given rows with labels."""
    vae = VAE(2, **{**NET, "likelihood": "gaussian", "noise_variance": 0.1, **options})
    vae.connect(Observation(data.x))
    return vae, GMM(k, labels=data.labels, random_state=1).connect(vae)


def states(graph):
    return [node.get_state() for node in graph.modules if isinstance(node, Module)]


def test_fit_returns_the_graph_with_every_round_in_the_history(blobs):
    graph = Graph(pipeline(blobs)[1])
    assert graph.fit(2, verbose=False) is graph
    graph.fit(1, verbose=False)
    assert [record["round"] for record in graph.history] == [1, 2, 3]
    for i, record in enumerate(graph.history):
        vae, gmm = record["updates"]
        assert (vae["module"], gmm["module"]) == ("vae", "gmm")
        assert {"loss", "reconstruction", "kl", "epochs", "seconds"} <= vae.keys()
        assert {"log_likelihood", "accuracy", "nmi", "ari", "occupancy", "entropy"} <= gmm.keys()
        assert ("objective" in vae, "objective" in gmm) == (False, True)
        assert ("changed" in gmm, "mean_shift" in gmm) == (i > 0, i > 0)
        for entry in (vae, gmm):
            reported = graph[entry["module"]].history_[i]
            assert {key: entry[key] for key in reported} == reported
            assert entry["frozen"] is False


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "2", None, True])
def test_rounds_must_be_a_positive_integer(blobs, rounds):
    graph = Graph(pipeline(blobs)[1])
    with pytest.raises(InputError, match=f"rounds must be an integer >= 1, got {rounds!r}"):
        graph.fit(rounds, verbose=False)
    assert graph.history == []


def test_numpy_integers_count_as_integers(blobs):
    vae, gmm = pipeline(blobs, epochs=np.int64(1))
    assert len(Graph(gmm).fit(np.int64(2), verbose=False).history) == 2
    assert vae.history_[0]["epochs"] == 1


def test_fit_equals_updates_by_hand(blobs):
    by_graph = Graph(pipeline(blobs)[1]).fit(3, verbose=False)
    vae, gmm = pipeline(blobs)
    for _ in range(3):
        vae.update()
        gmm.update()
    assert_same(states(by_graph), states(Graph(gmm)))


def test_rounds_may_be_split_over_several_fits(blobs):
    whole = Graph(pipeline(blobs)[1]).fit(3, verbose=False)
    parts = Graph(pipeline(blobs)[1]).fit(1, verbose=False).fit(2, verbose=False)
    assert_same(states(whole), states(parts))
    assert_same(whole.history, parts.history)


def test_gmm_pulls_the_latents_of_its_vae(blobs):
    told, untold = pipeline(blobs), pipeline(blobs, kl_target="standard_normal")
    for pair in (told, untold):
        Graph(*pair).fit(2, verbose=False)
    assert not np.array_equal(told[0].message_up.mean, untold[0].message_up.mean)
    assert told[0].history_[0]["loss"] == untold[0].history_[0]["loss"]


def test_labels_score_and_never_train(blobs):
    plain = Graph(pipeline(blobs)[1]).fit(2, verbose=False)
    gmm = pipeline(blobs)[1]
    gmm.labels = np.random.default_rng(0).permutation(blobs.labels)
    shuffled = Graph(gmm).fit(2, verbose=False)
    for one, other in zip(states(plain), states(shuffled), strict=True):
        assert_same(*({k: v for k, v in s.items() if k != "history_"} for s in (one, other)))
    assert plain.history[-1]["updates"][1]["nmi"] != shuffled.history[-1]["updates"][1]["nmi"]


def test_frozen_encoder_is_one_case_of_the_graph(blobs):
    vae, gmm = pipeline(blobs)
    Graph(gmm).fit(1, verbose=False)
    latents, weights = vae.message_up.mean, vae.get_state()["nets_"]
    weights = {name: value.clone() for name, value in weights.items()}
    vae.freeze()
    graph = Graph(gmm).fit(2, verbose=False)
    assert [u["frozen"] for u in graph.history[0]["updates"]] == [True, False]
    assert "loss" not in graph.history[0]["updates"][0]
    assert_same(weights, vae.get_state()["nets_"])
    np.testing.assert_array_equal(vae.message_up.mean, latents)


@pytest.mark.parametrize("encoder", [AE, VAE])
def test_modules_fitted_on_arrays_can_be_frozen_into_a_graph(blobs, encoder):
    fitted = encoder(2, **NET, likelihood="gaussian").fit(blobs.x)
    gmm = GMM(3, random_state=0).fit(fitted.encode(blobs.x))
    means = gmm.means_.copy()
    fitted.connect(Observation(blobs.x)).freeze()
    gmm.connect(fitted).freeze()
    graph = Graph(gmm).fit(1, verbose=False)
    np.testing.assert_array_equal(gmm.means_, means)
    np.testing.assert_array_equal(graph.predict(blobs.x).latents, fitted.encode(blobs.x))


def test_history_is_kept_when_training_fails(blobs):
    vae, gmm = pipeline(blobs, alpha=lambda update, epoch: 1e300 if update == 2 else 1.0)
    graph = Graph(gmm)
    with pytest.raises(TrainingError, match=r"VAE: loss became .* in epoch 1 of update 3"):
        graph.fit(5, verbose=False)
    assert [record["round"] for record in graph.history] == [1, 2]
    assert (len(vae.history_), len(gmm.history_)) == (2, 2)
    assert graph.predict(blobs.x).classes.shape == (120,)


# -- objective ---------------------------------------------------------------------------------


def test_objective_is_none_until_every_module_has_its_messages(blobs):
    vae, gmm = pipeline(blobs)
    graph = Graph(gmm)
    assert graph.objective() is None
    vae.update()
    assert np.isfinite(graph.objective())


def test_history_records_the_objective_once_every_term_is_of_the_last_messages(blobs):
    graph = Graph(pipeline(blobs)[1])
    seen = []

    def look(graph, record):
        seen.append(graph.objective())

    graph.fit(3, callbacks=[look], verbose=False)
    assert seen == [record["updates"][-1]["objective"] for record in graph.history]
    by_hand = Graph(*pipeline(blobs))
    for record in graph.history:
        for entry in record["updates"]:
            by_hand[entry["module"]].update()
            assert entry.get("objective", by_hand.objective()) == by_hand.objective()


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_objective_is_the_evidence_lower_bound(blobs, covariance_type):
    """Against sampling: log p(x, z, k) - log q(z) r(k), many draws of z, k summed over."""
    vae, gmm = pipeline(blobs)
    gmm.covariance_type = covariance_type
    graph = Graph(gmm).fit(2, verbose=False)
    q = dist.Normal(torch.tensor(vae.message_up.mean), torch.tensor(vae.message_up.var).sqrt())
    mixture = gmm.messages_down[0]
    components = dist.MultivariateNormal(
        torch.tensor(mixture.means), torch.tensor(mixture.covariances)
    )
    r, log_pi = torch.tensor(gmm.responsibilities_), torch.tensor(mixture.log_weights)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        draws = []
        for _ in range(400):
            z = q.sample()  # (N, D)
            mean = torch.tensor(vae.decode(z.numpy()))
            log_x = dist.Normal(mean, 0.1**0.5).log_prob(torch.tensor(blobs.x)).sum(1)
            log_zk = components.log_prob(z[:, None].double()) + log_pi  # (N, K)
            inner = torch.where(r > 0, r * (log_zk - r.log()), 0.0).sum(1)
            draws.append((log_x + inner - q.log_prob(z).sum(1)).mean())
    draws = torch.stack(draws).double()
    assert abs(graph.objective() - draws.mean()) < 5 * draws.std()  # one draw a row in objective
    # What does not depend on the draw of z in the decoder is exact, so take that out as well:
    rows = bound_of(vae.infer(vae.received_from_parents(), None))
    exact = graph.objective() - rows
    assert exact == pytest.approx(bound_of(gmm.infer([vae.message_up], None)))


def test_objective_of_a_gmm_on_data_is_its_log_likelihood(blobs):
    gmm = GMM(3, random_state=0, max_iter=500, tol=0.0).connect(Observation(blobs.x))
    graph = Graph(gmm).fit(1, verbose=False)
    assert graph.objective() == pytest.approx(gmm.score_samples(blobs.x).mean(), rel=1e-9)


def test_objective_without_a_child_is_the_plain_elbo(blobs):
    """E_q[log p(x | z)] - KL(q || N(0, I)), with the KL in closed form by torch."""
    vae, _ = pipeline(blobs)
    alone = Graph(VAE(**vae.get_params()).connect(Observation(blobs.x))).fit(1, verbose=False)
    vae = alone["vae"]
    sent = vae.message_up
    mean, var = torch.tensor(sent.mean), torch.tensor(sent.var)
    q = dist.Normal(mean, var.sqrt())
    kl = dist.kl_divergence(q, dist.Normal(0.0, 1.0)).sum(1).mean()
    rng = np.random.default_rng(3)
    values = []
    for _ in range(200):
        z = mean.numpy() + rng.standard_normal(mean.shape) * var.numpy() ** 0.5
        fit = dist.Normal(torch.tensor(vae.decode(z)), 0.1**0.5)
        values.append(float(fit.log_prob(torch.tensor(blobs.x)).sum(1).mean() - kl))
    assert abs(alone.objective() - np.mean(values)) < 5 * (np.std(values) + 0.01)


# -- several parents and children --------------------------------------------------------------


def test_gmm_on_two_vaes_trains_and_predicts(blobs):
    parents = [
        VAE(2, **NET, likelihood="gaussian").connect(Observation(blobs.x[:, columns]))
        for columns in (slice(0, 2), slice(2, 4))
    ]
    gmm = GMM(3, random_state=0).connect(*parents)
    graph = Graph(gmm).fit(2, verbose=False)
    assert list(graph.names) == ["observation", "observation2", "vae", "vae2", "gmm"]
    prediction = graph.predict(blobs.x[:5, :2], blobs.x[:5, 2:])
    assert prediction.probabilities.shape == (5, 3)
    assert set(graph.first_latents) == {"vae", "vae2"}
    assert {k: v.shape for k, v in graph.sample(4).items()} == {
        "observation": (4, 2),
        "observation2": (4, 2),
    }


def test_two_gmms_on_one_vae_both_pull(blobs):
    vae, gmm = pipeline(blobs)
    with pytest.warns(UserWarning, match="VAE already has GMM connected .* GMM 'second' too"):
        second = GMM(2, name="second", random_state=3).connect(vae)
    graph = Graph(gmm, second).fit(2, verbose=False)
    assert [u["module"] for u in graph.history[0]["updates"]] == ["vae", "gmm", "second"]
    assert vae.received_from_children().shape == (6,)
    alone = Graph(pipeline(blobs)[1]).fit(2, verbose=False)
    assert second.means_.shape == (2, 2)
    assert not np.array_equal(alone["vae"].message_up.mean, vae.message_up.mean)


def test_message_from_a_child_moves_the_clusters():
    """Rows without clusters follow a child that is nearly sure of some groups."""
    groups = np.arange(120) % 3
    rows = np.random.default_rng(0).standard_normal((120, 4))
    gmm = GMM(3, random_state=0).connect(Observation(rows))
    sure = np.log(np.where(np.eye(3, dtype=bool)[groups], 1 - 2e-9, 1e-9))
    teller = Teller(Categorical(sure)).connect(gmm)
    graph = Graph(teller).fit(3, verbose=False)
    assert graph.modules[-1] is teller
    own = graph["gmm"].message_up.log_prob.argmax(axis=1)
    assert (gmm.responsibilities_.argmax(axis=1) == groups).all()
    sent = np.exp(gmm.messages_down[0].log_prob)
    np.testing.assert_allclose(sent, gmm.responsibilities_, atol=1e-9)
    assert not (own == groups).all()


def test_user_written_module_takes_part(blobs):
    vae = pipeline(blobs)[0]
    leaf = KMeans(3, random_state=0).connect(vae)
    graph = Graph(leaf).fit(2, verbose=False)
    assert graph.predict(blobs.x[:7]).classes.shape == (7,)
    assert [entry["module"] for entry in graph.history[1]["updates"]] == ["vae", "kmeans"]


# -- looking at it -----------------------------------------------------------------------------


def test_modules_are_found_by_name(blobs):
    vae, gmm = pipeline(blobs)
    graph = Graph(gmm)
    assert graph["vae"] is vae
    assert graph.name_of(gmm) == "gmm"
    assert [type(m) for m in graph.observations] == [Observation]
    with pytest.raises(GraphError, match="no module is called 'vea'; there are observation, vae"):
        graph["vea"]


@pytest.mark.parametrize("odd", [np.zeros(3), 7, [], GMM(2, name="other")], ids=repr)
def test_what_is_no_module_of_the_graph_is_told_or_not_found(blobs, odd):
    graph = Graph(pipeline(blobs)[1])
    with pytest.raises(GraphError, match="not in this graph; there are observation, vae, gmm"):
        graph.name_of(odd)
    with pytest.raises(GraphError, match="no module is called"):
        graph[odd]
    with pytest.raises(GraphError, match=r"leaf=.* is not in this graph"):
        graph.sample(leaf=odd)
    with pytest.raises(GraphError, match=r"schedule names .* which is not in this graph"):
        graph.fit(1, schedule=[odd], verbose=False)
    assert odd not in graph
    assert graph.children_of(odd) == []


@pytest.mark.parametrize("path", [3, "", b"a", ["a"], "a\0b"], ids=repr)
def test_what_is_no_path_is_refused_before_training(blobs, path):
    graph = Graph(pipeline(blobs)[1])
    text = r" must be a path, as a string or a pathlib.Path, got "
    for name in ("checkpoint", "out"):
        with pytest.raises(InputError, match=rf"^Graph.fit: {name}{text}"):
            graph.fit(1, verbose=False, **{name: path})
    for function in (graph.save, Graph.load):
        with pytest.raises(InputError, match=f"^Graph.{function.__name__}: path{text}"):
            function(path)
    assert not graph.history


def test_draw_shows_every_module_and_message(blobs):
    figure = Graph(pipeline(blobs)[1]).draw()
    assert isinstance(figure, Figure)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"observation\nObservation (4)", "vae\nVAE (2)", "gmm\nGMM (3)"} <= set(texts)
    assert {"Data", "Gaussian", "Mixture"} <= set(texts)


# -- what is computed ----------------------------------------------------------------------------


def test_in_a_round_everything_is_inferred_once(blobs, monkeypatch):
    """Outside training each net sees every row once, and a mixture's joint density is made once."""
    vae, gmm = pipeline(blobs)
    graph = Graph(gmm).fit(1, verbose=False)  # so that there are nets to count the rows of
    rows, learn = {"encoder": 0, "decoder": 0}, vae.learn

    def learn_uncounted(inputs, from_children):
        before = dict(rows)
        report = learn(inputs, from_children)
        rows.update(before)
        return report

    monkeypatch.setattr(vae, "learn", learn_uncounted)
    for name in rows:

        def count(net, inputs, output, name=name):
            rows[name] += len(inputs[0])

        vae.nets_[name].register_forward_hook(count)
    densities, joint = [], gmm._log_likelihoods

    def count_rows(x, density):
        densities.append(len(x))
        return joint(x, density)

    monkeypatch.setattr(gmm, "_log_likelihoods", count_rows)
    graph.fit(1, verbose=False)
    assert rows == {"encoder": 120, "decoder": 120}  # the decoder's pass is the bound's
    assert densities == [120]
    assert np.isfinite(graph.objective())
    assert rows == {"encoder": 120, "decoder": 120}
    graph.predict(blobs.x)
    assert rows == {"encoder": 240, "decoder": 120}  # no reconstruction unless it is read
    assert vae.messages_down[0].array.shape == (120, 4)
    assert vae.messages_down[0].array is vae.messages_down[0].array
    assert rows == {"encoder": 240, "decoder": 240}

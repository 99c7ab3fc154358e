"""The MLDA module: its messages, missing modalities, its use on arrays, and its errors."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.exceptions import ConvergenceWarning

from serkit import Graph, Observation, datasets
from serkit.errors import InputError, NotFittedError
from serkit.messages import Categorical, Data, Deferred
from serkit.metrics import accuracy
from serkit.modules import GMM, MLDA
from serkit.modules.topics import lda
from serkit.modules.topics.lda import fold_in
from tests.benchmarks.topics import rounds_of_two_levels
from tests.helpers import oracles
from tests.helpers.modules import Sender

K, N, WORDS = 3, 120, 30
LABELS = np.arange(N) % K


def histograms(n=N, seed=0, tokens=60):
    """Rows (n, WORDS) of the three classes in turn, each with words of its own and common ones."""
    topics = np.full((K, WORDS), 0.5 / WORDS)
    for k in range(K):
        topics[k, 5 * k : 5 * k + 5] += 0.1
    rng = np.random.default_rng(seed)
    return rng.multinomial(tokens, topics[np.arange(n) % K]).astype(np.float32)


def opinions(n=N, seed=1, certainty=0.9, observed=None):
    """A mixture's class probabilities: right but for a tenth of the rows, in other numbers."""
    rng = np.random.default_rng(seed)
    classes = (np.arange(n) + (rng.random(n) < 0.1)) % K
    probabilities = np.full((n, K), (1 - certainty) / (K - 1))
    probabilities[np.arange(n), (classes + 1) % K] = certainty
    return Categorical(np.log(probabilities), observed=observed)


def learnt(inputs, from_children=None, **options):
    mlda = MLDA(K, **{"random_state": 0, "n_init": 2} | options)
    mlda.check_options()
    mlda.check(inputs, inputs[0].n_rows)
    mlda.record(mlda.learn(inputs, from_children))
    return mlda


def down(mlda, inputs, from_children=None):
    """The messages for the parents, made."""
    messages = mlda.infer(inputs, from_children).down
    return mlda.read(messages)


def up(mlda, inputs):
    return mlda.infer(inputs, None).up


def with_row(message, row, other):
    """The message with one row's values taken from another row."""
    if isinstance(message, Data):
        values = message.array.copy()
        values[row] = values[other]
        return Data(values)
    values = message.log_prob.copy()
    values[row] = values[other]
    return Categorical(values)


@pytest.fixture
def inputs():
    """Histograms and class probabilities of the same rows."""
    return [Data(histograms()), opinions()]


# -- in a graph --------------------------------------------------------------------------------


def latents(seed=2):
    centres = 4.0 * np.eye(K)
    return centres[LABELS] + np.random.default_rng(seed).standard_normal((N, K))


def graph():
    gmm = GMM(K, n_init=2, random_state=0).connect(Observation(latents(), name="latents"))
    mlda = MLDA(K, n_init=2, labels=LABELS, random_state=0)
    return Graph(mlda.connect(gmm, Observation(histograms(), name="words")))


def test_a_mixture_and_histograms_learn_together(tmp_path):
    whole = graph()
    whole.fit(rounds=3, verbose=False)
    gmm, mlda = (next(m for m in whole.modules if isinstance(m, kind)) for kind in (GMM, MLDA))
    assert mlda.history_[-1]["accuracy"] > 0.95
    assert accuracy(LABELS, gmm.posterior.clusters) > 0.95
    to_gmm, to_words = mlda.messages_down
    assert isinstance(to_gmm, Categorical)
    assert to_gmm.is_prior
    assert to_words.shape == (WORDS,)
    assert mlda.scores()["accuracy"] == accuracy(LABELS, mlda.posterior.clusters)
    assert whole.objective() is None  # topics state no bound

    new, rows = latents(seed=3), histograms(seed=3)
    probabilities = whole.predict(new, rows).probabilities
    assert accuracy(LABELS, probabilities.argmax(axis=1)) > 0.95
    assert accuracy(LABELS, whole.predict(new, None).classes) > 0.8
    whole.save(tmp_path / "graph.safetensors")
    again = Graph.load(tmp_path / "graph.safetensors")
    np.testing.assert_array_equal(again.predict(new, rows).probabilities, probabilities)


def test_what_two_levels_tell_each_other_pays():
    """The small setting of the benchmark `concepts`: modalities of objects and of motions."""
    curves = []
    for seed in range(5):
        data = datasets.make_concepts(120, random_state=seed)
        curves.append(rounds_of_two_levels(data, 3, seed))
    first, last = np.array(curves)[:, [0, -1]].swapaxes(0, 1)  # accuracies (seeds, modules)
    assert (last > first - 0.01).all()  # a row in 120 may change by chance
    assert last[:, 0].mean() > first[:, 0].mean() + 0.03  # objects gain by their motions


def test_sampling_a_topic_gives_its_words():
    whole = graph()
    whole.fit(rounds=1, verbose=False)
    mlda = whole.modules[-1]
    drawn = whole.sample(4, component=1)
    expected = 60 * mlda.components_[1][1]
    np.testing.assert_allclose(drawn["words"], np.tile(expected, (4, 1)), rtol=1e-12)  # rounding
    assert drawn["latents"].shape == (4, K)
    assert whole.sample(5)["words"].sum(axis=1) == pytest.approx(60.0)


# -- messages ----------------------------------------------------------------------------------


def test_the_message_up_is_the_posterior_mean_of_theta(inputs):
    mlda = learnt(inputs)
    theta = np.exp(up(mlda, inputs).log_prob)
    # CVB0 leaves each token out of the topics' words in turn, which new rows are not part of
    np.testing.assert_allclose(theta, mlda.topic_proportions_, atol=0.02)
    assert accuracy(LABELS, theta.argmax(axis=1)) > 0.9


def test_a_mixture_does_not_hear_what_it_said(inputs):
    mlda = learnt(inputs)
    before = down(mlda, inputs)[1]
    own = down(mlda, [inputs[0], with_row(inputs[1], 0, 1)])[1]
    other = down(mlda, [with_row(inputs[0], 0, 1), inputs[1]])[1]
    np.testing.assert_array_equal(before.log_prob, own.log_prob)
    assert np.abs(before.log_prob[0] - other.log_prob[0]).max() > 0.1
    # rows of a block are folded in until the last of them changes by less than 1e-3
    np.testing.assert_allclose(before.log_prob[1:], other.log_prob[1:], atol=1e-2)


def test_a_mixture_alone_hears_what_the_topics_expect_of_any_row():
    alone = [opinions()]
    mlda = learnt(alone, match_classes=False)
    (classes,) = down(mlda, alone)
    by_prior = lda.log_prob_of_classes(np.full((1, K), 1 / K), mlda.components_[0], 50)
    np.testing.assert_allclose(classes.log_prob, np.tile(by_prior, (N, 1)))


def test_a_class_counts_as_many_tokens_as_the_rows_beside_it_up_and_down(inputs):
    mlda = learnt(inputs)
    assert mlda.class_tokens_ == 60
    again = learnt(inputs, weights=[None, 60])
    rounding = {"rtol": 1e-9}  # 60 P(k), or 50 P(k) scaled to a sum of 60
    np.testing.assert_allclose(again.topic_proportions_, mlda.topic_proportions_, **rounding)
    pair = down(again, inputs)[1].log_prob, down(mlda, inputs)[1].log_prob
    np.testing.assert_allclose(*pair, **rounding)
    assert learnt(inputs, weights=[30, None]).class_tokens_ == 30
    assert learnt([opinions(), opinions(seed=2)]).class_tokens_ == 50


def test_topics_fitted_to_arrays_send_messages_in_a_graph_too():
    counts = histograms()
    mlda = MLDA(K, random_state=0).fit(counts).freeze().connect(Observation(counts)).update()
    np.testing.assert_allclose(np.exp(mlda.message_up.log_prob), mlda.transform(counts))


def test_topics_fitted_to_arrays_take_a_mixtures_classes_as_fifty_tokens(inputs):
    arrays = [inputs[0].array, 50 * np.exp(inputs[1].log_prob)]
    mlda = MLDA(K, random_state=0).fit(arrays)
    np.testing.assert_allclose(np.exp(up(mlda, inputs).log_prob), mlda.transform(arrays))


def test_a_mixture_hears_more_of_a_class_that_counts_for_more(inputs):
    weak, strong = (down(learnt(inputs, weights=[None, w]), inputs)[1] for w in (1, 60))
    assert np.exp(strong.log_prob).max(axis=1).mean() > np.exp(weak.log_prob).max(axis=1).mean()


def test_down_to_histograms_go_expected_counts(inputs):
    mlda = learnt(inputs)
    assert isinstance(mlda.infer(inputs, None).down[0], Deferred)
    rows = down(mlda, inputs)[0].array
    np.testing.assert_allclose(rows.sum(axis=1), 60, rtol=1e-12)  # rounding of float64
    theta = np.exp(up(mlda, inputs).log_prob)
    np.testing.assert_allclose(rows, 60 * theta @ mlda.components_[0], rtol=1e-12)


def test_rows_are_folded_in_once_or_once_more_with_what_children_say(inputs, monkeypatch):
    mlda, calls = learnt(inputs), []
    monkeypatch.setattr(lda, "fold_in", lambda *a: calls.append(a) or fold_in(*a))
    mlda.infer(inputs, None)
    assert len(calls) == 2  # by all rows, and without the mixture's
    mlda.infer(inputs, Categorical.uniform(N, K))
    assert len(calls) == 5


@pytest.mark.parametrize("inference", ["cvb0", "gibbs"])
def test_a_uniform_message_changes_nothing(inputs, inference):
    options = {"inference": inference, "max_iter": 20}
    uniform = Categorical.uniform(N, K)
    one, other = learnt(inputs, **options), learnt(inputs, uniform, **options)
    np.testing.assert_array_equal(one.topic_proportions_, other.topic_proportions_)
    before, after = down(one, inputs), down(other, inputs, uniform)
    np.testing.assert_array_equal(before[0].array, after[0].array)
    np.testing.assert_array_equal(before[1].log_prob, after[1].log_prob)


def test_what_children_say_pulls_rows_and_goes_down_but_not_up(inputs):
    probabilities = np.full((N, K), 0.005)
    probabilities[np.arange(N), LABELS] = 0.99
    right = Categorical(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)))
    mlda = learnt(inputs, right)
    # in the children's numbers, and as good as by the counts, which outvote an observation
    assert (mlda.topic_proportions_.argmax(axis=1) == LABELS).mean() > 0.9
    wrong = Categorical(np.roll(right.log_prob, 1, axis=1))
    plain, pulled = down(mlda, inputs)[1], down(mlda, inputs, wrong)[1]
    of_topic = mlda.components_[1].argmax(axis=1)  # the mixture's class
    entries = np.arange(N), of_topic[(LABELS + 1) % K]
    assert (pulled.log_prob[entries] > plain.log_prob[entries]).all()
    posterior = mlda.infer(inputs, wrong)
    theta = np.exp(posterior.up.log_prob)
    expected = mlda.transform([inputs[0].array, 60 * np.exp(inputs[1].log_prob)])
    np.testing.assert_allclose(theta, expected)
    moved = np.exp(posterior.classes.log_prob) - theta
    assert (moved[np.arange(N), (LABELS + 1) % K] > 0).all()  # to what the children say,
    assert moved.max() < 0.05  # by one of 111 observations, and what it does to the tokens' topics


def test_a_message_of_a_great_weight_decides(inputs):
    mlda = learnt(inputs, opinions(certainty=0.99), message_weight=1000.0)
    clusters = mlda.infer(inputs, opinions(certainty=0.99)).clusters
    np.testing.assert_array_equal(clusters, opinions().log_prob.argmax(axis=1))


@pytest.mark.parametrize("n_init", [1, 5])
def test_the_first_topics_have_the_children_s_numbers(n_init):
    own = [Data(histograms())]
    mlda = learnt(own, opinions(), n_init=n_init)
    assert (mlda.topic_proportions_.argmax(axis=1) == (LABELS + 1) % K).mean() > 0.95


def test_useless_topics_are_left_for_what_children_say():
    inputs = [Data(histograms())]
    mlda = learnt(inputs)
    alike = [np.full((K, WORDS), 1 / WORDS)]  # which CVB0 never parts
    mlda.components_ = alike
    mlda.learn(inputs, None)
    assert accuracy(LABELS, mlda.topic_proportions_.argmax(axis=1)) < 0.5
    mlda.components_ = alike
    mlda.learn(inputs, opinions())
    assert accuracy(LABELS, mlda.topic_proportions_.argmax(axis=1)) > 0.95


def test_weights_are_tokens_per_row(inputs):
    counts, probabilities = inputs
    weighted = learnt([counts, probabilities], weights=[30, 15.0])
    scaled = Data(counts.array / 2)
    half = np.exp(probabilities.log_prob) * 15
    expected = MLDA(K, n_init=2, random_state=0).fit([scaled.array, half])
    for one, other in zip(weighted.components_, expected.components_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)  # 15 tokens, or 50 weighted down to 15
    np.testing.assert_allclose(weighted.mean_tokens_[0], 60)


def test_later_updates_go_on_from_the_last_topics(inputs):
    mlda = learnt(inputs)
    before = mlda.topic_proportions_.argmax(axis=1)
    report = mlda.learn(inputs, None)
    assert (mlda.topic_proportions_.argmax(axis=1) == before).mean() > 0.98
    assert report["log_likelihood"] == pytest.approx(
        mlda.history_[0]["log_likelihood"], abs=5e-3
    )  # a few steps of tol
    assert report["n_iter"] <= mlda.history_[0]["n_iter"]


# -- missing modalities ------------------------------------------------------------------------


def test_a_missing_modality_is_inferred_and_predicted_from_the_other():
    rng = np.random.default_rng(4)
    full, observed = histograms(), rng.random(N) < 0.7
    spoilt = full.copy()
    spoilt[~observed] = np.nan
    classes = opinions(observed=observed | (rng.random(N) < 0.6))
    inputs = [Data(spoilt, observed=observed), classes]
    mlda = learnt(inputs)
    message = up(mlda, inputs)
    any_observed = inputs[0].is_observed | classes.is_observed
    np.testing.assert_array_equal(message.is_observed, any_observed)
    clusters = message.log_prob.argmax(axis=1)
    assert accuracy(LABELS[any_observed], clusters[any_observed]) > 0.9
    np.testing.assert_allclose(message.log_prob[~any_observed], -np.log(K))

    words = down(mlda, inputs)[0].array
    np.testing.assert_allclose(words.sum(axis=1), 60, rtol=1e-12)  # rounding of float64
    by_classes = ~observed & classes.is_observed
    error = np.square(words - full)[by_classes].mean()
    assert error < 0.75 * np.square(full[observed].mean(axis=0) - full)[by_classes].mean()


def test_class_probabilities_of_missing_rows_are_no_tokens(inputs):
    missing = Categorical(inputs[1].log_prob, observed=np.zeros(N, dtype=bool))
    mlda = learnt(inputs)
    alone = up(mlda, [inputs[0], missing])
    expected = mlda.transform([inputs[0].array, np.zeros((N, K))])
    np.testing.assert_allclose(np.exp(alone.log_prob), expected)


# -- on arrays ---------------------------------------------------------------------------------


def test_sparse_and_dense_counts_give_the_same():
    x = histograms()
    dense = MLDA(K, random_state=0).fit(x)
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        other = MLDA(K, random_state=0).fit(kind(x))
        np.testing.assert_array_equal(dense.components_[0], other.components_[0])
        np.testing.assert_array_equal(dense.transform(x), other.transform(kind(x)))


def test_the_topics_found_are_the_classes():
    mlda = MLDA(K, random_state=0).fit(histograms())
    new = histograms(seed=5)
    assert oracles.best_accuracy(LABELS.tolist(), mlda.predict(new).tolist()) > 0.98
    np.testing.assert_allclose(mlda.transform(new).sum(axis=1), 1)
    np.testing.assert_allclose(mlda.components_[0].sum(axis=1), 1)


def test_perplexity_lies_between_the_truth_and_sklearns_bound():
    new = histograms(200, seed=5)
    topics = np.array([histograms(3000, seed=6)[k::K].mean(axis=0) / 60 for k in range(K)])
    p = np.log(topics[np.arange(200) % K])
    truth = np.exp(-(new * p).sum() / new.sum())  # classes known
    peer = LatentDirichletAllocation(K, random_state=0).fit(histograms())
    found = MLDA(K, random_state=0).fit(histograms()).perplexity(new)
    assert truth < found < peer.perplexity(new)


# -- what cannot work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": [1.0]}, r"MLDA: weights must be a list of 2 numbers > 0 or None, .*\[1.0\]"),
        ({"weights": [1.0, 0]}, "weights must be a list of 2 numbers > 0"),
        ({"weights": 200}, "weights must be a list of 2 numbers > 0 or None.*200"),
        ({"inference": "vb"}, "unknown inference='vb'; expected one of 'cvb0', 'gibbs'"),
        ({"doc_topic_prior": 0.0}, "doc_topic_prior must be a number > 0"),
        ({"topic_word_prior": -1.0}, "topic_word_prior must be a number > 0"),
        ({"n_init": 0}, "n_init must be an integer >= 1"),
        ({"message_weight": 0}, "message_weight must be a number > 0"),
        ({"weights": np.ones(2)}, r"weights must be a list of 2 numbers > 0 or None.*array"),
        ({"tol": -1.0}, "tol must be a number >= 0"),
        ({"labels": [0, 1]}, f"labels has 2 entries for {N} rows"),
    ],
)
def test_arguments_that_cannot_work_are_named(inputs, options, text):
    with pytest.raises(InputError, match=text):
        learnt(inputs, **options)


def test_more_topics_than_rows_are_an_error():
    with pytest.raises(InputError, match="n_components=3 is more than the 2 rows"):
        MLDA(K).fit(histograms()[:2])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda x: x - 1,
            "MLDA 'words': Negative values in data: expected counts >= 0, got -1 in row 0",
        ),
        (lambda x: 0 * x, f"MLDA 'words': all counts are 0 in all {N} rows"),
        (lambda x: [x, x[:5]], r"expected modalities of equally many rows, got \[120, 5\]"),
        (lambda x: np.where(x > 3, np.nan, x), "MLDA 'words': NaN or infinity"),
        (lambda x: sparse.csr_array(np.where(x > 3, np.nan, x)), "expected finite counts"),
    ],
)
def test_bad_counts_are_named_and_nothing_is_lost(spoil, text):
    x = histograms()
    mlda = MLDA(K, name="words", random_state=0, n_init=1).fit(x)
    before = mlda.components_[0].copy()
    with pytest.raises(InputError, match=text):
        mlda.fit(spoil(x))
    np.testing.assert_array_equal(mlda.components_[0], before)
    assert len(mlda.history_) == 1


def test_the_row_of_a_negative_count_is_named():
    x = histograms()
    x[17, 29] = -2.5
    with pytest.raises(InputError, match=r"got -2\.5 in row 17"):
        MLDA(K).fit(x)


def test_messages_of_other_classes_and_counts_of_other_words_are_errors(inputs):
    mlda = learnt(inputs)
    with pytest.raises(InputError, match="sent probabilities of 4 classes for n_components=3"):
        mlda.learn(inputs, Categorical.uniform(N, 4))
    with pytest.raises(InputError, match=r"fitted on modalities of \[30, 3\] columns, got \[30\]"):
        mlda.transform(histograms())
    with pytest.raises(NotFittedError, match="MLDA is not fitted yet"):
        MLDA(K).transform(histograms())


def test_another_number_of_topics_takes_effect_by_the_next_fit():
    mlda = MLDA(K, random_state=0, n_init=1).fit(histograms()).set_params(n_components=K + 1)
    with pytest.raises(InputError, match="fitted with n_components=3, which now is 4; call update"):
        mlda.transform(histograms())
    assert mlda.fit(histograms()).transform(histograms()).shape == (N, K + 1)


# -- features, and what rows are likely to hold ----------------------------------------------------


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_negative_features_count_as_none_if_wanted(form):
    features = histograms() - 2
    options = {"random_state": 0, "n_init": 2}
    mlda = MLDA(K, clip_negative=True, **options).fit(form(features))
    counts = np.maximum(features, 0)
    expected = MLDA(K, **options).fit(counts)
    np.testing.assert_array_equal(mlda.components_[0], expected.components_[0])
    np.testing.assert_array_equal(mlda.transform(form(features)), expected.transform(counts))
    assert features.min() == -2  # the caller's stay as they are
    with pytest.raises(InputError, match="features if clip_negative=True"):
        MLDA(K).fit(form(features))


def test_a_graph_of_features_clips_new_rows_too_and_after_loading(tmp_path):
    features = histograms() - 2
    mlda = MLDA(K, clip_negative=True, random_state=0).connect(Observation(features))
    graph = Graph(mlda.connect(*mlda.parents, Observation(histograms(seed=1), name="words")))
    graph.fit(1, verbose=False).save(tmp_path / "graph")
    new = histograms(6, seed=2) - 2, histograms(6, seed=3)
    loaded = Graph.load(tmp_path / "graph")
    probabilities = graph.predict(np.maximum(new[0], 0), new[1]).probabilities
    for own in (graph, loaded):
        np.testing.assert_array_equal(own.predict(*new).probabilities, probabilities)


def test_word_probabilities_are_the_topics_words_by_the_rows_topics(inputs):
    mlda = MLDA(K, random_state=0, n_init=1).fit([histograms(), histograms(seed=1)])
    for words, phi in zip(mlda.word_probabilities(), mlda.components_, strict=True):
        expected = np.einsum("nk,kw->nw", mlda.topic_proportions_, phi)
        np.testing.assert_allclose(words, expected, rtol=1e-12)
        np.testing.assert_allclose(words.sum(axis=1), 1, rtol=1e-12)
    new = [histograms(4, seed=2), histograms(4, seed=3)]
    for words, phi in zip(mlda.word_probabilities(new), mlda.components_, strict=True):
        np.testing.assert_allclose(words, mlda.transform(new) @ phi, rtol=1e-12)
    with pytest.raises(NotFittedError, match="MLDA is not fitted yet"):
        MLDA(K).word_probabilities()


def test_a_graph_writes_accuracy_and_word_probabilities(tmp_path):
    mlda = MLDA(K, labels=LABELS, inference="gibbs", max_iter=20, random_state=0)
    mlda.connect(Observation(histograms()), Observation(histograms(seed=1), name="other"))
    Graph(mlda).fit(2, out=tmp_path, verbose=False)
    folder = tmp_path / "module001_mlda"
    accuracies = [update["accuracy"] for update in mlda.history_]
    np.testing.assert_allclose(np.loadtxt(folder / "acc_learn.txt"), accuracies, rtol=1e-7)
    theta = np.loadtxt(folder / "Pdz_learn.txt")
    for number in range(2):  # eight digits are written
        words = np.loadtxt(folder / f"Pmdw[{number}]_learn.txt")
        np.testing.assert_allclose(words, mlda.word_probabilities()[number], rtol=1e-7)
        phi = np.loadtxt(folder / f"phi_{number}.txt")
        np.testing.assert_allclose(words, theta @ phi, rtol=1e-6)


def merged_in_one_class():
    """A mixture that holds two of the words' classes in its class 0, none in 2; and the words."""
    probabilities = np.eye(K)[np.where(LABELS == 2, 0, LABELS)] * 0.98 + 0.02 / K
    return [Categorical(np.log(probabilities)), Data(histograms())]


def test_each_topic_speaks_of_a_class_of_its_own():
    inputs = merged_in_one_class()
    mlda = learnt(inputs)
    classes, _ = down(mlda, inputs)
    assert accuracy(LABELS, mlda.topic_proportions_.argmax(axis=1)) == 1
    assert accuracy(LABELS, classes.log_prob.argmax(axis=1)) > 0.95  # by 60 words alone

    by_the_tables = learnt(inputs, match_classes=False)
    classes, _ = down(by_the_tables, inputs)
    assert set(classes.log_prob.argmax(axis=1)) == {0, 1}


def test_a_frozen_mixture_hears_of_the_classes_it_has():
    classes, words = merged_in_one_class()
    sender = Sender(classes)
    mlda = MLDA(K, random_state=0).connect(
        sender.connect(Observation(words.array)), Observation(words.array)
    )
    sender.update()
    mlda.update()
    assert set(mlda.posterior.down[0].log_prob.argmax(axis=1)) == {0, 1, 2}
    sender.freeze()
    mlda.update()
    assert set(mlda.posterior.down[0].log_prob.argmax(axis=1)) == {0, 1}


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["cvb0", "gibbs"])
def test_proportions_of_the_training_rows_are_those_that_transform_finds(inference):
    x = histograms(tokens=8)  # of few tokens, of which more than one mixture of topics is likely
    mlda = MLDA(K, inference=inference, n_init=1, max_iter=50, random_state=0).fit(x)
    np.testing.assert_allclose(mlda.topic_proportions_, mlda.transform(x), rtol=1e-12)


@pytest.mark.parametrize("inference", ["cvb0", "gibbs"])
@pytest.mark.parametrize("most", [1e17, 1e308])
def test_counts_beyond_counting_are_named(inference, most):
    x = histograms()
    mlda = MLDA(K, inference=inference, max_iter=5, n_init=1, random_state=0)
    with pytest.raises(
        InputError, match=r"MLDA: counts up to 1e\+\d+ \(row 7\) may add up to more"
    ):
        mlda.fit(np.where(np.arange(N)[:, None] == 7, most, x.astype(np.float64)))


def test_weights_of_rows_of_tiny_counts_are_finite():
    x = histograms()
    options = {"weights": [60.0], "n_init": 1, "random_state": 0}
    expected = MLDA(K, **options).fit(x).topic_proportions_
    tiny = MLDA(K, **options).fit(x.astype(np.float64) * 2.0**-1060)  # too small to divide 60 by
    np.testing.assert_allclose(tiny.topic_proportions_, expected, rtol=1e-3)  # of few digits


def test_learning_that_stops_at_max_iter_says_so():
    with pytest.warns(ConvergenceWarning, match="MLDA stopped at max_iter=2, before"):
        MLDA(K, max_iter=2, n_init=1, random_state=0).fit(histograms())


def test_counts_that_gibbs_sampling_rounds_to_none_are_refused():
    tiny = 1e-3 * histograms()
    with pytest.raises(InputError, match=r"rounds counts to integers, and the largest is 0\.0"):
        MLDA(K, inference="gibbs", max_iter=5, random_state=0).fit(tiny)
    MLDA(K, inference="gibbs", max_iter=5, weights=[60.0], random_state=0).fit(tiny)


# -- batches of a stream -----------------------------------------------------------------------


def test_a_batch_takes_the_place_of_its_share():
    """Of one topic, whose expected counts are the words' own, in closed form."""
    first, second = histograms(40), histograms(25, seed=5, tokens=30)
    counts, share = first.sum(axis=0), 0.4
    module = MLDA(1, topic_word_prior=0.5, random_state=0).fit(first)
    fitted = (counts + 0.5) / (counts.sum() + 0.5 * WORDS)
    np.testing.assert_allclose(module.components_[0][0], fitted)
    module.partial_fit(second, step_size=share)
    n_tokens = counts.sum() + second.sum()
    mixed = n_tokens * ((1 - share) * fitted + share * second.sum(axis=0) / second.sum())
    expected = (mixed + 0.5) / (n_tokens + 0.5 * WORDS)
    np.testing.assert_allclose(module.components_[0][0], expected, rtol=1e-6)


def test_batches_near_what_all_rows_teach():
    x, new = histograms(600), histograms(100, seed=9)
    whole, stream = MLDA(K, random_state=0).fit(x), MLDA(K, random_state=0)
    for start in range(0, 600, 60):
        stream.partial_fit(x[start : start + 60])
    assert stream.stream_["n_batches"] == 10
    assert stream.topic_proportions_.shape == (60, K)
    first = MLDA(K, random_state=0).fit(x[:60]).score(new)
    assert first < stream.score(new)
    assert stream.score(new) == pytest.approx(whole.score(new), abs=0.02)  # of 0.1 gained in all
    assert stream.perplexity(new) == pytest.approx(np.exp(-stream.score(new)))


@pytest.mark.parametrize(
    ("options", "batch", "step_size", "text"),
    [
        ({}, np.ones((5, WORDS + 1)), None, f"X has {WORDS + 1} features, but MLDA is expecting"),
        ({}, np.zeros((5, WORDS)), None, "all counts are 0 in the batch"),
        ({}, -np.ones((5, WORDS)), None, "Negative values in data"),
        ({}, np.ones((5, WORDS)), 1.5, "step_size must be a number > 0 and <= 1, got 1.5"),
        ({"labels": [0] * 5}, np.ones((5, WORDS)), None, "labels belong to fixed rows"),
    ],
)
def test_bad_batches_change_nothing(options, batch, step_size, text):
    module = MLDA(K, random_state=0).fit(histograms(30)).set_params(**options)
    before = module.components_[0].copy(), len(module.history_)
    with pytest.raises(InputError, match=text):
        module.partial_fit(batch, step_size=step_size)
    np.testing.assert_array_equal(module.components_[0], before[0])
    assert len(module.history_) == before[1]

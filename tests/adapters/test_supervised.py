"""Supervised: what it tells of targets, by hand; what it learns from; and what it steers."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from serkit import Graph, Observation
from serkit.errors import GraphError, InputError
from serkit.messages import Categorical, Data, Gaussian
from serkit.modules import AE, GMM, NetClassifier, NetRegressor, Supervised
from serkit.modules.adapters.supervised import gaussian_log_likelihood, residual_variance
from serkit.saving import format
from tests.helpers.modules import Sender
from tests.helpers.saved import assert_same

N, K = 90, 3


def source(message):
    return Sender(message).connect(Observation(np.zeros((message.n_rows, 1)))).update()


def certain(seed=0):
    """Certain classes, each row of one of the three: the message and the classes (N,)."""
    classes = np.random.default_rng(seed).permutation(np.arange(N) % K)
    with np.errstate(divide="ignore"):
        return Categorical(np.log(np.eye(K)[classes])), classes


def undecided(seed=0):
    return Categorical(log_softmax(2 * np.random.default_rng(seed).normal(size=(N, K)), axis=1))


def targets_of(classes, seed=1, flipped=0.2):
    """Targets 4, 5 and 6 for the three classes, some of them at random."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(K, size=len(classes))
    return 4 + np.where(rng.random(len(classes)) < flipped, drawn, classes)


def half(seed=2):
    return np.random.default_rng(seed).random(N) < 0.5


def taught(message, y, estimator=None, observed=None, **options):
    targets = Observation(np.reshape(y, (N, -1)), observed=observed, name="targets")
    options = {"random_state": 0} | options
    return Supervised(estimator, **options).connect(source(message), targets).update()


# -- what goes down ----------------------------------------------------------------------------


def test_likelihoods_of_certain_classes_are_the_frequencies_of_targets_in_them():
    message, classes = certain()
    y, known = targets_of(classes), half()
    down, _ = taught(message, y, LogisticRegression(C=1e8, tol=1e-10), known).messages_down
    counts = np.zeros((K, 3))
    np.add.at(counts, (classes[known], y[known] - 4), 1)
    frequencies = counts / counts.sum(axis=1, keepdims=True)  # p(c | k)
    expected = frequencies[:, y - 4].T  # (N, K)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(down.log_prob[known]), expected[known], 1e-3, 1e-5)


@pytest.mark.parametrize("estimator", [LogisticRegression(C=2.0), GaussianNB(var_smoothing=1.0)])
def test_message_is_the_estimators_own_probability_of_the_target(estimator):
    message, known = undecided(), half()
    y = targets_of(message.log_prob.argmax(axis=1))
    module = taught(message, y, estimator, known)
    alone = clone(estimator).fit(np.exp(message.log_prob)[known], y[known])
    p = alone.predict_proba(np.eye(K))[:, y - 4].T  # (N, K)
    down, predicted = module.messages_down
    np.testing.assert_allclose(
        np.exp(down.log_prob[known]), (p / p.sum(axis=1, keepdims=True))[known], rtol=1e-9
    )
    np.testing.assert_array_equal(predicted.array[:, 0], alone.predict(np.exp(message.log_prob)))
    assert not down.is_prior
    np.testing.assert_allclose(down.log_prob[~known], -np.log(K))
    np.testing.assert_array_equal(down.observed, known)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_regression_tells_the_density_of_targets_about_each_classs_mean(n_targets):
    """On certain classes least squares gives the classes' means, and pooled variances."""
    message, classes = certain()
    y = np.stack([classes**2, -classes], axis=1)[:, :n_targets].astype(float)
    y += np.random.default_rng(0).normal(size=y.shape)
    module = taught(message, y, LinearRegression(), task="regression")
    means = np.stack([y[classes == k].mean(axis=0) for k in range(K)])
    deviations = np.sqrt(((y - means[classes]) ** 2).mean(axis=0))
    density = norm.pdf(y[:, None], means, deviations).prod(axis=2)  # (N, K)
    down, predicted = module.messages_down
    expected = density / density.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(down.log_prob), expected, rtol=1e-6)
    np.testing.assert_allclose(predicted.array, means[classes], rtol=1e-4)


def test_log_likelihood_of_targets_differs_from_the_densitys_by_a_constant_a_row():
    rng = np.random.default_rng(0)
    y, means, variance = rng.normal(size=(5, 2)), rng.normal(size=(3, 2)), np.array([0.5, 2.0])
    found = gaussian_log_likelihood(y, means, variance)
    expected = norm.logpdf(y[:, None], means, np.sqrt(variance)).sum(axis=2)
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1])


def test_perfect_predictions_leave_a_small_variance():
    y = np.array([[1.0, 0.0], [3.0, 0.0]])
    np.testing.assert_allclose(residual_variance(y, y), [5e-6, 1e-6])


def test_impossible_targets_are_only_improbable():
    message, classes = certain()
    down, _ = taught(message, 4 + classes, DecisionTreeClassifier()).messages_down
    assert np.isfinite(down.log_prob).all()
    np.testing.assert_array_equal(down.log_prob.argmax(axis=1), classes)


def test_a_target_alone_tells_the_class():
    message, classes = certain()
    y = targets_of(classes, flipped=0)
    module = taught(message, y)
    missing = Categorical(message.log_prob, observed=np.zeros(N, dtype=bool))
    down, _ = module.infer([missing, Data(y[:, None])], None).down
    np.testing.assert_array_equal(down.log_prob.argmax(axis=1), classes)


def test_latents_are_told_nothing_and_predict_the_targets():
    z = np.random.default_rng(0).normal(size=(N, 2))
    y = np.stack([z.sum(axis=1), z[:, 0] - 2], axis=1)
    module = taught(Gaussian(z), y, LinearRegression(), half(), task="regression")
    down, predicted = module.messages_down
    assert down is None
    np.testing.assert_allclose(predicted.array, y, atol=1e-6)
    assert module.scores()["r2"] == pytest.approx(1.0)


# -- what it learns from -----------------------------------------------------------------------


def test_nothing_hangs_on_values_of_targets_that_are_not_known():
    message, known = undecided(), half()
    y = targets_of(message.log_prob.argmax(axis=1)).astype(float)
    modules = [taught(message, np.where(known, y, other), None, known) for other in (0, np.nan, 77)]
    for module in modules[1:]:
        for one, other in zip(module.messages_down, modules[0].messages_down, strict=True):
            assert_same(one, other)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_seeds_left_open_are_drawn_and_nothing_given_is_changed():
    estimator = MLPClassifier((4,), max_iter=2, solver="sgd")
    y = targets_of(undecided().log_prob.argmax(axis=1))
    one, same, other = (
        taught(undecided(), y, estimator, random_state=seed).estimator_ for seed in (0, 0, 1)
    )
    assert one.random_state == same.random_state != other.random_state
    assert_same(one.coefs_, same.coefs_)
    assert estimator.random_state is None
    assert not hasattr(estimator, "coefs_")


def test_accuracy_is_that_of_the_rows_with_known_targets():
    message, known = undecided(), half()
    y = targets_of(message.log_prob.argmax(axis=1))
    module = taught(message, y, None, known)
    predicted = module.messages_down[1].array[:, 0]
    assert module.scores() == {"accuracy": (predicted == y)[known].mean()}
    assert module.history_[-1]["accuracy"] == module.scores()["accuracy"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_torch_net_is_trained_saved_and_loaded(task, tmp_path):
    message, classes = certain()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Linear(K, K if task == "classification" else 1)
    kind = {"classification": NetClassifier, "regression": NetRegressor}[task]
    y = targets_of(classes, flipped=0) - 4
    estimator = kind(net, epochs=150, lr=0.05, precision="float32")
    module = taught(message, y, estimator, task=task, name="top")
    np.testing.assert_allclose(module.messages_down[1].array[:, 0], y, atol=0.1)
    np.testing.assert_array_equal(module.messages_down[0].log_prob.argmax(axis=1), classes)
    inputs = module.received_from_parents()
    again = clone(module)
    format.write(tmp_path / "state", module.get_state())
    again.set_state(format.read(tmp_path / "state"))
    for one, other in zip(again.infer(inputs, None).down, module.messages_down, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("task", "kind"), [("classification", NetClassifier), ("regression", NetRegressor)]
)
def test_a_bare_net_is_trained_as_its_task_asks(task, kind):
    message, classes = certain()
    net = nn.Linear(K, K if kind is NetClassifier else 1)
    assert type(taught(message, 4 + classes, net, task=task).estimator_) is kind


# -- in a graph --------------------------------------------------------------------------------


def graph_of(x, y, known, estimator=None, n_components=3):
    gmm = GMM(n_components, random_state=0, name="gmm").connect(Observation(x, name="rows"))
    targets = Observation(y[:, None], observed=known, name="targets")
    return Graph(Supervised(estimator, name="top", random_state=0).connect(gmm, targets))


def test_missing_targets_are_predicted_and_saved_graphs_predict_the_same(blobs, tmp_path):
    known = np.arange(len(blobs.x)) < 60
    graph = graph_of(blobs.x, blobs.labels, known, LogisticRegression(C=3.0))
    graph.fit(2, verbose=False)
    predicted = graph.reconstruct(blobs.x, None)["targets"]
    np.testing.assert_array_equal(predicted[:, 0], blobs.labels)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph")
    assert_same(predicted, loaded.reconstruct(blobs.x, None)["targets"])
    assert_same(graph["top"].estimator_, loaded["top"].estimator_)


def overlapping(seed=0):
    """Rows (150, 2) of two clusters that overlap, their classes, and every third row known."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(150) % 2)
    return rng.normal(size=(150, 2)) + 1.2 * y[:, None], y, np.arange(150) % 3 == 0


def test_known_targets_draw_their_rows_to_the_classes_they_speak_for():
    """Responsibilities r become r p(y | k) / E_r[p(y | k)], under which p(y | k) is larger."""
    x, y, known = overlapping()
    graph = graph_of(x, y, known, n_components=2).fit(1, verbose=False)
    gmm, top = graph["gmm"].freeze(), graph["top"]
    before = np.exp(gmm.messages_down[0].log_prob)
    gmm.update()
    after = np.exp(gmm.messages_down[0].log_prob)
    p = top.estimator_.predict_proba(np.eye(2))[:, y].T  # (N, K)
    expected = before * p / (before * p).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after[known], expected[known], atol=1e-9)
    np.testing.assert_allclose(after[~known], before[~known], atol=1e-12)
    gain = (p * (after - before)).sum(axis=1)[known]
    assert gain.min() > -1e-12
    assert gain.max() > 0.01


def test_targets_of_some_rows_improve_the_clusters_of_the_others():
    """Where rows spread widest within the classes, likelihood alone prefers another split."""
    accuracies = {False: [], True: []}
    for seed in range(3):
        x, y, known = overlapping(seed)
        x = np.column_stack([x[:, 0] + y, 9 * (x[:, 1] - 1.2 * y)])
        for steered, found in accuracies.items():
            gmm = GMM(2, random_state=0, n_init=3).connect(Observation(x))
            top = Supervised(random_state=0)
            top.connect(gmm, Observation(y[:, None], observed=known))
            for _ in range(5):
                gmm.update()
                if steered:
                    top.update()
            predicted = top.update().messages_down[1].array[:, 0]
            found.append((predicted == y)[~known].mean())
    assert np.mean(accuracies[True]) > np.mean(accuracies[False]) + 0.1


def test_ae_takes_no_word_from_it_and_the_graph_is_checked(digits):
    ae = AE(2, epochs=1, random_state=0).connect(Observation(digits.x))
    top = Supervised(random_state=0).connect(ae, Observation(digits.labels[:, None]))
    graph = Graph(top).fit(1, verbose=False)
    assert top.messages_down[0] is None
    assert set(graph.reconstruct(digits.x, None)) == {"observation", "observation2"}


# -- what cannot work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"task": "guess"}, "unknown task='guess'; expected one of 'classification', 'regression'"),
        (
            {"estimator": Ridge()},
            "task='classification' needs a scikit-learn classifier.*got Ridge",
        ),
        (
            {"estimator": KMeans},
            "needs a scikit-learn classifier or a torch.nn.Module as estimator, got <class",
        ),
        (
            {"estimator": LogisticRegression(), "task": "regression"},
            "task='regression' needs a scikit-learn regressor.*got LogisticRegression",
        ),
        ({"estimator": RidgeClassifier()}, "RidgeClassifier has no predict_proba"),
        (
            {"estimator": LogisticRegression(C=-1.0)},
            r"LogisticRegression\.fit failed: The 'C' parameter",
        ),
        ({"estimator": nn.Linear(K, 9)}, r"net must return \(N, 3\) for 3 classes"),
        (
            {"random_state": -1},
            "random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
    ],
)
def test_arguments_that_cannot_work_lose_nothing(options, text):
    message, classes = certain()
    module = taught(message, 4 + classes, name="top")
    before = module.get_state()
    module.set_params(**options)
    with pytest.raises(InputError, match=rf"Supervised 'top': .*{text}"):
        module.update()
    assert_same(before, module.get_state())


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.arange(N) / 2, r"classes must be whole numbers, one per row.*got 0\.5; number them"),
        (np.zeros((N, 2)), "classes must be whole numbers, one per row.*got 2 columns"),
        (
            np.zeros(N),
            r"two different targets or more to learn from, got 90 known targets: \[0\.\]",
        ),
    ],
)
def test_targets_that_teach_nothing_are_told(y, text):
    with pytest.raises(InputError, match=text):
        taught(undecided(), y)


@pytest.mark.parametrize("parents", ["one", "three", "order", "two observations"])
def test_parents_are_a_module_and_an_observation_of_targets(parents):
    module, targets = source(undecided()), Observation(np.zeros((N, 1)), name="targets")
    rows = Observation(np.zeros((N, 1)), name="rows")
    given = {
        "one": [module],
        "three": [module, rows, targets],
        "order": [targets, module],
        "two observations": [rows, targets],
    }[parents]
    with pytest.raises(GraphError, match=r"expected two parents.*connect\(gmm, Observation"):
        Supervised().connect(*given).update()


def test_a_target_never_learnt_is_an_error(blobs):
    graph = graph_of(blobs.x, blobs.labels, None).fit(1, verbose=False)
    with pytest.raises(InputError, match=r"Supervised 'top': targets \[7.0\] were not among those"):
        graph.reconstruct(blobs.x[:2], [[7], [1]])


# -- sequences -------------------------------------------------------------------------------------

LENGTHS = [20, 9, 31, 30]


class Remembering(nn.Module):
    """Outputs of each step by its own input and by those of the steps before."""

    def __init__(self, n_outputs):
        super().__init__()
        self.memory, self.last = nn.GRU(K, 8, batch_first=True), nn.Linear(8, n_outputs)

    def forward(self, x):
        return self.last(self.memory(x)[0])


def net_of(kind, n_outputs, **options):
    torch.manual_seed(0)
    options = {"epochs": 40, "batch_size": 4, "lr": 3e-2, "precision": "float32"} | options
    return kind(Remembering(n_outputs), **options)


def delayed(classes, lengths=LENGTHS):
    """Each row's class one step later in its sequence; its first step has class 0."""
    late = np.roll(classes, 1)
    late[np.cumsum([0, *lengths[:-1]])] = 0
    return late


def by_brute_force(supervised, message, log_prob):
    """Log p(targets | k) of each row and class, a sequence and a changed row at a time: (N, K)."""
    x, start, rows = np.exp(message.log_prob), 0, []
    for length in supervised.lengths:
        for n in range(length):
            for k in range(K):
                sequence = x[start : start + length].copy()
                sequence[n] = np.eye(K)[k]
                rows.append(log_prob(sequence[None], slice(start, start + length)))
        start += length
    return log_softmax(np.reshape(rows, (N, K)), axis=1)


@pytest.mark.parametrize("observed", [None, half()])
def test_a_class_is_told_by_all_targets_of_its_sequence(observed):
    y = 4 + delayed(certain()[1])
    supervised = taught(undecided(), y, net_of(NetClassifier, 3), observed, lengths=LENGTHS)
    net, known = supervised.estimator_, np.ones(N, bool) if observed is None else observed

    def log_prob(sequence, rows):
        padded = np.zeros((1, max(LENGTHS), K))
        padded[:, : sequence.shape[1]] = sequence
        steps = net.predict_proba(padded)[0, : sequence.shape[1]]
        return np.log(steps[np.arange(len(steps)), y[rows] - 4])[known[rows]].sum()

    expected = by_brute_force(supervised, undecided(), log_prob)
    down = supervised.messages_down[0]
    np.testing.assert_allclose(down.log_prob, expected, atol=1e-4)  # the net works in float32
    assert down.observed is None


def test_numbers_are_told_by_sequences_too():
    y = np.stack([delayed(certain()[1]), certain()[1]], axis=1) + 0.5
    options = {"task": "regression", "lengths": LENGTHS}
    supervised = taught(certain()[0], y, net_of(NetRegressor, 2), half(), **options)
    net, scale = supervised.estimator_, np.sqrt(supervised.noise_variance_)

    def log_prob(sequence, rows):
        padded = np.zeros((1, max(LENGTHS), K))
        padded[:, : sequence.shape[1]] = sequence
        means = net.predict(padded)[0, : sequence.shape[1]]
        return norm.logpdf(y[rows], means, scale)[half()[rows]].sum()

    expected = by_brute_force(supervised, certain()[0], log_prob)
    np.testing.assert_allclose(supervised.messages_down[0].log_prob, expected, atol=1e-3)
    found = supervised.messages_down[1].array[half()]
    np.testing.assert_allclose(((found - y[half()]) ** 2).mean(axis=0), scale**2, rtol=1e-3)


def test_what_came_before_is_learnt_only_from_sequences():
    message, classes = certain()
    alone = taught(message, delayed(classes))
    together = taught(
        message, delayed(classes), net_of(NetClassifier, 3, epochs=150), lengths=LENGTHS
    )
    assert together.scores()["accuracy"] > 0.95
    assert alone.scores()["accuracy"] < 0.6  # chance is 1 / 3


def test_groups_are_sequences_wherever_their_rows_stand():
    message, classes = certain()
    groups = np.random.default_rng(1).permutation(np.repeat([7, 8, 9, 10], LENGTHS))
    mixed = np.empty(N, dtype=int)  # which row stands where; those of a group in their order
    mixed[np.argsort(groups, kind="stable")] = np.arange(N)
    net, y = net_of(NetClassifier, 3), delayed(classes)
    by_lengths = taught(message, y, net, lengths=LENGTHS)
    by_groups = taught(Categorical(message.log_prob[mixed]), y[mixed], net, groups=groups)
    expected = by_lengths.messages_down[0].log_prob[mixed]
    np.testing.assert_array_equal(by_groups.messages_down[0].log_prob, expected)


def test_graphs_of_sequences_are_saved_and_predict_other_ones(tmp_path):
    rows = np.eye(K)[certain()[1]] + 0.1 * np.random.default_rng(0).normal(size=(N, K))
    gmm = GMM(K, random_state=0).connect(Observation(rows))
    targets = Observation(delayed(certain()[1])[:, None], observed=half(), name="targets")
    supervised = Supervised(net_of(NetClassifier, 3), lengths=LENGTHS, random_state=0)
    graph = Graph(supervised.connect(gmm, targets)).fit(2, verbose=False)
    graph.save(tmp_path / "graph")
    custom = {"supervised.estimator": net_of(NetClassifier, 3)}
    loaded = Graph.load(tmp_path / "graph", custom=custom)
    for each in (graph, loaded):
        each["supervised"].set_params(lengths=[4, 40])
    new = np.tile(rows, (2, 1))[:44]
    found = [each.reconstruct(new, None)["targets"] for each in (graph, loaded)]
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (44, 1)
    with pytest.raises(InputError, match="lengths add up to 44, but there are 5 rows"):
        graph.reconstruct(rows[:5], None)


@pytest.mark.parametrize(
    ("estimator", "options", "text"),
    [
        (
            None,
            {"lengths": LENGTHS},
            "lengths make sequences of rows, which need a torch.nn.Module",
        ),
        (NetClassifier(), {"lengths": LENGTHS}, "sequences need a net of their own"),
        (nn.Linear(K, 3), {"lengths": [1, 2]}, "lengths add up to 3, but there are 90 rows"),
        (nn.Linear(K, 3), {"lengths": [N], "groups": np.zeros(N)}, "lengths or groups, not both"),
        (nn.Linear(K, 4), {"lengths": LENGTHS}, r"net must return \(N, 31, 3\) for 3 classes, got"),
    ],
)
def test_sequences_that_cannot_work_are_refused(estimator, options, text):
    message, classes = certain()
    with pytest.raises(InputError, match=text):
        taught(message, classes, estimator, **options)

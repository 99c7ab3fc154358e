"""Saving, loading and resuming whole graphs."""

import copy
import warnings
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler
from torch import nn

import serkit
from serkit import Graph, Module, Observation, Posterior
from serkit.datasets import load_digits
from serkit.errors import InputError, NotReadyError, SavedFileError
from serkit.messages import Deferred
from serkit.modules import (
    AE,
    GMM,
    VAE,
    GMMClassifier,
    MarkovModel,
    NetClassifier,
    RandomAffine,
    Sklearn,
    Supervised,
)
from serkit.saving import format, snapshot
from tests.helpers.modules import KMeans
from tests.helpers.saved import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")
ALL = load_digits()
IMAGES, LABELS = ALL.images[:80], ALL.labels[:80]
NET = {"epochs": 3, "batch_size": 30, "lr": 5e-3, "hidden_sizes": (16,), "random_state": 0}
RICH = {"scheduler": "onecycle", "validation_fraction": 0.2, "augment": RandomAffine()}


def make(images=IMAGES, leaf=None, **options):
    vae = VAE(3, **{**NET, **options}).connect(Observation(images, name="images"))
    leaf = GMM(4, labels=LABELS, n_init=2, random_state=1) if leaf is None else leaf
    return Graph(leaf.connect(vae))


def states(graph):
    modules = [node for node in graph.modules if isinstance(node, Module)]
    return copy.deepcopy([module.get_state() for module in modules])


def assert_same_graph(one, other):
    assert list(one.names) == list(other.names)
    assert_same(states(one), states(other))
    assert_same(one.history, other.history, "history")
    assert_same(one.first_latents, other.first_latents, "first_latents")


@pytest.fixture
def saved(tmp_path):
    """A trained graph whose encoder is frozen, and the file it was saved to."""
    graph = make().fit(2, verbose=False)
    graph["vae"].freeze()
    graph.save(tmp_path / "graph.safetensors")
    return graph, tmp_path / "graph.safetensors"


def nets(width):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 6))
    return {"encoder": encoder, "decoder": nn.Linear(3, 64)}


# -- save and load -----------------------------------------------------------------------------


def test_loaded_graph_is_the_same(saved):
    graph, path = saved
    loaded = Graph.load(path)
    assert_same_graph(graph, loaded)
    new = ALL.images[80:90]
    assert_same(graph.predict(new).messages, loaded.predict(new).messages)
    np.testing.assert_array_equal(graph.reconstruct(new), loaded.reconstruct(new))
    np.testing.assert_array_equal(graph.sample(3, component=2), loaded.sample(3, component=2))
    loaded.save(path)
    assert_same_graph(graph, Graph.load(path))


def assert_trains_on_as_if_never_saved(graph, path):
    graph.save(path)
    loaded = Graph.load(path, data=[module.data for module in graph.observations])
    assert_same_graph(graph, loaded)
    assert str(graph) == str(loaded)
    assert_same_graph(graph.fit(1, verbose=False), loaded.fit(1, verbose=False))
    return loaded


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({}, 0),
        ({}, 2),
        (RICH, 2),
        ({"leaf": KMeans(3, random_state=0)}, 2),
        ({"random_state": None}, 2),
    ],
    ids=["untrained", "plain", "rich", "user's", "no seed"],
)
def test_loaded_graph_trains_on_as_if_never_saved(tmp_path, options, rounds):
    graph = make(**copy.deepcopy(options))
    for _ in range(rounds):
        graph.fit(1, verbose=False)
    assert_trains_on_as_if_never_saved(graph, tmp_path / "graph")


def test_several_parents_and_children_keep_their_order(tmp_path):
    rows = Observation(IMAGES[:, 4:], name="low"), Observation(IMAGES[:, :4], name="up")
    vaes = [VAE(2, **NET).connect(r) for r in rows]
    late = GMM(2, name="late", random_state=0)
    early = GMM(3, name="early", random_state=0).connect(vaes[0])
    with pytest.warns(UserWarning, match="already has GMM 'early'"):
        late.connect(vaes[1], vaes[0])
    graph = Graph(late, early).fit(1, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*already has")  # nobody is told again when loading
        loaded = assert_trains_on_as_if_never_saved(graph, tmp_path / "graph")
    for one, other in zip(graph.modules, loaded.modules, strict=True):
        assert [m.name for m in one.parents] == [m.name for m in other.parents]
        assert [m.name for m in one.children] == [m.name for m in other.children]


def test_code_is_given_again_when_loading(tmp_path):
    def weight(update, epoch):
        return 0.5 * update

    with torch.random.fork_rng():
        code = {**nets(12), "alpha": weight, "augment": torch.sqrt}
        graph = make(**code).fit(2, verbose=False)
        again = {f"vae.{name}": value for name, value in {**code, **nets(12)}.items()}
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[IMAGES], custom=again)
    assert_same_graph(graph.fit(1, verbose=False), loaded.fit(1, verbose=False))
    again |= {"vea.decoder": 1}
    with pytest.raises(InputError, match=r"custom= names vea\.decoder, which the file does not"):
        Graph.load(tmp_path / "graph", custom=again)
    del again["vea.decoder"], again["vae.encoder"]
    text = r"vae was made with encoder=.*Sequential, .* custom=\{'vae\.encoder': \.\.\.\}"
    with pytest.raises(InputError, match=text):
        Graph.load(tmp_path / "graph", custom=again)


def test_code_that_only_training_needs_may_stay_out(tmp_path):
    graph = make(alpha=lambda update, epoch: 0.5).fit(1, verbose=False)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[IMAGES])
    new = ALL.images[80:90]
    assert_same(graph.predict(new).messages, loaded.predict(new).messages)
    loaded.save(tmp_path / "again")
    before, again = states(graph), Graph.load(tmp_path / "again", data=[IMAGES])
    assert_same(before, states(again))
    text = r"vae was made with alpha=.*lambda.*, .* custom=\{'vae\.alpha': \.\.\.\}"
    with pytest.raises(InputError, match=text):
        again.fit(1, verbose=False)
    assert_same(before, states(again))


def test_code_of_modules_without_names_goes_by_the_graphs_names(tmp_path):
    alphas = [lambda update, epoch: 0.1, lambda update, epoch: 0.2]
    rows = Observation(IMAGES)
    graph = Graph(GMM(2, random_state=0).connect(*(VAE(2, alpha=a).connect(rows) for a in alphas)))
    graph.save(tmp_path / "graph")
    custom = {"vae.alpha": alphas[0], "vae2.alpha": alphas[1]}
    loaded = Graph.load(tmp_path / "graph", custom=custom)
    assert [loaded[name].alpha for name in ("vae", "vae2")] == alphas


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([IMAGES[::-1]], SavedFileError, "Observation 'images' was saved with other rows, 80 of"),
        ([IMAGES[:70]], SavedFileError, r"was saved with other rows, 80 of shape \(8, 8\)"),
        ([IMAGES.astype(float)], SavedFileError, "was saved with other rows"),
        ([], InputError, "data= must hold rows for every observation"),
        ([IMAGES, IMAGES], InputError, "data= .* 1 in all"),
        ([np.full((80, 8, 8), np.nan)], InputError, "NaN or infinity in 80 of 80 rows"),
    ],
    ids=["order", "number", "dtype", "none", "too many", "nan"],
)
def test_other_rows_are_refused(saved, data, error, text):
    with pytest.raises(error, match=text):
        Graph.load(saved[1], data=data)


def test_loaded_without_rows_it_says_how_to_train_on(saved):
    loaded = Graph.load(saved[1])
    before = states(loaded)
    for train in (lambda: loaded.fit(1, verbose=False), lambda: loaded["vae"].update()):
        with pytest.raises(NotReadyError, match=r"Graph\.load\(path, data=\[rows\]\)"):
            train()
    assert_same(before, states(loaded))


def test_where_a_class_is_defined_does_not_matter(saved):
    """Files name what users import, so that moving a source file breaks none."""
    kinds = [entry["kind"] for entry in format.read(saved[1])["nodes"].values()]
    assert kinds == ["serkit.Observation", "serkit.modules.VAE", "serkit.modules.GMM"]


def test_what_nobody_asked_for_is_not_computed_to_be_saved(saved):
    graph, path = saved
    for kept in (graph, Graph.load(path)):
        assert isinstance(kept["vae"].posterior.down[0], Deferred)
    assert_same(graph["vae"].messages_down, Graph.load(path)["vae"].messages_down)


# -- what can be saved, and what cannot ---------------------------------------------------------


def supervised(estimator):
    """A graph of blobs, a mixture and an estimator that learns the blobs' numbers."""
    gmm = GMM(2, random_state=0).connect(Observation(BLOBS))
    return Graph(Supervised(estimator, name="top", random_state=0).connect(gmm, KNOWN))


def needs_skops():
    """Skip the test where scikit-learn's estimators cannot be saved."""
    pytest.importorskip("skops", reason="scikit-learn's estimators are saved by skops")


BLOBS = np.random.default_rng(0).normal(size=(40, 2)) + 6 * (np.arange(40) % 2)[:, None]
KNOWN = Observation((np.arange(40) % 2)[:, None], name="numbers")
ALIKE = make_pipeline(StandardScaler(), RandomForestClassifier(2))


@pytest.mark.parametrize(
    "estimator",
    [None, ALIKE, GMMClassifier(1, random_state=0), NetClassifier(nn.Linear(2, 2), epochs=1)],
    ids=["default", "forest", "serkit's", "net"],
)
def test_whatever_is_written_is_read(tmp_path, estimator):
    if estimator is None or estimator is ALIKE:
        needs_skops()
    whole = supervised(estimator).fit(2, verbose=False)
    supervised(estimator).fit(1, checkpoint=tmp_path / "checkpoint", verbose=False)
    again = supervised(estimator).fit(2, checkpoint=tmp_path / "checkpoint", verbose=False)
    assert_same(whole.predict(BLOBS, None).messages, again.predict(BLOBS, None).messages)


class Unknown(LogisticRegression):
    """An estimator of a user's, which no file may name."""


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (Unknown(), r"Supervised 'top': estimator is a Unknown, of which skops .* fit without fil"),
        (make_pipeline(GMMClassifier(1)), r"'top': estimator is a Pipeline, .*GMMClassifier\)"),
        (make_pipeline(FunctionTransformer(lambda x: x), Unknown()), r"'top': .*lambda"),
    ],
    ids=["user's", "in a pipeline", "function"],
)
@pytest.mark.parametrize("files", ["checkpoint", "out"])
def test_what_no_file_can_hold_is_refused_before_training(tmp_path, estimator, text, files):
    needs_skops()
    graph = supervised(estimator)
    with pytest.raises(InputError, match=text):
        graph.fit(1, **{files: tmp_path / "files"}, verbose=False)
    assert graph.history == []
    assert not graph["gmm"].history_
    graph.check()
    graph.fit(1, verbose=False)  # without files it works


def test_what_was_learnt_and_no_file_can_hold_is_told_after_a_round(tmp_path):
    needs_skops()
    spline = Sklearn(SplineTransformer(3), name="spline").connect(Observation(BLOBS))
    with pytest.raises(InputError, match="'spline': estimator_ is a SplineTransformer, of which"):
        Graph(spline).fit(9, out=tmp_path / "out", verbose=False)
    assert len(spline.history_) == 1


def day(number):
    return date(2024, 2, 28) + timedelta(number)


GROUPS = {
    "dates": [day(i // 10) for i in range(40)],
    "times": np.datetime64("2024-01-01T00:00") + np.arange(40) // 10,
    "some missing": np.where(np.arange(40) < 20, np.nan, np.arange(40) // 30),
    "big-endian": np.arange(40, dtype=">i8") // 10,
    "decimals": [Decimal(i // 10) for i in range(40)],  # of which a file has a hash
    "complex": np.arange(40) // 10 * 1j,
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_groups_of_any_kind_are_known_again(tmp_path, groups):
    def chain(groups):
        gmm = GMM(2, random_state=0).connect(Observation(BLOBS))
        return Graph(MarkovModel(groups=groups, random_state=0).connect(gmm))

    path, whole = tmp_path / "checkpoint", chain(groups).fit(2, verbose=False)
    chain(groups).fit(1, checkpoint=path, verbose=False)
    assert_same_graph(whole, chain(copy.copy(groups)).fit(2, checkpoint=path, verbose=False))
    with pytest.raises(SavedFileError, match=r"checkpoint: saved with groups=.* in MarkovModel"):
        chain(groups[1:] + groups[:1] if isinstance(groups, list) else np.roll(groups, 1)).fit(
            3, checkpoint=path, verbose=False
        )


def test_odd_values_are_asked_for_where_they_are_needed(tmp_path):
    groups = GROUPS["decimals"]
    gmm = GMM(2, random_state=0).connect(Observation(BLOBS))
    graph = Graph(MarkovModel(groups=groups).connect(gmm)).fit(1, verbose=False)
    graph.save(tmp_path / "graph")
    text = r"markovmodel was made with groups=list .*, which is not in .*\{'markovmodel\.groups': "
    with pytest.raises(InputError, match=text):
        Graph.load(tmp_path / "graph").predict(BLOBS)
    loaded = Graph.load(tmp_path / "graph", custom={"markovmodel.groups": groups})
    assert_same(graph.predict(BLOBS).messages, loaded.predict(BLOBS).messages)


# -- a module by itself --------------------------------------------------------------------------

ALONE = {
    "vae": (VAE(2, **NET), IMAGES),
    "ae with code": (AE(2, alpha=lambda update, epoch: 0.5, **NET), IMAGES),
    "gmm": (GMM(2, random_state=0, labels=["a", "b"] * 20), BLOBS),
    "classifier": (GMMClassifier(1, random_state=0), BLOBS, np.arange(40) % 2),
    "net": (NetClassifier(filters=(2,), epochs=1, random_state=0), IMAGES, LABELS),
}


@pytest.mark.parametrize(("module", "data"), [(m, d) for m, *d in ALONE.values()], ids=ALONE)
def test_what_was_fitted_by_itself_is_saved_by_itself(tmp_path, module, data):
    fitted = clone(module).fit(*data)
    serkit.save(fitted, tmp_path / "file")
    loaded = serkit.load(tmp_path / "file")
    assert type(loaded) is type(fitted)
    assert_same(format.learnt_by(fitted), format.learnt_by(loaded))
    uses = [name for name in ("encode", "predict", "transform") if hasattr(fitted, name)]
    for use in uses:
        assert_same(getattr(fitted, use)(data[0]), getattr(loaded, use)(data[0]))
    assert uses
    if "alpha" not in loaded.get_params() or not callable(loaded.alpha):
        assert_same(format.learnt_by(fitted.fit(*data)), format.learnt_by(loaded.fit(*data)))


def test_a_module_out_of_a_graph_leaves_it_behind(saved, tmp_path):
    graph, _ = saved
    serkit.save(graph["vae"], tmp_path / "vae")
    loaded = serkit.load(tmp_path / "vae")
    assert (loaded.parents, loaded.children, loaded.posterior, loaded.frozen) == (
        (),
        (),
        None,
        True,
    )
    np.testing.assert_array_equal(loaded.encode(IMAGES), graph["vae"].encode(IMAGES))
    again = Graph(GMM(2, random_state=0).connect(loaded.connect(Observation(IMAGES))))
    again.fit(1, verbose=False)
    np.testing.assert_array_equal(again["vae"].message_up.mean, graph["vae"].message_up.mean)


def test_code_of_a_module_by_itself_is_given_again(tmp_path):
    with torch.random.fork_rng():
        vae = VAE(3, name="pixels", **nets(12), **NET).fit(IMAGES)
        serkit.save(vae, tmp_path / "vae")
        custom = {f"pixels.{name}": net for name, net in nets(12).items()}
    loaded = serkit.load(tmp_path / "vae", custom=custom)
    np.testing.assert_array_equal(vae.encode(IMAGES), loaded.encode(IMAGES))
    with pytest.raises(InputError, match=r"pixels was made with encoder=.*'pixels\.encoder': "):
        serkit.load(tmp_path / "vae")


def test_graphs_and_modules_are_told_apart(saved, tmp_path):
    graph, path = saved
    with pytest.raises(InputError, match=r"serkit\.save: expected a module .*Graph has a method"):
        serkit.save(graph, tmp_path / "graph")
    with pytest.raises(SavedFileError, match=r"it holds a graph; read it with serkit\.Graph\.load"):
        serkit.load(path)
    Graph(Observation(IMAGES)).save(tmp_path / "alone")
    with pytest.raises(SavedFileError, match="it holds a graph"):
        serkit.load(tmp_path / "alone")
    serkit.save(graph["gmm"], path)
    with pytest.raises(SavedFileError, match=r"it holds no graph; read it with serkit\.load"):
        Graph.load(path)


# -- damage ------------------------------------------------------------------------------------


def damaged(tree):
    """Trees that no graph is saved as, each with one change, and what that is."""

    def changed(*keys, value):
        copied = copy.deepcopy(tree)
        *path, last = keys
        inner = copied
        for key in path:
            inner = inner[key] if isinstance(inner, dict) else vars(inner)[key]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
        return f"{keys}: {value!r:.30}", copied

    for key in tree:
        for value in (None, 3, [3], {"x": 3}):
            of_before = key == "latents_by_round" and value is None
            if not (of_before or (key == "stopped_before" and value in (None, 3))):
                yield changed(key, value=value)
    for name, entry in tree["nodes"].items():
        for key in entry:
            for value in (None, 3, ["x"], {"x": 3}):
                if (name, key, type(value)) != ("images", "state", dict):  # which nobody asks for
                    yield changed("nodes", name, key, value=value)
    for key in ("posterior", "frozen", "nets_", "history_"):
        for value in (None, 3, "text", Posterior()):
            if value is not None or key in ("posterior", "frozen"):
                yield changed("nodes", "vae", "state", key, value=value)
    yield changed("nodes", "vae", "state", "learn", value=3)
    for method in ("update", "learn", "nowhere", "history_"):
        down = (Deferred(np.ones((80, 3)), method),)
        yield changed("nodes", "vae", "state", "posterior", value=Posterior(None, down))
    yield changed("nodes", "vae", "parents", value=["gmm"])
    yield changed("nodes", "gmm", "parents", value=["vae", "vae"])
    yield changed("nodes", "vae", "arguments", "n_latents", value=3)


def is_told(use, path):
    try:
        use(path)
    except SavedFileError as error:
        return str(error).startswith(f"{path}: ")
    return False


def test_damage_under_a_right_checksum_is_told(saved, tmp_path):
    path, untold = tmp_path / "damaged", []
    for damage, tree in damaged(format.read(saved[1])):
        format.write(path, tree)
        for use in (Graph.load, lambda path: snapshot.resume(path, make()._run())):
            untold += [] if is_told(use, path) else [damage]
    assert untold == []


# -- checkpoint --------------------------------------------------------------------------------


def test_finished_run_does_nothing_when_called_again(tmp_path):
    path = tmp_path / "checkpoint"
    graph = make().fit(2, checkpoint=path, verbose=False)
    whole = path.read_bytes()
    for again in (make(), graph):
        assert_same_graph(graph, again.fit(2, checkpoint=path, verbose=False))
    assert path.read_bytes() == whole
    assert_same_graph(make().fit(3, checkpoint=path, verbose=False), graph.fit(1, verbose=False))


def test_run_that_a_rule_stopped_has_finished(tmp_path):
    for _ in range(2):
        rule = {"callbacks": [lambda graph, record: record["round"] == 2], "verbose": False}
        graph = make().fit(5, checkpoint=tmp_path / "checkpoint", **rule)
        assert len(graph.history) == 2


class KMeansWithMore(KMeans):
    """A later version of a user's class, with an argument that older files do not have."""

    def __init__(self, n_components, *, more=1, random_state=None):
        super().__init__(n_components, random_state=random_state)
        self.more = more


KMeansWithMore.__name__ = "KMeans"


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ({}, {"lr": 1e-3}, r"saved with lr=0\.005 in VAE, which now has lr=0\.001"),
        ({}, {"images": IMAGES[::-1]}, "fingerprint=.* in Observation 'images'"),
        (
            {},
            {"leaf": GMM(5, labels=LABELS)},
            "saved with n_components=4 in GMM, which now has n_components=5",
        ),
        ({}, {"leaf": KMeans(4)}, "a graph of Observation, VAE, GMM; this one has .*VAE, KMeans"),
        ({}, {"augment": RandomAffine(degrees=3)}, "saved with augment=None"),
        (
            {"leaf": KMeans(4, random_state=0)},
            {"leaf": KMeansWithMore(4, random_state=0)},
            "KMeans",
        ),
        (nets(9), nets(5), "VAE"),
    ],
    ids=["number", "data", "components", "class", "augment", "version", "nets"],
)
def test_checkpoint_of_another_graph_is_refused(tmp_path, first, second, text):
    path = tmp_path / "checkpoint"
    first, second = ({k: copy.deepcopy(v) for k, v in d.items()} for d in (first, second))
    make(**first).fit(1, checkpoint=path, verbose=False)
    whole = path.read_bytes()
    graph = make(**second)
    before = states(graph)
    with pytest.raises(SavedFileError, match=f"checkpoint: .*{text}"):
        graph.fit(2, checkpoint=path, verbose=False)
    assert_same(before, states(graph))
    assert graph.history == []
    assert path.read_bytes() == whole


@pytest.mark.parametrize("use", [Graph.load, lambda path: make().fit(3, checkpoint=path)])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_damaged_file_is_named(saved, use, share):
    path = saved[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SavedFileError, match=r"graph\.safetensors: not a whole safetensors file"):
        use(path)


def test_damaged_checkpoint_leaves_the_graph_as_it_is(saved):
    graph, path = saved
    before, altered = states(graph), bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(SavedFileError, match=r"graph\.safetensors: its contents do not match"):
        graph.fit(3, checkpoint=path, verbose=False)
    assert_same(before, states(graph))

"""What `fit(out=...)` writes: text files, parameters, history and pictures."""

import json
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from safetensors import safe_open

from serkit import Graph, Module, Observation, Posterior, plots
from serkit.datasets import load_digits
from serkit.errors import OutputError, SavedFileError, SerkitError
from serkit.graph import results
from serkit.messages import Data
from serkit.modules import AE, GMM, MLDA, VAE, MarkovModel
from serkit.plots.style import Picture
from serkit.saving import format
from tests.helpers.modules import KMeans, uniform_rows
from tests.helpers.pictures import titles
from tests.helpers.saved import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")
IMAGES, LABELS = (values[:60] for values in load_digits())
NET = {"epochs": 2, "batch_size": 30, "hidden_sizes": (16,), "random_state": 0}
EXACT = {"rtol": 1e-7, "atol": 1e-30}  # eight digits are written


def make(encoder=VAE, latent_dim=3, labels=LABELS, rows=IMAGES):
    low = encoder(latent_dim, **NET).connect(Observation(rows))
    return Graph(GMM(2, labels=labels, n_init=1, random_state=0).connect(low))


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests of the other files: drawing takes seconds."""
    monkeypatch.setattr(results, "pictures", lambda graph: iter(()))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A graph trained for two rounds, and the folder of what it left behind."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "vae_gmm"
    return make().fit(2, out=folder, out_each_round=True, verbose=False), folder


def test_files_hold_what_the_modules_learnt(written):
    graph, folder = written
    vae, gmm = graph["vae"], graph["gmm"]
    curve = [list(entry.values()) for entry in vae.loss_curve_]
    expected = {
        "module001_vae/z_learn.txt": vae.message_up.mean,
        "module001_vae/x_hat_learn.txt": vae.reconstruct(IMAGES).reshape(60, 64),
        "module001_vae/loss.txt": curve,
        "module002_gmm/class_learn.txt": gmm.responsibilities_.argmax(axis=1),
        "module002_gmm/Pdz_learn.txt": gmm.responsibilities_,
        "module002_gmm/mu_learn.txt": gmm.means_,
        "module002_gmm/acc_learn.txt": [r["updates"][1]["accuracy"] for r in graph.history],
        "module002_gmm/log_likelihood.txt": gmm.log_likelihood_,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(np.loadtxt(folder / name), values, **EXACT, err_msg=name)
    found = {str(p.relative_to(folder)) for p in folder.glob("module*/*.txt")}
    assert found == set(expected)


def test_classes_are_written_as_integers(written):
    text = (written[1] / "module002_gmm" / "class_learn.txt").read_text().split()
    assert set(text) <= {"0", "1"}


def test_parameters_can_be_read_with_and_without_serkit(written):
    graph, folder = written
    for number, name in ((1, "vae"), (2, "gmm")):
        file = folder / f"module{number:03d}_{name}" / "parameters.safetensors"
        assert_same(graph[name].get_state(), graph[name].get_state() | format.read(file))
        with safe_open(file, framework="numpy") as tensors:
            arrays = [tensors.get_tensor(key) for key in tensors.keys()]  # noqa: SIM118
        learnt = (
            graph[name].nets_["encoder"][1].weight.detach() if name == "vae" else graph[name].means_
        )
        assert any(np.array_equal(array, learnt) for array in arrays)


def test_history_is_json(written):
    graph, folder = written
    assert json.loads((folder / "history.json").read_text()) == graph.history


def test_each_round_has_its_folder(written):
    graph, folder = written
    rounds = sorted(path.name for path in folder.glob("round*") if path.is_dir())
    assert rounds == ["round001", "round002"]
    first = np.loadtxt(folder / "round001" / "module001_vae" / "z_learn.txt")
    np.testing.assert_allclose(first, graph.first_latents["vae"], **EXACT)
    last = folder / "round002"
    for path in last.rglob("*.txt"):
        assert path.read_text() == (folder / path.relative_to(last)).read_text()
    one = make().fit(1, verbose=False)["gmm"]
    np.testing.assert_allclose(
        np.loadtxt(folder / "round001" / "module002_gmm" / "mu_learn.txt"), one.means_, **EXACT
    )


def test_rounds_are_written_only_where_asked(tmp_path, no_pictures):
    make().fit(1, out=tmp_path / "run", verbose=False)
    folders = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert folders == ["module001_vae", "module002_gmm"]


PICTURES = {
    "graph",
    "rounds",
    "losses_vae",
    "log_likelihood_gmm",
    "latents_vae_before",
    "latents_vae_after",
    "confusion",
    "reconstructions_observation",
    "samples_gmm_observation",
}


OF_A_TABLE = PICTURES - {"reconstructions_observation", "samples_gmm_observation"}
OF_A_TABLE |= {"profiles_observation"}


def alone(module):
    """The graph of a module without its children."""
    for child in module.children:
        child.disconnect()
    return Graph(module)


def pictures(folder):
    """Names of the pictures in a folder, each checked to be a PNG of more than one colour."""
    for path in folder.glob("*.png"):
        pixels = imread(path)
        assert pixels.ndim == 3, path
        assert pixels.std() > 0, path
    return {path.stem for path in folder.glob("*.png")}


def test_pictures_are_drawn(written):
    assert pictures(written[1]) == PICTURES | {"evolution"}


def test_chains_and_topics_have_pictures_of_all_updates(tmp_path):
    words = np.random.default_rng(0).poisson(3, (40, 4))
    gmm = GMM(2, labels=[0, 1] * 20, random_state=0).connect(Observation(words))
    chain = MarkovModel(labels=[0, 1] * 20, random_state=0).connect(gmm)
    Graph(chain).fit(2, out=tmp_path / "chain", verbose=False)
    found = pictures(tmp_path / "chain")
    assert {"transitions_markovmodel", "log_likelihood_markovmodel"} <= found
    assert "evolution" not in found  # nothing has latents
    mlda = MLDA(2, random_state=0).connect(Observation(words, name="seen"), Observation(words))
    Graph(mlda).fit(1, out=tmp_path / "topics", verbose=False)
    assert {"topics_mlda", "log_likelihood_mlda"} <= pictures(tmp_path / "topics")


def test_log_likelihoods_are_drawn_of_each_round(tmp_path):
    graph = make().fit(2, verbose=False)
    curves = graph["gmm"].log_likelihoods_
    (axis,) = graph.pictures()["log_likelihood_gmm"].axes
    drawn = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == len(curves[0])]
    np.testing.assert_array_equal(drawn[0], curves[0])
    assert (axis.get_xlabel(), titles(axis.xaxis)) == ("round", ["1", "2"])


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (
            lambda: make(AE, labels=None),
            {name.replace("vae", "ae") for name in PICTURES - {"confusion"}},
        ),
        (lambda: make(latent_dim=1, rows=uniform_rows(60, 16)), OF_A_TABLE),
        (lambda: make(latent_dim=2, rows=uniform_rows(60, 5)), OF_A_TABLE),
        (lambda: alone(make()["vae"]), {n for n in PICTURES if "gmm" not in n} - {"confusion"}),
    ],
    ids=["ae, no labels", "one latent", "two latents", "vae alone"],
)
def test_every_picture_there_is_data_for(tmp_path, graph, expected):
    graph().fit(1, out=tmp_path, verbose=False)
    assert pictures(tmp_path) == expected


def test_gmm_on_images_draws_without_a_decoder(tmp_path):
    flat = Observation(IMAGES.reshape(60, 64), image_shape=(8, 8))
    graph = Graph(GMM(2, random_state=0).connect(flat)).fit(1, out=tmp_path, verbose=False)
    graph.save(tmp_path / "graph")
    (again,) = Graph.load(tmp_path / "graph", data=[flat.data]).observations
    assert again.image_shape == (8, 8)
    expected = {"graph", "rounds", "log_likelihood_gmm", "samples_gmm_observation"}
    expected |= {"reconstructions_observation"}  # by the means of the components
    assert pictures(tmp_path) == expected


def test_several_observations_have_pictures_of_their_own(tmp_path):
    rows = {"top": IMAGES[:, :4], "bottom": IMAGES[:, 4:]}
    vaes = [VAE(2, **NET).connect(Observation(r, name=n)) for n, r in rows.items()]
    Graph(GMM(2, random_state=0).connect(*vaes)).fit(1, out=tmp_path, verbose=False)
    for name in rows:
        assert {f"reconstructions_{name}", f"samples_gmm_{name}"} <= pictures(tmp_path)
    folders = sorted(path.name for path in tmp_path.glob("module*"))
    assert folders == ["module001_vae", "module002_vae2", "module003_gmm"]


def test_images_beside_other_data_have_their_pictures(tmp_path):
    seen = np.arange(60) > 3  # also of rows whose image is missing
    images = Observation(IMAGES, observed=seen, name="images")
    counts = Observation(np.random.default_rng(0).integers(0, 9, (60, 5)), name="counts")
    gmm = GMM(2, random_state=0).connect(VAE(2, **NET).connect(images))
    Graph(MLDA(2, random_state=0).connect(gmm, counts)).fit(1, out=tmp_path, verbose=False)
    found = {name for name in pictures(tmp_path) if name.startswith(("recon", "samples"))}
    assert found == {"reconstructions_images", "samples_mlda_images"}


def test_what_cannot_be_drawn_or_written_stops_nothing_else(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(plots, "confusion", fails)
    monkeypatch.setattr(plots.graph, "rounds", lambda history: Picture(figsize=(1, 1e9)))
    reporter = Reporter(name="own").connect(Observation(IMAGES))
    reporter.learn = lambda *_: setattr(reporter, "means_", np.zeros((2, 2, 2))) or {}
    graph = make()
    both = Graph(graph["gmm"], reporter)
    with pytest.warns(UserWarning, match="results without") as caught:
        both.fit(1, out=tmp_path, verbose=False)
    told = [str(w.message) for w in caught if "results without" in str(w.message)]
    files = {text.split()[2].rstrip(",") for text in told}
    assert files == {"confusion.png", "rounds.png", "module002_own/mu_learn.txt"}
    assert any("failed (ZeroDivisionError: on purpose)" in text for text in told)
    assert pictures(tmp_path) >= PICTURES - {"confusion", "rounds"} - {"samples_gmm_observation"}
    assert json.loads((tmp_path / "history.json").read_text()) == both.history


class Reporter(Module):
    """A user's module that reports NumPy numbers, and learns means, which are written."""

    sends_up = Data

    def learn(self, inputs, from_children):
        self.means_ = np.arange(3)
        return {"loss": np.float32(0.5), "count": np.int64(3), "each": np.arange(2)}

    def infer(self, inputs, from_children):
        return Posterior(up=inputs[0], down=(None,))


@pytest.mark.parametrize(
    "leaf", [Reporter(), KMeans(2, random_state=0)], ids=lambda leaf: type(leaf).__name__
)
def test_graph_with_a_user_written_module_writes_its_files(tmp_path, leaf):
    Graph(leaf.connect(Observation(IMAGES, name="images"))).fit(1, out=tmp_path, verbose=False)
    name = type(leaf).__name__.lower()
    assert (tmp_path / f"module001_{name}" / "parameters.safetensors").exists()
    assert {"graph", "rounds"} <= pictures(tmp_path)
    (update,) = json.loads((tmp_path / "history.json").read_text())[0]["updates"]
    assert update["module"] == name
    if isinstance(leaf, Reporter):
        assert (update["loss"], update["count"], update["each"]) == (0.5, 3, [0, 1])
        np.testing.assert_array_equal(
            np.loadtxt(tmp_path / "module001_reporter/mu_learn.txt"), range(3)
        )


class Odd(Reporter):
    """Attributes named as the library's own, of other kinds."""

    def learn(self, inputs, from_children):
        self.components_, self.loss_curve_ = [[1, 2], [3, 4]], np.array([1.0, 2.0])
        return super().learn(inputs, from_children)

    def word_probabilities(self):
        raise ValueError("not of these rows")


def test_attributes_of_other_kinds_do_not_cost_the_results(tmp_path):
    graph = Graph(Odd().connect(Observation(IMAGES, name="images")))
    with pytest.warns(UserWarning, match="word probabilities of Odd.*not of these rows"):
        graph.fit(1, out=tmp_path, verbose=False)
    assert (tmp_path / "history.json").exists()
    assert {"graph", "rounds"} <= pictures(tmp_path)


def test_frozen_module_leaves_its_results_too(tmp_path, no_pictures):
    graph = make().fit(1, verbose=False)
    graph["vae"].freeze()
    graph.fit(1, out=tmp_path, verbose=False)
    latents = np.loadtxt(tmp_path / "module001_vae" / "z_learn.txt")
    np.testing.assert_allclose(latents, graph["vae"].message_up.mean, **EXACT)


@pytest.mark.parametrize("option", ["out", "checkpoint"])
@pytest.mark.parametrize("below", ["file/below", "file/far/below"])
def test_place_that_cannot_be_written_is_told_before_training(tmp_path, option, below):
    (tmp_path / "file").write_text("not a folder")
    graph = make()
    with pytest.raises(OutputError, match=f"cannot write to {tmp_path}/file"):
        graph.fit(1, verbose=False, **{option: tmp_path / below})
    assert not graph["vae"].history_
    assert (tmp_path / "file").read_text() == "not a folder"


def test_folder_that_is_a_file_is_told_before_training(tmp_path):
    (tmp_path / "out").write_text("mine")
    graph = make()
    with pytest.raises(OutputError, match=r"cannot write to .*out: File exists"):
        graph.fit(1, out=tmp_path / "out", verbose=False)
    assert not graph["vae"].history_


@pytest.mark.parametrize("place", ["folder", "protected"])
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_checkpoint_that_cannot_be_written_is_told_before_training(tmp_path, place, restarts):
    path = tmp_path / place
    last = path if restarts == 1 else tmp_path / f"{place}.run0"
    last.mkdir() if place == "folder" else last.write_bytes(b"mine")
    last.chmod(0o555)
    graph = make()
    error = SavedFileError if place == "protected" else OutputError
    with pytest.raises(error, match=f"{last}"):
        graph.fit(1, checkpoint=path, restarts=restarts, verbose=False)
    assert not graph["vae"].history_


def test_a_read_only_checkpoint_is_told_before_training_unless_nothing_is_left_to_do(tmp_path):
    path, graph = tmp_path / "checkpoint", make()
    graph.fit(1, checkpoint=path, verbose=False)
    path.chmod(0o444)
    graph.fit(1, checkpoint=path, verbose=False)
    with pytest.raises(OutputError, match=f"cannot write to {path}: it is read-only"):
        graph.fit(2, checkpoint=path, verbose=False)
    assert len(graph.history) == 1
    with pytest.raises(OutputError, match=f"cannot write to {path}: it is read-only"):
        graph.save(path)


@contextmanager
def disk_of(n_bytes):
    """Within it no file can be larger, as on a full disk; a stand-in that needs no disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("option", ["out", "checkpoint"])
def test_a_full_disk_is_told_before_training(tmp_path, option):
    graph = make()
    text = f"cannot write to {tmp_path / 'run'}: File too large"
    with disk_of(60 * 3 * 4 - 1), pytest.raises(OutputError, match=text):  # latents take more
        graph.fit(1, verbose=False, **{option: tmp_path / "run"})
    assert not graph["vae"].history_
    assert [*tmp_path.glob("*.tmp")] == []


def test_a_disk_that_fills_up_loses_nothing_learnt(tmp_path, no_pictures):
    graph, whole = make(), make().fit(2, verbose=False)
    with disk_of(2000), pytest.raises(OutputError, match=r"checkpoint: File too large"):
        graph.fit(2, checkpoint=tmp_path / "checkpoint", verbose=False)
    assert len(graph.history) == 1
    assert [*tmp_path.iterdir()] == []
    graph.fit(2, checkpoint=tmp_path / "checkpoint", verbose=False)
    assert_same(graph["gmm"].get_state(), whole["gmm"].get_state())


def test_results_that_cannot_be_written_do_not_keep_the_rest_from_it(tmp_path, no_pictures):
    folder, graph = tmp_path / "out", make()
    (folder / "module001_vae" / "z_learn.txt").mkdir(parents=True)
    (folder / "module002_gmm").write_text("mine")
    text = r"z_learn.txt: something other .*; nor to \d more files there; what was learnt is intact"
    with pytest.raises(OutputError, match=text):
        graph.fit(1, out=folder, verbose=False)
    assert len(graph.history) == 1
    assert json.loads((folder / "history.json").read_text()) == graph.history
    np.testing.assert_allclose(
        np.loadtxt(folder / "module001_vae" / "loss.txt")[:, 2],
        [epoch["loss"] for epoch in graph["vae"].loss_curve_],
    )
    assert (folder / "module002_gmm").read_text() == "mine"


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_one_run_and_what_is_the_users(tmp_path, monkeypatch):
    drawn = ["rounds", "confusion"]
    monkeypatch.setattr(results, "pictures", lambda run: [(n, Figure((1, 1))) for n in drawn])
    folder, other = tmp_path / "out", tmp_path / "other"
    make().fit(3, out=folder, out_each_round=True, verbose=False)
    users = [
        "notes.txt",
        "round002/module001_vae/mine.txt",
        "round009/z_learn.txt",
        "losses_me.png",
    ]
    for name in users:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "round003" / "module001_vae" / "loss.txt").unlink()
    (folder / "round003" / "module001_vae" / "loss.txt").symlink_to(folder / "notes.txt")
    drawn.pop()
    make().fit(1, out=folder, out_each_round=True, verbose=False)
    make().fit(1, out=other, out_each_round=True, verbose=False)
    link = "round003/module001_vae/loss.txt"
    assert files_of(folder) == files_of(other) | {*users, link}
    assert all((folder / name).read_text() == "mine" for name in [*users, link])
    assert not (folder / "round003" / "module002_gmm").exists()


def test_a_run_that_goes_on_keeps_its_rounds(tmp_path, no_pictures):
    folder, path = tmp_path / "out", tmp_path / "checkpoint"
    options = {"out": folder, "out_each_round": True, "verbose": False}
    graph = make().fit(1, checkpoint=path, **options)
    make().fit(2, checkpoint=path, **options)
    graph.fit(2, **options)
    rounds = sorted(entry.name for entry in folder.glob("round*"))
    assert rounds == ["round001", "round002", "round003"]
    for damage in ("{", "3", '{"/etc/hosts": 3}', '{"../checkpoint": "x"}'):
        (folder / "files.json").write_text(damage)
        make().fit(1, **options)
        assert path.exists()
        assert (folder / "round003").exists()  # as nobody knows whose it is


def test_relative_folders_lie_in_the_working_directory(tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    make().fit(1, out="runs/one", verbose=False)
    assert (Path("runs") / "one" / "history.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["a/b", "../up", 3])
def test_name_that_makes_no_folder_is_told_before_training(tmp_path, name):
    graph = make()
    graph["vae"].name = name
    with pytest.raises(SerkitError, match=f"name.*{name!r}"):
        Graph(graph["gmm"]).fit(1, out=tmp_path / "run", verbose=False)
    assert not graph.modules[1].history_

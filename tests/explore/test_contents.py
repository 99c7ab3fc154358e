"""What pages are written of, and what is refused, without a browser."""

import base64
import gzip
import json
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_wine
from torch import nn

import serkit as srk
from serkit import Graph, Observation
from serkit.colours import COLOURS
from serkit.command import main
from serkit.errors import InputError, NotReadyError
from serkit.explore import page
from serkit.modules import GMM, MLDA, VAE, GMMClassifier, MultinomialVAE, Sklearn
from serkit.plots.projection import by_neighbours

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(90, 4)) + 6 * np.eye(4)[np.arange(90) % 3]
LABELS = np.array(["red", "green", "blue"])[np.arange(90) % 3]


def mixture(rows=ROWS, **options):
    return Graph(GMM(3, random_state=0, **options).connect(Observation(rows)))


def trained(graph):
    return graph.fit(1, verbose=False)


def contents(path):
    text = path.read_text("utf-8")
    return json.loads(re.search(r'id="contents">(.*?)</script>', text)[1])


def column(graph, name):
    found = {entry["name"]: entry for entry in graph["columns"]}
    return found[name]


def test_a_table_has_its_columns_names_and_sliders(tmp_path):
    wine = load_wine(as_frame=True)
    gmm = GMM(3, labels=wine.target, covariance_type="diag", random_state=0)
    graph = trained(Graph(gmm.connect(Observation(wine.data))))
    made = contents(graph.explore(tmp_path / "page.html"))
    (space,) = made["spaces"]
    assert space["names"] == list(wine.data.columns)
    assert space["sliders"] == list(range(13))
    assert made["observations"][0]["kind"] == "table"
    assert space["decoder"]["layers"] == []  # rows themselves
    low, high = np.percentile(wine.data.to_numpy(), [0.5, 99.5], axis=0)
    np.testing.assert_allclose(space["low"], low, rtol=1e-5)
    np.testing.assert_allclose(space["high"], high, rtol=1e-5)


def test_clusters_have_the_colours_of_their_labels(tmp_path):
    graph = trained(mixture(labels=LABELS))
    made = contents(graph.explore(tmp_path / "page.html"))
    clusters, labels = column(made, "cluster (gmm)"), column(made, "label")
    assert labels["names"] == ["blue", "green", "red"]
    for cluster, label in srk.metrics.matching(LABELS, graph["gmm"].posterior.clusters).items():
        colour = labels["colours"][labels["names"].index(label)]
        assert clusters["colours"][cluster] == colour


def test_columns_are_classes_or_numbers(tmp_path):
    columns = {"word": LABELS, "few": np.arange(90) % 7, "many": np.arange(90), "x": ROWS[:, 0]}
    made = contents(trained(mixture()).explore(tmp_path / "page.html", columns=columns))
    kinds = {name: column(made, name)["kind"] for name in columns}
    assert kinds == {"word": "class", "few": "class", "many": "number", "x": "number"}


def test_of_many_rows_some_are_shown_always_the_same(tmp_path):
    graph = trained(mixture())
    pages = [graph.explore(tmp_path / f"{n}.html", max_rows=20) for n in range(2)]
    assert pages[0].read_text("utf-8") == pages[1].read_text("utf-8")
    made = contents(pages[0])
    assert (made["n_rows"], made["n_all"]) == (20, 90)


def test_modules_that_generate_linearly_decode_in_the_page(tmp_path):
    from sklearn.decomposition import PCA

    pca = Sklearn(PCA(2), random_state=0).connect(Observation(ROWS))
    graph = trained(Graph(GMM(3, random_state=0).connect(pca)))
    (layer,) = contents(graph.explore(tmp_path / "page.html"))["spaces"][0]["decoder"]["layers"]
    assert (layer["kind"], layer["shape"]) == ("linear", [4])


def test_a_classifier_has_classes_and_components(tmp_path):
    classifier = GMMClassifier(2, labels=LABELS, random_state=0).connect(Observation(ROWS))
    made = contents(trained(Graph(classifier)).explore(tmp_path / "page.html"))
    mixture = made["spaces"][0]["mixture"]
    assert mixture["names"] == ["blue", "green", "red"]
    assert mixture["owners"] == [0, 0, 1, 1, 2, 2]


def test_new_rows_are_shown_as_the_graph_infers_them(tmp_path):
    graph = trained(mixture())
    new = ROWS[:7] + 0.1
    made = contents(graph.explore(tmp_path / "page.html", rows=[new], labels=LABELS[:7]))
    assert made["n_rows"] == 7
    assert column(made, "label")["names"] == ["blue", "green", "red"]


def test_markup_in_names_is_text(tmp_path):
    path = trained(mixture()).explore(
        tmp_path / "page.html", title="</title><b>&", columns={"</script><b>": LABELS}
    )
    text = path.read_text("utf-8")
    assert "&lt;/title&gt;&lt;b&gt;&amp;" in text
    assert "</script><b>" not in text
    assert column(contents(path), "</script><b>")["names"] == ["blue", "green", "red"]


class Places:
    """In the place of UMAP, which few have installed: the first dimensions."""

    def __init__(self, n_components, n_neighbors, init, random_state, n_jobs):
        self.n, self.n_neighbors, self.init = n_components, n_neighbors, init

    def fit_transform(self, z):
        assert self.n_neighbors < len(z), "UMAP warns"
        assert self.init == "random" or len(z) > self.n + 1, "UMAP fails"
        return z[:, : self.n]


def test_umap_is_there_where_it_is_installed(tmp_path, monkeypatch):
    umap = ModuleType("umap")
    umap.UMAP, umap.__spec__ = Places, ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", umap)
    assert by_neighbours(np.eye(4), "umap", 3).shape == (4, 3)
    made = contents(trained(mixture()).explore(tmp_path / "page.html"))
    last = made["spaces"][0]["projections"][-1]
    assert (last["name"], last["flat"][1], last["deep"][1]) == ("UMAP", 2 * 90, 3 * 90)


def test_classes_are_points_where_nothing_has_latents(tmp_path):
    vae = MultinomialVAE(3, hidden_sizes=(4,), epochs=1, random_state=0).connect(
        Observation(ROWS.clip(0, 1))
    )
    path = trained(Graph(vae)).explore(tmp_path / "page.html")
    (space,) = contents(path)["spaces"]
    assert (space["is_classes"], space["names"]) == (True, ["P(0)", "P(1)", "P(2)"])
    assert (space["encoder"], space["mixture"]) == (None, None)
    (layer,) = space["decoder"]["layers"]
    assert (layer["kind"], layer["shape"]) == ("linear", [4])
    topics = MLDA(2, n_init=1, random_state=0).connect(Observation(np.abs(ROWS.round())))
    (space,) = contents(trained(Graph(topics)).explore(path))["spaces"]
    assert (space["n_dims"], space["decoder"]) == (2, None)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_rows": 0}, "Graph.explore: max_rows must be an integer >= 1, got 0"),
        ({"title": 3}, "Graph.explore: title must be a string, got 3"),
        ({"columns": [1]}, "Graph.explore: columns must be a Mapping, got [1]"),
        (
            {"columns": {"x": [1, 2]}},
            "columns['x'] must have a value for each of 90 rows, got shape",
        ),
        ({"columns": {"x": [np.nan] * 90}}, "columns['x'] must be finite numbers or classes"),
        ({"labels": [1, 2]}, "labels must have a value for each of 90 rows"),
        ({"rows": []}, "must have an array for each of the observations observation, got 0"),
        ({"rows": [ROWS[:, :2]]}, "expected rows of shape (4,), as in training, got (2,)"),
        ({"runtime": "."}, "runtime='.' holds no onnxruntime-web (ort.wasm.bundle.min.mjs and"),
        ({"rows": 3}, "Graph.explore: rows must be a Sequence, got 3"),
    ],
)
def test_odd_arguments_are_refused(tmp_path, options, text):
    with pytest.raises(InputError, match=re.escape(text)):
        trained(mixture()).explore(tmp_path / "page.html", **options)
    assert not (tmp_path / "page.html").exists()


def test_a_path_is_wanted():
    with pytest.raises(InputError, match=r"^Graph\.explore: path must be a path"):
        trained(mixture()).explore(3)


def test_a_graph_that_has_not_learnt_is_refused(tmp_path):
    with pytest.raises(NotReadyError, match=r"^GMM has learnt nothing yet: call fit first"):
        mixture().explore(tmp_path / "page.html")


def test_a_graph_without_rows_says_how_to_give_them(tmp_path):
    trained(mixture()).save(tmp_path / "graph")
    graph = Graph.load(tmp_path / "graph")
    with pytest.raises(NotReadyError, match=r"Observation: it was loaded without its rows.*rows="):
        graph.explore(tmp_path / "page.html")


def test_a_net_with_other_layers_is_refused_by_name(tmp_path):
    decoder = nn.Sequential(nn.Linear(2, 4), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    vae = VAE(2, decoder=decoder, likelihood="gaussian", epochs=1, name="odd", random_state=0)
    graph = trained(Graph(GMM(3, random_state=0).connect(vae.connect(Observation(ROWS)))))
    text = r"^VAE 'odd'.decoder: the page has no layer like 1 \(GroupNorm\); .*runtime="
    with pytest.raises(InputError, match=text):
        graph.explore(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_without_plotly_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"Graph.explore needs plotly.*\.\[interactive\]"):
        trained(mixture()).explore(tmp_path / "page.html")


# -- colours ---------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes (2009), severity 1, of linear RGB.
VISIONS = {
    "usual": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(colours, vision):
    """CIELAB of colours "#rrggbb" as seen by a vision."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(vision), 0, 1)
    to_xyz = np.array(
        [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    )
    x, y, z = (linear @ to_xyz.T / [0.9505, 1, 1.0888]).T
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("vision", VISIONS)
def test_ten_colours_are_told_apart_and_twenty_classes_by_symbols_too(vision):
    seen = lab(COLOURS, VISIONS[vision])
    distances = np.linalg.norm(seen[:, None] - seen, axis=2) + 1e9 * np.eye(10)
    assert distances.min() > 25  # about ten times what is just seen
    assert len(set(page.SYMBOLS)) >= 2


# -- the command -----------------------------------------------------------------------------------


def test_the_command_writes_the_page_of_a_saved_graph(tmp_path, capsys):
    trained(mixture()).save(tmp_path / "graph.safetensors")
    np.save(tmp_path / "rows.npy", ROWS)
    np.savez(tmp_path / "labels.npz", LABELS)
    arguments = [
        "explore",
        str(tmp_path / "graph.safetensors"),
        "--rows",
        str(tmp_path / "rows.npy"),
    ]
    labels = ["--labels", str(tmp_path / "labels.npz"), "--title", "three", "--max-rows", "30"]
    assert main([*arguments, *labels]) == 0
    path = tmp_path / "graph.html"
    assert capsys.readouterr().out == f"{path}\n"
    assert "<title>three</title>" in path.read_text("utf-8")
    made = contents(path)
    assert (made["n_rows"], made["n_all"]) == (30, 90)
    assert column(made, "label")["names"] == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("missing.npy", "missing.npy: no array can be read from it .*numpy.save writes one"),
        ("graph.safetensors", "graph.safetensors: no array can be read from it"),
        ("narrow.npy", r"expected rows of shape \(4,\), as in training, got \(2,\)"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(tmp_path, capsys, rows, text):
    trained(mixture()).save(tmp_path / "graph.safetensors")
    np.save(tmp_path / "narrow.npy", ROWS[:, :2])
    arguments = [str(tmp_path / "graph.safetensors"), "--rows", str(tmp_path / rows)]
    assert main(["explore", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"serkit: .*{text}", line)


# -- several modalities ----------------------------------------------------------------------------


def test_one_modality_lets_expect_the_other(tmp_path):
    counts = RNG.poisson(1 + 8 * np.eye(12)[np.arange(90) % 3])
    seen = Observation(ROWS.reshape(90, 2, 2), name="seen")
    heard = Observation(counts, name="heard")
    vae = VAE(2, likelihood="gaussian", epochs=30, batch_size=30, lr=1e-2, random_state=0)
    gmm = GMM(3, random_state=0).connect(vae.connect(seen))
    graph = Graph(MLDA(3, random_state=0).connect(gmm, heard)).fit(2, verbose=False)
    made = contents(graph.explore(tmp_path / "page.html"))
    pairs = {(entry["from"], entry["of"]): entry for entry in made["expected"]}
    assert set(pairs) == {("seen", "heard"), ("heard", "seen")}
    kinds = [entry["kind"] for entry in made["observations"]]
    assert kinds == ["image", "counts"]
    blob = re.search(r'id="blob">(.*?)</script>', (tmp_path / "page.html").read_text("utf-8"))[1]
    values = unpacked(blob, pairs["seen", "heard"]["values"]).reshape(90, 12)
    expected = graph.reconstruct(seen.data, None)["heard"]
    np.testing.assert_allclose(values, expected, atol=2e-3 * expected.std())
    told = next(entry for entry in made["classes"] if entry["module"] == "gmm")["told"]
    said = graph["mlda"].messages_down[0].log_prob
    np.testing.assert_allclose(unpacked(blob, told["mlda"]).reshape(90, 3), np.exp(said), atol=1e-3)


def unpacked(blob, reference):
    """An array of a page, read without its own code."""
    content = gzip.decompress(base64.b85decode(blob.replace(",", "<")))
    start, n, code = reference
    planes = np.frombuffer(content, np.uint8)[start : start + n * int(code[1])].reshape(-1, n)
    kind = {"f2": ">f2", "u1": "u1"}.get(code, ">f4")
    padded = np.vstack([planes, np.zeros((np.dtype(kind).itemsize - len(planes), n), np.uint8)])
    return np.ascontiguousarray(padded.T).view(kind).ravel().astype(float)

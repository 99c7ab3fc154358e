"""Graph.export: files that say what the graph says, a script that runs them, what is refused."""

import functools
import os
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

import serkit.modules
from serkit import Graph, Module, Observation, Part, Posterior
from serkit.errors import GraphError, InputError, NotReadyError, OutputError
from serkit.graph import exporting
from serkit.messages import Data
from serkit.modules import (
    AE,
    GMM,
    MLDA,
    VAE,
    Features,
    GMMClassifier,
    MarkovModel,
    MultinomialVAE,
    NetClassifier,
    NetRegressor,
    Sklearn,
    Supervised,
)

N, K = 40, 3
RNG = np.random.default_rng(0)
CLASSES = np.arange(N) % K
IMAGES = RNG.random((N, 8, 8)).astype(np.float32) * 0.3 + 0.3 * (CLASSES == 1)[:, None, None]
TABLE = RNG.normal(size=(N, 5)) + 3 * CLASSES[:, None]  # float64
NEW_IMAGES, NEW_TABLE = RNG.random((7, 8, 8)).astype(np.float32), RNG.normal(size=(7, 5)) * 3
NETS = {"hidden_sizes": (8,), "epochs": 1, "batch_size": 20, "random_state": 0}


@pytest.fixture(scope="module", autouse=True)
def registry_made_once():
    """The table of ONNX's operators, which torch makes anew in every export, for 2 s of each."""
    from torch.onnx._internal.exporter import _registration as registration

    before, original = (
        registration.ONNXRegistry.from_torchlib,
        vars(registration.ONNXRegistry)["from_torchlib"],
    )
    registration.ONNXRegistry.from_torchlib = staticmethod(functools.cache(before))
    yield
    registration.ONNXRegistry.from_torchlib = original


def fitted(*leaves):
    return Graph(*leaves).fit(2, verbose=False)


def two_modalities():
    """A convolutional VAE with batch normalisation and an AE with learnt noise below a mixture."""
    image, table = Observation(IMAGES, name="image"), Observation(TABLE, name="a table")
    conv = {"net": "conv", "filters": (4, 6), "batch_norm": True}
    vae = VAE(2, **conv, **NETS).connect(image)
    ae = AE(3, likelihood="gaussian", noise_variance="learnt", **NETS).connect(table)
    gmm = GMM(K, labels=CLASSES, use_variance=True, random_state=0)
    return fitted(gmm.connect(vae, ae))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    graph, folder = two_modalities(), tmp_path_factory.mktemp("exported")
    graph.export(folder)
    return graph, folder


def run_onnx(path, **tensors):
    session = onnxruntime.InferenceSession(path)
    given = {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}
    names = [tensor.name for tensor in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def code_lines(text):
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def expected_of(graph, *rows):
    """Latents and class probabilities of new rows by the graph, by the names of tensors."""
    made = {}
    for name, message in graph.predict(*rows).messages.items():
        for content in ("mean", "var", "probabilities"):
            if hasattr(message, content) or (content[0] == "p" and hasattr(message, "log_prob")):
                made[f"{name}_{content}"] = exporting.content_of(message, content)
    return {name: values for name, values in made.items() if values is not None}


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 7])
def test_files_take_any_number_of_rows_and_say_what_the_graph_says(exported, n_rows):
    graph, folder = exported
    images, table = NEW_IMAGES[:n_rows], NEW_TABLE[:n_rows]
    expected = expected_of(graph, images, table)
    made = run_onnx(folder / "vae_encoder.onnx", image=images)
    made |= run_onnx(folder / "ae_encoder.onnx", **{"a table": table.astype(np.float32)})
    made |= run_onnx(folder / "gmm_posterior.onnx", **made)
    assert made.keys() == expected.keys()
    for name, values in made.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)
    rows = run_onnx(folder / "vae_decoder.onnx", **{"vae_mean": made["vae_mean"]})
    np.testing.assert_allclose(
        rows["vae_reconstruction"], graph["vae"].decode(made["vae_mean"]), atol=1e-5
    )


def test_the_number_of_rows_is_no_number_in_the_files(exported):
    _, folder = exported
    for path in folder.glob("*.onnx"):
        session = onnxruntime.InferenceSession(path)
        tensors = [*session.get_inputs(), *session.get_outputs()]
        assert {tensor.shape[0] for tensor in tensors} == {"batch"}


def test_the_script_runs_without_torch_and_serkit(exported, tmp_path):
    graph, folder = exported
    for name in ("torch", "serkit", "onnx"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not needed')")
    np.save(tmp_path / "image.npy", NEW_IMAGES)
    np.save(tmp_path / "table.npy", NEW_TABLE)
    command = [sys.executable, folder / "predict.py", "image=image.npy", "a table=table.npy"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    made = dict(np.load(tmp_path / "predictions.npz"))
    expected = expected_of(graph, NEW_IMAGES, NEW_TABLE)
    reconstructed = graph.reconstruct(NEW_IMAGES, NEW_TABLE)
    for name, values in expected.items():
        np.testing.assert_allclose(made[name], values, atol=1e-5, err_msg=name)
    scale = np.abs(reconstructed["a table"]).max()
    np.testing.assert_allclose(made["vae_reconstruction"], reconstructed["image"], atol=1e-5)
    np.testing.assert_allclose(
        made["ae_reconstruction"], reconstructed["a table"], atol=1e-5 * scale
    )


def test_the_script_has_about_ten_lines_and_starts_from_latents_too(exported, tmp_path):
    graph, folder = exported
    script = (folder / "predict.py").read_text()
    assert len(code_lines(script)) <= 11
    np.save(tmp_path / "z.npy", [[0.0, 1.0]])
    command = [sys.executable, folder / "predict.py", "vae_mean=z.npy"]
    subprocess.run(command, cwd=tmp_path, check=True)
    made = dict(np.load(tmp_path / "predictions.npz"))
    assert made.keys() == {"vae_mean", "vae_reconstruction"}
    decoded = graph["vae"].decode([[0.0, 1.0]])
    np.testing.assert_allclose(made["vae_reconstruction"], decoded, atol=1e-5)


def test_the_card_tells_data_settings_scores_and_versions(exported):
    graph, folder = exported
    card = (folder / "README.md").read_text()
    (accuracy,) = [u["accuracy"] for u in graph.history[-1]["updates"] if "accuracy" in u]
    assert f"accuracy {accuracy:.4g}" in card
    assert '`python predict.py image=image.npy "a table=a table.npy"`' in card.replace(
        "```sh\n", "`"
    ).replace("\n```", "`")
    for text in (
        "| image | 40 | (8, 8) | ",
        "| a table | 40 | (5,) | ",
        "batch_norm=True",
        "GMM(labels=",
        "## Training, 2 rounds",
        f"| torch | {torch.__version__} |",
        f"| onnxruntime | {onnxruntime.__version__} |",
        "| vae_encoder.onnx | image (batch, 8, 8) float32 | vae_mean (batch, 2) float32, vae_var",
    ):
        assert text in card
    differences = re.findall(r"\| (\d\.\de[-+]\d\d) \|$", card, re.MULTILINE)
    assert len(differences) == 5
    assert max(map(float, differences)) <= 1e-5


def test_files_of_torch_say_the_same(tmp_path):
    graph = fitted(GMM(2, random_state=0).connect(VAE(2, **NETS).connect(Observation(IMAGES))))
    graph.export(tmp_path, format="torch")
    assert {path.name for path in tmp_path.iterdir()} == {
        "vae_encoder.pt2", "vae_decoder.pt2", "gmm_posterior.pt2", "predict.py", "README.md",
    }  # fmt: skip
    np.save(tmp_path / "rows.npy", NEW_IMAGES)
    command = [sys.executable, "predict.py", "observation=rows.npy"]
    subprocess.run(command, cwd=tmp_path, check=True)
    made = np.load(tmp_path / "predictions.npz")
    for name, values in expected_of(graph, NEW_IMAGES).items():
        np.testing.assert_allclose(made[name], values, atol=1e-5, err_msg=name)


def test_data_that_need_float64_keep_it(tmp_path):
    """Of rows near 1e6 float32 holds but four digits behind the point."""
    rows = 1e6 + np.repeat([[0.0], [0.1]], 20, axis=0) + RNG.normal(0, 0.01, (40, 1))
    names = np.repeat(["left", "right"], 20)
    classifier = GMMClassifier(1, labels=names, covariance_type="diag", random_state=0)
    graph = fitted(classifier.connect(Observation(rows)))
    graph.export(tmp_path)
    new = 1e6 + np.array([[0.04], [0.05], [0.06]])
    made = run_onnx(tmp_path / "gmmclassifier_posterior.onnx", observation=new)
    probabilities = graph.predict(new).probabilities
    assert probabilities[0, 0] > 0.6 > 0.4 > probabilities[2, 0]
    np.testing.assert_allclose(made["gmmclassifier_probabilities"], probabilities, atol=1e-5)
    assert (
        "in the order of its probabilities: ['left', 'right']"
        in (tmp_path / "README.md").read_text()
    )


def test_a_loaded_graph_without_its_rows_is_exported(tmp_path):
    graph = fitted(GMM(K, random_state=0).connect(Observation(TABLE)))
    graph.save(tmp_path / "graph.safetensors")
    Graph.load(tmp_path / "graph.safetensors").export(tmp_path / "new" / "files")
    made = run_onnx(tmp_path / "new" / "files" / "gmm_posterior.onnx", observation=NEW_TABLE)
    expected = graph.predict(NEW_TABLE).probabilities
    np.testing.assert_allclose(made["gmm_probabilities"], expected, atol=1e-5)
    assert "not at hand" in (tmp_path / "new" / "files" / "README.md").read_text()


# -- parts of every kind, in torch alone -----------------------------------------------------------


def observations():
    return Observation(IMAGES, name="image"), Observation(TABLE, name="table")


def below_gmm(**options):
    vae = VAE(2, likelihood="gaussian", **NETS).connect(Observation(TABLE))
    return GMM(K, random_state=0, **options).connect(vae)


def joined_vae():
    return VAE(2, likelihood="gaussian", noise_variance=0.1, **NETS).connect(*observations())


MODULES = {
    "vae": lambda: VAE(2, **NETS).connect(Observation(IMAGES)),
    "vae of two": joined_vae,
    "ae": lambda: AE(2, likelihood="gaussian", **NETS).connect(Observation(TABLE)),
    "conv ae": lambda: AE(2, net="conv", filters=(3,), **NETS).connect(Observation(IMAGES)),
    "multinomial": lambda: MultinomialVAE(K, **NETS).connect(Observation(IMAGES)),
    "several": lambda: MultinomialVAE(K, n_draws=4, **NETS).connect(Observation(IMAGES)),
    "full": lambda: below_gmm(),
    "tied": lambda: below_gmm(covariance_type="tied"),
    "diag": lambda: below_gmm(covariance_type="diag", use_variance=True),
    "spherical": lambda: below_gmm(covariance_type="spherical", use_variance=True),
    "gmm of images": lambda: GMM(2, covariance_type="diag").connect(Observation(IMAGES)),
    "gmm of two": lambda: GMM(2, covariance_type="diag").connect(*observations()),
    "classifier": lambda: GMMClassifier(2, labels=CLASSES).connect(Observation(TABLE)),
    "features": lambda: Features(nn.Sequential(nn.Flatten(), nn.Tanh())).connect(
        Observation(IMAGES)
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_parts_say_what_the_graph_says(name):
    module = MODULES[name]()
    graph = fitted(module)
    new = [NEW_IMAGES if o.row_shape == (8, 8) else NEW_TABLE for o in graph.observations]
    up, *rest = module.parts()
    prediction = graph.predict(*new)
    given = {Data: iter(new)}
    taken = [
        next(given[Data])
        if isinstance(node, Observation)
        else exporting.content_of(prediction.messages[graph.name_of(node)], content)
        for node, content in up.takes
    ]
    made = up.net(*map(torch.tensor, taken))
    message = prediction.messages[graph.name_of(module)]
    assert len(made) == len(up.gives)
    for tensor, content in zip(made, up.gives, strict=True):
        expected = exporting.content_of(message, content)
        np.testing.assert_allclose(tensor.detach().numpy(), expected, atol=1e-5, rtol=1e-5)
        assert tensor.dtype == torch.float32
    for part in rest:
        assert part.takes == ((module, up.gives[0]),)
        rows = graph.reconstruct(*new)
        expected = [*rows.values()] if isinstance(rows, dict) else [rows]
        for tensor, array in zip(part.net(made[0]), expected, strict=True):
            np.testing.assert_allclose(tensor.detach().numpy(), array, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [NetClassifier, NetRegressor])
def test_nets_of_targets_follow_the_mixture(kind, tmp_path):
    classifies = kind is NetClassifier
    targets = Observation(CLASSES[:, None] if classifies else TABLE[:, :2], name="targets")
    net = kind(epochs=2, random_state=0)
    task = "classification" if classifies else "regression"
    gmm = GMM(K, random_state=0).connect(Observation(TABLE, name="table"))
    top = Supervised(net, task=task, random_state=0).connect(gmm, targets)
    fitted(top)
    (part,) = top.parts()
    r = np.random.default_rng(1).dirichlet(np.ones(K), size=6)
    estimator = top.estimator_
    expected = estimator.predict_proba(r) if classifies else estimator.predict(r)
    np.testing.assert_allclose(part.net(torch.tensor(r))[0].detach(), expected, atol=1e-5)
    assert part.takes == ((gmm, "probabilities"),)


# -- what is refused -------------------------------------------------------------------------------


class Own(Module):
    sends_up = Data

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        return Posterior(up=Data(2 * inputs[0].array), down=(None,))


def test_modules_that_cannot_be_are_named_and_nothing_is_written(tmp_path):
    gmm = GMM(K, random_state=0).connect(Observation(TABLE))
    graph = fitted(MarkovModel(random_state=0).connect(gmm))
    text = (
        r"Graph.export: MarkovModel cannot be exported: what it says of a row depends on all rows "
        r"of its sequence. Export the rest: modules=\['gmm'\]"
    )
    with pytest.raises(GraphError, match=text):
        graph.export(tmp_path / "all")
    assert not [*tmp_path.iterdir()]
    graph.export(tmp_path / "rest", modules=["gmm"], format="torch")
    assert (tmp_path / "rest" / "gmm_posterior.pt2").exists()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (lambda: Own(), "Own cannot be exported: its class has no method parts"),
        (lambda: Sklearn(KMeans(2), random_state=0), "SklearnClusterer .* skl2onnx"),
        (lambda: MLDA(2, random_state=0), "MLDA .* repeated steps"),
        (lambda: Features(np.abs), r"Features .* is no torch.nn.Module.* There is nothing else"),
    ],
)
def test_modules_without_nets_are_refused(module, text, tmp_path):
    graph = fitted(module().connect(Observation(np.round(np.abs(TABLE)))))
    with pytest.raises(GraphError, match=text):
        graph.export(tmp_path)


@pytest.mark.parametrize("name", serkit.modules.__all__)
def test_every_module_has_parts_or_says_why_not(name):
    kind = getattr(serkit.modules, name)
    if isinstance(kind, type) and issubclass(kind, Module):
        assert kind.parts is not Module.parts or kind.why_no_parts != Module.why_no_parts


class FixedBatch(nn.Module):
    def forward(self, rows):
        return rows.reshape(len(rows), 64)[:, :4]


class Branches(nn.Module):
    def forward(self, rows):
        flat = rows.flatten(1)[:, :4]
        return flat if flat.sum() > 3 else 2 * flat


class Random(nn.Module):
    def forward(self, rows):
        return rows.flatten(1)[:, :4] + torch.randn(1)


class Unknown(nn.Module):
    def forward(self, rows):
        values = torch.linalg.eigvals(rows.reshape(rows.shape[0], 8, 8))
        return values.real.sort(dim=1).values[:, :4].float()


class Trained(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.scale = net, nn.Parameter(torch.ones(1))

    def forward(self, rows):
        return self.scale * self.net(rows)


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (FixedBatch, r"cannot be exported. torch.export says: .*batch.*x.shape\[0\] in place of"),
        (Branches, r"cannot be exported. torch.export says: .*do the same steps whatever"),
        (Random, r"gives other values once it is exported, by up to .* where 1e-05 is allowed"),
        (Unknown, r"cannot be written as ONNX: .*Use other layers, or format='torch'"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nets_that_cannot_be_are_refused(net, text, tmp_path):
    vae = VAE(2, encoder=Trained(net()), **NETS).connect(Observation(IMAGES))
    graph = fitted(vae)
    with pytest.raises(InputError, match=f"Graph.export: VAE: its encoder {text}"):
        graph.export(tmp_path / "files")
    assert not [*tmp_path.iterdir()]


def test_parts_of_own_modules_are_exported_and_checked(tmp_path):
    class Doubling(nn.Module):
        def forward(self, rows):
            return (2 * rows,)

    class Exported(Own):
        factor = 2

        def parts(self):
            takes = ((self.parents[0], "array"),)
            truth = lambda rows: [self.factor * rows]  # noqa: E731
            return [Part("doubled", Doubling(), takes, ("array",), truth)]

    own = Exported(name="twice").connect(Observation(TABLE))
    graph = fitted(own)
    graph.export(tmp_path, format="torch")
    assert (
        "observation (batch, 5) float32 | twice (batch, 5) float32"
        in (tmp_path / "README.md").read_text()
    )
    own.factor = 2.001
    with pytest.raises(InputError, match=r"Exported 'twice': its doubled gives other values"):
        graph.export(tmp_path, format="torch")
    own.parts = lambda: "doubled"
    with pytest.raises(InputError, match=r"Exported 'twice'.parts must return a list of serkit"):
        graph.export(tmp_path, format="torch")


def test_missing_packages_are_named_first(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if "onnx" in name else name)
    graph = fitted(GMM(K, random_state=0).connect(Observation(TABLE)))
    text = r"Graph.export needs onnx, onnxruntime, onnxscript: pip install '.\[export\]' in"
    with pytest.raises(ImportError, match=text):
        graph.export(tmp_path / "files")
    graph.export(tmp_path / "files", format="torch")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"folder": 3}, InputError, "Graph.export: folder must be a path"),
        ({"format": "tflite"}, InputError, "unknown format='tflite'; expected one of 'onnx', 'to"),
        ({"modules": "gmm"}, InputError, "modules must be a list of modules or their names, got"),
        ({"modules": ["vae"]}, GraphError, "no module is called 'vae'"),
        ({"modules": [7]}, GraphError, "modules names 7, which is not in this graph"),
    ],
)
def test_odd_arguments_are_refused(arguments, error, text, tmp_path):
    graph = fitted(GMM(K, random_state=0).connect(Observation(TABLE)))
    with pytest.raises(error, match=text):
        graph.export(**{"folder": tmp_path / "files", **arguments})


def test_a_graph_that_has_not_learnt_and_a_folder_that_is_none(tmp_path):
    graph = Graph(GMM(K, random_state=0).connect(Observation(TABLE)))
    with pytest.raises(NotReadyError, match="GMM is not fitted yet"):
        graph.export(tmp_path / "files", format="torch")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write to"):
        graph.fit(1, verbose=False).export(tmp_path / "file", format="torch")


def test_two_tensors_of_one_name_are_refused(tmp_path):
    vae = VAE(2, likelihood="gaussian", **NETS).connect(Observation(TABLE, name="vae_mean"))
    with pytest.raises(InputError, match="two tensors would be called 'vae_mean'"):
        fitted(vae).export(tmp_path, format="torch")

"""Bad input: errors a person can act on, with the module's name and the value, and nothing lost."""

import copy
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from serkit import (
    Graph,
    MixtureDensity,
    Novelty,
    Observation,
    datasets,
    load,
    measures,
    metrics,
    paths,
    plots,
    save,
    training,
)
from serkit.errors import InputError, TrainingError
from serkit.messages import Categorical, Data, Deferred, Gaussian, Mixture, product
from serkit.module import bound_of
from serkit.modules import AE, GMM, VAE, MarkovModel, NetClassifier, RandomAffine
from tests.helpers.modules import uniform_rows
from tests.helpers.saved import assert_same

NET = {"epochs": 2, "hidden_sizes": (8,), "batch_size": 10, "random_state": 0, "name": "low"}


def connected(module, rows=None):
    return module.connect(Observation(uniform_rows() if rows is None else rows, name="rows"))


def learnt_by(module):
    """Its state but for the seed, which a first update may take before it fails."""
    return {k: v for k, v in copy.deepcopy(module.get_state()).items() if k != "seed_"}


# -- rows --------------------------------------------------------------------------------------


def with_bad_rows(value, *bad):
    rows = uniform_rows()
    rows[list(bad), 1] = value
    return rows


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (with_bad_rows(np.nan, 3, 17), r"NaN or infinity in 2 of 20 rows \(rows 3, 17\)"),
        (with_bad_rows(-np.inf, 0), r"NaN or infinity in 1 of 20 rows \(rows 0\)"),
        (with_bad_rows(np.inf, *range(7)), r"in 7 of 20 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)"),
        (torch.full((3, 2), torch.nan), "NaN or infinity in 3 of 3 rows"),
        (np.zeros((0, 4)), r"expected at least one row and one column.*\(0, 4\)"),
        (np.zeros((4, 0)), r"expected at least one row and one column.*\(4, 0\)"),
        ([], "expected at least one row"),
        (np.zeros(4), r"shape \(N, \.\.\.\), got \(4,\)"),
        (3.0, r"shape \(N, \.\.\.\), got \(\)"),
        ([[1, 2], [3]], "expected rows of equal length"),
        (np.array([["a"], ["b"]]), "expected real numbers, got dtype <U1; convert them first"),
        (np.array([[1], [None]]), r"NaN or infinity in 1 of 2 rows \(rows 1\)"),
        (np.ones((3, 2), dtype=complex), "Complex data not supported, got dtype complex128"),
        (np.zeros((3, 2), dtype="datetime64[s]"), "expected real numbers, got dtype datetime64"),
        ("images.npy", "expected real numbers, got dtype <U10"),
        (None, "expected real numbers, got a NoneType: None"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_rows_that_cannot_be_data(data, text):
    with pytest.raises(InputError, match=f"^Observation 'rows': .*{text}"):
        Observation(data, name="rows")


@pytest.mark.parametrize("kind", [AE, VAE])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (-0.01, 0.5)])
def test_values_outside_the_likelihoods_range(kind, low, high):
    rows = np.linspace(low, high, 80).reshape(20, 4)
    module = connected(kind(2, **NET), rows)
    leaf = GMM(2, random_state=0).connect(module)
    text = (
        rf"'low': likelihood='bernoulli' needs values in \[0, 1\], got \[{low:g}, {high:g}\]; div"
    )
    with pytest.raises(InputError, match=text):
        Graph(leaf).fit(1, verbose=False)
    with pytest.raises(InputError, match=text):
        module.fit(rows)
    assert not module.history_


@pytest.mark.parametrize("inference", ["map", "ml", "gibbs"])
def test_more_components_than_rows_or_distinct_rows(inference):
    rows = np.repeat(uniform_rows(3), 50, axis=0)
    gmm = connected(GMM(4, inference=inference, name="top", random_state=0), rows)
    with pytest.raises(InputError, match="GMM 'top': n_components=4, but only 3 of the 150 rows"):
        gmm.update()
    with pytest.raises(InputError, match="GMM 'top': n_components=151 is more than the 150 rows"):
        gmm.set_params(n_components=151).update()
    gmm.set_params(n_components=3).update()
    assert np.isfinite(gmm.means_).all()


AWKWARD = {
    "constant": np.where(np.arange(4) > 0, 0.25, uniform_rows()),
    "duplicated": np.repeat(uniform_rows(5), 4, axis=0),
    "tiny": uniform_rows() * 1e-12,
    "alike columns": np.repeat(uniform_rows(d=1), 4, axis=1),
}
MODULES = {
    "ae": AE(2, **NET),
    "vae": VAE(2, **NET),
    "vae-learnt": VAE(2, **NET, likelihood="gaussian", noise_variance="learnt"),
    **{f"map-{kind}": GMM(2, covariance_type=kind) for kind in ("full", "tied", "diag")},
    **{
        f"ml-{kind}": GMM(2, covariance_type=kind, inference="ml") for kind in ("full", "spherical")
    },
    "gibbs": GMM(2, inference="gibbs", max_iter=10),
}


@pytest.mark.filterwarnings("ignore:.*lost all their rows")
@pytest.mark.parametrize("rows", AWKWARD)
@pytest.mark.parametrize("module", MODULES)
def test_awkward_rows_give_finite_messages(rows, module):
    module = copy.deepcopy(MODULES[module]).set_params(random_state=0)
    connected(module, AWKWARD[rows]).update()
    for message in (module.message_up, *module.messages_down):
        assert not any(np.isnan(v).any() for v in vars(message).values() if v is not None)
    assert np.isfinite(bound_of(module.infer(module.received_from_parents(), None)))


# -- arguments of functions --------------------------------------------------------------------


class Sulky:
    """What no array can be made of."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array of me")


UNIT = MixtureDensity([1.0], [[0.0]], [1.0], "spherical")
CLASSES = Categorical.uniform(4, 2)
MIXTURE = Mixture(CLASSES.log_prob, np.zeros((2, 3)), np.tile(np.eye(3), (2, 1, 1)))


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (measures.entropy, (3,), "density must be a MixtureDensity, got 3"),
        (measures.entropy_bounds, (None,), "density must be a MixtureDensity, got None"),
        (measures.kl, (UNIT, [1]), r"q must be a MixtureDensity, got \[1\]"),
        (measures.jensen_shannon_bounds, ("p", UNIT), "p must be a MixtureDensity, got 'p'"),
        (measures.pairwise, (UNIT, measures.kl), "densities must be a list, each a MixtureDensity"),
        (
            measures.pairwise,
            ([UNIT, UNIT], lambda p, q: 3),
            "what measure returns must be an Estimate",
        ),
        (measures.pairwise, ([UNIT, UNIT], lambda p, q: p[0]), "measure fails with TypeError: "),
        (
            MixtureDensity,
            ([1.0], [[0.0]], [[[1.0]]]),
            "MixtureDensity: unknown checked=3; expected",
        ),
        (Deferred, ([[np.nan]], "reconstruction"), "Deferred: values must be finite numbers, got"),
        (
            metrics.scores_of,
            ([0, 1], 1j),
            "scores_of: clusters must be numbers or text, one per row",
        ),
        (measures.pairwise, ([UNIT], len), "measure must be a function of p and q, got"),
        (paths.densest, ([0], [1], 3, "x"), "density must be a MixtureDensity, got 'x'"),
        (paths.langevin, (int, 3), "density must be a MixtureDensity, got <class 'int'>"),
        (Gaussian.standard, (4.0, 2), r"n_rows must be an integer >= 1, got 4\.0"),
        (Gaussian.standard, (2**50, 2), f"n_rows={2**50} needs more memory than there is"),
        (Categorical.uniform, (4, "2"), "n_components must be an integer >= 1, got '2'"),
        (
            CLASSES.map_rows,
            (3,),
            "Categorical.map_rows: function must be a function of rows, got 3",
        ),
        (CLASSES.extended, (2.5,), r"extended: n_rows must be an integer >= 4, got 2\.5"),
        (
            UNIT.marginal,
            ([1],),
            r"columns must be a list of integers from 0 to 0, each at most once, got \[1\]",
        ),
        (
            UNIT.marginal,
            (0,),
            "columns must be a list of integers from 0 to 0, each at most once, got 0",
        ),
        (UNIT.permuted, ([0.0],), r"order must be a list of integers from 0 to 0, .*got \[0\.0\]"),
        (GMM(2).set_density, (3,), "GMM: density must be a MixtureDensity, got 3"),
        (metrics.stability, (3,), "stability compares at least two clusterings, got 1"),
        (metrics.ari, ([0, 1], [0, np.nan]), "clusters must be numbers or text, one per row, got"),
        (metrics.nmi, ([0, 1], torch.eye(2).to_sparse()), "metrics: cannot read a torch.sparse"),
        (Gaussian, (object(),), "Gaussian.mean: expected real numbers, got"),
        (Categorical, (np.array([["a"]]),), "Categorical: log_prob must be log-probabilities, got"),
        (Data, (np.eye(2),), "Data: unknown checked=3; expected one of False, True"),
        (MIXTURE.split, ([1, 1],), r"sizes must add up to the 3 dimensions, got \[1, 1\]"),
        (MIXTURE.split, (3,), "sizes must be a sequence of integers >= 1, got 3"),
        (product, ([1, 2],), r"messages must be a list, each a Message, got \[1, 2\]"),
        (datasets.in_cycles, (2.5,), r"dataset must be a Dataset or Counts, got 2\.5"),
        (datasets.train_test_split, ([1, 2],), r"dataset must be a Dataset, got \[1, 2\]"),
        (training.StopOnTolerance, ([[]],), r"monitor must be a string, got \[\[\]\]"),
        (training.clusters_of, (3,), "module must be a Module, got 3"),
        (training.exchange_diagnostics, (None, 3), "after must be a Mixture or Categorical mess"),
        (Novelty().fit, (VAE(2), 3, np.eye(9)), "density must be a MixtureDensity, got 3"),
        (Novelty(1e9).fit, (VAE(2), UNIT, np.zeros((60, 4, 4))), r"smoothing=1000000000\.0 pixels"),
        (
            RandomAffine(1e300).copies,
            (np.zeros((2, 4, 4)),),
            "amounts are so large that images are",
        ),
        (Novelty().fit, (3, UNIT, np.eye(9)), "autoencoder must have encode and decode, as VAE"),
        (plots.losses, ([{"loss": 1.0}],), "plots.losses: there are no epochs to draw"),
        (plots.losses, (3,), "curve must be a list, each a dict, got 3"),
        (plots.log_likelihood, (["a"],), r"curves must be finite numbers, got \['a'\]"),
        (
            plots.image_grid,
            (np.array([["a"]]),),
            "image_grid: expected real numbers, got dtype <U1",
        ),
        (plots.heat_map, (np.eye(2), 3), "expected 2 names, got 3"),
        (plots.save_gif, (np.zeros((2, 4, 4)), 3), "path must be a path, as a string"),
        (plots.graph.graph, ({"a": 3},), "names must be those of a graph, as in graph.names"),
        (plots.graph.rounds, ([{"round": 1}],), "history must be that of a graph, graph.history"),
        (load, (3,), "serkit.load: path must be a path, as a string or a pathlib.Path, got 3"),
        (save, (GMM(2), b"a"), "serkit.save: path must be a path, as a string or a pathlib.Path"),
        (MarkovModel().set_chain, ([[1.0]], []), "initial must be an array .* of probabilities"),
        (metrics.ari, ([0, 1], [1j, 2]), "clusters must be numbers or text, one per row"),
        (metrics.purity, (Sulky(), [0, 1]), "labels: a Sulky cannot be read: no array of me"),
        (partial(Deferred, checked=[1, 2]), (UNIT.means, "decode"), r"unknown checked=\[1, 2\]"),
        (
            UNIT.typed,
            ([1.0],),
            r"matrices must be of shape \(K, D, D\) or \(K, D\), K and D \(1, 1\)",
        ),
        (GMM(2).update, (3,), "children must be a list, each a Node, got 3"),
        (GMM(2).update, ([3],), r"children must be a list, each a Node, got \[3\]"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_an_argument_of_another_kind_is_told_by_name_and_value(function, arguments, text):
    options = {"checked": 3} if "checked=3" in text else {}
    with pytest.raises(InputError, match=text):
        function(*arguments, **options)


# -- options -----------------------------------------------------------------------------------

NET_OPTIONS = {
    "latent_dim": [0, -1, 2.5, "2", True, 2**50],
    "batch_size": [0, 2.5, None],
    "patience": [0, "ten"],
    "net": ["cnn", None],
    "likelihood": ["poisson"],
    "kl_target": ["middle", 1],
    "precision": ["half", 16],
    "lr": [0, -1e-3, np.nan, np.inf, "fast"],
    "weight_decay": [-1, "some"],
    "alpha": [-0.5, "one", np.nan],
    "noise_variance": [0, -1.0, "learned"],
    "max_grad_norm": [0, "big"],
    "scheduler": ["step", 3],
    "augment": ["flip", 3],
    "augment_target": ["original", None, [], ["clean", "original"], [["clean"]], 1],
    "validation_fraction": [1.0, 1.5, -0.1, 0.001],
    "epochs": [0, -3, 1.5, "ten", [], [5, 0]],
    "device": ["tpu", "cuda:99", "mps", 7.5],
    "hidden_sizes": [16, (2**50,), (0,), ("wide",), (8, -1)],
    "random_state": ["seven", -1, 1.5],
}
GMM_OPTIONS = {
    "n_components": [0, -1, 2.5, "3", True],
    "n_init": [0, 1.5],
    "max_iter": [0, "many"],
    "covariance_type": ["round", None],
    "inference": ["em", 1],
    "tol": [-1e-3, np.nan, "small"],
    "reg_covar": [-1, np.inf],
    "mean_precision_prior": [0, -1, "weak"],
    "degrees_of_freedom_prior": [0, "few", np.nan],
    "covariance_prior": [0, -0.1, "wide", np.nan, [0.1, 0.2], np.diag([1.0, -1, 1, 1])],
    "mean_prior": [np.zeros(3), np.full(4, np.nan), "centre"],
    "means_init": [np.zeros((2, 4)), np.full((3, 4), np.nan), "first", np.zeros(3)],
    "responsibilities_init": [np.tile(p, (20, 1)) for p in ([0.5] * 2, [0.5] * 3, [2, -1, 0])],
    "sample_weight": [np.ones(19), -np.ones(20), [np.nan] * 20, np.zeros(20), ["a"] * 20, 2],
    "labels": [np.zeros(19), np.zeros((20, 1)), 3, []],
    "random_state": ["seven", -1, 1.5],
}


def each(options):
    return [
        pytest.param(name, value, id=f"{name}-{value if np.ndim(value) == 0 else i}")
        for name, values in options.items()
        for i, value in enumerate(values)
    ]


def assert_refused(module, name, value):
    """The error has the module's name, the argument's and a scalar's value; nothing is learnt."""
    before = learnt_by(module)
    module.set_params(**{name: value})
    with pytest.raises(InputError) as error:
        module.update()
    text = str(error.value)
    assert text.startswith(module.label)
    assert name in text
    if np.ndim(value) == 0:
        assert re.search(rf"{re.escape(str(value))}\b", text)
    assert_same(before, learnt_by(module))


@pytest.mark.parametrize("kind", [AE, VAE])
@pytest.mark.parametrize(("name", "value"), each(NET_OPTIONS))
def test_options_of_autoencoders(kind, name, value):
    assert_refused(connected(kind(2, **NET)), name, value)


@pytest.mark.parametrize(("name", "value"), each(GMM_OPTIONS))
def test_options_of_a_gmm(name, value):
    assert_refused(connected(GMM(3, name="top")), name, value)


@pytest.mark.parametrize("value", [8, (), (0,), ("many",)])
def test_filters_of_conv_nets(value):
    assert_refused(connected(VAE(2, net="conv", **NET), uniform_rows(d=16)), "filters", value)


# -- nets and augmentation ---------------------------------------------------------------------


def pair(encoder, decoder):
    return {"encoder": nn.Linear(*encoder), "decoder": nn.Linear(*decoder)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encoder": nn.Linear(4, 3)}, r"encoder must return \(N, 4\) for 2 latents"),
        ({"decoder": nn.Linear(2, 5)}, "decoder must return 4 values per row"),
        (
            pair((4, 3), (2, 4)),
            r"encoder must return \(N, 4\) for 2 latents, got \(2, 3\) for tw",
        ),
        (
            pair((4, 4), (2, 5)),
            r"decoder must return 4 values per row, as in \(4,\), got \(2, 5\) for",
        ),
        (pair((5, 4), (2, 4)), r"encoder.*\(4,\)"),
        (pair((4, 4), (3, 4)), "decoder.*2 latents"),
        ({"encoder": "net", "decoder": "net"}, "encoder must be a torch.nn.Module, got 'net'"),
        ({"net": "conv"}, r"net='conv' needs images .* got rows of shape \(5,\)"),
        ({"augment": lambda x: x[:, :2]}, r"augment must return .* \(10, 4\), got \(10, 2\)"),
        ({"augment": lambda x: x.cpu().numpy()}, r"augment must return .* \(10, 4\), got ndarray"),
    ],
)
def test_nets_and_augmentation_that_do_not_fit(options, text):
    rows = uniform_rows(d=5 if "net" in options else 4)
    vae = connected(VAE(2, **NET, **options), rows)
    with pytest.raises(InputError, match=rf"^VAE 'low': .*{text}"):
        vae.update()
    assert not vae.history_


CHANNELS_LAST = np.random.default_rng(0).random((10, 12, 16, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "use",
    [
        lambda rows: VAE(2, net="conv", **NET).fit(rows),
        lambda rows: VAE(2, net="conv", **NET).connect(Observation(rows)).update(),
        lambda rows: NetClassifier(filters=(2,), epochs=1, batch_size=5).fit(rows, [0, 1] * 5),
        lambda rows: RandomAffine().copies(rows, 1),
    ],
    ids=["fit", "update", "classifier", "augment"],
)
def test_channels_that_are_last_are_refused(use):
    text = r"rows of shape \(12, 16, 3\), whose channels seem to be last; .*transpose\(0, 3, 1, 2\)"
    with pytest.raises(InputError, match=text):
        use(CHANNELS_LAST)
    use(CHANNELS_LAST.transpose(0, 3, 1, 2))
    use(CHANNELS_LAST[:, :3])  # three channels of strips


class Functional(nn.Module):
    """A net with a function at its end that is no module."""

    def __init__(self, n_in, n_out, end):
        super().__init__()
        self.linear, self.end = nn.Linear(n_in, n_out), end

    def forward(self, rows):
        return self.end(self.linear(rows))


@pytest.mark.parametrize(
    ("decoder", "warns"),
    [
        (nn.Sequential(nn.Linear(2, 4), nn.Sigmoid()), True),
        (Functional(2, 4, torch.sigmoid), True),
        (nn.Linear(2, 4), False),
        (nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4)), False),
        (nn.Sequential(nn.Linear(2, 4), nn.Tanh()), False),
    ],
)
def test_a_sigmoid_before_the_bernoulli_likelihood_is_told(decoder, warns):
    nets = {"encoder": nn.Linear(4, 4), "decoder": decoder}
    text = "VAE 'low': decoder returns values in .0, 1. alone, as by a Sigmoid"
    for likelihood in ("bernoulli", "gaussian"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            VAE(2, **NET, **nets, likelihood=likelihood).fit(uniform_rows())
        told = [w for w in caught if re.search(text, str(w.message))]
        assert len(told) == (warns and likelihood == "bernoulli")


def test_an_encoder_may_return_mean_and_log_variance():
    """The same as with both side by side, in saved files too."""
    tuples, joined = Functional(4, 4, lambda codes: codes.chunk(2, dim=1)), nn.Linear(4, 4)
    joined.load_state_dict(tuples.linear.state_dict())
    decoder = nn.Linear(2, 4)
    found, expected = (
        VAE(2, **NET, encoder=encoder, decoder=decoder).fit(uniform_rows())
        for encoder in (tuples, joined)
    )
    np.testing.assert_array_equal(found.encode(uniform_rows()), expected.encode(uniform_rows()))
    again = VAE(2, **NET, encoder=tuples, decoder=decoder)
    again.set_state(found.get_state())
    np.testing.assert_array_equal(again.encode(uniform_rows()), found.encode(uniform_rows()))


@pytest.mark.parametrize(
    ("name", "end", "text"),
    [
        ("encoder", lambda codes: (codes, codes), r"encoder must return \(N, 4\) .* got \(2, 8\)"),
        ("encoder", lambda codes: {"mean": codes}, "encoder must return a tensor .* got dict"),
        ("encoder", lambda codes: None, "encoder must return a tensor .* got NoneType"),
        ("encoder", lambda codes: codes.mean(), "encoder must return a tensor .* got Tensor"),
        ("decoder", lambda rows: (rows, rows), "decoder must return a tensor .* got tuple"),
        ("decoder", lambda rows: {}["x"], "decoder cannot take rows of shape"),
    ],
)
def test_nets_that_return_something_else(name, end, text):
    nets = {"encoder": nn.Linear(4, 4), "decoder": nn.Linear(2, 4)}
    nets[name] = Functional(4 if name == "encoder" else 2, 4, end)
    with pytest.raises(InputError, match=rf"^VAE 'low': .*{text}"):
        VAE(2, **NET, **nets).fit(uniform_rows())


def test_numbers_of_numpy_are_options():
    options = {name: np.int64(v) if isinstance(v, int) else v for name, v in NET.items()}
    plain, numpy = (VAE(2, **o).fit(uniform_rows()) for o in (NET, options | {"lr": np.float32(1)}))
    assert plain.get_params()["batch_size"] == numpy.get_params()["batch_size"]
    numpy = VAE(np.int64(2), **options | {"hidden_sizes": [np.int32(8)]}).fit(uniform_rows())
    np.testing.assert_array_equal(plain.encode(uniform_rows()), numpy.encode(uniform_rows()))


# -- training that goes wrong ------------------------------------------------------------------


def weights(vae):
    return {name: value.clone() for name, value in vae.nets_.state_dict().items()}


def assert_usable(vae):
    assert all(value.isfinite().all() for value in vae.nets_.state_dict().values())
    assert np.isfinite(vae.reconstruct(uniform_rows())).all()
    vae.set_params(lr=1e-3, alpha=1.0).update()
    assert np.isfinite(vae.history_[-1]["loss"])


def test_loss_that_becomes_nan_undoes_the_update():

    def weight(update, epoch):
        return 1e300 if (update, epoch) == (1, 2) else 1.0  # by which weights explode

    broken = connected(VAE(2, **{**NET, "epochs": 5, "alpha": weight})).update()
    sent, before = broken.message_up, weights(broken)
    with pytest.raises(TrainingError, match=r"VAE 'low': loss became nan in epoch 3 of update 2"):
        broken.update()
    assert_same(before, weights(broken))
    assert broken.message_up is sent
    assert len(broken.history_) == 1
    assert_usable(broken)


@pytest.mark.parametrize("epochs", [1, 2, 20])
@pytest.mark.parametrize("batch_size", [7, 20], ids=["batches", "one batch"])
@pytest.mark.parametrize("warm_start", [True, False], ids=["warm", "afresh"])
def test_steps_that_are_too_large_lose_nothing(epochs, batch_size, warm_start):
    options = {**NET, "epochs": epochs, "batch_size": batch_size, "warm_start": warm_start}
    vae = connected(VAE(2, **options)).update()
    good, sent = weights(vae), vae.message_up
    vae.set_params(lr=1e30)
    with pytest.raises(TrainingError, match=r"VAE 'low': .*update 2.* lr=1e\+30"):
        vae.update()
    assert_same(good, weights(vae))
    assert vae.message_up is sent
    assert len(vae.history_) == 1
    assert_usable(vae)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_singular_covariance_is_told_and_the_last_mixture_kept(kind):
    gmm = connected(GMM(2, covariance_type=kind, inference="ml", name="top", random_state=0))
    gmm.update()
    flat = np.full((20, 4), 0.5)
    flat[:, 0] = np.repeat([0.2, 0.8], 10)
    gmm.connect(Observation(flat, name="flat"))
    gmm.set_params(reg_covar=0.0)
    before = learnt_by(gmm)
    with pytest.raises(TrainingError, match=r"GMM 'top': a covariance .* raise reg_covar=0\.0"):
        gmm.update()
    assert_same(before, learnt_by(gmm))


# -- functions given as arguments --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": lambda update, epoch: 1 / 0}, "alpha fails with ZeroDivisionError: division by"),
        ({"augment": lambda batch: batch.nothing}, "augment fails with AttributeError: "),
        (
            {"scheduler": lambda optimizer, n_steps: (1, 2)},
            r"scheduler must return .* got \(1, 2\)",
        ),
        ({"scheduler": lambda optimizer, n_steps: {}[0]}, "scheduler fails with KeyError: 0"),
    ],
)
def test_functions_that_fail_are_named_and_nothing_is_lost(options, text):
    vae = connected(VAE(2, **NET)).update()
    before = learnt_by(vae)
    vae.set_params(**options)
    with pytest.raises(InputError, match=f"^VAE 'low'.*: {text}"):
        vae.update()
    assert_same(learnt_by(vae), before)


def test_a_schedule_that_fails_is_named():
    graph = Graph(connected(GMM(2, random_state=0)))
    with pytest.raises(InputError, match=r"^Graph\.fit: schedule fails with IndexError"):
        graph.fit(1, schedule=lambda round_: [][round_], verbose=False)

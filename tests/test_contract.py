"""What holds for every module: one set of tests, run on each, and on a user-written one."""

import copy
import functools
import locale
import logging
import pickle
import random
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import NamedTuple

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from serkit import Graph, Module, Observation, Posterior
from serkit.errors import GraphError, InputError, NotReadyError, TrainingError
from serkit.messages import Categorical, Data, Gaussian, Message, Mixture
from serkit.module import bound_of
from serkit.modules import (
    AE,
    GMM,
    MLDA,
    VAE,
    Compose,
    Features,
    GMMClassifier,
    GroupSum,
    LabelAlignment,
    MarkovModel,
    MultinomialVAE,
    NeighbourField,
    RandomAffine,
    RandomIntensity,
    Sklearn,
    SklearnTransformer,
    Supervised,
)
from serkit.modules.mixture import em
from serkit.saving import format
from tests.helpers.modules import Classes, KMeans, Teller
from tests.helpers.saved import assert_same

N, K, SEED = 60, 3, 7


def on_images(rows):
    """The parents of most modules: one observation."""
    return [Observation(rows, name="images")]


def on_classes(rows, seeds=(0,)):
    """A parent that sends class probabilities, or several."""
    (images,) = on_images(rows)
    return [Classes(K, random_state=seed).connect(images).update() for seed in seeds]


def on_classes_with_targets(rows):
    """The same and an observation of targets."""
    targets = (rows.mean(axis=(1, 2)) > rows.mean()).astype(int)
    return [*on_classes(rows), Observation(targets[:, None], name="targets")]


def on_classes_and_rows(rows):
    """A parent that sends class probabilities, and the rows themselves."""
    (classes,) = on_classes(rows)
    return [classes, *classes.parents]


class Case(NamedTuple):
    module: Module
    spoilt: dict  # arguments with which no update can work
    below: Callable[[np.ndarray], list[Module]] = on_images
    n_new: int = 5  # rows it is asked for that it has not learnt from
    ordered: bool = False  # whether it matters which rows are neighbours


NET = {"epochs": 2, "batch_size": 16, "hidden_sizes": (8,), "filters": (2, 3), "random_state": SEED}
NOISY = {**NET, "likelihood": "gaussian", "noise_variance": "learnt", "max_grad_norm": 1.0}
HELD_OUT = {**NET, "validation_fraction": 0.25, "scheduler": "onecycle", "weight_decay": 0.01}
BAD_NET, BAD_GMM = {"kl_target": "middle"}, {"covariance_type": "round"}
AUGMENT = Compose([RandomAffine(scale=(0.75, 1.05), aspect=0.1), RandomIntensity(blur=0.5)])
LABELS = np.array(["ape", "bee", "cat"])[np.arange(N) % K]

CASES = {
    "ae": Case(AE(2, **NET), BAD_NET),
    "ae-pulled": Case(AE(2, alpha=1.0, kl_target="expected", **NOISY), BAD_NET),
    "vae": Case(VAE(2, **NET), BAD_NET),
    "vae-mixture": Case(VAE(2, kl_target="mixture", **NOISY), BAD_NET),
    "vae-clean": Case(
        VAE(2, augment=AUGMENT, augment_target=("clean", "augmented"), **NET),
        {"augment_target": "original"},
    ),
    "vae-conv": Case(VAE(2, net="conv", augment=RandomAffine(), **NET), {"lr": -1.0}),
    "vae-afresh": Case(VAE(2, warm_start=False, **HELD_OUT), {"epochs": 0}),
    **{
        f"gmm-{kind}": Case(GMM(K, covariance_type=kind, random_state=SEED), BAD_GMM)
        for kind in ("full", "tied", "diag", "spherical")
    },
    "gmm-ml": Case(GMM(K, inference="ml", reg_covar=1e-2, random_state=SEED), BAD_GMM),
    "gmm-gibbs": Case(GMM(K, inference="gibbs", max_iter=5, random_state=SEED), BAD_GMM),
    **{
        f"classifier-{kind}": Case(
            GMMClassifier(2, labels=LABELS, covariance_type=kind, random_state=SEED), BAD_GMM
        )
        for kind in ("full", "diag")
    },
    "kmeans": Case(KMeans(K, random_state=SEED), {"n_components": N + 1}),
    "multinomial": Case(MultinomialVAE(K, **NET), {"temperature": -1.0}),
    "multinomial-draws": Case(
        MultinomialVAE(K, n_draws=3, temperature_decay=0.1, **NET), {"n_draws": 0}
    ),
    "markov": Case(MarkovModel(random_state=SEED), {"lengths": [N + 1]}, on_classes, ordered=True),
    "markov-groups": Case(
        MarkovModel(groups=np.arange(N) % 7, transition_prior=1.5, random_state=SEED),
        {"max_iter": 0},
        on_classes,
        n_new=N,
        ordered=True,
    ),
    "field": Case(
        NeighbourField(n_neighbors=5, coupling=2.0, random_state=SEED),
        {"n_neighbors": N},
        on_classes_and_rows,
        ordered=True,
    ),
    **{
        f"mlda-{kind}-{below.__name__}": Case(
            MLDA(K, inference=kind, max_iter=5, random_state=SEED), {"weights": [-1]}, below
        )
        for kind in ("cvb0", "gibbs")
        for below in (on_images, on_classes)
    },
    "supervised": Case(
        Supervised(random_state=SEED), {"task": "guessing"}, on_classes_with_targets
    ),
    "alignment": Case(
        LabelAlignment(random_state=SEED),
        {"labels": [0]},
        partial(on_classes, seeds=(0, 1)),
    ),
    "groups": Case(GroupSum(np.arange(N) // 4), {"groups": [0]}, on_classes, n_new=N, ordered=True),
    "features": Case(Features(np.tanh), {"extractor": 3}),
    "sklearn-pca": Case(Sklearn(PCA(2), random_state=SEED), {"estimator": PCA(999)}),
    "sklearn-kmeans": Case(Sklearn(MiniBatchKMeans(K), random_state=SEED), {"labels": [0]}),
}


# What has no distribution of its own to draw from.
WITHOUT_PRIOR = (Features, GroupSum, KMeans, NeighbourField, SklearnTransformer)
# One case of each class, for what does not depend on how a module is set.
CLASSES = {type(case.module): name for name, case in reversed(CASES.items())}


@pytest.fixture(params=CASES)
def case(request):
    """Each case with a fresh, unconnected module."""
    return fresh(request.param)


@pytest.fixture(params=CLASSES, ids=lambda kind: kind.__name__)
def kind(request):
    """The same, of each class one."""
    return fresh(CLASSES[request.param])


def has_device(name):
    return hasattr(CASES[name].module, "device")


def fresh(name):
    return CASES[name]._replace(module=clone(CASES[name].module))


@pytest.fixture
def module(case):
    return case.module


def images(n=N, seed=0):
    """Three prototypes of 4 x 4 pixels with noise, in [0, 1]: (n, 4, 4), float32."""
    prototypes = np.random.default_rng(99).uniform(0.1, 0.9, (K, 4, 4))
    rng = np.random.default_rng(seed)
    rows = prototypes[rng.integers(K, size=n)] + 0.08 * rng.standard_normal((n, 4, 4))
    return rows.clip(0, 1).astype(np.float32)


def trained(case, updates=2, module=None):
    """The module on its parents, or another one, after some updates."""
    module = (module or case.module).connect(*case.below(images()))
    for _ in range(updates):
        module.update()
    return module


@functools.cache
def trained_once(name):
    return trained(fresh(name))


@pytest.fixture
def learnt(request, case):
    """A copy of the module after two updates, with its parents."""
    return copy.deepcopy(trained_once(request.node.callspec.params["case"]))


def new_messages(case, seed=1):
    """What the parents send of new rows."""
    return [parent.message_up for parent in case.below(images(case.n_new, seed))]


def new_rows(case, seed=1):
    """New rows of each observation."""
    return [node.data for node in Graph(*case.below(images(case.n_new, seed))).observations]


def neutral(module):
    """The message that says nothing: N(0, I), or every class equally probable."""
    n_rows = module.rows_sent(N)
    if module.sends_up is Gaussian:
        return Gaussian.standard(n_rows, module.n_outputs)
    return Categorical.uniform(n_rows, module.n_outputs or K)


def belief(module, inputs, from_children=None):
    """All that a module says of rows: up, bound, classes, and down with deferred messages made."""
    posterior = module.infer(inputs, from_children)
    assert isinstance(posterior, Posterior)
    down = module.read(posterior.down)
    return [posterior.up, bound_of(posterior), posterior.classes, *down]


def assert_close(left, right, **tolerance):
    """Messages of the same kind whose arrays are equal to rounding."""
    assert type(left) is type(right)
    for name, values in vars(left).items():
        other = getattr(right, name)
        assert (values is None) == (other is None)
        if values is not None:
            np.testing.assert_allclose(values, other, err_msg=name, **tolerance)


def state_of(module):
    return copy.deepcopy(module.get_state())


# -- construction and options ----------------------------------------------------------------------


def test_constructor_only_stores(module):
    params = module.get_params(deep=False)
    made = type(module)(**params)
    assert all(getattr(made, name) is value for name, value in params.items())
    assert [name for name in vars(made) if name.endswith("_")] == []
    assert not made.history_
    assert str(clone(module).get_params(deep=False)) == str(params)


ODD = {"array": np.zeros(3), "object": object(), "string": "odd", "float": 2.5}


@pytest.mark.filterwarnings("ignore")  # of estimators that get odd values, for instance
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_for_any_option_works_or_is_refused_by_name(kind, odd):
    if isinstance(kind.module, KMeans):
        pytest.skip("is a user's")
    parents = kind.below(images())
    for option in kind.module.get_params(deep=False):
        module = clone(kind.module).set_params(**{option: ODD[odd]}).connect(*parents)
        # TrainingError is for numbers that may be taken, and lead nowhere
        error = error_of(module.update, InputError, TrainingError)
        assert option in str(error) or not isinstance(error, InputError)
        module.disconnect()


def error_of(function, *kinds):
    """The error of one of these kinds that a call raises, if any."""
    try:
        function()
    except kinds as error:
        return error


def test_numpy_integers_work_where_integers_are_meant(kind):
    def as_numpy(value):
        if isinstance(value, tuple):
            return tuple(map(as_numpy, value))
        return np.int64(value) if type(value) is int else value

    params = {name: as_numpy(v) for name, v in kind.module.get_params(deep=False).items()}
    module = trained(kind, 1, clone(kind.module).set_params(**params))
    assert_same(module.get_state(), trained(kind, 1).get_state())


@pytest.mark.parametrize("made", [np.random.default_rng, np.random.RandomState, np.int64])
def test_random_state_takes_seeds_and_generators(kind, made):
    one, other = (clone(kind.module).set_params(random_state=made(3)) for _ in range(2))
    assert_same(trained(kind, 1, one).get_state(), trained(kind, 1, other).get_state())
    assert_same(one.update().get_state(), other.update().get_state())


def test_a_misspelt_argument_is_told_with_the_one_meant(kind):
    params, name = kind.module.get_params(deep=False), type(kind.module).__name__
    text = f"{name} has no argument 'random_sate'; did you mean 'random_state'"
    with pytest.raises(InputError, match=text):
        type(kind.module)(**params, random_sate=0)


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        (GMM, "K", "n_components"),
        (GMM, "category", "labels"),
        (GMM, "itr", "max_iter"),
        (VAE, "itr", "epochs"),
        (VAE, "epoch", "epochs"),
        (VAE, "batch", "batch_size"),
        (VAE, "KL_param", "alpha"),
        (VAE, "hidden_encoder_dim", "hidden_sizes"),
    ],
)
def test_serkets_names_are_told_with_the_ones_here(kind, name, meant):
    with pytest.raises(InputError, match=f"has no argument '{name}'; did you mean '{meant}'"):
        kind(2, **{name: 3})


# -- messages --------------------------------------------------------------------------------------


def test_update_returns_self_and_sends_the_declared_messages(case):
    module = case.module.connect(*case.below(images()))
    assert module.update() is module
    up = module.message_up
    assert type(up) is (module.sends_up or type(None))
    if up is not None:
        assert up.n_rows == module.rows_sent(N)
        assert np.prod(up.shape) == module.n_outputs
    for parent, down in zip(module.parents, module.messages_down, strict=True):
        assert down is None or type(down) is module.sends_down_to(parent)
        assert down is None or down.n_rows == N
    assert module.posterior.bound is None or np.isfinite(module.posterior.bound)
    assert len(module.history_) == 1
    assert module.history_[0]["seconds"] >= 0


def test_one_message_down_for_each_parent(case):
    module, rows = case.module, images()
    if getattr(module, "net", None) == "conv" or case.below is not on_images:
        pytest.skip("takes one parent with images, or others than observations")
    module.connect(Observation(rows[:, :1]), Observation(rows[:, 1:].reshape(N, 12)))
    kinds = [module.sends_down_to(parent) for parent in module.parents]
    first, second = module.update().messages_down
    assert [type(first), type(second)] == [kind or type(None) for kind in kinds]
    if kinds[0] is Data:
        assert (first.shape, second.shape) == ((1, 4), (12,))
    elif kinds[0] is Mixture:
        assert (first.means.shape[1], second.means.shape[1]) == (4, 12)


def test_beliefs_of_new_rows_change_nothing(case, learnt):
    before = state_of(learnt)
    up, _, _, *down = belief(learnt, new_messages(case))
    assert up is None or up.n_rows == learnt.rows_sent(case.n_new)
    assert all(message is None or message.n_rows == case.n_new for message in down)
    belief(learnt, learnt.received_from_parents())
    assert_same(before, learnt.get_state())


def test_generate_gives_rows_for_each_parent_or_says_that_it_cannot(learnt):
    before = state_of(learnt)
    if learnt.sends_up is None or isinstance(learnt, WITHOUT_PRIOR):
        with pytest.raises(GraphError, match="cannot generate samples; give its class a method"):
            learnt.generate(7, np.random.default_rng(0))
    else:
        one, same = (learnt.generate(7, np.random.default_rng(0)) for _ in range(2))
        assert_same(one, same)
        for parent, rows in zip(learnt.parents, one, strict=True):
            assert rows.shape == (7, parent.n_outputs)
    assert_same(before, learnt.get_state())


def test_frozen_module_sends_without_learning(case, learnt):
    messages = {"posterior", "n_sent_", "heard_", "learnt_from_", "parent_terms_", "frozen"}
    before = {k: v for k, v in state_of(learnt).items() if k not in messages}
    posterior, new = learnt.posterior, case.below(images(case.n_new, seed=1))
    learnt.freeze().update()
    assert learnt.posterior is not posterior
    assert_same(posterior.up, learnt.message_up)
    learnt.connect(*new).update()
    assert_same(before, {k: learnt.get_state()[k] for k in before})
    up, _, _, *down = belief(learnt, [parent.message_up for parent in new])
    assert_same([up, *down], [learnt.message_up, *learnt.messages_down])


def test_freezing_before_learning_is_an_error(case):
    module = case.module.connect(*case.below(images())).freeze()
    with pytest.raises(NotReadyError, match=f"{type(module).__name__} is frozen but has learnt no"):
        module.update()
    assert len(module.unfreeze().update().history_) == 1


# -- random states ---------------------------------------------------------------------------------


def test_same_seed_gives_same_bits_whatever_the_global_states(case, learnt):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert_same(trained(case).get_state(), learnt.get_state())


def test_no_seed_takes_a_fresh_one(kind):
    unseeded = [clone(kind.module).set_params(random_state=None) for _ in range(2)]
    seeds = [trained(kind, 1, module).rng().bit_generator.state for module in unseeded]
    assert seeds[0] != seeds[1]


def test_global_states_stay_untouched(case, tmp_path):
    before, filters = global_states(), [*warnings.filters]
    graph = Graph(trained(case, 1))
    graph.predict(*new_rows(case))
    graph.save(tmp_path / "graph")
    Graph.load(tmp_path / "graph", custom=code_of(graph))
    assert_same(before, global_states())
    assert filters == warnings.filters  # in threads scikit-learn's catch_warnings mix them up


def global_states():
    """What belongs to the whole process or thread, and so to the user."""
    return {
        "generators": [random.getstate(), np.random.get_state(), torch.get_rng_state()],  # noqa: NPY002
        "torch": [str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads()],
        "errors": np.geterr(),
        "printing": np.get_printoptions(),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": {str(name): str(signal.getsignal(name)) for name in signal.valid_signals()},
        "logging": [logging.root.level, len(logging.root.handlers)],
    }


def test_fits_in_eight_threads_are_those_in_a_row(kind):
    name, before = CLASSES[type(kind.module)], global_states()
    expected = trained_once(name).get_state()
    with ThreadPoolExecutor(8) as pool:
        for module in pool.map(lambda _: trained(fresh(name)), range(8)):
            assert_same(expected, module.get_state())
    assert_same(before, global_states())


def test_fits_of_all_kinds_in_threads_do_not_disturb_each_other():
    expected = {name: trained_once(name).get_state() for name in CASES}
    with ThreadPoolExecutor(8) as pool:
        for name, module in zip(CASES, pool.map(lambda n: trained(fresh(n)), CASES), strict=True):
            assert_same(expected[name], module.get_state(), name)


@contextmanager
def odd_surroundings():
    """All that a user may have set for other work, at once."""
    torch.set_default_dtype(torch.float64)
    try:
        with (
            torch.device("meta"),
            torch.no_grad(),
            torch.inference_mode(),
            np.errstate(all="raise"),
            warnings.catch_warnings(action="error"),
        ):
            warnings.simplefilter("ignore", UserWarning)  # what modules themselves warn of
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_set_for_other_work_changes_nothing(case, learnt):
    new = new_rows(case)
    with odd_surroundings():
        before = global_states()
        module = trained(case)
        messages = Graph(module).predict(*new).messages
        assert_same(before, global_states())
    assert_same(module.get_state(), learnt.get_state())
    assert_same(messages, Graph(learnt).predict(*new).messages)


# -- copies and files ------------------------------------------------------------------------------


def by_file(value, path):
    joblib.dump(value, path)
    return joblib.load(path)


COPIES = {
    "deepcopy": lambda value, _: copy.deepcopy(value),
    "pickle": lambda value, _: pickle.loads(pickle.dumps(value)),
    "joblib": by_file,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_independent_and_give_the_same_numbers(case, learnt, way, tmp_path):
    new, inputs = new_rows(case), new_messages(case)
    again = COPIES[way](learnt, tmp_path / "module")
    graph, twin = Graph(learnt), COPIES[way](Graph(learnt), tmp_path / "graph")
    others = {id(node) for node in learnt.ancestors()}
    for other in (again, twin.modules[-1]):
        assert not others & {id(node) for node in other.ancestors()}
        assert all(parent.children[-1] is other for parent in other.parents)
        assert_same(learnt.get_state(), other.get_state())
        assert_same(belief(learnt, inputs), belief(other, inputs))
    assert_same(graph.predict(*new).messages, twin.predict(*new).messages)
    again.update()
    assert len(learnt.history_) == 2
    assert_same(learnt.update().get_state(), again.get_state())


def test_a_clone_is_unconnected_and_learns_the_same(case, learnt):
    again = clone(learnt)
    assert (again.parents, again.children, again.history_) == ((), (), ())
    assert_same(learnt.get_state(), trained(case, module=again).get_state())


def code_of(graph):
    """Arguments that a saved graph does not hold."""
    return {
        f"{name}.{key}": value
        for name, node in graph.names.items()
        if isinstance(node, Module)
        for key, value in node.get_params(deep=False).items()
        if isinstance(format.described(value), format.Custom)
    }


def test_load_gives_back_what_was_saved(case, learnt, tmp_path):
    graph, new = Graph(learnt), new_rows(case)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", custom=code_of(graph))
    again = loaded.modules[-1]
    assert_same(learnt.get_state(), again.get_state())
    assert again.get_params().keys() == learnt.get_params().keys()
    assert_same(graph.predict(*new).messages, loaded.predict(*new).messages)
    inputs = new_messages(case)
    assert_same(belief(learnt, inputs), belief(again, inputs))


def test_loaded_module_trains_on_like_the_original(learnt, tmp_path):
    graph = Graph(learnt)
    graph.save(tmp_path / "graph")
    data = [observation.data for observation in graph.observations]
    loaded = Graph.load(tmp_path / "graph", data=data, custom=code_of(graph))
    assert_same(learnt.update().get_state(), loaded.modules[-1].update().get_state())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", [*filter(has_device, CASES)], indirect=True)
def test_what_a_gpu_learnt_repeats_and_is_known_without_one(case, monkeypatch):
    monkeypatch.setattr(em, "is_worth_it", lambda rows, *_: rows.observed is None)
    there, again = (
        trained(case, module=clone(case.module).set_params(device="cuda")) for _ in range(2)
    )
    assert_same(there.get_state(), again.get_state())
    here = clone(there).set_params(device="cpu")
    here.set_state(there.get_state())
    messages = new_messages(case)
    for ours, theirs in zip(belief(here, messages), belief(there, messages), strict=True):
        if isinstance(ours, Message):
            assert_close(ours, theirs, rtol=1e-3, atol=1e-4)  # products in float32
    assert isinstance(pickle.loads(pickle.dumps(there)), type(there))


# -- what messages mean ----------------------------------------------------------------------------


def test_neutral_message_from_a_child_changes_nothing(case, learnt):
    if case.module.sends_up is None:
        pytest.skip("has no children")
    module = case.module.connect(*case.below(images()))
    teller = Teller(neutral(module)).connect(module)
    module.update()
    teller.update()
    module.update()
    assert_close(module.message_up, learnt.message_up, rtol=1e-6, atol=1e-9)
    for one, other in zip(module.messages_down, learnt.messages_down, strict=True):
        if one is not None and other is not None:
            assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_message_up_leaves_out_what_the_children_said(case, learnt):
    if case.module.sends_up not in (Gaussian, Categorical):
        pytest.skip("its children's messages are of another kind")
    before, other = learnt.message_up, trained(case, updates=1).message_up
    Teller(other).connect(learnt).update()
    assert_same(other, learnt.received_from_children())
    learnt.freeze().update()
    assert_same(before, learnt.message_up)


def test_permuted_rows_give_permuted_messages(case, learnt):
    if case.ordered or case.module.sends_up is None:
        pytest.skip("neighbours matter, or nothing is sent")
    inputs, order = learnt.received_from_parents(), np.random.default_rng(0).permutation(N)
    plain = learnt.infer(inputs, None).up
    other = learnt.infer([permuted(message, order) for message in inputs], None).up
    assert_close(permuted(plain, order), other, rtol=1e-5, atol=1e-6)


def permuted(message: Message, order: np.ndarray) -> Message:
    """The message of some rows, in another order."""
    names = [field.name for field in fields(message) if not field.kw_only]
    rows = {n: v[order] for n in names if (v := getattr(message, n)) is not None}
    return type(message)(**{**vars(message), **rows})


# -- what cannot work loses nothing ----------------------------------------------------------------


def test_arguments_that_cannot_work_lose_nothing(case, learnt):
    good = {name: getattr(learnt, name) for name in case.spoilt}
    learnt.set_params(**case.spoilt)
    before = state_of(learnt)
    with pytest.raises(InputError, match=type(learnt).__name__):
        learnt.update()
    assert_same(before, learnt.get_state())
    learnt.set_params(**good)
    assert len(learnt.update().history_) == 3


def breaks_off(*args, **options):
    raise KeyboardInterrupt


def test_an_update_that_breaks_off_changes_nothing(learnt, monkeypatch):
    """Though all is learnt, in place too, when it does."""
    before, twin = state_of(learnt), copy.deepcopy(learnt)
    with monkeypatch.context() as patch:
        patch.setattr(type(learnt), "infer", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            learnt.update()
    assert_same(before, learnt.get_state())
    assert_same(twin.update().get_state(), learnt.update().get_state())


ARRAYS = {MarkovModel: [np.log(np.full((N, K), 1 / K))], GMMClassifier: [LABELS]}
FITS = [(k, name) for k in CLASSES for name in ("fit", "partial_fit") if hasattr(k, name)]


@pytest.mark.parametrize(("kind", "method"), FITS, indirect=["kind"])
def test_learning_from_arrays_counts_as_a_whole_or_not_at_all(kind, method, monkeypatch):
    module, rows = kind.module, images().reshape(N, 16)
    arrays = ARRAYS.get(type(module), [])
    arrays = arrays if isinstance(module, MarkovModel) else [rows, *arrays]
    getattr(module, method)(*arrays)
    before, twin = state_of(module), copy.deepcopy(module)
    learn, again = getattr(module, method), getattr(twin, method)
    with monkeypatch.context() as patch:
        patch.setattr(Module, "record", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            learn(*arrays)
    assert_same(before, module.get_state())
    assert_same(again(*arrays).get_state(), learn(*arrays).get_state())


@pytest.mark.parametrize(("kind", "method"), FITS, indirect=["kind"])
def test_a_frozen_module_does_not_learn_from_arrays(kind, method):
    text = rf"{type(kind.module).__name__}\.{method}: it is frozen .* call unfreeze\(\) first"
    with pytest.raises(NotReadyError, match=text):
        getattr(kind.module.freeze(), method)(None)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (np.full((4, 4, 4), np.nan), r"NaN or infinity in 4 of 4 rows"),
        (np.zeros((0, 4, 4)), r"at least one row"),
        ([["a", "b"]], "expected real numbers"),
        (np.zeros((4, 5, 5)), r"shape \(4, 4\).*got \(5, 5\)"),
    ],
    ids=["nan", "empty", "strings", "shape"],
)
def test_rows_that_cannot_be_predicted_lose_nothing(case, learnt, rows, text):
    graph, before = Graph(learnt), state_of(learnt)
    with pytest.raises(InputError, match=text):
        graph.predict(rows, *new_rows(case)[1:])
    assert_same(before, learnt.get_state())


def test_child_that_speaks_of_other_rows_is_an_error(learnt):
    if learnt.sends_up is None:
        pytest.skip("has no children")
    before = state_of(learnt)
    message = permuted(neutral(learnt), np.arange(2 * N) % learnt.rows_sent(N))
    Teller(message).connect(learnt).posterior = Posterior(down=(message,))
    with pytest.raises(InputError, match=rf"{type(learnt).__name__}.*{2 * N} rows.*{N}"):
        learnt.update()
    assert_same(before, learnt.get_state())

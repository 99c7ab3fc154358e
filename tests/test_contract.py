"""What holds for every module: one set of tests, run on each, and on a user-written one."""

import copy
import random
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from serkit import Graph, Module, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.modules import (
    AE,
    GMM,
    MLDA,
    VAE,
    Features,
    GMMClassifier,
    GroupSum,
    LabelAlignment,
    MarkovModel,
    MultinomialVAE,
    RandomAffine,
    Sklearn,
    Supervised,
)
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
LABELS = np.array(["ape", "bee", "cat"])[np.arange(N) % K]

CASES = {
    "ae": Case(AE(2, **NET), BAD_NET),
    "ae-pulled": Case(AE(2, alpha=1.0, kl_target="expected", **NOISY), BAD_NET),
    "vae": Case(VAE(2, **NET), BAD_NET),
    "vae-mixture": Case(VAE(2, kl_target="mixture", **NOISY), BAD_NET),
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
    "markov": Case(MarkovModel(random_state=SEED), {"lengths": [N + 1]}, on_classes, ordered=True),
    "markov-groups": Case(
        MarkovModel(groups=np.arange(N) % 7, transition_prior=1.5, random_state=SEED),
        {"max_iter": 0},
        on_classes,
        n_new=N,
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


@pytest.fixture(params=CASES)
def case(request):
    """Each case with a fresh, unconnected module."""
    chosen = CASES[request.param]
    return chosen._replace(module=clone(chosen.module))


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


def new_messages(case, seed=1):
    """What the parents send of new rows."""
    return [parent.message_up for parent in case.below(images(case.n_new, seed))]


def new_rows(case, seed=1):
    """New rows of each observation."""
    modules = Graph(*case.below(images(case.n_new, seed))).modules
    return [module.data for module in modules if isinstance(module, Observation)]


def neutral(module):
    """The message that says nothing: N(0, I), or every class equally probable."""
    n_rows = module.rows_sent(N)
    if module.sends_up is Gaussian:
        return Gaussian.standard(n_rows, module.size)
    return Categorical.uniform(n_rows, module.size or K)


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


def test_constructor_only_stores(module):
    given = module.get_params(deep=False)
    made = type(module)(**given)
    assert all(getattr(made, name) is value for name, value in given.items())
    assert [name for name in vars(made) if name.endswith("_")] == []
    assert not made.history_
    assert str(clone(module).get_params(deep=False)) == str(given)


def test_update_returns_self_and_sends_the_declared_messages(case):
    module = case.module.connect(*case.below(images()))
    assert module.update() is module
    up, kind = module.message_up, module.sends_up
    assert type(up) is (kind or type(None))
    if up is not None:
        assert up.n_rows == module.rows_sent(N)
        assert np.prod(up.shape) == module.size
    for parent, down in zip(module.parents, module.messages_down, strict=True):
        assert down is None or type(down) is module.sends_down_to(parent)
        assert down is None or down.n_rows == N
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


def test_passing_new_rows_changes_nothing(case):
    module = trained(case)
    before, new = state_of(module), new_messages(case)
    up = module.forward(new)
    assert up is None or up.n_rows == module.rows_sent(case.n_new)
    down = module.backward(new, None)
    assert all(message is None or message.n_rows == case.n_new for message in down)
    module.objective(module.received_from_parents(), None)
    assert_same(before, module.get_state())


def test_frozen_module_sends_without_learning(case):
    module = trained(case).freeze()
    before = state_of(module)
    messages = module.message_up
    module.update()
    assert_same(before, module.get_state())
    assert module.message_up is not messages or messages is None
    new = case.below(images(case.n_new, seed=1))
    module.connect(*new).update()
    learnt = {k: v for k, v in before.items() if "message" not in k}
    assert_same(learnt, {k: module.get_state()[k] for k in learnt})
    assert_same(module.forward([parent.message_up for parent in new]), module.message_up)
    assert all(m is None or m.n_rows == case.n_new for m in module.messages_down)


def test_freezing_before_learning_is_an_error(case):
    module = case.module.connect(*case.below(images())).freeze()
    with pytest.raises(NotReadyError, match=f"{type(module).__name__} is frozen but has learnt no"):
        module.update()
    assert len(module.unfreeze().update().history_) == 1


def test_same_seed_gives_same_bits(case):
    again = trained(case, module=clone(case.module))
    assert_same(again.get_state(), trained(case).get_state())


def test_no_seed_takes_a_fresh_one(case):
    if "random_state" not in case.module.get_params():
        pytest.skip("draws nothing")
    fresh = [clone(case.module).set_params(random_state=None) for _ in range(2)]
    seeds = [trained(case, 1, module).rng().bit_generator.state for module in fresh]
    assert seeds[0] != seeds[1]


def test_global_random_states_stay_untouched(case, tmp_path):
    def states():
        return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    before = states()
    graph = Graph(trained(case))
    graph.predict(*new_rows(case))
    graph.save(tmp_path / "graph")
    Graph.load(tmp_path / "graph", custom=code_of(graph))
    for one, other in zip(before, states(), strict=True):
        assert_same(one, other)


def code_of(graph):
    """Arguments that a saved graph does not hold."""
    return {
        f"{name}.{key}": value
        for name, module in graph.names.items()
        for key, value in module.arguments().items()
        if isinstance(format.described(value), format.Custom)
    }


def test_global_random_state_has_no_influence(case):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = trained(case, module=clone(case.module)).get_state()
        torch.manual_seed(2)
        np.random.seed(2)  # noqa: NPY002
        assert_same(first, trained(case).get_state())


def test_load_gives_back_what_was_saved(case, tmp_path):
    module, new = trained(case), new_rows(case)
    graph = Graph(module)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", custom=code_of(graph))
    again = loaded.modules[-1]
    assert_same(module.get_state(), again.get_state())
    assert again.get_params().keys() == module.get_params().keys()
    assert_same(graph.predict(*new).messages, loaded.predict(*new).messages)
    messages = new_messages(case)
    assert_same(module.backward(messages, None), again.backward(messages, None))


def test_loaded_module_trains_on_like_the_original(case, tmp_path):
    graph = Graph(trained(case))
    graph.save(tmp_path / "graph")
    data = [m.data for m in graph.modules if isinstance(m, Observation)]
    loaded = Graph.load(tmp_path / "graph", data=data, custom=code_of(graph))
    again = loaded.modules[-1]
    for parent in again.parents:
        parent.update()
    assert_same(case.module.update().get_state(), again.update().get_state())


def test_neutral_message_from_a_child_changes_nothing(case):
    if case.module.sends_up is None:
        pytest.skip("has no children")
    told = clone(case.module).connect(*case.below(images()))
    teller = Teller(neutral(told)).connect(told)
    told.update()
    teller.update()
    told.update()
    module = trained(case)
    assert_close(told.message_up, module.message_up, rtol=1e-6, atol=1e-9)
    for one, other in zip(told.messages_down, module.messages_down, strict=True):
        if one is not None and other is not None:
            assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_message_up_leaves_out_what_the_children_said(case):
    if case.module.sends_up not in (Gaussian, Categorical):
        pytest.skip("its children's messages are of another kind")
    module = trained(case)
    before = module.message_up
    other = trained(case, updates=1, module=clone(module)).message_up
    teller = Teller(other).connect(module)
    teller.update()
    assert_same(other, module.received_from_children())
    module.freeze().update()
    assert_same(before, module.message_up)


def test_permuted_rows_give_permuted_messages(case):
    if case.ordered or case.module.sends_up is None:
        pytest.skip("neighbours matter, or nothing is sent")
    module, order = trained(case), np.random.default_rng(0).permutation(N)
    inputs = module.received_from_parents()
    permuted = [type(m)(**{**vars(m), **permuted_rows(m, order)}) for m in inputs]
    plain, other = module.forward(inputs), module.forward(permuted)
    expected = type(plain)(**{**vars(plain), **permuted_rows(plain, order)})
    assert_close(expected, other, rtol=1e-5, atol=1e-6)


def permuted_rows(message, order):
    """The attributes of a message that have a row a row, in another order."""
    names = [field.name for field in fields(message) if not field.kw_only]
    return {n: v[order] for n in names if (v := getattr(message, n)) is not None}


def test_arguments_that_cannot_work_lose_nothing(case):
    module = trained(case)
    before = state_of(module)
    good = {name: getattr(module, name) for name in case.spoilt}
    module.set_params(**case.spoilt)
    with pytest.raises(InputError, match=type(module).__name__):
        module.update()
    assert_same(before, module.get_state())
    module.set_params(**good)
    assert len(module.update().history_) == 3


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
def test_rows_that_cannot_be_predicted_lose_nothing(case, rows, text):
    module = trained(case)
    graph, before = Graph(module), state_of(module)
    with pytest.raises(InputError, match=text):
        graph.predict(rows, *new_rows(case)[1:])
    assert_same(before, module.get_state())


def test_child_that_speaks_of_other_rows_is_an_error(case):
    if case.module.sends_up is None:
        pytest.skip("has no children")
    module = trained(case)
    before, whole = state_of(module), neutral(module)
    short = type(whole)(**permuted_rows(whole, np.arange(5)))
    teller = Teller(short).connect(module)
    teller.update()
    with pytest.raises(InputError, match=rf"{type(module).__name__}.*5 rows.*{N}"):
        module.update()
    assert_same(before, module.get_state())

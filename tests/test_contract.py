"""What holds for every module: one set of tests, run on each, and on a user-written one."""

import copy
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_module import KMeans, Teller
from test_persistence import assert_same

from serkit import Graph, Module, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical, Data, Gaussian
from serkit.modules import AE, GMM, VAE, GMMClassifier, RandomAffine


class Case(NamedTuple):
    module: Module
    spoilt: dict  # arguments with which no update can work


N, K, SEED = 60, 3, 7
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
}


@pytest.fixture(params=CASES)
def case(request):
    """Each case with a fresh, unconnected module."""
    module, spoilt = CASES[request.param]
    return Case(clone(module), spoilt)


@pytest.fixture
def module(case):
    return case.module


def images(n=N, seed=0):
    """Three prototypes of 4 x 4 pixels with noise, in [0, 1]: (n, 4, 4), float32."""
    prototypes = np.random.default_rng(99).uniform(0.1, 0.9, (K, 4, 4))
    rng = np.random.default_rng(seed)
    rows = prototypes[rng.integers(K, size=n)] + 0.08 * rng.standard_normal((n, 4, 4))
    return rows.clip(0, 1).astype(np.float32)


def trained(module, updates=2):
    module.connect(Observation(images(), name="images"))
    for _ in range(updates):
        module.update()
    return module


def neutral(module):
    """The message that says nothing: N(0, I), or every class equally probable."""
    if module.forward_kind is Gaussian:
        return Gaussian.standard(N, module.size)
    return Categorical.uniform(N, module.size)


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


def test_update_returns_self_and_sends_the_declared_messages(module):
    module.connect(Observation(images()))
    assert module.update() is module
    assert type(module.forward_message) is module.forward_kind
    assert module.forward_message.n_rows == N
    assert module.forward_message.shape == (module.size,)
    (down,) = module.backward_messages
    assert type(down) is module.backward_kind
    assert down.n_rows == N
    assert len(module.history_) == 1
    assert module.history_[0]["seconds"] >= 0


def test_one_message_down_for_each_parent(module):
    if getattr(module, "net", None) == "conv":
        pytest.skip("several parents are set side by side, which makes no images")
    rows = images()
    module.connect(Observation(rows[:, :1]), Observation(rows[:, 1:].reshape(N, 12)))
    first, second = module.update().backward_messages
    assert type(first) is type(second) is module.backward_kind
    if module.backward_kind is Data:
        assert (first.shape, second.shape) == ((1, 4), (12,))
    else:
        assert (first.means.shape[1], second.means.shape[1]) == (4, 12)


def test_passing_new_rows_changes_nothing(module):
    trained(module)
    before = state_of(module)
    new = [Data(images(n=5, seed=1))]
    assert module.forward(new).n_rows == 5
    assert [message.n_rows for message in module.backward(new, None)] == [5]
    module.objective(module.received_forward(), None)
    assert_same(before, module.get_state())


def test_frozen_module_sends_without_learning(module):
    trained(module).freeze()
    before = state_of(module)
    messages = module.forward_message
    module.update()
    assert_same(before, module.get_state())
    assert module.forward_message is not messages
    module.connect(Observation(images(n=9, seed=1))).update()
    learnt = {k: v for k, v in before.items() if "message" not in k}
    assert_same(learnt, {k: module.get_state()[k] for k in learnt})
    assert_same(module.forward([Data(images(n=9, seed=1))]), module.forward_message)
    assert [message.n_rows for message in module.backward_messages] == [9]


def test_freezing_before_learning_is_an_error(module):
    module.connect(Observation(images())).freeze()
    with pytest.raises(NotReadyError, match=f"{type(module).__name__} is frozen but has learnt no"):
        module.update()
    assert len(module.unfreeze().update().history_) == 1


def test_same_seed_gives_same_bits(module):
    assert_same(trained(clone(module)).get_state(), trained(module).get_state())


def test_no_seed_takes_a_fresh_one(module):
    seeds = [trained(clone(module).set_params(random_state=None), 1).seed_ for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_global_random_states_stay_untouched(module, tmp_path):
    def states():
        return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    before = states()
    graph = Graph(trained(module))
    graph.predict(images(n=4))
    graph.save(tmp_path / "graph")
    Graph.load(tmp_path / "graph")
    for one, other in zip(before, states(), strict=True):
        assert_same(one, other)


def test_global_random_state_has_no_influence(module):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = trained(clone(module)).get_state()
        torch.manual_seed(2)
        np.random.seed(2)  # noqa: NPY002
        assert_same(first, trained(module).get_state())


def test_load_gives_back_what_was_saved(module, tmp_path):
    new = images(n=5, seed=1)
    graph = Graph(trained(module))
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph")
    again = loaded.modules[-1]
    assert_same(module.get_state(), again.get_state())
    assert again.get_params().keys() == module.get_params().keys()
    assert_same(graph.predict(new).messages, loaded.predict(new).messages)
    assert_same(module.backward([Data(new)], None), again.backward([Data(new)], None))


def test_loaded_module_trains_on_like_the_original(module, tmp_path):
    graph = Graph(trained(module))
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[images()])
    assert_same(module.update().get_state(), loaded.modules[-1].update().get_state())


def test_neutral_message_from_a_child_changes_nothing(module):
    told = clone(module).connect(Observation(images()))
    teller = Teller(neutral(module)).connect(told)
    told.update()
    teller.update()
    told.update()
    trained(module)
    assert_close(told.forward_message, module.forward_message, rtol=1e-6, atol=1e-9)
    assert_close(told.backward_messages[0], module.backward_messages[0], rtol=1e-6, atol=1e-9)


def test_message_up_leaves_out_what_the_children_said(module):
    trained(module)
    before = module.forward_message
    other = trained(clone(module), updates=1).forward_message
    teller = Teller(other).connect(module)
    teller.update()
    assert_same(other, module.received_backward())
    module.freeze().update()
    assert_same(before, module.forward_message)


def test_permuted_rows_give_permuted_messages(module):
    trained(module)
    order = np.random.default_rng(0).permutation(N)
    plain, permuted = (module.forward([Data(rows)]) for rows in (images(), images()[order]))
    rows = {k: v if v is None else v[order] for k, v in vars(plain).items()}
    assert_close(type(plain)(**rows), permuted, rtol=1e-5, atol=1e-6)


def test_arguments_that_cannot_work_lose_nothing(case):
    module = trained(case.module)
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
def test_rows_that_cannot_be_predicted_lose_nothing(module, rows, text):
    graph = Graph(trained(module))
    before = state_of(module)
    with pytest.raises(InputError, match=text):
        graph.predict(rows)
    assert_same(before, module.get_state())


def test_child_that_speaks_of_other_rows_is_an_error(module):
    trained(module)
    before = state_of(module)
    short = type(neutral(module))(*(v[:5] for v in vars(neutral(module)).values()))
    teller = Teller(short).connect(module)
    teller.update()
    with pytest.raises(InputError, match=rf"{type(module).__name__}.*5 rows.*{N}"):
        module.update()
    assert_same(before, module.get_state())

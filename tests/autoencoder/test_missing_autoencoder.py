"""Rows that autoencoders did not see: they do not train, say nothing, and are predicted."""

import numpy as np
import pytest
import torch
from torch import distributions as dist

from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.module import bound_of
from serkit.modules import AE, GMM, VAE, MultinomialVAE
from tests.helpers import oracles
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same

N, N_OBSERVED, K, D = 30, 21, 3, 2
KINDS = {"ae": AE, "vae": VAE, "multinomial": MultinomialVAE}
every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture
def x():
    """Rows (30, 6) in [0, 1] of three kinds, in turn."""
    rng = np.random.default_rng(0)
    kinds = rng.uniform(0.1, 0.9, (K, 6))
    return (kinds[np.arange(N) % K] + rng.uniform(-0.1, 0.1, (N, 6))).clip(0, 1)


@pytest.fixture
def observed():
    """Most rows, in no order."""
    return np.random.default_rng(1).permutation(N) < N_OBSERVED


def tiny(kind, **options):
    size = K if kind is MultinomialVAE else D
    defaults = {"hidden_sizes": (8,), "epochs": 4, "batch_size": 8, "lr": 1e-2}
    places = {"random_state": 0, "device": "cpu", "precision": "float32"}
    return kind(size, **defaults | places | options)


def mixture(n=N):
    rng = np.random.default_rng(2)
    log_prob = np.log(rng.dirichlet(np.ones(K), n))
    return Mixture(log_prob, rng.normal(size=(K, D)), np.array([np.eye(D)] * K))


def message_for(kind, n=N):
    """What a child of the module might say."""
    return Categorical(mixture(n).log_prob) if kind is MultinomialVAE else mixture(n)


def rows_of(message, rows):
    """The same of some rows only."""
    if isinstance(message, Categorical):
        return Categorical(message.log_prob[rows])
    return Mixture(message.log_prob[rows], message.means, message.covariances)


def learnt(module):
    return {k: v for k, v in module.get_state().items() if k.endswith("_")}


def masked(x, observed, value=np.nan):
    """Rows of which those not observed hold something else."""
    return Data(np.where(observed[:, None], x, value), observed=observed)


# -- training ----------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("informed", [False, True], ids=["no message", "message"])
@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_training_is_that_on_the_rows_observed_alone(kind, x, observed, informed, held_out):
    """To the bit, early stopping included."""
    message = message_for(kind) if informed else None
    options = {"alpha": 1.0, "validation_fraction": held_out, "patience": 2}
    whole, part = tiny(kind, **options), tiny(kind, **options)
    whole.learn([masked(x, observed)], message)
    part.learn([Data(x[observed])], rows_of(message, observed) if informed else None)
    assert_same(learnt(whole), learnt(part))


@every
def test_what_stands_in_missing_rows_is_never_looked_at(kind, x, observed):
    """NaN, and values that a Bernoulli likelihood refuses."""
    inputs = [masked(x, observed, value) for value in (np.nan, 7.0)]
    modules = [tiny(kind) for _ in inputs]
    for module, given in zip(modules, inputs, strict=True):
        module.check([given], N)
        module.learn([given], None)
    assert_same(learnt(modules[0]), learnt(modules[1]))
    out_of_range = np.where(observed[:, None], 7.0, x)
    with pytest.raises(InputError, match=r"needs values in \[0, 1\], got \[7, 7\]"):
        tiny(kind).check([Data(out_of_range, observed=observed)], N)


@every
def test_a_row_is_observed_if_every_parent_saw_it(kind, x, observed):
    left, right = np.ones(N, bool), observed.copy()
    left[np.flatnonzero(observed)[0]] = False
    both = tiny(kind).connect(
        Observation(x[:, :2], observed=left), Observation(x[:, 2:], observed=right)
    )
    both.update()
    alone = tiny(kind).connect(Observation(x[left & right])).update()
    assert_same(both.nets_.state_dict(), alone.nets_.state_dict())
    np.testing.assert_array_equal(both.message_up.is_observed, left & right)
    assert [down.observed for down in both.messages_down] == [None, None]


@every
def test_no_row_to_learn_from_is_an_error(kind, x, observed):
    """Each view was observed in some rows, but none in the same."""
    views = [Observation(x, observed=mask) for mask in (observed, ~observed)]
    module = tiny(kind, name="mine").connect(*views)
    with pytest.raises(
        InputError, match=f"{kind.__name__} 'mine': no row is observed in all of its"
    ):
        Graph(module).check()
    assert not hasattr(module, "nets_")


@every
def test_rows_to_learn_from_are_counted_without_the_missing(kind, x, observed):
    module = tiny(kind, validation_fraction=0.04).connect(Observation(x, observed=observed))
    with pytest.raises(InputError, match=rf"validation_fraction=0.04 of {N_OBSERVED} rows"):
        module.update()
    tiny(kind, validation_fraction=0.04).connect(Observation(x)).update()
    few = np.arange(N) < 1
    module = tiny(kind, batch_norm=True).connect(Observation(x, observed=few))
    with pytest.raises(InputError, match="leaves one of 1 training rows alone"):
        module.update()


# -- messages ----------------------------------------------------------------------------------


@every
def test_message_up_says_nothing_of_missing_rows(kind, x, observed):
    module = tiny(kind).fit(x)
    whole, part = (module.infer([rows], None).up for rows in (Data(x), masked(x, observed)))
    np.testing.assert_array_equal(part.is_observed, observed)
    if kind is MultinomialVAE:
        np.testing.assert_array_equal(part.log_prob[observed], whole.log_prob[observed])
        np.testing.assert_array_equal(part.log_prob[~observed], -np.log(K))
        return
    np.testing.assert_array_equal(part.mean[observed], whole.mean[observed])
    np.testing.assert_array_equal(part.mean[~observed], 0)
    assert (part.var is None) == (kind is AE)
    if kind is VAE:
        np.testing.assert_array_equal(part.var[~observed], 1)


def expected_latents(kind, message, kl_target):
    """What missing rows are decoded from, by definition."""
    if message is None:
        return np.full((N, K), 1 / K) if kind is MultinomialVAE else np.zeros((N, D))
    if isinstance(message, Gaussian):
        return message.mean
    r = np.exp(message.log_prob)
    if kind is MultinomialVAE:
        return r
    return message.means[r.argmax(axis=1)] if kl_target == "assigned" else r @ message.means


GAUSSIAN = Gaussian(*np.random.default_rng(3).gamma(2.0, size=(2, N, D)))
SAID = [
    *(
        (kind, message, {"kl_target": target})
        for kind, targets in ((AE, ("assigned", "expected")), (VAE, ("assigned", "mixture")))
        for target in (*targets, "standard_normal")
        for message in (None, mixture(), GAUSSIAN)
    ),
    *((MultinomialVAE, message, {}) for message in (None, message_for(MultinomialVAE))),
]


@pytest.mark.parametrize(("kind", "message", "options"), SAID)
def test_missing_rows_are_decoded_from_what_the_children_say(kind, message, options, x, observed):
    module = tiny(kind, **options).fit(x)
    (down,) = module.read(module.infer([masked(x, observed)], message).down)
    assert down.observed is None
    predicted = module.decode(expected_latents(kind, message, options.get("kl_target")))
    np.testing.assert_allclose(down.array[~observed], predicted[~observed], atol=1e-6)
    np.testing.assert_allclose(down.array[observed], module.reconstruct(x)[observed], atol=1e-6)


@every
def test_rows_of_which_none_was_observed_are_predicted(kind, x):
    module = tiny(kind).fit(x)
    nothing = [Data(np.zeros((4, 6)), observed=np.zeros(4, bool))]
    posterior = module.infer(nothing, message_for(kind, 4))
    assert not posterior.up.is_observed.any()
    (down,) = module.read(posterior.down)
    assert len(np.unique(down.array.round(6), axis=0)) > 1
    assert bound_of(posterior) == 0


# -- objective ---------------------------------------------------------------------------------


@every
def test_missing_rows_add_nothing_to_the_objective(kind, x):
    """The rows observed come first, so that both calls draw the same noise for them."""
    module, observed = tiny(kind).fit(x), np.arange(N) < N_OBSERVED
    message = message_for(kind)
    whole = bound_of(module.infer([masked(x, observed)], message))
    part = bound_of(module.infer([Data(x[observed])], rows_of(message, observed)))
    assert whole == pytest.approx(part * N_OBSERVED / N, rel=1e-6)


def test_objective_of_vae_and_gmm_is_the_elbo_of_the_rows_observed(x, observed):
    """Divided by the number of all: -sum_k r_k KL(q || N_k) - KL(r || pi), 0 where missing."""
    vae = tiny(VAE, epochs=30).connect(Observation(x, observed=observed)).update()
    gmm = GMM(2, covariance_prior=1e-3, random_state=0).connect(vae).update()
    message, (down,) = vae.message_up, gmm.messages_down
    mean, var = (torch.tensor(values[observed]).double() for values in (message.mean, message.var))
    fields = (down.log_prob[observed], down.means.copy(), down.covariances.copy(), down.log_weights)
    kl = oracles.kl_to_mixture(mean, var.log(), *fields).sum() / N
    entropy = dist.Normal(mean, var.sqrt()).entropy().sum().item() / N
    assert gmm.posterior.bound + entropy == pytest.approx(-kl, rel=1e-5)


# -- in a graph --------------------------------------------------------------------------------


@pytest.fixture
def pairs():
    """Two views (120, 6) each of three kinds of rows, in turn."""
    rng = np.random.default_rng(4)
    kinds = rng.uniform(0.1, 0.9, (K, 12))
    rows = (kinds[np.arange(120) % K] + rng.uniform(-0.1, 0.1, (120, 12))).clip(0, 1)
    return rows[:, :6], rows[:, 6:]


@pytest.mark.parametrize("kind", [AE, VAE])
def test_a_missing_view_is_predicted_from_the_other(kind, pairs):
    """Also where parts of both were missing in training."""
    rng = np.random.default_rng(5)
    masks = [np.ones(120, bool), rng.random(120) < 0.8]
    options = {"epochs": (100, 30), "likelihood": "gaussian", "noise_variance": 0.01}
    options |= {"batch_size": 60, "hidden_sizes": (32,)}
    views = [Observation(rows, observed=mask) for rows, mask in zip(pairs, masks, strict=True)]
    gmm = GMM(K, random_state=0).connect(*(tiny(kind, **options).connect(view) for view in views))
    graph = Graph(gmm).fit(rounds=2, verbose=False)
    left, right = graph.reconstruct(pairs[0], None).values()
    blind = ((pairs[1] - pairs[1].mean(axis=0)) ** 2).mean()
    assert ((right - pairs[1]) ** 2).mean() < 0.3 * blind
    assert ((left - pairs[0]) ** 2).mean() < 0.3 * blind
    observed = np.arange(120) < 60
    _, mixed = graph.reconstruct(pairs[0], masked(pairs[1], observed)).values()
    np.testing.assert_allclose(mixed[~observed], right[~observed], atol=1e-5)


def test_classes_of_missing_rows_are_the_childrens(x, observed):
    module = tiny(MultinomialVAE, labels=np.arange(N) % K).connect(
        Observation(x, observed=observed)
    )
    module.update()
    classes = np.eye(K)[np.arange(N) % K] * 0.97 + 0.01
    teller = Teller(Categorical(np.log(classes))).connect(module)
    teller.update()
    module.freeze().update()
    clusters, own = module.posterior.clusters, module.message_up.log_prob.argmax(axis=1)
    np.testing.assert_array_equal(clusters[~observed], (np.arange(N) % K)[~observed])
    np.testing.assert_array_equal(clusters[observed], own[observed])

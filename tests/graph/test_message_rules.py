"""What messages say of rows that were not seen, and of class probabilities: prior or evidence."""

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax

from serkit.errors import InputError, MessageError
from serkit.messages import Categorical, Data, Gaussian, product
from tests.helpers import oracles
from tests.helpers.messages import K, N, log_probabilities, make

# -- rows that were not seen -------------------------------------------------------------------

SEEN = np.arange(N) % 2 == 0


@pytest.mark.parametrize(
    ("message", "neutral"),
    [
        (lambda x: Data(x, observed=SEEN), {"array": 0}),
        (lambda x: Gaussian(x, np.exp(x), observed=SEEN), {"mean": 0, "var": 1}),
        (lambda x: Categorical(log_softmax(x, 1), observed=SEEN), {"log_prob": -np.log(K)}),
    ],
    ids=["data", "gaussian", "categorical"],
)
def test_unseen_rows_say_nothing_whatever_stands_there(message, neutral):
    x = np.random.default_rng(0).normal(size=(N, K))
    spoilt = x.copy()
    spoilt[~SEEN] = np.nan
    for name, value in neutral.items():
        rows = getattr(message(spoilt), name)
        np.testing.assert_allclose(rows[~SEEN], value)
        np.testing.assert_array_equal(rows[SEEN], getattr(message(x), name)[SEEN])
    np.testing.assert_array_equal(message(x).is_observed, SEEN)


def test_a_mask_that_is_true_everywhere_is_none():
    message = Data(np.ones((N, 2)), observed=np.ones(N, dtype=bool))
    assert message.observed is None
    assert message.is_observed.all()


@pytest.mark.parametrize("mask", [np.ones(N - 1, dtype=bool), np.ones(N), np.ones((N, 1), bool)])
def test_a_mask_needs_one_boolean_a_row(mask):
    with pytest.raises(InputError, match=f"one boolean for each of the {N} rows"):
        Data(np.ones((N, 2)), observed=mask)


# -- priors and evidence -----------------------------------------------------------------------


def test_log_likelihood_divides_the_prior_out():
    """Bayes' rule by hand: P(k | x) from p(x | k) and P(k), and back."""
    rng = np.random.default_rng(0)
    likelihood, prior = rng.random((N, K)), rng.dirichlet(np.ones(K))
    posterior = oracles.bayes(np.log(likelihood), prior)
    message = Categorical(np.log(posterior), log_prior=np.log(prior))
    offset = message.log_likelihood - np.log(likelihood)
    np.testing.assert_allclose(offset, np.repeat(offset[:, :1], K, axis=1))


def test_a_prior_takes_the_place_of_the_receivers_own():
    rng = np.random.default_rng(0)
    likelihood, own = rng.random((N, K)), rng.dirichlet(np.ones(K))
    message = Categorical(np.log(oracles.bayes(np.log(likelihood), own)), log_prior=np.log(own))
    told, evidence = make(Categorical, 1), make(Categorical, 2)
    prior = Categorical(told.log_prob, is_prior=True)
    with_prior, with_both = message * prior, product([evidence, prior, message])
    expected = likelihood * np.exp(told.log_prob)
    np.testing.assert_allclose(np.exp(with_prior.log_prob), expected / expected.sum(1)[:, None])
    expected = expected * np.exp(evidence.log_prob)
    np.testing.assert_allclose(np.exp(with_both.log_prob), expected / expected.sum(1)[:, None])
    assert (with_prior.is_prior, with_both.is_prior, (message * evidence).is_prior) == (1, 1, 0)


def test_a_class_without_prior_probability_stays_impossible():
    message = Categorical([[0.0, -np.inf]], log_prior=[0.0, -np.inf])
    np.testing.assert_array_equal(message.log_likelihood, [[0.0, -np.inf]])


@pytest.mark.parametrize("log_prior", [np.zeros(K - 1), np.full(K, np.nan)])
def test_a_prior_of_another_length_is_refused(log_prior):
    with pytest.raises(MessageError, match=f"log_prior: expected {K} log-probabilities"):
        Categorical(log_probabilities(0), log_prior=log_prior)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_priors_and_evidence_does_not_matter(order):
    """Bayes' rule by hand: the likelihood times what was told, P(k) left out."""
    rng = np.random.default_rng(0)
    likelihood, own = rng.random((N, K)), rng.dirichlet(np.ones(K))
    up = Categorical(np.log(oracles.bayes(np.log(likelihood), own)), log_prior=np.log(own))
    evidence, told = make(Categorical, 1), make(Categorical, 2)
    messages = [up, evidence, Categorical(told.log_prob, is_prior=True)]
    expected = likelihood * np.exp(evidence.log_prob + told.log_prob)
    found = np.exp(product([messages[i] for i in order]).log_prob)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True))


def test_evidence_of_an_unseen_row_meets_the_prior():
    own, evidence = np.log([0.7, 0.2, 0.1]), make(Categorical, 1)
    unseen = Categorical(evidence.log_prob, log_prior=own, observed=np.zeros(N, dtype=bool))
    found = np.exp((unseen * evidence).log_prob)
    np.testing.assert_allclose(found, oracles.bayes(evidence.log_prob, np.exp(own)))

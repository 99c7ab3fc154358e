"""Forward-backward, Viterbi and draws against enumeration of every path, in float64."""

import numpy as np
import pytest
from hmmlearn.hmm import CategoricalHMM
from scipy.special import logsumexp
from scipy.stats import dirichlet

from serkit.modules.sequence import chains
from serkit.modules.sequence.chains import (
    Chain,
    ChainPrior,
    expectation_maximisation,
    forward_backward,
    viterbi,
)
from tests.helpers.chains import Enumeration


def problem(seed, n, k, scale=1.0, sparse=False, start_rate=0.25):
    """Random evidence (n, k), a chain, and starts; `sparse` chains have exact and tiny zeros."""
    rng = np.random.default_rng(seed)
    transition, initial = rng.dirichlet(np.ones(k), k), rng.dirichlet(np.ones(k))
    if sparse:
        transition *= rng.choice([0, 1e-200, 1.0], size=(k, k), p=[0.3, 0.2, 0.5])
        transition += np.diag(rng.choice([0.1, 1e-250], size=k))
        transition /= transition.sum(axis=1, keepdims=True)
    starts = rng.random(n) < start_rate
    starts[0] = True
    return rng.normal(size=(n, k)) * scale, Chain(transition, initial), starts


def one_by_one(evidence, chain, starts):
    """Filtering a row at a time, for chains too long to enumerate: log p(row | rows before)."""
    found, before = [], None
    with np.errstate(divide="ignore"):
        for row, first in zip(evidence, starts, strict=True):
            if first:
                predicted = np.log(chain.initial)
            else:
                predicted = logsumexp(before[:, None] + np.log(chain.transition), axis=0)
            found.append(logsumexp(predicted + row))
            before = predicted + row - found[-1]
    return np.array(found)


@pytest.fixture(params=["kept whole", "cut"], autouse=True)
def sequences(request, monkeypatch):
    """Short sequences are kept whole in a block; here also cut into several, as long ones are."""
    if request.param == "cut":
        monkeypatch.setattr(chains, "_LONGEST", 0)


# logs of up to 1e6, added up in different orders; float64 holds 1e-16 of each
ROUNDING = {"rtol": 1e-10, "atol": 1e-9}
SMALL = [(n, k) for n in range(1, 8) for k in (1, 2, 3)]
EXTREME = [(1.0, False), (1.0, True), (3000.0, False), (3000.0, True), (1e5, True)]


@pytest.mark.parametrize(("scale", "sparse"), EXTREME)
@pytest.mark.parametrize(("n", "k"), SMALL)
def test_forward_backward_equals_enumeration(n, k, scale, sparse):
    for seed in range(4):
        evidence, chain, starts = problem(seed, n, k, scale, sparse)
        found, oracle = (
            forward_backward(evidence, chain, starts),
            Enumeration(evidence, chain, starts),
        )
        np.testing.assert_allclose(found.log_normalisers.sum(), oracle.log_likelihood, **ROUNDING)
        np.testing.assert_allclose(found.log_posterior, oracle.posterior(), **ROUNDING)
        np.testing.assert_allclose(found.log_cavity, oracle.cavity(), **ROUNDING)
        np.testing.assert_allclose(found.transition_counts, oracle.transition_counts(), **ROUNDING)
        initial_counts = np.exp(oracle.posterior()[starts]).sum(axis=0)
        np.testing.assert_allclose(found.initial_counts, initial_counts, **ROUNDING)


@pytest.mark.parametrize(("scale", "sparse"), EXTREME)
@pytest.mark.parametrize(("n", "k"), SMALL)
def test_viterbi_path_is_the_best_of_all(n, k, scale, sparse):
    for seed in range(4):
        evidence, chain, starts = problem(seed, n, k, scale, sparse)
        path, log_joint = viterbi(evidence, chain, starts)
        oracle = Enumeration(evidence, chain, starts)
        np.testing.assert_allclose(log_joint, oracle.joint.max(), **ROUNDING)
        np.testing.assert_allclose(oracle.score(path), log_joint, **ROUNDING)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n", [99, 100, 101, 500])
def test_normalisers_of_long_chains_equal_filtering_row_by_row(n, sparse):
    arguments = problem(n, n, 4, 50.0, sparse, start_rate=0.02)
    found = forward_backward(*arguments).log_normalisers
    np.testing.assert_allclose(found, one_by_one(*arguments), **ROUNDING)


def test_path_only_an_underflowing_factor_allows_is_found():
    """State 1 is 5,000 nats worse in every row, but the only one from which 2 can be reached."""
    transition = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]])
    evidence = np.tile([0.0, -5000.0, -9000.0], (30, 1))
    evidence[-1] = [-np.inf, -np.inf, 0.0]
    chain, starts = Chain(transition, np.array([1.0, 0, 0])), np.arange(30) == 0
    found = forward_backward(evidence, chain, starts)
    expected = -5000.0 + 29 * np.log(0.5)  # 0 until row 27, 1 in row 28, 2 in row 29
    np.testing.assert_allclose(found.log_normalisers.sum(), expected, **ROUNDING)
    path, log_joint = viterbi(evidence, chain, starts)
    assert path.tolist() == [0] * 28 + [1, 2]
    np.testing.assert_allclose(log_joint, expected, **ROUNDING)


def test_no_transition_across_a_boundary():
    evidence, chain, _ = problem(0, 90, 3)
    lengths = [40, 1, 49]
    starts = np.isin(np.arange(90), np.cumsum([0, *lengths[:-1]]))
    whole = forward_backward(evidence, chain, starts)
    parts = [
        forward_backward(part, chain, np.arange(len(part)) == 0)
        for part in np.split(evidence, np.cumsum(lengths)[:-1])
    ]
    for name in ("log_normalisers", "log_posterior", "log_cavity"):
        expected = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(getattr(whole, name), expected, err_msg=name, **ROUNDING)
    counts = sum(part.transition_counts for part in parts)
    np.testing.assert_allclose(whole.transition_counts, counts, **ROUNDING)
    np.testing.assert_allclose(whole.transition_counts.sum(), 90 - len(lengths))
    np.testing.assert_allclose(whole.initial_counts.sum(), len(lengths))


def test_cavity_of_a_row_leaves_its_own_evidence_out():
    evidence, chain, starts = problem(1, 50, 3)
    before = forward_backward(evidence, chain, starts)
    evidence[20] += [5.0, -3.0, 0.0]
    after = forward_backward(evidence, chain, starts)
    np.testing.assert_allclose(after.log_cavity[20], before.log_cavity[20], **ROUNDING)
    assert np.abs(after.log_posterior[20] - before.log_posterior[20]).max() > 0.1
    neighbour = 21 if not starts[21] else 19
    assert np.abs(after.log_cavity[neighbour] - before.log_cavity[neighbour]).max() > 1e-3


def test_rows_without_evidence_are_marginalised():
    """Two steps through an unseen row are one step by the squared matrix."""
    evidence, chain, _ = problem(2, 3, 3)
    evidence[1] = 0
    found = forward_backward(evidence, chain, np.arange(3) == 0)
    skipping = Chain(chain.transition @ chain.transition, chain.initial)
    expected = forward_backward(evidence[[0, 2]], skipping, np.arange(2) == 0)
    np.testing.assert_allclose(found.log_posterior[[0, 2]], expected.log_posterior, **ROUNDING)
    np.testing.assert_allclose(
        found.log_normalisers.sum(), expected.log_normalisers.sum(), **ROUNDING
    )


def test_a_constant_a_row_only_moves_the_likelihood():
    evidence, chain, starts = problem(3, 40, 3)
    shift = np.random.default_rng(0).normal(size=(40, 1)) * 1000
    plain, moved = (forward_backward(e, chain, starts) for e in (evidence, evidence + shift))
    np.testing.assert_allclose(moved.log_posterior, plain.log_posterior, **ROUNDING)
    np.testing.assert_allclose(
        moved.log_normalisers, plain.log_normalisers + shift[:, 0], **ROUNDING
    )


def test_impossible_row_is_the_first_of_likelihood_zero():
    evidence, chain, starts = problem(4, 60, 3, start_rate=0)
    cycle = Chain(np.roll(np.eye(3), 1, axis=1), chain.initial)
    with np.errstate(divide="ignore"):
        evidence[30:33] = np.log(np.eye(3)[[0, 1, 1]])  # after 1 comes 2
    found = forward_backward(evidence, cycle, starts)
    assert np.flatnonzero(found.log_normalisers == -np.inf)[0] == 32
    assert viterbi(evidence, cycle, starts)[1] == -np.inf


def test_most_probable_chain_is_where_the_posterior_density_peaks():
    rng = np.random.default_rng(5)
    counts, initial_counts = rng.gamma(2, size=(3, 3)), rng.gamma(2, size=3)
    prior = ChainPrior(1 + rng.gamma(2, size=(3, 3)), 1 + rng.gamma(2, size=3))
    best = prior.m_step(counts, initial_counts, Chain(np.eye(3), np.ones(3) / 3))

    def log_posterior(chain):
        rows = zip(chain.transition, counts, prior.transition, strict=True)
        total = sum(dirichlet.logpdf(row, c + a) for row, c, a in rows)
        return total + dirichlet.logpdf(chain.initial, initial_counts + prior.initial)

    for _ in range(50):
        near = Chain(
            np.array([rng.dirichlet(500 * row) for row in best.transition]),
            rng.dirichlet(500 * best.initial),
        )
        assert log_posterior(near) < log_posterior(best)


def test_log_prior_is_the_dirichlets_up_to_a_constant():
    rng = np.random.default_rng(6)
    prior = ChainPrior(1 + rng.gamma(2, size=(3, 3)), 1 + rng.gamma(2, size=3))
    chains = [Chain(rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3))) for _ in range(2)]
    densities = [
        sum(map(dirichlet.logpdf, c.transition, prior.transition))
        + dirichlet.logpdf(c.initial, prior.initial)
        for c in chains
    ]
    found = [prior.log_density(c) for c in chains]
    np.testing.assert_allclose(found[0] - found[1], densities[0] - densities[1])


def test_state_without_counts_keeps_its_transitions():
    chain = Chain(np.array([[0.3, 0.7], [0.6, 0.4]]), np.array([0.5, 0.5]))
    flat = ChainPrior(np.ones((2, 2)), np.ones(2))
    found = flat.m_step(np.array([[2.0, 6.0], [0.0, 0.0]]), np.array([1.0, 0.0]), chain)
    np.testing.assert_allclose(found.transition, [[0.25, 0.75], [0.6, 0.4]])
    np.testing.assert_allclose(found.initial, [1, 0])


@pytest.mark.parametrize("concentration", [1.0, 3.0])
def test_expectation_maximisation_takes_hmmlearns_steps(concentration):
    """Fifty of them, of symbols with known emission probabilities: only the chain is learnt."""
    rng = np.random.default_rng(7)
    emission = rng.dirichlet(np.ones(4), 3)
    symbols, starts = rng.integers(4, size=120), np.isin(np.arange(120), [0, 50])
    peer = CategoricalHMM(
        3,
        params="st",
        init_params="",
        transmat_prior=concentration,
        startprob_prior=concentration,
        n_iter=50,
        tol=1e-12,
    )
    peer.startprob_ = np.full(3, 1 / 3)
    peer.transmat_ = start = rng.dirichlet(np.ones(3), 3)
    peer.emissionprob_ = emission
    peer.fit(symbols[:, None], [50, 70])
    evidence = np.log(emission[:, symbols]).T
    solution = expectation_maximisation(
        lambda chain: forward_backward(evidence, chain, starts),
        Chain(start, np.full(3, 1 / 3)),
        ChainPrior(np.full((3, 3), concentration), np.full(3, concentration)),
        50,
        1e-12,
    )
    assert np.diff(solution.lower_bound).min() > -1e-12
    assert solution.lower_bound[-1] > solution.lower_bound[0] + 1e-3
    np.testing.assert_allclose(solution.chain.transition, peer.transmat_, **ROUNDING)
    score = peer.score(symbols[:, None], [50, 70]) / 120
    np.testing.assert_allclose(solution.log_likelihood[-1], score, **ROUNDING)


def test_drawn_paths_have_the_chains_frequencies():
    chain = Chain(np.array([[0.9, 0.1, 0], [0, 0.5, 0.5], [0.3, 0, 0.7]]), np.array([0, 1.0, 0]))
    path = chain.draw(40_000, np.random.default_rng(0))
    assert path[0] == 1
    counts = np.zeros((3, 3))
    np.add.at(counts, (path[:-1], path[1:]), 1)
    assert (counts[chain.transition == 0] == 0).all()
    n = counts.sum(axis=1, keepdims=True)
    error = np.sqrt(chain.transition * (1 - chain.transition) / n)
    assert (np.abs(counts / n - chain.transition) <= 5 * error).all()
    firsts = np.array([chain.draw(1, np.random.default_rng(s)).item() for s in range(20)])
    assert (firsts == 1).all()

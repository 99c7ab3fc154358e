"""The joint objective of random small graphs of exact modules, against enumeration of all paths."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from serkit import Graph, Observation
from serkit.modules import GMM, MarkovModel
from serkit.modules.mixture import components

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def random_graph(seed):
    """One to three modalities, a mixture each; over them a chain, or of one modality maybe none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, size=rng.integers(3, 6))
    n, k, n_modalities = lengths.sum(), int(rng.integers(2, 4)), int(rng.integers(1, 4))
    classes = rng.integers(k, size=n)
    mixtures = []
    for number in range(n_modalities):
        d = int(rng.integers(1, 4))
        rows = rng.normal(size=(k, d))[classes] + rng.normal(size=(n, d))
        observed = rng.random(n) < 0.8 if rng.random() < 0.3 else None
        gmm = GMM(
            k,
            covariance_type=str(rng.choice(COVARIANCE_TYPES)),
            mean_prior=np.zeros(d),
            covariance_prior=1.0,
            n_init=(1, 0),  # starts are judged by their likelihood alone
            tol=1e-6,
            random_state=seed,
            name=f"gmm{number}",
        )
        mixtures.append(gmm.connect(Observation(rows, observed=observed)))
    if n_modalities == 1 and rng.random() < 0.3:
        return Graph(mixtures[0]), [n], rng
    markov = MarkovModel(lengths=lengths, n_split_merge=0, name="markov")
    return Graph(markov.connect(*mixtures)), lengths, rng


def log_densities(graph):
    """Log p(all modalities of row n | k), (N, K), by scipy; missing values say nothing."""
    total = 0.0
    for gmm in (module for module in graph.modules if isinstance(module, GMM)):
        (message,) = gmm.received_from_parents()
        density = gmm.density()
        columns = [
            multivariate_normal(mean, covariance).logpdf(message.array).reshape(-1)
            for mean, covariance in zip(density.means, density.full_covariances(), strict=True)
        ]
        total = total + np.where(message.is_observed[:, None], np.stack(columns, axis=1), 0.0)
    return total


def log_prior_of_parameters(graph):
    """Log p(means, covariances) of all mixtures, which MAP-EM counts beside the evidence."""
    return sum(
        components.log_prior(gmm.density(), components.Prior(*hyperparameters(gmm)))
        for gmm in graph.modules
        if isinstance(gmm, GMM)
    )


def hyperparameters(gmm):
    """Those of the prior: m0, kappa, nu, S0 and the weights' concentration."""
    d = gmm.means_.shape[1]
    return np.zeros(d), 1.0, d + 2, np.eye(d), 1.0


def log_evidence_by_enumeration(graph, lengths):
    """Log p(all rows) per row: the sum over every path of classes through every sequence."""
    log_density, total, start = log_densities(graph), 0.0, 0
    if "markov" not in graph:
        return logsumexp(log_density + np.log(graph["gmm0"].weights_), axis=1).mean()
    with np.errstate(divide="ignore"):
        transition, initial = np.log(graph["markov"].transition_), np.log(graph["markov"].initial_)
    for length in lengths:
        paths = itertools.product(range(len(initial)), repeat=int(length))
        of_paths = [
            initial[path[0]]
            + sum(transition[i, j] for i, j in itertools.pairwise(path))
            + sum(log_density[start + t, k] for t, k in enumerate(path))
            for path in paths
        ]
        total += logsumexp(of_paths)
        start += length
    return total / len(log_density)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.filterwarnings("ignore:.*lost all their rows")
def test_the_objective_is_the_exact_log_evidence_and_never_falls(seed):
    """After any number of modules that learn in any order between two words of the chain.

    What never falls is the evidence times the mixtures' prior, which MAP-EM maximises.
    """
    graph, lengths, rng = random_graph(seed)
    learners = [name for name in graph if hasattr(graph[name], "update")]
    for name in learners:
        graph[name].update()
    n_rows = graph.observations[0].n_rows
    maximised = [n_rows * graph.objective() + log_prior_of_parameters(graph)]
    for _ in range(6):
        below = [name for name in learners if name != "markov"]
        for name in rng.permutation(below)[: rng.integers(1, len(below) + 1)]:
            graph[name].update()
        for _ in range(rng.integers(1, 3) if "markov" in graph else 0):
            graph["markov"].update()
        exact = log_evidence_by_enumeration(graph, lengths)
        np.testing.assert_allclose(graph.objective(), exact, rtol=1e-9, atol=1e-9)
        maximised.append(n_rows * exact + log_prior_of_parameters(graph))
    assert np.diff(maximised).min() > -1e-8  # rounding of sums over at most 25 rows

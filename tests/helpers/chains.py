"""A Markov chain by enumeration of every path, and one above a mixture that is stuck."""

from itertools import product

import numpy as np
from scipy.special import logsumexp

from serkit import Graph, Observation
from serkit.modules import GMM, MarkovModel


class Enumeration:
    """All K^N paths with their log-probabilities, with and without the rows' evidence."""

    def __init__(self, evidence, chain, starts):
        self.n, self.k = evidence.shape
        self.paths = np.array(list(product(range(self.k), repeat=self.n)))  # (K^N, N)
        self.own = evidence[np.arange(self.n), self.paths]  # (K^N, N)
        with np.errstate(divide="ignore"):
            transition, initial = np.log(chain.transition), np.log(chain.initial)
        self.prior = np.zeros(len(self.paths))
        for t in range(self.n):
            step = (initial[k] if starts[t] else transition[j, k] for j, k in self._steps(t))
            self.prior = self.prior + np.fromiter(step, float)
        self.starts = starts
        self.joint = self.prior + self.own.sum(axis=1)
        self.log_likelihood = logsumexp(self.joint)

    def _steps(self, t):
        return zip(self.paths[:, t - 1], self.paths[:, t], strict=True)

    def marginal(self, weights, t):
        """Log of normalised sums of exp(weights) over the paths through each class at row t."""
        sums = [logsumexp(weights[self.paths[:, t] == k]) for k in range(self.k)]
        return np.array(sums) - logsumexp(sums)

    def posterior(self):
        return np.array([self.marginal(self.joint, t) for t in range(self.n)])

    def cavity(self):
        return np.array([self.marginal(self.joint - self.own[:, t], t) for t in range(self.n)])

    def transition_counts(self):
        counts = np.zeros((self.k, self.k))
        for t in np.flatnonzero(~self.starts):
            for weight, step in zip(self.joint - self.log_likelihood, self._steps(t), strict=True):
                counts[step] += np.exp(weight)
        return counts

    def score(self, path):
        return self.joint[(self.paths == path).all(axis=1)].item()


# -- a mixture that is stuck ----------------------------------------------------------------------

K = 4
CYCLE = np.tile(np.arange(K), 60)  # 0, 1, 2, 3, 0, ...
# classes 0 and 2 lie together, class 1 far apart in two halves, class 3 by itself
PLACES = np.array([[0.0, 0.0], [20.0, 0.0], [1.2, 0.0], [0.0, 20.0]])
HALVES = np.array([[0.0, 0.0], [0.0, 8.0]])
STUCK = [[0.5, 0], [20, 0], [20, 8], [0, 20]]


def rows_of(classes, seed=0):
    """Rows (N, 2) whose mixture likes best to hold classes 0 and 2 in one and 1 in two."""
    rng = np.random.default_rng(seed)
    halves = (classes == 1) * rng.integers(2, size=len(classes))
    return PLACES[classes] + HALVES[halves] + rng.normal(scale=0.5, size=(len(classes), 2))


def stuck_graph(lengths=None, **options):
    """A Markov model above a mixture that starts with two classes in one and one in two."""
    gmm = GMM(K, means_init=STUCK, n_init=1, labels=CYCLE, random_state=0)
    gmm.connect(Observation(rows_of(CYCLE), lengths=lengths))
    markov = MarkovModel(lengths=lengths, labels=CYCLE, name="markov", **options)
    return Graph(markov.connect(gmm))

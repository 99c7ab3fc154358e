"""Slow references, one row and one component at a time, that share no code with serkit."""

import warnings
from itertools import permutations

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import dirichlet, invwishart, multivariate_normal, norm
from sklearn.mixture import GaussianMixture
from torch import distributions as dist


def within(estimates, expected, n_errors=5.0):
    """Whether the mean of Monte-Carlo `estimates` (S, ...) is within standard errors of expected.

    Five errors: a correct implementation fails about once in two million comparisons.
    """
    estimates = np.asarray(estimates, dtype=np.float64)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    return np.abs(estimates.mean(axis=0) - expected) <= n_errors * error + 1e-12


def as_type(matrices, counts, covariance_type):
    """Covariances (K, D, D) in the shape of a covariance type, pooled by counts where tied."""
    if covariance_type == "full":
        return matrices
    if covariance_type == "tied":
        return np.average(matrices, axis=0, weights=counts)
    diagonals = np.array([np.diag(m) for m in matrices])
    return diagonals if covariance_type == "diag" else diagonals.mean(axis=1)


def as_matrices(covariances, covariance_type, k, d):
    """Covariances of any type as a list of K matrices (D, D)."""
    return [
        {
            "full": lambda j: covariances[j],
            "tied": lambda j: covariances,
            "diag": lambda j: np.diag(covariances[j]),
            "spherical": lambda j: covariances[j] * np.eye(d),
        }[covariance_type](j)
        for j in range(k)
    ]


def map_update(x, variances, resp, covariance_type, m0, kappa, nu, scale, concentration=1.0):
    """DESIGN.md's MAP formulas, component by component: weights, means, covariances."""
    n, d = x.shape
    k = resp.shape[1]
    means, scatters, counts = np.empty((k, d)), np.empty((k, d, d)), resp.sum(axis=0)
    for j in range(k):
        centre = sum(resp[i, j] * x[i] for i in range(n)) / counts[j]
        means[j] = (kappa * m0 + counts[j] * centre) / (kappa + counts[j])
        scatters[j] = sum(
            resp[i, j] * (np.outer(x[i] - centre, x[i] - centre) + np.diag(variances[i]))
            for i in range(n)
        )
        shrink = kappa * counts[j] / (kappa + counts[j])
        scatters[j] += shrink * np.outer(centre - m0, centre - m0)
    if covariance_type == "tied":  # one matrix under the prior, K means that each depend on it
        covariances = (scale + scatters.sum(axis=0)) / (nu + n + k + d + 1)
    else:
        each = [(scale + scatters[j]) / (nu + counts[j] + d + 2) for j in range(k)]
        covariances = as_type(each, counts, covariance_type)
    weights = (counts + concentration - 1) / (n + k * (concentration - 1))
    return weights, means, covariances


def log_prior(parameters, m0, kappa, nu, scale, concentration):
    """Log normal-inverse-Wishart and Dirichlet by scipy; one Wishart term if the matrix is tied."""
    k, d = parameters.means.shape
    matrices = as_matrices(parameters.covariances, parameters.covariance_type, k, d)
    total = dirichlet.logpdf(parameters.weights, np.full(k, concentration))
    for j in range(k):
        total += multivariate_normal.logpdf(parameters.means[j], m0, matrices[j] / kappa)
        if j == 0 or parameters.covariance_type != "tied":
            total += invwishart.logpdf(matrices[j], nu, scale)
    return total


def posterior_mean_covariances(groups, covariance_type, m0, kappa, nu, scale):
    """E[Sigma | rows of each component]: inverse-Wishart by scipy, restricted types by quadrature.

    For a variance on the grid the mean is integrated analytically: the density at its conditional
    mode times the square root of the variance.
    """
    scatters = []
    for x in groups:
        centre = x.mean(axis=0)
        shrink = kappa * len(x) / (kappa + len(x))
        scatters.append((x - centre).T @ (x - centre) + shrink * np.outer(centre - m0, centre - m0))
    if covariance_type == "tied":
        return invwishart.mean(nu + sum(map(len, groups)), scale + np.sum(scatters, axis=0))
    if covariance_type == "full":
        pairs = zip(groups, scatters, strict=True)
        return np.array([invwishart.mean(nu + len(x), scale + s) for x, s in pairs])

    d, grid = len(m0), np.geomspace(1e-2, 1e3, 4000)

    def log_density(x, j):
        """Dimension j's factor: likelihood, mean's prior, matrix's prior, integral over mean."""
        mode = (kappa * m0[j] + x[:, j].sum()) / (kappa + len(x))
        data = norm.logpdf(x[:, j, None], mode, np.sqrt(grid)).sum(axis=0)
        mean = norm.logpdf(mode, m0[j], np.sqrt(grid / kappa))
        matrix = -0.5 * ((nu + d + 1) * np.log(grid) + scale[j, j] / grid)
        return data + mean + matrix + 0.5 * np.log(grid)

    def average(logs):
        density = np.exp(logs - logs.max())
        return np.trapezoid(density * grid, grid) / np.trapezoid(density, grid)

    each = [[log_density(x, j) for j in range(d)] for x in groups]
    if covariance_type == "spherical":
        return np.array([average(np.sum(logs, axis=0)) for logs in each])
    return np.array([[average(one) for one in logs] for logs in each])


def log_joint(x, weights, means, matrices):
    """Log pi_k N(x_n; mu_k, Sigma_k), (N, K), by scipy."""
    columns = [
        np.log(w) + multivariate_normal.logpdf(x, m, s)
        for w, m, s in zip(weights, means, matrices, strict=True)
    ]
    return np.stack([np.reshape(column, len(x)) for column in columns], axis=1)


def kl_to_mixture(mean, log_var, log_prob, means, covariances, log_weights):
    """sum_k r_k KL(q || N_k) + KL(r || pi) of each row by torch.distributions, in float64."""
    tensors = (mean, log_var, log_prob, means, covariances, log_weights)
    mean, log_var, log_prob, means, covariances, log_weights = (
        torch.as_tensor(t, dtype=torch.float64) for t in tensors
    )
    q = dist.MultivariateNormal(mean[:, None], torch.diag_embed(log_var.exp())[:, None])
    to_components = dist.kl_divergence(q, dist.MultivariateNormal(means, covariances))  # (B, K)
    r, weights = dist.Categorical(logits=log_prob), dist.Categorical(logits=log_weights)
    between = torch.stack([dist.kl_divergence(dist.Categorical(probs=p), weights) for p in r.probs])
    return ((r.probs * to_components).sum(dim=1) + between).numpy()


def best_accuracy(labels, clusters):
    """Accuracy under the best of all one-to-one maps of clusters to labels, by enumeration."""
    kinds, found = sorted(set(labels)), sorted(set(clusters))
    slots = kinds + [None] * len(found)  # None: this cluster stays unmatched
    best = 0
    for choice in set(permutations(slots, len(found))):
        to_label = dict(zip(found, choice, strict=True))
        hits = sum(to_label[c] == t for t, c in zip(labels, clusters, strict=True))
        best = max(best, hits)
    return best / len(labels)


def pair_counting_ari(labels, clusters):
    """Adjusted Rand index from all pairs of rows (Hubert and Arabie, 1985)."""
    n = len(labels)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    same_label = np.array([labels[i] == labels[j] for i, j in pairs])
    same_cluster = np.array([clusters[i] == clusters[j] for i, j in pairs])
    index = (same_label & same_cluster).sum()
    by_chance = same_label.sum() * same_cluster.sum() / len(pairs)
    return (index - by_chance) / ((same_label.sum() + same_cluster.sum()) / 2 - by_chance)


def entropy_nmi(labels, clusters):
    """Mutual information over the mean of the entropies, from relative frequencies."""

    def entropy(values):
        shares = np.array([values.count(v) for v in set(values)]) / len(values)
        return -(shares * np.log(shares)).sum()

    labels, clusters = list(labels), list(clusters)
    both = entropy(list(zip(labels, clusters, strict=True)))
    h_labels, h_clusters = entropy(labels), entropy(clusters)
    return (h_labels + h_clusters - both) / ((h_labels + h_clusters) / 2)


def sklearn_mixture(x, centres, covariance_type, max_iter, reg_covar=1e-6):
    """scikit-learn's mixture from the centres and the rows nearest to each; tolerance 0."""
    nearest = np.array([np.argmin(((row - centres) ** 2).sum(axis=1)) for row in x])
    groups = [x[nearest == k] for k in range(len(centres))]
    counts = np.array([len(g) for g in groups])
    matrices = np.array([np.cov(g.T, ddof=0) for g in groups]) + reg_covar * np.eye(x.shape[1])
    covariances = as_type(matrices, counts, covariance_type)
    diagonal = covariance_type in ("diag", "spherical")
    reference = GaussianMixture(
        len(centres),
        covariance_type=covariance_type,
        weights_init=counts / len(x),
        means_init=np.array(centres),
        precisions_init=1 / covariances if diagonal else np.linalg.inv(covariances),
        max_iter=max_iter,
        tol=0,
        reg_covar=reg_covar,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with tolerance 0 it never counts as converged
        return reference.fit(x)


def image_moments(images):
    """Centres (N, 2) as (x, y) and covariances (N, 2, 2) of images as densities, in pixels."""
    images = np.asarray(images, dtype=np.float64)
    n, height, width = images.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    density = images.reshape(n, -1) / images.sum(axis=(1, 2))[:, None]
    centres = density @ grid
    offsets = grid - centres[:, None]
    return centres, np.einsum("np,npi,npj->nij", density, offsets, offsets)


def torch_mixture(density):
    """A mixture as torch.distributions has it, in float64."""
    matrices = as_matrices(density.covariances, density.covariance_type, *density.means.shape)
    return dist.MixtureSameFamily(
        dist.Categorical(probs=torch.tensor(density.weights)),
        dist.MultivariateNormal(torch.tensor(density.means), torch.tensor(np.array(matrices))),
    )


def log_density_on(grid, density):
    """Log density of a mixture in one dimension at each point of the grid, for quadrature."""
    return torch_mixture(density).log_prob(torch.tensor(grid[:, None])).numpy()


def class_log_likelihoods(x, weights, means, matrices, owners):
    """Log p(x | c) of a mixture a class, (N, C): the components that `owners` gives each class."""
    joint = log_joint(x, weights, means, matrices)
    classes = [logsumexp(joint[:, owners == c], axis=1) for c in np.unique(owners)]
    return np.stack(classes, axis=1)


def bayes(log_likelihood, priors):
    """P(c | row) from log p(row | c), (N, C), and P(c)."""
    joint = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True)) * priors
    return joint / joint.sum(axis=1, keepdims=True)


def weighted_quantile(values, weight, quantile):
    """The smallest value at or below which at least that share of the weight lies."""
    order = np.argsort(values)
    share = 0.0
    for value, w in zip(values[order], weight[order] / weight.sum(), strict=True):
        share += w
        if share >= quantile - 1e-12:
            return value
    return values[order[-1]]

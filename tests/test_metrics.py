"""Scores against enumeration and counting."""

import numpy as np
import pytest

from serkit import metrics
from serkit.errors import InputError
from tests.helpers.oracles import best_accuracy, entropy_nmi, pair_counting_ari

SCORES = [metrics.accuracy, metrics.nmi, metrics.ari, metrics.purity]


def drawn(seed, n_labels, n_clusters, n=30):
    rng = np.random.default_rng(seed)
    return rng.integers(n_labels, size=n), rng.integers(n_clusters, size=n)


@pytest.mark.parametrize(("n_labels", "n_clusters"), [(3, 3), (2, 4), (4, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_the_best_of_all_matchings(seed, n_labels, n_clusters):
    labels, clusters = drawn(seed, n_labels, n_clusters)
    expected = best_accuracy(labels.tolist(), clusters.tolist())
    assert metrics.accuracy(labels, clusters) == pytest.approx(expected)


@pytest.mark.parametrize(("n_labels", "n_clusters"), [(3, 3), (2, 4), (4, 2)])
def test_nmi_ari_and_purity_equal_their_definitions(n_labels, n_clusters):
    labels, clusters = drawn(0, n_labels, n_clusters)
    assert metrics.nmi(labels, clusters) == pytest.approx(
        entropy_nmi(labels.tolist(), clusters.tolist())
    )
    assert metrics.ari(labels, clusters) == pytest.approx(pair_counting_ari(labels, clusters))
    majority = sum(np.bincount(labels[clusters == c]).max() for c in np.unique(clusters))
    assert metrics.purity(labels, clusters) == pytest.approx(majority / len(labels))


@pytest.mark.parametrize("score", SCORES)
def test_numbering_of_clusters_and_order_of_rows_never_matter(score):
    labels, clusters = drawn(1, 3, 4)
    renumbered = np.array([7, -1, 30, 2])[clusters]
    order = np.random.default_rng(0).permutation(len(labels))
    assert score(labels, renumbered) == pytest.approx(score(labels, clusters))
    assert score(labels[order], clusters[order]) == pytest.approx(score(labels, clusters))
    assert score(labels, labels) == pytest.approx(1.0)


def test_labels_may_be_text():
    labels, clusters = drawn(2, 3, 3)
    names = np.array(["cat", "dog", "panda"])[labels]
    assert metrics.accuracy(names, clusters) == metrics.accuracy(labels, clusters)
    assert set(metrics.matching(names, clusters).values()) == {"cat", "dog", "panda"}


def test_ari_of_unrelated_partitions_is_about_zero():
    scores = [metrics.ari(*drawn(seed, 3, 3, n=200)) for seed in range(50)]
    assert abs(np.mean(scores)) < 5 * np.std(scores) / np.sqrt(50)


@pytest.mark.parametrize(("n_labels", "n_clusters"), [(3, 3), (2, 4), (4, 2)])
def test_matching_explains_the_accuracy(n_labels, n_clusters):
    labels, clusters = drawn(3, n_labels, n_clusters)
    found = metrics.matching(labels, clusters)
    assert len(set(found.values())) == len(found) == min(n_labels, n_clusters)
    hits = [found.get(c) == t for t, c in zip(labels.tolist(), clusters.tolist(), strict=True)]
    assert np.mean(hits) == pytest.approx(metrics.accuracy(labels, clusters))


@pytest.mark.parametrize(("n_labels", "n_clusters"), [(3, 3), (2, 4), (4, 2)])
def test_confusion_counts_with_matches_on_the_diagonal(n_labels, n_clusters):
    labels, clusters = drawn(4, n_labels, n_clusters)
    counts, classes, columns = metrics.confusion(labels, clusters)
    for i, label in enumerate(classes):
        for j, cluster in enumerate(columns):
            assert counts[i, j] == ((labels == label) & (clusters == cluster)).sum()
    matched = metrics.matching(labels, clusters)
    if n_labels <= n_clusters:
        assert [matched[c] for c in columns[:n_labels].tolist()] == classes.tolist()
        assert np.trace(counts) == pytest.approx(metrics.accuracy(labels, clusters) * len(labels))


def test_clustering_scores_collects_the_three():
    labels, clusters = drawn(5, 3, 3)
    assert metrics.clustering_scores(labels, clusters) == {
        "accuracy": metrics.accuracy(labels, clusters),
        "nmi": metrics.nmi(labels, clusters),
        "ari": metrics.ari(labels, clusters),
    }


def test_scores_of_a_module_are_those_of_its_scored_rows():
    labels, clusters = drawn(6, 3, 3)
    names = np.array(["cat", "dog", "panda"])[labels]
    assert metrics.scores_of(None, clusters) == {}
    assert metrics.scores_of(names, clusters) == metrics.clustering_scores(labels, clusters)
    observed = np.arange(len(labels)) % 3 > 0
    found = metrics.scores_of(names, clusters[observed], observed)
    assert found == metrics.clustering_scores(labels[observed], clusters[observed])
    with pytest.raises(InputError, match="a value for each of 30 rows, got 29"):
        metrics.scores_of(names[1:], clusters)


@pytest.mark.parametrize("score", [*SCORES, metrics.matching, metrics.confusion])
@pytest.mark.parametrize(
    ("labels", "clusters", "shapes"),
    [
        ([0, 1], [0, 1, 1], r"\(2,\) and \(3,\)"),
        ([], [], r"\(0,\) and \(0,\)"),
        ([[0], [1]], [[0], [1]], r"\(2, 1\) and \(2, 1\)"),
    ],
)
def test_lengths_must_agree(score, labels, clusters, shapes):
    with pytest.raises(InputError, match=f"labels and clusters of the same length.*{shapes}"):
        score(labels, clusters)

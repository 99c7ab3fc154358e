"""Counts made up for labels: what they are drawn from, and how alike the classes are."""

import numpy as np
import pytest

from serkit import datasets
from serkit.errors import InputError


def words_of(counts, labels):
    """Each class's distribution over words, as its rows tell it."""
    totals = np.stack([counts[labels == k].sum(axis=0) for k in range(10)])
    return totals / totals.sum(axis=1, keepdims=True)


def test_made_up_counts_are_drawn_from_one_distribution_a_class():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 400))
    counts = datasets.make_counts(labels, n_words=6, n_tokens=30, concentration=2.0)
    assert (counts.shape, counts.dtype) == ((4000, 6), np.float32)
    np.testing.assert_array_equal(counts.sum(axis=1), 30)
    p = words_of(counts, labels)
    for k in range(10):
        rows = counts[labels == k]
        covariance = 30 * (np.diag(p[k]) - np.outer(p[k], p[k]))  # of a multinomial
        error = 30 * p[k].max() * np.sqrt(2 / 400)
        np.testing.assert_allclose(np.cov(rows.T), covariance, atol=5 * error)


@pytest.mark.parametrize("concentration", [0.5, 5.0])
def test_made_up_words_vary_between_classes_as_a_dirichlet(concentration):
    """E[sum of squares] of a symmetric Dirichlet is (a + 1) / (V a + 1)."""
    labels = np.arange(3000)
    counts = datasets.make_counts(labels, 5, 2000, concentration=concentration)
    squares = ((counts / 2000) ** 2).sum(axis=1)
    expected = (concentration + 1) / (5 * concentration + 1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - expected) < 5 * error + 1 / 2000  # the draws' own variance


def test_made_up_counts_leave_a_tenth_in_doubt_to_who_knows_their_distributions():
    labels = datasets.load_digits().labels
    accuracies = []
    for seed in range(5):
        many = datasets.make_counts(np.arange(10), n_tokens=10**6, random_state=seed)
        counts = datasets.make_counts(labels, random_state=seed)
        guessed = (counts @ np.log(many + 1).T).argmax(axis=1)
        accuracies.append((guessed == labels).mean())
    assert 0.85 < np.mean(accuracies) < 0.95


def test_made_up_counts_take_any_labels_and_repeat_with_their_seed():
    numbers = np.array([1, 0, 1, 2])
    names = np.array(["b", "a", "b", "c"])
    one = datasets.make_counts(names)
    np.testing.assert_array_equal(one, datasets.make_counts(numbers))
    assert not np.array_equal(one, datasets.make_counts(names, random_state=1))


@pytest.mark.parametrize(
    ("labels", "arguments", "text"),
    [
        ([], {}, r"expected one label per row, shape \(N,\), got \(0,\)"),
        (np.zeros((3, 2)), {}, r"expected one label per row, shape \(N,\), got \(3, 2\)"),
        ([0, 1], {"n_words": 1}, "n_words must be an integer >= 2, got 1"),
        ([0, 1], {"n_tokens": 0.5}, "n_tokens must be an integer >= 1, got 0.5"),
        ([0, 1], {"concentration": 0}, "concentration must be a number > 0, got 0"),
        ([0, 1], {"concentration": float("nan")}, "concentration must be a number > 0, got nan"),
        (
            [0, 1],
            {"random_state": -1},
            "random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
    ],
)
def test_counts_that_cannot_be_made_up_are_refused(labels, arguments, text):
    with pytest.raises(InputError, match=text):
        datasets.make_counts(labels, **arguments)


def test_made_up_concepts_are_objects_with_usual_motions():
    concepts = datasets.make_concepts(4000, n_objects=6, n_motions=3, unusual=0.3)
    assert [len(np.unique(labels)) for labels in concepts[5:]] == [6, 3]
    usual = (concepts.motions == concepts.objects % 3).mean()
    assert abs(usual - (0.7 + 0.3 / 3)) < 5 * np.sqrt(0.8 * 0.2 / 4000)  # five standard errors
    for counts, labels in zip(
        concepts[:5], [concepts.objects] * 3 + [concepts.motions] * 2, strict=True
    ):
        assert (counts.shape, counts.dtype) == ((4000, 20), np.float32)
        np.testing.assert_array_equal(counts.sum(axis=1), 40)
        # rows of a class vary as draws from one distribution, by a multinomial's variance
        for label in np.unique(labels):
            rows = counts[labels == label]
            p = rows.mean(axis=0) / 40
            ratio = rows.var(axis=0).sum() / (40 * (p * (1 - p)).sum())
            assert abs(ratio - 1) < 5 * np.sqrt(2 / len(rows))


def test_made_up_concepts_repeat_with_their_seed():
    one, same, other = (datasets.make_concepts(20, random_state=seed) for seed in (1, 1, 2))
    for left, right in zip(one, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(one.vision, other.vision)
    assert not np.array_equal(one.vision, one.audio)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_rows": 0}, "datasets.make_concepts: n_rows must be an integer >= 1, got 0"),
        ({"n_motions": 2.5}, "n_motions must be an integer >= 1, got 2.5"),
        ({"unusual": 1.0}, "unusual must be a number .*got 1.0"),
    ],
)
def test_concepts_that_cannot_be_made_up_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        datasets.make_concepts(**arguments)

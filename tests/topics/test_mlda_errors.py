"""What MLDA says of arguments, counts and messages that cannot work."""

import numpy as np
import pytest
from scipy import sparse
from test_mlda import K, N, histograms, learnt, opinions

from serkit.errors import InputError, NotFittedError
from serkit.messages import Categorical, Data
from serkit.modules import MLDA


@pytest.fixture
def inputs():
    """Histograms and class probabilities of the same rows."""
    return [Data(histograms()), opinions()]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": [1.0]}, r"MLDA: weights must be a list of 2 numbers > 0 or None, .*\[1.0\]"),
        ({"weights": [1.0, 0]}, "weights must be a list of 2 numbers > 0"),
        ({"weights": 200}, "weights must be a list of 2 numbers > 0 or None.*200"),
        ({"inference": "vb"}, "unknown inference='vb'; expected one of 'cvb0', 'gibbs'"),
        ({"doc_topic_prior": 0.0}, "doc_topic_prior must be a number > 0"),
        ({"topic_word_prior": -1.0}, "topic_word_prior must be a number > 0"),
        ({"n_init": 0}, "n_init must be an integer >= 1"),
        ({"tol": -1.0}, "tol must be a number >= 0"),
        ({"labels": [0, 1]}, f"labels has 2 entries for {N} rows"),
    ],
)
def test_arguments_that_cannot_work_are_named(inputs, options, text):
    with pytest.raises(InputError, match=text):
        learnt(inputs, **options)


def test_more_topics_than_rows_are_an_error():
    with pytest.raises(InputError, match="n_components=3 is more than the 2 rows"):
        MLDA(K).fit(histograms()[:2])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda x: x - 1, "MLDA 'words': expected counts >= 0, got -1 in row 0"),
        (lambda x: 0 * x, f"MLDA 'words': all counts are 0 in all {N} rows"),
        (lambda x: [x, x[:5]], r"expected modalities of equally many rows, got \[120, 5\]"),
        (lambda x: np.where(x > 3, np.nan, x), "MLDA 'words': NaN or infinity"),
        (lambda x: sparse.csr_array(np.where(x > 3, np.nan, x)), "expected finite counts"),
    ],
)
def test_bad_counts_are_named_and_nothing_is_lost(spoil, text):
    x = histograms()
    mlda = MLDA(K, name="words", random_state=0, n_init=1).fit(x)
    before = mlda.components_[0].copy()
    with pytest.raises(InputError, match=text):
        mlda.fit(spoil(x))
    np.testing.assert_array_equal(mlda.components_[0], before)
    assert len(mlda.history_) == 1


def test_the_row_of_a_negative_count_is_named():
    x = histograms()
    x[17, 29] = -2.5
    with pytest.raises(InputError, match=r"got -2\.5 in row 17"):
        MLDA(K).fit(x)


def test_messages_of_other_classes_and_counts_of_other_words_are_errors(inputs):
    mlda = learnt(inputs)
    with pytest.raises(InputError, match="sent probabilities of 4 classes for n_components=3"):
        mlda.learn(inputs, Categorical.uniform(N, 4))
    with pytest.raises(InputError, match=r"fitted on modalities of \[30, 3\] columns, got \[30\]"):
        mlda.transform(histograms())
    with pytest.raises(NotFittedError, match="MLDA is not fitted yet"):
        MLDA(K).transform(histograms())

"""Small data shared by the tests; every call makes it anew, so tests may alter it."""

import signal
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

from serkit.datasets import load_digits
from tests.helpers.pictures import save_plainly

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Labelled(NamedTuple):
    x: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session", autouse=True)
def plain_pictures():
    """Pictures that tests save, as those among the results of a fit, are plain ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_plainly)
        yield


@pytest.fixture
def blobs() -> Labelled:
    """Three well separated Gaussian blobs of different shapes: rows (120, 4), float64, shuffled."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3), 40))
    centres = np.array([[0.0, 0, 0, 0], [8.0, 0, 4, 0], [0.0, 8, 0, -4]])
    scales = np.array([[1.0, 0.5, 0.7, 1.0], [0.6, 1.0, 1.0, 0.8], [0.8, 0.8, 0.5, 1.2]])
    return Labelled(centres[labels] + scales[labels] * rng.standard_normal((120, 4)), labels)


@pytest.fixture
def digits() -> Labelled:
    """The first 200 of scikit-learn's digits: images (200, 8, 8), float32 in [0, 1]."""
    images, labels = load_digits()
    return Labelled(images[:200], labels[:200])


@pytest.fixture
def x():
    """Rows (150, 3) of three clusters that overlap, so that responsibilities are soft."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(150, 3)) @ rng.normal(size=(3, 3)) + 2.0 * rng.integers(
        3, size=(150, 1)
    )

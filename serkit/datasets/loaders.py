"""Data sets, each with labels: digits, clothes, animals, speech, and counts made up for labels.

What is not embedded is looked for in the folder that the environment variable `SERKIT_DATA` names,
then in a cache folder (`SERKIT_CACHE`, else ``~/.cache/serkit``): ``mnist.npz`` and
``fashion_mnist.npz`` with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``,
``animals128.zip``, ``serket_tutorial.npz`` and the folder ``spoken_digits``. Failing that, MNIST
and Fashion-MNIST are downloaded from OpenML through scikit-learn, checked and put into the cache;
the others have no download. What is not at hand, or damaged, raises a DatasetError that names it
and says where it belongs.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn import datasets as sklearn_datasets
from sklearn import model_selection

from ..errors import InputError
from ..options import (
    Choice,
    Count,
    Kind,
    Number,
    Randomness,
    RandomState,
    check_argument,
    generator_of,
    in_words,
    seed_of,
)
from ..reading import clusters_in
from .files import Recordings, read_photographs, read_recordings
from .sources import fetch, read, require

_DIGITS = tuple("0123456789")
_CLOTHES = "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": tuple(_CLOTHES.split(", ")),
    "tutorial_digits": _DIGITS,
    "tutorial_speech": _DIGITS,
    "spoken_digits": _DIGITS,
    "animals": ("cat", "dog", "panda"),
}
"""Names of the classes, in the order of the labels, for each ``load_...``."""

_ANIMAL_FOLDERS = ("cats", "dogs", "panda")
_ANIMALS_EACH, _ANIMAL_SIZE = 1000, 128
_TUTORIAL_SPEECH = {"speech": (3000, 2400), "label": (3000,)}


_WORDS = 20  # of each modality of `make_concepts`


class Dataset(NamedTuple):
    """Images (N, H, W) or (N, 3, H, W), float32 in [0, 1], and their labels (N,), int64.

    Examples
    --------
    >>> from serkit import datasets
    >>> images, labels = datasets.load_digits()
    >>> images.shape, labels.shape
    ((1797, 8, 8), (1797,))
    """

    images: np.ndarray
    labels: np.ndarray


class Counts(NamedTuple):
    """Histograms (N, V), float32 counts of V words per row, and their labels (N,), int64.

    Examples
    --------
    >>> from serkit import datasets
    >>> words = datasets.Counts(datasets.make_counts([1, 0, 1, 0], n_words=20), [1, 0, 1, 0])
    >>> words.counts.shape, datasets.in_cycles(words).labels
    ((4, 20), array([0, 1, 0, 1]))
    """

    counts: np.ndarray
    labels: np.ndarray


class Concepts(NamedTuple):
    """Counts (N, V), float32, of objects and of how they are moved, and the labels (N,) of both.

    Examples
    --------
    >>> from serkit import datasets
    >>> concepts = datasets.make_concepts(100)
    >>> concepts.vision.shape, concepts.angle.shape, concepts.objects[:3]
    ((100, 20), (100, 20), array([6, 5, 4]))
    """

    vision: np.ndarray
    audio: np.ndarray
    touch: np.ndarray
    angle: np.ndarray
    force: np.ndarray
    objects: np.ndarray
    motions: np.ndarray


Labelled = TypeVar("Labelled", Dataset, Counts)


# -- what is on this machine, or downloaded ----------------------------------------------------


def load_digits() -> Dataset:
    """scikit-learn's embedded digits: 1,797 images of 8 x 8 pixels, 10 classes; no network."""
    digits = sklearn_datasets.load_digits()
    return Dataset((digits.images / 16).astype(np.float32), digits.target.astype(np.int64))


def load_mnist(split: str = "train", *, progress: bool = True) -> Dataset:
    """Handwritten digits of 28 x 28 pixels (LeCun et al., 1998).

    Parameters
    ----------
    split : {"train", "test", "all"}
        60,000, 10,000 or 70,000 images.
    progress : bool
        Whether to show a bar while downloading.

    Raises
    ------
    DatasetError
        If the data is neither at hand nor to be downloaded; the error names the ways.
    """
    return _load_split("mnist", split, progress)


def load_fashion_mnist(split: str = "train", *, progress: bool = True) -> Dataset:
    """Images of clothes of 28 x 28 pixels (Xiao et al., 2017); arguments as for `load_mnist`."""
    return _load_split("fashion_mnist", split, progress)


def _load_split(name: str, split: str, progress: bool) -> Dataset:
    """MNIST or Fashion-MNIST, or one of its two parts."""
    check_argument(f"datasets.load_{name}", "split", split, Choice("train", "test", "all"))
    check_argument(f"datasets.load_{name}", "progress", progress, Choice(False, True))
    arrays = fetch(name, progress)
    parts = ("train", "test") if split == "all" else (split,)
    images = np.concatenate([arrays[f"x_{part}"] for part in parts])
    labels = np.concatenate([arrays[f"y_{part}"] for part in parts])
    return Dataset(images.astype(np.float32) / 255, labels.astype(np.int64))


def load_tutorial_digits(*, progress: bool = True) -> Dataset:
    """The 3,000 digits of the Serket tutorial: 300 of each class, labels cycling 0 to 9.

    They are, of MNIST's training images from index 5,000 on, the first 300 of each class,
    interleaved, so anyone with MNIST has them. `progress` and errors are as for `load_mnist`.
    """
    images, labels = load_mnist("train", progress=progress)
    rows = 5000 + _cycling(labels[5000:])[:3000]
    return Dataset(images[rows], labels[rows])


def load_animals(*, size: int = 128, grey: bool = False) -> Dataset:
    """3,000 photographs of animals, 1,000 each of cats, dogs and pandas.

    From the public Kaggle data set "Animal Image Dataset (DOG, CAT and PANDA)" by Ashish Saxena,
    scaled to 128 x 128 pixels. It has to be at hand as ``animals128.zip``.

    Parameters
    ----------
    size : int
        Height and width; Pillow's antialiased Lanczos filter resizes to others than 128.
    grey : bool
        Whether to load them as grey images, by Pillow's "L" (ITU-R 601 luma).

    Returns
    -------
    Dataset
        Images (3000, 3, size, size), or (3000, size, size) if grey.
    """
    check_argument("datasets.load_animals", "size", size, Count(each=1))
    check_argument("datasets.load_animals", "grey", grey, Choice(False, True))
    path = require(
        "animals128.zip",
        f"a zip with the folders {'/, '.join(_ANIMAL_FOLDERS)}/ of {_ANIMALS_EACH} JPEG "
        f"photographs each, {_ANIMAL_SIZE} x {_ANIMAL_SIZE} pixels",
        'those of the public Kaggle data set "Animal Image Dataset (DOG, CAT and PANDA)" by '
        "Ashish Saxena, scaled down",
    )
    pixels = read_photographs(path, _ANIMAL_FOLDERS, _ANIMALS_EACH, _ANIMAL_SIZE, size, grey)
    images = pixels.astype(np.float32)
    images /= 255  # in place, as they are many
    return Dataset(images, np.repeat(np.arange(len(_ANIMAL_FOLDERS)), _ANIMALS_EACH))


def load_tutorial_speech() -> Counts:
    """The Serket tutorial's 3,000 spoken digits, as counts (3000, 2400) of co-occurrences.

    Arabic digits of the UCI data set "Spoken Arabic Digit" as histograms of acoustic
    co-occurrences (see `serkit.modules.HAC`); row n says the digit that row n of
    `load_tutorial_digits` shows. They have to be at hand as ``serket_tutorial.npz``.
    """
    path = require(
        "serket_tutorial.npz",
        "the arrays " + " and ".join(f"{key} {shape}" for key, shape in _TUTORIAL_SPEECH.items()),
        "the data of the Serket tutorial VAE + GMM + MLDA (github.com/naka-lab/Serket)",
    )
    arrays = read(path, _TUTORIAL_SPEECH)
    return Counts(arrays["speech"].astype(np.float32), arrays["label"].astype(np.int64))


def load_spoken_digits() -> Recordings:
    """Recordings of English digits at 8,000 Hz, as `serkit.modules.HAC` takes them.

    Those of the Free Spoken Digit Dataset (Jackson et al.) that lie in the folder
    ``spoken_digits``, named ``digit_speaker_number.wav``, in the order of their names.
    """
    path = require(
        "spoken_digits",
        "a folder of WAV files named like 0_jackson_0.wav",
        "recordings of the Free Spoken Digit Dataset "
        "(github.com/Jakobovski/free-spoken-digit-dataset)",
    )
    return read_recordings(path)


def in_cycles(dataset: Labelled) -> Labelled:
    """Reorder rows so that their labels cycle through the classes, as counting does.

    The order within a class is kept; rows left over once the rarest class is used up are dropped.
    A sequence for a Markov model out of any labelled rows.
    """
    if not isinstance(dataset, Dataset | Counts):
        raise InputError(
            f"datasets.in_cycles: dataset must be a Dataset or Counts, got {in_words(dataset)}"
        )
    rows = _cycling(np.asarray(dataset.labels))
    return type(dataset)(*(np.asarray(values)[rows] for values in dataset))


def _cycling(labels: np.ndarray) -> np.ndarray:
    """Numbers of rows whose labels run through the sorted classes again and again."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    n_cycles = min(map(len, by_class))
    return np.stack([rows[:n_cycles] for rows in by_class], axis=1).ravel()


def train_test_split(
    dataset: Dataset, test_fraction: float = 0.2, random_state: RandomState = 0
) -> tuple[Dataset, Dataset]:
    """Part rows to train on from rows to test on, classes in the same proportions in both.

    Parameters
    ----------
    dataset : Dataset
    test_fraction : float
        Fraction of the rows to test on, between 0 and 1.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        Seed of the shuffle.

    Raises
    ------
    InputError
        If a class cannot be on both sides, or for a fraction or seed out of range.

    Examples
    --------
    >>> from serkit import datasets
    >>> train, test = datasets.train_test_split(datasets.load_digits())
    >>> len(train.images), len(test.images)
    (1437, 360)
    """
    check_argument("datasets.train_test_split", "dataset", dataset, Kind(Dataset))
    check_argument("datasets.train_test_split", "random_state", random_state, Randomness())
    try:
        x_train, x_test, y_train, y_test = model_selection.train_test_split(
            *dataset,
            test_size=float(test_fraction),
            stratify=dataset.labels,
            random_state=seed_of(random_state) % 2**32,  # what scikit-learn takes
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"cannot split with test_fraction={test_fraction!r}, random_state={random_state!r}: "
            f"{error}"
        ) from None
    return Dataset(x_train, y_train), Dataset(x_test, y_test)


def make_counts(
    labels: ArrayLike,
    n_words: int = 50,
    n_tokens: int = 100,
    *,
    concentration: float = 10.0,
    random_state: RandomState = 0,
) -> np.ndarray:
    """Make up a second modality for labelled rows: counts of words that depend on the class.

    Each class has its own distribution over the words, drawn from a symmetric Dirichlet, and each
    row draws its words from that of its class. By default the classes are alike enough that who
    knows their distributions still mistakes about one row in ten among ten classes.

    Parameters
    ----------
    labels : array-like, shape (N,)
    n_words : int
        Number of different words V, at least 2.
    n_tokens : int
        Number of words per row, which its counts add up to.
    concentration : float
        Of the Dirichlet, above 0; the higher, the more alike the classes.
    random_state : int, np.random.Generator or np.random.RandomState, optional

    Returns
    -------
    np.ndarray of float32, shape (N, n_words)

    Raises
    ------
    InputError
        For labels that are not one per row, or a number out of range.

    Examples
    --------
    >>> from serkit import datasets
    >>> counts = datasets.make_counts([0, 1, 0], n_words=20, n_tokens=100)
    >>> counts.shape, counts.sum(axis=1)
    ((3, 20), array([100., 100., 100.], dtype=float32))
    """
    label = "datasets.make_counts"
    labels = clusters_in(labels, f"{label}: labels")
    if labels.ndim != 1 or not len(labels):
        raise InputError(f"{label}: expected one label per row, shape (N,), got {labels.shape}")
    check_argument(label, "n_words", n_words, Count(at_least=2, each=len(labels)))
    check_argument(label, "n_tokens", n_tokens, Count())
    check_argument(label, "concentration", concentration, Number(above=0))
    classes, index = np.unique(labels, return_inverse=True)
    rng = generator_of(label, random_state)
    words = rng.dirichlet(np.full(n_words, float(concentration)), len(classes))  # (C, V)
    return rng.multinomial(n_tokens, words[index]).astype(np.float32)


def make_concepts(
    n_rows: int = 300,
    *,
    n_objects: int = 8,
    n_motions: int = 4,
    unusual: float = 0.1,
    random_state: RandomState = 0,
) -> Concepts:
    """Make up objects that are seen, heard and touched, and motions, which go with the objects.

    An object has a usual motion, which others have too: object o is moved by motion o modulo
    `n_motions`, but in a fraction `unusual` of all rows by any. Each of the five modalities has 40
    tokens a row, of 20 words, as `make_counts` draws them; motions are told apart nearly without a
    mistake, objects are not. Who knows the motion can rule out most objects.

    Parameters
    ----------
    n_rows : int
        Number of rows N.
    n_objects, n_motions : int
        Numbers of classes of each.
    unusual : float
        Fraction of rows, from 0 to below 1.
    random_state : int, np.random.Generator or np.random.RandomState, optional

    Returns
    -------
    Concepts
        Counts of vision, audio and touch, by the object; of angle and force, by the motion.

    Raises
    ------
    InputError
        For a number out of range.
    """
    label = "datasets.make_concepts"
    for name, number in {"n_rows": n_rows, "n_objects": n_objects, "n_motions": n_motions}.items():
        check_argument(label, name, number, Count(each=5 * _WORDS))
    check_argument(label, "unusual", unusual, Number(at_least=0, below=1))
    rng = generator_of(label, random_state)
    objects = rng.integers(n_objects, size=n_rows)
    any_motion = rng.integers(n_motions, size=n_rows)
    motions = np.where(rng.random(n_rows) < unusual, any_motion, objects % n_motions)
    vision, audio, touch, angle, force = (
        make_counts(labels, _WORDS, 40, concentration=alike, random_state=int(rng.integers(2**31)))
        for labels, alike in [(objects, 8.0)] * 3 + [(motions, 3.0)] * 2
    )
    return Concepts(vision, audio, touch, angle, force, objects, motions)

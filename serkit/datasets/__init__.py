"""Data sets with labels: embedded, found on this machine, downloaded, or made up."""

from ..reading import rows_and_labels
from .files import Recordings
from .loaders import (
    CLASS_NAMES,
    Concepts,
    Counts,
    Dataset,
    in_cycles,
    load_animals,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_spoken_digits,
    load_tutorial_digits,
    load_tutorial_speech,
    make_concepts,
    make_counts,
    train_test_split,
)

__all__ = [
    "CLASS_NAMES",
    "Concepts",
    "Counts",
    "Dataset",
    "Recordings",
    "in_cycles",
    "load_animals",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_spoken_digits",
    "load_tutorial_digits",
    "load_tutorial_speech",
    "make_concepts",
    "make_counts",
    "rows_and_labels",
    "train_test_split",
]

"""Modules made of something else: estimators, functions, targets, other modules' classes."""

from .features import Features
from .group_sum import GroupSum
from .label_alignment import LabelAlignment
from .sklearn import Sklearn, SklearnClusterer, SklearnTransformer
from .supervised import Supervised

__all__ = [
    "Features",
    "GroupSum",
    "LabelAlignment",
    "Sklearn",
    "SklearnClusterer",
    "SklearnTransformer",
    "Supervised",
]

"""Gaussian mixtures: of rows, and one a class."""

from .classifier import GMMClassifier
from .gmm import GMM

__all__ = ["GMM", "GMMClassifier"]

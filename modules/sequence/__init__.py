"""Chains and fields over the classes of rows: which follow each other, which are neighbours."""

from .field import NeighbourField
from .markov import MarkovModel

__all__ = ["MarkovModel", "NeighbourField"]

"""Hidden Markov models over the classes of consecutive rows."""

from .markov import MarkovModel

__all__ = ["MarkovModel"]

"""What to choose by many runs: whether joint training pays, the seed, and how many components."""

from .components import Selection, select_components
from .estimator import GraphEstimator
from .repeating import Repeats, repeat

__all__ = ["GraphEstimator", "Repeats", "Selection", "repeat", "select_components"]

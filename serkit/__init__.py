"""serkit: probabilistic and neural modules, connected into a graph, that learn together.

The modules themselves are in `serkit.modules`: ``from serkit.modules import AE, VAE, GMM``.
"""

from . import datasets, errors, messages, metrics, plots, training
from .graph import Graph
from .module import Module
from .observation import Observation

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "Module",
    "Observation",
    "datasets",
    "errors",
    "messages",
    "metrics",
    "plots",
    "training",
]

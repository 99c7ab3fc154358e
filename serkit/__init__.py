"""serkit: probabilistic and neural modules, connected into a graph, that learn together.

The modules themselves are in `serkit.modules`: ``from serkit.modules import AE, VAE, GMM``.
"""

from . import datasets, errors, measures, messages, metrics, paths, plots, processes, training
from .density import MixtureDensity
from .graph import Graph
from .module import Module, Posterior
from .observation import Observation

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "MixtureDensity",
    "Module",
    "Observation",
    "Posterior",
    "datasets",
    "errors",
    "measures",
    "messages",
    "metrics",
    "paths",
    "plots",
    "processes",
    "training",
]

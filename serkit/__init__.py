"""serkit: probabilistic and neural modules, connected into a graph, that learn together.

The modules themselves are in `serkit.modules`: ``from serkit.modules import AE, VAE, GMM``.
"""

import importlib
from typing import TYPE_CHECKING

from . import datasets, errors, measures, messages, metrics, paths, processes, training
from .choosing import GraphEstimator, Repeats, Selection, repeat, select_components
from .density import MixtureDensity
from .graph import Ensemble, Graph, ensemble
from .module import Module, Part, Posterior
from .novelty import Novelty
from .observation import Observation
from .saving import load_object as load
from .saving import save_object as save

__version__ = "0.1.0"
__all__ = [
    "Ensemble",
    "Graph",
    "GraphEstimator",
    "MixtureDensity",
    "Module",
    "Novelty",
    "Observation",
    "Part",
    "Posterior",
    "Repeats",
    "Selection",
    "datasets",
    "ensemble",
    "errors",
    "load",
    "measures",
    "messages",
    "metrics",
    "paths",
    "plots",
    "presets",
    "processes",
    "repeat",
    "save",
    "select_components",
    "training",
]

if TYPE_CHECKING:
    from . import plots, presets
else:

    def __getattr__(name: str) -> object:
        """`serkit.plots` and `serkit.presets`, imported when they are first used (PEP 562).

        Matplotlib takes a while, and presets need the modules, which need this package.
        """
        if name in ("plots", "presets"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

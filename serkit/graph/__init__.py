"""Graphs of modules: checked, trained, used and shown as one."""

from .ensemble import Ensemble, ensemble
from .graph import Graph
from .inference import Prediction

__all__ = ["Ensemble", "Graph", "Prediction", "ensemble"]

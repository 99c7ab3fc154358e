"""Graphs of modules: checked, trained, used and shown as one."""

from .graph import Graph
from .inference import Prediction

__all__ = ["Graph", "Prediction"]

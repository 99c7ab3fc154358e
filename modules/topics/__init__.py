"""Topic models of counts of several modalities."""

from .mlda import MLDA

__all__ = ["MLDA"]

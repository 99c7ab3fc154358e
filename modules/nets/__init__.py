"""Neural nets: layers, devices, the training loop, and estimators made of them."""

from .estimators import NetClassifier, NetRegressor

__all__ = ["NetClassifier", "NetRegressor"]

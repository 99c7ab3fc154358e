"""The modules of serkit, installed as `serkit.modules`: a folder a family."""

from .adapters import (
    Features,
    GroupSum,
    LabelAlignment,
    Sklearn,
    SklearnClusterer,
    SklearnTransformer,
    Supervised,
)
from .autoencoder import AE, VAE, MultinomialVAE
from .mixture import GMM, GMMClassifier
from .nets import NetClassifier, NetRegressor
from .preprocessing import HAC, RandomAffine
from .sequence import MarkovModel, NeighbourField
from .topics import MLDA

__all__ = [
    "AE",
    "GMM",
    "HAC",
    "MLDA",
    "VAE",
    "Features",
    "GMMClassifier",
    "GroupSum",
    "LabelAlignment",
    "MarkovModel",
    "MultinomialVAE",
    "NeighbourField",
    "NetClassifier",
    "NetRegressor",
    "RandomAffine",
    "Sklearn",
    "SklearnClusterer",
    "SklearnTransformer",
    "Supervised",
]

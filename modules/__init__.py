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
from .preprocessing import HAC, Compose, RandomAffine, RandomIntensity
from .sequence import MarkovModel, NeighbourField
from .topics import MLDA

__all__ = [
    "AE",
    "GMM",
    "HAC",
    "MLDA",
    "VAE",
    "Compose",
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
    "RandomIntensity",
    "Sklearn",
    "SklearnClusterer",
    "SklearnTransformer",
    "Supervised",
]

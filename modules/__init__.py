"""The modules that come with serkit."""

from .ae import AE
from .augment import RandomAffine
from .estimator import Sklearn
from .features import Features
from .gmm import GMM
from .gmm_classifier import GMMClassifier
from .group_sum import GroupSum
from .hac import HAC
from .label_alignment import LabelAlignment
from .markov import MarkovModel
from .mlda import MLDA
from .multinomial_vae import MultinomialVAE
from .net_classifier import NetClassifier
from .net_regressor import NetRegressor
from .supervised import Supervised
from .vae import VAE

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
    "NetClassifier",
    "NetRegressor",
    "RandomAffine",
    "Sklearn",
    "Supervised",
]

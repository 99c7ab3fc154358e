"""The modules that come with serkit."""

from .ae import AE
from .augment import RandomAffine
from .gmm import GMM
from .gmm_classifier import GMMClassifier
from .net_classifier import NetClassifier
from .vae import VAE

__all__ = ["AE", "GMM", "VAE", "GMMClassifier", "NetClassifier", "RandomAffine"]

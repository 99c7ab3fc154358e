"""The modules that come with serkit."""

from .ae import AE
from .augment import RandomAffine
from .gmm import GMM
from .vae import VAE

__all__ = ["AE", "GMM", "VAE", "RandomAffine"]

"""Autoencoders, whose latents their children may pull."""

from .multinomial import MultinomialVAE
from .vae import AE, VAE

__all__ = ["AE", "VAE", "MultinomialVAE"]

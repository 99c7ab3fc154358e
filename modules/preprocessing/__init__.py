"""What is done to data before they are observed: histograms of speech, augmented images."""

from .augment import Compose, RandomAffine, RandomIntensity
from .hac import HAC

__all__ = ["HAC", "Compose", "RandomAffine", "RandomIntensity"]

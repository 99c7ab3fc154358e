"""What is done to data before they are observed: histograms of speech, augmented images."""

from .augment import RandomAffine
from .hac import HAC

__all__ = ["HAC", "RandomAffine"]

"""Images and speech of the tutorial's 3,000 digits: what they tell together, and of each other."""

from __future__ import annotations

import numpy as np

from tutorials import cross_modal, vae_gmm_mlda

from . import table


def speech(n_seeds: int, quick: bool = False) -> None:
    """Target: joint accuracy above that of the better modality alone, paired by seed."""
    scores = vae_gmm_mlda.main(table.arguments("tutorial", n_seeds, quick))
    better = np.maximum(scores["images"], scores["speech"])
    table.accuracies(
        "VAE + GMM (images), MLDA (speech), and all of it (both): accuracy",
        scores | {"both - the better one": scores["both"] - better},
    )


def hidden(n_seeds: int, quick: bool = False) -> None:
    """Target: rows with a hidden modality classified with 0.9 of complete rows' accuracy."""
    scores = cross_modal.main(table.arguments("tutorial", n_seeds, quick))
    table.accuracies("A modality hidden in a fifth of the rows", scores)

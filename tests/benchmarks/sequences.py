"""What an order of the rows, and labels of a few of them, add to a VAE and a mixture."""

from __future__ import annotations

from tutorials import vae_gmm_mm, vae_gmm_nn

from . import table


def markov(n_seeds: int, quick: bool = False) -> None:
    """Target: a Markov model lifts mean accuracy by at least 0.10, or to 0.97."""
    scores = vae_gmm_mm.main(table.arguments("tutorial", n_seeds, quick))
    gain = scores["with"] - scores["without"]
    table.accuracies("VAE + GMM, without and with a Markov model", scores | {"gain": gain})


def semi_supervised(n_seeds: int, quick: bool = False) -> None:
    """What labels of 1 % of the rows do for the others."""
    scores = vae_gmm_nn.main(table.arguments("tutorial", n_seeds, quick))
    gains = {f"{way} - none": scores[way] - scores["none"] for way in ("told", "started", "named")}
    table.accuracies("Labels of 1 % of the rows, accuracy of the others", scores | gains)

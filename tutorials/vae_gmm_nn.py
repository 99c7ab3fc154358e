"""A VAE, a mixture and a classifier: what labels of 1 % of the rows do for all the others.

    python tutorials/vae_gmm_nn.py                               # embedded digits, minutes
    python tutorials/vae_gmm_nn.py --data tutorial --seeds 10    # the original's 3,000 digits

Two or three labels a digit, in three graphs that start from the same VAE:

- none: VAE and mixture alone; no label is used;
- told: `Supervised` learns which cluster means which digit, and tells the mixture how likely each
  known label makes each cluster; the mixture's means then pull the VAE;
- started: the same, and in each round the mixture starts from the labels too, spread over nearest
  neighbours in the latent space as it then is (scikit-learn's LabelSpreading).

So few labels, told, hardly move clusters that 99 rows for each of them hold in place; they do more
by choosing among the optima, which is where a mixture starts, and they spread the better the
further the exchange has pulled the digits apart. All scores are of the rows without a known label:
clusters matched to digits, and "named" what the last graph calls them, unmatched.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.semi_supervised import LabelSpreading

import serkit as srk
from serkit import metrics, plots
from serkit.datasets import Dataset
from serkit.modules import GMM, VAE, Supervised

LOADERS = {"digits": srk.datasets.load_digits, "tutorial": srk.datasets.load_tutorial_digits}
WAYS = ("none", "told", "started")


def pick_known(labels: np.ndarray, seed: int) -> np.ndarray:
    """A mask (N,) of rows whose label is known: 1 % of each class, at random."""
    rng, known = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        known[rng.choice(rows, round(0.01 * len(rows)), replace=False)] = True
    return known


def spread(latents: np.ndarray, labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Known labels carried from neighbour to neighbour, as responsibilities (N, 10)."""
    spreading = LabelSpreading("knn", n_neighbors=10)
    return np.eye(10)[spreading.fit(latents, np.where(known, labels, -1)).transduction_]


class StartFromLabels(srk.training.Callback):
    """Before each of its updates the mixture gets a new start: the labels, spread over latents."""

    def __init__(self, labels: np.ndarray, known: np.ndarray) -> None:
        self.labels, self.known = labels, known

    def on_update(self, graph: srk.Graph, module: srk.Module) -> None:
        """Set the responsibilities that an update of the mixture starts from."""
        if isinstance(module, GMM):
            latents = module.parents[0].message_up.mean
            start = spread(latents, self.labels, self.known)
            module.set_params(responsibilities_init=start, warm_start=False)


def train(
    digits: Dataset, known: np.ndarray, preset: dict, seed: int, way: str, out: Path | None = None
) -> srk.Graph:
    """Observation -> VAE -> GMM, and for labels that tell -> Supervised <- targets."""
    images, labels = digits
    vae = VAE(**preset["vae"], random_state=seed).connect(srk.Observation(images))
    vae.update()  # alone, the same in all three ways
    top = gmm = GMM(10, labels=labels, random_state=seed, **preset["gmm"]).connect(vae)
    turns = [gmm]
    if way != "none":
        targets = srk.Observation(labels[:, None], observed=known, name="targets")
        top = Supervised(random_state=seed).connect(gmm, targets)
        turns = [gmm, top, gmm]  # so that the VAE hears a mixture that has heard of the labels
    graph = srk.Graph(top)
    callbacks = [srk.training.Report()]
    if way == "started":
        callbacks.append(StartFromLabels(labels, known))
    print(f"seed {seed}, {way}: {', '.join(graph.names)}")
    graph.fit(
        preset["rounds"],
        schedule=lambda round_: [vae, *turns] if round_ else turns,
        callbacks=callbacks,
        out=out,
        verbose=False,
    )
    print()
    return graph


def compare(digits: Dataset, preset: dict, seed: int, out: Path | None = None) -> dict[str, float]:
    """Accuracies on the rows without a known label."""
    known = pick_known(digits.labels, seed)
    truth, scores = digits.labels[~known], {}
    for way in WAYS:
        graph = train(digits, known, preset, seed, way, out if way == "started" else None)
        scores[way] = metrics.accuracy(truth, graph["gmm"].posterior.clusters[~known])
    supervised = graph["supervised"]
    supervised.update()  # hears the mixture's last word
    _, named = supervised.messages_down  # to the mixture, and to the targets
    scores["named"] = (named.array[~known, 0] == truth).mean()
    if out:
        shown = [digits.images[known & (digits.labels == label)] for label in range(10)]
        columns = min(map(len, shown))
        figure = plots.image_grid(
            np.stack([images[:columns] for images in shown]), row_titles=range(10)
        )
        figure.savefig(out / "known.png", dpi=120)
        plots.confusion(truth, named.array[~known, 0].astype(int)).savefig(
            out / "named.png", dpi=120
        )
    return scores


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=LOADERS, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--first-seed", type=int, default=0, help="in place of 0")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of the first")
    parser.add_argument("--quick", action="store_true", help="2 rounds of a few epochs, for CI")
    chosen = parser.parse_args(arguments)

    digits, preset = LOADERS[chosen.data](), srk.presets.vae_gmm_nn(chosen.data)
    if chosen.quick:
        vae, gmm = {**preset["vae"], "epochs": 10}, {**preset["gmm"], "n_init": 2}
        preset = {"rounds": 2, "vae": vae, "gmm": gmm}
    runs = []
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        out = chosen.out if seed == chosen.first_seed else None
        runs.append(compare(digits, preset, seed, out))
    scores = {name: np.array([row[name] for row in runs]) for name in runs[0]}
    print(f"accuracy on rows without a known label, {chosen.seeds} seeds")
    for name, values in scores.items():
        lift = values - scores["none"]
        print(
            f"{name:>8} {values.mean():.3f} ± {values.std():.3f} (worst {values.min():.3f}), "
            f"above none by {lift.mean():+.3f} ± {lift.std():.3f}"
        )
    return scores


if __name__ == "__main__":
    main()

"""Unsupervised classification of digits: a VAE and a Gaussian mixture that learn together.

    python tutorials/vae_gmm.py                                    # embedded digits, a minute
    python tutorials/vae_gmm.py --data tutorial --preset serket    # the original's 3,000 digits
    python tutorials/vae_gmm.py --data tutorial --preset best --seeds 10
    python tutorials/vae_gmm.py --data mnist --preset mnist        # all 70,000
    python tutorials/vae_gmm.py --data fashion --preset fashion
    torchrun --nproc_per_node=4 tutorials/vae_gmm.py --data mnist --preset mnist

Each round trains the VAE and then the mixture; from the second round on the VAE's KL term is taken
to the mean of the cluster each row was assigned to. On clothes the first two rounds are run from
three seeds, and the run whose clusters agree most with the others' goes on. Labels only score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

import serkit as srk
from serkit.modules import GMM, VAE
from serkit.processes import print_once

PRESETS = ("default", "serket", "best", "mnist", "fashion")
LOADERS = {
    "digits": srk.datasets.load_digits,
    "tutorial": srk.datasets.load_tutorial_digits,
    "mnist": partial(srk.datasets.load_mnist, "all"),
    "fashion": partial(srk.datasets.load_fashion_mnist, "all"),
}


def build(images: np.ndarray, labels: np.ndarray, preset: dict, seed: int) -> srk.Graph:
    """Observation -> VAE -> GMM."""
    obs = srk.Observation(images)
    vae = VAE(**preset["vae"], random_state=seed)
    gmm = GMM(10, labels=labels, random_state=seed, **preset["gmm"])
    vae.connect(obs)
    gmm.connect(vae)
    return srk.Graph(gmm)


def train(graph: srk.Graph, preset: dict, rounds: int, out: Path | None = None) -> srk.Graph:
    """The first rounds, from several seeds if the preset says so, and then the others."""
    restarts, trial_rounds = preset["restarts"], min(preset["trial_rounds"], rounds)
    callbacks = []
    if restarts > 1:
        text = f"{trial_rounds} rounds from {restarts} seeds, of which the most stable goes on"
        print_once(text, flush=True)
        callbacks = [print_each_of(restarts, trial_rounds)]
    results = out if rounds == trial_rounds else None
    options = {"keep_latents": out is not None, "verbose": False}
    graph.fit(trial_rounds, restarts=restarts, callbacks=callbacks, out=results, **options)
    for record in graph.history:
        print_round(graph, record)
    if rounds > trial_rounds:
        graph.fit(rounds - trial_rounds, callbacks=[print_round], out=out, **options)
    return graph


def print_each_of(restarts: int, trial_rounds: int) -> Callable[[srk.Graph, dict], None]:
    """A callback for the first rounds, which prints a line for each run as it ends."""
    numbers, seconds = count(1), [0.0]

    def print_run(graph: srk.Graph, record: dict) -> None:
        vae, gmm = record["updates"]
        seconds[0] += vae["seconds"] + gmm["seconds"]
        if record["round"] == trial_rounds:
            line = f"  run {next(numbers)} of {restarts}: loss {vae['loss']:.2f}"
            print_once(f"{line}, {seconds[0]:.1f} seconds", flush=True)
            seconds[0] = 0.0

    return print_run


def explore(graph: srk.Graph, folder: Path) -> Path | None:
    """Write the page that shows the graph in a browser; None where it cannot be."""
    if srk.processes.count() > 1:  # each has its share of the rows
        return None
    try:
        return graph.explore(folder / "explorer.html", title=f"VAE and GMM, {folder.name}")
    except ImportError as error:
        print(error)
        return None


def print_round(graph: srk.Graph, record: dict) -> None:
    """A line of the table."""
    vae, gmm = record["updates"]
    if record["round"] == 1:
        names = (
            "round",
            "loss",
            "reconst.",
            "KL",
            "objective",
            "changed",
            "accuracy",
            "NMI",
            "ARI",
        )
        print_once(" ".join(f"{name:>9}" for name in names), "  seconds VAE, GMM")
    numbers = [vae["loss"], vae["reconstruction"], vae["kl"], gmm["objective"]]
    shares = [gmm.get("changed", float("nan")), gmm["accuracy"], gmm["nmi"], gmm["ari"]]
    print_once(
        f"{record['round']:9d}",
        " ".join(f"{number:9.2f}" for number in numbers),
        " ".join(f"{share:9.3f}" for share in shares),
        f"{vae['seconds']:9.1f} {gmm['seconds']:6.1f}",
        flush=True,
    )


def accuracies(graph: srk.Graph) -> tuple[float, float]:
    """Frozen: the first round, before any message came down. Joint: the last round."""
    scores = [record["updates"][-1]["accuracy"] for record in graph.history]
    return scores[0], scores[-1]


def shortened(preset: dict) -> dict:
    """The same with 2 rounds of 10 epochs and 2 starts, the first from no more than 3 seeds."""
    vae, gmm = {**preset["vae"], "epochs": 10}, {**preset["gmm"], "n_init": 2}
    training = {"restarts": min(preset["restarts"], 3), "trial_rounds": 1, "rounds": 2}
    return {**preset, **training, "vae": vae, "gmm": gmm}


def positive(text: str) -> int:
    """An integer of at least 1, from the command line."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the frozen and joint accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=LOADERS, default="digits")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--seeds", type=positive, default=1, help="number of runs, seeds 0, 1, ...")
    parser.add_argument("--first-seed", type=int, default=0, help="in place of 0")
    parser.add_argument("--rounds", type=positive, help="rounds of VAE and GMM updates")
    parser.add_argument("--out", type=Path, help="folder for results and pictures")
    parser.add_argument(
        "--quick", action="store_true", help="500 rows, 2 rounds of 10 epochs, for CI"
    )
    chosen = parser.parse_args(arguments)

    images, labels = LOADERS[chosen.data]()
    preset = srk.presets.vae_gmm(chosen.preset)
    if chosen.quick:
        images, labels, preset = images[:500], labels[:500], shortened(preset)
    rounds = chosen.rounds or preset["rounds"]
    results, pages = [], []
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        graph = build(images, labels, preset, seed)
        if seed == chosen.first_seed:
            print_once(graph, "\n")
        print_once(f"seed {seed}, {len(images)} rows, preset {chosen.preset}")
        out = chosen.out / f"seed{seed}" if chosen.out and chosen.seeds > 1 else chosen.out
        start = time.perf_counter()
        train(graph, preset, rounds, out)
        print_once(f"{time.perf_counter() - start:.0f} seconds\n")
        pages += [out / "report.html", explore(graph, out)] if out else []
        results.append(accuracies(graph))
    frozen, joint = np.array(results).T
    print_once(
        f"accuracy, {chosen.seeds} seeds: frozen {frozen.mean():.3f} ± {frozen.std():.3f}, "
        f"joint {joint.mean():.3f} ± {joint.std():.3f} (worst {joint.min():.3f}), "
        f"joint above frozen by {(joint - frozen).mean():+.3f} ± {(joint - frozen).std():.3f}"
    )
    for page in filter(None, pages):
        print_once(f"open in a browser: {page}")
    return {"frozen": frozen, "joint": joint}


if __name__ == "__main__":
    main()

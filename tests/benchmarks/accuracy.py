"""Accuracy of unsupervised classification on the tutorial's 3,000 digits, over seeds."""

from __future__ import annotations

import time

import numpy as np

import serkit as srk
from tutorials import vae_gmm

from . import table


def serket(n_seeds: int) -> None:
    """The original's settings; target: mean joint accuracy above 0.70 and above frozen."""
    _run("serket", n_seeds)


def best(n_seeds: int) -> None:
    """The best preset; target: mean 0.93 or more, worst 0.85 or more, 180 seconds or less."""
    _run("best", n_seeds)


def _run(name: str, n_seeds: int) -> None:
    images, labels = srk.datasets.load_tutorial_digits()
    preset = vae_gmm.PRESETS[name]
    rows, scores = [], []
    for seed in range(n_seeds):
        graph = vae_gmm.build(images, labels, preset, seed)
        start = time.perf_counter()
        graph.fit(preset["rounds"], verbose=False)
        taken = time.perf_counter() - start
        by_round = [record["updates"][-1]["accuracy"] for record in graph.history]
        print(f"{name}, seed {seed}: {np.round(by_round, 3).tolist()}, {taken:.0f} s", flush=True)
        scores.append((*vae_gmm.accuracies(graph), taken))
        rows.append((seed, " ".join(f"{a:.3f}" for a in by_round), f"{taken:.0f}"))
    frozen, joint, taken = np.array(scores).T
    gain = joint - frozen
    print()
    table.show(f"Preset {name}, 3,000 digits", ["seed", "accuracy by round", "seconds"], rows)
    table.show(
        f"Preset {name}: mean ± standard deviation over {n_seeds} seeds",
        ["", "mean", "worst", "best"],
        [
            ("frozen", f"{frozen.mean():.3f} ± {frozen.std():.3f}", *_ends(frozen)),
            ("joint", f"{joint.mean():.3f} ± {joint.std():.3f}", *_ends(joint)),
            ("joint - frozen", f"{gain.mean():+.3f} ± {gain.std():.3f}", *_ends(gain)),
            ("seconds", f"{taken.mean():.0f} ± {taken.std():.0f}", *_ends(-taken, "{:.0f}", -1)),
        ],
    )


def _ends(values: np.ndarray, form: str = "{:.3f}", sign: int = 1) -> tuple[str, str]:
    return form.format(sign * values.min()), form.format(sign * values.max())

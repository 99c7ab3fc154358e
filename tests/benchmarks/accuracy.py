"""Accuracy of unsupervised classification over seeds, and how it grows with time."""

from __future__ import annotations

import numpy as np

from serkit import presets
from tutorials import vae_gmm

from . import table


def serket(n_seeds: int, quick: bool = False) -> None:
    """The original's settings; target: mean joint accuracy above 0.70 and above frozen."""
    _run("serket", "tutorial", n_seeds, quick)


def best(n_seeds: int, quick: bool = False) -> None:
    """The best preset; target: mean 0.93 or more, worst 0.85 or more, 180 seconds or less."""
    _run("best", "tutorial", n_seeds, quick)


def mnist_joint(n_seeds: int, quick: bool = False) -> None:
    """All 70,000 digits; target: mean 0.97 of 3 seeds within 30 minutes on two cores."""
    _run("mnist", "mnist", n_seeds, quick)


def fashion_joint(n_seeds: int, quick: bool = False) -> None:
    """All 70,000 images of clothes; target: 0.62."""
    _run("fashion", "fashion", n_seeds, quick)


def _run(name: str, data: str, n_seeds: int, quick: bool) -> None:
    images, labels = vae_gmm.LOADERS["digits" if quick else data]()
    preset = presets.vae_gmm(name)
    if quick:
        images, labels, preset = images[:300], labels[:300], vae_gmm.shortened(preset)
    curves = []  # of each seed: accuracy and seconds so far, by round
    for seed in range(n_seeds):
        graph = vae_gmm.build(images, labels, preset, seed)
        vae_gmm.train(graph, preset, preset["rounds"])
        updates = [record["updates"] for record in graph.history]
        seconds = np.cumsum([sum(update["seconds"] for update in both) for both in updates])
        curves.append((np.array([both[-1]["accuracy"] for both in updates]), seconds))
        print(f"{name}, seed {seed}: {curves[-1][0][-1]:.4f}, {seconds[-1]:.0f} s\n", flush=True)
    accuracy, seconds = np.array(curves).swapaxes(0, 1)  # (seeds, rounds)
    rows = [
        (
            i + 1,
            f"{s.mean():.0f}",
            f"{a.mean():.4f} ± {a.std():.4f}",
            " ".join(f"{x:.4f}" for x in a),
        )
        for i, (a, s) in enumerate(zip(accuracy.T, seconds.T, strict=True))
    ]
    header = ["round", "seconds so far", "accuracy, mean ± std", "by seed"]
    table.show(f"Preset {name}, {len(images):,} images", header, rows)
    frozen, joint, taken = accuracy[:, 0], accuracy[:, -1], seconds[:, -1]
    gain = joint - frozen
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

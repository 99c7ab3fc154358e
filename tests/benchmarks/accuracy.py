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
    """The best preset; target: mean 0.965 or more, worst 0.955 or more, 150 seconds."""
    _run("best", "tutorial", n_seeds, quick)


def mnist_joint(n_seeds: int, quick: bool = False) -> None:
    """All 70,000 digits; target: mean 0.97 of 3 seeds within 30 minutes on two cores."""
    _run("mnist", "mnist", n_seeds, quick)


def fashion_joint(n_seeds: int, quick: bool = False) -> None:
    """All 70,000 images of clothes; target: 0.72, and above frozen on every seed."""
    _run("fashion", "fashion", n_seeds, quick)


def carries(n_seeds: int, quick: bool = False) -> None:
    """What the preset "fashion" gains by: one thing at a time left out; 3 seeds, 20 minutes.

    The first 10,000 images of clothes, six rounds.
    """
    images, labels = vae_gmm.LOADERS["digits" if quick else "fashion"]()
    images, labels = images[: 300 if quick else 10_000], labels[: 300 if quick else 10_000]
    rows = []
    for name, changes in LEFT_OUT.items():
        preset = presets.vae_gmm("fashion")
        preset = {
            "vae": preset["vae"] | changes.get("vae", {}),
            "gmm": preset["gmm"] | changes.get("gmm", {}),
        }
        rows.append((name, *_frozen_and_joint(images, labels, preset, n_seeds, quick)))
    table.show(f"Preset fashion, {len(images):,} images", ["", *FROZEN_AND_JOINT], rows)


def unequal(n_seeds: int, quick: bool = False) -> None:
    """MNIST with 200 images of 0, 400 of 1, ..., 2,000 of 9; target: joint above frozen.

    Nothing is assumed of the sizes: the preset "mnist" without its priors, 175 epochs, six rounds.
    """
    images, labels = vae_gmm.LOADERS["digits" if quick else "mnist"]()
    rng, each = np.random.default_rng(0), 3 if quick else 200
    chosen = [
        rng.choice(np.flatnonzero(labels == digit), each * (digit + 1), replace=False)
        for digit in range(10)
    ]
    order = rng.permutation(np.concatenate(chosen))
    preset = presets.vae_gmm("mnist")
    preset = {
        "vae": {**preset["vae"], "epochs": (100, 15)},
        "gmm": {"n_init": 20, "tol": 1e-4, "use_variance": True},
    }
    found = _frozen_and_joint(images[order], labels[order], preset, n_seeds, quick)
    table.show(f"{len(order):,} digits, 1 : 2 : ... : 10", FROZEN_AND_JOINT, [found])


def _frozen_and_joint(
    images: np.ndarray, labels: np.ndarray, preset: dict, n_seeds: int, quick: bool
) -> list[str]:
    """Accuracies of round 1 and of round 6: means, and by seed."""
    if quick:
        preset = vae_gmm.shortened({**preset, "restarts": 1})
    runs = []
    for seed in range(n_seeds):
        graph = vae_gmm.build(images, labels, preset, seed).fit(2 if quick else 6, verbose=False)
        runs.append(vae_gmm.accuracies(graph))
        print(f"seed {seed}: {runs[-1][0]:.3f}, {runs[-1][1]:.3f}", flush=True)
    return [
        cell
        for values in np.transpose(runs)
        for cell in (f"{values.mean():.3f}", " ".join(f"{value:.3f}" for value in values))
    ]


FROZEN_AND_JOINT = ["frozen", "by seed", "joint", "by seed"]
SHIFTS = presets.vae_gmm("fashion")["vae"]["augment"].transforms[0]
LEFT_OUT: dict[str, dict] = {
    "all": {},
    "the transformed image explained, not the clean one": {"vae": {"augment_target": "augmented"}},
    "no lights": {"vae": {"augment": SHIFTS}},
    "one start of the mixture": {"gmm": {"n_init": (1, 0)}},
    "nothing assumed of the classes' sizes": {"gmm": {"weight_concentration_prior": 1.0}},
}


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

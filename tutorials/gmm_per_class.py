"""Classify, reject, sample, morph and measure in the latent space of a frozen autoencoder.

    python tutorials/gmm_per_class.py --out runs/gmm_per_class      # embedded digits, a minute
    python tutorials/gmm_per_class.py --data mnist --out runs/mnist
    python tutorials/gmm_per_class.py --data fashion --seeds 5

The autoencoder never sees a label. A Gaussian mixture a class is then fitted to its latents: it
classifies, and its draws come out of the decoder as new images. Together with the decoder it says
"none of them" to strangers: to images of unlikely latents, and to those that are decoded badly.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import serkit as srk
from serkit import measures, paths, plots
from serkit.datasets import Dataset
from serkit.modules import AE, GMM, GMMClassifier

DATA = ("digits", "mnist", "fashion")
N_HELD_OUT = 5000
N_SHOWN = 10


class Task(NamedTuple):
    """Images to learn from, to set thresholds on, to test on, and such as are in no class."""

    train: Dataset
    held_out: Dataset
    test: Dataset
    strangers: np.ndarray


def load(data: str, quick: bool) -> Task:
    """The images of a task; a part of them for a quick run."""
    if data == "digits":
        train, test = srk.datasets.train_test_split(srk.datasets.load_digits())
        strangers, n_held_out = 1 - test.images, 300  # in negative they are no digits
    else:
        loaders = [srk.datasets.load_mnist, srk.datasets.load_fashion_mnist]
        own, other = loaders if data == "mnist" else reversed(loaders)
        train, test, n_held_out = own("train"), own("test"), N_HELD_OUT
        strangers = other("test").images
    if quick:
        train, n_held_out = Dataset(train.images[:700], train.labels[:700]), 200
        test = Dataset(test.images[:200], test.labels[:200])
    train, held_out = srk.datasets.train_test_split(train, n_held_out / len(train.images))
    return Task(train, held_out, test, strangers)


def shortened(preset: dict) -> dict:
    """The same with 2 epochs."""
    return {**preset, "encoder": {**preset["encoder"], "epochs": 2}}


def train_encoder(task: Task, preset: dict, seed: int) -> AE:
    """An autoencoder of the training images; no labels."""
    return AE(**preset["encoder"], random_state=seed).fit(task.train.images)


def train_classifier(encoder: AE, task: Task, preset: dict, seed: int) -> GMMClassifier:
    """A mixture a class on the latents, of transformed copies too where the preset asks for some.

    Its thresholds are set on images that neither the encoder nor the mixtures have seen.
    """
    images, labels = task.train
    if "copies" in preset:
        n_copies, affine = preset["copies"]
        copies = affine.copies(images, n_copies, random_state=seed)
        images, labels = np.concatenate([images, copies]), np.tile(labels, n_copies + 1)
    classifier = GMMClassifier(**preset["classifier"], random_state=seed)
    classifier.fit(encoder.encode(images), labels)
    return classifier.fit_thresholds(encoder.encode(task.held_out.images), task.held_out.labels)


def train_novelty(encoder: AE, classifier: GMMClassifier, task: Task, preset: dict) -> srk.Novelty:
    """Who is a stranger, by latents and reconstructions of the same held-out images."""
    novelty = srk.Novelty(**preset["novelty"])
    return novelty.fit(encoder, classifier.density(), task.held_out.images)


def evaluate(
    encoder: AE, classifier: GMMClassifier, novelty: srk.Novelty, task: Task
) -> dict[str, float]:
    """Accuracies, and shares kept and refused: by latents and decoder, and by latents alone.

    Uniform draws from the latent box have no image that could be compared with what is decoded.
    """

    def refused(z: np.ndarray) -> float:
        return float((classifier.outlier_score(z) > 0).mean())

    z, z_test = encoder.encode(task.train.images), encoder.encode(task.test.images)
    return {
        "train": classifier.score(z, task.train.labels),
        "held out": classifier.score(encoder.encode(task.held_out.images), task.held_out.labels),
        "test": classifier.score(z_test, task.test.labels),
        "kept": 1 - float(novelty.is_novel(task.test.images).mean()),
        "strangers refused": float(novelty.is_novel(task.strangers).mean()),
        "kept by latents": 1 - refused(z_test),
        "refused by latents": refused(encoder.encode(task.strangers)),
        "uniform refused": refused(uniform(z, 2000, seed=0)),
    }


def uniform(z: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Draws from the box that holds all latents, of which Gaussians fill but a little."""
    return np.random.default_rng(seed).uniform(
        z.min(axis=0), z.max(axis=0), (n_samples, z.shape[1])
    )


# -- pictures --------------------------------------------------------------------------------------


def draw(out: Path, encoder: AE, classifier: GMMClassifier, task: Task, seed: int) -> None:
    """Write all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    z = encoder.encode(task.train.images)
    shown = task.test.images[:N_SHOWN]
    figures = {
        "losses": plots.losses(encoder.loss_curve_),
        "reconstructions": plots.reconstructions(shown, encoder.reconstruct(shown)),
        "log_likelihood": plots.log_likelihood(classifier.log_likelihood_),
        "latents_pca": plots.latents(z[:3000], task.train.labels[:3000]),
        "latents_lda": plots.latents(z[:3000], task.train.labels[:3000], projection="lda"),
        **samples(encoder, classifier, z, task.train.labels, seed),
        **morphs(encoder, classifier, task, seed),
        **likeness(classifier),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=120)
    walk(out / "walk.gif", encoder, classifier, seed)


def samples(
    encoder: AE, classifier: GMMClassifier, z: np.ndarray, labels: np.ndarray, seed: int
) -> dict:
    """Decoded draws: of each class's mixture, each style, one Gaussian a class, all, the box."""
    names = classifier.classes_
    single = GMMClassifier(1, inference="ml", random_state=seed).fit(z, labels)
    everything = GMM(len(names), n_init=1, random_state=seed).fit(z[:5000])

    def decoded(model: GMMClassifier) -> np.ndarray:
        return np.stack([encoder.decode(model.sample(N_SHOWN, label)[0]) for label in names])

    means = [encoder.decode(classifier.density(label).means) for label in names]
    widest = max(map(len, means))
    styles = np.stack([np.pad(m, [(0, widest - len(m)), (0, 0), (0, 0)]) for m in means])
    first = range(classifier.density(names[0]).n_components)
    drawn = [encoder.decode(classifier.sample(N_SHOWN, names[0], k)[0]) for k in first]
    box = encoder.decode(uniform(z, N_SHOWN**2, seed)).reshape(N_SHOWN, N_SHOWN, *styles.shape[2:])
    mixed = encoder.decode(everything.sample(N_SHOWN**2)[0]).reshape(box.shape)
    return {
        "samples": plots.samples(decoded(classifier), names=names),
        "samples_one_gaussian": plots.samples(decoded(single), names=names),
        "samples_all_classes": plots.image_grid(mixed, title="one mixture of all classes"),
        "samples_uniform": plots.image_grid(box, title="uniform in the latent box"),
        "styles": plots.samples(styles, names=names),
        "styles_of_one_class": plots.samples(np.stack(drawn), names=[f"style {k}" for k in first]),
    }


def morphs(encoder: AE, classifier: GMMClassifier, task: Task, seed: int) -> dict:
    """Ten pairs and ten steps between them: test images in four ways, classes and draws in one."""
    rng = np.random.default_rng(seed)
    pixels = task.test.images[rng.choice(len(task.test.images), (N_SHOWN, 2), replace=False)]
    rows = np.stack([encoder.encode(pair) for pair in pixels])  # (pairs, 2, D)
    density = classifier.density()
    means = np.stack([classifier.density(label).mean() for label in classifier.classes_])
    draws = density.sample(2 * N_SHOWN, seed)[0].reshape(N_SHOWN, 2, -1)

    def decoded(pairs: np.ndarray, path: Callable) -> np.ndarray:
        return np.stack([encoder.decode(path(*pair, N_SHOWN)) for pair in pairs])

    spherical = partial(paths.spherical, centre=density.mean())
    densest = partial(paths.densest, density=density)
    grids = {
        "pixels": np.stack([paths.straight(*pair, N_SHOWN) for pair in pixels]),
        "straight": decoded(rows, paths.straight),
        "spherical": decoded(rows, spherical),
        "densest": decoded(rows, densest),
        "classes": decoded(np.stack([means, np.roll(means, -1, axis=0)], axis=1), densest),
        "draws": decoded(draws, densest),
    }
    steps = [f"{share:.0%}" for share in np.linspace(0, 1, N_SHOWN)]
    names = [f"mean of {name}" for name in classifier.classes_]
    titles = {
        "pixels": "straight lines between pixels",
        "straight": "straight lines between latents",
        "spherical": "arcs between latents",
        "densest": "densest paths between latents",
        "classes": "densest paths between means of classes",
        "draws": "densest paths between draws",
    }
    return {
        f"morphs_{name}": plots.image_grid(
            grid,
            row_titles=names if name == "classes" else None,
            column_titles=steps,
            title=titles[name],
        )
        for name, grid in grids.items()
    }


def likeness(classifier: GMMClassifier) -> dict:
    """Which classes are alike: divergences between their mixtures."""
    names = classifier.classes_.tolist()
    classes = [classifier.density(name) for name in names]
    axes = {"xlabel": "class", "ylabel": "class"}
    kl = measures.pairwise(classes, measures.kl)
    js = measures.pairwise(classes, measures.jensen_shannon)
    return {
        "kl": plots.heat_map(kl, names, title="KL(row || column)", label="nats", **axes),
        "jensen_shannon": plots.heat_map(js, names, title="Jensen-Shannon", label="nats", **axes),
    }


def walk(path: Path, encoder: AE, classifier: GMMClassifier, seed: int) -> None:
    """A walk over the density of the first class, as an animation."""
    density = classifier.density(classifier.classes_[0])
    steps = paths.langevin(density, 60, step_size=0.1, random_state=seed)
    plots.save_gif(encoder.decode(steps.rows), path)


def print_row(title: str, row: dict[str, float]) -> None:
    """Numbers below their names."""
    columns = (f"{value:{max(len(name), 8)}.4f}" for name, value in row.items())
    print(f"{title:>5}  " + "  ".join(columns), flush=True)


def print_entropies(classifier: GMMClassifier) -> None:
    """How much room each class takes up in latent space."""
    print("class      entropy (nats)          bounds")
    for seed, name in enumerate(classifier.classes_):
        density = classifier.density(name)
        estimate = measures.entropy(density, random_state=seed)
        low, high = measures.entropy_bounds(density)
        print(f"{name!s:>5} {estimate.value:10.2f} ± {estimate.standard_error:.2f}", end="")
        print(f"    {low:9.2f} to {high:.2f}")


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the scores by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for pictures, of the first seed")
    parser.add_argument("--quick", action="store_true", help="few rows and 2 epochs, for CI")
    chosen = parser.parse_args(arguments)

    task, preset = load(chosen.data, chosen.quick), srk.presets.gmm_per_class(chosen.data)
    preset = shortened(preset) if chosen.quick else preset
    rows = []
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        start = time.perf_counter()
        encoder = train_encoder(task, preset, seed)
        classifier = train_classifier(encoder, task, preset, seed)
        novelty = train_novelty(encoder, classifier, task, preset)
        evaluated = evaluate(encoder, classifier, novelty, task)
        rows.append({**evaluated, "seconds": time.perf_counter() - start})
        if seed == chosen.first_seed:
            print(" seed  " + "  ".join(f"{name:>8}" for name in rows[0]))
        print_row(f"{seed}", rows[-1])
        if seed == chosen.first_seed and chosen.out:
            draw(chosen.out, encoder, classifier, task, seed)
            print_entropies(classifier)
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    print_row("mean", {name: values.mean() for name, values in scores.items()})
    print_row("std", {name: values.std() for name, values in scores.items()})
    return scores


if __name__ == "__main__":
    main()

"""Cats, dogs and pandas: what mixtures, VAEs and AEs find in 3,000 photographs without labels.

    python tutorials/animals.py --out runs/animals                  # embedded digits, a minute
    python tutorials/animals.py --data animals --out runs/animals   # needs animals128.zip

Mixtures on raw pixels, a convolutional VAE and its draws, classifiers on pixels against ones on
latents, the weight of the KL term, interpolations, and a plain autoencoder with a mixture on top.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import serkit as srk
from serkit import metrics, paths, plots
from serkit.datasets import Dataset
from serkit.modules import AE, GMM, VAE, NetClassifier, RandomAffine

DATA = ("digits", "animals")
BATCH = {"batch_size": 100}
ALPHAS = (0.1, 0.5, 1.5, 2.0)
PUBLISHED = {  # on the photographs; the accuracies on a validation split that is not known
    "NMI of 5 components on pixels": 0.0144,
    "NMI of 10 components on pixels": 0.0424,
    "NMI of 15 components on pixels": 0.0344,
    "MLP on VAE latents, test accuracy": 0.80,
    "MLP on AE latents, test accuracy": 0.66,
}
N_SHOWN = 10
Named = Iterator[tuple[str, Figure]]


def load(data: str, size: int, *, grey: bool = False) -> Dataset:
    """Images of one size; the embedded digits have but one."""
    if data == "digits":
        return srk.datasets.load_digits()
    return srk.datasets.load_animals(size=size, grey=grey)


def pixel_mixtures(grey: Dataset, seed: int, report: dict) -> Named:
    """Mixtures of 5, 10 and 15 components on grey pixels."""
    rows = grey.images.reshape(len(grey.images), -1)
    curves = {}
    for k in (5, 10, 15):
        gmm = GMM(k, n_init=1, max_iter=50, random_state=seed).fit(rows)
        report[f"NMI of {k} components on pixels"] = metrics.nmi(grey.labels, gmm.predict(rows))
        curves[f"{k} components"] = gmm.log_likelihood_
        drawn = [gmm.sample(N_SHOWN, c)[0].clip(0, 1) for c in range(k)]
        yield f"pixels_{k}_components", plots.samples(np.stack(drawn))
    yield "pixels_log_likelihood", plots.log_likelihood(curves)


def encoders(train: Dataset, preset: dict, seed: int) -> dict[str, AE | VAE]:
    """A convolutional VAE and AE with 64 latents."""
    options = {**preset["encoder"], "augment": affine(train)}
    return {
        kind.__name__: kind(64, **options, random_state=seed).fit(train.images)
        for kind in (VAE, AE)
    }


def affine(dataset: Dataset) -> RandomAffine:
    """Small turns and shifts, by the size of the images."""
    return RandomAffine(degrees=8, shear=0.05, scale=0.1, shift=0.05 * dataset.images.shape[-1])


def vae_pictures(vae: VAE, test: Dataset, seed: int) -> Named:
    """Reconstructions, a grid of draws, loss curves and interpolations."""
    shown = test.images[:N_SHOWN]
    yield "vae_reconstructions", plots.reconstructions(shown, vae.reconstruct(shown).clip(0, 1))
    yield (
        "vae_samples",
        plots.image_grid(grid(vae.sample(N_SHOWN**2, random_state=seed)), title="draws"),
    )
    yield "vae_losses", plots.losses(vae.loss_curve_)
    ends = vae.encode(test.images[: 2 * N_SHOWN]).reshape(N_SHOWN, 2, -1)
    steps = [vae.decode(paths.spherical(*pair, N_SHOWN)).clip(0, 1) for pair in ends]
    yield "vae_interpolations", plots.image_grid(np.stack(steps), title="interpolations")


def grid(images: np.ndarray) -> np.ndarray:
    """100 images as 10 x 10, in [0, 1]."""
    return images.clip(0, 1).reshape(N_SHOWN, N_SHOWN, *images.shape[1:])


def compare_classifiers(
    models: dict[str, AE | VAE],
    train: Dataset,
    test: Dataset,
    preset: dict,
    seed: int,
    report: dict,
) -> None:
    """A CNN that learns from pixels and labels, against MLPs on latents learnt without labels."""
    options = {"epochs": preset["large_epochs"], "random_state": seed, **BATCH}
    options["augment"] = affine(train)
    scored = {"CNN on pixels": NetClassifier(**options).fit(train.images, train.labels)}
    images = np.concatenate(
        [train.images, affine(train).copies(train.images, 5, random_state=seed)]
    )
    for name, model in models.items():
        mlp = MLPClassifier((256,), alpha=1.0, batch_size=500, early_stopping=True)
        encoded = FunctionTransformer(model.encode)
        scored[f"MLP on {name} latents"] = make_pipeline(
            encoded, StandardScaler(), mlp.set_params(random_state=seed)
        ).fit(images, np.tile(train.labels, 6))
    for name, classifier in scored.items():
        report[f"{name}, train accuracy"] = classifier.score(train.images, train.labels)
        report[f"{name}, test accuracy"] = classifier.score(test.images, test.labels)


def beta_vaes(train: Dataset, test: Dataset, preset: dict, seed: int, report: dict) -> Named:
    """How the weight of the KL term trades sharp reconstructions for a dense latent space."""
    options = {**preset["encoder"], "epochs": preset["large_epochs"]}
    shown = test.images[:N_SHOWN]
    for alpha in ALPHAS:
        vae = VAE(128, alpha=alpha, **options, random_state=seed).fit(train.images)
        error = ((vae.reconstruct(test.images) - test.images) ** 2).mean()
        report[f"beta-VAE {alpha}, test squared error"] = float(error)
        report[f"beta-VAE {alpha}, KL (nats)"] = vae.history_[-1]["kl"]
        rows = [shown, vae.reconstruct(shown), vae.sample(N_SHOWN, random_state=seed)]
        titles = ["data", "reconstruction", "draws"]
        title = f"VAE with alpha = {alpha}"
        picture = plots.image_grid(np.stack(rows).clip(0, 1), row_titles=titles, title=title)
        yield f"beta_vae_{alpha}", picture


def plain_autoencoder(large: Dataset, preset: dict, seed: int, report: dict) -> Named:
    """An AE 512-64-64 to 32 on large images, a mixture on its latents, and 100 decoded draws."""
    options = {"hidden_sizes": (512, 64, 64), "epochs": preset["large_epochs"], **BATCH}
    ae = AE(32, **options, scheduler="onecycle", random_state=seed).fit(large.images)
    z = ae.encode(large.images)
    gmm = GMM(10, n_init=10, random_state=seed).fit(z)
    report["NMI of 10 components on AE latents"] = metrics.nmi(large.labels, gmm.predict(z))
    drawn = grid(ae.decode(gmm.sample(N_SHOWN**2, random_state=seed)[0]))
    yield "ae_mixture_samples", plots.image_grid(drawn, title="draws of a mixture on AE latents")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the tutorial; returns what it measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for pictures")
    parser.add_argument("--quick", action="store_true", help="few rows and 2 epochs, for CI")
    chosen = parser.parse_args(arguments)

    preset = srk.presets.animals(chosen.data)
    if chosen.quick:
        preset = {"encoder": {**preset["encoder"], "epochs": 2}, "large_epochs": 2}
    prepare = few if chosen.quick else lambda dataset: dataset
    seed, report = chosen.seed, {}
    train, test = srk.datasets.train_test_split(prepare(load(chosen.data, 32)))
    models = encoders(train, preset, seed)
    compare_classifiers(models, train, test, preset, seed, report)
    sections = [
        partial(vae_pictures, models["VAE"], test, seed),
        partial(pixel_mixtures, prepare(load(chosen.data, 28, grey=True)), seed, report),
        partial(beta_vaes, train, test, preset, seed, report),
        partial(plain_autoencoder, prepare(load(chosen.data, 128)), preset, seed, report),
    ]
    for section in sections:
        start = time.perf_counter()
        for name, figure in section():
            if chosen.out:
                chosen.out.mkdir(parents=True, exist_ok=True)
                figure.savefig(chosen.out / f"{name}.png", dpi=120)
        print(f"{section.func.__name__}: {time.perf_counter() - start:.0f} seconds", flush=True)
    for name, value in report.items():
        note = f"   (published: {PUBLISHED[name]})" if name in PUBLISHED else ""
        print(f"{name:42} {value:.4f}{note if chosen.data == 'animals' else ''}")
    return report


def few(dataset: Dataset) -> Dataset:
    """Every so many rows, 300 in all."""
    every = max(len(dataset.images) // 300, 1)
    return Dataset(dataset.images[::every], dataset.labels[::every])


if __name__ == "__main__":
    main()

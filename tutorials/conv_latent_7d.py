"""From images to seven numbers and back: a convolutional autoencoder, batch normalised.

    python tutorials/conv_latent_7d.py --out runs/conv_latent_7d    # embedded digits, a minute
    python tutorials/conv_latent_7d.py --data mnist --out runs/conv_latent_7d
    python tutorials/conv_latent_7d.py --data mnist --explore page.html    # seven sliders, live

Linear discriminant analysis shows how the classes lie in the seven dimensions, and names what
comes out of the decoder for draws from a single Gaussian a class.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import serkit as srk
from serkit import plots
from serkit.datasets import Dataset
from serkit.modules import AE, GMMClassifier

LOADERS = {"mnist": srk.datasets.load_mnist, "fashion": srk.datasets.load_fashion_mnist}
DATA = ("digits", *LOADERS)
N_DRAWN = 100


def load(data: str, quick: bool) -> tuple[Dataset, Dataset]:
    """Training and test images; a part of them for a quick run."""
    if data == "digits":
        train, test = srk.datasets.train_test_split(srk.datasets.load_digits())
    else:
        train, test = LOADERS[data]("train"), LOADERS[data]("test")
    if quick:
        train = Dataset(train.images[:500], train.labels[:500])
        test = Dataset(test.images[:200], test.labels[:200])
    return train, test


def train_encoder(images: np.ndarray, preset: dict, seed: int) -> AE:
    """The autoencoder; the likelihood's fixed variance makes its loss a squared error."""
    return AE(**preset, random_state=seed).fit(images)


def squared_error(encoder: AE, images: np.ndarray) -> float:
    """Mean over rows and pixels of the squared error of the reconstruction."""
    return float(((encoder.reconstruct(images) - images) ** 2).mean())


def drawn(encoder: AE, gaussians: GMMClassifier) -> np.ndarray:
    """Decoded draws of every class's Gaussian: (C, N_DRAWN, ...)."""
    return np.stack([encoder.decode(gaussians.sample(N_DRAWN, c)[0]) for c in gaussians.classes_])


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the scores by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for pictures, of the first seed")
    parser.add_argument("--explore", type=Path, help="page for a browser, of the first seed")
    parser.add_argument("--quick", action="store_true", help="few rows and 2 epochs, for CI")
    chosen = parser.parse_args(arguments)

    train, test = load(chosen.data, chosen.quick)
    preset = srk.presets.conv_latent_7d(chosen.data) | ({"epochs": 2} if chosen.quick else {})
    rows = []
    for seed in range(chosen.seeds):
        start = time.perf_counter()
        encoder = train_encoder(train.images, preset, seed)
        z = encoder.encode(train.images)
        lda = LinearDiscriminantAnalysis().fit(z, train.labels)
        gaussians = GMMClassifier(1, inference="ml", random_state=seed).fit(z, train.labels)
        images = drawn(encoder, gaussians)
        flat = images.reshape(-1, *images.shape[2:])
        called = lda.predict(encoder.encode(flat)).reshape(-1, N_DRAWN)
        rows.append(
            {
                "MSE train": squared_error(encoder, train.images),
                "MSE test": squared_error(encoder, test.images),
                "LDA test": lda.score(encoder.encode(test.images), test.labels),
                "Gaussians test": gaussians.score(encoder.encode(test.images), test.labels),
                "draws as meant": float((called == gaussians.classes_[:, None]).mean()),
                "seconds": time.perf_counter() - start,
            }
        )
        if seed == 0:
            print(" seed " + " ".join(f"{name:>14}" for name in rows[0]))
        print(f"{seed:5d} " + " ".join(f"{v:14.4f}" for v in rows[-1].values()), flush=True)
        if seed == 0 and chosen.out:
            draw(chosen.out, encoder, train, test, images, called)
        if seed == 0 and chosen.explore:
            print(f"open in a browser: {explore(chosen.explore, encoder, train)}")
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    print(" mean " + " ".join(f"{values.mean():14.4f}" for values in scores.values()))
    print("  std " + " ".join(f"{values.std():14.4f}" for values in scores.values()))
    return scores


def explore(path: Path, encoder: AE, train: Dataset) -> Path:
    """Write a page with a slider for each latent dimension, decoded live."""
    encoder.freeze().connect(srk.Observation(train.images, name="images"))
    gaussians = GMMClassifier(1, inference="ml", labels=train.labels, random_state=0)
    graph = srk.Graph(gaussians.connect(encoder)).fit(1, verbose=False)
    return graph.explore(path, title="Images as seven numbers")


def draw(
    out: Path,
    encoder: AE,
    train: Dataset,
    test: Dataset,
    images: np.ndarray,
    called: np.ndarray,
) -> None:
    """Write all pictures, and the interactive page if plotly is installed."""
    out.mkdir(parents=True, exist_ok=True)
    z, shown = encoder.encode(train.images[:5000]), test.images[:10]
    labels = train.labels[:5000]
    meant = np.repeat(np.unique(train.labels), N_DRAWN)
    figures = {
        "losses": plots.losses(encoder.loss_curve_),
        "reconstructions": plots.reconstructions(shown, encoder.reconstruct(shown)),
        "latents_lda": plots.latents(z, labels, projection="lda"),
        "samples": plots.samples(images[:, :10], names=np.unique(train.labels)),
        "called": plots.confusion(meant, called.ravel()),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=120)
    try:
        plots.latents_3d(z, labels, projection="lda").write_html(out / "latents_lda_3d.html")
    except ImportError as error:
        print(error)


if __name__ == "__main__":
    main()

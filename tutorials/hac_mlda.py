"""Words found in recordings: histograms of acoustic co-occurrences, and topics of them.

    python tutorials/hac_mlda.py --out runs/hac_mlda     # words made of tones, a few seconds
    python tutorials/hac_mlda.py --data spoken           # recordings of English digits

Recordings -> HAC -> MLDA. The words made up here are pairs of vowels, each the resonances of a
voice's buzz at two formants; pitch, speed and noise differ from recording to recording. `HAC` takes
paths of WAV files just as well. Labels only score. Needs librosa: pip install '.[audio]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import signal

import serkit as srk
from serkit import metrics, plots
from serkit.datasets import Recordings
from serkit.modules import HAC, MLDA

RATE = 8000  # samples a second
VOWELS = {"a": (850, 1600), "e": (400, 2300), "i": (250, 2500), "o": (450, 800), "u": (300, 700)}
WORDS = ["ai", "io", "ua", "ei", "ou", "ia"]
N_EACH, BANDWIDTH = 20, 80  # recordings a word; of the formants, in Hz


def say(word: str, rng: np.random.Generator) -> np.ndarray:
    """One recording of a word, (T,): a buzz through two resonances, gliding between vowels."""
    n_samples = int(RATE * rng.uniform(0.4, 0.7))
    pitch = rng.uniform(90, 220) * np.linspace(1.1, 0.9, n_samples)  # falling, in Hz
    sound = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / RATE)
    share = np.clip(np.linspace(-1, 2, n_samples), 0, 1)  # of the second vowel
    spoken = [formants(sound, VOWELS[vowel], rng) for vowel in word]
    sound = (1 - share) * spoken[0] + share * spoken[1]
    return sound + 0.03 * sound.std() * rng.standard_normal(n_samples)


def formants(sound: np.ndarray, centres: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A sound (T,) through a resonance at each centre, which differs by voice; scaled."""
    for centre in centres:
        frequency = centre * rng.normal(1, 0.04)
        sound = signal.lfilter(*signal.iirpeak(frequency, frequency / BANDWIDTH, RATE), sound)
    return sound / sound.std()


def load(data: str, n_each: int) -> tuple[Recordings, list[str]]:
    """Recordings and the names of their classes."""
    if data == "spoken":
        recordings = srk.datasets.load_spoken_digits()
        return recordings, [str(digit) for digit in np.unique(recordings.labels)]
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(len(WORDS)), n_each)
    return Recordings([say(WORDS[label], rng) for label in labels], labels, RATE), WORDS


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=["tones", "spoken"], default="tones")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="5 recordings a word, for CI")
    chosen = parser.parse_args(arguments)

    recordings, names = load(chosen.data, 5 if chosen.quick else N_EACH)
    accuracies = []
    for seed in range(chosen.seeds):
        hac = HAC(sample_rate=recordings.sample_rate, random_state=seed)
        try:
            counts = hac.fit_transform(recordings.waveforms)
        except ImportError as error:
            parser.exit(1, f"{error}\n")
        mlda = MLDA(len(names), labels=recordings.labels, n_init=20, random_state=seed)
        mlda.connect(srk.Observation(counts, name="hac"))
        out = chosen.out if seed == 0 else None
        srk.Graph(mlda).fit(1, callbacks=[srk.training.Report()], out=out, verbose=False)
        accuracies.append(mlda.scores()["accuracy"])
        if out:
            draw(out, hac, mlda, names)
    print(f"accuracy, {chosen.seeds} seeds: {np.mean(accuracies):.3f} ± {np.std(accuracies):.3f}")
    return {"accuracy": np.array(accuracies)}


def draw(out: Path, hac: HAC, mlda: MLDA, names: list[str]) -> None:
    """Write which codeword follows which in each topic, of the coefficients at the first lag."""
    n, word = hac.n_codewords, metrics.matching(mlda.labels, mlda.posterior.clusters)
    pairs = mlda.components_[0][:, : n**2].reshape(-1, n, n)  # (K, from, to)
    order = np.argsort(hac.codebooks_[0][:, 1])  # by the slope of the spectrum
    pairs = pairs[:, order][:, :, order]
    titles = [names[word[k]] if k in word else "-" for k in range(len(pairs))]
    figure = plots.image_grid(
        (pairs / pairs.max(axis=(1, 2), keepdims=True))[None],
        column_titles=titles,
        title="codewords that follow one another",
    )
    figure.savefig(out / "topics.png", dpi=120)


if __name__ == "__main__":
    main()

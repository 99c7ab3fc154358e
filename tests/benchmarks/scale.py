"""Large data: seconds and memory, of a mixture beside scikit-learn on the same rows."""

from __future__ import annotations

import tempfile
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import make_blobs
from sklearn.metrics import pairwise_distances_argmin
from sklearn.mixture import GaussianMixture

from serkit import Observation
from serkit.datasets import make_counts
from serkit.modules import GMM, MLDA, VAE, MarkovModel, NeighbourField

from . import table

_ITERATIONS, _COLUMNS, _COMPONENTS = 5, 16, 32


def gmm_iteration(_: int, quick: bool = False) -> None:
    """An iteration of EM, full covariances, from the same start as scikit-learn.

    Targets: on 1,000,000 x 16, K = 32, 8 times faster, the same log-likelihood to 1e-8, and less
    than 500 MB beyond the data; on 3,000 x 18, K = 10, twice as fast.
    """
    n_rows, repeats, rows = (5000, 1, []) if quick else (1_000_000, 5, [])
    small = (3000, 18), 10, 1 if quick else 20
    for shape, k, n_fits in (((n_rows, _COLUMNS), _COMPONENTS, 1), small):
        x, means = _rows(*shape, k)
        ours, theirs = _ours(x, means), _sklearns(x, means)
        each, their_each = _iteration(ours, theirs, n_fits, repeats)
        gap = abs(ours(_ITERATIONS) / theirs(_ITERATIONS) - 1)
        rows.append(
            (
                f"{shape[0]:,} x {shape[1]}, K = {k}",
                table.spread(each, 1),
                table.spread(their_each, 1),
                f"{np.median(their_each) / np.median(each):.1f}",
                f"{gap:.0e}",
                f"{_peak(ours) / 1e6:.0f}",
            )
        )
    header = ["rows", "serkit, ms an iteration", "scikit-learn", "ratio of medians"]
    header += ["relative gap in log-likelihood", "peak beyond the data, MB"]
    table.show("EM, full covariances, float32 rows", header, rows)


def _iteration(
    ours: Callable[[int], float], theirs: Callable[[int], float], n_fits: int, repeats: int
) -> np.ndarray:
    """Milliseconds of an iteration, (2, repeats): long fits less short ones, all in turn."""

    def several(fit: Callable[[int], float], n_iterations: int) -> Callable[[], object]:
        return lambda: [fit(n_iterations) for _ in range(n_fits)]

    calls = [several(fit, n) for fit in (ours, theirs) for n in (1 + _ITERATIONS, 1)]
    seconds = table.in_turn(calls, repeats).reshape(2, 2, repeats)
    return 1000 * (seconds[:, 0] - seconds[:, 1]) / (_ITERATIONS * n_fits)


def gmm_growth(_: int, quick: bool = False) -> None:
    """Seconds and memory of a fit, from 10,000 to 1,000,000 rows; target: slope at most 1.05."""
    sizes = (500, 5000, 50_000) if quick else (10_000, 100_000, 1_000_000)
    repeats, rows = 1 if quick else 5, []
    x, start = _rows(sizes[-1], _COLUMNS, _COMPONENTS)
    medians = []
    for n in sizes:
        fit = _ours(x[:n], start)
        seconds = [table.seconds(lambda fit=fit: fit(_ITERATIONS)) for _ in range(repeats)]
        medians.append(np.median(seconds))
        beyond = _peak(fit) - 8 * n * _COMPONENTS
        rows.append((f"{n:,}", table.spread(seconds), f"{beyond / 1e6:.0f}"))
    slope = np.polyfit(np.log(sizes), np.log(medians), 1)[0]
    header = ["rows", f"seconds of {_ITERATIONS} iterations", "peak beyond data and result, MB"]
    table.show(f"Growth of GMM.fit, D = {_COLUMNS}, K = {_COMPONENTS}", header, rows)
    table.say(f"slope of log seconds against log rows: {slope:.3f}")


def growth(_: int, quick: bool = False) -> None:
    """Seconds and memory from many rows to very many; targets: slopes at most 1.1.

    GMM, K = 32, reads rows of 16 columns from a memory-mapped file, to 10,000,000 of them (640 MB),
    and writes responsibilities into another; target: memory below 500 MB. MLDA learns topics of 50
    counts and NeighbourField a field over two columns, both to 100,000 rows, MarkovModel a chain.
    VAE reads from a file; target: at least 0.9 of its speed from memory.
    """
    unit = 20 if quick else 10_000
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that so few steps do not converge
        for name, sizes, update in (
            ("GMM, memory-mapped", (10, 100, 1000), partial(_mapped_mixture, folder=Path(folder))),
            ("MLDA", (1, 3, 10), _topics),
            ("MarkovModel", (1, 10, 100), _chain),
            ("NeighbourField", (1, 3, 10), _field),
        ):
            taken = []
            for size in sizes:
                n = size * unit
                seconds, peak = update(n)
                taken.append(seconds)
                rows.append((name, f"{n:,}", f"{seconds:.2f}", f"{peak / 1e6:.0f}"))
            slope = np.polyfit(np.log(sizes), np.log(taken), 1)[0]
            rows.append((name, "slope", f"{slope:.2f}", ""))
        header = ["update", "rows", "seconds", "most MB of arrays beside the rows"]
        table.show("Growth", header, rows)
        speeds = _vae_by_place(Path(folder), 6 * unit, repeats=1 if quick else 5)
    table.say(
        "VAE 784-128-18 from a file: in the median of pairs "
        f"{np.median(speeds):.2f} of its speed from memory ({min(speeds):.2f} to {max(speeds):.2f})"
    )


def _measured(update: Callable[[], object]) -> tuple[float, int]:
    """Seconds of an update, and the most bytes of arrays at a time while it runs again."""
    seconds = table.seconds(update)
    tracemalloc.start()
    try:
        update()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _mapped_mixture(n: int, folder: Path) -> tuple[float, int]:
    """Three iterations of EM on rows in a file, made a part at a time, and their messages."""
    path, rng = folder / "rows.npy", np.random.default_rng(0)
    centres = rng.normal(scale=10.0, size=(_COMPONENTS, _COLUMNS))
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, _COLUMNS))
    for start in range(0, n, 100_000):
        some = rows[start : start + 100_000]
        noise = rng.normal(scale=4.0, size=some.shape)
        some[:] = centres[rng.integers(_COMPONENTS, size=len(some))] + noise
    rows.flush()
    del rows

    def update() -> None:
        gmm = _mixture(centres, 3).connect(Observation(np.load(path, mmap_mode="r")))
        gmm.update()
        assert len(gmm.message_up.log_prob) == n

    return _measured(update)


def _topics(n: int) -> tuple[float, int]:
    counts = make_counts(np.arange(n) % 10, n_words=50, random_state=0)
    mlda = MLDA(10, n_init=1, max_iter=3, tol=0, random_state=0).connect(Observation(counts))
    return _measured(mlda.update)


def _chain(n: int) -> tuple[float, int]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)) + 4.0 * (np.arange(n) % 4)[:, None]
    gmm = GMM(4, n_init=1, max_iter=2, random_state=0).connect(Observation(x)).update()
    return _measured(MarkovModel(max_iter=3, tol=0).connect(gmm).update)


def _field(n: int) -> tuple[float, int]:
    x, _, centres = make_blobs(n, 2, centers=4, random_state=0, return_centers=True)
    obs = Observation(x)
    gmm = GMM(4, means_init=centres, max_iter=2).connect(obs).update()
    field = NeighbourField(max_iter=10, tol=0).connect(gmm, obs)
    # 15 and 14 neighbours in turn, or they would not be looked for again
    return _measured(lambda: field.set_params(n_neighbors=29 - field.n_neighbors).update())


def _vae_by_place(folder: Path, n: int, repeats: int) -> list[float]:
    """Seconds of an epoch from memory by those from a file, of pairs in turn."""
    images = np.random.default_rng(0).random((n, 784), dtype=np.float32)
    np.save(folder / "images.npy", images)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    calls = [lambda x=x: VAE(18, epochs=2, random_state=0).fit(x) for x in (images, mapped)]
    memory, file = table.in_turn(calls, repeats)
    return (memory / file).tolist()


def _rows(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 rows of clusters that overlap, and means to start from."""
    x, _, centres = make_blobs(
        n, d, centers=k, cluster_std=4.0, random_state=0, return_centers=True
    )
    return x.astype(np.float32), centres


def _mixture(means: np.ndarray, n_iterations: int) -> GMM:
    return GMM(len(means), inference="ml", means_init=means, max_iter=n_iterations, tol=0)


def _ours(x: np.ndarray, means: np.ndarray) -> Callable[[int], float]:
    """A fit of so many iterations; returns the log-likelihood a row."""
    return lambda n: _mixture(means, n).fit(x).log_likelihood_[-1]


def _sklearns(x: np.ndarray, means: np.ndarray) -> Callable[[int], float]:
    """The same from the same mixture: that of every row's nearest mean."""
    wide = x.astype(np.float64)  # it would sum in float32 else
    nearest = pairwise_distances_argmin(x, means)
    clusters = [wide[nearest == k] for k in range(len(means))]
    covariances = [np.cov(rows.T, bias=True) + 1e-6 * np.eye(x.shape[1]) for rows in clusters]
    start = {
        "weights_init": [len(rows) / len(x) for rows in clusters],
        "means_init": [rows.mean(axis=0) for rows in clusters],
        "precisions_init": np.linalg.inv(covariances),
    }

    def fit(n_iterations: int) -> float:
        peer = GaussianMixture(len(means), **start, max_iter=n_iterations, tol=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge
            return peer.fit(wide).score(wide)

    return fit


def _peak(fit: Callable[[int], float]) -> int:
    """Most bytes allocated at a time during a fit of two iterations."""
    tracemalloc.start()
    try:
        fit(2)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

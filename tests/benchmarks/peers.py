"""ClustPy's deep clustering on the same images, where it is installed: ``pip install clustpy``.

It imports torchvision, of which it needs nothing here.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from serkit import metrics
from tutorials import vae_gmm

from . import table

SHARE_OF_EPOCHS = 0.2  # of its defaults, 100 alone and 150 clustering, which take an hour or more


def vade(n_seeds: int, quick: bool = False) -> None:
    """VaDE (Jiang and others, 2017) on all 70,000 digits; published: 0.9446."""
    _run("VaDE", n_seeds, quick)


def dec(n_seeds: int, quick: bool = False) -> None:
    """DEC (Xie and others, 2016) on all 70,000 digits; published: 0.843."""
    _run("DEC", n_seeds, quick)


def _run(name: str, n_seeds: int, quick: bool) -> None:
    if importlib.util.find_spec("clustpy") is None:
        print(f"{name}: clustpy is not installed\n")
        return
    from clustpy import deep

    images, labels = vae_gmm.LOADERS["digits" if quick else "mnist"]()
    rows, runs = images.reshape(len(images), -1).astype(np.float32), []
    share = 0.01 if quick else SHARE_OF_EPOCHS
    for seed in range(n_seeds):
        peer = getattr(deep, name)(10, random_state=seed)
        for phase in ("pretrain_epochs", "clustering_epochs"):
            setattr(peer, phase, max(int(share * getattr(peer, phase)), 1))
        start = time.perf_counter()
        peer.fit(rows)
        seconds = time.perf_counter() - start
        runs.append((metrics.accuracy(labels, peer.labels_), seconds))
        print(f"{name}, seed {seed}: {runs[-1][0]:.4f}, {seconds:.0f} s", flush=True)
    accuracy, seconds = np.transpose(runs)
    table.show(
        f"ClustPy's {name}, {len(rows):,} images, {share:.0%} of its default epochs",
        ["seeds", "accuracy, mean ± std", "seconds"],
        [(n_seeds, f"{accuracy.mean():.4f} ± {accuracy.std():.4f}", f"{seconds.mean():.0f}")],
    )

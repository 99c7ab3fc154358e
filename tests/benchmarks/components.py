"""How often the number of components is found that rows were drawn from."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import serkit as srk
from serkit.modules import GMM

from . import table


def blobs(k: int, seed: int, n_each: int = 100, n_dims: int = 8) -> np.ndarray:
    """Rows of K Gaussians of variance 1 whose means are uniform in a cube of side 20."""
    rng = np.random.default_rng([k, seed])
    means = rng.uniform(-10, 10, (k, n_dims))
    return rng.normal(size=(k * n_each, n_dims)) + np.repeat(means, n_each, axis=0)


def components(n_seeds: int, quick: bool = False) -> None:
    """Target: the right K in 9 of 10 seeds, of K - 2 to K + 2; and 3 for wine, of 1 to 6.

    The same of GMM("auto"), which is told no range.
    """
    rows, n_jobs = [], 1 if quick else -1
    for k in (3,) if quick else (3, 5, 10, 20, 30):
        numbers = range(max(k - 2, 1), k + 3)
        found = [
            srk.select_components(
                blobs(k, seed), numbers, n_runs=2, n_jobs=n_jobs, random_state=seed
            )
            for seed in range(1 if quick else n_seeds)
        ]
        alone = [
            GMM("auto", random_state=seed).fit(blobs(k, seed)).n_components_
            for seed in range(len(found))
        ]
        rows.append(_row(f"{k} blobs", k, found, alone))
    wine = StandardScaler().fit_transform(load_wine(return_X_y=True)[0])
    model = GMM(1, covariance_type="diag")
    found = [
        srk.select_components(wine, range(1, 7), model=model, n_jobs=n_jobs, random_state=seed)
        for seed in range(1 if quick else n_seeds)
    ]
    automatic = GMM("auto", covariance_type="diag", warm_start=False)
    alone = [
        automatic.set_params(random_state=seed).fit(wine).n_components_
        for seed in range(len(found))
    ]
    rows.append(_row("wine, diagonal", 3, found, alone))
    head = ["data", "seeds", 'GMM("auto")', "recommended", "votes", *found[0].means]
    table.show("Right numbers", head, rows)


def _row(name: str, k: int, found: list[srk.Selection], alone: list[int]) -> list[object]:
    """How often each is right."""
    right = [f.n_components == k for f in found]
    agreement = np.mean([f.agreement for f in found])
    by_criterion = [sum(f.votes.get(c) == k for f in found) for c in found[0].means]
    return [name, len(found), alone.count(k), sum(right), f"{agreement:.2f}", *by_criterion]

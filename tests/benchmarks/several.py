"""One process with two threads against two processes with one thread each, on the same machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from serkit import presets
from serkit.modules import AE
from serkit.processes import print_once
from tutorials import vae_gmm

from . import table

ROOT = Path(__file__).parents[2]
ROUNDS = 2


def processes(_: int, quick: bool = False) -> None:
    """Joint training, by preset: why one machine should use threads; no target.

    A quick run does not start the second process.
    """
    rows, repeats = [], 1 if quick else 5
    for preset in ("serket", "best"):
        taken = [
            (_run(preset, quick), _run(preset, quick))
            if quick
            else (_seconds(preset, 1, 2), _seconds(preset, 2, 1))
            for _ in range(repeats)
        ]
        one, two = np.transpose(taken, (1, 2, 0))  # each (modules, repeats)
        for module, seconds, others in zip(("VAE", "GMM", "both"), one, two, strict=True):
            ratio = f"{np.median(others) / np.median(seconds):.2f}"
            rows.append((preset, module, table.spread(seconds), table.spread(others), ratio))
    table.show(
        f"{ROUNDS} rounds of joint training, seconds of {repeats} runs",
        ["preset", "", "1 process, 2 threads", "2 processes, 1 thread each", "ratio of medians"],
        rows,
    )


def _seconds(preset: str, n_processes: int, n_threads: int) -> list[float]:
    """What the updates of VAE, GMM and both take, without starting Python and torch."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}", "-m"]
    done = subprocess.run(
        [sys.executable, *start, __spec__.name, preset],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _run(preset: str, quick: bool = False) -> list[float]:
    """Seconds of the VAE's updates, the mixture's, and both, in this process and its peers."""
    images, labels = vae_gmm.LOADERS["digits" if quick else "tutorial"]()
    images, labels = (images[:200], labels[:200]) if quick else (images, labels)
    options = presets.vae_gmm(preset)
    options = {**options, "vae": {**options["vae"], "epochs": 1 if quick else 20}}
    AE(2, epochs=1).fit(images)  # torch imports its compiler with the first optimiser
    graph = vae_gmm.build(images, labels, options, seed=0).fit(ROUNDS, verbose=False)
    taken = [[u["seconds"] for u in record["updates"]] for record in graph.history]
    vae, gmm = np.sum(taken, axis=0)
    return [vae, gmm, vae + gmm]


if __name__ == "__main__":
    print_once(json.dumps(_run(sys.argv[1])))

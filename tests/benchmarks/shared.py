"""One process with two threads against two processes with one thread each, on the same machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from serkit import processes
from serkit.modules import AE
from tutorials import vae_gmm

from . import table

ROOT = Path(__file__).parents[2]
REPEATS, ROUNDS, EPOCHS = 5, 2, 20


def shared(n_seeds: int) -> None:
    """Joint training, by preset; target: at most 1.15 times as long in two processes."""
    rows = []
    for preset in ("serket", "best"):
        taken = [(_seconds(preset, 1, 2), _seconds(preset, 2, 1)) for _ in range(REPEATS)]
        one, two = np.transpose(taken, (1, 2, 0))  # each (modules, repeats)
        for module, seconds, others in zip(("VAE", "GMM", "both"), one, two, strict=True):
            ratio = f"{np.median(others) / np.median(seconds):.2f}"
            rows.append((preset, module, table.spread(seconds), table.spread(others), ratio))
    table.show(
        f"{ROUNDS} rounds of {EPOCHS} epochs, 3,000 x 784, seconds of {REPEATS} runs",
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


def run(preset: str) -> None:
    """Train, and print the seconds: in one of the processes."""
    images, labels = vae_gmm.LOADERS["tutorial"]()
    options = vae_gmm.PRESETS[preset]
    options = {**options, "vae": {**options["vae"], "epochs": EPOCHS}}
    AE(2, epochs=1).fit(images)  # torch imports its compiler with the first optimiser
    graph = vae_gmm.build(images, labels, options, seed=0).fit(ROUNDS, verbose=False)
    taken = [[u["seconds"] for u in record["updates"]] for record in graph.history]
    vae, gmm = np.sum(taken, axis=0)
    processes.print_once(json.dumps([vae, gmm, vae + gmm]))


if __name__ == "__main__":
    run(sys.argv[1])

"""Several processes: on one machine against threads, and what to expect of many machines."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from serkit import presets
from serkit.modules import AE, GMM
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import e_step, n_features
from serkit.processes import print_once, total
from tutorials import vae_gmm

from . import table

ROOT = Path(__file__).parents[2]
ROUNDS = 2
PROCESSES = (1, 2, 4, 8, 16, 32, 64)


def processes(_: int, quick: bool = False) -> None:
    """Joint training of 3,000 digits, by preset: why one machine should use threads; no target.

    A quick run does not start the second process.
    """
    rows, repeats = [], 1 if quick else 5
    for preset in ("serket", "mnist"):
        taken = [
            (_run(preset, quick), _run(preset, quick))
            if quick
            else (_in_processes(preset, 1, 2), _in_processes(preset, 2, 1))
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


def scaling(_: int, quick: bool = False) -> None:
    """What a step of a VAE and an iteration of EM would take on many machines; a model, no target.

    Measured here: the work on one thread, and the time of sums between two processes of this
    machine, ``latency + bytes / bandwidth``. Computed: a sum over P processes in a ring takes 2 (P
    - 1) latencies and ``2 (P - 1) / P`` times the bytes; a step takes its work, split by P, and its
    sum, as if they did not overlap. A slow network has 0.1 ms and 1 Gbit/s. Efficiency is the time
    of one process over P times that of P.
    """
    latency, rate = _line_through(_sums(64) if quick else _in_processes("sums", 2, 1))
    nets = {"this machine": (latency, rate), "slow network": (1e-4, 8e-9)}
    rows = []
    for name, work, n_bytes, share in (_step_of_vae(quick), _iteration_of_em(quick)):
        works = [work(share // p) for p in PROCESSES]
        for net, (start, per_byte) in nets.items():
            sums = [2 * (p - 1) * (start + n_bytes * per_byte / p) for p in PROCESSES]
            taken = np.add(works, sums)
            efficiency = [taken[0] / (p * t) for p, t in zip(PROCESSES, taken, strict=True)]
            rows.append(
                (name, net, f"{n_bytes:,}", f"{1e3 * taken[0]:.1f}", *_in_percent(efficiency))
            )
    table.show(
        "Efficiency by number of processes",
        ["what", "network", "bytes a sum", "ms alone", *(f"{p}" for p in PROCESSES)],
        rows,
    )
    table.say(
        f"A sum here: {1e6 * latency:.0f} microseconds, and {1e9 * rate:.2f} seconds a gigabyte"
    )


def _in_percent(shares: list[float]) -> list[str]:
    return [f"{100 * share:.0f} %" for share in shares]


def _step_of_vae(quick: bool) -> tuple[str, Callable[[int], float], int, int]:
    """Seconds of a step by rows of its batch, bytes of the gradients, rows in all."""
    sizes, batch = ((64, 8), 128) if quick else ((784, 500, 500, 36), 500)
    layers = [m for pair in itertools.pairwise(sizes) for m in (nn.Linear(*pair), nn.ReLU())]
    back = [m for pair in itertools.pairwise(sizes[::-1]) for m in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*layers, *back)
    adam = torch.optim.Adam(net.parameters(), fused=True)

    def work(n_rows: int) -> float:
        x = torch.rand(max(n_rows, 1), sizes[0])

        def step() -> None:
            adam.zero_grad()
            (net(x) - x).square().mean().backward()
            adam.step()

        return float(np.median(table.in_turn([step], 3 if quick else 20)))

    n_bytes = 4 * sum(p.numel() for p in net.parameters())
    return f"step of {'-'.join(map(str, sizes))} and back, batch {batch}", work, n_bytes, batch


def _iteration_of_em(quick: bool) -> tuple[str, Callable[[int], float], int, int]:
    """Seconds of an iteration by rows, bytes of the statistics, rows in all."""
    n_rows, d, k = (2000, 4, 3) if quick else (1_000_000, 16, 32)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, d))
    gmm = GMM(k, n_init=1, random_state=0).fit(x[: 50 * k])
    density = gmm.density()

    def work(n: int) -> float:
        rows = Rows(x[:n])
        return float(np.median(table.in_turn([lambda: e_step(rows, [density])], 3)))

    name = f"iteration of EM, {n_rows:,} x {d}, K = {k}"
    return name, work, 8 * k * n_features(d, diagonal=False), n_rows


def _sums(largest: int) -> list[list[float]]:
    """Bytes, and the median seconds of sums of so many over all processes; twice as many a time."""
    sizes, taken = [], []
    size = 8
    while size <= largest:
        values = np.zeros(size)
        sizes.append(8.0 * size)
        taken.append(float(np.median(table.in_turn([lambda v=values: total(v)], 30))))
        size *= 4
    return [sizes, taken]


def _line_through(measured: list[list[float]]) -> tuple[float, float]:
    """Seconds to start and seconds a byte: a line through relative times."""
    n_bytes, taken = map(np.array, measured)
    slope, start = np.polyfit(n_bytes, taken, 1, w=1 / taken)
    return max(start, 0.0), max(slope, 0.0)


def _in_processes(what: str, n_processes: int, n_threads: int) -> list:
    """What so many processes that run this file say, without starting Python and torch."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}", "-m"]
    done = subprocess.run(
        [sys.executable, *start, __spec__.name, what],
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
    print_once(json.dumps(_sums(2**20) if sys.argv[1] == "sums" else _run(sys.argv[1])))

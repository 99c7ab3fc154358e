"""Run benchmarks by name and print Markdown tables.

python -m tests.benchmarks gmm vae conv_vae compiled   # speed, five minutes
python -m tests.benchmarks gmm_iteration gmm_growth   # speed and memory, ten minutes
python -m tests.benchmarks processes   # threads or processes, seven minutes: needs SERKIT_DATA
python -m tests.benchmarks paying --seeds 5   # accuracy with defaults, half an hour
python -m tests.benchmarks serket best        # accuracy, 10 seeds each: needs SERKIT_DATA
python -m tests.benchmarks mnist_joint fashion_joint --seeds 3     # 70,000 images, one hour
python -m tests.benchmarks vade dec --seeds 1   # ClustPy's, where installed
python -m tests.benchmarks mnist fashion conv7 animals --seeds 5   # two hours
python -m tests.benchmarks mlda forward_backward --seeds 5         # speed, five minutes
python -m tests.benchmarks concepts           # accuracy, 10 seeds, two minutes
python -m tests.benchmarks markov semi_supervised speech hidden    # accuracy, two hours
python -m tests.benchmarks --all
python -m tests.benchmarks --all --quick   # a minute: only to see that they run
"""

from __future__ import annotations

import argparse
import platform

import numpy
import sklearn
import torch

from . import (
    accuracy,
    chains,
    exchange,
    latent,
    modalities,
    peers,
    scale,
    sequences,
    several,
    speed,
    topics,
)

BENCHMARKS = {
    "gmm": speed.gmm,
    "vae": speed.vae,
    "conv_vae": speed.conv_vae,
    "compiled": speed.compiled,
    "gmm_iteration": scale.gmm_iteration,
    "gmm_growth": scale.gmm_growth,
    "processes": several.processes,
    "paying": exchange.paying,
    "serket": accuracy.serket,
    "best": accuracy.best,
    "mnist_joint": accuracy.mnist_joint,
    "fashion_joint": accuracy.fashion_joint,
    "vade": peers.vade,
    "dec": peers.dec,
    "mnist": latent.mnist,
    "fashion": latent.fashion,
    "conv7": latent.conv7,
    "animals": latent.animals,
    "markov": sequences.markov,
    "semi_supervised": sequences.semi_supervised,
    "speech": modalities.speech,
    "hidden": modalities.hidden,
    "mlda": topics.mlda,
    "concepts": topics.concepts,
    "forward_backward": chains.forward_backward,
}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seeds", type=int, default=10, help="runs of accuracy benchmarks")
    parser.add_argument("--quick", action="store_true", help="tiny settings, numbers mean nothing")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown or not (chosen.names or chosen.all):
        parser.error(f"choose from {', '.join(BENCHMARKS)}, or --all")
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"scikit-learn {sklearn.__version__}\n"
    )
    for name in chosen.names or BENCHMARKS:
        BENCHMARKS[name](chosen.seeds, chosen.quick)


if __name__ == "__main__":
    main()

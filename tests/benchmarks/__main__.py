"""Run benchmarks by name and print Markdown tables.

python -m tests.benchmarks gmm vae conv_vae compiled   # speed, twenty minutes
python -m tests.benchmarks gmm_iteration gmm_growth   # speed and memory, ten minutes
python -m tests.benchmarks gpu         # nets on a GPU, one minute
python -m tests.benchmarks growth      # up to 10,000,000 rows, ten minutes
python -m tests.benchmarks processes   # threads or processes, seven minutes: needs SERKIT_DATA
python -m tests.benchmarks scaling     # many machines, by a model; a minute
python -m tests.benchmarks components         # right numbers of clusters, an hour
python -m tests.benchmarks paying --seeds 5   # accuracy with defaults, half an hour
python -m tests.benchmarks paying_speech --seeds 10   # the same: needs SERKIT_DATA; 20 minutes
python -m tests.benchmarks tables --seeds 3   # accuracy, some minutes
python -m tests.benchmarks serket best        # accuracy, 10 seeds each: needs SERKIT_DATA
python -m tests.benchmarks mnist_joint fashion_joint --seeds 3     # 70,000 images, some hours
python -m tests.benchmarks carries unequal --seeds 3   # accuracy, half an hour
python -m tests.benchmarks vade dec --seeds 1   # ClustPy's, where installed
python -m tests.benchmarks mnist fashion conv7 animals --seeds 5   # two hours
python -m tests.benchmarks mlda forward_backward --seeds 5         # speed, five minutes
python -m tests.benchmarks concepts           # accuracy, 10 seeds, two minutes
python -m tests.benchmarks markov semi_supervised speech hidden    # accuracy, two hours
python -m tests.benchmarks --all
python -m tests.benchmarks --all --quick   # a minute: only to see that they run
python -m tests.benchmarks NAME --record   # keeps what is measured in results.json and the guide

All peers run in one process with the same number of threads (`--threads`), without the variables
of linear algebra libraries that the caller's environment may have.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import os
import platform
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy
import sklearn
import torch

from . import (
    accuracy,
    chains,
    components,
    exchange,
    latent,
    modalities,
    peers,
    scale,
    sequences,
    several,
    speed,
    table,
    topics,
)

BENCHMARKS = {
    "gmm": speed.gmm,
    "vae": speed.vae,
    "conv_vae": speed.conv_vae,
    "compiled": speed.compiled,
    "gpu": speed.gpu,
    "gmm_iteration": scale.gmm_iteration,
    "gmm_growth": scale.gmm_growth,
    "growth": scale.growth,
    "processes": several.processes,
    "scaling": several.scaling,
    "components": components.components,
    "paying": exchange.paying,
    "paying_speech": exchange.paying_speech,
    "tables": exchange.tables,
    "serket": accuracy.serket,
    "best": accuracy.best,
    "mnist_joint": accuracy.mnist_joint,
    "fashion_joint": accuracy.fashion_joint,
    "carries": accuracy.carries,
    "unequal": accuracy.unequal,
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


RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "tutorials/guide/measurements.md"
CLEANED = "SERKIT_BENCHMARKS_THREADS"  # in an environment without variables that slow peers down
QUIET = 0.5  # processes that want a processor, in the mean of the last minute
INTRODUCTION = """# Measurements

Each section is what a benchmark said when it was last run; `--record` wrote it here. Medians come
with the fastest and the slowest run, accuracies of seeds with their standard deviation. What has
not been measured again since is among the [earlier measurements](earlier_measurements.md). Some
benchmarks need data that are not embedded: see [data](data.md)."""


def main() -> None:
    """Parse the command line and run, in a process that no variable of the caller's slows down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seeds", type=int, default=10, help="runs of accuracy benchmarks")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of all peers alike")
    parser.add_argument("--quick", action="store_true", help="tiny settings, numbers mean nothing")
    parser.add_argument(
        "--record", action="store_true", help=f"keep in {RESULTS.name} and its page"
    )
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown or not (chosen.names or chosen.all):
        parser.error(f"choose from {', '.join(BENCHMARKS)}, or --all")
    if chosen.quick and chosen.record:
        parser.error("numbers of --quick mean nothing, so they are not recorded")
    start_afresh(chosen.threads)
    for name in BENCHMARKS if chosen.all else chosen.names:
        record = measured(name, chosen.seeds, chosen.quick)
        if chosen.record:
            keep(name, record)


def start_afresh(n_threads: int) -> None:
    """Run the same command with so many threads for all libraries, if that is not how it runs.

    They read the environment when they are loaded, and some write into it then: so a variable of
    its own says that it was cleaned.
    """
    if os.environ.get(CLEANED) == str(n_threads):
        return
    libraries = ("OMP_", "OPENBLAS_", "MKL_", "GOTO_", "BLIS_", "NUMEXPR_", "KMP_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(libraries)}
    clean |= {"OMP_NUM_THREADS": str(n_threads), CLEANED: str(n_threads)}
    os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks", *sys.argv[1:]], clean)


def measured(name: str, n_seeds: int, quick: bool) -> dict[str, str]:
    """Run a benchmark: its tables, and on what they were measured."""
    table.shown()
    load, benchmark = os.getloadavg()[0], BENCHMARKS[name]
    if load > QUIET and not quick:
        print(f"This machine is not quiet (load {load:.1f}): times may be too long.\n")
    benchmark(n_seeds, quick)
    return {
        "says": (benchmark.__doc__ or "").strip(),
        "tables": table.shown(),
        "command": " ".join(["python -m tests.benchmarks", *sys.argv[1:]]),
        "load": f"{load:.1f} before, {os.getloadavg()[0]:.1f} after",
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {torch.get_num_threads()} threads",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, numpy "
        f"{numpy.__version__}, scikit-learn {sklearn.__version__}",
    }


def processor() -> str:
    """The processor's name and number of cores, as far as the system tells."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text() if cpu.exists() else ""
    names = re.findall("model name\\s*: (.*)", text) or [platform.machine()]
    return f"{names[0]}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    run = partial(subprocess.run, cwd=PAGE.parent, capture_output=True, text=True)
    number = run(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
    others = [f":(exclude){path}" for path in (RESULTS, PAGE)]  # which an earlier one has changed
    status = run(["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", *others])
    changed = status.stdout.strip()
    return f"{number or 'unknown'}{' with changes' if changed else ''}"


def keep(name: str, record: dict[str, str]) -> None:
    """Add a benchmark's record to the results, in place of an earlier one, and write the page."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = record
    ordered = {known: results[known] for known in BENCHMARKS if known in results}
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(ordered))


def page(results: dict[str, dict[str, str]]) -> str:
    """The guide's page of measurements; no figure in it is typed by hand."""
    parts = [INTRODUCTION]
    for name, record in results.items():
        origin = f"`{record['command']}`, commit {record['commit']}, {record['date']}; "
        origin += f"{record['machine']}, load {record['load']}; {record['versions']}."
        parts += [f"## {name}", inspect.cleandoc(record["says"]), record["tables"], origin]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

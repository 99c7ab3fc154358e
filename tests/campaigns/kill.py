"""Training that is killed, or interrupted, and called again: bits as if it had never stopped.

python -m tests.campaigns.kill [--kills 100] [--interruptions 20] [--seed 0] [GRAPH ...]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure

from serkit import Graph, Module, Observation, datasets, ensemble
from serkit.graph import results
from serkit.modules import GMM, MLDA, VAE, MarkovModel, RandomAffine
from serkit.modules.autoencoder.base import Autoencoder
from tests.benchmarks.table import show
from tests.helpers.modules import KMeans
from tests.helpers.saved import assert_same

ROUNDS = 3
Event = Callable[..., None]
Build = Callable[[], Graph]
COUNTED = ("times", "stopped", "equal to the bit", "files left over")
DIGITS = datasets.load_digits()
IMAGES, LABELS = DIGITS.images[:60], DIGITS.labels[:60]
NET = {"epochs": 3, "batch_size": 20, "hidden_sizes": (8,), "lr": 5e-3}
RICH = {"scheduler": "onecycle", "validation_fraction": 0.2, "augment": RandomAffine()}

# -- what is trained -------------------------------------------------------------------------------


def joint() -> Graph:
    """A VAE with all that has a state (optimiser, schedule, augmentation), and a mixture."""
    vae = VAE(3, random_state=0, **NET, **RICH).connect(Observation(IMAGES))
    return Graph(GMM(4, labels=LABELS, n_init=2, random_state=1).connect(vae))


def chain() -> Graph:
    """A mixture and a Markov model, which do Baum-Welch together."""
    gmm = GMM(3, n_init=2, random_state=0).connect(Observation(IMAGES[:, 2:5, 3]))
    return Graph(MarkovModel(random_state=1).connect(gmm))


def modalities() -> Graph:
    """Two modalities under an MLDA by Gibbs sampling, one clustered by a user's module."""
    clusters = KMeans(4, random_state=0).connect(Observation(IMAGES.reshape(60, 64)))
    counts = Observation(np.rint(16 * IMAGES[:, 3]), name="counts")
    mlda = MLDA(3, inference="gibbs", max_iter=5, random_state=1)
    return Graph(mlda.connect(clusters, counts))


def several() -> Graph:
    """Two chains that come to agree."""
    graph = ensemble(_one_of_several, [0, 1], start=2)
    graph.alignment.random_state = 2  # which is fresh in each process unless it is set
    return graph


def _one_of_several(seed: int) -> Graph:
    vae = VAE(2, random_state=seed, **{**NET, "epochs": 2})
    return Graph(GMM(3, random_state=seed).connect(vae.connect(Observation(IMAGES))))


GRAPHS: dict[str, Build] = {build.__name__: build for build in (joint, chain, modalities, several)}


def train(build: Build, folder: Path, graph: Graph | None = None) -> Graph:
    """The call that is stopped, and made again."""
    graph = build() if graph is None else graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clusters that lose their rows
        places = {"checkpoint": folder / "checkpoint", "out": folder / "out"}
        picture = [("picture", Figure((1, 1)))]  # one for all, as they take seconds
        with mock.patch.object(results, "pictures", return_value=picture):
            return graph.fit(ROUNDS, out_each_round=True, verbose=False, **places)


def learnt(graph: Graph) -> list:
    """All that the bits of two graphs are compared by."""
    modules = [node for node in graph.modules if isinstance(node, Module)]
    return [[m.get_state() for m in modules], graph.history, graph.first_latents]


def texts(folder: Path) -> dict[str, bytes]:
    """The files of numbers among the results."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.txt")}


def names(folder: Path) -> set[str]:
    """All files of a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- where it stops --------------------------------------------------------------------------------


@contextmanager
def within_an_epoch(event: Event) -> Iterator[None]:
    """An event at every batch's loss."""
    loss = Autoencoder.loss

    def watched(self: Autoencoder, *args: object) -> dict:
        event()
        return loss(self, *args)

    with mock.patch.object(Autoencoder, "loss", watched):
        yield


@contextmanager
def within_an_update(event: Event) -> Iterator[None]:
    """An event whenever a module has learnt, and not yet said so."""
    record = Module.record

    def watched(self: Module, report: dict) -> None:
        event()
        record(self, report)

    with mock.patch.object(Module, "record", watched):
        yield


@contextmanager
def within_a_write(event: Event, *, whole: bool = False, of: str = "") -> Iterator[None]:
    """An event while a file whose path holds `of` is half written; or written and not renamed."""
    sync = os.fsync

    def watched(number: int) -> None:
        if of in os.readlink(f"/proc/self/fd/{number}"):
            size = os.fstat(number).st_size
            event(partial(os.ftruncate, number, size if whole else size // 2))
        sync(number)

    with mock.patch.object(os, "fsync", watched):
        yield


@contextmanager
def after_a_rename(event: Event) -> Iterator[None]:
    """An event when a file has just got its name."""
    replace = os.replace

    def watched(*paths: object) -> None:
        replace(*paths)
        event()

    with mock.patch.object(os, "replace", watched):
        yield


@contextmanager
def anywhere(event: Event) -> Iterator[None]:
    """An event at every call of a Python function."""

    def watch(frame: object, kind: str, argument: object) -> None:
        if kind == "call":
            event()

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


PLACES: dict[str, Callable] = {
    "within an epoch": within_an_epoch,
    "within an update": within_an_update,
    "within a write": within_a_write,
    "before a rename": lambda event: within_a_write(event, whole=True),
    "after a rename": after_a_rename,
    "in the results": lambda event: within_a_write(event, of="/out/"),
    "anywhere": anywhere,
}


class Countdown:
    """An event that does nothing until it has come so many times, and then stops the training."""

    def __init__(self, left: float, stop: Callable[[], object]) -> None:
        self.left, self.stop, self.n_events = left, stop, 0

    def __call__(self, last: Callable[[], object] = lambda: None) -> None:
        """Count one; before the training stops `last` is done."""
        self.n_events += 1
        if self.n_events == self.left:
            last()
            self.stop()


# -- trials ----------------------------------------------------------------------------------------


def in_child(task: Callable[[], object]) -> int:
    """Run a task in a process of its own; returns its status, negative if a signal ended it."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            task()
            status = 0
        except Exception as error:  # whatever it is, it is not equal
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Reference:
    """A run that is never stopped: what it learns, writes, and how often each place is reached."""

    def __init__(self, build: Build, folder: Path) -> None:
        self.build = build
        self.learnt = learnt(train(build, folder))
        self.texts, self.names = texts(folder), names(folder)
        counts = {place: Countdown(np.inf, lambda: None) for place in PLACES}
        with tempfile.TemporaryDirectory() as other, ExitStack() as watches:
            for place, watch in PLACES.items():
                if place != "anywhere":
                    watches.enter_context(watch(counts[place]))
            train(build, Path(other))
        with tempfile.TemporaryDirectory() as other:  # alone, as the other watches call functions
            stopped_by(counts["anywhere"], "anywhere", build, Path(other))
        self.n_events = {place: count.n_events for place, count in counts.items()}

    def compare(self, graph: Graph, folder: Path) -> None:
        """AssertionError unless a graph and what it has written are the same."""
        assert_same(self.learnt, learnt(graph))
        written = texts(folder)
        differing = [n for n in {*self.texts, *written} if self.texts.get(n) != written.get(n)]
        assert not differing, f"other results: {differing}"


def kills(reference: Reference, plan: list[tuple[str, int]]) -> Counter:
    """Kill a run at each place and moment of a plan, and let another process go on."""
    counts: Counter = Counter(times=len(plan))
    for place, moment in plan:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            kill = Countdown(moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
            status = in_child(partial(stopped_by, kill, place, reference.build, folder))
            counts["stopped"] += status == -signal.SIGKILL
            is_equal = in_child(partial(goes_on, reference, folder)) == 0
            count_end(counts, is_equal, reference, folder, f"{place}, event {moment}")
    return counts


def interruptions(reference: Reference, moments: list[int]) -> Counter:
    """Interrupt a graph at each of several moments, and let it go on, all in this process."""
    counts: Counter = Counter(times=len(moments))
    for moment in moments:
        with tempfile.TemporaryDirectory() as name:
            folder, graph, is_equal = Path(name), reference.build(), True
            stop = Countdown(moment, lambda: signal.raise_signal(signal.SIGINT))
            try:
                stopped_by(stop, "anywhere", reference.build, folder, graph)
            except KeyboardInterrupt:
                counts["stopped"] += 1
            try:
                goes_on(reference, folder, graph)
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                is_equal = False
            count_end(counts, is_equal, reference, folder, f"call {moment}")
    return counts


def stopped_by(
    stop: Countdown, place: str, build: Build, folder: Path, graph: Graph | None = None
) -> None:
    """Train until it is stopped, which it can be once there is a graph."""
    graph = build() if graph is None else graph
    with PLACES[place](stop):
        train(build, folder, graph)


def goes_on(reference: Reference, folder: Path, graph: Graph | None = None) -> None:
    """Make the same call again, which must end as if there had been no stop."""
    reference.compare(train(reference.build, folder, graph), folder)


def count_end(
    counts: Counter, is_equal: bool, reference: Reference, folder: Path, where: str
) -> None:
    """Count how a run has ended that was stopped somewhere."""
    counts["equal to the bit"] += is_equal
    counts["files left over"] += len(names(folder) - reference.names)
    if not is_equal:
        print(f"not equal: stopped at {where}", file=sys.stderr)


def planned(
    n_events: dict[str, int], n_kills: int, rng: np.random.Generator
) -> list[tuple[str, int]]:
    """Places and moments, from 1, of kills: as many at each place that is reached."""
    places = rng.permutation([place for place, n in n_events.items() if n])
    chosen = [str(places[trial % len(places)]) for trial in range(n_kills)]
    return [(place, int(rng.integers(n_events[place])) + 1) for place in chosen]


def trials(build: Build, n_kills: int, n_interruptions: int, seed: int) -> list[list[str | int]]:
    """Kills, as many at each place, and interruptions of one graph: a row of counts for each."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(build, Path(folder))
    rng = np.random.default_rng(seed)
    plan = planned(reference.n_events, n_kills, rng)
    moments = (rng.integers(reference.n_events["anywhere"], size=n_interruptions) + 1).tolist()
    counts = {"SIGKILL": kills(reference, plan), "Ctrl-C": interruptions(reference, moments)}
    return [[by, build.__name__, *(n[key] for key in COUNTED)] for by, n in counts.items()]


def main() -> None:
    """Stop each graph about equally often, and print what comes of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("graphs", nargs="*", help=f"of {', '.join(GRAPHS)}; all if none")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--interruptions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.graphs) - set(GRAPHS):
        parser.error(f"there is no graph {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)  # so that a process can be forked after training
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
    rows = []
    graphs = options.graphs or list(GRAPHS)
    for number, name in enumerate(graphs):
        numbers = options.kills, options.interruptions
        mine = [len(range(number, n, len(graphs))) for n in numbers]
        rows += trials(GRAPHS[name], *mine, seed=options.seed + number)
    show(f"Stopped and called again, seed {options.seed}", ["by", "graph", *COUNTED], rows)
    is_bad = [not times == stopped == equal or left for _, _, times, stopped, equal, left in rows]
    raise SystemExit(int(any(is_bad)))


if __name__ == "__main__":
    main()

"""What the tests of several processes run in each.

`launch` starts them with the environment that torchrun gives, by forks of a process that has
imported all this: imports would take most of the time.
"""

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans

from serkit import Graph, Observation, datasets, ensemble, processes
from serkit.errors import SerkitError
from serkit.messages import Categorical, Gaussian
from serkit.modules import (
    AE,
    GMM,
    MLDA,
    VAE,
    GMMClassifier,
    GroupSum,
    LabelAlignment,
    MarkovModel,
    MultinomialVAE,
    NetRegressor,
    Sklearn,
)
from serkit.modules.mixture import em
from tests.helpers.chains import stuck_graph

ROOT = Path(__file__).parents[2]
N, K = 301, 3
LENGTHS = (50, 70, 81, 40, 60)


def launch(job, folder, n_processes, *arguments, hosts=None):
    """Run a job in several processes at once; returns (exit status, output) of each.

    `hosts` names a network namespace for each process, joined by a "cable" to that of the first,
    whose address is 10.77.0.1.
    """
    address = "127.0.0.1" if hosts is None else "10.77.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": address, "MASTER_PORT": str(port), "WORLD_SIZE": str(n_processes)}
    outputs = [Path(folder) / f"{job}-{port}-{rank}.txt" for rank in range(n_processes)]
    namespaces = [{"NAMESPACE": host, "GLOO_SOCKET_IFNAME": "cable"} for host in hosts or []]
    namespaces = namespaces or [{}] * n_processes
    starts = [
        (job, [str(folder), *arguments], shared | own | {"RANK": str(rank)}, str(output))
        for rank, (own, output) in enumerate(zip(namespaces, outputs, strict=True))
    ]
    parent = _parent()
    print(json.dumps(starts), file=parent.stdin, flush=True)
    statuses = json.loads(parent.stdout.readline())
    return [(s, output.read_text()) for s, output in zip(statuses, outputs, strict=True)]


@cache
def _parent():
    """The process that is forked; it ends with this one."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.several"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(parent.communicate)
    return parent


def run(job, folder, n_processes, *arguments, hosts=None):
    """Run a job that must succeed; returns the output of each process."""
    results = launch(job, folder, n_processes, *arguments, hosts=hosts)
    failures = [output for status, output in results if status]
    assert not failures, "\n\n".join(reversed(failures))  # that of the first is often an echo
    return [output for _, output in results]


def data():
    """Rows (N, 3) of three overlapping clusters, in no order; their classes."""
    rng = np.random.default_rng(0)
    classes = rng.integers(K, size=N)
    return rng.normal(size=(N, 3)) @ rng.normal(size=(3, 3)) + 3.0 * classes[:, None], classes


def numbers(module):
    """What a module learnt that is no row's: all arrays of it, flat, by name."""
    kept = module.get_state()
    names = [name for name in kept if name.endswith("_") and name not in module.row_attributes]
    found = {name: kept[name] for name in names if isinstance(kept[name], np.ndarray)}
    scores = {k: v for k, v in module.history_[-1].items() if k != "seconds"}
    return np.concatenate([*(np.ravel(v) for v in found.values()), list(scores.values())])


# -- modules that learn the same by however many processes -----------------------------------------


def mixture(n_components=K, **options):
    limits = {"n_init": 1, "max_iter": 12}  # sums of processes on few cores take long
    return GMM(n_components, **{**limits, "random_state": 0, **options})


def mixtures():
    """Mixtures of every kind, from one parent or more, of all rows or some."""
    x, classes = data()
    weight = np.random.default_rng(1).random(N)
    found = {}
    for covariance_type in ("full", "tied", "diag", "spherical"):
        options = {"covariance_type": covariance_type, "labels": classes, "n_init": 2}
        found[covariance_type] = mixture(sample_weight=weight, **options).fit(x)
    found["float32"] = mixture().fit(x.astype(np.float32))
    given = np.eye(K)[classes]
    found["ml"] = mixture(inference="ml", responsibilities_init=given).fit(x)
    rows = x[processes.share(N)]
    unsure = mixture(use_variance=True)
    unsure.learn([Gaussian(rows, np.full(rows.shape, 0.3))], None)
    found["variances"] = unsure.record({}) or unsure
    found["stream"] = mixture().partial_fit(x[:150]).partial_fit(x[150:])
    first, second = Observation(x[:, :2]), Observation(x[:, 2:], observed=np.arange(N) > 200)
    found["twice"] = mixture().fit(x).fit(x[:300])
    found["split and merge"] = mixture(K + 2, n_split_merge=4).fit(x)
    found["exchanges"] = exchanged(classes)
    em._ROWS_TO_START_FROM = 100
    found["starts among some"] = mixture(max_iter=1).fit(x)
    found["missing"] = mixture().connect(first, second).update().update()
    return {name: numbers(module) for name, module in found.items()}


def exchanged(classes):
    """A mixture with two components in class 0, whose child says otherwise of its rows."""
    rng, mine = np.random.default_rng(2), processes.share(N)
    rows = rng.normal(size=(N, 2)) + np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])[classes]
    heard = np.where(classes == 0, rng.integers(2, size=N), 2)
    told = Categorical(np.log(0.98 * np.eye(K)[heard] + 0.02 / K)[mine], is_prior=True)
    means = [[-0.5, 0.0], [0.5, 0.0], [5.0, 5.0]]
    gmm = mixture(means_init=means, n_init=(1, 0), labels=classes)
    MLDA(K).connect(gmm.connect(Observation(rows)))
    for message in (None, told, told):
        gmm.record(gmm.learn([Gaussian(rows[mine])], message))
    assert [entry["exchanges"] for entry in gmm.history_] == [0, 0, 1]
    return gmm


def others():
    """The rest of the family, where its results do not depend on how rows are grouped."""
    x, classes = data()
    order = np.argsort(classes)  # so that most processes have no row of some class
    classifier = GMMClassifier(1, validation_fraction=0.2, random_state=0)
    classifier.fit(x[order], classes[order])
    labelled = GMMClassifier(1, labels=classes[order]).connect(
        Observation(x[order, :2]), Observation(x[order, 2:], observed=np.arange(N) % 3 > 0)
    )
    markov = MarkovModel(lengths=LENGTHS, labels=classes)
    markov.connect(mixture().connect(Observation(x, lengths=LENGTHS)))
    graph = Graph(markov).fit(3, verbose=False)
    regrouped = stuck_graph(lengths=[60, 40, 80, 60]).fit(3, verbose=False)
    mlda = MLDA(K, n_init=2, labels=classes, random_state=0).fit(datasets.make_counts(classes))
    aligned = LabelAlignment(labels=classes)
    aligned.connect(*(mixture(random_state=i).connect(Observation(x)).update() for i in range(2)))
    best = mixture(n_init=1).connect(Observation(x))
    chosen = Graph(best).fit(1, restarts=3, verbose=False).history[-1]["chosen"]
    joined = ensemble(lambda seed: mixture(random_state=seed).connect(Observation(x)), range(3))
    joined.fit(1, verbose=False)
    ae = AE(2, likelihood="gaussian", epochs=20, batch_size=N, random_state=0, precision="float32")
    uneven = Observation(x, lengths=(220, 40, 21, 20))
    ae.connect(uneven).update()  # one batch an epoch, no noise: the gradient is that of all rows
    curve = [[terms["loss"], terms["reconstruction"]] for terms in ae.loss_curve_]
    return {
        "classifier": numbers(classifier),
        "labelled": numbers(labelled.update().update()),
        "markov": numbers(markov),
        "under a markov model": numbers(graph["gmm"]),
        "regrouped": numbers(regrouped["gmm"]),
        "objective": np.array([record["updates"][-1]["objective"] for record in graph.history]),
        "forecast": markov.forecast(3).ravel(),
        "path": markov.viterbi(np.log(np.random.default_rng(2).random((N, K)))),
        "predicted": _said_of(graph, x),
        "mlda": numbers(mlda),
        "alignment": numbers(aligned.update()),
        "best of three": np.append(numbers(best), chosen["scores"]),
        "ensemble": np.concatenate([joined.vote(), joined.stability_]),
        "ae": np.ravel(curve),
    }


def _said_of(graph, x):
    """What a graph says of new rows, which it says in every process of all."""
    graph["markovmodel"].set_params(lengths=[100, 50])
    return graph.predict(x[:150]).probabilities.ravel()


def drawing():
    """What differs by the number of processes, as each draws for itself, but not between them."""
    x, classes = data()
    options = {"likelihood": "gaussian", "epochs": 60, "batch_size": 50, "lr": 3e-3}
    options |= {"random_state": 0, "precision": "float32"}
    vae = VAE(2, hidden_sizes=(32,), **options).fit(x)
    short = {**options, "epochs": 5}
    held_out = VAE(2, batch_norm=True, validation_fraction=0.3, **short).fit(x)
    classes_of = MultinomialVAE(K, labels=classes, **short).connect(Observation(x)).update()
    seedless = mixture(random_state=None).fit(x)
    net = NetRegressor(filters=(4,), hidden_sizes=(4,), epochs=1).fit(x.reshape(N, 1, 3), classes)
    gibbs = mixture(inference="gibbs", max_iter=8).fit(x)
    topics = MLDA(K, n_init=2, inference="gibbs", max_iter=5, random_state=0)
    topics.fit(datasets.make_counts(classes))
    weights = {
        name: np.concatenate([v.numpy().ravel() for v in module.nets_.state_dict().values()])
        for name, module in {"vae": vae, "held out": held_out, "classes": classes_of}.items()
    }
    return weights | {
        "losses": np.array([terms["loss"] for terms in vae.loss_curve_]),
        "gibbs": numbers(gibbs),
        "seedless net": net.predict(x.reshape(N, 1, 3)),
        "topics": numbers(topics),
        "seedless": numbers(seedless),
    }


def models(folder):
    """Write what all of these learn, a file a process."""
    found = {**mixtures(), **others()}
    together = {f"together: {name}": values for name, values in drawing().items()}
    name = f"{processes.count()}-{processes.rank()}.npz"
    np.savez(Path(folder) / name, **found, **together)


def small(folder):
    """A mixture and an autoencoder, learnt in a second."""
    x, _ = data()
    ae = AE(2, likelihood="gaussian", epochs=5, batch_size=N, random_state=0, precision="float32")
    ae.fit(x)
    found = {"gmm": numbers(GMM(K, random_state=0).fit(x)), "ae": ae.loss_curve_[-1]["loss"]}
    np.savez(Path(folder) / f"{processes.count()}-{processes.rank()}.npz", **found)


# -- sums ------------------------------------------------------------------------------------------


def sums(folder):
    """Sums whose terms every process knows, of few values and many, in quick succession."""
    numbers = range(processes.count())
    for call, size in enumerate([0, 1, 2000, 9000, 3, 50_000, 2, 2, 9000, 7, 200_000, 1] * 5):
        terms = [np.random.default_rng([call, number]).integers(-9, 9, size) for number in numbers]
        own = terms[processes.rank()].astype(float)
        np.testing.assert_array_equal(processes.total(own), np.sum(terms, axis=0))
        np.testing.assert_array_equal(processes.largest(own), np.max(terms, axis=0))
        np.testing.assert_array_equal(own, terms[processes.rank()])
        assert processes.total(processes.rank() + 1.0) == sum(numbers) + len(numbers)


def gradients(folder):
    """Mean gradients of nets of which some parameters are used by all, by one, or by none."""
    n = processes.count()
    for dtype, width in [(torch.float32, 300), (torch.float64, 2)] * 2:
        nets = torch.nn.ModuleList(torch.nn.Linear(width, 200, dtype=dtype) for _ in range(3))
        everywhere, elsewhere, _ = nets

        def terms(x, everywhere=everywhere, elsewhere=elsewhere):
            outputs = everywhere(x).sum()
            if processes.rank() == 1:
                outputs = outputs + elsewhere(x).sum()
            return {"loss": outputs, "told": outputs}

        terms_of = processes.with_mean_gradients(nets, terms)
        for _ in range(3):
            nets.zero_grad()
            told = terms_of(torch.full((1, width), processes.rank() + 1.0, dtype=dtype))
            processes.backward(told["loss"])
            assert not told["told"].requires_grad
            expected = torch.full((200, width), (n + 1) / 2, dtype=dtype)
            torch.testing.assert_close(everywhere.weight.grad, expected)  # of its dtype too
            torch.testing.assert_close(elsewhere.bias.grad, torch.full((200,), 1 / n, dtype=dtype))
            assert nets[2].weight.grad is None


def vanish(folder):
    """A sum before which the last process ends, after one with all."""
    assert processes.total(1.0) == processes.count()
    if processes.rank() == processes.count() - 1:
        os._exit(7)
    print("sum", processes.total(1.0))


# -- whole graphs ----------------------------------------------------------------------------------


def graph_of(images, labels):
    """Observation -> VAE -> GMM, small."""
    options = {"likelihood": "gaussian", "noise_variance": 0.05, "lr": 3e-3, "batch_size": 40}
    vae = VAE(4, epochs=(30, 5), random_state=0, **options)
    gmm = mixture(10, labels=labels, covariance_type="diag")
    return Graph(gmm.connect(vae.connect(Observation(images))))


def train(folder, rounds, out=None):
    """Train it with all that is written on the way, and tell what each process saw."""
    folder, (images, labels) = Path(folder), datasets.load_digits()
    graph = graph_of(images[:200], labels[:200])
    asked = []
    graph.fit(
        int(rounds),
        checkpoint=folder / "checkpoint",
        out=None if out is None else folder / out,
        callbacks=[lambda graph, record: asked.append(record["round"])],
        verbose=False,
    )
    graph.save(folder / "graph")
    loaded = Graph.load(folder / "graph")  # without rows: to use, and to save again
    loaded.save(folder / "again")
    updates = [update for record in graph.history for update in record["updates"]]
    told = [{k: v for k, v in update.items() if k != "seconds"} for update in updates]
    probabilities = graph.predict(images[:20]).probabilities.tolist()
    seen = {"history": told, "asked": asked, "predicted": probabilities}
    seen["scores"] = loaded["gmm"].scores()
    (folder / f"seen-{processes.rank()}.json").write_text(json.dumps(seen))


def stop(folder):
    """Training that one of the processes wants to end."""
    images, labels = datasets.load_digits()
    graph = graph_of(images[:200], labels[:200])
    graph.fit(5, callbacks=[lambda graph, record: processes.rank() == 1], verbose=False)
    print("rounds", len(graph.history))


def die(folder):
    """Training in which the second process ends without a word, after the first round."""
    images, labels = datasets.load_digits()
    graph = graph_of(images[:200], labels[:200])

    def leave(graph, record):
        if processes.rank() == 1:
            os._exit(7)

    graph.fit(3, checkpoint=Path(folder) / "checkpoint", callbacks=[leave], verbose=False)


def refusals(folder):
    """What cannot work, each with what it says."""
    x, classes = data()
    attempts = {
        "rows": lambda: Observation(x[:3]),
        "sequences": lambda: Observation(x, lengths=[200, 101]),
        "lengths": lambda: Observation(x, lengths=[1, 2, 3, 4]),
        "estimator": lambda: Graph(Sklearn(KMeans(K)).connect(Observation(x))).check(),
        "groups": lambda: Graph(GroupSum(classes).connect(Observation(x))).check(),
        "markov": lambda: _markov_on(Observation(x, lengths=LENGTHS)).update(),
        "cut": lambda: _markov_on(Observation(x), lengths=LENGTHS).update(),
        "batches": lambda: AE(2, likelihood="gaussian", batch_size=2).fit(x),
        "cuts": lambda: Graph(
            GMM(K).connect(Observation(x, name="a", lengths=LENGTHS), Observation(x, name="b"))
        ).check(),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except SerkitError as error:
            said[name] = f"{type(error).__name__}: {error}"
    (Path(folder) / f"said-{processes.rank()}.json").write_text(json.dumps(said))


def _markov_on(observation, **options):
    return MarkovModel(**options).connect(mixture().connect(observation).update())


# -- processes -------------------------------------------------------------------------------------


def serve():
    """Fork a process for each start that is asked for, in which it returns; answer how they end."""
    torch.optim.Adam([torch.zeros(1)])  # imports for seconds, when it is first called
    for line in sys.stdin:
        children = []
        for job, arguments, environment, output in json.loads(line):
            children.append(os.fork())
            if not children[-1]:
                os.environ.update(environment)
                if "NAMESPACE" in environment:
                    _move_to(environment["NAMESPACE"])
                file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                for stream in (1, 2):
                    os.dup2(file, stream)
                return globals()[job](*arguments)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(ends), flush=True)


def _move_to(namespace):
    """Give this process the network of a namespace (`os.setns` is newer than Python 3.11)."""
    with open(f"/var/run/netns/{namespace}") as file:
        assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0


if __name__ == "__main__":
    serve()

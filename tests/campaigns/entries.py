"""What serkit offers: every public function, class, option and method, and sound arguments of each.

Found by walking the public names, so that a new one is there without being listed; what has no
sound value below gets odd ones only.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA

import serkit
import serkit.modules
from serkit import Ensemble, Graph, MixtureDensity, Module, Novelty, Observation, messages
from serkit.datasets import Dataset
from serkit.measures import kl
from serkit.messages import Message
from serkit.modules import (
    GMM,
    HAC,
    VAE,
    Compose,
    LabelAlignment,
    NetClassifier,
    NetRegressor,
    RandomAffine,
)
from serkit.modules.preprocessing.augment import RandomTransform
from serkit.training import Callback
from serkit.training.loggers import Logger
from tests.test_contract import CASES, K, N, images

# What modules do for each other: their arguments come from the library, not from people.
BETWEEN_MODULES = re.compile(
    "Tensor|Message|Rows|Generator|Target|Values|inputs|outputs|values|phi"
)
OF_THE_GRAPH = re.compile(
    "record|check_batches|rows_sent|sends_down_to|received_from_children|set_state|on_.*|missing_rows|"
    "without_rows|as_images"
)
OF_SKLEARN = re.compile(r"(set|get)_(\w+_request|metadata_routing|output|params)")
DUNDERS = ("__getitem__", "__contains__", "__mul__", "__call__", "__repr__")


@dataclass(frozen=True)
class Entry:
    """A way into the library: a function, an option of a class, or a method."""

    name: str  # "GMM(n_init=)", "GMM.predict()", "accuracy()"
    of: Any
    method: str | None = None
    option: str | None = None


RETURNED = serkit.Repeats, serkit.Selection  # by functions, which checked what they are made of


def entries() -> list[Entry]:
    """All of them."""
    found = dict.fromkeys(item for space in (serkit, serkit.modules) for item in _public(space))
    return [entry for item in found for entry in _entries_of(item)]


def _public(space: Any) -> Iterator[Any]:
    """Public functions and classes of a module and of the modules in it."""
    own = (n for n, v in vars(space).items() if getattr(v, "__module__", 0) == space.__name__)
    for name in getattr(space, "__all__", [n for n in own if not n.startswith("_")]):
        item = getattr(space, name)
        if item is serkit.processes:  # what modules say to the other processes
            continue
        if inspect.ismodule(item):
            yield from _public(item)
        elif callable(item) and not (inspect.isclass(item) and issubclass(item, Exception)):
            yield item


def _entries_of(item: Any) -> Iterator[Entry]:
    name = getattr(item, "__name__", str(item))
    if not inspect.isclass(item):
        if "Tensor" not in _annotations(item):
            yield Entry(f"{name}()", item)
        return
    if inspect.isabstract(item) or getattr(item, "_is_protocol", False) or item is Message:
        return
    if issubclass(item, Logger) and not all(map(find_spec, item.packages)):
        return  # of a service, whose package is not here
    for option in parameters(item) if item not in RETURNED else ():
        yield Entry(f"{name}({option}=)", item, option=option)
    for method in [m for m in dir(item) if not m.startswith("_")] + list(DUNDERS):
        owner = next((base for base in item.__mro__ if method in vars(base)), object)
        if _is_for_people(owner, method):
            yield Entry(f"{name}.{method}()", item, method=method)


def _is_for_people(owner: type, method: str) -> bool:
    function = getattr(owner, method, None)
    if inspect.isclass(function) or not callable(function) or owner in (object, tuple, dict):
        return False
    asks_for = _annotations(function)
    of_modules = issubclass(owner, Module) and BETWEEN_MODULES.search(asks_for)
    is_inner = of_modules or "Tensor" in asks_for or OF_THE_GRAPH.fullmatch(method)
    return not (is_inner or OF_SKLEARN.fullmatch(method))


def is_of_sklearn(entry: Entry) -> bool:
    """Whether a method is inherited from scikit-learn, whose errors are then right."""
    function = inspect.unwrap(getattr(entry.of, entry.method)) if entry.method else None
    return getattr(function, "__module__", "").startswith("sklearn.")


def _annotations(function: Callable) -> str:
    return " ".join(f"{p.name} {p.annotation}" for p in parameters(function).values())


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """Those of a function or class that have names, but for `self`."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return {}
    named = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    return {name: p for name, p in named.items() if name != "self"}


# -- sound arguments -------------------------------------------------------------------------------

LABELS = np.arange(N) % K
DENSITY = MixtureDensity([0.4, 0.6], [[0.0, 0.0], [3.0, 1.0]], np.tile(np.eye(2), (2, 1, 1)))


def _latents() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, 2)) + 4 * LABELS[:, None]


def _log_prob() -> np.ndarray:
    return np.log(np.random.default_rng(2).dirichlet(np.ones(K), N))


def _waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=n).astype(np.float32) / 9 for n in (2500, 4000, 3000)]


def _build(seed: int, observation: Observation | None = None) -> Module:
    return GMM(K, random_state=seed).connect(observation or Observation(_latents()))


def _on(observation: Observation) -> Module:
    return GMM(K, n_init=1).connect(observation)


def _ensemble() -> Module:
    observation = Observation(_latents())
    return LabelAlignment().connect(_build(0, observation), _build(1, observation))


def _saved() -> str:
    learnt(Graph).save("graph")
    return "graph"


SOUND: dict[str, Callable[[], Any]] = {  # by parameter, or by owner and parameter
    "x X data images frames array rows reconstructed": images,
    "GMM.x GMMClassifier.X": lambda: images().reshape(N, -1),
    "z mean MixtureDensity.x Ensemble.rows Deferred.values": _latents,
    "MultinomialVAE.z": lambda: np.exp(_log_prob()),
    "var": lambda: np.ones((N, 2)),
    "labels y clusters first second values observed_labels": LABELS.copy,
    "clusterings": lambda: [LABELS, LABELS[::-1]],
    "log_prob log_likelihood": _log_prob,
    "before after up": lambda: messages.Categorical(_log_prob()),
    "messages": lambda: [messages.Categorical(_log_prob())] * 2,
    "density p q": lambda: copy.deepcopy(DENSITY),
    "densities": lambda: [copy.deepcopy(DENSITY)] * 2,
    "measure": lambda: kl,
    "weights": lambda: np.array([0.4, 0.6]),
    "means": lambda: np.zeros((K, 2)),
    "covariances": lambda: np.tile(np.eye(2), (K, 1, 1)),
    "MixtureDensity.means": lambda: DENSITY.means.copy(),
    "MixtureDensity.covariances": lambda: DENSITY.covariances.copy(),
    "start centre": lambda: np.zeros(2),
    "end": lambda: np.ones(2),
    "columns": lambda: [0],
    "order": lambda: np.array([1, 0]),
    "sizes": lambda: [1, 1],
    "matrix": lambda: np.eye(3),
    "curve": lambda: [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}],
    "curves": lambda: [-3.0, -2.0],
    "dataset": lambda: Dataset(images(), LABELS),
    "counts vision audio touch angle force": lambda: np.ones((N, 5)),
    "objects motions": LABELS.copy,
    "recordings waveforms HAC.X": _waveforms,
    "leaves node module parent Graph.leaf": lambda: _build(0).update(),
    "parents": lambda: Observation(images()),
    "Categorical.other": lambda: messages.Categorical(_log_prob()),
    "Gaussian.other": lambda: messages.Gaussian(_latents(), np.ones((N, 2))),
    "Graph.path": _saved,
    "Graph.name": lambda: "gmm",
    "Ensemble.leaves": _ensemble,
    "graph": lambda: learnt(Graph),
    "record": lambda: {"round": 1, "updates": [{"module": "gmm", "changed": 0.5}]},
    "history": lambda: learnt(Graph).history,
    "graph.names": lambda: learnt(Graph).names,
    "build": lambda: _build,
    "seeds": lambda: [0, 1],
    "GraphEstimator.build": lambda: _on,
    "source": lambda: _latents(),
    "components": lambda: [1, 2],
    "choices votes": lambda: {"bic": 1},
    "Selection.values": lambda: {"bic": np.ones((2, 2))},
    "by_number.values": lambda: {"bic": np.ones((2, 2))},
    "numbers": lambda: [1, 2],
    "agreement": lambda: 1.0,
    "criterion": lambda: "stability",
    "arm": lambda: "joint",
    "by_round.values": lambda: {"accuracy": np.ones((2, 3))},
    "Repeats.values": lambda: {"stability": np.ones((2, 2))},
    "Repeats.clusters": lambda: np.zeros((2, 2, N), dtype=int),
    "seconds": lambda: np.ones(2),
    "several": lambda: [len],
    "autoencoder": lambda: learnt(VAE),
    "function": lambda: np.copy,
    "path name method item monitor": lambda: "name",
    "folder": lambda: "folder",
    "value bound": lambda: 1.0,
    "label": lambda: "ape",
    "terms": lambda: {"loss": 1.0},
    "row_shape": lambda: (4, 4),
    "fingerprint": lambda: "float32-0",
    "n_rows": lambda: N,
    "sample_rate": lambda: 8000,
    "n_components n_dims n_steps n_samples latent_dim rounds": lambda: K,
    "k component": lambda: 0,
    "estimator": lambda: PCA(2),
    "GMMClassifier.y": lambda: np.array(["ape", "bee", "cat"])[LABELS],
}
BY_NAME = {name: make for names, make in SOUND.items() for name in names.split()}


def sound(owner: str, name: str) -> Any:
    """A sound value of a parameter, made anew; None if none is known."""
    make = BY_NAME.get(f"{owner}.{name}", BY_NAME.get(name))
    return None if make is None else make()


# -- subjects --------------------------------------------------------------------------------------

CASE_OF = {type(case.module): case for case in reversed(CASES.values())}


def sound_arguments(kind: type) -> dict[str, Any]:
    """Arguments of a class that work."""
    if kind in CASE_OF:
        return clone(CASE_OF[kind].module).get_params(deep=False)
    net = {"epochs": 2, "random_state": 0}
    special: dict[type, dict[str, Any]] = {
        Compose: {"transforms": [RandomAffine()]},
        NetClassifier: net,
        NetRegressor: net,
    }
    needed = (p for p in parameters(kind).values() if p.default is p.empty)
    known = {p.name: sound(kind.__name__, p.name) for p in needed if p.kind is not p.VAR_POSITIONAL}
    return {**known, **special.get(kind, {})}


def made(kind: type, **options: Any) -> Any:
    """An object that has learnt nothing, modules with parents."""
    if issubclass(kind, Ensemble | Graph):
        seed = {name: options.pop(name) for name in ["random_state"] if name in options}
        return kind(*options.values() or [sound(kind.__name__, "leaves")], **seed)
    thing = kind(**{**sound_arguments(kind), **options})
    if isinstance(thing, Module) and kind in CASE_OF:
        thing.connect(*CASE_OF[kind].below(images()))
    return thing


def used(thing: Any) -> Any:
    """What comes of the first use of an object, which for most is to learn."""
    if isinstance(thing, Module):
        return thing.update()
    if isinstance(thing, Graph):
        return thing.fit(1, verbose=False)
    if isinstance(thing, Callback):
        return learnt(Graph).fit(2, callbacks=[thing], verbose=False)
    if isinstance(thing, RandomTransform):
        return thing.copies(images(), random_state=0)
    if isinstance(thing, HAC):
        return thing.fit_transform(_waveforms())
    if isinstance(thing, Novelty):
        return thing.fit(learnt(VAE), DENSITY, images()).p_value(images())
    if isinstance(thing, BaseEstimator) and hasattr(thing, "fit"):
        return thing.fit(images(), LABELS).predict(images())
    names = [n for n in dir(thing) if isinstance(getattr(type(thing), n, None), property)]
    return [getattr(thing, name) for name in names]


def learnt(kind: type) -> Any:
    """A copy of an object that has been used."""
    return copy.deepcopy(_learnt(kind))


@functools.cache
def _learnt(kind: type) -> Any:
    if kind is Graph:
        vae = VAE(2, epochs=2, hidden_sizes=(8,), random_state=0).connect(Observation(images()))
        return Graph(GMM(K, random_state=0).connect(vae)).fit(2, verbose=False)
    thing = made(kind)
    if not isinstance(thing, Callback):
        used(thing)
    return thing

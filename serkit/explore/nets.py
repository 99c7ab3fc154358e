"""Nets of a graph for its page: decoders down to the data, encoders up from them, projections."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ..errors import SerkitError
from ..messages import Categorical, Data, Message
from ..module import Module, Node, posterior_of
from ..observation import Observation
from .layers import Layer, Refused, layers_of, rounded
from .packing import Blob
from .runtime import Runtime, as_onnx

Json = dict[str, Any]

_DIFFERENCE = 4e-5  # of what is decoded, as a share of its range: half a tenth of a grey level
_SHIFT = 1e-3  # of what is encoded, as a share of the latents' spread
_PROBES = 16  # rows that are put through torch and through the layers
_CHECKED = 2  # of these, by the page when it is opened
_FEWEST_NEIGHBOURS = 4  # rows that UMAP needs


class Way(NamedTuple):
    """From latents to data or back: the layers, what does the same in torch, and what comes out.

    Where layers are refused there may be a net that does it all in one.
    """

    layers: list[Layer] | Refused
    function: Callable[[np.ndarray], np.ndarray]
    outputs: list[Json]
    net: nn.Module | None = None


class _Ends(nn.Module):
    """A net with what comes after it."""

    def __init__(self, net: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.after = deepcopy(net), after

    def forward(self, rows: Tensor) -> Tensor:
        values = self.net(rows)
        return self.after(values[0] if isinstance(values, tuple) else values)


@dataclass
class Nets:
    """The nets of a graph, for its page."""

    names: dict[str, Node]
    blob: Blob
    runtime: Runtime | None = None

    def decoder(self, name: str, z: np.ndarray) -> Json | None:
        """What decodes latents (n, D) of a node in the page; None if only Python can."""
        node = self.names[name]
        way = self._down(node)
        if way is None:
            return None
        probes = _between(z)
        label = f"{node.label}.decoder"
        return self._stored(way, probes, label, _DIFFERENCE) | {"outputs": way.outputs}

    def encoder(self, name: str, up: dict[str, Message]) -> Json | None:
        """What encodes rows of the only observation below a node; None where there are several."""
        node: Any = self.names[name]
        if not hasattr(node, "nets_") or len(node.parents) != 1 or node.sends_up is Categorical:
            return None
        (parent,) = node.parents
        below = next(key for key, other in self.names.items() if other is parent)
        message = up.get(below)
        if not isinstance(parent, Observation) or not isinstance(message, Data):
            return None
        net, d = node.nets_["encoder"], node.n_outputs
        net = net.encoder if type(net).__name__ == "Joined" else net  # which returns a pair
        layers: list[Layer] | Refused
        try:
            layers = layers_of(net, parent.row_shape, f"{node.label}.encoder")
            if layers[-1].shape != (d,):  # means, then log variances
                layers.append(Layer("take", (d,), {"places": np.arange(d, dtype=np.int32)}))
        except Refused as error:
            layers = error

        def encoded(rows: np.ndarray) -> np.ndarray:
            return posterior_of(node, [Data(rows, checked=False)]).up.mean  # type: ignore[union-attr]

        way = Way(layers, encoded, [], _Ends(net, lambda values: values[:, :d]))
        rows = message.array[message.is_observed][:_PROBES]
        stored = self._stored(way, rows, f"{node.label}.encoder", _SHIFT)
        return {**stored, "observation": below}

    def _stored(self, way: Way, rows: np.ndarray, label: str, share: float) -> Json:
        """A net in the blob, with rows by which the page checks itself."""
        wanted = np.asarray(way.function(rows), dtype=np.float32)
        wanted = wanted.reshape(len(rows), -1)
        tolerance = share * float(np.ptp(wanted) if share == _DIFFERENCE else wanted.std())
        entry: Json
        if isinstance(way.layers, Refused):
            if self.runtime is None or way.net is None:
                raise way.layers
            content = np.frombuffer(as_onnx(way.net, rows[:1], label), np.uint8)
            entry = {"onnx": self.blob.add(content, "u1"), "shape": [1, *rows.shape[1:]]}
            tolerance = max(tolerance, _DIFFERENCE)
        else:
            layers, code = rounded(way.layers, rows, wanted, tolerance, label)
            entry = {"layers": [described(layer, self.blob, code) for layer in layers]}
        entry["probes"] = {
            "n": _CHECKED,
            "rows": self.blob.add(rows[:_CHECKED], "f4"),
            "wanted": self.blob.add(wanted[:_CHECKED], "f4"),
            "tolerance": 2.5 * tolerance,
        }
        return entry

    # -- down ------------------------------------------------------------------------------------

    def _down(self, node: Node) -> Way | None:
        """From a node's message up to the observations below it; None if only Python can."""
        if isinstance(node, Observation):
            return Way([], lambda z: z, [self._output(node, 0)])
        if not isinstance(node, Module):
            return None
        step = _of_classes(node) if node.sends_up is Categorical else _step_of(node)
        if step is None:
            return None
        net = step.net if all(isinstance(p, Observation) for p in node.parents) else None
        if len(node.parents) > 1:
            sizes = [parent.n_outputs or 0 for parent in node.parents]
            starts = np.cumsum([0, *sizes])
            if not all(isinstance(parent, Observation) for parent in node.parents):
                return None
            outputs = [self._output(p, int(s)) for p, s in zip(node.parents, starts, strict=False)]
            return Way(step.layers, step.function, outputs, net)
        below = self._down(node.parents[0])
        if below is None:
            return None
        chained = step.layers if isinstance(step.layers, Refused) else below.layers
        if not isinstance(step.layers, Refused) and not isinstance(below.layers, Refused):
            chained = [*step.layers, *below.layers]
        return Way(chained, lambda z: below.function(step.function(z)), below.outputs, net)

    def _output(self, node: Node, start: int) -> Json:
        name = next(key for key, other in self.names.items() if other is node)
        return {"observation": name, "start": start, "size": node.n_outputs}


def _step_of(module: Any) -> Way | None:
    """From a module's message up to its parents' rows side by side: layers, and a function."""
    if hasattr(module, "nets_"):

        def decoded(z: np.ndarray) -> np.ndarray:
            return module.decode(z).reshape(len(z), -1)

        layers: list[Layer] | Refused
        try:
            layers = layers_of(
                module.nets_["decoder"], (module.n_outputs,), f"{module.label}.decoder"
            )
            if module.likelihood == "bernoulli":
                shape = layers[-1].shape
                layers.append(Layer("activation", shape, options={"name": "sigmoid"}))
        except Refused as error:
            layers = error
        mean = module.nets_["likelihood"].mean
        return Way(layers, decoded, [], _Ends(module.nets_["decoder"], mean))
    return _affine(module)


def _of_classes(module: Any) -> Way | None:
    """From class probabilities to the rows that are expected: the sum of those of each class."""
    if not hasattr(module, "decode"):
        return None
    of_each = module.decode(np.eye(module.n_outputs)).reshape(module.n_outputs, -1)  # (K, V)
    of_each = of_each.astype(np.float32)
    arrays = {"weight": of_each.T, "bias": np.zeros(of_each.shape[1], np.float32)}
    layer = Layer("linear", (of_each.shape[1],), arrays)
    return Way([layer], lambda z: z.astype(np.float32) @ of_each, [])


def _affine(module: Module) -> Way | None:
    """What a module without nets generates of values, if that is linear in them; else None."""
    rng = np.random.default_rng(0)
    d = module.n_outputs or 0

    def generated(z: np.ndarray) -> np.ndarray:
        made = module.generate(len(z), np.random.default_rng(0), z)
        return np.hstack([rows.reshape(len(z), -1) for rows in made])

    try:
        bias = generated(np.zeros((1, d)))[0]
        weight = (generated(np.eye(d)) - bias).T  # (n, D)
        z = rng.normal(size=(_PROBES, d))
        wanted = generated(z)
    except (SerkitError, ValueError, TypeError):  # it makes none, or draws classes
        return None
    if not np.allclose(z @ weight.T + bias, wanted, rtol=1e-4, atol=1e-5 * np.ptp(wanted)):
        return None
    arrays = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    return Way([Layer("linear", (len(bias),), arrays)], generated, [])


def _between(z: np.ndarray) -> np.ndarray:
    """Some latents, and some between and beyond them."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(len(z), size=(2, _PROBES))
    share = rng.uniform(-0.2, 1.2, size=(_PROBES, 1))
    return (share * z[first] + (1 - share) * z[second]).astype(np.float32)


def described(layer: Layer, blob: Blob, code: str) -> Json:
    """A layer as the page reads it."""
    entry: Json = {"kind": layer.kind, "shape": list(layer.shape), **layer.options}
    entry["arrays"] = [*layer.arrays]
    for name, array in layer.arrays.items():
        entry[name] = blob.add(array, "i4" if array.dtype.kind == "i" else code)
    if "weight" in layer.arrays:
        entry["inner"] = list(layer.arrays["weight"].shape[1:])
    return entry


# -- projections -----------------------------------------------------------------------------------


def projections(
    z: np.ndarray,
    groups: np.ndarray | None,
    variances: np.ndarray | float = 0.0,
    *,
    scaled: bool = False,
) -> list[Json]:
    """Ways to see latents (n, D) in three dimensions, of which the first two are the most telling.

    Each has a ``mean`` (D,) and a ``matrix`` (D, 3), or, of UMAP where that is installed, the
    places of the rows, ``flat`` (n, 2) and ``deep`` (n, 3). `variances` (D,) are the means of those
    of the latents about z.
    """
    mean, scale = z.mean(axis=0), z.std(axis=0) if scaled else np.ones(z.shape[1])
    scale = np.where(scale > 0, scale, 1.0)
    white = (z - mean) / scale
    found = [{"name": "PCA", "mean": mean, "matrix": _principal(white) / scale[:, None]}]
    discriminants = None if groups is None else _discriminants(white, groups, variances / scale**2)
    if discriminants is not None:
        found.append({"name": "LDA", "mean": mean, "matrix": discriminants / scale[:, None]})
    if importlib.util.find_spec("umap") is not None and len(white) >= _FEWEST_NEIGHBOURS:
        from ..plots.projection import by_neighbours

        places = {key: by_neighbours(white, "umap", n) for key, n in {"flat": 2, "deep": 3}.items()}
        found.append({"name": "UMAP", **places})
    return found


def _principal(z: np.ndarray) -> np.ndarray:
    """The three principal directions of centred rows, (D, 3); axes where there are no more."""
    d = z.shape[1]
    if d <= 2:
        return np.eye(d, 3)
    n = min(3, len(z), d)
    return np.pad(PCA(n, random_state=0).fit(z).components_.T, ((0, 0), (0, 3 - n)))


def _discriminants(
    z: np.ndarray, groups: np.ndarray, variances: np.ndarray | float
) -> np.ndarray | None:
    """Three directions that part groups most (Fisher, 1936), (D, 3), the last ones principal.

    Widths within groups are those of the means z and the mean variances about these, (D,), without
    which dimensions that say nothing would count most.
    """
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    n = min(3, len(names) - 1)
    if z.shape[1] < 3 or n < 1:
        return None
    means = np.zeros((len(names), z.shape[1]))
    np.add.at(means, codes, z)
    means /= counts[:, None]
    between = (counts[:, None] * (means - z.mean(axis=0))).T @ (means - z.mean(axis=0)) / len(z)
    rest = z - means[codes]
    floor = 1e-6 * z.var(axis=0).mean() + 1e-12
    within = rest.T @ rest / len(z) + np.eye(z.shape[1]) * (variances + floor)
    _, vectors = eigh(between, within)
    directions = vectors[:, ::-1][:, :n]  # (D, n)
    basis, _ = np.linalg.qr(directions)
    beside = z - z @ basis @ basis.T
    return np.hstack([directions, _principal(beside)[:, : 3 - n]])

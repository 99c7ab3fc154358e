"""Nets as lists of layers that a page can run, each list checked against torch.

A layer is one of few kinds, which `layers.js` has too:

=============  ===================================================================================
kind           what it does with a row
=============  ===================================================================================
linear         weight (n_out, n_in) and bias, on the last axis
conv           as `torch.nn.Conv2d`, with zeros beyond the edges
conv_back      as `torch.nn.ConvTranspose2d`
scale          a factor and a shift for each channel: batch normalisation
slope          a factor for each channel where below 0: PReLU
activation     one of `ACTIVATIONS`
max_pool       as `torch.nn.MaxPool2d`
take           moves, drops or repeats values: reshape, crop, zero padding, nearest upsampling
separable      a matrix over rows and one over columns: bilinear upsampling, mean pooling
=============  ===================================================================================
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

Shape = tuple[int, ...]  # of one row
Arrays = dict[str, np.ndarray]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "logsigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "softmax": nn.Softmax,
}
_FUNCTIONS = {**ACTIVATIONS, "max_pool2d": nn.MaxPool2d}  # as functions are called
_NUMBERS_OF_ACTIVATIONS = {
    "negative_slope",
    "alpha",
    "approximate",
    "beta",
    "threshold",
    "min_val",
    "max_val",
    "dim",
}
_ROUNDING = 1e-5  # of float32, relative, in a net's output
_CODES = ("f2", "f3", "f4")  # see `serkit.explore.packing`


@dataclass(frozen=True)
class Layer:
    """One step of a net: its kind, the shape of a row that comes out, arrays and numbers."""

    kind: str
    shape: Shape
    arrays: Arrays = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


class Refused(InputError):
    """A net has a layer that is none of the kinds here."""


# -- from torch ------------------------------------------------------------------------------------


def layers_of(net: nn.Module, row_shape: Shape, label: str) -> list[Layer]:
    """A net as layers; `Refused`, which names the layer, if it has one of another kind.

    Parameters
    ----------
    net : torch.nn.Module
        Made of the layers above, in a chain: as `torch.nn.Sequential`, or as a class whose
        `forward` can be traced (`torch.fx`). Of several results only the first counts. It is not
        changed.
    row_shape : tuple of int
        Of the rows that go in.
    label : str
        How errors call the net, such as "VAE.decoder".

    Examples
    --------
    >>> from torch import nn
    >>> from serkit.explore.layers import layers_of
    >>> net = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Unflatten(1, (3, 2, 2)))
    >>> [(layer.kind, layer.shape) for layer in layers_of(net, (2,), "net")]
    [('linear', (12,)), ('activation', (12,)), ('take', (3, 2, 2))]
    """
    copy = deepcopy(net).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((2, *row_shape), generator=generator)
    with torch.no_grad():
        return list(_Translation(label).of(copy, rows))


@dataclass
class _Translation:
    """Goes through a net with two rows, from layer to layer."""

    label: str

    def of(self, module: nn.Module, rows: Tensor, path: str = "") -> Iterator[Layer]:
        """The layers of a module that gets some rows."""
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                yield from self.of(child, rows, f"{path}.{name}" if path else name)
                rows = child(rows)
            return
        layer = _known(module, rows)
        if layer is None and not [*module.parameters(), *module.buffers()]:
            layer = _moved(module, rows)
        if layer is not None:
            yield layer
        else:
            yield from self._traced(module, rows, path)

    def _traced(self, module: nn.Module, rows: Tensor, path: str) -> Iterator[Layer]:
        """The layers of a module of a user's class, by what its `forward` calls."""
        from torch import fx

        class Tracer(fx.Tracer):
            def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
                return True

        name = f"{path} ({type(module).__name__})" if path else type(module).__name__
        if type(module).__module__.startswith("torch.nn"):
            raise self._refusal(name)
        try:
            graph = Tracer().trace(module)
        except Exception as error:  # of a forward that looks at values, say
            raise self._refusal(name, f", whose forward cannot be traced: {error!s:.100}") from None
        needed = _needed(graph)
        values: dict[Any, Any] = {}
        latest = None  # the node whose value the next one must take
        for node in needed:
            if node.op == "placeholder":
                values[node], latest = rows, node
                continue
            values[node] = value = _evaluated(module, node, values)
            if isinstance(value, Tensor | tuple) and node.op != "get_attr":
                step = f"{name}: {node.target if node.op == 'call_module' else node.name}"
                took = [n for n in node.all_input_nodes if isinstance(values[n], Tensor | tuple)]
                if took != [latest]:
                    raise self._refusal(step, ", which takes more than what the layer before gives")
                yield from self._step(module, node, values, step, path)
                latest = node

    def _step(
        self, module: nn.Module, node: Any, values: dict[Any, Any], step: str, path: str
    ) -> Iterator[Layer]:
        """The layers of one call in a `forward`."""
        arguments, options = _looked_up(node, values)
        rows = arguments[0]
        if isinstance(rows, tuple) and arguments[1:] == [0]:  # the first of several results
            return
        if node.op == "call_module":
            inner = module.get_submodule(node.target)
            yield from self.of(inner, rows, f"{path}.{node.target}" if path else node.target)
            return
        target = node.target if isinstance(node.target, str) else node.target.__name__
        kind = _FUNCTIONS.get(target.strip("_"))
        if kind is not None:
            allowed = inspect.signature(kind).parameters
            known = {name: value for name, value in options.items() if name in allowed}
            layer = _known(kind(*arguments[1:], **known), rows)
        else:
            layer = _moved(lambda x: _called(node, [x, *arguments[1:]], options), rows)
        if layer is None:
            raise self._refusal(step)
        yield layer

    def _refusal(self, layer: str, why: str = "") -> Refused:
        return Refused(
            f"{self.label}: the page has no layer like {layer}{why}; use Linear, Conv2d, "
            "ConvTranspose2d, batch normalisation, activations, reshaping, pooling and upsampling, "
            "one after the other, or give runtime=, a folder in which `npm install "
            "onnxruntime-web` was called"
        )


def _needed(graph: Any) -> list[Any]:
    """The nodes of a traced graph that its result, or the first of several, comes from."""
    result = next(node.args[0] for node in graph.nodes if node.op == "output")
    result = result[0] if isinstance(result, tuple | list) else result
    needed, waiting = set(), [result]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return [node for node in graph.nodes if node in needed]


def _evaluated(module: nn.Module, node: Any, values: dict[Any, Any]) -> Any:
    """The value of one node of a traced graph."""
    if node.op == "get_attr":
        return attrgetter(node.target)(module)
    arguments, options = _looked_up(node, values)
    if node.op == "call_module":
        return module.get_submodule(node.target)(*arguments, **options)
    return _called(node, arguments, options)


def _looked_up(node: Any, values: dict[Any, Any]) -> tuple[list[Any], dict[str, Any]]:
    from torch import fx

    arguments = fx.node.map_arg(node.args, lambda n: values[n])
    return list(arguments), dict(fx.node.map_arg(node.kwargs, lambda n: values[n]))


def _called(node: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    if node.op == "call_method":
        return getattr(arguments[0], node.target)(*arguments[1:], **options)
    return node.target(*arguments, **options)


def _known(module: nn.Module, rows: Tensor) -> Layer | None:
    """The layer of a module that has its own kind; None for others."""
    describe = _KNOWN.get(type(module))  # whose forward is as it is in torch
    found = None if describe is None else describe(module, rows)
    if found is None:
        return None
    kind, arrays, options = found
    stored = {
        name: values.detach().float().numpy().copy()
        for name, values in arrays.items()
        if values is not None
    }
    return Layer(kind, tuple(module(rows).shape[1:]), stored, options)


Found = tuple[str, dict[str, Any], dict[str, Any]] | None


def _linear(module: nn.Linear, rows: Tensor) -> Found:
    return "linear", {"weight": module.weight, "bias": module.bias}, {}


def _conv(module: Any, rows: Tensor) -> Found:
    numbers = {name: _pair(getattr(module, name)) for name in ("stride", "padding", "dilation")}
    if module.padding_mode != "zeros" or None in numbers.values() or rows.ndim != 4:
        return None
    kind = "conv_back" if isinstance(module, nn.ConvTranspose2d) else "conv"
    options = {**numbers, "groups": module.groups, "from": list(rows.shape[1:])}
    if kind == "conv_back":
        options["output_padding"] = _pair(module.output_padding)
    return kind, {"weight": module.weight, "bias": module.bias}, options


def _batch_norm(module: Any, rows: Tensor) -> Found:
    if module.running_var is None:
        return None
    factor = (module.running_var + module.eps).rsqrt()
    shift = -module.running_mean * factor
    if module.affine:
        factor, shift = factor * module.weight, shift * module.weight + module.bias
    return "scale", {"factor": factor, "shift": shift}, {}


def _slope(module: nn.PReLU, rows: Tensor) -> Found:
    return "slope", {"factor": module.weight.expand(rows.shape[1])}, {}


def _activation(module: nn.Module, rows: Tensor) -> Found:
    name = next(name for name, kind in ACTIVATIONS.items() if type(module) is kind)
    parameters = inspect.signature(type(module)).parameters
    options = {n: getattr(module, n) for n in parameters if n in _NUMBERS_OF_ACTIVATIONS}
    if name == "softmax" and (rows.ndim != 2 or options.pop("dim") not in (1, -1)):
        return None
    return "activation", {}, {"name": name, **options}


def _max_pool(module: nn.MaxPool2d, rows: Tensor) -> Found:
    if _pair(module.dilation) != [1, 1] or module.return_indices or rows.ndim != 4:
        return None
    numbers = {name: _pair(getattr(module, name)) for name in ("kernel_size", "stride", "padding")}
    return "max_pool", {}, {**numbers, "from": list(rows.shape[1:]), "ceil_mode": module.ceil_mode}


def _pair(value: Any) -> list[int] | None:
    """Two integers, of one or two; None of a word."""
    if isinstance(value, str):
        return None
    return [value, value] if isinstance(value, int) else [*value]


_KNOWN: dict[type, Callable[[Any, Tensor], Found]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _slope,
    nn.MaxPool2d: _max_pool,
    **dict.fromkeys(ACTIVATIONS.values(), _activation),
}


def _moved(function: Callable[[Tensor], Tensor], rows: Tensor) -> Layer | None:
    """What moves values, or mixes rows and columns of images, by what it makes of a few rows."""
    shape = tuple(rows.shape[1:])
    n_values = math.prod(shape)
    numbered = torch.arange(1, n_values + 1, dtype=torch.float64).reshape(1, *shape)
    try:
        index = function(numbered.expand(2, *shape).clone())
    except Exception:  # nor does it take other numbers
        return None
    if not isinstance(index, Tensor) or index.ndim < 2 or len(index) != 2:
        return None
    places = index[0].round().to(torch.int64)
    out, expected = function(rows), tuple(index.shape[1:])
    if places.min() >= 0 and places.max() <= n_values:
        padded = F.pad(rows.flatten(1), (1, 0))
        if torch.equal(padded[:, places.flatten()].reshape(2, *expected), out):
            return _take(places.flatten().numpy() - 1, n_values, expected)
    return _separable(function, rows, expected) if rows.ndim == 4 == index.ndim else None


def _take(places: np.ndarray, n_values: int, shape: Shape) -> Layer:
    """The layer that gets each value from a place, 0 from -1; without places if all stay."""
    stays = len(places) == n_values and (places == np.arange(n_values)).all()
    return Layer("take", shape, {} if stays else {"places": places.astype(np.int32)})


def _separable(function: Callable[[Tensor], Tensor], rows: Tensor, shape: Shape) -> Layer | None:
    """The layer of what is a matrix over rows and one over columns, the same for each channel."""
    n_channels, height, width = rows.shape[1:]
    down = torch.eye(height)[:, None, :, None].expand(height, n_channels, height, width)
    across = torch.eye(width)[:, None, None, :].expand(width, n_channels, height, width)
    vertical, horizontal = function(down)[:, 0, :, 0].T, function(across)[:, 0, 0, :].T
    made = vertical @ rows @ horizontal.T
    out = function(rows)
    if made.shape != out.shape or not torch.allclose(made, out, rtol=1e-4, atol=1e-5):
        return None
    arrays = {"down": vertical.numpy().copy(), "across": horizontal.numpy().copy()}
    return Layer("separable", shape, arrays, {"from": [n_channels, height, width]})


# -- the same layers in torch ----------------------------------------------------------------------


def run(layers: Sequence[Layer], rows: np.ndarray) -> np.ndarray:
    """What a list of layers makes of rows, (N, ...) -> (N, ...), in float32."""
    values = torch.tensor(np.asarray(rows), dtype=torch.float32)
    for layer in layers:
        arrays = {name: torch.tensor(array) for name, array in layer.arrays.items()}
        values = _RUN[layer.kind](values, arrays, layer.options)
        values = values.reshape(len(rows), *layer.shape)
    return values.numpy()


def _by_channel(values: Tensor, numbers: Tensor) -> Tensor:
    return numbers.reshape(-1, *[1] * (values.ndim - 2))


def _run_take(x: Tensor, arrays: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    if not arrays:
        return x
    return F.pad(x.flatten(1), (1, 0))[:, arrays["places"].long() + 1]


def _run_conv(x: Tensor, arrays: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    numbers = {name: value for name, value in options.items() if name != "from"}
    function = F.conv_transpose2d if "output_padding" in options else F.conv2d
    return function(x, arrays["weight"], arrays.get("bias"), **numbers)


def _run_activation(x: Tensor, arrays: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    given = {name: value for name, value in options.items() if name != "name"}
    if options["name"] == "softmax":
        given["dim"] = 1
    return ACTIVATIONS[options["name"]](**given)(x)


_RUN: dict[str, Callable[[Tensor, dict[str, Tensor], dict[str, Any]], Tensor]] = {
    "linear": lambda x, a, o: F.linear(x, a["weight"], a.get("bias")),
    "conv": _run_conv,
    "conv_back": _run_conv,
    "scale": lambda x, a, o: x * _by_channel(x, a["factor"]) + _by_channel(x, a["shift"]),
    "slope": lambda x, a, o: torch.where(x < 0, x * _by_channel(x, a["factor"]), x),
    "activation": _run_activation,
    "max_pool": lambda x, a, o: F.max_pool2d(x, **{k: v for k, v in o.items() if k != "from"}),
    "take": _run_take,
    "separable": lambda x, a, o: a["down"] @ x @ a["across"].T,
}


# -- as few bytes as show no difference ------------------------------------------------------------


def rounded(
    layers: Sequence[Layer],
    rows: np.ndarray,
    wanted: np.ndarray,
    tolerance: float,
    label: str,
) -> tuple[list[Layer], str]:
    """The layers with weights in as few bytes as keep what comes out within a tolerance.

    Parameters
    ----------
    layers : sequence of Layer
    rows : np.ndarray, shape (N, ...)
        What goes in, to see it.
    wanted : np.ndarray, shape (N, ...)
        What torch makes of them.
    tolerance : float
        The largest difference allowed.
    label : str
        How errors call the net.

    Returns
    -------
    layers : list of Layer
    code : {"f2", "f3", "f4"}
        Bytes of a weight.

    Raises
    ------
    InputError
        If the layers do not give what torch gives, whatever the bytes.
    """
    from .packing import as_stored

    difference = math.inf
    for code in _CODES:
        candidate = [
            replace(
                layer,
                arrays={
                    name: array if array.dtype.kind == "i" else as_stored(array, code)
                    for name, array in layer.arrays.items()
                },
            )
            for layer in layers
        ]
        with np.errstate(all="ignore"):  # of weights beyond half floats
            made = run(candidate, rows).reshape(wanted.shape)
            difference = float(np.abs(made - wanted).max())
        scale = float(np.abs(wanted).max())
        if difference <= (tolerance if code != "f4" else max(tolerance, _ROUNDING * scale)):
            return candidate, code
    raise InputError(
        f"{label}: what the page makes of latents differs from torch by up to {difference:g}; "
        "give runtime=, a folder in which `npm install onnxruntime-web` was called"
    )

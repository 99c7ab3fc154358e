"""Graphs as plain values, which YAML and JSON can hold: what they are made of, not what is learnt.

    observations: {images: {row_shape: [8, 8]}}
    modules:
      vae: {class: VAE, parents: [images], arguments: {latent_dim: 10}}
      gmm: {class: GMM, parents: [vae], arguments: {n_components: 10}}

Arguments are those that are not as they are unless given. An object among them, such as a
transform, is ``{class: RandomAffine, arguments: {...}}``; ``{custom: Encoder}`` stands for code,
and ``{data: labels}`` for an array, both of which are given beside. Nothing in a spec is executed:
its classes are the public ones of `serkit.modules`, and those that the caller hands over.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from ..errors import GraphError, InputError
from ..messages import Data
from ..module import Module, Node
from ..observation import Observation
from ..options import Choice, Counts, Several, Text, check_argument, in_words
from . import format

Spec = dict[str, Any]
_LABEL = "Graph.from_spec"
_NO_ARGUMENT = inspect.Parameter.empty


# -- to plain values -------------------------------------------------------------------------------


def to_spec(names: Mapping[str, Node]) -> Spec:
    """The spec of a graph's nodes, parents first; see `serkit.Graph.to_spec`."""
    name_of = {node: name for name, node in names.items()}
    spec: Spec = {"observations": {}, "modules": {}}
    for name, node in names.items():
        if isinstance(node, Observation):
            known = node.arguments()
            stated = {key: known.get(key) for key in ("row_shape", "image_shape", "lengths")}
            spec["observations"][name] = {k: v for k, v in stated.items() if v is not None}
        else:
            entry = _entry_of(node)
            parents = [name_of[parent] for parent in node.parents]
            entry["arguments"].pop("name", None)
            spec["modules"][name] = {"class": entry["class"], "parents": parents, **entry}
    return spec


def _entry_of(value: BaseEstimator) -> Spec:
    """Class and arguments of a module, or of what is an argument of one."""
    parameters = inspect.signature(type(value).__init__).parameters
    arguments = {
        name: _plain(argument)
        for name, argument in value.get_params(deep=False).items()
        if name not in parameters or not _is_default(argument, parameters[name].default)
    }
    return {"class": type(value).__name__, "arguments": arguments}


def _is_default(argument: Any, default: Any) -> bool:
    return default is not _NO_ARGUMENT and (argument is default or format.same(argument, default))


def _plain(value: Any) -> Any:
    """A value as YAML and JSON hold it; code as what stands for it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufUO":
        return _plain(value.tolist())
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, BaseEstimator) and not isinstance(value, type):
        return _entry_of(value)
    if hasattr(value, "__array__") and not callable(value):  # a pandas Series, say
        return _plain(np.asarray(value))
    return {"custom": getattr(value, "__qualname__", type(value).__qualname__)}


# -- and back --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """What a caller hands over beside a spec."""

    data: Mapping[str, Any]
    classes: Mapping[str, type]
    custom: Mapping[str, Any]


def from_spec(
    spec: Any,
    data: Mapping[str, Any] | None,
    classes: Collection[type],
    custom: Mapping[str, Any] | None,
) -> dict[str, Node]:
    """Connected nodes that a spec speaks of, by name; see `serkit.Graph.from_spec`.

    Raises
    ------
    InputError
        For anything else than a spec, an unknown class, argument or name, or what is not given.
    GraphError
        For connections that cannot be.
    """
    own = {kind.__name__: kind for kind in classes}
    given = _Given(data or {}, own, custom or {})
    parts = _mapping(_LABEL, spec, "observations", "modules")
    observations = _mapping(f"{_LABEL}: observations", parts.get("observations"))
    modules = _mapping(f"{_LABEL}: modules", parts.get("modules"))
    if twice := observations.keys() & modules.keys():
        raise InputError(f"{_LABEL}: {', '.join(sorted(twice))} is an observation and a module")
    _check_used(given, observations, modules)
    names: dict[str, Node] = {}
    for name, stated in observations.items():
        names[name] = _observation(name, stated, given)
    entries = {name: _entry(f"modules.{name}", entry, "parents") for name, entry in modules.items()}
    for name, entry in entries.items():
        names[name] = _module(name, entry, given)
    for name, entry in entries.items():
        parents = entry.get("parents", [])
        check_argument(f"{_LABEL}: modules.{name}", "parents", parents, Several(Text()))
        for parent in parents:
            if parent not in names:
                raise GraphError(
                    f"{_LABEL}: modules.{name}: no module is called {parent!r}; there are "
                    f"{', '.join(names)}"
                )
        names[name].connect(*(names[parent] for parent in parents))
    return names


def _mapping(where: str, value: Any, *known: str) -> dict[str, Any]:
    """A dict whose keys are names, those known if there are some; InputError for all else."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        wanted = f" with {' and '.join(known)}" if known else " by name"
        raise InputError(f"{where}: expected a dict{wanted}, got {in_words(value)}")
    for key in value if known else ():
        check_argument(where, "key", key, Choice(*known))
    return dict(value)


def _entry(where: str, value: Any, *others: str) -> dict[str, Any]:
    """Class and arguments, checked but for the class's own checks."""
    entry = _mapping(f"{_LABEL}: {where}", value, "class", "arguments", *others)
    entry["arguments"] = _mapping(f"{_LABEL}: {where}.arguments", entry.get("arguments") or {})
    return entry


def _check_used(given: _Given, observations: Spec, modules: Spec) -> None:
    """Raise InputError for data or code that a spec has no place for."""
    places = {"data": {*observations}, "custom": set()}
    for name, entry in modules.items():
        arguments = entry.get("arguments") if isinstance(entry, Mapping) else None
        for key, value in (arguments or {}).items() if isinstance(arguments, Mapping) else ():
            if _stands_for(value, "data"):
                places["data"].add(str(value["data"]))
            elif _stands_for(value, "custom"):
                places["custom"].add(f"{name}.{key}")
    for what, wanted in places.items():
        unknown = [str(key) for key in getattr(given, what) if key not in wanted]
        if unknown:
            listed = ", ".join(sorted(wanted)) or "nothing"
            raise InputError(
                f"{_LABEL}: {what}= names {', '.join(unknown)}, and the spec asks for {listed}"
            )


def _stands_for(value: Any, what: str) -> bool:
    return isinstance(value, Mapping) and [*value] == [what] and isinstance(value[what], str)


def _name(key: str, kind: type) -> str | None:
    """The argument `name` of a node: None where its class's name says the same."""
    return None if key == kind.__name__.lower() else key


def _observation(key: str, stated: Any, given: _Given) -> Observation:
    where = f"{_LABEL}: observations.{key}"
    known = _mapping(where, stated or {}, "row_shape", "image_shape", "lengths")
    shape, name = known.pop("row_shape", None), _name(key, Observation)
    check_argument(where, "row_shape", shape, Counts(or_empty=True, or_none=True))
    check_argument(where, "lengths", known.get("lengths"), Counts(or_none=True))
    if key in given.data:
        rows = given.data[key]
        if isinstance(rows, Data):
            known["observed"] = rows.observed
        array = rows.array if isinstance(rows, Data) else rows
        observation = Observation(array, **known, name=name)
        if shape is not None and observation.row_shape != tuple(shape):
            raise InputError(
                f"{where}: expected rows of shape {tuple(shape)}, got {observation.row_shape}"
            )
        return observation
    if shape is None:
        raise InputError(f"{where}: its rows are missing: give data={{{key!r}: rows}}")
    return Observation.without_rows(
        name=name,
        n_rows=sum(known.get("lengths") or [1]),  # unknown, unless there are sequences
        row_shape=shape,
        lengths=known.get("lengths"),
        fingerprint="",
        image_shape=known.get("image_shape"),
    )


def _module(key: str, entry: Spec, given: _Given) -> Module:
    where = f"{_LABEL}: modules.{key}"
    kind = _class_called(where, entry.get("class"), given)
    if not issubclass(kind, Module):
        raise InputError(f"{where}: {kind.__name__} is no module")
    arguments = {}
    for name, value in entry["arguments"].items():
        if _stands_for(value, "custom"):
            if f"{key}.{name}" not in given.custom:
                raise InputError(
                    f"{where}: {name} is code ({value['custom']}), which is not in a spec; give it "
                    f"as custom={{'{key}.{name}': ...}}"
                )
            arguments[name] = given.custom[f"{key}.{name}"]
        else:
            arguments[name] = _value(f"modules.{key}.{name}", value, given)
    arguments.setdefault("name", _name(key, kind))
    module = _made(where, kind, arguments)
    module.check_options()
    return module


def _value(where: str, value: Any, given: _Given) -> Any:
    """An argument from its plain form."""
    if isinstance(value, list):
        return [_value(where, item, given) for item in value]
    if not isinstance(value, Mapping):
        return value
    if _stands_for(value, "data"):
        if value["data"] not in given.data:
            raise InputError(
                f"{_LABEL}: {where}: expected data={{{value['data']!r}: ...}}; there is "
                f"{', '.join(given.data) or 'none'}"
            )
        return given.data[value["data"]]
    if "class" not in value:
        return {key: _value(where, item, given) for key, item in value.items()}
    entry = _entry(where, value)
    kind = _class_called(f"{_LABEL}: {where}", entry["class"], given)
    arguments = {key: _value(where, item, given) for key, item in entry["arguments"].items()}
    return _made(f"{_LABEL}: {where}", kind, arguments)


def _class_called(where: str, name: Any, given: _Given) -> type:
    """The class of that name: of those handed over, or public in serkit.modules."""
    kind = given.classes.get(name) if isinstance(name, str) else None
    kind = kind or format.public_class(f"{format.PUBLIC[0]}.{name}")
    if kind is None or not issubclass(kind, BaseEstimator):
        raise InputError(
            f"{where}: class must be the name of one in serkit.modules, or of one in classes=, got "
            f"{in_words(name)}"
        )
    return kind


def _made(where: str, kind: type, arguments: Mapping[str, Any]) -> Any:
    """An object of a class; InputError for arguments that are missing."""
    try:
        return kind(**arguments)
    except TypeError as error:
        raise InputError(f"{where}: {error}".replace("__init__()", kind.__name__)) from None

"""A whole graph as a tree of values for `persistence`, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import persistence
from .errors import InputError, SavedFileError
from .module import Module, Observation

if TYPE_CHECKING:
    from .graph import Graph


def save(path: str | os.PathLike, graph: Graph) -> None:
    """Write everything a graph consists of, but for the observations' rows and a user's code."""
    index = {id(module): i for i, module in enumerate(graph.modules)}
    modules = [
        {
            "class": type(module).__name__,
            "arguments": module.arguments(),
            "parents": [index[id(parent)] for parent in module.parents],
            "state": module.get_state(),
        }
        for module in graph.modules
    ]
    tree = {
        "modules": modules,
        "history": graph.history,
        "first_latents": graph.first_latents,
    }
    persistence.write(path, tree)


def resume(path: str | os.PathLike, graph: Graph) -> None:
    """Give a graph the state saved in a file, if the file is of the same graph and data.

    Raises
    ------
    SavedFileError
        For a damaged file, or one of other modules, arguments or data; nothing is changed then.
    """
    tree = persistence.read(path, _classes)
    saved = tree["modules"]
    kinds = [type(module).__name__ for module in graph.modules]
    if kinds != [entry["class"] for entry in saved]:
        raise SavedFileError(
            f"{path}: saved from a graph of {', '.join(e['class'] for e in saved)}; this one has "
            f"{', '.join(kinds)}; use another file name"
        )
    for module, entry in zip(graph.modules, saved, strict=True):
        for name, value in module.arguments().items():
            if not persistence.same(value, entry["arguments"][name]):
                raise SavedFileError(
                    f"{path}: saved with {name}={_short(entry['arguments'][name])} in "
                    f"{module.label}, which now has {name}={_short(value)}; use the same arguments "
                    "and data, or another file name"
                )
    for module, entry in zip(graph.modules, saved, strict=True):
        if not isinstance(module, Observation):
            module.set_state(entry["state"])
    graph.history = tree["history"]
    graph.first_latents = tree["first_latents"]


def load(
    path: str | os.PathLike, data: Sequence | None, custom: dict[str, Any] | None
) -> tuple[list[Module], dict[str, Any]]:
    """The modules a file was saved from, connected and with their state; and the whole tree."""
    tree = persistence.read(path, _classes)
    classes, custom = _classes(), dict(custom or {})
    rows = iter(data if data is not None else [])
    modules: list[Module] = []
    for entry in tree["modules"]:
        if entry["class"] not in classes:
            raise SavedFileError(
                f"{path}: saved with a module of class {entry['class']}, which is not known here; "
                "import its class before Graph.load"
            )
        if issubclass(classes[entry["class"]], Observation):
            modules.append(_observation(path, entry["arguments"], data, rows))
            continue
        arguments = _with_custom(path, entry, custom)
        module = classes[entry["class"]](**arguments)
        module.connect(*(modules[i] for i in entry["parents"]))
        module.set_state(entry["state"])
        modules.append(module)
    if custom:
        raise InputError(f"{path}: custom= names {', '.join(custom)}, which the file does not need")
    return modules, tree


def _observation(path, arguments: dict[str, Any], data, rows) -> Observation:
    if data is None:
        return Observation.without_rows(**arguments)
    given = next(rows, None)
    if given is None:
        raise InputError(f"{path}: data= must hold rows for every observation")
    observation = Observation(given, name=arguments["name"])
    if observation.arguments() != arguments:
        raise SavedFileError(
            f"{path}: {observation.label} was saved with other rows, "
            f"{arguments['n_rows']} of shape {tuple(arguments['row_shape'])}; give the same rows, "
            "or leave data= out"
        )
    return observation


def _with_custom(path, entry: dict[str, Any], custom: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments, those that are code taken from what the user gives."""
    name = entry["arguments"].get("name") or entry["class"].lower()
    arguments = dict(entry["arguments"])
    for key, value in arguments.items():
        if isinstance(value, persistence.Custom):
            if f"{name}.{key}" not in custom:
                raise InputError(
                    f"{path}: {name} was made with {key}={value}, which is code and not in the "
                    f"file; give it as Graph.load(path, custom={{'{name}.{key}': ...}})"
                )
            arguments[key] = custom.pop(f"{name}.{key}")
    return arguments


def _classes() -> dict[str, type]:
    """The classes a file may name: every module imported so far, and serkit's own."""
    from . import modules as own  # imported here, so that `import serkit` alone stays light

    known: dict[str, type] = {name: getattr(own, name) for name in own.__all__}
    waiting = [Module]
    while waiting:
        kind = waiting.pop()
        known.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    return known


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""A whole graph as a tree of values for `persistence`, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, SavedFileError
from ..graph.state import keep_own, write_once
from ..messages import Data
from ..module import Module
from ..observation import Observation
from . import format

if TYPE_CHECKING:
    from ..graph.graph import Graph


Tree = dict[str, Any]


def save(path: str | os.PathLike, graph: Graph, *, stopped_before: int | None = None) -> None:
    """Write everything a graph consists of, but for the observations' rows and a user's code.

    Of several processes the first writes, the rows of all.

    Parameters
    ----------
    stopped_before : int, optional
        The rounds that were asked for, if a callback ended the training before them.

    Raises
    ------
    InputError
        For something learnt that no file can hold; the module and the attribute are named.
    """
    write_once(graph, lambda: format.write(path, _tree(graph, stopped_before)))


def _tree(graph: Graph, stopped_before: int | None) -> Tree:
    index = {id(module): i for i, module in enumerate(graph.modules)}
    modules = [
        {
            "name": name,
            "class": _class_name(type(module)),
            "arguments": {k: format.described(v) for k, v in module.arguments().items()},
            "parents": [index[id(parent)] for parent in module.parents],
            "children": [index[id(child)] for child in module.children],
            "state": _checked_state(module),
        }
        for name, module in graph.names.items()
    ]
    return {
        "modules": modules,
        "history": graph.history,
        "first_latents": graph.first_latents,
        "stopped_before": stopped_before,
    }


def _checked_state(module: Module) -> Tree:
    state = module.get_state()
    for name, value in state.items():
        try:
            format.encode(value, {})
        except format.Unsupported as error:
            raise InputError(
                f"{module.label}: {name} is {error}; keep arrays, tensors, numbers, strings, lists "
                "and dicts in attributes that end in '_'"
            ) from None
    return state


def resume(path: str | os.PathLike, graph: Graph) -> int | None:
    """Give a graph the state saved in a file, if that is further on and of the same graph and data.

    A graph that has as many rounds as the file, or more, stays as it is; whether a module is
    frozen is never changed.

    Returns
    -------
    int or None
        The rounds asked for when a callback ended the saved training, None if none did.

    Raises
    ------
    SavedFileError
        For a damaged file, or one of other modules, arguments or data; nothing is changed then.
    """
    tree = format.read(path, _serkit_classes)
    for difference in _differences(graph, tree["modules"]):
        raise SavedFileError(
            f"{path}: {difference}; use the same arguments and data, or another file name"
        )
    if len(tree["history"]) <= len(graph.history):
        return tree["stopped_before"]
    for module in graph.modules:
        module.check_shares()
    before = [dict(vars(module)) for module in graph.modules]
    try:
        for module, entry in zip(graph.modules, tree["modules"], strict=True):
            if not isinstance(module, Observation):
                module.set_state({**entry["state"], "frozen": module.frozen})
    except Exception as error:
        for known, attributes in zip(graph.modules, before, strict=True):
            vars(known).clear()
            vars(known).update(attributes)
        raise SavedFileError(
            f"{path}: what was learnt does not fit {module.label} ({error}); use the same nets, or "
            "another file name"
        ) from None
    graph.history, graph.first_latents = tree["history"], tree["first_latents"]
    keep_own(graph)
    return tree["stopped_before"]


def _differences(graph: Graph, saved: list[Tree]) -> Iterator[str]:
    """In what a graph differs from a saved one, in words."""
    kinds = [_class_name(type(module)) for module in graph.modules]
    if kinds != [entry["class"] for entry in saved]:
        names = [
            ", ".join(k.split(":")[1] for k in ks) for ks in ([e["class"] for e in saved], kinds)
        ]
        yield f"saved from a graph of {names[0]}; this one has {names[1]}"
        return
    for module, entry in zip(graph.modules, saved, strict=True):
        arguments, known = module.arguments(), entry["arguments"]
        for name in {**arguments, **known}:
            if name not in arguments or name not in known:
                yield f"{module.label} was saved by a version of its class with other arguments"
            elif not format.same(arguments[name], known[name]):
                yield (
                    f"saved with {name}={_short(known[name])} in {module.label}, which now has "
                    f"{name}={_short(arguments[name])}"
                )


def load(
    path: str | os.PathLike, data: Sequence | None, custom: Tree | None
) -> tuple[list[Module], Tree]:
    """The modules a file was saved from, connected and with their state; and the whole tree."""
    tree, custom = format.read(path, _serkit_classes), dict(custom or {})
    n_observations = sum(e["class"] == _class_name(Observation) for e in tree["modules"])
    if data is not None and len(data) != n_observations:
        raise InputError(
            f"{path}: data= must hold rows for every observation, {n_observations} in all, as in "
            f"data=[rows]; got {len(data)}"
        )
    rows = iter(data or [])
    modules: list[Module] = []
    for entry in tree["modules"]:
        if entry["class"] == _class_name(Observation):
            given = None if data is None else next(rows)
            modules.append(_observation(path, entry["arguments"], given))
            continue
        kind, arguments = _find_class(path, entry["class"]), _with_custom(path, entry, custom)
        module = kind(**arguments)
        module.connect(*(modules[i] for i in entry["parents"]))
        module.set_state(entry["state"])
        modules.append(module)
    for module, entry in zip(modules, tree["modules"], strict=True):
        module.order_children([modules[i] for i in entry["children"]])
    if custom:
        raise InputError(f"{path}: custom= names {', '.join(custom)}, which the file does not need")
    return modules, tree


def _observation(path: str | os.PathLike, arguments: Tree, rows: Any) -> Observation:
    if rows is None:
        return Observation.without_rows(**arguments)
    given = rows if isinstance(rows, Data) else Data(rows)
    options = {"lengths": arguments["lengths"], "name": arguments["name"]}
    observation = Observation(given.array, observed=given.observed, **options)
    if observation.arguments() != arguments:
        raise SavedFileError(
            f"{path}: {observation.label} was saved with other rows, "
            f"{arguments['n_rows']} of shape {tuple(arguments['row_shape'])}; give the same rows, "
            "or leave data= out"
        )
    return observation


def _with_custom(path: str | os.PathLike, entry: Tree, custom: Tree) -> Tree:
    """Constructor arguments, those that are code taken from what the user gives."""
    arguments = dict(entry["arguments"])
    for key, value in arguments.items():
        if isinstance(value, format.Custom):
            name = f"{entry['name']}.{key}"
            if name not in custom:
                raise InputError(
                    f"{path}: {entry['name']} was made with {key}={value}, which is code and not "
                    f"in the file; give it as Graph.load(path, custom={{'{name}': ...}})"
                )
            arguments[key] = custom.pop(name)
    return arguments


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _find_class(path: str | os.PathLike, name: str) -> type[Module]:
    """The module class of a saved name; elsewhere defined, one of the same own name will do."""
    known, waiting = {}, [Module]
    while waiting:
        kind = waiting.pop()
        known[_class_name(kind)] = kind
        waiting += kind.__subclasses__()
    own_name = name.split(":")[-1]
    alike = [kind for key, kind in known.items() if key.split(":")[-1] == own_name]
    if name in known:
        return known[name]
    if len(alike) == 1 and not alike[0].__module__.startswith("serkit."):
        return alike[0]
    raise SavedFileError(
        f"{path}: saved with a module of class {own_name}, which is not known here; import its "
        "class before Graph.load"
    )


def _serkit_classes() -> dict[str, type]:
    """The classes besides modules that arguments in a file may be made of."""
    from .. import modules

    kinds = (modules.RandomAffine, modules.NetClassifier, modules.NetRegressor)
    return {kind.__name__: kind for kind in kinds}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""A whole graph in a file, but for the observations' rows and a user's code, and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np

from .. import processes
from ..errors import InputError, SavedFileError, SerkitError
from ..messages import Categorical, Data, Deferred, Message
from ..module import Module, Node, Posterior, check_shares
from ..observation import Observation
from ..options import FilePath, Kind, Options, check_argument, in_words
from ..reading import check_names, keep_names, storable
from . import format

Path = str | os.PathLike
Arguments = dict[str, Any]
State = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What there is to write of a graph.

    Attributes
    ----------
    names : dict of str to Node
        Parents before children.
    history : list of dict
        An entry for each round.
    first_latents : dict of str to np.ndarray
        Latent means of each module after its first update.
    stopped_before : int or None
        The rounds that were asked for, if a callback ended the training before them.
    latents_by_round : list of dict
        What a graph has kept of its rounds, see `Graph`.
    """

    names: dict[str, Node]
    history: list[dict[str, Any]]
    first_latents: dict[str, np.ndarray]
    stopped_before: int | None = None
    latents_by_round: list[dict[str, Any]] = field(default_factory=list)

    @property
    def modules(self) -> dict[str, Module]:
        """The nodes that can learn, by name."""
        return {name: node for name, node in self.names.items() if isinstance(node, Module)}

    @property
    def learnt(self) -> dict[str, Module]:
        """The modules that have learnt something, by name."""
        return {name: module for name, module in self.modules.items() if module.history_}


@dataclass(frozen=True)
class _Entry:
    """What a file holds of one node; parents and children go by their names."""

    kind: str
    arguments: Arguments
    parents: list[str]
    children: list[str]
    state: State

    def __post_init__(self) -> None:
        types = {"kind": str, "arguments": dict, "parents": list, "children": list, "state": dict}
        for name, expected in types.items():
            if not isinstance(getattr(self, name), expected):
                raise ValueError(f"{name} is no {expected.__name__}")


# -- writing ---------------------------------------------------------------------------------------


def save(path: Path, run: Run, encoded: format.Encoded | None = None) -> None:
    """Write everything a graph consists of, but for the observations' rows and a user's code.

    For `encoded` see `serkit.saving.write`.

    Raises
    ------
    InputError
        For something learnt that no file can hold; the module and the attribute are named.
    """
    name_of = {node: name for name, node in run.names.items()}
    entries = {}
    for name, node in run.names.items():
        parents = [name_of[parent] for parent in node.parents]
        children = [name_of[child] for child in node.children if child in name_of]
        entries[name] = _entry(node, parents, children)
    _write(path, entries, list(run.modules.values()), run, encoded)


def save_object(value: Options, path: str | os.PathLike) -> None:
    """Write a module or an estimator of serkit by itself to one file, for `load_object`.

    What was given to its constructor is in it, but for code such as nets and functions, and what it
    learnt; the messages of a graph are not.

    Parameters
    ----------
    value : Module or estimator
        Such as a `VAE`, trained by ``fit(x)`` or in a graph, or a `HAC`.
    path : path

    Raises
    ------
    InputError
        For something that is no module or estimator of serkit, or has learnt what no file can hold.
    OutputError
        If the file cannot be written; an older one of that name stays whole.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.modules import GMM
    >>> gmm = GMM(2, random_state=0).fit([[0.0], [1.0], [8.0], [9.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     srk.save(gmm, f"{folder}/gmm.safetensors")
    ...     again = srk.load(f"{folder}/gmm.safetensors")
    >>> np.array_equal(again.means_, gmm.means_)
    True
    """
    check_argument("serkit.save", "path", path, FilePath())
    if not isinstance(value, Options) or isinstance(value, Observation):
        raise InputError(
            f"serkit.save: expected a module or estimator of serkit, got {value!r:.60}; a Graph "
            "has a method save"
        )
    entry = _entry(value, [], [])
    if isinstance(value, Module):
        entry.state.update(posterior=None)
        for name in ("heard_", "learnt_from_"):
            entry.state.pop(name, None)
    name = getattr(value, "name", None) or type(value).__name__.lower()
    _write(path, {name: entry}, [value], Run({}, [], {}))


def check(run: Run) -> None:
    """Raise InputError for what modules will learn, or have learnt, and no file can hold.

    So `Graph.fit` says it before training.
    """
    for module in run.modules.values():
        if not module.history_:
            _check_each(module, module.templates, "give one of scikit-learn, or fit without files")
        check_state(module)


def check_state(value: Options) -> None:
    """Raise InputError for something learnt that no file can hold."""
    remedy = "keep arrays, tensors, numbers, strings, lists and dicts in attributes that end in '_'"
    _check_each(value, format.learnt_by(value), remedy)


def _check_each(owner: Options, values: dict[str, Any], remedy: str) -> None:
    for name, value in values.items():
        try:
            format.encode(value, format.Contents())
        except format.Unsupported as error:
            raise InputError(f"{owner.label}: {name} is {error}; {remedy}") from None


def _arguments(node: Options) -> Arguments:
    """Constructor arguments; of an observation what is kept in their place."""
    if isinstance(node, Observation):
        return node.arguments()
    arguments = node.get_params(deep=False)
    if arguments.get("labels") is not None:
        arguments["labels"] = storable(arguments["labels"])
    return arguments


def _entry(value: Options, parents: list[str], children: list[str]) -> _Entry:
    """What a file holds of a module, an observation or an estimator."""
    arguments = {key: format.described(argument) for key, argument in _arguments(value).items()}
    state = {} if isinstance(value, Observation) else format.learnt_by(value)
    return _Entry(format.class_name(type(value)), arguments, parents, children, state)


def _write(
    path: Path,
    entries: dict[str, _Entry],
    learners: Sequence[Options],
    run: Run,
    encoded: format.Encoded | None = None,
) -> None:
    tree = {
        "nodes": {name: vars(entry) for name, entry in entries.items()},
        "history": run.history,
        "first_latents": run.first_latents,
        "stopped_before": run.stopped_before,
        "latents_by_round": run.latents_by_round,
    }
    try:
        format.write(path, tree, encoded)
    except format.Unsupported:
        for learner in learners:
            check_state(learner)  # which names the one it is, and what it holds
        raise


# -- going on --------------------------------------------------------------------------------------


def resume(path: Path, run: Run) -> Run:
    """Give a graph's modules what a file has of them, if that is further on, and the same graph.

    A graph that has as many rounds as the file, or more, stays as it is; whether a module is
    frozen is never changed. A warning names modules that have learnt otherwise than in the file.

    Returns
    -------
    Run
        What the graph has now; `stopped_before` is the file's in any case.

    Raises
    ------
    SavedFileError
        For a damaged file, one of other modules, arguments or data, or if updates outside of rounds
        would be lost, here or in the file; nothing is changed then.
    """
    entries, saved = _read(path)
    for difference in _differences(run, entries):
        raise SavedFileError(
            f"{path}: {difference}; use the same arguments and data, or another file name"
        )
    with _explained(f"{path}: it holds no whole histories"):
        losses = _losses(run, saved, entries)
    if losses:
        raise SavedFileError(
            f"{path}: {losses}; to go on from what is here, give another file name, and to go on "
            "from the file, make the graph anew"
        )
    if len(saved.history) <= len(run.history):
        return replace(run, stopped_before=saved.stopped_before)
    states = dict(zip(run.names, (entry.state for entry in entries.values()), strict=True))
    restored = {m: _restored(path, m, states[name]) for name, m in run.modules.items()}
    _warn_of_others(path, restored)
    for module, fresh in restored.items():
        _check_use(path, fresh, [restored.get(parent, parent) for parent in module.parents])
    for module, fresh in restored.items():
        module.__dict__.clear()
        module.__dict__.update(vars(fresh))
    return replace(saved, names=run.names)


def _losses(run: Run, saved: Run, entries: dict[str, _Entry]) -> str:
    """Updates by hand that only the side has which is not gone on from, in words; "" for none."""
    from_file = len(saved.history) > len(run.history)
    lost = []
    for (name, node), (saved_name, entry) in zip(run.names.items(), entries.items(), strict=True):
        if isinstance(node, Module):
            here = _n_by_hand(name, node.history_, run.history)
            there = _n_by_hand(saved_name, entry.state.get("history_", ()), saved.history)
            more = here - there if from_file else there - here
            lost += [f"{more} of {node.label}"] if more > 0 else []
    if lost and from_file:
        return f"to go on from it would lose updates made here by hand ({', '.join(lost)})"
    if lost:
        return f"to go on here would overwrite updates made by hand ({', '.join(lost)})"
    return ""


def _n_by_hand(name: str, updates: Sequence[dict], rounds: Sequence[dict]) -> int:
    """How many of a module's updates, or fits to arrays, were no part of a graph's rounds."""
    entries = (update for record in rounds for update in record["updates"])
    return len(updates) - sum(e["module"] == name and not e["frozen"] for e in entries)


def _warn_of_others(path: Path, restored: dict[Module, Module]) -> None:
    """Warn of modules that have learnt otherwise than those of a file that take their place."""
    others = []
    for module, fresh in restored.items():
        here, there = (
            [{**update, "seconds": None} for update in updates[: len(module.history_)]]
            for updates in (module.history_, fresh.history_)
        )
        others += [] if format.same(here, there) else [module.label]
    if others:
        warnings.warn(
            f"{path}: what it holds takes the place of what {', '.join(others)} learnt here, which "
            "was something else: by another seed, other updates or another machine",
            stacklevel=6,
        )


def _restored(path: Path, module: Module, state: State) -> Module:
    """A copy of a module, its connections included, that has learnt what a file says."""
    check_shares(module)
    fresh = type(module).__new__(type(module))
    learnt = {"posterior", *(name for name in vars(module) if name.endswith("_"))}
    fresh.__dict__.update({name: v for name, v in vars(module).items() if name not in learnt})
    with _explained(
        f"{path}: what was learnt does not fit {module.label}",
        "; use the same nets, or another file name",
    ):
        _set_state(fresh, state)
    fresh.frozen = module.frozen
    return fresh


def _differences(run: Run, entries: dict[str, _Entry]) -> Iterator[str]:
    """In what a graph differs from a saved one, in words."""
    kinds = [format.class_name(type(node)) for node in run.names.values()]
    saved_kinds = [entry.kind for entry in entries.values()]
    if kinds != saved_kinds:
        here, there = (", ".join(map(_own_name, names)) for names in (kinds, saved_kinds))
        yield f"saved from a graph of {there}; this one has {here}"
        return
    for node, entry in zip(run.names.values(), entries.values(), strict=True):
        arguments, saved = _arguments(node), entry.arguments
        for name in {**arguments, **saved}:
            if name not in arguments or name not in saved:
                yield f"{node.label} was saved by a version of its class with other arguments"
            elif not format.same(arguments[name], saved[name]):
                yield (
                    f"saved with {name}={in_words(saved[name])} in {node.label}, which now has "
                    f"{name}={in_words(arguments[name])}"
                )


def _own_name(kind: str) -> str:
    """The class itself of a saved class name."""
    return kind.replace(":", ".").rpartition(".")[2]


# -- reading ---------------------------------------------------------------------------------------


def load(path: Path, data: Sequence | None, custom: Arguments | None) -> Run:
    """Nodes like those a file was saved from, connected and with their state, and its history.

    An argument that is code, which is not in the file, stays a `format.Custom` unless it is given.

    Raises
    ------
    SavedFileError
        For a damaged file, an unknown class or other rows.
    InputError
        For data or code that the file has no place for, or if a module's state needs code that is
        not given.
    """
    entries, saved = _read(path)
    observation = format.class_name(Observation)
    if observation not in {entry.kind for entry in entries.values()}:
        raise SavedFileError(f"{path}: it holds no graph; read it with serkit.load(path)")
    _check_given(path, entries, data, custom or {})
    rows = iter(data or [])
    names: dict[str, Node] = {}
    for name, entry in entries.items():
        if entry.kind == observation:
            names[name] = _observation(path, entry, None if data is None else next(rows))
        else:
            parents = tuple(names[parent] for parent in entry.parents)
            module = _object(path, name, entry, Module, custom or {}, parents)
            names[name] = cast(Module, module)
    for name, entry in entries.items():
        names[name].children = tuple(names[child] for child in entry.children)
    for node in names.values():
        if isinstance(node, Module):
            _check_use(path, node, node.parents)
    return replace(saved, names=names)


def load_object(path: str | os.PathLike, *, custom: Arguments | None = None) -> Any:
    """Read a module or an estimator that `serkit.save` wrote; nothing in the file is executed.

    Parameters
    ----------
    path : path
    custom : dict, optional
        Code that was passed to its constructor, such as ``{"vae.encoder": net}``, by the name of
        the module, or else of its class in small letters. Code that only training needs may stay
        out.

    Raises
    ------
    SavedFileError
        For a damaged file, or one that holds a graph.
    InputError
        If code in `custom` is missing.
    """
    check_argument("serkit.load", "path", path, FilePath())
    check_argument("serkit.load", "custom", custom, Kind(dict, or_none=True))
    entries, _ = _read(path)
    kinds = [entry.kind for entry in entries.values()]
    if len(kinds) != 1 or kinds == [format.class_name(Observation)]:
        raise SavedFileError(f"{path}: it holds a graph; read it with serkit.Graph.load(path)")
    _check_given(path, entries, None, custom or {})
    ((name, entry),) = entries.items()
    return _object(path, name, entry, Options, custom or {})


@contextmanager
def _explained(problem: str, remedy: str = "") -> Iterator[None]:
    """Make a SavedFileError of whatever goes wrong: a file of others can be wrong in any way."""
    try:
        yield
    except Exception as error:
        raise SavedFileError(f"{problem} ({error}){remedy}") from error


def _read(path: str | os.PathLike) -> tuple[dict[str, _Entry], Run]:
    """What a file holds: its nodes, and the rest, which has no nodes yet."""
    tree = format.read(path)
    with _explained(f"{path}: it holds no whole graph"):
        entries = {name: _Entry(**entry) for name, entry in tree.pop("nodes").items()}
        for number, (name, entry) in enumerate(entries.items()):
            children = [child for child, other in entries.items() if name in other.parents]
            known = len({*entry.parents} & {*list(entries)[:number]}) == len(entry.parents)
            if not known or sorted(entry.children) != sorted(children):
                raise ValueError(f"{name} is connected to what is not there")
        saved = Run({}, **tree)
        if [record["round"] for record in saved.history] != [*range(1, 1 + len(saved.history))]:
            raise ValueError("its rounds are not numbered one by one")
        if not all(isinstance(latents, np.ndarray) for latents in saved.first_latents.values()):
            raise ValueError("first_latents are no arrays")
        _check_rounds(saved.latents_by_round)
        if not isinstance(saved.stopped_before, int | None):
            raise ValueError(f"stopped_before is {saved.stopped_before!r}")
    return entries, saved


def _check_rounds(rounds: Any) -> None:
    """Raise ValueError unless these are rounds as `Graph.latents_by_round` has them."""
    for kept in rounds:
        by_name = [*kept["latents"].items(), *kept["clusters"].items()]
        n_rows = len(kept["rows"])
        whole = all(isinstance(n, str) and np.shape(v)[:1] == (n_rows,) for n, v in by_name)
        if not whole or not isinstance(kept["round"], int):
            raise ValueError("latents_by_round holds no rounds")


def _check_given(
    path: Path, entries: dict[str, _Entry], data: Sequence | None, custom: Arguments
) -> None:
    """Raise InputError for data or code that the file has no place for."""
    n_observations = sum(e.kind == format.class_name(Observation) for e in entries.values())
    if data is not None and len(data) != n_observations:
        raise InputError(
            f"{path}: data= must hold rows for every observation, {n_observations} in all, as in "
            f"data=[rows]; got {len(data)}"
        )
    code = {key for name, entry in entries.items() for key in _code_in(name, entry)}
    unknown = [key for key in custom if key not in code]
    if unknown:
        raise InputError(
            f"{path}: custom= names {', '.join(unknown)}, which the file does not need"
        )


def _code_in(name: str, entry: _Entry) -> dict[str, str]:
    """Names of a node's arguments that are code, by what `Graph.load` calls them."""
    arguments = entry.arguments.items()
    return {f"{name}.{key}": key for key, v in arguments if isinstance(v, format.Custom)}


def _observation(path: Path, entry: _Entry, rows: Any) -> Observation:
    arguments = entry.arguments
    with _explained(f"{path}: it holds no whole observation"):
        saved = Observation.without_rows(**arguments)
    if rows is None:
        return saved
    message = rows if isinstance(rows, Data) else Data(rows)
    if message is not rows:
        check_names(saved, rows, saved.label)
    observation = Observation(
        message.array,
        observed=message.observed,
        lengths=saved.lengths,
        image_shape=saved.image_shape,
        name=saved.name,
    )
    keep_names(observation, getattr(saved, "feature_names_in_", None))
    if observation.arguments() != arguments:
        raise SavedFileError(
            f"{path}: {saved.label} was saved with other rows, {saved.n_rows} of shape "
            f"{saved.row_shape}; give the same rows, or leave data= out"
        )
    return observation


def _object(
    path: Path,
    name: str,
    entry: _Entry,
    base: type[Options],
    custom: Arguments,
    parents: tuple[Node, ...] = (),
) -> Options:
    """What a file has of a module or estimator; a module's children are not connected yet."""
    kind, arguments = _class_called(path, entry.kind, base), dict(entry.arguments)
    missing = []
    for code, key in _code_in(name, entry).items():
        if code in custom:
            arguments[key] = custom[code]
            continue
        missing.append(
            f"{path}: {name} was made with {key}={arguments[key]}, which is not in the file; give "
            f"it when loading, as custom={{'{code}': ...}}"
        )
        arguments[key] = format.Custom(str(arguments[key]), remedy=missing[-1])
    try:
        with _explained(f"{path}: {name} cannot be made from what the file holds"):
            made = kind(**arguments)
            if isinstance(made, Module):
                made.parents = parents
            _set_state(made, entry.state)
            return made
    except SavedFileError as error:
        if missing:
            raise InputError("; ".join(missing)) from error
        raise


def _class_called(path: Path, name: str, base: type[Options]) -> type[Options]:
    """The class of a saved name below `base`; elsewhere defined, one of the same name will do."""
    public = format.public_class(name)
    if public is not None and issubclass(public, base):
        return public
    known: dict[str, type[Options]] = {}
    waiting = [base]
    while waiting:
        kind = waiting.pop()
        known[format.class_name(kind)] = kind
        waiting += kind.__subclasses__()
    if name in known:
        return known[name]
    alike = [kind for key, kind in known.items() if _own_name(key) == _own_name(name)]
    if len(alike) == 1 and not alike[0].__module__.startswith("serkit."):
        return alike[0]
    raise SavedFileError(
        f"{path}: saved with a module of class {name.rpartition(':')[2]}, which is not known here; "
        "import its class before loading"
    )


def _set_state(made: Options, state: State) -> None:
    """Let what was made take over a state from a file, unless it can have no such state."""
    if isinstance(made, Module):
        if not isinstance(state["frozen"], bool):
            raise ValueError("frozen is neither true nor false")
        if state["posterior"] is not None:
            _check_posterior(made, state["posterior"])
    format.set_learnt(made, state)
    if not all(isinstance(record, dict) for record in getattr(made, "history_", ())):
        raise ValueError("history_ is no list of dicts")


def _check_use(path: Path, module: Module, parents: Sequence[Node]) -> None:
    """Raise SavedFileError if a module of serkit cannot infer or draw rows by what it has learnt.

    It is asked for the first rows, or for zeros. What it says is wrong with them may be so.
    """
    if not (module.history_ and type(module).__module__.startswith("serkit.")):
        return
    inputs = [_first_rows(parent) for parent in parents]
    if any(message is None for message in inputs):
        return
    rng = np.random.default_rng(0)
    infer = partial(module.infer, cast(list[Message], inputs), None)
    for use in (infer, partial(module.generate, 1, rng)):
        try:
            with processes.alone():
                use()
        except SerkitError:
            pass
        except Exception as error:
            raise SavedFileError(
                f"{path}: {module.label} can tell nothing of rows by what it holds ({error!r})"
            ) from error


def _first_rows(node: Node) -> Message | None:
    """A message of two rows at most."""
    if isinstance(node, Observation) and node.message_up is None:
        return Data(np.zeros((2, *node.row_shape), dtype=np.float32), checked=False)
    message = node.message_up
    return None if message is None else message.map_rows(lambda rows: rows[:2])


def _check_posterior(module: Module, posterior: Posterior) -> None:
    """Raise ValueError unless its parts are of the kinds that the module may have stated."""
    fits = (
        isinstance(posterior.bound, float | int | None)
        and isinstance(posterior.classes, Categorical | None)
        and all(isinstance(m, Message | None) for m in (posterior.up, *posterior.down))
        and len(posterior.down) == len(module.parents)
    )
    methods = [m.method for m in posterior.down if isinstance(m, Deferred)]
    known = (callable(getattr(module, m, None)) and not hasattr(Module, m) for m in methods)
    if not fits or not all(known):
        raise ValueError("its posterior is not one that it may have stated")

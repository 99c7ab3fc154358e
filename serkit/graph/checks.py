"""How modules hang together: finding, naming, ordering and checking them, and saying so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .. import processes
from ..errors import GraphError, InputError
from ..messages import Categorical
from ..module import Module, check_kind, check_rows, source_of_rows
from ..observation import Observation

_FOLDER_NAME = re.compile(r"\w[\w .-]*")


def find_modules(leaves: Sequence[Module]) -> list[Module]:
    """Every module connected to the leaves, upwards or downwards, parents before children.

    Raises
    ------
    GraphError
        For no leaves, something that is not a module, or a module without parents that is not an
        Observation.
    """
    if not leaves:
        raise GraphError("Graph() needs at least one module, for example Graph(gmm)")
    waiting, found = list(leaves), []
    while waiting:
        module = waiting.pop()
        if not isinstance(module, Module):
            raise GraphError(f"Graph() takes serkit modules, got a {type(module).__name__}")
        if module not in found:
            found.append(module)
            waiting += [*module.parents, *module.children]
    for module in found:
        if not module.parents and not isinstance(module, Observation):
            raise GraphError(
                f"{module.label} is not connected to anything below it: call connect(parent) first"
            )
    return _ordered([*leaves, *(module for module in found if module not in leaves)])


def _ordered(modules: list[Module]) -> list[Module]:
    """Each once, parents before children; at equal depth, as the leaves and parents are given."""

    def depth(module: Module) -> int:
        return 1 + max(map(depth, module.parents), default=-1)

    roots = [m for leaf in modules for m in (*leaf.ancestors(), leaf)]
    first_met = {id(m): i for i, m in reversed(list(enumerate(roots)))}
    unique = dict.fromkeys(modules)
    return sorted(unique, key=lambda m: (depth(m), first_met[id(m)]))


def name_modules(modules: Sequence[Module]) -> dict[str, Module]:
    """A distinct name a module: its own or its class's, numbered from 2 on where it repeats.

    Raises
    ------
    InputError
        For a name that cannot be that of a folder, as `Graph.fit(out=...)` needs it.
    """
    names: dict[str, Module] = {}
    for module in modules:
        given = module.name
        if given is not None and not (isinstance(given, str) and _FOLDER_NAME.fullmatch(given)):
            raise InputError(
                f"{type(module).__name__}: name={given!r} must be letters, digits, spaces, '_', "
                "'-' or '.', and begin with a letter or digit"
            )
        base = name = module.name or type(module).__name__.lower()
        number = 2
        while name in names:
            name, number = f"{base}{number}", number + 1
        names[name] = module
    return names


def check_modules(modules: Sequence[Module]) -> None:
    """Check every edge and every module's options before any training.

    Raises
    ------
    GraphError
        For a kind of message that its receiver does not take, children that send different kinds,
        numbers of classes that differ, or a parent outside the graph.
    SerkitError
        Whatever a module's own `check` raises, such as InputError for labels of a wrong length.
    """
    for module in modules:
        for parent in module.parents:
            if parent not in modules:
                raise GraphError(
                    f"{module.label} was connected to {parent.label} after this graph was made; "
                    "make a new Graph"
                )
            check_kind(parent, parent.sends_up, module.takes_from_parents, module)
            sent = module.sends_down_to(parent)
            if sent is not None:
                check_kind(module, sent, parent.takes_from_children, parent)
            _check_classes(parent, module)
        _check_children(module)
    _check_rows(modules)


def _check_rows(modules: Sequence[Module]) -> None:
    """Follow the numbers of rows upwards, and check each module's options against them."""
    sent: dict[int, int] = {}
    for module in modules:
        if isinstance(module, Observation):
            module.check([], 0)
            sent[id(module)] = module.n_rows
            continue
        check_rows(module.parents, [sent[id(parent)] for parent in module.parents])
        _check_parts(module)
        n_rows = sent[id(module.parents[0])]
        module.check_frozen()
        module.check_shares()
        module.check([parent.message_up for parent in module.parents], n_rows)
        sent[id(module)] = module.rows_sent(n_rows)


def _check_parts(module: Module) -> None:
    """Observations that are read side by side must be cut alike where processes share rows."""
    if processes.count() == 1:
        return
    sources = [source_of_rows(parent) for parent in module.parents]
    parts = {(s.part.start, s.part.stop) for s in sources if isinstance(s, Observation)}
    if len(parts) > 1:
        listed = ", ".join(source.label for source in sources)
        raise InputError(f"rows of {listed} are cut differently; give each the same lengths=...")


def _check_children(module: Module) -> None:
    """Their messages are multiplied, so they must be of one kind; an observation has no use."""
    kinds = {child.label: child.sends_down_to(module) for child in module.children}
    sent = {label: kind for label, kind in kinds.items() if kind is not None}
    if isinstance(module, Observation) or len(set(sent.values())) < 2:
        return
    listed = ", ".join(f"{label} sends {kind.__name__}" for label, kind in sent.items())
    raise GraphError(
        f"the children of {module.label} must send it the same kind of message, but {listed}"
    )


def _check_classes(parent: Module, child: Module) -> None:
    both = child.sends_down_to(parent) is Categorical and parent.sends_up is Categorical
    known = child.backward_size is not None and parent.size is not None
    if both and known and parent.size != child.backward_size:
        raise GraphError(
            f"{child.label} works with K={child.backward_size} classes, but its parent "
            f"{parent.label} has K={parent.size}; make them equal"
        )


def describe(names: dict[str, Module]) -> str:
    """A table: module, parents, messages up and down with their shapes, learnt or frozen."""
    name_of = {id(module): name for name, module in names.items()}
    rows = [("module", "class", "parents", "sends up", "sends down", "state")]
    for name, module in names.items():
        parents = ", ".join(name_of[id(p)] for p in module.parents) or "-"
        down = module.messages_down[0] if module.messages_down else None
        kind_down = module.sends_down_to(module.parents[0]) if module.parents else None
        rows.append(
            (
                name,
                type(module).__name__,
                parents,
                _sent(module.sends_up, module.message_up, module.size),
                _sent(kind_down, down, None),
                _state(module),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _sent(kind: type | None, message: object, size: int | None) -> str:
    if kind is None:
        return "-"
    if message is None:
        return f"{kind.__name__}(N, {size or '?'})"
    return f"{type(message).__name__}({', '.join(map(str, (message.n_rows, *message.shape)))})"


def _state(module: Module) -> str:
    if isinstance(module, Observation):
        return "data"
    state = f"learnt, {len(module.history_)} updates" if module.history_ else "new"
    return f"{state}, frozen" if module.frozen else state


def mermaid(names: dict[str, Module]) -> str:
    """The graph as Mermaid text, for a README: up arrows solid, down arrows dotted."""
    name_of = {id(module): _node(name) for name, module in names.items()}
    lines = ["graph BT"]
    for name, module in names.items():
        caption = type(module).__name__ + ("" if module.size is None else f" ({module.size})")
        lines.append(f'    {_node(name)}["{name}: {caption}"]')
    for module in names.values():
        name = name_of[id(module)]
        for parent in module.parents:
            below = name_of[id(parent)]
            lines.append(f"    {below} -->|{parent.sends_up.__name__}| {name}")
            sent = module.sends_down_to(parent)
            if sent is not None:
                lines.append(f"    {name} -.->|{sent.__name__}| {below}")
    return "\n".join(lines)


def _node(name: str) -> str:
    """A name as Mermaid's node identifiers allow it."""
    return re.sub(r"\W", "_", name)

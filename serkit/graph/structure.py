"""The nodes of a graph: found, put in order, named, and described in words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

from ..errors import GraphError, InputError
from ..markup import Markup, element, fragment
from ..module import Module, Node, box_of, description_of
from ..observation import Observation

_FOLDER_NAME = re.compile(r"\w[\w .-]*")


def find_nodes(leaves: Sequence[Node]) -> list[Node]:
    """The leaves and everything below them, parents before children.

    Nodes of equal depth stand in the order in which the leaves and their parents name them.
    """
    if not leaves:
        raise GraphError("Graph() needs at least one module, for example Graph(gmm)")
    for leaf in leaves:
        if not isinstance(leaf, Node):
            raise GraphError(f"Graph() takes serkit modules, got a {type(leaf).__name__}")
    nodes = dict.fromkeys(node for leaf in leaves for node in (*leaf.ancestors(), leaf))
    for node in nodes:
        if not node.parents and not isinstance(node, Observation):
            raise GraphError(
                f"{node.label} is not connected to anything below it: call connect(parent) first"
            )
    return sorted(nodes, key=_depth)


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, node.parents), default=-1)


def name_nodes(nodes: Iterable[Node]) -> dict[str, Node]:
    """A distinct name for each node: its own or its class's, numbered from 2 where it repeats.

    `InputError` for a name that cannot be that of a folder, as `Graph.fit(out=...)` needs it.
    """
    names: dict[str, Node] = {}
    for node in nodes:
        name = type(node).__name__.lower() if node.name is None else node.name
        if not (isinstance(name, str) and _FOLDER_NAME.fullmatch(name)):
            raise InputError(
                f"{type(node).__name__}: name={name!r:.60} must be letters, digits, spaces, '_', "
                "'-' or '.', and begin with a letter or digit"
            )
        distinct, number = name, 2
        while distinct in names:
            distinct, number = f"{name}{number}", number + 1
        names[distinct] = node
    return names


def warn_of_unheard(nodes: Sequence[Node]) -> None:
    """Warn of modules that are connected to a graph's nodes but not in it, all in one warning."""
    unheard = [
        f"{child.label} (connected to {node.label})"
        for node in nodes
        for child in node.children
        if child not in nodes and isinstance(node, Module)
    ]
    if unheard:
        warnings.warn(
            f"not in this graph, and not heard by it: {', '.join(unheard)}; a graph is its leaves "
            "and what is below them. Name further leaves, as in Graph(gmm, mlda), or disconnect() "
            "what is no longer wanted",
            stacklevel=3,
        )


def describe(names: dict[str, Node]) -> str:
    """A table: module, parents, messages up and down with their shapes, learnt or frozen."""
    rows = cells(names)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def cells(names: dict[str, Node]) -> list[tuple[str, ...]]:
    """What the table says: titles of its columns, then a line for each node."""
    name_of = {node: name for name, node in names.items()}
    rows: list[tuple[str, ...]]
    rows = [("module", "class", "parents", "sends up", "sends down", "state")]
    for name, node in names.items():
        parents = ", ".join(name_of.get(parent, "?") for parent in node.parents) or "-"
        kind, *others = description_of(node).values()
        rows.append((name, kind, parents, *others))
    return rows


def diagram(names: dict[str, Node]) -> Markup:
    """The graph for notebooks, the data on top: a box a node, which opens with a click."""
    name_of = {node: name for name, node in names.items()}
    levels: dict[int, list[Markup]] = {}
    for name, node in names.items():
        below = [(parent, name_of.get(parent, "?")) for parent in node.parents]
        says = ", ".join(f"{p.sends_up.__name__} of {n}" for p, n in below if p.sends_up)
        hears = {"hears": says} if says else {}
        levels.setdefault(_depth(node), []).append(box_of(node, name, **hears))
    rows = (element("div", *boxes, class_="level") for _, boxes in sorted(levels.items()))
    return fragment(element("div", *rows, class_="diagram"))


def mermaid(names: dict[str, Node]) -> str:
    """The graph as Mermaid text, for a README: up arrows solid, down arrows dotted."""
    identifier = {node: re.sub(r"\W", "_", name) for name, node in names.items()}
    lines = ["graph BT"]
    for name, node in names.items():
        size = "" if node.n_outputs is None else f" ({node.n_outputs})"
        lines.append(f'    {identifier[node]}["{name}: {type(node).__name__}{size}"]')
    for node in names.values():
        for parent in node.parents:
            below, above = identifier[parent], identifier[node]
            if parent.sends_up is not None:
                lines.append(f"    {below} -->|{parent.sends_up.__name__}| {above}")
            kind = node.sends_down_to(parent) if isinstance(node, Module) else None
            if kind is not None:
                lines.append(f"    {above} -.->|{kind.__name__}| {below}")
    return "\n".join(lines)

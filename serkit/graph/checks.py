"""What is checked of a graph before any training: every edge, every option, the numbers of rows."""

from __future__ import annotations

from collections.abc import Sequence

from .. import processes
from ..errors import GraphError, InputError, NotReadyError
from ..module import (
    WITHOUT_ROWS,
    Module,
    Node,
    check_kind,
    check_ready,
    check_rows,
    source_of_rows,
)
from ..observation import Observation


def check_nodes(nodes: Sequence[Node]) -> None:
    """Check every edge and every module's options, so that errors come before any training.

    Raises
    ------
    GraphError
        For a kind of message that its receiver does not take, children that send different kinds,
        or a parent outside the graph.
    SerkitError
        Whatever a module's own `check` raises, such as InputError for labels of a wrong length.
    """
    modules = [node for node in nodes if isinstance(node, Module)]
    for module in modules:
        for parent in module.parents:
            if parent not in nodes:
                raise GraphError(
                    f"{module.label} was connected to {parent.label} after this graph was made; "
                    "make a new Graph"
                )
            check_kind(parent, parent.sends_up, module.takes_from_parents, module)
            kind = module.sends_down_to(parent)
            if kind is not None:
                check_kind(module, kind, parent.takes_from_children, parent)
    for parent in modules:
        _check_children(parent, [module for module in modules if parent in module.parents])
    _check_rows(nodes)


def _check_children(parent: Module, children: Sequence[Module]) -> None:
    """Raise GraphError unless the children's messages, which are multiplied, are of one kind."""
    kinds = {child.label: child.sends_down_to(parent) for child in children}
    names = {label: kind.__name__ for label, kind in kinds.items() if kind is not None}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{label} sends {kind}" for label, kind in names.items())
        raise GraphError(
            f"the children of {parent.label} must send it the same kind of message, but {listed}"
        )


def _check_rows(nodes: Sequence[Node]) -> None:
    """Check numbers of rows, parents first, and each module's options against them."""
    n_rows: dict[Node, int] = {}
    for node in nodes:
        if isinstance(node, Observation):
            if node.data is None:
                raise NotReadyError(f"{node.label}: {WITHOUT_ROWS}")
            n_rows[node] = node.n_rows
        elif isinstance(node, Module):
            if not node.parents:
                raise GraphError(
                    f"{node.label} was disconnected after this graph was made; connect it again, "
                    "or make a new Graph"
                )
            check_rows(node.parents, [n_rows[parent] for parent in node.parents])
            _check_same_shares(node)
            below = n_rows[node.parents[0]]
            check_ready(node, [parent.message_up for parent in node.parents], below)
            n_rows[node] = node.rows_sent(below)


def _check_same_shares(module: Module) -> None:
    """Raise InputError unless parents' rows are cut alike, where processes share them."""
    sources = [source_of_rows(parent) for parent in module.parents]
    shares = {(s.share.start, s.share.stop) for s in sources if isinstance(s, Observation)}
    if processes.count() > 1 and len(shares) > 1:
        listed = ", ".join(source.label for source in sources)
        raise InputError(f"rows of {listed} are cut differently; give each the same lengths=...")

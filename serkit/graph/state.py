"""What modules keep for each row: from all processes to the first, which writes, and back.

With a single process nothing is moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import processes
from ..module import Module, source_of_rows

if TYPE_CHECKING:
    from .graph import Graph


RowFunction = Callable[[np.ndarray], np.ndarray]


def write_once(graph: Graph, write: Callable[[], None]) -> None:
    """Call `write` in the first process, where the modules hold the rows of all meanwhile."""
    if processes.count() == 1:
        write()
        return
    for observation in graph.observations:
        observation.fingerprint()  # which is of all rows, and kept
    before = [dict(vars(module)) for module in graph.modules]
    latents = graph.first_latents
    try:
        for module in graph.modules:
            vars(module).update(_apply(module, processes.gather_first))
        graph.first_latents = {k: processes.gather_first(z) for k, z in latents.items()}
        if processes.is_first():
            with processes.alone():
                write()
    finally:
        for module, attributes in zip(graph.modules, before, strict=True):
            vars(module).clear()
            vars(module).update(attributes)
        graph.first_latents = latents
    processes.total(0.0)  # nobody goes on before it is written


def keep_own(graph: Graph) -> None:
    """Of modules that hold all rows, keep those that this process works on."""
    if processes.count() == 1:
        return
    for module in graph.modules:
        vars(module).update(_apply(module, _share_of(module)))
    graph.first_latents = {
        name: _share_of(graph[name])(z) for name, z in graph.first_latents.items()
    }


def _share_of(module: Module) -> RowFunction:
    source = source_of_rows(module)
    source.check_shares()
    part = source.part
    return lambda rows: rows[part].copy()


def _apply(module: Module, function: RowFunction) -> dict[str, Any]:
    """The attributes with a row a data row, a function applied to them; not of observations."""
    if not module.parents:
        return {}
    forward = module.message_up
    kept = {
        "message_up": None if forward is None else forward.map_rows(function),
        "messages_down": tuple(
            None if message is None else message.map_rows(function)
            for message in module.messages_down
        ),
    }
    learnt = [name for name in module.row_attributes if hasattr(module, name)]
    return kept | {name: function(getattr(module, name)) for name in learnt}

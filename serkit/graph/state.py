"""Rows that modules keep: gathered from all processes for writing, cut into shares after reading.

A single process holds all rows anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .. import arrays, processes
from ..messages import Gaussian, Message
from ..module import Module, Node, bound_of, check_shares, source_of_rows
from ..observation import Observation
from ..saving.snapshot import Run

_MOST_KEPT = 2000  # rows whose latents are kept by round

RowFunction = Callable[[np.ndarray], np.ndarray]


def write_once(run: Run, write: Callable[[Run], None]) -> None:
    """Call `write` in the first process, whose modules hold the rows of all while it runs."""
    if processes.count() == 1:
        write(run)
        return
    for node in run.names.values():
        if isinstance(node, Observation):
            node.fingerprint()  # a sum over all processes, made once
    before = {module: dict(vars(module)) for module in run.modules.values()}
    try:
        for module in before:
            module.__dict__.update(_applied(module, processes.gather_first))
        latents = {name: processes.gather_first(z) for name, z in run.first_latents.items()}
        if processes.is_first():
            with processes.alone():
                write(replace(run, first_latents=latents))
    finally:
        for module, attributes in before.items():
            module.__dict__.clear()
            module.__dict__.update(attributes)
    processes.total(0.0)  # nobody goes on before it is written


def keep_share(run: Run) -> Run:
    """Cut the rows that a graph's modules hold down to this process's share."""
    if processes.count() == 1:
        return run
    for module in run.modules.values():
        module.__dict__.update(_applied(module, _share_of(module)))
    latents = {name: _share_of(run.names[name])(z) for name, z in run.first_latents.items()}
    return replace(run, first_latents=latents)


def kept_of(names: dict[str, Node], before: np.ndarray | None) -> dict[str, Any]:
    """Latents and clusters of some rows of all processes, see `Graph.latents_by_round`.

    `before` are the numbers of the rows that were kept last, which stay the same array while these
    stay the same rows, so that files hold it once.
    """
    source = next(node for node in names.values() if isinstance(node, Observation))
    rows = arrays.some_rows(source.n_rows, _MOST_KEPT)
    rows = before if before is not None and np.array_equal(before, rows) else rows
    share = source.share
    own = rows[(rows >= share.start) & (rows < share.stop)] - share.start
    kept: dict[str, Any] = {"rows": rows, "latents": {}, "clusters": {}}
    for name, node in names.items():
        below = source_of_rows(node)
        is_same = isinstance(below, Observation) and below.share == share
        if isinstance(node, Module) and node.posterior is not None and is_same:
            up, clusters = node.posterior.up, node.posterior.clusters
            if isinstance(up, Gaussian):
                kept["latents"][name] = processes.gather(up.mean[own])
            if clusters is not None:
                kept["clusters"][name] = processes.gather(clusters[own])
    return kept


def _share_of(node: Node) -> RowFunction:
    """A function that cuts rows of all processes down to this process's share."""
    share = _source(node).share
    return lambda rows: rows[share].copy()


def _source(node: Node) -> Observation:
    """The observation that a node's rows come from, row for row."""
    source = source_of_rows(node)
    if isinstance(source, Module):
        check_shares(source)  # which refuses it, as it puts rows together
    assert isinstance(source, Observation)
    return source


def _applied(module: Module, function: RowFunction) -> dict[str, Any]:
    """A function applied to those of a module's attributes that hold a row per data row."""
    names = [name for name in module.row_attributes if hasattr(module, name)]
    changed: dict[str, Any] = {name: function(getattr(module, name)) for name in names}
    posterior = module.posterior
    if posterior is not None:
        share = _source(module).share
        bound = bound_of(posterior)
        changed["posterior"] = replace(
            posterior,
            up=_mapped(posterior.up, function),
            down=tuple(_mapped(message, function) for message in posterior.down),
            bound=None if bound is None else processes.mean(bound, share.stop - share.start),
            classes=_mapped(posterior.classes, function),
        )
    return changed


def _mapped(message: Message | None, function: RowFunction) -> Any:
    return None if message is None else message.map_rows(function)

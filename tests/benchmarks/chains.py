"""Forward-backward beside hmmlearn's, on the same evidence."""

from __future__ import annotations

import numpy as np
from hmmlearn import _hmmc

from serkit.modules.sequence import chains
from serkit.modules.sequence.chains import Chain

from . import table

_CLASSES, _REPEATS = 10, 3


def forward_backward(_: int, quick: bool = False) -> None:
    """One pass over 1,000,000 rows, K = 10; target: under 5 seconds on two cores.

    hmmlearn's compiled loops do the same three things: forward, backward, expected transitions.
    The last rows of the table are the worst case: evidence of hundreds of nats with forbidden
    transitions, where factors underflow that still decide which path is possible.
    """
    n_rows, rng = 1000 if quick else 1_000_000, np.random.default_rng(0)
    initial = np.full(_CLASSES, 1 / _CLASSES)
    dense = rng.dirichlet(np.ones(_CLASSES), _CLASSES)
    onwards = np.triu(dense) / np.triu(dense).sum(axis=1, keepdims=True)
    cases = {
        "one sequence": (dense, 1.0, n_rows),
        "sequences of 100": (dense, 1.0, 100),
        "evidence of hundreds of nats": (dense, 300.0, 100),
        "forbidden transitions": (onwards, 1.0, 100),
        "both": (onwards, 300.0, 100),
    }
    rows = []
    for name, (transition, scale, length) in cases.items():
        evidence = scale * rng.standard_normal((n_rows, _CLASSES))
        chain, starts = Chain(transition, initial), np.arange(n_rows) % length == 0
        calls = [
            lambda e=evidence, c=chain, s=starts: chains.forward_backward(e, c, s),
            lambda e=evidence, c=chain, n=length: _hmmlearns(e, c, n),
        ]
        ours, theirs = table.in_turn(calls, _REPEATS)
        rows.append((name, table.spread(ours, 2), table.spread(theirs, 2)))
    header = ["rows", "serkit, seconds", "hmmlearn, seconds"]
    table.show(f"Forward-backward, {n_rows:,} rows, K = {_CLASSES}", header, rows)


def _hmmlearns(evidence: np.ndarray, chain: Chain, length: int) -> None:
    for sequence in evidence.reshape(-1, length, _CLASSES):
        _, forward = _hmmc.forward_log(chain.initial, chain.transition, sequence)
        backward = _hmmc.backward_log(chain.initial, chain.transition, sequence)
        _hmmc.compute_log_xi_sum(forward, chain.transition, backward, sequence)

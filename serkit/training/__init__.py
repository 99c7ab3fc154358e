"""What `Graph.fit` calls while it trains: callbacks, and loggers, which keep what they hear."""

from . import loggers
from .callbacks import (
    Callback,
    Progress,
    Report,
    StopOnTolerance,
    TrainedGraph,
    as_callbacks,
    clusters_of,
    exchange_diagnostics,
)
from .callbacks import Record as Record

__all__ = [
    "Callback",
    "Progress",
    "Report",
    "StopOnTolerance",
    "TrainedGraph",
    "as_callbacks",
    "clusters_of",
    "exchange_diagnostics",
    "loggers",
]

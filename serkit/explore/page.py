"""A page that shows a trained graph in a browser: one file, with no server and no network."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from .. import processes
from ..colours import COLOURS
from ..errors import InputError
from ..options import Count, FilePath, Kind, Text, check_argument
from ..saving import write_atomically
from ..saving.snapshot import Run
from .contents import Contents, Recognise, Reconstruct, Shown, of_new, of_training
from .nets import Nets
from .packing import Blob, compressed
from .runtime import Runtime

SYMBOLS = ("circle", "diamond", "square", "cross", "x")  # of each ten classes

MOST_ROWS = 10_000
_LABEL = "Graph.explore"


def write(
    path: str | os.PathLike,
    run: Run,
    recognise: Recognise,
    reconstruct: Reconstruct,
    *,
    rows: Sequence | None = None,
    labels: ArrayLike | None = None,
    columns: Mapping[str, ArrayLike] | None = None,
    max_rows: int = MOST_ROWS,
    title: str | None = None,
    runtime: str | os.PathLike | None = None,
) -> Path:
    """Write the page of a graph, see `serkit.Graph.explore`.

    `recognise` and `reconstruct` are what the graph infers of rows of each observation, by module
    and by observation.
    """
    check_argument(_LABEL, "path", path, FilePath())
    check_argument(_LABEL, "rows", rows, Kind(Sequence, or_none=True))
    check_argument(_LABEL, "columns", columns, Kind(Mapping, or_none=True))
    check_argument(_LABEL, "max_rows", max_rows, Count())
    check_argument(_LABEL, "title", title, Text(or_none=True))
    check_argument(_LABEL, "runtime", runtime, FilePath(or_none=True))
    if processes.count() > 1:
        raise InputError(
            f"{_LABEL}: {processes.count()} processes share the rows; save the graph, and make the "
            "page of it in one process: serkit explore graph.safetensors --rows rows.npy"
        )
    plotly = _plotly()
    of_rows: Callable[..., Shown]
    of_rows = partial(of_new, rows=rows, recognise=recognise) if rows is not None else of_training
    shown = of_rows(run, most=max_rows)
    blob = Blob()
    ort = None if runtime is None else Runtime(Path(runtime))
    nets = Nets(run.names, blob, ort)
    ends = (recognise, reconstruct)
    made = Contents(run, shown, blob, nets, *ends, labels, columns or {}).json()
    made["style"] = {"colours": COLOURS, "symbols": SYMBOLS}
    top = [name for name, node in run.names.items() if node.parents]
    name = title or " - ".join(top) or "graph"
    target = Path(path)
    needed = ort is not None and any(
        "onnx" in (space[net] or {}) for space in made["spaces"] for net in ("decoder", "encoder")
    )
    texts = ort.texts() if ort is not None and needed else {}
    write_atomically(target, _page(name, made, blob, plotly, texts).encode())
    return target


def _page(
    title: str, contents: dict[str, Any], blob: Blob, plotly: str, runtime: dict[str, str]
) -> str:
    """The page as text."""
    parts = {
        "ort": runtime.get("ort", ""),
        "wasm": runtime.get("wasm", ""),
        "title": html.escape(title),
        "css": _source("page.css"),
        "contents": json.dumps(contents, allow_nan=False).replace("<", "\\u003c"),
        "blob": blob.text(),
        "plotly": compressed(plotly.encode()),
        "layers": _source("layers.js"),
        "script": _source("page.js"),
    }
    pieces = _source("page.html").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled.append(parts[name] + rest)
    return "".join(filled)


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _plotly() -> str:
    """The text of plotly.js, out of the package that is installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ImportError(
            f"{_LABEL} needs plotly, whose script the page contains: "
            "pip install '.[interactive]' in serkit's checkout"
        ) from None
    return get_plotlyjs()

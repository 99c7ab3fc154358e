"""The command `serkit`: what can be done with saved graphs without a script.

serkit explore graph.safetensors --rows rows.npy --out page.html
serkit report runs/* --out comparison.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import InputError, SerkitError
from .graph import Graph, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 after a line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="serkit", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for add in (_add_explore, _add_report):
        add(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (SerkitError, ImportError) as error:
        print(f"serkit: {error}", file=sys.stderr)
        return 1
    return 0


# -- explore ---------------------------------------------------------------------------------------


def _add_explore(commands: argparse._SubParsersAction) -> None:
    text = "write a page that shows a saved graph in a browser"
    parser = commands.add_parser("explore", help=text, description=f"{text}, see Graph.explore")
    parser.add_argument("graph", type=Path, help="file that Graph.save wrote")
    parser.add_argument(
        "--rows",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help=".npy file of rows, once for each observation, in their order; .npz: its first array",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help=".npy file of true classes")
    parser.add_argument("--out", type=Path, help="the page; beside the graph unless given")
    parser.add_argument("--max-rows", type=int, default=10_000, help="rows that are shown at most")
    parser.add_argument("--title", help="of the page")
    parser.add_argument("--runtime", type=Path, help="folder with onnxruntime-web, for other nets")
    parser.set_defaults(run=_explore)


def _explore(chosen: argparse.Namespace) -> None:
    rows = [_array_of(path) for path in chosen.rows]
    graph = Graph.load(chosen.graph)
    page = graph.explore(
        chosen.out or chosen.graph.with_suffix(".html"),
        rows=rows,
        labels=None if chosen.labels is None else _array_of(chosen.labels),
        max_rows=chosen.max_rows,
        title=chosen.title,
        runtime=chosen.runtime,
    )
    print(page)


def _array_of(path: Path) -> np.ndarray:
    """The array in a file of NumPy's; nothing in it is executed."""
    try:
        content = np.load(path, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else content[content.files[0]]
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise InputError(
            f"{path}: no array can be read from it ({error}); numpy.save writes one"
        ) from None


# -- report ----------------------------------------------------------------------------------------


def _add_report(commands: argparse._SubParsersAction) -> None:
    text = "write a page that compares runs"
    parser = commands.add_parser("report", help=text, description=text)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="FOLDER", help="that Graph.fit(out=...) wrote"
    )
    parser.add_argument("--out", type=Path, help="the page; beside the folders unless given")
    parser.set_defaults(run=_report)


def _report(chosen: argparse.Namespace) -> None:
    print(report.compare(chosen.runs, chosen.out or chosen.runs[0].parent / "comparison.html"))

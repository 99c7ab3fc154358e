"""The command `serkit`: graphs trained, used and shown without a script.

serkit run graph.yaml --set fit.rounds=3
serkit predict graph.safetensors --rows rows.npy --out predictions.csv
serkit explore graph.safetensors --rows rows.npy --out page.html
serkit report runs/* --out comparison.html
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets, training
from .errors import InputError, OutputError, SerkitError
from .graph import Graph, report
from .options import Choice, Count, FilePath, Kind, Several, Text, check_argument, in_words
from .training import Callback, Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 after a line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="serkit", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for add in (_add_run, _add_predict, _add_explore, _add_report):
        add(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (SerkitError, ImportError) as error:
        print(f"serkit: {error}", file=sys.stderr)
        return 1
    return 0


# -- run -------------------------------------------------------------------------------------------

_SECTIONS = ("data", "graph", "fit", "random_state", "save")
_FIT = (
    "rounds",
    "schedule",
    "callbacks",
    "checkpoint",
    "out",
    "out_each_round",
    "restarts",
    "choose",
    "keep_latents",
)


def _add_run(commands: argparse._SubParsersAction) -> None:
    text = "train the graph that a file describes"
    parser = commands.add_parser("run", help=text, description=f"{text}, see Graph.from_spec")
    parser.add_argument("file", type=Path, help=".yaml or .json: data, graph, fit, save")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PLACE=VALUE",
        help="another value, such as fit.rounds=3 or graph.modules.gmm.arguments.n_components=8",
    )
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> None:
    content = _section(f"{chosen.file}", _content_of(chosen.file))
    for change in chosen.set:
        _set(content, change)
    content = _section(f"{chosen.file}", content, *_SECTIONS)
    data = {
        name: _array(f"data.{name}", entry)
        for name, entry in _section("data", content.get("data", {})).items()
    }
    fit = _section("fit", content.get("fit", {}), *_FIT)
    several = fit.pop("callbacks", [])
    check_argument("fit", "callbacks", several, Kind(list))
    callbacks = [_callback(entry) for entry in several]
    path = content.get("save")
    check_argument("save", "path", path, FilePath(or_none=True))
    graph = Graph.from_spec(
        content.get("graph", {}), data, random_state=content.get("random_state")
    )
    print(graph, "\n", flush=True)
    start = time.perf_counter()
    graph.fit(**fit, callbacks=[*callbacks, Report()], verbose=False)
    print(f"{time.perf_counter() - start:.0f} seconds")
    for line in _accuracies(graph):
        print(line)
    if path is not None:
        graph.save(path)
        print(f"saved: {path}")
    if fit.get("out") is not None:
        print(f"open in a browser: {Path(fit['out']) / 'report.html'}")


def _section(where: str, value: Any, *known: str) -> dict[str, Any]:
    """A dict of a file; InputError for anything else, or an unknown key where some are known."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected names with values, got {in_words(value)}")
    for key in value if known else ():
        check_argument(where, "key", key, Choice(*known))
    return dict(value)


def _content_of(path: Path) -> Any:
    """What a file of YAML or JSON holds; InputError, which names it, if it is none."""
    try:
        text = path.read_text("utf-8")
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_without_repeats)
        return _from_yaml(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: it cannot be read ({error})") from None


def _without_repeats(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict; ValueError for a key that is there twice, of which a file would lose one."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]!r} is there twice")
    return dict(pairs)


def _from_yaml(text: str) -> Any:
    """Plain values of YAML; ValueError for what is none. ``1e-3`` is a number, as in JSON."""
    try:
        import yaml
    except ImportError:
        raise ImportError(
            "files of YAML need PyYAML: pip install '.[yaml]' in serkit's checkout; those of JSON "
            "do not"
        ) from None

    class Loader(yaml.SafeLoader):
        """Plain values only."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            """A dict without a key that is there twice."""
            _without_repeats([(key.value, None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, [*"-+0123456789"])
    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _set(content: dict[str, Any], change: str) -> None:
    """Put another value into the content of a file: ``fit.rounds=3``."""
    place, sign, text = change.partition("=")
    *above, last = place.split(".")
    if not sign or not last:
        raise InputError(f"--set: expected PLACE=VALUE, such as fit.rounds=3, got {change!r}")
    inner: Any = content
    for key in above:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise InputError(f"--set: there is no place {place!r}")
    try:
        inner[last] = json.loads(text)
    except ValueError:
        inner[last] = text  # a word


def _callback(entry: Any) -> Callback:
    """A callback of serkit.training, by ``class`` and ``arguments``."""
    entry = _section("fit.callbacks", entry, "class", "arguments")
    kinds = {name: getattr(training, name) for name in training.__all__}
    kinds |= {name: getattr(training.loggers, name) for name in training.loggers.__all__}
    known = {
        n for n, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Callback)
    }
    check_argument("fit.callbacks", "class", entry.get("class"), Choice(*sorted(known)))
    arguments = _section("fit.callbacks.arguments", entry.get("arguments") or {})
    try:
        return kinds[entry["class"]](**arguments)
    except TypeError as error:
        raise InputError(f"fit.callbacks: {entry['class']}: {error}") from None


def _accuracies(graph: Graph) -> list[str]:
    """A line for each module that is scored: after the first round, and after the last."""
    frozen, joint = (
        {u["module"]: u["accuracy"] for u in record["updates"] if "accuracy" in u}
        for record in (graph.history[0], graph.history[-1])
    )
    return [
        f"accuracy of {name}: {frozen.get(name, np.nan):.3f} after the first round, "
        f"{value:.3f} after the last"
        for name, value in joint.items()
    ]


# -- arrays ----------------------------------------------------------------------------------------


def _array(where: str, entry: Any) -> np.ndarray:
    """An array that a file describes: the path of a file, or ``file`` or ``set`` and what of it."""
    entry = {"file": entry} if isinstance(entry, str) else entry
    entry = _section(where, entry, "file", "set", "of", "rows", "arguments")
    if ("file" in entry) == ("set" in entry):
        raise InputError(f"{where}: expected either file or set, got {in_words(entry)}")
    check_argument(where, "rows", entry.get("rows"), Count(or_none=True))
    if "file" in entry:
        check_argument(where, "file", entry["file"], FilePath())
        array = _array_of(Path(entry["file"]), entry.get("of"))
    else:
        array = _of_set(where, entry)
    return array[: entry.get("rows")]


def _of_set(where: str, entry: dict[str, Any]) -> np.ndarray:
    """Rows or labels of a data set of `serkit.datasets`, by its name."""
    check_argument(where, "set", entry["set"], Choice(*sorted(datasets.CLASS_NAMES)))
    arguments = _section(f"{where}.arguments", entry.get("arguments") or {})
    try:
        content = getattr(datasets, f"load_{entry['set']}")(**arguments)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None
    of = entry.get("of", content._fields[0])
    check_argument(where, "of", of, Choice(*content._fields))
    return getattr(content, of)


def _array_of(path: Path, of: Any = None) -> np.ndarray:
    """An array in a file of NumPy's, or of columns of a table; nothing in it is executed."""
    if path.suffix.lower() == ".csv":
        return _columns_of(path, of)
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        if of is not None and of not in content.files:
            raise ValueError(f"there is no array {of!r}, but {', '.join(content.files)}")
        return content[content.files[0] if of is None else of]
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise InputError(
            f"{path}: no array can be read from it ({error}); numpy.save writes one"
        ) from None


def _columns_of(path: Path, of: Any) -> Any:
    """Columns of a table whose first line has their names, as a frame, or one as a series.

    All that hold numbers, unless some are asked for.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError(
            "tables need pandas: pip install '.[frames]' in serkit's checkout; .npy files do not"
        ) from None
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no table can be read from it ({error})") from None
    wanted = list(table.select_dtypes(["number", "bool"])) if of is None else of
    names = [wanted] if isinstance(wanted, str) else wanted
    check_argument(f"{path}", "of", names, Several(Text()))
    for name in names:
        check_argument(f"{path}", "column", name, Choice(*table))
    if not names:
        raise InputError(f"{path}: no column holds numbers alone")
    return table[wanted]


# -- predict ---------------------------------------------------------------------------------------


def _add_predict(commands: argparse._SubParsersAction) -> None:
    text = "write a table of what a saved graph says of new rows"
    parser = commands.add_parser("predict", help=text, description=f"{text}, see Graph.predict")
    parser.add_argument("graph", type=Path, help="file that Graph.save wrote")
    _add_rows(parser)
    parser.add_argument("--out", type=Path, help="the table, .csv; beside the graph unless given")
    parser.set_defaults(run=_predict)


def _predict(chosen: argparse.Namespace) -> None:
    graph = Graph.load(chosen.graph)
    rows = [_array_of(path) for path in chosen.rows]
    frame = graph.predict(*rows).to_frame()
    out = chosen.out or chosen.graph.with_suffix(".csv")
    try:
        frame.to_csv(out, index_label="row")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from None
    print(out)


# -- explore ---------------------------------------------------------------------------------------


def _add_explore(commands: argparse._SubParsersAction) -> None:
    text = "write a page that shows a saved graph in a browser"
    parser = commands.add_parser("explore", help=text, description=f"{text}, see Graph.explore")
    parser.add_argument("graph", type=Path, help="file that Graph.save wrote")
    _add_rows(parser)
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


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="rows, .npy, .npz or .csv: once for each observation, in their order",
    )


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

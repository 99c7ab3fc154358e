"""Pages about runs: `report.html` of one, and a comparison of several (`serkit report runs/*`).

Each is one HTML file that loads nothing else; pictures are those that the run has written anyway.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..markup import Markup, document, element, joined, table
from ..saving import write_atomically
from ..saving.snapshot import Run
from . import structure, summary

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; background: #f3f5f8; margin: 0; }
main { max-width: 1280px; margin: 0 auto; padding: 8px 24px 48px; }
h1 { font-size: 26px; margin: 20px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 14px 0 4px; }
section { background: #fff; border: 1px solid #d9e0e8; border-radius: 8px; padding: 16px 20px;
  margin: 16px 0; overflow-x: auto; }
nav { margin: 6px 0; } nav a { margin-right: 14px; } a { color: #0b5a9e; }
p.note, figcaption { color: #52606d; margin: 4px 0; }
table { border-collapse: collapse; margin: 8px 0; font-size: 14px; }
th { text-align: left; font-weight: 600; background: #eef2f6; vertical-align: bottom; }
th, td { border-bottom: 1px solid #e3e8ee; padding: 4px 12px 4px 8px; vertical-align: top; }
td { overflow-wrap: break-word; max-width: 440px; } .number { text-align: right; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.best { font-weight: 700; }
.pictures { display: flex; flex-wrap: wrap; gap: 18px 28px; align-items: flex-start; }
.runs { display: flex; gap: 18px; overflow-x: auto; padding-bottom: 8px; }
.runs figure { flex: 0 0 auto; max-width: max(360px, 44%); }
figure { margin: 0; max-width: 100%; } img { max-width: 100%; height: auto; display: block; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 14px 0 0; }
.cards div { background: #fff; border: 1px solid #d9e0e8; border-radius: 8px; padding: 8px 16px; }
.cards b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.settings { columns: 340px; column-gap: 32px; margin: 0; padding: 0; list-style: none; }
.settings li { break-inside: avoid; color: #6b7785; overflow-wrap: anywhere; padding: 1px 0; }
.settings li.changed { color: #1c2733; font-weight: 600; }
.bar { display: inline-block; height: 10px; background: #4a90c8; border-radius: 2px; }
ul.warnings { margin: 0; padding-left: 20px; } ul.warnings li { margin: 4px 0; }
"""
_PIXELS = 1.5  # of a picture to one of the page's, so that it is sharp on fine screens
_SECTIONS = {  # of pictures, by how their names begin, and what is said of them
    "Training": {
        "rounds": "Scores, the joint objective and how many rows changed their cluster, by round.",
        "losses": "By epoch; dotted lines part the updates.",
        "log_likelihood": "By iteration of EM, in all updates; dotted lines part the rounds.",
    },
    "Latents": {
        "latents": "",
        "evolution": "By round, in the plane of the last.",
    },
    "Classes": {
        "confusion": "Rows by true label and by cluster; clusters stand below their labels.",
        "profiles": "What is typical of each cluster, in the data's own units.",
        "transitions": "What follows each class.",
        "topics": "Which words, or counts, each topic expects.",
    },
    "Rows": {
        "reconstructions": "Rows of data, and what the graph makes of their latents.",
        "samples": "Drawn from each cluster, down through the decoder.",
    },
}
_COMPARED = ("confusion", "latents", "samples", "reconstructions")  # pictures, side by side
_MOST_PICTURES = 60  # in a comparison


# -- one run ---------------------------------------------------------------------------------------


def facts(run: Run) -> dict[str, Any]:
    """What `compare` needs of a run besides its history, as JSON."""
    return {
        "settings": summary.settings(run),
        "data": [list(row) for row in summary.data(run).rows],
        "versions": summary.versions(),
    }


def page(run: Run, title: str, pictures: Mapping[str, bytes], warnings: Sequence[str] = ()) -> str:
    """The page of a run, whose pictures are PNG files by name; `warnings` are of no update."""
    sections = {
        "Graph": _graph_section(run, pictures),
        "Scores": _scores_section(run),
        **dict(_picture_sections(pictures)),
        "Settings": _settings_section(run),
        "Time": _time_section(run.history),
        "Warnings": _warnings_section(run.history, warnings),
        "Versions": table(("package", "version"), summary.versions().items()),
    }
    n_rounds = len(run.history)
    when = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    note = f"{', '.join(run.names)}: {n_rounds} round{'s' if n_rounds > 1 else ''}, written {when}"
    return _page(title, note, _cards(run), sections)


def _page(title: str, note: str, top: Markup, sections: Mapping[str, Markup]) -> str:
    """A page of named sections, those that are empty left out."""
    full = {name: content for name, content in sections.items() if content}
    links = (element("a", name, href=f"#{name.lower()}") for name in full)
    return document(
        title,
        _STYLE,
        element(
            "main",
            element("h1", title),
            element("p", note, class_="note"),
            element("nav", *links),
            top,
            *(element("section", element("h2", n), c, id=n.lower()) for n, c in full.items()),
        ),
    )


def _cards(run: Run) -> Markup:
    """The numbers that one looks for first."""
    cards = {"rounds": f"{len(run.history)}"}
    cards |= {f"rows of {row[0]}": row[1] for row in summary.data(run).rows}
    for (module, key), value in summary.last_reports(run.history).items():
        if key in ("accuracy", "nmi", "ari", "objective"):
            cards[f"{key}, {module}"] = summary.in_digits(value)
    cards["seconds of learning"] = f"{sum(summary.seconds(run.history).values()):.3g}"
    boxes = (element("div", element("b", value), name) for name, value in cards.items())
    return element("div", *boxes, class_="cards")


def _graph_section(run: Run, pictures: Mapping[str, bytes]) -> Markup:
    head, *rows = structure.cells(run.names)
    drawing = [_picture("graph", pictures["graph"])] if "graph" in pictures else []
    tables = element("div", table(head, rows), table(*summary.data(run)))
    return element("div", *drawing, tables, class_="pictures")


def _scores_section(run: Run) -> Markup:
    """Numbers by round, the state of the clusters, and what was chosen of several starts."""
    parts = [table(*summary.rounds(run.history))]
    clusters = summary.clusters(run.history)
    if clusters.rows:
        parts += [element("h3", "Clusters after the last round"), table(*clusters)]
    for record in run.history:
        if "chosen" in record:
            number, (best, scores) = record["round"], record["chosen"].values()
            runs = [(f"{n}", summary.in_digits(s), "kept" * (n == best)) for n, s in
                    enumerate(scores)]  # fmt: skip
            parts += [
                element(
                    "h3", f"Runs from several seeds, of which one was kept after round {number}"
                )
            ]
            parts += [table(("run", "score", ""), runs)]
    return joined(parts)


def _picture_sections(pictures: Mapping[str, bytes]) -> Iterator[tuple[str, Markup]]:
    """All pictures but the graph's, by what they are of."""
    captions = {start: text for known in _SECTIONS.values() for start, text in known.items()}
    kinds = {name: next((s for s in captions if name.startswith(s)), "") for name in pictures}
    for section, known in {**_SECTIONS, "Further pictures": {"": ""}}.items():
        shown = [
            _picture(name, pictures[name], known[start])
            for start in known
            for name, kind in kinds.items()
            if kind == start and name != "graph"
        ]
        if shown:
            yield section, element("div", *shown, class_="pictures")


def _picture(name: str, png: bytes, caption: str = "") -> Markup:
    """A figure with a picture that is part of the page."""
    captions = [element("figcaption", caption)] if caption else []
    return element("figure", _image(name, png), *captions)


def _image(name: str, png: bytes) -> Markup:
    width = struct.unpack(">I", png[16:20])[0]  # where a PNG file has it
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return element("img", src=source, alt=name, width=round(width / _PIXELS))


def _settings_section(run: Run) -> Markup:
    """Every argument of every module; those that are not as usual stand out."""
    parts = [element("p", "Bold: not what it is unless given.", class_="note")]
    for name, arguments in summary.settings(run).items():
        module = run.modules[name]
        changed = module.arguments_in_words(changed=True)
        items = (
            element("li", f"{key} = {text}", class_="changed" if key in changed else None)
            for key, text in sorted(arguments.items(), key=lambda pair: pair[0] not in changed)
        )
        parts.append(element("h3", f"{name}: {type(module).__name__}"))
        parts.append(element("ul", *items, class_="settings"))
    return joined(parts)


def _time_section(history: summary.History) -> Markup:
    """Seconds by module, with bars."""
    spent = summary.seconds(history)
    most = max(spent.values(), default=0.0) or 1.0
    widths = {name: f"width: {300 * value / most:.0f}px" for name, value in spent.items()}
    rows = [
        (name, f"{value:.2f}", element("span", class_="bar", style=widths[name]))
        for name, value in spent.items()
    ]
    return table(("module", "seconds", ""), rows) if rows else Markup()


def _warnings_section(history: summary.History, others: Sequence[str]) -> Markup:
    """What was warned of, by updates and besides."""
    of_updates = {text: when for when, text in summary.warnings_in(history)}
    items = [element("li", element("b", when), f": {text}") for text, when in of_updates.items()]
    items += [element("li", text) for text in dict.fromkeys(others) if text not in of_updates]
    return element("ul", *items, class_="warnings") if items else element("p", "None.")


# -- several runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A run as its folder tells it."""

    folder: Path
    history: list[dict[str, Any]]
    facts: dict[str, Any]


def compare(folders: Sequence[str | os.PathLike], out: str | os.PathLike) -> Path:
    """Write a page that compares runs, by the folders that `Graph.fit(out=...)` wrote.

    It has the last scores, the curves by round in one picture, the settings that differ, and
    pictures side by side. What is no folder of a run is left out.

    Raises
    ------
    InputError
        If there is no run, or a run's files are damaged.
    OutputError
        If the page cannot be written.

    Examples
    --------
    >>> from serkit.graph import report
    >>> report.compare(["runs/a", "runs/b"], "comparison.html")
    Traceback (most recent call last):
    serkit.errors.InputError: report: none of runs/a, runs/b is a folder that fit(out=...) wrote
    """
    runs = _named([_read(Path(f)) for f in folders if (Path(f) / "history.json").is_file()])
    if not runs:
        listed = ", ".join(map(str, folders))
        raise InputError(f"report: none of {listed:.300} is a folder that fit(out=...) wrote")
    sections = {
        "Last scores": _last_scores(runs),
        "Curves": _curves(runs),
        "Settings that differ": _differences(runs),
        "Side by side": _side_by_side(runs),
        "Seconds": _seconds_of(runs),
        "Warnings": _warnings_of(runs),
    }
    note = f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(runs)}"
    text = _page("Comparison of runs", note, _links(runs, Path(out)), sections)
    write_atomically(out, text.encode())
    return Path(out)


def _read(folder: Path) -> Written:
    """A run's history and facts; of a run of before there were facts none."""
    history = _json_in(folder / "history.json")
    if not (isinstance(history, list) and history and all(map(_is_record, history))):
        raise InputError(f"report: {folder / 'history.json'} holds no graph's history")
    path = folder / "run.json"
    facts = _json_in(path) if path.exists() else {}
    if not (isinstance(facts, dict) and _is_of_facts(facts)):
        raise InputError(f"report: {path} does not hold what fit(out=...) writes")
    return Written(folder, history, facts)


def _json_in(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"report: {path} cannot be read ({error})") from None


def _is_record(record: Any) -> bool:
    """Whether something is an entry of a history."""
    if not (isinstance(record, dict) and isinstance(record.get("round"), int)):
        return False
    updates = record.get("updates")
    return isinstance(updates, list) and all(
        isinstance(update, dict)
        and isinstance(update.get("module"), str)
        and isinstance(update.get("seconds", 0.0), Real)
        and isinstance(update.get("warnings", []), list)
        for update in updates
    )


def _is_of_facts(facts: dict[str, Any]) -> bool:
    """Whether something is what `facts` gives, or part of it."""
    settings, data = facts.get("settings", {}), facts.get("data", [])
    are_dicts = isinstance(settings, dict) and isinstance(facts.get("versions", {}), dict)
    if not (are_dicts and isinstance(data, list)):
        return False
    of_modules = all(isinstance(arguments, dict) for arguments in settings.values())
    return of_modules and all(isinstance(row, list) and row for row in data)


def _named(runs: Sequence[Written]) -> dict[str, Written]:
    """Runs by the shortest ends of their paths that differ."""
    for n_parts in range(1, 1 + max((len(run.folder.absolute().parts) for run in runs), default=0)):
        names = ["/".join(run.folder.absolute().parts[-n_parts:]) for run in runs]
        if len({*names}) == len(names):
            return dict(zip(names, runs, strict=True))
    return {str(run.folder): run for run in runs}


def _links(runs: Mapping[str, Written], out: Path) -> Markup:
    """Links to the runs' own pages."""
    pages = {name: run.folder / "report.html" for name, run in runs.items()}
    links = [
        element("a", name, href=Path(os.path.relpath(page, out.parent)).as_posix())
        for name, page in pages.items()
        if page.is_file()
    ]
    return element("nav", "Reports: ", *links) if links else Markup()


def _last_scores(runs: Mapping[str, Written]) -> Markup:
    """A row a run, the best of a column in bold; below them mean and spread."""
    reports = {name: summary.last_reports(run.history) for name, run in runs.items()}
    columns = [*dict.fromkeys(column for report in reports.values() for column in report)]
    numbers = np.array(
        [[report.get(column, np.nan) for column in columns] for report in reports.values()]
    ).reshape(len(runs), len(columns))
    known = np.isfinite(numbers)
    signs = np.array([-1.0 if key in ("loss", "changed") else 1.0 for _, key in columns])
    ranked = np.where(known, numbers * signs, -np.inf)
    is_best = known & (ranked == ranked.max(axis=0, initial=-np.inf)) & (len(runs) > 1)
    rows: list[list[object]] = [
        [name, f"{len(run.history)}", *(_score(v, best) for v, best in zip(*cells, strict=True))]
        for (name, run), *cells in zip(runs.items(), numbers, is_best, strict=True)
    ]
    if len(runs) > 1:
        spreads = [
            f"{column[k].mean():.4g} ± {column[k].std():.3g}" if k.any() else ""
            for column, k in zip(numbers.T, known.T, strict=True)
        ]
        rows.append(["mean ± standard deviation", "", *spreads])
    return table(("run", "rounds", *(f"{module} {key}" for module, key in columns)), rows)


def _score(value: float, is_best: bool) -> object:
    text = summary.in_digits(float(value)) if np.isfinite(value) else ""
    return element("span", text, class_="best") if is_best else text


def _curves(runs: Mapping[str, Written]) -> Markup:
    """The curves of all runs in one picture."""
    from .. import plots  # only here, as Matplotlib takes a while

    content = io.BytesIO()
    figure = plots.graph.runs({name: run.history for name, run in runs.items()})
    figure.savefig(content, format="png", dpi=120)
    return _picture("curves", content.getvalue())


def _differences(runs: Mapping[str, Written]) -> Markup:
    """Settings, data and versions in which not all runs are alike."""
    by_run = [_flat(run.facts) for run in runs.values()]
    names = dict.fromkeys(name for facts in by_run for name in facts)
    rows = [
        (name, *texts)
        for name in names
        if len({*(texts := [facts.get(name, "-") for facts in by_run])}) > 1
    ]
    if not rows:
        return element("p", "None." if len(runs) > 1 else "There is one run.")
    return table(("", *runs), rows)


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    """What is written of a run, by name: "vae alpha", "version of torch", ..."""
    settings, versions = facts.get("settings", {}), facts.get("versions", {})
    flat = {f"{m} {name}": str(v) for m, given in settings.items() for name, v in given.items()}
    flat |= {f"data of {row[0]}": ", ".join(map(str, row[1:])) for row in facts.get("data", [])}
    return flat | {f"version of {name}": str(v) for name, v in versions.items()}


def _side_by_side(runs: Mapping[str, Written]) -> Markup:
    """Pictures that most runs have, a row for each name, as many as a page has room for."""
    names = dict.fromkeys(
        path.stem
        for start in _COMPARED
        for run in runs.values()
        for path in sorted(run.folder.glob(f"{start}*.png"))
        if not path.stem.endswith("_before")
    )
    parts = []
    for name in [*names][: max(_MOST_PICTURES // len(runs), 1)]:
        figures = [
            element("figure", _image(name, path.read_bytes()), element("figcaption", run))
            for run, written in runs.items()
            if (path := written.folder / f"{name}.png").is_file()
        ]
        parts += [element("h3", name), element("div", *figures, class_="runs")]
    return joined(parts)


def _seconds_of(runs: Mapping[str, Written]) -> Markup:
    """Seconds by module, a row a run."""
    spent = {name: summary.seconds(run.history) for name, run in runs.items()}
    modules = dict.fromkeys(module for seconds in spent.values() for module in seconds)
    rows = [
        (name, *(f"{seconds[m]:.2f}" if m in seconds else "" for m in modules))
        for name, seconds in spent.items()
    ]
    return table(("run", *modules), rows)


def _warnings_of(runs: Mapping[str, Written]) -> Markup:
    """Warnings of updates, by run."""
    items = [
        element("li", element("b", f"{name}, {when}"), f": {text}")
        for name, run in runs.items()
        for when, text in summary.warnings_in(run.history)
    ]
    return element("ul", *items, class_="warnings") if items else element("p", "None.")

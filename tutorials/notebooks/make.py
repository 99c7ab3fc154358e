"""Makes each tutorial's notebook of its script: `python tutorials/notebooks/make.py`.

A script with headings (`# %% Read it`) is cut there; comments below a heading become text. Of any
other, each function is a cell, and the last one calls `main`. Notebooks have no outputs.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent
ROOT = NOTEBOOKS.parents[1]
SCRIPTS = sorted(NOTEBOOKS.parent.glob("*.py"))
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w-]+")
COLAB = "https://colab.research.google.com/github"
EXTRAS = {"hac_mlda": "[audio]", "my_table": "[frames]"}
INSTALL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("serkit") is None:  # as in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "{package}"], check=True)"""
PICTURES = """\
from pathlib import Path

from PIL import Image

for path in sorted(Path("{folder}").rglob("*.png")):
    print(path.name)
    display(Image.open(path))"""


def address_in(setup: str) -> str | None:
    """The repository's address, if the package's metadata name one."""
    found = ADDRESS.search(setup)
    return found[0] if found else None


def notebook_of(script: str, name: str, address: str | None) -> dict[str, Any]:
    """The notebook of a script's text, as it is in its file."""
    tree = ast.parse(script)
    cells = [("markdown", _introduction(ast.get_docstring(tree) or "", name, address))]
    package = f"serkit{EXTRAS.get(name, '')}"
    package += f" @ git+{address}" if address else ""
    cells.append(("code", INSTALL.format(package=package)))
    cells += _by_heading(script) if "\n# %% " in script else _by_function(script, tree, name)
    return {
        "cells": [_cell(kind, text, number) for number, (kind, text) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _introduction(docstring: str, name: str, address: str | None) -> str:
    """The docstring without the command line, which is of no use here."""
    title, _, text = docstring.partition("\n")
    text = re.sub(r"(?m)^    .*\n", "", text).strip()
    link = ""
    if address:
        place = f"{address.removeprefix('https://github.com')}/blob/main/tutorials/notebooks"
        link = f"[Open in Colab]({COLAB}{place}/{name}.ipynb)\n\n"
    return f"# {title.rstrip('.')}\n\n{link}{text}"


def _by_heading(script: str) -> Iterator[tuple[str, str]]:
    """A text and a cell for each heading of a script; the cell shows the picture it ends with."""
    for part in script.split("\n# %% ")[1:]:
        heading, *lines = part.splitlines()
        text = []
        while lines and lines[0].startswith("# "):
            text.append(lines.pop(0).removeprefix("# "))
        yield "markdown", "\n\n".join(filter(None, [f"## {heading}", "\n".join(text)]))
        code = "\n".join(lines).strip()
        yield "code", f"{code}\nfigure" if "figure.savefig" in code.splitlines()[-1] else code


def _by_function(script: str, tree: ast.Module, name: str) -> Iterator[tuple[str, str]]:
    """Imports and constants, functions one by one, and a call of `main` with its pictures."""
    lines, last = script.splitlines(), tree.body[0].end_lineno or 0
    yield "markdown", "## What is used"
    for node in tree.body[1:-1]:  # between the docstring and the call of main
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            before, code = lines[last : first - 1], lines[first - 1 : node.end_lineno]
            before = [line for line in before if not line.startswith("from __future__")]
            if any(before):
                yield "code", "\n".join(before).strip()
            if node.name == "main":
                yield "markdown", "## All of it"
            yield "code", "\n".join(code)
            last = node.end_lineno or 0
    options = [word for word in ("--out", f"runs/{name}") if '"--out"' in script]
    yield "markdown", '## Run it\n\nThe options are those of the script; `["--help"]` lists them.'
    yield "code", f"scores = main({json.dumps(options)})"
    if options:
        yield "code", PICTURES.format(folder=f"runs/{name}")


def _cell(kind: str, text: str, number: int) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
    cell |= {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {**cell, "source": text.splitlines(keepends=True)}


def made() -> dict[Path, str]:
    """The texts of all notebooks, by their files."""
    address = address_in((ROOT / "setup.py").read_text("utf-8"))
    notebooks = {
        NOTEBOOKS / f"{path.stem}.ipynb": notebook_of(path.read_text("utf-8"), path.stem, address)
        for path in SCRIPTS
    }
    return {
        file: json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        for file, notebook in notebooks.items()
    }


if __name__ == "__main__":
    for file, text in made().items():
        file.write_text(text, encoding="utf-8")
        print(file.relative_to(ROOT))

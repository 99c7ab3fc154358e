"""Notebooks run as plain Python, without a kernel: the code of their cells in one namespace."""

import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "tutorials" / "notebooks"


def code_in(name):
    """The code cells of a tutorial's notebook."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(cells, name):
    """What some cells define."""
    namespace = {"__name__": "__main__", "__doc__": name, "display": lambda shown: None}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"{name}.ipynb, cell {number}", "exec"), namespace)
    return namespace


def main_of(name):
    """The `main` that a tutorial's notebook calls, of its cells before that."""
    cells = code_in(name)
    (call,) = [number for number, cell in enumerate(cells) if cell.startswith("scores = main(")]
    return run(cells[:call], name)["main"]

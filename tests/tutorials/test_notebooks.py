"""Notebooks are those of the scripts; those that begin with a job do it."""

import importlib.util
import math
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers.notebooks import NOTEBOOKS, code_in, run

SPEC = importlib.util.spec_from_file_location("make", NOTEBOOKS / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


def test_notebooks_are_those_of_the_scripts():
    """If not: python tutorials/notebooks/make.py."""
    made = make.made()
    assert {*NOTEBOOKS.glob("*.ipynb")} == {*made}
    assert [file.name for file in made if file.read_text("utf-8") != made[file]] == []


def test_a_script_is_cut_into_cells():
    script = '''"""A title.

    python a.py

A text.
"""

from __future__ import annotations

import math


def main(arguments=None):
    """The number."""
    return math.pi if "--out" in arguments else 3


if __name__ == "__main__":
    main()
'''
    notebook = make.notebook_of(script, "a", "https://github.com/somebody/serkit")
    first, install, *_, call, pictures = notebook["cells"]
    colab = "https://colab.research.google.com/github/somebody/serkit/blob/main/tutorials/notebooks"
    expected = f"# A title\n\n[Open in Colab]({colab}/a.ipynb)\n\nA text."
    assert "".join(first["source"]) == expected
    assert "serkit @ git+https://github.com/somebody/serkit" in "".join(install["source"])
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert code[1] == "import math"
    assert run(code, "a")["scores"] == math.pi
    assert all(cell["outputs"] == [] for cell in (install, call, pictures))


def test_headings_of_a_script_become_cells_that_show_their_pictures():
    draw = '# %% Draw\n# With\n# words.\nfigure = 3\nfigure.savefig("a.png")'
    script = f'"""T."""\n\n{draw}\n\n# %% End\n1'
    cells = make.notebook_of(script, "a", None)["cells"][2:]
    assert ["".join(cell["source"]) for cell in cells] == [
        "## Draw\n\nWith\nwords.",
        'figure = 3\nfigure.savefig("a.png")\nfigure',
        "## End",
        "1",
    ]


def test_the_address_is_that_of_the_metadata():
    setup = 'setup(url="https://github.com/some-body/serkit", author="x")'
    assert make.address_in(setup) == "https://github.com/some-body/serkit"
    assert make.address_in("setup()") is None


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """Run a notebook that is a job, in a short setting; gives what it defines and prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebook", "--quick"])

    def do(name):
        namespace = run(code_in(name), name)
        return namespace, capsys.readouterr().out, tmp_path / "runs" / name

    return do


def test_my_table(job):
    pd = pytest.importorskip("pandas")
    made, printed, out = job("my_table")
    assert "3 components, sure" in printed
    assert made["accuracy"] > 0.9
    labelled = pd.read_csv(out / "labelled.csv", index_col="bottle")
    assert {*labelled["kind"]} == {"Nebbiolo", "Grignolino", "Barbera"}
    assert labelled["alcohol"].isna().any()  # the table is as it came
    assert {path.name for path in out.glob("*.png")} == {"how_many.png", "profiles.png", "rows.png"}


def test_my_images(job):
    made, printed, out = job("my_images")
    lines = (out / "clusters.csv").read_text("utf-8").splitlines()
    assert lines[0] == "file,cluster,sure"
    assert lines[1].split(",")[:2] == ["scan0000.png", str(made["clusters"][0])]
    assert sum(map(len, made["members"])) == len(lines) - 1 == 300
    assert len([*out.glob("sheet*.png")]) == 10
    assert np.array(Image.open(out / "files" / "scan0000.png")).shape == (8, 8)
    assert f"goes into cluster {made['clusters'][0]}" in printed  # by the graph loaded again


def test_my_two_modalities(job):
    made, printed, out = job("my_two_modalities")
    shares = [float(line.split()[1]) for line in printed.splitlines()[-3:]]
    assert shares[1] > 0.8  # heard; of ten kinds
    assert made["imagined"].shape == (4, 8, 8)
    assert {path.name for path in out.glob("*.png")} == {"seen.png", "heard.png"}

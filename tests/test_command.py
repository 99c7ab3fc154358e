"""The command `serkit run` and `predict`: files of graphs, tables of data, and lines of errors."""

import json
from pathlib import Path

import numpy as np
import pytest

import serkit as srk
from serkit.command import main
from serkit.modules import GMM

pytest.importorskip("pandas", reason="tables are read and written by pandas")

EXAMPLE = Path(__file__).parents[1] / "tutorials" / "vae_gmm.yaml"
TABLE = "size,kind,weight\n1.0,ape,2\n1.5,ape,1e-1\n8.0,bee,9\n8.5,bee,8\n"
FILE = {
    "data": {"rows": "table.csv", "kinds": {"file": "table.csv", "of": "kind"}},
    "graph": {
        "observations": {"rows": {}},
        "modules": {
            "gmm": {
                "class": "GMM",
                "parents": ["rows"],
                "arguments": {"n_components": 2, "labels": {"data": "kinds"}, "n_init": 2},
            }
        },
    },
    "random_state": 0,
    "fit": {"rounds": 3, "callbacks": [{"class": "StopOnTolerance", "arguments": {"tol": 0.1}}]},
    "save": "gmm.safetensors",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder where a table and a graph's file lie, and the command runs."""
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text(TABLE, "utf-8")
    Path("gmm.json").write_text(json.dumps(FILE), "utf-8")
    return tmp_path


def test_a_table_is_learnt_saved_and_predicted(folder, capsys):
    assert main(["run", "gmm.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["module", "class", "parents"]
    assert "accuracy of gmm: 1.000 after the first round, 1.000 after the last" in lines
    assert lines[-1] == "saved: gmm.safetensors"
    assert len([line for line in lines if line.strip().startswith(("1 ", "2 ", "3 "))]) == 2
    assert main(["predict", "gmm.safetensors", "--rows", "table.csv", "--out", "p.csv"]) == 0
    header, *rows = Path("p.csv").read_text("utf-8").splitlines()
    assert header == "row,gmm_class,gmm_p_0,gmm_p_1"
    table = [[1.0, 2.0], [1.5, 0.1], [8.0, 9.0], [8.5, 8.0]]
    expected = srk.Graph.load("gmm.safetensors").predict(table).classes
    assert [int(row.split(",")[1]) for row in rows] == expected.tolist()


def test_gaps_of_a_table_are_named(folder, capsys):
    Path("table.csv").write_text(TABLE.replace("ape,2", "ape,"), "utf-8")
    assert main(["run", "gmm.json"]) == 1
    assert "Observation 'rows': NaN or infinity in 1 of 4 rows (rows 0)" in capsys.readouterr().err


def test_the_example_runs_in_a_short_setting(folder, capsys):
    pytest.importorskip("yaml", reason="files of YAML need PyYAML")
    short = {
        "fit.rounds": 1,
        "fit.out": "out",
        "fit.keep_latents": "false",
        "data.images.rows": 60,
        "data.labels.rows": 60,
        "graph.modules.vae.arguments.epochs": 1,
        "save": "null",
    }
    changes = [f"--set={place}={value}" for place, value in short.items()]
    assert main(["run", str(EXAMPLE), *changes]) == 0
    assert capsys.readouterr().out.endswith("open in a browser: out/report.html\n")
    assert (folder / "out" / "report.html").is_file()


def test_yaml_holds_plain_values_and_each_name_once(folder, capsys):
    yaml = pytest.importorskip("yaml", reason="files of YAML need PyYAML")
    file = {**FILE, "save": None}
    Path("gmm.yaml").write_text(yaml.safe_dump(file).replace("n_init: 2", "tol: 1e-2"), "utf-8")
    assert main(["run", "gmm.yaml"]) == 0  # where 1e-2 is no word
    Path("twice.yaml").write_text("fit: {rounds: 1}\nfit: {rounds: 2}\n", "utf-8")
    Path("code.yaml").write_text("fit: !!python/object/apply:os.getcwd []\n", "utf-8")
    for name, text in {"twice.yaml": "'fit' is there twice", "code.yaml": "constructor"}.items():
        assert main(["run", name]) == 1
        assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("fit.round=1", "fit: unknown key='round'; expected one of 'rounds'"),
        ("fit.rounds=0", "Graph.fit: rounds must be an integer >= 1, got 0"),
        ("graph.modules.gmm.arguments.n_components=0", "GMM: n_components must be an integer >= 1"),
        ("graph.modules.gmm.class=print", "class must be the name of one in serkit.modules"),
        ("data.rows=missing.npy", "missing.npy: no array can be read from it"),
        ("data.rows=gmm.json", "gmm.json: no array can be read from it"),
        (
            'data.rows={"file": "table.csv", "of": ["size", "kind"]}',
            "'ape' in row 0 of column 'kind'",
        ),
        ('data.rows={"file": "table.csv", "of": "age"}', "unknown column='age'; expected one of"),
        ('data.rows={"set": "digit"}', "data.rows: unknown set='digit'; expected one of"),
        ('data.rows={"set": "digits", "of": "words"}', "unknown of='words'; expected one of"),
        ("data.rows={}", "data.rows: expected either file or set, got {}"),
        ('fit.callbacks=[{"class": "print"}]', "fit.callbacks: unknown class='print'"),
        ('fit.callbacks=[{"class": "StopOnTolerance", "arguments": {"a": 1}}]', "argument 'a'"),
        ("fit.callbacks=3", "fit: callbacks must be a list, got 3"),
        ("modules=1", "gmm.json: unknown key='modules'; expected one of 'data', 'graph'"),
        ("fit.rounds", "--set: expected PLACE=VALUE, such as fit.rounds=3, got 'fit.rounds'"),
        ("fit.rounds.x=1", "--set: there is no place 'fit.rounds.x'"),
        ("save=3", "save: path must be a path"),
    ],
)
def test_a_line_says_what_is_wrong(folder, capsys, change, text):
    assert main(["run", "gmm.json", "--set", change]) == 1
    error = capsys.readouterr().err
    assert error.startswith("serkit: ")
    assert text in error
    assert not Path("gmm.safetensors").exists()


def test_files_that_are_none_are_named(folder, capsys):
    Path("twice.json").write_text('{"fit": {}, "fit": {}}', "utf-8")
    Path("list.json").write_text("[]", "utf-8")
    expected = {
        "none.json": "none.json: it cannot be read",
        "twice.json": "twice.json: it cannot be read ('fit' is there twice)",
        "list.json": "list.json: expected names with values, got []",
    }
    for name, text in expected.items():
        assert main(["run", name]) == 1
        assert text in capsys.readouterr().err


def test_arrays_of_a_file_by_name(folder):
    rows = np.repeat([[0.0], [9.0]], 5, axis=0) + np.arange(10)[:, None] / 10
    np.savez("rows.npz", other=rows[:3], rows=rows)
    data = '{"file": "rows.npz", "of": "rows", "rows": 8}'
    labels = "graph.modules.gmm.arguments.labels=null"
    file = {**FILE, "data": {"rows": json.loads(data)}}
    Path("gmm.json").write_text(json.dumps(file), "utf-8")
    assert main(["run", "gmm.json", "--set", labels]) == 0
    graph = srk.Graph.load("gmm.safetensors")
    assert graph.observations[0].n_rows == 8
    expected = GMM(2, n_init=2, random_state=graph["gmm"].seed()).fit(rows[:8])
    assert sorted(graph["gmm"].means_[:, 0]) == pytest.approx(sorted(expected.means_[:, 0]))

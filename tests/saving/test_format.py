"""Files: what goes in comes out, nothing is executed, and damage is told."""

import os
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from serkit import Graph, Observation
from serkit.errors import OutputError, SavedFileError, SerkitError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.modules import RandomAffine
from serkit.saving import format
from tests.helpers.modules import KMeans
from tests.helpers.saved import assert_same, read


def some_tree():
    rng = np.random.default_rng(0)
    return {
        "weights": rng.standard_normal((3, 2)),
        "curve": [1.5, 2],
        "note": "a\u00e9",
        "on": True,
    }


@pytest.fixture
def file(tmp_path):
    """A small whole file, and the graph of values in it is `some_tree()`."""
    path = tmp_path / "kept.safetensors"
    format.write(path, some_tree())
    return path


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -0.1,
        1e-310,
        float("inf"),
        "text \u2192 'quoted\\n",
        [],
        {},
        [1, [2.5, None], {"a": [False]}],
        {1: "integer key", "1": "string key", 2.5: None},
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.zeros((0, 3)),
        np.array(3.5),
        np.array([True, False]),
        np.array([np.nan, -0.0, 5e-324]),
        np.arange(4, dtype=np.float16),
        torch.arange(4.0).reshape(2, 2),
        torch.tensor(3),
        np.array(["one", "three"]),
        Data(np.arange(8.0).reshape(2, 2, 2)),
        Gaussian(np.ones((2, 3), dtype=np.float32)),
        Gaussian(np.ones((2, 3)), np.full((2, 3), 0.3)),
        Categorical(np.log([[0.1, 0.9], [1 / 3, 2 / 3]])),
        Mixture(np.log([[0.1, 0.9]]), np.ones((2, 3)), np.stack([np.eye(3)] * 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_in_comes_out(value, tmp_path):
    format.write(tmp_path / "file", {"value": value})
    found = read(tmp_path / "file")["value"]
    assert type(found) is type(value)
    assert_same(value, found)


def test_tuples_and_numpy_numbers_become_plain(tmp_path):
    format.write(tmp_path / "file", [(1, 2), np.float32(0.5), np.int64(3), np.bool_(True)])
    found = read(tmp_path / "file")
    assert found == [[1, 2], 0.5, 3, True]
    assert [type(value) for value in found] == [list, float, int, bool]


def test_objects_of_serkit_come_back_and_code_only_by_name(tmp_path):
    code = [format.described(value) for value in (np.sum, torch.nn.ReLU())]
    format.write(tmp_path / "file", [RandomAffine(degrees=3.0), *code])
    affine, function, net = format.read(tmp_path / "file", lambda: {"RandomAffine": RandomAffine})
    assert affine.get_params() == RandomAffine(degrees=3.0).get_params()
    assert [str(function), str(net)] == ["sum", "ReLU"]
    assert {type(function), type(net)} == {format.Custom}


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SavedFileError, match=r"kept\.safetensors: not a whole safetensors file"):
        read(file)


def test_no_flipped_bit_goes_unnoticed(file):
    whole = file.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1 << (position % 8)
        file.write_bytes(altered)
        with pytest.raises(SavedFileError, match=r"kept\.safetensors: .*(restore|serkit wrote)"):
            read(file)


def test_bytes_after_the_end_are_noticed(file):
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SavedFileError, match=r"kept\.safetensors"):
        read(file)


@pytest.mark.parametrize("content", [b"", b"hello world", pickle.dumps({"a": 1}), b"\x00" * 99])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(SavedFileError, match="other: not a whole safetensors file"):
        read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"serkit": "{}"}])
def test_safetensors_of_others_are_refused(tmp_path, metadata):
    save_file({"weight": np.ones(3)}, tmp_path / "net", metadata)
    with pytest.raises(SavedFileError, match="net: a safetensors file, but not one that serkit"):
        read(tmp_path / "net")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SavedFileError, match="nowhere: there is no such file"):
        read(tmp_path / "nowhere")


def test_folder_is_no_file(tmp_path):
    with pytest.raises(SavedFileError, match=tmp_path.name):
        read(tmp_path)


def test_later_format_is_refused(file, monkeypatch):
    monkeypatch.setattr(format, "_FORMAT", 99)
    format.write(file, some_tree())
    monkeypatch.undo()
    with pytest.raises(SavedFileError, match=r"written in format 99, this serkit reads \d+"):
        read(file)


def test_unknown_objects_are_refused(tmp_path):
    format.write(tmp_path / "file", [RandomAffine()])
    with pytest.raises(SavedFileError, match=r"file: .*RandomAffine"):
        read(tmp_path / "file")


def test_loading_unpickles_and_evaluates_nothing(file, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("called while loading")

    for owner, name in ((pickle, "loads"), (pickle, "load"), (torch, "load")):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr("builtins.eval", forbidden)
    monkeypatch.setattr("builtins.exec", forbidden)
    found = read(file)
    monkeypatch.undo()
    assert_same(found, some_tree())


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("failure", "raised", "text"),
    [
        (OSError(28, "No space left"), OutputError, r"cannot write .*kept\.safetensors: No space"),
        (KeyboardInterrupt("ctrl-c"), KeyboardInterrupt, "ctrl-c"),
    ],
    ids=["disk full", "interrupted"],
)
def test_failed_write_keeps_the_old_file(file, monkeypatch, step, failure, raised, text):
    whole = file.read_bytes()

    def fails(*args):
        raise failure

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(raised, match=text):
        format.write(file, {"other": np.zeros(1000)})
    monkeypatch.undo()
    assert file.read_bytes() == whole
    assert list(file.parent.iterdir()) == [file]


def test_write_replaces_the_old_file_and_makes_folders(file, tmp_path):
    format.write(file, ["new"])
    assert read(file) == ["new"]
    format.write(tmp_path / "a" / "b" / "file", ["deep"])
    assert read(tmp_path / "a" / "b" / "file") == ["deep"]


def test_file_below_a_file_cannot_be_written(file):
    with pytest.raises(OutputError, match=r"cannot write .*below"):
        format.write(file / "below", [])


def test_files_can_be_read_by_whom_the_user_lets(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    format.write(tmp_path / "kept", [])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "kept")}
    assert len(modes) == 1


# -- what a graph's file may hold --------------------------------------------------------------


def small_graph(leaf):
    rows = np.random.default_rng(0).uniform(size=(20, 4))
    return Graph(leaf.connect(Observation(rows))).fit(1, verbose=False)


@pytest.mark.parametrize("value", [{1, 2}, object(), np.arange(2) * 1j], ids=["set", "object", "j"])
def test_what_cannot_be_kept_is_told_when_saving(file, value):
    graph, whole = small_graph(KMeans(2, name="top", random_state=0)), file.read_bytes()
    graph["top"].extra_ = value
    with pytest.raises(SerkitError, match=r"KMeans 'top'.*extra_"):
        graph.save(file)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", ["Unheard", "os.system", "eval"])
def test_unknown_class_is_named_and_nothing_called(file, name):
    small_graph(KMeans(2, random_state=0)).save(file)
    tree = read(file)
    tree["modules"][1]["class"] = name
    format.write(file, tree)
    with pytest.raises(SavedFileError, match=f"module of class {name}, which is not known here"):
        Graph.load(file)


def test_user_written_class_is_not_mistaken_for_one_of_serkit(file):
    graph = small_graph(type("GMM", (KMeans,), {})(2, random_state=0))
    graph.save(file)
    assert type(Graph.load(file)["gmm"]) is type(graph["gmm"])

"""Files: what goes in comes out, nothing is executed, and damage is told."""

import copy
import json
import pickle
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from serkit import Graph, Observation, Posterior
from serkit.errors import SavedFileError, SerkitError
from serkit.messages import Categorical, Data, Deferred, Gaussian, Mixture
from serkit.modules import RandomAffine
from serkit.saving import format
from tests.helpers.modules import KMeans
from tests.helpers.saved import assert_same

BIG = {"latent_dim": 10**6, "hidden_sizes": [10**6]}  # weights of 4 terabytes


def objects(values):
    """A flat array of objects, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


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
        (1, [2, (3.5,)]),
        [{"a": 1}, {"b": [{"c": (2.0, None)}]}],
        [{"a": np.ones(2)}, {"a": 3}],
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
        np.array(["one", 2, None], dtype=object),
        np.array(list("abcdef")).reshape(2, 3),
        objects([(1, 2), ["x"], date(2024, 2, 29), float("nan")]),
        np.datetime64("2024-01-01"),
        np.timedelta64(3, "D"),
        np.array(["2024-01-01", "NaT"], dtype="datetime64[ns]"),
        [date(2024, 2, 29), datetime(2024, 2, 29, 12, tzinfo=UTC), time(1, 2), timedelta(1, 2, 3)],
        {date(2024, 2, 29): 1, "__array__": "0"},
        Data(np.arange(8.0).reshape(2, 2, 2)),
        Gaussian(np.ones((2, 3), dtype=np.float32)),
        Gaussian(np.ones((2, 3)), np.full((2, 3), 0.3)),
        Categorical(np.log([[0.1, 0.9], [1 / 3, 2 / 3]])),
        Mixture(np.log([[0.1, 0.9]]), np.ones((2, 3)), np.stack([np.eye(3)] * 2)),
        Deferred(np.ones((2, 3)), "reconstruction"),
        Posterior(Gaussian(np.ones((2, 3))), (None, Data(np.ones((2, 1)))), -1.5),
        np.random.default_rng(3),
        np.random.Generator(np.random.Philox(3)),
        np.random.RandomState(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_in_comes_out(value, tmp_path):
    format.write(tmp_path / "file", {"value": value})
    found = format.read(tmp_path / "file")["value"]
    assert type(found) is type(value)
    assert_same(value, found)
    assert format.same(value, found)


def test_numpy_numbers_become_plain(tmp_path):
    format.write(
        tmp_path / "file", [np.float32(0.5), np.longdouble(2), np.int64(3), np.bool_(True)]
    )
    found = format.read(tmp_path / "file")
    assert found == [0.5, 2.0, 3, True]
    assert [type(value) for value in found] == [float, float, int, bool]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        np.arange(2) * 1j,
        np.ones(2, dtype=np.longdouble),
        np.array([b"bytes"]),
        torch.ones(2, dtype=torch.bfloat16),
        Posterior(bound=lambda: 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_told(value):
    with pytest.raises(format.Unsupported, match="cannot be saved"):
        format.encode([{"a": value}], format.Contents())
    assert isinstance(format.described(value), format.Custom)


def test_an_array_is_stored_once(tmp_path):
    array = np.random.default_rng(0).random((1000, 20))
    message = Gaussian(array, checked=False)
    tree = {"mean": array, "view": array.view(), "message": message, "rows": array[:10]}
    format.write(tmp_path / "file", tree)
    assert (tmp_path / "file").stat().st_size < 1.1 * array.nbytes
    assert_same(tree, format.read(tmp_path / "file"))
    assert format.same([array, array.copy()], [array.copy(), array.copy()])
    assert not format.same([array, array.copy()], [array, array + 1])


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_keeps_its_order_in_memory(tmp_path, order):
    """Sums in another order round otherwise, and a run that goes on would get other bits."""
    array = np.array(np.random.default_rng(0).normal(size=(50, 3)), order=order)
    format.write(tmp_path / "file", [array, Data(array)])
    plain, message = format.read(tmp_path / "file")
    for again in (plain, message.array):
        assert (again.flags.c_contiguous, again.flags.f_contiguous) == (order == "C", order == "F")
        np.testing.assert_array_equal(again, array)


def test_classes_go_by_their_public_names():
    assert format.class_name(RandomAffine) == "serkit.modules.RandomAffine"
    assert format.class_name(Observation) == "serkit.Observation"
    assert format.class_name(KMeans) == "tests.helpers.modules:KMeans"
    assert format.public_class("serkit.modules.RandomAffine") is RandomAffine
    for name in ("serkit.modules.numpy", "serkit.modules.mixture.gmm.GMM", "os.system", "GMM"):
        assert format.public_class(name) is None


def test_objects_of_serkit_come_back_and_code_only_by_name(tmp_path):
    code = [format.described(value) for value in (np.sum, torch.nn.ReLU())]
    format.write(tmp_path / "file", [RandomAffine(degrees=3.0), *code])
    affine, function, net = format.read(tmp_path / "file")
    assert affine.get_params() == RandomAffine(degrees=3.0).get_params()
    assert [str(function), str(net)] == ["sum", "ReLU"]
    assert {type(function), type(net)} == {format.Custom}


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SavedFileError, match=r"kept\.safetensors: not a whole safetensors file"):
        format.read(file)


def test_no_flipped_bit_goes_unnoticed(file):
    whole = file.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1 << (position % 8)
        file.write_bytes(altered)
        with pytest.raises(SavedFileError, match=r"kept\.safetensors: .*(restore|serkit wrote)"):
            format.read(file)


def test_bytes_after_the_end_are_noticed(file):
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SavedFileError, match=r"kept\.safetensors"):
        format.read(file)


@pytest.mark.parametrize("content", [b"", b"hello world", pickle.dumps({"a": 1}), b"\x00" * 99])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(SavedFileError, match="other: not a whole safetensors file"):
        format.read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"serkit": "{}"}])
def test_safetensors_of_others_are_refused(tmp_path, metadata):
    save_file({"weight": np.ones(3)}, tmp_path / "net", metadata)
    with pytest.raises(SavedFileError, match="net: a safetensors file, but not one that serkit"):
        format.read(tmp_path / "net")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SavedFileError, match="nowhere: there is no such file"):
        format.read(tmp_path / "nowhere")


def test_folder_is_no_file(tmp_path):
    with pytest.raises(SavedFileError, match=tmp_path.name):
        format.read(tmp_path)


@pytest.mark.parametrize(
    ("number", "version", "text"),
    [
        (99, "7.0", r"kept\.safetensors: written in format 99 by serkit 7\.0; this serkit reads 3"),
        (2, None, r"written in format 2 by serkit 0\.1\.0 before .*; train again, or load it with"),
    ],
    ids=["later", "earlier"],
)
def test_other_formats_are_refused(file, number, version, text):
    head = {"format": number, "tree": {}} | ({"version": version} if version else {})
    rewrite(file, json.dumps(head), {})
    with pytest.raises(SavedFileError, match=text):
        format.read(file)


def rewrite(path, text, arrays):
    """Write a file whose checksum is right, whatever it holds."""
    save_file(arrays, path, {"serkit": text, "sha256": format._digest(text, arrays)})


@pytest.mark.parametrize(
    "tree",
    [
        "{",
        "[]",
        "{}",
        '{"format": 3}',
        '{"format": [], "tree": 1}',
        '{"format": 3, "tree": {"__array__": "7"}}',
        '{"format": 3, "tree": {"__array__": []}}',
        '{"format": 3, "tree": {"__tuple__": 3}}',
        '{"format": 3, "tree": {"__records__": [0, 9]}}',
        '{"format": 3, "tree": {"__items__": [[[], 1]]}}',
        '{"format": 3, "tree": {"__statement__": ["Gaussian", {}]}}',
        '{"format": 3, "tree": {"__statement__": ["Gaussian", {"mean": 3}]}}',
        '{"format": 3, "tree": {"__statement__": ["Module", {}]}}',
        '{"format": 3, "tree": {"__object__": ["serkit.modules.RandomAffine", {"x": 1}, null]}}',
        '{"format": 3, "tree": {"__object__": ["serkit.Graph", {}, null]}}',
        '{"format": 3, "tree": {"__object__": [3, {}, null]}}',
        '{"format": 3, "tree": {"__estimator__": "records"}}',
        '{"format": 3, "tree": {"__times__": ["i8", 3]}}',
        '{"format": 3, "tree": {"__values__": ["O", [2, 3], [1, 2]]}}',
        '{"format": 3, "tree": {"__date__": ["date", "x"]}}',
        '{"format": 3, "tree": {"__strings__": ["U", ["x"]]}}',
        '{"format": 3, "tree": %s1%s}' % ("[" * 9999, "]" * 9999),  # noqa: UP031
    ],
)
def test_damage_under_a_right_checksum_is_told(file, tree):
    rewrite(file, tree, {"records": np.frombuffer(b'{"a": 1', dtype=np.uint8)})
    with pytest.raises(SavedFileError, match=r"kept\.safetensors: "):
        format.read(file)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ([{"__tensor__": "big"}] * 9999, "the same arrays stand in too many places"),
        ([{"__array__": "big"}] * 9999, "the same arrays stand in too many places"),
        ([{"__records__": [0, 1]}] * 2, "no records 0 to 1"),
        ({"__values__": ["U", [9999], ["x" * 9999] + ["x"] * 9998]}, "much more memory than they"),
        (
            {"__object__": ["serkit.modules.VAE", BIG, {"row_shape_": [4], "nets_": {}}]},
            "other siz",
        ),
    ],
    ids=["tensors", "arrays", "records", "strings", "nets"],
)
def test_a_small_file_does_not_become_large(file, tree, text):
    arrays = {"big": np.zeros(10**5), "records": np.frombuffer(b"{}\n{}", dtype=np.uint8)}
    rewrite(file, json.dumps({"format": 3, "tree": tree}), arrays)
    tracemalloc.start()
    with pytest.raises(SavedFileError, match=rf"kept\.safetensors: .*{text}"):
        format.read(file)
    assert tracemalloc.get_traced_memory()[1] < 2 * 10**7  # of which the array is 800 kB
    tracemalloc.stop()


def test_foreign_files_are_refused_by_their_header(tmp_path, monkeypatch):
    save_file({"weight": np.ones(3)}, tmp_path / "net")
    opened = format.safe_open(tmp_path / "net", framework="numpy")
    monkeypatch.setattr(format, "safe_open", lambda *_, **__: Unread(opened))
    with pytest.raises(SavedFileError, match="net: a safetensors file, but not one that serkit"):
        format.read(tmp_path / "net")


class Unread:
    """An open file whose arrays must not be read."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def metadata(self):
        return self.file.metadata()


def test_loading_unpickles_and_evaluates_nothing(file, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("called while loading")

    for owner, name in ((pickle, "loads"), (pickle, "load"), (torch, "load")):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr("builtins.eval", forbidden)
    monkeypatch.setattr("builtins.exec", forbidden)
    found = format.read(file)
    monkeypatch.undo()
    assert_same(found, some_tree())


# -- records -----------------------------------------------------------------------------------


def history(n):
    return [{"round": i, "updates": [{"loss": i / 7, "sizes": (i, 2)}]} for i in range(n)]


def test_records_are_encoded_once(tmp_path, monkeypatch):
    """All but the last, which may still be added to; in every save after, none but the new."""
    records, known, encoded = history(50), {}, []
    encode = format.encode

    def counted(value, contents, *, is_record=False):
        encoded.extend([value["round"]] if isinstance(value, dict) and "round" in value else [])
        return encode(value, contents, is_record=is_record)

    monkeypatch.setattr(format, "encode", counted)
    format.write(tmp_path / "file", {"history": records}, known)
    records[-1]["note"] = "later"
    records += history(52)[50:]
    encoded.clear()
    format.write(tmp_path / "file", {"history": list(records)}, known)
    assert encoded == [49, 50, 51]
    monkeypatch.undo()
    assert_same(records, format.read(tmp_path / "file")["history"])
    assert records[49]["note"] == "later"


def test_other_records_are_not_taken_for_known_ones(tmp_path):
    records, known = history(3), {}
    format.write(tmp_path / "file", records, known)
    stale = {id(other): known[id(record)] for other, record in zip(history(3), records[:2])}  # noqa: B905
    for other in (history(4)[1:], copy.deepcopy(records)):
        format.write(tmp_path / "file", other, {**known, **stale})
        assert_same(other, format.read(tmp_path / "file"))


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
    tree = format.read(file)
    tree["nodes"]["kmeans"]["kind"] = name
    format.write(file, tree)
    with pytest.raises(SavedFileError, match=f"module of class {name}, which is not known here"):
        Graph.load(file)


def test_user_written_class_is_not_mistaken_for_one_of_serkit(file):
    graph = small_graph(type("GMM", (KMeans,), {})(2, random_state=0))
    graph.save(file)
    assert type(Graph.load(file)["gmm"]) is type(graph["gmm"])

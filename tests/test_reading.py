"""What people keep rows and labels in: frames, tensors, data sets, lists; read, or refused."""

import itertools
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LinearRegression
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from serkit import Graph, Observation, datasets, metrics, plots
from serkit.errors import InputError
from serkit.messages import Data
from serkit.modules import (
    GMM,
    MLDA,
    VAE,
    GMMClassifier,
    NetClassifier,
    NetRegressor,
    Supervised,
)
from serkit.reading import labels_in, rows_in

ROWS = np.random.default_rng(0).random((5, 4))
NUMBERS = np.array([[1.0, 0.5], [0.0, 2.5], [1.0, 7.5]])  # columns that may be bool and float
MIXED = pd.DataFrame({"is_on": NUMBERS[:, 0] > 0, "size": NUMBERS[:, 1]})


# -- frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        MIXED,
        MIXED.astype({"is_on": "boolean", "size": "Float64"}),
        MIXED.astype({"is_on": "Int8", "size": "Float32"}),
        MIXED.convert_dtypes(dtype_backend="pyarrow"),
        MIXED.astype({"is_on": "category"}),
        MIXED.astype({"size": pd.SparseDtype(float)}),
        MIXED.assign(size=[Decimal("0.5"), Decimal("2.5"), 7.5]),
        pl.from_dict(MIXED.to_dict("list")),
        pa.table(MIXED.to_dict("list")),
    ],
    ids=["bool", "nullable", "Int8", "pyarrow", "category", "sparse", "Decimal", "polars", "arrow"],
)
def test_columns_of_numbers_of_any_type_are_rows(frame):
    observation = Observation(frame)
    np.testing.assert_array_equal(observation.data, NUMBERS)
    assert observation.feature_names_in_.tolist() == ["is_on", "size"]


@pytest.mark.parametrize("missing", [pd.NA, None, np.nan])
def test_what_a_frame_misses_is_named_like_any_nan(missing):
    frame = MIXED.astype({"size": "Float64"})
    frame.loc[1, "size"] = missing
    with pytest.raises(InputError, match=r"'f': NaN or infinity in 1 of 3 rows \(rows 1\)"):
        Observation(frame, name="f")
    with pytest.raises(InputError, match=r"NaN or infinity in 1 of 3 rows \(rows 1\)"):
        Observation(pl.DataFrame({"size": [1, None, 2]}))
    known = Observation(frame, observed=frame["size"].notna())
    assert known.observed.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("column", "value"),
    [(["a", "b", "c"], "'a'"), (pd.to_datetime(["2026-11-22"] * 3), "Timestamp"), ([1j] * 3, "1j")],
)
def test_a_column_that_is_no_number_is_named(column, value):
    frame = MIXED.assign(city=column)
    with pytest.raises(
        InputError, match=f"got dtype object, with .*{value}.* in row 0 of column 'c"
    ):
        Observation(frame)


def test_names_of_columns_that_cannot_be_kept():
    for names in (["a", 1], ["a", "a"]):
        with pytest.raises(
            InputError, match=r"'f': .*(Feature names are only|Expected unique col)"
        ):
            Observation(MIXED.set_axis(names, axis=1), name="f")
    assert not hasattr(Observation(MIXED.set_axis([0, 1], axis=1)), "feature_names_in_")


# -- names of columns --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    centres = np.repeat([[0.2] * 3, [0.8] * 3], 20, axis=0)
    return pd.DataFrame(centres + rng.normal(0, 0.01, (40, 3)), columns=["a", "b", "c"])


NET = {"epochs": 1, "hidden_sizes": (4,), "random_state": 0}
USES = {
    "GMM": (lambda f: GMM(2, random_state=0).fit(f), lambda m, f: m.score_samples(f)),
    "stream": (
        lambda f: GMM(2, random_state=0).partial_fit(f),
        lambda m, f: m.partial_fit(f),
    ),
    "VAE": (lambda f: VAE(2, **NET).fit(f), lambda m, f: m.reconstruct(f)),
    "MLDA": (lambda f: MLDA(2, random_state=0).fit(f), lambda m, f: m.transform(f)),
    "net": (
        lambda f: NetRegressor(torch.nn.Linear(3, 1), epochs=1).fit(f, f["a"]),
        lambda m, f: m.predict(f),
    ),
    "graph": (
        lambda f: Graph(GMM(2, random_state=0).connect(Observation(f))).fit(1, verbose=False),
        lambda m, f: m.predict(f),
    ),
    "module of a graph": (
        lambda f: GMM(2, random_state=0).connect(Observation(f)).update(),
        lambda m, f: m.score_samples(f),
    ),
}


@pytest.mark.parametrize("use", USES)
def test_names_are_checked_by_scikit_learns_rules(use, frame):
    """The texts are those of an estimator of its own."""
    learn, ask = USES[use]
    model, oracle = learn(frame), LinearRegression().fit(frame, frame["a"])
    ask(model, frame)
    for other in (frame[["c", "b", "a"]], frame[["a", "b"]], frame.rename(columns={"a": "z"})):
        with pytest.raises(ValueError, match="feature names") as wanted:
            oracle.predict(other)
        with pytest.raises(InputError) as error:
            ask(model, other)
        assert str(wanted.value) in str(error.value)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        ask(model, frame.to_numpy())


def test_several_parents_names_are_side_by_side(frame):
    parents = Observation(frame[["a"]]), Observation(frame[["c", "b"]], name="others")
    gmm = GMM(2, random_state=0).connect(*parents).update()
    assert gmm.feature_names_in_.tolist() == ["a", "c", "b"]
    with pytest.raises(InputError, match="names must be in the same order"):
        gmm.predict(frame)


def test_a_fit_to_an_array_forgets_names_and_one_that_fails_keeps_them(frame):
    gmm = GMM(2, random_state=0).fit(frame)
    with pytest.raises(InputError):
        gmm.fit(frame.iloc[:1, :2])
    assert gmm.feature_names_in_.tolist() == ["a", "b", "c"]
    assert not hasattr(gmm.fit(frame.to_numpy()), "feature_names_in_")


def test_a_loaded_graph_knows_the_names(tmp_path, frame):
    path = tmp_path / "graph.serkit"
    graph = Graph(GMM(2, random_state=0).connect(Observation(frame))).fit(1, verbose=False)
    graph.save(path)
    for data in (None, [frame]):
        loaded = Graph.load(path, data=data)
        np.testing.assert_array_equal(loaded.predict(frame).classes, graph.predict(frame).classes)
        for use in (loaded.predict, loaded["gmm"].predict):
            with pytest.raises(InputError, match="names must be in the same order"):
                use(frame[["b", "a", "c"]])
    with pytest.raises(InputError, match="names must be in the same order"):
        Graph.load(path, data=[frame[["b", "a", "c"]]])
    Graph.load(path, data=[Data(frame)]).fit(1, verbose=False)


# -- data sets ---------------------------------------------------------------------------------


class Endless(Dataset):
    """Five rows, and no IndexError after them; counts how many are read."""

    def __init__(self, item=lambda number: torch.full((5,), float(number))):
        self.item, self.n_read = item, 0

    def __len__(self):
        return 5

    def __getitem__(self, number):
        self.n_read += 1
        return self.item(number)


class Table:
    """As a data set of Hugging Face looks: dicts by index, columns by name; no array."""

    column_names = ("image", "label")

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, place):
        if isinstance(place, str):
            return [self[number][place] for number in range(len(self))]
        return {"image": ROWS[place].reshape(2, 2).tolist(), "label": "ab"[place % 2]}


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


NUMBERED = np.repeat(np.arange(5.0)[:, None], 5, axis=1)


@pytest.mark.parametrize(
    "dataset",
    [
        Endless(),
        Endless(lambda number: (torch.full((5,), number), number)),
        Endless(lambda number: [[float(number)] * 5, "label"]),
        Endless(lambda number: {"x": np.full(5, number), "target": 7}),
        TensorDataset(torch.tensor(NUMBERED)),
        TensorDataset(torch.tensor(NUMBERED), torch.arange(5)),
        Subset(TensorDataset(torch.tensor(NUMBERED).repeat(2, 1)), range(5)),
        DataLoader(TensorDataset(torch.tensor(NUMBERED)), batch_size=2, shuffle=True),
        DataLoader(Endless(), batch_size=3, drop_last=True),
        Stream([torch.full((5,), number) for number in range(5)]),
        Stream([(np.full(5, number), 0) for number in range(5)]),
        [Endless(lambda _, row=row: row) for row in range(5)],
        [torch.full((5,), number, requires_grad=True) for number in torch.arange(5.0)],
        [(torch.full((5,), number), number) for number in range(5)],
    ],
)
def test_data_sets_are_read_by_index_up_to_their_length(dataset):
    before = torch.get_rng_state()
    rows = Observation(dataset).data
    np.testing.assert_array_equal(rows, NUMBERED)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_of_a_dataset_of_tensors_have_their_own_shape():
    assert Observation(TensorDataset(torch.zeros(5, 64))).row_shape == (64,)


def test_no_more_is_read_than_there_is():
    dataset = Endless()
    Observation(dataset)
    assert dataset.n_read == 5


def test_data_sets_like_those_of_hugging_face():
    np.testing.assert_array_equal(Observation(Table()).data, ROWS.reshape(5, 2, 2))
    np.testing.assert_array_equal(Observation(Table()["image"]).data, ROWS.reshape(5, 2, 2))
    rows, labels = datasets.rows_and_labels(Table())
    np.testing.assert_array_equal(rows, ROWS.reshape(5, 2, 2))
    assert labels.tolist() == list("ababa")


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (Endless(lambda number: torch.zeros(number + 1)), r"row 1 has shape \(2,\), row 0 \(1,\)"),
        (Endless(lambda number: {"a": 1, "b": 2}), r"each row is a dict of \['a', 'b'\]; choose"),
        (Endless(lambda number: 1 / (number - 2)), "row 2 of a Endless cannot be read: ZeroDiv"),
        (Endless(lambda number: "text"), "expected real numbers, got dtype <U4"),
        (Endless(lambda number: 3.0), r"at least one row and one column.* got \(5,\)"),
        (Stream(itertools.repeat(np.zeros(1))), r"Stream without a length did not end .*islice\("),
        (TensorDataset(torch.zeros(0, 3)), "expected at least one row"),
        (type("Lengthless", (Dataset,), {})(), "Lengthless has no length; give it __len__"),
    ],
)
def test_data_sets_that_cannot_be_rows(dataset, text):
    with pytest.raises(InputError, match=f"^Observation 'set': .*{text}"):
        Observation(dataset, name="set")


def test_pairs_are_needed_for_labels():
    rows, labels = datasets.rows_and_labels(
        TensorDataset(torch.zeros(3, 2), torch.tensor([1, 0, 1]))
    )
    assert (rows.shape, labels.tolist()) == ((3, 2), [1, 0, 1])
    for unlabelled in (Endless(), [], ROWS, TensorDataset(torch.zeros(3, 2))):
        with pytest.raises(InputError, match="expected pairs of a row and a label"):
            datasets.rows_and_labels(unlabelled)


# -- arrays and tensors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        ROWS.astype(">f8"),
        ROWS.astype(">f4"),
        np.asfortranarray(ROWS),
        np.ma.masked_array(ROWS),
        ROWS.tolist(),
        [tuple(row) for row in ROWS],
        [torch.tensor(row) for row in ROWS],
        ROWS.astype(object),
        torch.tensor(ROWS, requires_grad=True),
        torch.tensor(ROWS).T.contiguous().T,
        torch.tensor(-1j * ROWS).conj().imag,  # whose sign torch keeps apart
    ],
)
def test_rows_in_any_layout(rows):
    np.testing.assert_allclose(Observation(rows).data, ROWS, rtol=1e-6)  # float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_short_floats_are_read_exactly(dtype):
    rows = torch.tensor([[0.5, 1.0], [2.0, 0.25]])
    np.testing.assert_array_equal(Observation(rows.to(dtype)).data, rows)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (torch.eye(2).to_sparse(), "cannot read a torch.sparse_coo tensor .*to_dense"),
        (torch.empty(2, 2, device="meta"), "tensor of torch.float32 on meta: .*no data"),
        (torch.eye(2) * 1j, "Complex data not supported, got dtype complex64"),
        ([torch.zeros(2), torch.zeros(3)], r"row 1 has shape \(3,\), row 0 \(2,\)"),
        ([[1, 2], [3, [4]]], "expected rows of equal length"),
        ([[10**400, 1]], "expected real numbers: int too large"),
        (np.zeros((2, 2), "timedelta64[s]"), "got dtype timedelta64"),
        (sparse.csr_array(ROWS), r"sparse rows \(5, 4\) .*rows.toarray\(\)"),
        (sparse.coo_matrix(ROWS), r"sparse rows \(5, 4\) .*rows.toarray\(\)"),
        ({"a": [1.0]}, r"expected rows, got a dict of \['a'\]"),
        ((row for row in ROWS), "expected real numbers, got a generator"),
        (np.ma.masked_array(ROWS, ROWS > 0.9), "NaN or infinity in . of 5 rows"),
        (np.ma.masked_array([[1, 2]], [[True, False]]), "NaN or infinity in 1 of 1 rows"),
        (pl.LazyFrame({"a": [1.0]}), "LazyFrame has no length"),
        (int, "expected real numbers, got a type"),
    ],
)
def test_arrays_and_tensors_that_cannot_be_rows(rows, text):
    with pytest.raises(InputError, match=f"^Observation 'rows': .*{text}"):
        Observation(rows, name="rows")


def test_masked_rows_may_be_missing_ones():
    masked = np.ma.masked_array(ROWS, np.arange(20).reshape(5, 4) < 3)
    observation = Observation(masked, observed=~masked.mask.any(axis=1))
    assert observation.observed.tolist() == [False, True, True, True, True]


def test_sparse_counts_are_learnt_from_as_dense_ones():
    counts = np.random.default_rng(0).poisson(1, (30, 6))
    dense, thin = (MLDA(2, random_state=0).fit(c) for c in (counts, sparse.csr_array(counts)))
    np.testing.assert_array_equal(dense.components_[0], thin.components_[0])


def test_rows_of_the_user_are_neither_changed_nor_copied():
    rows = ROWS.copy()
    rows.flags.writeable = False
    assert np.shares_memory(rows_in(rows, "rows"), rows)
    assert np.shares_memory(Observation(rows).data, rows)


# -- one row -----------------------------------------------------------------------------------


def test_one_row_can_be_looked_at_and_predicted(frame):
    one = Observation(frame.iloc[:1])
    assert (one.n_rows, one.message_up.shape) == (1, (3,))
    for graph in (
        Graph(GMM(2, random_state=0).connect(Observation(frame))),
        Graph(VAE(2, **NET).connect(Observation(frame))),
    ):
        messages = graph.fit(1, verbose=False).predict(frame.iloc[:1]).messages
        assert {message.n_rows for message in messages.values()} == {1}


@pytest.mark.filterwarnings("error")
def test_a_series_is_no_row_and_the_error_alone_says_so(frame):
    graph = Graph(GMM(2, random_state=0).connect(Observation(frame))).fit(1, verbose=False)
    with pytest.raises(InputError, match=r"\(1, -1\) if one row"):
        graph.predict(frame.iloc[0])


def test_learning_from_one_row_says_what_is_needed(frame):
    with pytest.raises(InputError, match="GMM: n_components=2 is more than the 1 rows"):
        GMM(2).connect(Observation(frame.iloc[:1])).update()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lengths": 20}, "lengths must be a sequence of integers >= 1, got 20"),
        ({"lengths": [2, "a"]}, "lengths must be a sequence of integers >= 1, got .2, 'a'"),
        ({"lengths": [2, 2]}, "lengths must be integers >= 1 that add up to the 5 rows, got .2, 2"),
        (
            {"observed": 20},
            "observed must hold one boolean for each of the 5 rows, got dtype int64",
        ),
        ({"observed": [[True], [True, False]]}, "observed must hold one boolean for each of the 5"),
        ({"name": np.ones(2)}, "name must be a string, got array"),
    ],
)
def test_options_of_an_observation(options, text):
    with pytest.raises(InputError, match=text):
        Observation(ROWS, **options)


# -- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "codes", "classes"),
    [
        ([2, 0, 2], [1, 0, 1], [0, 2]),
        ([True, False, None], [1, 0, -1], [False, True]),
        (["b", None, "a"], [1, -1, 0], ["a", "b"]),
        ([2.5, np.nan, 0.0], [1, -1, 0], [0.0, 2.5]),
        ([5, -1, 3], [1, -1, 0], [3, 5]),
        ([5.0, -1.0, 3.0], [1, -1, 0], [3.0, 5.0]),
        ([1, -1, 1, np.nan], [1, 0, 1, -1], [-1, 1]),
        (["b", "-1", "a"], [2, 0, 1], ["-1", "a", "b"]),
        ([np.int64(4), None, 2.0], [1, -1, 0], [2.0, 4.0]),
        ([torch.tensor(4), torch.tensor(2)], [1, 0], [2, 4]),
        (torch.tensor([4, 2, -1]), [1, 0, -1], [2, 4]),
        (np.array(["b", "a"], dtype=object), [1, 0], ["a", "b"]),
        (np.array([b"b", b"a"]), [1, 0], [b"a", b"b"]),
        (np.ma.masked_array([1, 7, 2], [False, True, False]), [0, -1, 1], [1, 2]),
        (pd.Series(["b", pd.NA, "a"], dtype="string"), [1, -1, 0], ["a", "b"]),
        (pd.Series([3, pd.NA, 1], dtype="Int64"), [1, -1, 0], [1, 3]),
        (pd.Series([True, None, False], dtype="boolean"), [1, -1, 0], [False, True]),
        (pd.Categorical(["b", None, "a"], categories=["z", "b", "a"]), [1, -1, 0], ["a", "b"]),
        (pd.Series(["b", None], dtype=pd.ArrowDtype(pa.string())), [0, -1], ["b"]),
        (pl.Series(["b", None, "a"]), [1, -1, 0], ["a", "b"]),
        (pl.Series(["b", None], dtype=pl.Categorical), [0, -1], ["b"]),
        (pa.chunked_array([["b", None], ["a"]]), [1, -1, 0], ["a", "b"]),
        ([], [], []),
    ],
)
def test_labels_of_any_kind(labels, codes, classes):
    found = labels_in(labels, "labels")
    assert found.codes.tolist() == codes
    assert found.classes.tolist() == classes
    assert found.known.tolist() == [code >= 0 for code in codes]


@pytest.mark.parametrize("kind", [pd.Series, np.array, list, pd.DatetimeIndex])
def test_dates_may_be_labels(kind):
    dates = pd.to_datetime(["2026-11-23", None, "2026-11-22"])
    found = labels_in(kind(dates), "labels")
    assert found.codes.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["a", 1], "labels must be of one kind, got 'a' and 1"),
        ([True, 2], "labels must be of one kind, got True and 2"),
        (np.array(["a", 1.5, None], dtype=object), "labels must be of one kind, got 'a' and 1.5"),
        ([None, None], "labels has no entry that is known"),
        (np.full(3, -1), "labels has no entry that is known"),
        ([1.0, np.inf], "labels contains infinity"),
        ([[0], [1]], "labels must be one class per row, .*got nested values"),
        ([[0], [1, 2]], "labels must be one class per row, .*got nested values"),
        (np.zeros((3, 1)), r"labels must be one class per row, .*got shape \(3, 1\)"),
        (3, r"labels must be one class per row, .*got shape \(\): 3"),
        ("cat", r"labels must be one class per row, .*got shape \(\): 'cat'"),
        ({"a": 1}, r"labels must be one class per row"),
        ([1j], "labels must be of numbers, text, booleans or dates"),
        (torch.zeros(2, device="meta"), "cannot read a torch.strided tensor"),
    ],
)
def test_labels_that_cannot_be_classes(labels, text):
    with pytest.raises(InputError, match=f"^GMM: {text}"):
        labels_in(labels, "GMM")


def test_labels_read_by_index_end():
    assert labels_in(Endless(lambda number: "ab"[number % 2]), "labels").codes.tolist() == [
        0,
        1,
    ] * 2 + [0]


KNOWN = np.arange(40) % 4 > 0
TRUE = np.repeat(["left", "right"], 20)
PARTLY = {
    "None": np.where(KNOWN, TRUE, None),
    "string": pd.Series(np.where(KNOWN, TRUE, None), dtype="string"),
    "category": pd.Series(np.where(KNOWN, TRUE, None), dtype="category"),
    "NaN": np.where(KNOWN, TRUE == "right", np.nan),
    "-1": np.where(KNOWN, TRUE == "right", -1),
}


@pytest.mark.parametrize("labels", PARTLY)
def test_scores_are_of_the_rows_whose_label_is_known(labels):
    clusters = np.random.default_rng(0).integers(-1, 3, 40)  # of clusters -1 is one
    for score in (metrics.accuracy, metrics.nmi, metrics.ari, metrics.purity):
        assert score(PARTLY[labels], clusters) == score(TRUE[KNOWN], clusters[KNOWN])
    counts, classes, _ = metrics.confusion(PARTLY[labels], clusters)
    assert (counts.sum(), len(classes)) == (KNOWN.sum(), 2)
    assert metrics.scores_of(PARTLY[labels], clusters) == metrics.clustering_scores(
        TRUE[KNOWN], clusters[KNOWN]
    )
    assert metrics.scores_of(PARTLY[labels], clusters[~KNOWN], ~KNOWN) == {}


@pytest.mark.parametrize("labels", PARTLY)
def test_a_classifier_learns_from_the_rows_whose_class_is_known(frame, labels):
    partly = GMMClassifier(1, random_state=0).fit(frame, PARTLY[labels])
    known = GMMClassifier(1, random_state=0).fit(frame[KNOWN], TRUE[KNOWN])
    np.testing.assert_array_equal(partly.means_, known.means_)
    assert len(partly.classes_) == 2
    module = GMMClassifier(1, labels=PARTLY[labels], random_state=0)
    module.connect(Observation(frame)).update()
    np.testing.assert_allclose(module.means_, known.means_, rtol=1e-6)  # of float64 rows
    assert module.scores() == {"accuracy": 1.0}
    assert module.n_outputs == 2


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (
            NUMBERED,
            pd.to_datetime(["2026-11-22", "2026-11-23"] * 2 + [None]),
            "classes must be num",
        ),
        (sparse.csr_array(NUMBERED), [0, 1, 0, 1, 0], "sparse rows .*toarray"),
        (NUMBERED, [0.1, 0.2, 0.3, 0.4, 0.5], "Unknown label type: continuous"),
    ],
)
def test_what_a_classifier_cannot_learn_from(x, y, text):
    with pytest.raises(InputError, match=f"^GMMClassifier: .*{text}"):
        GMMClassifier(1).fit(x, y)


def test_a_net_learns_from_the_rows_whose_class_is_known(frame):
    """What stands in the other rows makes no difference."""
    rows = frame.to_numpy(np.float32)
    spoilt = np.where(KNOWN[:, None], rows, 1e6)
    options = {"epochs": 2, "batch_size": 10, "random_state": 0}
    linear = torch.nn.Linear(3, 2)
    nets = [NetClassifier(linear, **options).fit(x, PARTLY["None"]) for x in (rows, spoilt)]
    assert nets[0].classes_.tolist() == ["left", "right"]
    assert torch.equal(*(net.net_.weight for net in nets))


def test_class_minus_one_is_unknown_to_supervised(frame):
    """As where its rows are marked as not observed."""
    labels = np.where(TRUE == "right", 1, 0)
    spoilt = Observation(np.where(KNOWN, labels, -1)[:, None], name="targets")
    masked = Observation(labels[:, None], observed=KNOWN, name="targets")
    found = []
    for targets in (spoilt, masked):
        gmm = GMM(2, random_state=0).connect(Observation(frame)).update()
        found.append(Supervised(random_state=0).connect(gmm, targets).update())
    for module in found:
        np.testing.assert_array_equal(module.messages_down[1].array.ravel(), labels)
        assert module.scores() == {"accuracy": 1.0}
        assert module.messages_down[0].observed.tolist() == KNOWN.tolist()
    found[-1].disconnect()
    numbers = Supervised(task="regression").connect(gmm, spoilt).update()
    assert numbers.messages_down[0].observed is None  # -1 is a number there


def test_minus_one_and_one_alone_are_two_classes(frame):
    labels = np.where(TRUE == "right", 1, -1)
    classifier = GMMClassifier(1, random_state=0).fit(frame, labels)
    assert classifier.predict(frame).tolist() == labels.tolist()
    targets = Observation(labels[:, None], observed=KNOWN, name="targets")
    gmm = GMM(2, random_state=0).connect(Observation(frame)).update()
    module = Supervised(random_state=0).connect(gmm, targets).update()
    np.testing.assert_array_equal(module.messages_down[1].array.ravel(), labels)
    assert module.messages_down[0].observed.tolist() == KNOWN.tolist()


@pytest.mark.parametrize("labels", [*PARTLY, "dates"])
def test_labels_never_cost_results(tmp_path, frame, labels):
    dates = pd.Series(np.where(TRUE == "right", "2026-11-22", "NaT").astype("datetime64[D]"))
    gmm = GMM(2, labels=dates if labels == "dates" else PARTLY[labels], random_state=0)
    graph = Graph(gmm.connect(VAE(2, **NET).connect(Observation(frame))))
    graph.fit(1, out=tmp_path / "out", checkpoint=tmp_path / "graph.serkit", verbose=False)
    assert "accuracy" in graph.history[0]["updates"][1]
    pictures = {"confusion.png", "latents_vae_after.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"history.json", *pictures}
    loaded = Graph.load(tmp_path / "graph.serkit", data=[frame])
    assert loaded["gmm"].scores() == gmm.scores()


def test_pictures_show_which_labels_are_unknown(frame):
    for projection in ("pca", "lda"):
        figure = plots.latents(frame, PARTLY["None"], KNOWN, projection=projection)
        names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert sorted(names) == ["left", "right", "unknown"]


@pytest.mark.parametrize("labels", [["a", 1] * 20, [None] * 40, [[1]] * 40])
def test_labels_that_cannot_be_scored_are_refused_before_training(tmp_path, frame, labels):
    gmm = GMM(2, labels=labels, random_state=0).connect(Observation(frame))
    with pytest.raises(InputError, match=r"^GMM: labels"):
        Graph(gmm).fit(1, out=tmp_path / "out", verbose=False)
    assert not gmm.history_

"""How modules hang together: connecting, finding, naming, ordering, checking and describing."""

import warnings

import numpy as np
import pytest

from serkit import Graph, Module, Observation
from serkit.errors import GraphError, InputError, MessageError, SerkitError
from serkit.messages import Categorical, Data, Gaussian
from serkit.modules import AE, GMM, VAE
from tests.helpers.modules import NET, KMeans, Teller, chain, uniform_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")

# -- connections -------------------------------------------------------------------------------


def test_connect_sets_parents_and_children_and_returns_self():
    observation, vae, gmm = Observation(uniform_rows()), VAE(2), GMM(2)
    assert vae.connect(observation) is vae
    assert gmm.connect(vae) is gmm
    assert (vae.parents, vae.children) == ((observation,), (gmm,))
    assert (observation.children, gmm.children) == ((vae,), ())
    assert gmm.ancestors() == [observation, vae]


def test_connecting_again_changes_nothing():
    vae, gmm = chain()
    sent = gmm.messages_down
    gmm.connect(vae)
    assert vae.children == (gmm,)
    assert gmm.messages_down is sent


def test_reconnecting_replaces_parents_and_forgets_what_was_sent():
    vae, gmm = chain()
    other = VAE(2, **NET).connect(Observation(uniform_rows(8)))
    gmm.connect(other)
    assert (vae.children, other.children, gmm.parents) == ((), (gmm,), (other,))
    assert gmm.message_up is None
    assert gmm.messages_down == ()
    other.update()
    assert gmm.update().message_up.n_rows == 8


def test_chain_trains_on_after_connecting_it_to_other_rows():
    vae, gmm = chain()
    vae.connect(Observation(uniform_rows(8, seed=1)))
    vae.update()
    gmm.update()
    assert vae.update().history_[-1]["epochs"] == 1
    assert gmm.messages_down[0].n_rows == 8


@pytest.mark.parametrize(
    ("parents", "text"),
    [
        (lambda gmm, vae: (), r"GMM 'top'\.connect\(\) needs at least one parent"),
        (lambda gmm, vae: (gmm,), "GMM 'top' cannot be connected to itself"),
        (lambda gmm, vae: (vae, vae), r"GMM 'top'\.connect\(\): the same parent is given twice"),
        (lambda gmm, vae: (np.ones((3, 2)),), "got a ndarray; wrap arrays as serkit.Observation"),
        (lambda gmm, vae: (VAE,), "expected serkit modules"),
        (lambda gmm, vae: (vae, None), "got a NoneType"),
    ],
    ids=["none", "itself", "twice", "array", "class", "None"],
)
def test_connect_refuses_and_keeps_the_old_parents(parents, text):
    vae, gmm = VAE(2), GMM(2, name="top")
    gmm.connect(vae)
    with pytest.raises(GraphError, match=text):
        gmm.connect(*parents(gmm, vae))
    assert (gmm.parents, vae.children) == ((vae,), (gmm,))


def test_connect_refuses_a_cycle():
    bottom, middle, top = (KMeans(2, name=name) for name in ("a", "b", "c"))
    middle.connect(bottom)
    top.connect(middle)
    with pytest.raises(GraphError, match="connecting KMeans 'a' to KMeans 'c' makes a cycle"):
        bottom.connect(top)
    assert bottom.parents == ()


def test_observation_takes_no_parents():
    with pytest.raises(GraphError, match="Observation 'o' holds data and takes no parents"):
        Observation(uniform_rows(), name="o").connect(VAE(2))


def test_disconnecting_leaves_the_parents_and_forgets_what_was_sent():
    vae, gmm = chain()
    assert vae.received_from_children() is not None
    assert gmm.disconnect() is gmm
    assert (vae.children, gmm.parents, gmm.posterior) == ((), (), None)
    assert vae.received_from_children() is None
    assert vae.posterior is not None


def test_a_second_child_of_the_same_class_is_named_in_a_warning():
    """A notebook cell that makes and connects a mixture, run again."""
    vae, gmm = chain()
    with pytest.warns(UserWarning, match=r"VAE already has GMM .* GMM 'again' too.*disconnect\(\)"):
        again = GMM(2, name="again").connect(vae)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.connect(vae)  # nothing new
        Teller(Gaussian.standard(20, 2)).connect(vae)
        VAE(2, name="other").connect(*vae.parents)  # an observation does not listen
    assert vae.children[:2] == (gmm, again)


# -- finding, naming and ordering --------------------------------------------------------------


def diamond():
    """Two observations, a VAE on each, a GMM on both VAEs, a second one on the first VAE."""
    images, speech = Observation(uniform_rows(), name="images"), Observation(uniform_rows(d=3))
    low, high = VAE(2, **NET).connect(images), VAE(3, **NET).connect(speech)
    return images, speech, low, high, GMM(2).connect(low, high), GMM(3, name="other").connect(low)


@pytest.mark.filterwarnings("ignore:not in this graph")
@pytest.mark.parametrize("leaf", range(6))
def test_a_graph_is_its_leaves_and_what_is_below(leaf):
    nodes = diamond()
    inside = Graph(nodes[leaf]).modules
    assert set(inside) == {nodes[leaf], *nodes[leaf].ancestors()}
    for node in inside:
        assert all(inside.index(parent) < inside.index(node) for parent in node.parents)


def test_children_outside_are_not_heard_and_named_once():
    *_, low, high, top, other = diamond()
    with pytest.warns(
        UserWarning, match=r"not heard by it: GMM 'other' \(connected to VAE\)"
    ) as seen:
        graph = Graph(top)
    assert len(seen) == 1
    assert graph.children_of(low) == [top]
    for module in (low, high, other):
        module.update()
    before = low.loss_curve_[-1]
    alone = diamond()
    alone[5].disconnect()
    alone[2].update()
    graph.fit(1, verbose=False)
    Graph(alone[4]).fit(1, verbose=False)
    assert other in low.children
    assert low.loss_curve_[-1] != before
    assert low.loss_curve_[-1] == alone[2].loss_curve_[-1]


def test_a_cell_run_again_trains_the_new_mixture_alone():
    """Case A3: the old mixtures are neither heard nor trained, and named."""
    vae = VAE(2, **NET).connect(Observation(uniform_rows()))
    for run in range(3):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            gmm = GMM(3, random_state=0).connect(vae)
            graph = Graph(gmm).fit(1, verbose=False)
        assert list(graph.names) == ["observation", "vae", "gmm"]
        assert [len(child.history_) for child in vae.children] == [1] * (run + 1)
        texts = [str(warning.message) for warning in warned]
        assert sum("already has GMM" in text for text in texts) == bool(run)
        assert sum("not heard by it: GMM" in text for text in texts) == bool(run)
    assert vae.received_from_children(graph.children_of(vae)).shape == (3,)


def test_a_graph_is_iterated_by_names_and_asked_for_names_and_modules():
    *_, high, top, other = diamond()
    graph = Graph(top, other)
    assert list(graph) == list(graph.names)
    assert len(graph) == 6
    assert ("vae" in graph, "gmm7" in graph, high in graph, GMM(2) in graph) == (1, 0, 1, 0)


def test_order_follows_the_parents_as_connected():
    images, speech, low, high, top, other = diamond()
    assert Graph(top, other).modules == [images, speech, low, high, top, other]
    assert Graph(other, top).modules == [images, speech, low, high, other, top]
    top.connect(high, low)
    assert Graph(top, other).observations == [speech, images]


def test_names_are_distinct():
    modules = diamond()
    names = Graph(*modules[4:]).names
    assert list(names) == ["images", "observation", "vae", "vae2", "gmm", "other"]
    assert list(names.values()) == list(modules)
    rows = Observation(uniform_rows())
    clash = [VAE(2, name="vae2"), VAE(2), VAE(2)]
    leaf = GMM(2).connect(*(vae.connect(rows) for vae in clash))
    assert list(Graph(leaf).names)[1:4] == ["vae2", "vae", "vae3"]


@pytest.mark.parametrize(
    ("leaves", "text"),
    [
        (lambda: (), r"needs at least one module, for example Graph\(gmm\)"),
        (lambda: (uniform_rows(),), "takes serkit modules, got a ndarray"),
        (lambda: (chain()[1], "gmm"), "takes serkit modules, got a str"),
        (lambda: (GMM(2, name="top"),), "GMM 'top' is not connected to anything below it"),
        (lambda: (GMM(2).connect(VAE(2)),), "VAE is not connected to anything below it: call conn"),
        (lambda: (*chain(), AE(2)), "AE is not connected to anything below it"),
    ],
    ids=["none", "array", "name", "alone", "no observation", "second part"],
)
def test_modules_that_make_no_graph_are_refused(leaves, text):
    with pytest.raises(GraphError, match=text):
        Graph(*leaves())


# -- checking every edge before training -------------------------------------------------------


def unequal_rows():
    parents = [VAE(2, **NET).connect(Observation(uniform_rows(n), name=f"o{n}")) for n in (20, 30)]
    return [GMM(2).connect(*parents)]


def unequal_rows_without_names():
    parents = [VAE(2, **NET).connect(Observation(uniform_rows(n))) for n in (20, 30)]
    return [GMM(2).connect(*parents)]


def latents_for_a_vae():
    below = VAE(2, name="below", **NET).connect(Observation(uniform_rows()))
    return [VAE(2, name="above", **NET).connect(below)]


def classes_for_a_gmm():
    below = GMM(2, name="below").connect(Observation(uniform_rows()))
    return [GMM(2, name="above").connect(below)]


def parent_that_sends_nothing():
    silent = Teller(Data(uniform_rows()), name="silent").connect(Observation(uniform_rows()))
    return [GMM(2).connect(silent)]


def child_whose_message_the_parent_cannot_take():
    gmm = GMM(2).connect(Observation(uniform_rows()))
    return [Teller(Gaussian.standard(20, 2), name="child").connect(gmm)]


def children_of_different_kinds():
    vae = VAE(2, **NET).connect(Observation(uniform_rows()))
    gmm = GMM(2).connect(vae)
    return [gmm, Teller(Gaussian.standard(20, 2), name="child").connect(vae)]


def labels_of_another_length():
    return [GMM(2, labels=[0, 1, 0]).connect(VAE(2, **NET).connect(Observation(uniform_rows())))]


def unknown_option():
    vae = VAE(2, **NET).connect(Observation(uniform_rows()))
    return [GMM(2, covariance_type="round", name="top").connect(vae)]


def frozen_before_learning():
    vae = VAE(2, **NET).connect(Observation(uniform_rows()))
    return [GMM(2, name="top").connect(vae).freeze()]


@pytest.mark.parametrize(
    ("leaves", "error", "text"),
    [
        (unequal_rows, InputError, "rows differ: Observation 'o20' has 20, Observation 'o30' has"),
        (unequal_rows_without_names, InputError, "numbers of rows differ: .*20.*30"),
        (latents_for_a_vae, GraphError, "VAE 'below' sends Gaussian messages to VAE 'above', whic"),
        (classes_for_a_gmm, GraphError, "GMM 'below' sends Categorical .* which takes Data or Gau"),
        (parent_that_sends_nothing, GraphError, "Teller 'silent' sends no message to GMM"),
        (
            child_whose_message_the_parent_cannot_take,
            GraphError,
            "Teller 'child' sends Gaussian messages to GMM, which takes Categorical",
        ),
        (children_of_different_kinds, (GraphError, MessageError), "Gaussian.*Mixture|Mixture.*Gau"),
        (labels_of_another_length, InputError, "GMM: labels has 3 entries for 20 rows"),
        (unknown_option, InputError, "GMM 'top': unknown covariance_type='round'; expected one of"),
        (frozen_before_learning, SerkitError, "GMM 'top' is frozen but has learnt nothing"),
    ],
)
def test_misfits_are_found_before_any_training(leaves, error, text):
    graph = Graph(*leaves())
    with pytest.raises(error, match=text):
        graph.fit(1, verbose=False)
    assert not any(node.history_ for node in graph.modules if isinstance(node, Module))
    assert graph.history == []


def test_graph_that_fits_passes_the_check():
    Graph(*diamond()[4:]).check()
    child = Teller(Categorical.uniform(20, 3)).connect(Observation(uniform_rows(d=4)))
    Graph(child).check()


def test_connecting_to_a_module_outside_the_graph_is_found():
    vae, gmm = chain()
    graph = Graph(gmm)
    vae.connect(Observation(uniform_rows(), name="new"))
    with pytest.raises(GraphError, match="Observation 'new'"):
        graph.fit(1, verbose=False)
    assert len(vae.history_) == 1


def test_a_module_disconnected_since_is_found():
    vae, gmm = chain()
    graph = Graph(gmm)
    gmm.disconnect()
    with pytest.raises(GraphError, match="GMM was disconnected after this graph was made"):
        graph.fit(1, verbose=False)
    assert len(vae.history_) == 1


# -- describing --------------------------------------------------------------------------------


def test_table_shows_modules_messages_and_state():
    lines = str(Graph(chain()[1].freeze())).splitlines()
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    cells = [[cell.strip() for cell in row] for row in cells]
    assert cells[0] == ["module", "class", "parents", "sends up", "sends down", "state"]
    assert cells[2:] == [
        ["observation", "Observation", "-", "Data(20, 4)", "-", "data"],
        ["vae", "VAE", "observation", "Gaussian(20, 2)", "Data(20, 4)", "learnt, 1 update"],
        ["gmm", "GMM", "vae", "Categorical(20, 2)", "Mixture(20, 2)", "learnt, 1 update, frozen"],
    ]


def test_table_before_training_shows_what_will_be_sent():
    modules = diamond()
    lines = str(Graph(*modules[4:])).splitlines()
    (line,) = (line.split() for line in lines if line.startswith("gmm"))
    assert " ".join(line) == "gmm GMM vae, vae2 Categorical(N, 2) Mixture(N, ?) new"


def test_mermaid_names_every_module_and_message():
    modules = diamond()
    graph = Graph(*modules[4:])
    lines = [line.strip() for line in graph.mermaid().splitlines()]
    assert lines[0] == "graph BT"
    assert 'vae["vae: VAE (2)"]' in lines
    assert "images -->|Data| vae" in lines
    assert "vae2 -->|Gaussian| gmm" in lines
    assert "gmm -.->|Mixture| vae2" in lines
    assert sum("-->" in line for line in lines) == sum("-.->" in line for line in lines) == 5
    assert len(lines) == 1 + 6 + 2 * 5

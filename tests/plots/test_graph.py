"""Pictures of a graph: where its boxes stand, and what its rounds reported."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from serkit import Observation
from serkit.errors import InputError
from serkit.messages import Categorical, Data
from serkit.modules import GMM, VAE
from serkit.plots import graph
from tests.helpers.modules import KMeans, uniform_rows
from tests.helpers.pictures import drawn, legend


def test_graph_puts_children_above_their_parents():
    rows = Observation(uniform_rows())
    vae = VAE(2).connect(rows)
    names = {"rows": rows, "vae": vae, "left": GMM(2).connect(vae), "right": KMeans(3).connect(vae)}
    (axis,) = drawn(graph.graph(names)).axes
    place = {text.get_text().split("\n")[0]: text.get_position() for text in axis.texts}
    assert place.keys() >= names.keys()
    assert place["rows"][1] < place["vae"][1] < place["left"][1] == place["right"][1]
    assert place["left"][0] < place["right"][0]
    captions = [text.get_text() for text in axis.texts]
    assert captions.count("Gaussian") == captions.count("Mixture") == 2


def test_rounds_show_scores_objective_and_changes():
    def update(module, **values):
        return {"module": module, "frozen": False, **values}

    history = [
        {
            "round": r,
            "updates": [
                update("vae", objective=-9.0 / r, loss=1.0),
                update("gmm", objective=-8.0 / r, accuracy=0.1 * r, nmi=0.2, **late),
            ],
        }
        for r, late in ((1, {}), (2, {"changed": 0.5}), (3, {"changed": 0.25}))
    ]
    scores, objective, changed = drawn(graph.rounds(history)).axes
    assert legend(scores) == ["gmm: accuracy", "gmm: nmi"]
    assert legend(objective) == ["after vae", "after gmm"]
    np.testing.assert_allclose(scores.lines[0].get_xydata(), [[1, 0.1], [2, 0.2], [3, 0.3]])
    path, after_vae, after_gmm = (line.get_ydata() for line in objective.lines)
    np.testing.assert_allclose(after_gmm, [-8, -4, -8 / 3])
    np.testing.assert_array_equal(path[0::2], after_vae)  # one line through all updates in turn
    np.testing.assert_array_equal(path[1::2], after_gmm)
    np.testing.assert_allclose(changed.lines[0].get_xydata(), [[2, 0.5], [3, 0.25]])


def test_several_updates_of_a_round_stand_side_by_side():
    update = {"module": "gmm", "accuracy": 0.5, "objective": -1.0}
    history = [{"round": r, "updates": [update] * 4} for r in (1, 2)]
    scores, objective = drawn(graph.rounds(history)).axes
    expected = np.arange(0.25, 2.1, 0.25)  # the last update of a round stands at its number
    np.testing.assert_allclose(scores.lines[0].get_xdata(), expected)
    np.testing.assert_allclose(objective.lines[0].get_xdata(), expected)


@pytest.mark.parametrize(("n", "ticks"), [(1, [1]), (8, range(1, 9)), (45, range(5, 46, 5))])
def test_ticks_are_rounds_and_panels_are_not_empty(n, ticks):
    vae = {"module": "vae", "objective": -9.0}
    history = [{"round": r, "updates": [vae, {**vae, "module": "gmm"}]} for r in range(1, n + 1)]
    (objective,) = drawn(graph.rounds(history)).axes
    assert objective.get_ylabel() == "joint objective (nats per row)"
    np.testing.assert_array_equal(objective.get_xticks(), ticks)


def test_rounds_of_which_nothing_is_reported_are_drawn():
    (axis,) = drawn(graph.rounds([{"round": 1, "updates": [{"module": "ae", "loss": 1.0}]}])).axes
    assert "nothing" in axis.get_ylabel()


def test_no_rounds_to_draw_says_so():
    with pytest.raises(InputError, match="no rounds to draw: fit the graph first"):
        graph.rounds([])


def test_runs_are_curves_over_each_other():
    def history(scores):
        return [
            {"round": n, "updates": [{"module": "vae", "loss": -s}, {"module": "gmm", "nmi": s}]}
            for n, s in enumerate(scores, 1)
        ]

    runs = {"<b>": history([0.1, 0.2]), "$x$": history([0.3, 0.5, 0.6])}
    figure = drawn(graph.runs(runs))
    assert [axis.get_title() for axis in figure.axes] == ["vae loss", "gmm nmi"]
    first, second = figure.axes[1].lines
    np.testing.assert_array_equal(first.get_xydata(), [[1, 0.1], [2, 0.2]])
    np.testing.assert_array_equal(second.get_xydata(), [[1, 0.3], [2, 0.5], [3, 0.6]])
    (box,) = figure.legends
    assert [text.get_text() for text in box.get_texts()] == ["<b>", "$x$"]


@pytest.mark.parametrize("histories", [{}, [], {"a": [1]}, {"a": [{"round": 1}]}, {"a": None}])
def test_runs_that_are_none_are_refused(histories):
    with pytest.raises(InputError, match=r"plots\.graph\.runs: "):
        graph.runs(histories)


class Both(KMeans):
    """Takes what a module and the data below it send."""

    takes_from_parents = (Data, Categorical)


def test_arrows_go_round_boxes_that_are_between():
    obs = Observation(uniform_rows(9, 3), name="rows")
    gmm = GMM(2, name="middle").connect(obs)
    top = Both(2, name="top").connect(obs, gmm)
    figure = drawn(graph.graph({node.name: node for node in (obs, gmm, top)}))
    (axis,) = figure.axes
    (box,) = [text for text in axis.texts if text.get_text().startswith("middle")]
    middle = box.get_bbox_patch().get_window_extent()
    arrows = [text.arrow_patch for text in axis.texts if getattr(text, "arrow_patch", None)]
    paths = [arrow.get_transform().transform_path(arrow.get_path()) for arrow in arrows]
    lines = [path.interpolated(1).to_polygons(closed_only=False)[0] for path in paths]
    longest = max(lines, key=lambda line: np.ptp(line[:, 1]))
    assert np.ptp(longest[:, 1]) > 3 * middle.height  # from the data to the top
    assert not any(middle.contains(*point) for point in longest)
    assert all(figure.bbox.contains(*point) for line in lines for point in line)


def test_graph_is_drawn_into_an_axis():
    figure = Figure()
    assert graph.graph({"rows": Observation(uniform_rows(9, 3))}, ax=figure.subplots()) is figure

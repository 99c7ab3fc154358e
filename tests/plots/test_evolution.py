"""Latents by round."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from serkit import Graph, Observation, plots
from serkit.errors import InputError, OutputError
from serkit.modules import AE, GMM
from tests.helpers.modules import uniform_rows
from tests.helpers.pictures import drawn

LABELS = np.arange(30) % 3


@pytest.fixture(scope="module")
def graph():
    ae = AE(3, epochs=2, hidden_sizes=(4,), random_state=0).connect(
        Observation(uniform_rows(30, 5))
    )
    gmm = GMM(2, labels=LABELS, random_state=0).connect(ae)
    return Graph(gmm).fit(3, keep_latents=True, verbose=False)


def points(axis):
    return np.concatenate([cloud.get_offsets() for cloud in axis.collections])


def test_rounds_are_drawn_in_the_plane_of_the_last(graph):
    axes = drawn(plots.evolution(graph)).axes
    assert [axis.get_title() for axis in axes] == ["round 1", "round 2", "round 3"]
    z = graph["ae"].message_up.mean
    alone = plots.latents(z, clusters=graph["gmm"].posterior.clusters)
    expected = sorted(map(tuple, np.round(points(alone.axes[0]), 6)))
    assert sorted(map(tuple, np.round(points(axes[2]), 6))) == expected
    assert len({axis.get_xlim() for axis in axes}) == 1


def test_of_many_rounds_some_are_drawn_and_the_gif_has_all(graph, tmp_path):
    kept = [{**graph.latents_by_round[0], "round": n} for n in range(1, 15)]
    many = SimpleNamespace(names=graph.names, latents_by_round=kept)
    axes = plots.evolution(many, path=tmp_path / "rounds.gif", duration=100).axes
    assert len(axes) == 12
    assert (axes[0].get_title(), axes[-1].get_title()) == ("round 1", "round 14")
    with Image.open(tmp_path / "rounds.gif") as gif:
        assert gif.info["duration"] == 100
        assert 1 <= gif.n_frames <= 14


def test_gif_has_a_frame_a_round(graph, tmp_path):
    plots.evolution(graph, path=tmp_path / "rounds.gif")
    with Image.open(tmp_path / "rounds.gif") as gif:
        assert gif.n_frames == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"module": "vae"}, "no latents of 'vae' are kept, but of ae"),
        ({"labels": LABELS[:5]}, r"labels must be of all rows, 30 or more, got shape \(5,\)"),
        ({"duration": 0}, "duration must be an integer >= 1, got 0"),
        ({"path": 1}, "path must be a path"),
    ],
)
def test_what_cannot_be_drawn_is_refused(graph, options, text):
    with pytest.raises(InputError, match=text):
        plots.evolution(graph, **options)


def test_no_rounds_and_no_place_are_told(graph, tmp_path):
    with pytest.raises(InputError, match="no latents are kept; fit the graph with keep_latents"):
        plots.evolution(Graph(graph["gmm"]))
    with pytest.raises(InputError, match="graph must be a Graph, got 3"):
        plots.evolution(3)
    with pytest.raises(OutputError, match="cannot write"):
        plots.evolution(graph, path=tmp_path / "nowhere" / "rounds.gif")

"""Pictures: each function returns a figure that shows what it was given."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from test_module import KMeans, uniform_rows

from serkit import Observation, metrics, plots
from serkit.errors import InputError
from serkit.modules import GMM, VAE

LABELS = np.repeat(["cat", "dog", "owl"], 10)
CLUSTERS = np.arange(30) % 4


@pytest.fixture(autouse=True)
def pyplot_stays_untouched():
    before = dict(matplotlib.rcParams), matplotlib.get_backend()
    yield
    assert pyplot.get_fignums() == []
    assert (dict(matplotlib.rcParams), matplotlib.get_backend()) == before


def latents(d=5):
    return np.random.default_rng(0).standard_normal((30, d))


def points(axis):
    """All points of an axis' scatters, (N, 2)."""
    return np.concatenate([np.asarray(scatter.get_offsets()) for scatter in axis.collections])


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def drawn(figure):
    """Renders it, which finds what building alone does not."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure


@pytest.mark.parametrize(
    ("labels", "clusters", "titles"),
    [
        (None, None, [""]),
        (LABELS, None, ["by true label"]),
        (None, CLUSTERS, ["by cluster"]),
        (LABELS, CLUSTERS, ["by true label", "by cluster"]),
    ],
)
def test_latents_has_a_panel_a_colouring(labels, clusters, titles):
    figure = drawn(plots.latents(latents(), labels, clusters, title="z"))
    assert [axis.get_title() for axis in figure.axes] == titles
    assert [len(points(axis)) for axis in figure.axes] == [30] * len(titles)
    assert figure.get_suptitle() == "z"
    if labels is not None:
        assert legend(figure.axes[0]) == ["cat", "dog", "owl"]
    if clusters is not None:
        assert legend(figure.axes[-1]) == ["0", "1", "2", "3"]


def test_latents_are_shown_along_their_principal_components():
    shown = points(plots.latents(latents()).axes[0])
    np.testing.assert_allclose(shown, PCA(2).fit_transform(latents()))
    np.testing.assert_array_equal(points(plots.latents(latents(2)).axes[0]), latents(2))


@pytest.mark.parametrize("labels", [None, LABELS])
def test_latents_of_one_dimension_can_be_shown(labels):
    assert len(points(drawn(plots.latents(latents(1), labels)).axes[0])) == 30


@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7), (2, 3, 1, 5, 7), (2, 3, 3, 5, 7), (2, 3, 16)], ids=str
)
def test_image_grid_shows_every_image_in_its_place(shape):
    images = np.random.default_rng(0).uniform(size=shape)
    figure = drawn(plots.image_grid(images, row_titles=["a", "b"], title="grid"))
    assert len(figure.axes) == 6
    for axis, image in zip(figure.axes, images.reshape(6, *shape[2:]), strict=True):
        shown = np.asarray(axis.images[0].get_array())
        if image.ndim == 3:
            image = np.moveaxis(image, 0, -1)
        np.testing.assert_array_equal(shown.ravel(), image.ravel())
        assert axis.images[0].get_clim() == (0, 1)
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["a", "b"]


@pytest.mark.parametrize("shape", [(1, 2, 12), (1, 2, 2, 4, 4), (1, 2)], ids=str)
def test_rows_that_are_no_images_are_refused(shape):
    with pytest.raises(InputError, match="cannot show rows of"):
        plots.image_grid(np.zeros(shape))


def test_reconstructions_stand_below_their_rows():
    rows = np.random.default_rng(0).uniform(size=(7, 4, 4))
    figure = drawn(plots.reconstructions(rows, 1 - rows, n_shown=3))
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    np.testing.assert_array_equal(shown, np.concatenate([rows[:3], 1 - rows[:3]]))
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["data", "reconstruction"]
    assert len(plots.reconstructions(rows, rows).axes) == 14


def test_samples_have_a_row_a_cluster():
    figure = drawn(plots.samples(np.zeros((3, 4, 5, 5))))
    assert len(figure.axes) == 12
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == [f"cluster {k}" for k in range(3)]


def test_losses_have_a_panel_a_term_and_a_line_between_updates():
    curve = [
        {"update": u, "epoch": e, "loss": 10.0 * u - e, "kl": 1.0 * e}
        for u, n in ((1, 3), (2, 2), (3, 1))
        for e in range(1, n + 1)
    ]
    figure = drawn(plots.losses(curve, title="vae"))
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss (nats a row)", "kl (nats a row)"]
    for axis, term in zip(figure.axes, ("loss", "kl"), strict=True):
        line, *between = axis.lines
        np.testing.assert_array_equal(line.get_ydata(), [entry[term] for entry in curve])
        assert [separator.get_xdata()[0] for separator in between] == [3, 5]


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
    scores, objective, changed = drawn(plots.rounds(history)).axes
    assert legend(scores) == ["gmm: accuracy", "gmm: nmi"]
    assert legend(objective) == ["after vae", "after gmm"]
    np.testing.assert_allclose(scores.lines[0].get_xydata(), [[1, 0.1], [2, 0.2], [3, 0.3]])
    path, after_vae, after_gmm = (line.get_ydata() for line in objective.lines)
    np.testing.assert_allclose(after_gmm, [-8, -4, -8 / 3])
    np.testing.assert_array_equal(path[0::2], after_vae)  # one line through all updates in turn
    np.testing.assert_array_equal(path[1::2], after_gmm)
    np.testing.assert_allclose(changed.lines[0].get_xydata(), [[2, 0.5], [3, 0.25]])


@pytest.mark.parametrize(
    ("function", "text"),
    [(plots.losses, "no epochs to draw: train first"), (plots.rounds, "no rounds to draw: fit")],
)
def test_nothing_to_draw_says_so(function, text):
    with pytest.raises(InputError, match=text):
        function([])


def test_log_likelihood_is_drawn_by_iteration():
    (axis,) = drawn(plots.log_likelihood([-3.0, -2.0, -1.5])).axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0, -3], [1, -2], [2, -1.5]])


def test_confusion_shows_matched_counts_and_accuracy():
    clusters = np.where(CLUSTERS == 3, 0, CLUSTERS) + 5 * (LABELS == "owl")
    (axis,) = drawn(plots.confusion(LABELS, clusters)).axes
    counts, classes, columns = metrics.confusion(LABELS, clusters)
    np.testing.assert_array_equal(axis.images[0].get_array(), counts)
    assert [tick.get_text() for tick in axis.get_yticklabels()] == list(classes)
    assert [int(tick.get_text()) for tick in axis.get_xticklabels()] == list(columns)
    written = {text.get_position()[::-1]: int(text.get_text()) for text in axis.texts}
    assert written == {(i, j): n for (i, j), n in np.ndenumerate(counts) if n}
    assert axis.get_title() == f"accuracy {metrics.accuracy(LABELS, clusters):.3f}"


def test_confusion_needs_as_many_labels_as_clusters():
    with pytest.raises(InputError, match=r"same length, .* \(30,\) and \(29,\)"):
        plots.confusion(LABELS, CLUSTERS[1:])


def test_graph_puts_children_above_their_parents():
    rows = Observation(uniform_rows())
    vae = VAE(2).connect(rows)
    names = {"rows": rows, "vae": vae, "left": GMM(2).connect(vae), "right": KMeans(3).connect(vae)}
    (axis,) = drawn(plots.graph(names)).axes
    place = {text.get_text().split("\n")[0]: text.get_position() for text in axis.texts}
    assert place.keys() >= names.keys()
    assert place["rows"][1] < place["vae"][1] < place["left"][1] == place["right"][1]
    assert place["left"][0] < place["right"][0]
    captions = [text.get_text() for text in axis.texts]
    assert captions.count("Gaussian") == captions.count("Mixture") == 2

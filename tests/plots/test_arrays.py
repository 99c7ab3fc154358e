"""Pictures: each function returns a figure that shows what it was given."""

import re
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path
from sklearn.decomposition import PCA

from serkit import MixtureDensity, metrics, plots
from serkit.errors import InputError
from serkit.modules import NetClassifier
from serkit.plots.projection import project
from tests.helpers.pictures import drawn, legend, titles

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


def colour_of(scatter):
    return to_hex(scatter.get_facecolor()[0])


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
        matches = {} if labels is None else metrics.matching(labels, clusters)
        named = {k: f"{k} (label {label})" for k, label in matches.items()}
        assert legend(figure.axes[-1]) == [named.get(k, str(k)) for k in range(4)]
        assert len(named) == (0 if labels is None else 3)


def test_latents_are_shown_along_their_principal_components():
    shown = points(plots.latents(latents()).axes[0])
    np.testing.assert_allclose(shown, PCA(2).fit_transform(latents()))
    np.testing.assert_array_equal(points(plots.latents(latents(2)).axes[0]), latents(2))


@pytest.mark.parametrize("labels", [None, LABELS])
def test_latents_of_one_dimension_can_be_shown(labels):
    assert len(points(drawn(plots.latents(latents(1), labels)).axes[0])) == 30


def test_panels_name_the_projection_and_one_class_has_one_colour():
    z = latents() + 4 * (LABELS == "owl")[:, None]
    figure = drawn(plots.latents(z, LABELS, (LABELS == "owl") + 3, projection="lda"))
    by_label, by_cluster = figure.axes
    np.testing.assert_allclose(points(by_label), project(z, LABELS, "lda", 2))
    assert (by_label.get_xlabel(), by_label.get_ylabel()) == ("LDA 1", "LDA 2")
    cats, dogs, owls = map(colour_of, by_label.collections)
    others, owls_cluster = map(colour_of, by_cluster.collections)
    assert owls_cluster == owls != others
    assert others in (cats, dogs)


@pytest.mark.parametrize("n", [20, 23, 90])
def test_every_label_and_cluster_is_drawn_and_looks_like_no_other(n):
    labels, clusters = np.arange(2 * n) % n, np.arange(2 * n) % (n + 7)
    figure = drawn(
        plots.latents(np.random.default_rng(0).normal(size=(2 * n, 3)), labels, clusters)
    )
    for axis, n_classes in zip(figure.axes, (n, n + 7), strict=True):
        assert len(points(axis)) == 2 * n
        assert [name.split(" (")[0] for name in legend(axis)] == [str(k) for k in range(n_classes)]
        looks = [(colour_of(c), c.get_paths()[0].vertices.tobytes()) for c in axis.collections]
        assert len(set(looks)) == n_classes
        assert len({colour for colour, _ in looks}) == 10
        place = axis.get_legend().get_window_extent()
        others = [panel.get_window_extent() for panel in figure.axes]
        assert not any(place.overlaps(other) for other in others)


def test_clusters_without_a_label_have_colours_that_no_label_has():
    by_label, by_cluster = plots.latents(latents(), LABELS, np.arange(30) % 10).axes
    colours = [colour_of(cluster) for cluster in by_cluster.collections]
    assert len(set(colours)) == 10
    assert {colour_of(label) for label in by_label.collections} <= set(colours)


@pytest.mark.parametrize("unknown", [None, np.nan, -1])
@pytest.mark.parametrize("projection", ["pca", "lda"])
def test_rows_of_unknown_labels_are_drawn_in_grey(unknown, projection):
    labels = np.tile(np.array([unknown, 1, 2], dtype=object), 10).tolist()
    (axis,) = drawn(plots.latents(latents(), labels, projection=projection)).axes
    assert legend(axis) == ["1", "2", "unknown"]
    assert [len(cloud.get_offsets()) for cloud in axis.collections] == [10, 10, 10]
    assert colour_of(axis.collections[-1]) == to_hex("0.8")


def test_a_legend_of_more_than_fit_counts_the_rest():
    (axis,) = drawn(plots.latents(latents(), np.arange(30))).axes
    assert len(legend(axis)) == 30
    z = np.random.default_rng(0).normal(size=(130, 2))
    (axis,) = drawn(plots.latents(z, np.arange(130))).axes
    assert legend(axis)[-2:] == ["98", "and 31 more"]
    assert len(axis.collections) == 130


# what Matplotlib, LaTeX, plotly or a browser would take for markup, or could not break
TEXTS = ["$x_1$", "_b", r"$\frac{", "a^2 $", "<b>c</b>", "50%", "two\nlines", "Ж Ω é", "e" * 200]


@pytest.mark.filterwarnings("error")
def test_long_names_in_a_legend_are_told_apart():
    names = [f"what all names begin with, number {k}, and end with alike" for k in (7, 8)]
    figure = drawn(plots.log_likelihood({name: [1.0, 2.0] for name in names}))
    assert legend(figure.axes[0]) == ["…7…", "…8…"]


@pytest.mark.parametrize("usetex", [False, True])
def test_text_of_users_is_no_markup(usetex):
    names = np.array(TEXTS)
    shown = sorted(
        {*TEXTS[:6], "two lines", "Ж Ω é", "e" * 26 + "…" + "e" * 13}, key=lambda t: t.split()[0]
    )
    labels, square = np.tile(names, 2), np.eye(len(names))
    with matplotlib.rc_context({"text.usetex": usetex}):
        figures = [
            plots.latents(np.random.default_rng(0).normal(size=(18, 3)), labels, title="$\\x$"),
            plots.confusion(labels, np.arange(18)),
            plots.heat_map(square, names, title="_ $", label="$ $"),
            plots.samples(np.zeros((9, 2, 4, 4)), names=names),
            plots.log_likelihood({text: [1.0, 2.0] for text in TEXTS}, title="$x$"),
            plots.profiles(square, names=names, title="$x$"),
            plots.profiles(np.tile(square, 5), np.arange(9) % 2, names=np.tile(names, 5)),
        ]
    for figure in figures:
        drawn(figure)
    assert sorted(legend(figures[0].axes[0]), key=lambda t: t.split()[0]) == shown
    assert set(legend(figures[4].axes[0])) == set(titles(figures[1].axes[0].yaxis)) == set(shown)
    assert {axis.get_title() for axis in figures[5].axes} == set(shown)


def test_text_of_users_is_no_markup_on_a_page():
    figure = plots.latents_3d(latents(), np.tile(["<b>c</b>", "$x$", "a&b"], 10), title="<i>")
    names = {trace.name for trace in figure.data}
    assert names == {"&lt;b&gt;c&lt;/b&gt;", "&#36;x&#36;", "a&amp;b"}
    assert figure.layout.title.text == "&lt;i&gt;"


def test_letters_that_the_usual_font_lacks_come_from_another():
    letter = "\u20d2"  # in STIX, which comes with Matplotlib, and not in DejaVu Sans
    (axis,) = plots.latents(latents(), np.tile(["a", letter], 15)).axes
    usual, other = [text.get_fontfamily() for text in axis.get_legend().get_texts()]
    assert len(usual) == 1
    assert other[:1] == usual
    assert other[1:] == ["STIXGeneral"]


def test_pictures_of_very_many_classes_stay_small():
    classes = np.arange(1000)
    for figure in (plots.confusion(classes, classes), plots.samples(np.zeros((1000, 8, 2, 2)))):
        assert max(figure.get_size_inches()) * 120 < 2**16  # pixels, the most that Agg draws


def test_notebooks_show_pictures():
    figure = plots.latents(latents(), LABELS)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []


def test_profiles_show_means_and_deviations_in_units_of_the_columns():
    rows = latents(3) * (1, 1e-3, 1e6)
    figure = drawn(plots.profiles(rows, CLUSTERS, labels=LABELS, names=["a", "b", "c"], title="t"))
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    for axis, column in zip(figure.axes, rows.T, strict=True):
        for k, (line, _, (bar,)) in enumerate(axis.containers):
            x = column[k == CLUSTERS]
            np.testing.assert_allclose(line.get_ydata().astype(float), [x.mean()])
            ends = [x.mean() - x.std(), x.mean() + x.std()]
            np.testing.assert_allclose(bar.get_segments()[0][:, 1], ends)
    (box,) = figure.legends
    named = [text.get_text() for text in box.get_texts()]
    assert named == legend(plots.latents(rows, LABELS, CLUSTERS).axes[1])
    assert sum("(label " in name for name in named) == 3
    assert "one standard deviation" in figure.get_supxlabel()
    panel = plots.latents(rows, LABELS, CLUSTERS).axes[1]
    colours = [colour_of(scatter) for scatter in panel.collections]
    assert [to_hex(line.get_color()) for line, *_ in figure.axes[0].containers] == colours


def test_topics_of_many_named_words_show_those_that_tell_most():
    phi = np.full((2, 50), 0.01)
    phi[:, 20] = 0.3  # in both topics, and so of no use
    phi[0, 7], phi[1, 3] = 0.2, 0.2
    words = [f"word {w}" for w in range(50)]
    axis, bar = drawn(plots.topics({"text": phi}, words={"text": words}, names="ab")).axes
    first = axis.images[0].get_array()[:, :1]
    assert titles(axis.xaxis)[0] == "word 7"
    assert "word 3" in titles(axis.xaxis)
    assert "word 20" not in titles(axis.xaxis)
    np.testing.assert_array_equal(first, phi[:, [7]])
    assert (titles(axis.yaxis), axis.get_title()) == (["a", "b"], "text")
    assert bar.get_ylabel() == "P(word | topic)"
    whole = drawn(plots.topics(phi)).axes[0].images[0].get_array()
    np.testing.assert_array_equal(whole, phi)


@pytest.mark.parametrize("components", [[1.0, 2.0], {"a": np.eye(2), "b": np.eye(3)}, {}])
def test_topics_need_as_many_by_modality(components):
    with pytest.raises(InputError, match=r"plots.topics: components must be \(K, W\)"):
        plots.topics(components)


def test_profiles_of_many_columns_are_curves():
    rows = np.random.default_rng(0).normal(size=(30, 50))
    (axis,) = drawn(plots.profiles(rows, CLUSTERS)).axes
    for k, line in enumerate(axis.lines):
        np.testing.assert_allclose(line.get_ydata(), rows[k == CLUSTERS].mean(axis=0))
    assert legend(axis) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        (np.zeros((3, 2, 2)), {}, r"table of shape \(N, D\), got \(3, 2, 2\)"),
        (np.zeros((3, 2)), {"names": "abc"}, "expected 2 names, got 3: a, b, c"),
        (np.zeros((3, 2)), {"clusters": [0, 1]}, "a label for each of 3 rows"),
    ],
    ids=["images", "names", "clusters"],
)
def test_profiles_need_a_table(rows, options, text):
    with pytest.raises(InputError, match=text):
        plots.profiles(rows, **options)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("projection", ["pca", "lda"])
def test_latents_3d_has_a_trace_a_class_in_the_colours_of_the_plane(d, projection):
    z = latents(d)
    figure = plots.latents_3d(z, LABELS, projection=projection, title="z")
    assert [trace.name for trace in figure.data] == ["cat", "dog", "owl"]
    space = project(z, LABELS, projection, 3)
    plane = plots.latents(z, LABELS).axes[0].collections
    for trace, label, scatter in zip(figure.data, ("cat", "dog", "owl"), plane, strict=True):
        shown = np.stack([trace.x, trace.y, trace.z], axis=1)
        np.testing.assert_array_equal(shown, space[label == LABELS])
        assert trace.marker.color == colour_of(scatter)
        assert trace.showlegend
    assert figure.layout.title.text == "z"
    assert figure.layout.scene.zaxis.title.text == f"{projection.upper()} 3"


def test_latents_3d_without_labels_is_one_trace():
    (trace,) = plots.latents_3d(latents()).data
    np.testing.assert_allclose(
        np.stack([trace.x, trace.y, trace.z], axis=1), PCA(3).fit_transform(latents())
    )
    assert not trace.showlegend


def test_the_page_of_latents_3d_needs_no_network(tmp_path):
    plots.latents_3d(latents(), LABELS).write_html(tmp_path / "latents.html")
    page = (tmp_path / "latents.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*\bsrc=", page)
    assert not re.search(r"<link[^>]*\bhref=", page)
    assert len(page) > 1e6  # the library itself


def test_latents_3d_says_how_to_install_plotly(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    text = re.escape("latents_3d needs plotly: pip install '.[interactive]'")
    with pytest.raises(ImportError, match=text):
        plots.latents_3d(latents())


@pytest.mark.parametrize("draw", [plots.latents, plots.latents_3d])
def test_labels_must_be_one_a_row(draw):
    with pytest.raises(InputError, match=r"a label for each of 30 rows, got shape \(29,\)"):
        draw(latents(), LABELS[1:])


def test_losses_have_a_panel_a_term_and_a_line_between_updates():
    curve = [
        {"update": u, "epoch": e, "loss": 10.0 * u - e, "kl": 1.0 * e}
        for u, n in ((1, 3), (2, 2), (3, 1))
        for e in range(1, n + 1)
    ]
    figure = drawn(plots.losses(curve, title="vae"))
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "loss (nats per row)",
        "kl (nats per row)",
    ]
    for axis, term in zip(figure.axes, ("loss", "kl"), strict=True):
        line, *between = axis.lines
        np.testing.assert_array_equal(line.get_ydata(), [entry[term] for entry in curve])
        assert [separator.get_xdata()[0] for separator in between] == [3, 5]


def test_held_out_loss_shares_the_panel_of_the_loss():
    curve = [{"update": 1, "epoch": e, "loss": 10.0 - e, "kl": 1.0 * e} for e in (1, 2)]
    curve += [{**entry, "update": 2, "held_out_loss": 20.0} for entry in curve]
    loss, kl = drawn(plots.losses(curve)).axes
    assert legend(loss) == ["loss", "held out loss"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [9, 8, 9, 8])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [np.nan, np.nan, 20, 20])
    np.testing.assert_array_equal(kl.lines[0].get_ydata(), [1, 2, 1, 2])
    assert kl.get_legend() is None


def test_no_epochs_to_draw_says_so():
    with pytest.raises(InputError, match="no epochs to draw: train first"):
        plots.losses([])


def test_log_likelihood_is_drawn_by_iteration():
    (axis,) = drawn(plots.log_likelihood([-3.0, -2.0, -1.5], title="EM")).axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0, -3], [1, -2], [2, -1.5]])
    assert axis.get_legend() is None
    assert axis.get_title() == "EM"


def test_log_likelihoods_of_several_mixtures_are_named():
    (axis,) = drawn(plots.log_likelihood({"cat": [-3.0, -2.0], "dog": np.array([-1.5])})).axes
    assert legend(axis) == ["cat", "dog"]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [-3, -2])
    np.testing.assert_array_equal(axis.lines[1].get_xydata(), [[0, -1.5]])


def test_log_likelihoods_of_updates_are_as_wide_and_parted_by_rounds():
    curves = [[-4.0, -3.0], [-2.5], {"cat": [-2.0, -1.0, -1.0, -1.0]}]
    (axis,) = drawn(plots.log_likelihood(curves, rounds=[1, 2, 2], per="token")).axes
    *lines, between = axis.lines
    places = [line.get_xdata().tolist() for line in lines]
    assert places == [[0.5, 1], [2], [2.25, 2.5, 2.75, 3]]
    assert between.get_xdata() == [1, 1]
    assert titles(axis.xaxis) == ["1", "2"]
    labels = axis.get_xlabel(), axis.get_ylabel()
    assert labels == ("round", "log-likelihood (nats per token)")
    assert plots.log_likelihood(curves).axes[0].get_xlabel() == "update"


@pytest.mark.parametrize(
    ("curves", "rounds", "text"),
    [
        ([[1.0], [2.0]], [1], "rounds must be 2, one for each update, got 1"),
        ([1.0, 2.0], [1, 2], "rounds needs curves to be a list"),
        ([[1.0], [2.0]], [1, -1], "rounds must be a list"),
        ([[[1.0]]], None, "curves must be a list of numbers, several by name"),
    ],
)
def test_rounds_and_curves_that_do_not_fit_are_refused(curves, rounds, text):
    with pytest.raises(InputError, match=text):
        plots.log_likelihood(curves, rounds=rounds)


def test_confusion_shows_matched_counts_and_accuracy():
    clusters = np.where(CLUSTERS == 3, 0, CLUSTERS) + 5 * (LABELS == "owl")
    (axis,) = drawn(plots.confusion(LABELS, clusters)).axes
    counts, classes, columns = metrics.confusion(LABELS, clusters)
    np.testing.assert_array_equal(axis.images[0].get_array(), counts)
    assert [tick.get_text() for tick in axis.get_yticklabels()] == list(classes)
    assert [int(tick.get_text()) for tick in axis.get_xticklabels()] == list(columns)
    written = {
        text.get_position()[::-1]: int(text.get_text()) for text in axis.texts if text.get_text()
    }
    assert written == {(i, j): n for (i, j), n in np.ndenumerate(counts) if n}
    assert axis.get_title() == f"accuracy {metrics.accuracy(LABELS, clusters):.3f}"


def test_confusion_needs_as_many_labels_as_clusters():
    with pytest.raises(InputError, match=r"same length, .* \(30,\) and \(29,\)"):
        plots.confusion(LABELS, CLUSTERS[1:])


@pytest.mark.parametrize("names", [None, ["cat", "dog", "panda bear"]])
def test_heat_map_writes_every_number_in_its_cell(names):
    matrix = np.array([[0, 1.23456, 250], [0.01234, 0, 3], [-1, 1e6, 0]])
    figure = drawn(plots.heat_map(matrix, names, title="alike", label="KL (nats)"))
    axis, bar = figure.axes
    np.testing.assert_array_equal(axis.images[0].get_array(), matrix)
    written = {text.get_position()[::-1]: float(text.get_text()) for text in axis.texts}
    assert written.keys() == {(i, j) for i in range(3) for j in range(3)}
    for cell, value in written.items():
        assert value == pytest.approx(matrix[cell], rel=5e-3)  # to three digits
    expected = names or ["0", "1", "2"]
    assert titles(axis.xaxis) == titles(axis.yaxis) == expected
    assert (bar.get_ylabel(), figure.get_suptitle()) == ("KL (nats)", "alike")


def test_numbers_stand_out_from_their_cells():
    (axis, _) = plots.heat_map([[0, 10], [1, 9]]).axes
    assert [text.get_color() for text in axis.texts] == ["black", "white", "black", "white"]


@pytest.mark.parametrize(
    ("matrix", "names", "text"),
    [
        (np.zeros((2, 3)), None, r"expected a matrix \(C, C\) .*, got shape \(2, 3\)"),
        (np.zeros((2, 2, 2)), None, r"expected a matrix \(C, C\) .*, got shape \(2, 2, 2\)"),
        (np.zeros((2, 2)), ["cat"], "expected 2 names, got 1: cat"),
        ([[0, np.inf], [0, 0]], None, "heat_map: NaN or infinity in 1 of 2 rows"),
    ],
)
def test_heat_map_needs_a_finite_square_matrix_and_its_names(matrix, names, text):
    with pytest.raises(InputError, match=text):
        plots.heat_map(matrix, names)


def test_losses_of_a_classifier_show_its_accuracy(digits):
    net = NetClassifier(filters=(2,), hidden_sizes=(), epochs=2, random_state=0)
    figure = plots.losses(net.fit(digits.x, digits.labels).loss_curve_)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss (nats per row)", "accuracy"]


# -- into an axis of one's own -------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.latents(latents(), LABELS, title="$t$", ax=ax),
        lambda ax: plots.log_likelihood({"a": [1.0, 2.0]}, title="$t$", ax=ax),
        lambda ax: plots.confusion(LABELS, CLUSTERS, ax=ax),
        lambda ax: plots.heat_map(np.eye(2), title="$t$", ax=ax),
        lambda ax: plots.image_grid(np.zeros((2, 3, 4, 4)), title="$t$", ax=ax),
        lambda ax: plots.reconstructions(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), ax=ax),
        lambda ax: plots.samples(np.zeros((2, 3, 4, 4)), ax=ax),
        lambda ax: plots.losses([{"epoch": 1, "loss": 2.0}], ax=ax),
        lambda ax: plots.profiles(latents(1), CLUSTERS, ax=ax),
        lambda ax: plots.profiles(latents(40), title="$t$", ax=ax),
        lambda ax: plots.topics(np.eye(2), title="$t$", ax=ax),
        lambda ax: plots.by_round({"a": [[1.0, 2.0]]}, ax=ax),
        lambda ax: plots.by_number([1, 2], {"a": [[1.0], [2.0]]}, ax=ax),
    ],
)
def test_single_panels_are_drawn_where_they_are_wanted(draw):
    figure = Figure()
    first, second = figure.subplots(1, 2)
    first.set_title("mine")
    assert draw(second) is figure
    drawn(figure)
    assert second.has_data()
    assert not first.has_data()
    assert (first.get_title(), figure.get_suptitle()) == ("mine", "")
    assert second.get_title()
    with pytest.raises(InputError, match=r"ax must be a Matplotlib axis, .* got 'no axis'"):
        draw("no axis")


def test_two_panels_do_not_fit_into_one_axis():
    axis = Figure().subplots()
    with pytest.raises(InputError, match=r"ax= is for one panel; give labels or clusters"):
        plots.latents(latents(), LABELS, CLUSTERS, ax=axis)
    for draw, values in (
        (plots.losses, [{"epoch": 1, "loss": 2.0, "kl": 1.0}]),
        (plots.profiles, latents(2)),
        (plots.topics, {"a": np.eye(2), "b": np.eye(2)}),
    ):
        with pytest.raises(InputError, match="ax= is for one panel, and here are 2; leave it out"):
            draw(values, ax=axis)
    assert not axis.has_data()


# -- means and ellipses --------------------------------------------------------------------------


def test_ellipses_hold_the_share_of_a_gaussian_that_two_deviations_do():
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.8, 0.1], [0.8, 1.0, 0.0], [0.1, 0.0, 0.3]])
    z = rng.multivariate_normal([1.0, -2.0, 3.0], covariance, 20_000)
    density = MixtureDensity([1.0], [[1.0, -2.0, 3.0]], covariance[None])
    figure = drawn(plots.latents(z, density=density))
    outline, cross = figure.axes[0].lines
    plane = figure.axes[0].collections[0].get_offsets()
    inside = Path(outline.get_xydata()).contains_points(plane).mean()
    assert inside == pytest.approx(1 - np.exp(-2), abs=0.01)  # chi-squared, 4 deviations of 20,000
    np.testing.assert_allclose(cross.get_xydata()[0], plane.mean(axis=0), atol=0.05)


def test_ellipses_need_a_linear_projection_and_a_density_of_the_latents():
    density = MixtureDensity([1.0], [[0.0, 0.0]], np.eye(2)[None])
    z = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match="density= needs projection 'pca' or 'lda'"):
        plots.latents(z, projection="tsne", density=density)
    with pytest.raises(InputError, match="density is of 2 dimensions, the latents of 3"):
        plots.latents(z, density=density)
    with pytest.raises(InputError, match="density must be a MixtureDensity, got 1"):
        plots.latents(z, density=1)

"""The explorer in a headless browser, against the graph whose page it is."""

import os

import numpy as np
import pytest
import torch
from torch import nn

import serkit as srk
from serkit.modules import GMM, VAE
from tests.helpers.browser import browser, opened

D, K, ROUNDS = 4, 5, 3


@pytest.fixture(scope="module")
def graph():
    images, labels = (values[:250] for values in srk.datasets.load_digits())
    options = {"likelihood": "gaussian", "noise_variance": 0.05, "epochs": 20, "lr": 3e-3}
    vae = VAE(
        D,
        net="conv",
        batch_norm=True,
        filters=(6, 8),
        hidden_sizes=(24,),
        batch_size=50,
        random_state=0,
        **options,
    ).connect(srk.Observation(images, name="images"))
    gmm = GMM(K, labels=labels, random_state=0).connect(vae)
    return srk.Graph(gmm).fit(ROUNDS, keep_latents=True, verbose=False)


@pytest.fixture(scope="module")
def explorer(graph, tmp_path_factory):
    columns = {"mean grey": graph["images"].data.mean(axis=(1, 2))}
    path = graph.explore(tmp_path_factory.mktemp("explore") / "page.html", columns=columns)
    with browser() as chromium:
        yield opened(chromium, path)


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(request):
    yield
    if "explorer" in request.fixturenames:
        assert request.getfixturevalue("explorer").problems == []


def decoded(explorer):
    """What the page decodes now: latents, values, and the grey levels of the canvas."""
    z, values = explorer.run(
        "() => [Array.from(explorer.decoded.z), Array.from(explorer.decoded.values.images)]"
    )
    pixels = explorer.run(
        """() => { const canvas = document.querySelector('#decoded canvas');
        const { width, height } = canvas;
        return Array.from(canvas.getContext('2d').getImageData(0, 0, width, height).data); }"""
    )
    return np.array(z), np.array(values), np.array(pixels).reshape(-1, 4)[:, 0]


def by_torch(graph, z):
    with torch.no_grad():
        return graph["vae"].nets_["decoder"](torch.tensor(np.atleast_2d(z)).float()).numpy().ravel()


def test_a_page_decodes_what_torch_decodes_wherever_a_slider_is_moved(graph, explorer):
    for dimension in range(D):
        slider = explorer.page.locator("#sliders input").nth(dimension)
        low, high = float(slider.get_attribute("min")), float(slider.get_attribute("max"))
        wanted = low + (high - low) * (0.2 + 0.2 * dimension)
        before = decoded(explorer)[1]
        slider.evaluate(
            """(slider, value) => { slider.value = value;
            slider.dispatchEvent(new Event('input')); }""",
            wanted,
        )
        z, values, pixels = decoded(explorer)
        assert z[dimension] == pytest.approx(wanted, abs=1e-4)
        assert np.abs(values - before).max() > 1e-3
        np.testing.assert_allclose(values, by_torch(graph, z), atol=1e-4)
        rows = graph["images"].data
        grey = 255 * (1 - (values - rows.min()) / np.ptp(rows)).clip(0, 1)
        np.testing.assert_allclose(pixels, grey, atol=0.51)


def test_sliders_range_over_the_quantiles_of_the_latents(graph, explorer):
    z = graph["vae"].message_up.mean
    for dimension, (low, high) in enumerate(np.percentile(z, [0.5, 99.5], axis=0).T):
        slider = explorer.page.locator("#sliders input").nth(dimension)
        ends = [float(slider.get_attribute(name)) for name in ("min", "max")]
        margin = 0.1 * (high - low)
        np.testing.assert_allclose(ends, [low - margin, high + margin], rtol=1e-4)


def test_arrow_keys_move_a_slider(graph, explorer):
    before = decoded(explorer)[0]
    slider = explorer.page.locator("#sliders input").nth(1)
    slider.focus()
    explorer.page.keyboard.press("ArrowRight")
    z, values, _ = decoded(explorer)
    step = (
        explorer.run("explorer.contents.spaces[0].high[1] - explorer.contents.spaces[0].low[1]")
    ) / 50
    assert z[1] - before[1] == pytest.approx(step, rel=1e-3)
    np.testing.assert_allclose(values, by_torch(graph, z), atol=1e-4)


def clicked(explorer, row):
    """Click a row's point among the points."""
    x, y = explorer.run(
        """(row) => { const plot = document.getElementById('plot');
        const [x, y] = explorer.points.places[row];
        const { xaxis: across, yaxis: up } = plot._fullLayout, box = plot.getBoundingClientRect();
        return [box.left + across._offset + across.l2p(x), box.top + up._offset + up.l2p(y)]; }""",
        row,
    )
    explorer.page.mouse.move(x, y)
    explorer.page.mouse.click(x, y)
    explorer.page.wait_for_function("(row) => explorer.state.row === row", arg=row)


def alone(explorer):
    """A row whose point none other covers."""
    places = np.array(explorer.run("explorer.points.places"))[:, :2]
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    return int(distances.min(axis=1).argmax())


def test_a_click_on_a_point_shows_its_row(graph, explorer):
    explorer.page.keyboard.press("Escape")
    row = alone(explorer)
    clicked(explorer, row)
    z, values, _ = decoded(explorer)
    np.testing.assert_allclose(z, graph["vae"].message_up.mean[row], atol=1e-3)
    np.testing.assert_allclose(values, by_torch(graph, z), atol=1e-4)
    text = explorer.page.locator("#row").inner_text()
    assert f"label: {graph['gmm'].labels[row]}" in text
    assert f"cluster (gmm): {graph['gmm'].posterior.clusters[row]}" in text
    assert explorer.page.locator("#number").input_value() == str(row)
    assert explorer.page.locator("#row canvas").count() == 2  # the row and its reconstruction
    assert f"row {row}" in explorer.page.locator("#hover").inner_text()


def test_responsibilities_and_density_are_those_of_the_mixture(graph, explorer):
    z = graph["vae"].message_up.mean[7] + 0.3
    made = explorer.run("(z) => explorer.responsibilities(z)", z.tolist())
    density = graph["gmm"].density()
    np.testing.assert_allclose(made, density.responsibilities(z[None])[0], atol=1e-4)
    explorer.run("(z) => explorer.goTo(z)", z.tolist())
    text = explorer.page.locator("#density").inner_text()
    assert float(text.split()[2]) == pytest.approx(density.log_prob(z[None])[0], abs=0.06)


@pytest.mark.parametrize("cluster", [None, 2])
def test_draws_are_of_the_mixture_or_of_the_cluster(graph, explorer, cluster):
    explorer.page.select_option("#draw-from", "all" if cluster is None else f"cluster {cluster}")
    drawn = []
    for _ in range(25):
        explorer.page.locator("#draw-go").click()
        explorer.page.wait_for_function("document.querySelectorAll('#draws button').length === 12")
        drawn += explorer.run("explorer.draws.map((z) => Array.from(z))")
    assert len({tuple(z) for z in drawn}) > 200
    density = graph["gmm"].density()
    density = density if cluster is None else density.component(cluster)
    error = np.sqrt(np.diag(density.covariance()) / len(drawn))
    assert (np.abs(np.mean(drawn, axis=0) - density.mean()) < 5 * error).all()
    spread = np.std(drawn, axis=0) / np.sqrt(np.diag(density.covariance()))
    np.testing.assert_allclose(spread, 1, atol=0.25)


def test_a_draw_that_is_clicked_is_decoded(graph, explorer):
    explorer.page.locator("#draws button").nth(3).click()
    z, values, _ = decoded(explorer)
    np.testing.assert_allclose(z, explorer.run("Array.from(explorer.draws[3])"))
    np.testing.assert_allclose(values, by_torch(graph, z), atol=1e-4)


def test_rounds_show_where_latents_and_clusters_were(graph, explorer):
    slider = explorer.page.locator("#round")
    for place in range(ROUNDS):
        slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", place)
        kept = graph.latents_by_round[place]
        assert explorer.run("explorer.round") == place + 1
        ref = f"explorer.contents.spaces[0].rounds[{place}]"
        latents = explorer.run(f"Array.from(explorer.array({ref}.latents))")
        np.testing.assert_allclose(np.reshape(latents, (-1, D)), kept["latents"]["vae"], atol=5e-3)
        assert explorer.run(f"Array.from(explorer.array({ref}.clusters))") == (
            kept["clusters"]["gmm"].tolist()
        )
        accuracy = graph.history[place]["updates"][-1]["accuracy"]
        text = explorer.page.locator("#round-text").inner_text()
        assert f"after round {place + 1}, accuracy {accuracy:.3f}, objective" in text
    explorer.page.keyboard.press("]")
    assert explorer.run("explorer.round") is None  # now


def test_morphs_go_from_row_to_row(graph, explorer):
    explorer.run("explorer.pick(3)")
    explorer.run("explorer.pick(8)")
    explorer.page.locator("#tab-morph").click()
    z, density = graph["vae"].message_up.mean, graph["gmm"].density()
    height = {}
    for name in ("straight line", "arc about 0", "densest path"):
        explorer.page.select_option("#path", name)
        explorer.page.wait_for_function("document.querySelectorAll('#frames button').length === 11")
        path = np.array(explorer.run("explorer.path.map((z) => Array.from(z))"))
        np.testing.assert_allclose(path[[0, -1]], z[[3, 8]], atol=1e-3)
        height[name] = density.log_prob(path[1:-1]).mean()
        if name == "straight line":
            np.testing.assert_allclose(path, srk.paths.straight(path[0], path[-1], 11), atol=1e-5)
        if name == "arc about 0":
            np.testing.assert_allclose(path, srk.paths.spherical(path[0], path[-1], 11), atol=1e-4)
    best = density.log_prob(srk.paths.densest(z[3], z[8], 11, density)[1:-1]).mean()
    assert height["densest path"] > height["straight line"]
    assert height["densest path"] == pytest.approx(best, abs=0.5)


def test_a_walk_stays_in_its_cluster(graph, explorer):
    explorer.page.locator("#tab-walk").click()
    explorer.page.select_option("#walk-in", "cluster 1")
    explorer.page.locator("#walk-go").click()
    explorer.page.wait_for_function("explorer.walk?.n >= 5")
    explorer.page.locator("#walk-go").click()
    path = np.array(explorer.run("explorer.state.path.map((z) => Array.from(z))"))
    component = graph["gmm"].density().component(1)
    assert len(path) >= 5
    assert component.log_prob(path).min() > component.log_prob(component.means)[0] - 25


def test_what_is_drawn_with_the_mouse_lands_where_the_graph_would_put_it(graph, explorer):
    explorer.page.locator("#tab-pen").click()
    box = explorer.page.locator("#paper").bounding_box()
    mouse, at = (
        explorer.page.mouse,
        lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"]),
    )
    mouse.move(*at(0.5, 0.15))
    mouse.down()
    mouse.move(*at(0.5, 0.85), steps=6)
    mouse.up()
    explorer.page.wait_for_function("explorer.penned && document.querySelector('#penned canvas')")
    row, z = explorer.run("[Array.from(explorer.penned.row), Array.from(explorer.penned.z)]")
    image = np.reshape(row, (1, 8, 8))
    assert image[0, :, 3:5].mean() > 3 * image[0, :, :2].mean()
    np.testing.assert_allclose(z, graph["vae"].encode(image)[0], atol=2e-2)


def test_points_are_coloured_by_any_column(graph, explorer):
    for name in ("label", "confidence (gmm)", "mean grey", "cluster (gmm)"):
        explorer.page.select_option("#colour", name)
        explorer.page.wait_for_timeout(0)
        legend = explorer.page.locator("#legend")
        expected = {"label": 10, "cluster (gmm)": len(set(graph["gmm"].posterior.clusters))}
        assert legend.locator("button").count() == expected.get(name, 0)


@pytest.mark.parametrize("projection", ["PCA", "LDA"])
def test_points_stand_in_two_and_three_dimensions(graph, explorer, projection):
    explorer.page.select_option("#projection", projection)
    for dimensions, kind in (("3", "scatter3d"), ("2", "scatter")):
        explorer.page.select_option("#dimensions", dimensions)
        explorer.page.wait_for_function(
            "(kind) => document.getElementById('plot')._fullData[0].type === kind", arg=kind
        )
    places = np.array(explorer.run("explorer.points.places"))
    assert places.shape == (250, 3)
    if projection == "PCA":
        variances = np.linalg.eigvalsh(np.cov(graph["vae"].message_up.mean.T))[::-1][:3]
        np.testing.assert_allclose(places.var(axis=0, ddof=1), variances, rtol=1e-2)


def test_modules_and_messages_say_what_they_sent_last(graph, explorer):
    for label, text in {
        "gmm, GMM": "accuracy",
        "vae to gmm: Gaussian": "variances",
        "gmm to vae: Mixture": "rows of each component",
    }.items():
        explorer.page.locator(f'#drawing [aria-label="{label}"]').focus()
        explorer.page.keyboard.press("Enter")
        assert text in explorer.page.locator("#message").inner_text()


def test_keys_go_from_row_to_row(graph, explorer):
    explorer.run("explorer.pick(5)")
    explorer.page.locator("#plot").focus()
    explorer.page.keyboard.press(".")
    explorer.page.wait_for_function("explorer.state.row === 6")
    explorer.page.keyboard.press("ArrowRight")
    explorer.page.wait_for_function("explorer.state.row !== 6")
    places = np.array(explorer.run("explorer.points.places"))
    assert places[explorer.run("explorer.state.row")][0] > places[6][0]


def test_the_page_finds_its_nets_right(explorer):
    assert explorer.run("explorer.wrong") == []


def test_other_nets_run_in_onnxruntime(explorer, tmp_path):
    folder = os.environ.get("ONNXRUNTIME_WEB")
    if folder is None:
        pytest.skip("ONNXRUNTIME_WEB names no folder with `npm install onnxruntime-web`")
    rows = np.random.default_rng(0).random((60, 16)).astype(np.float32)
    layers = [nn.Linear(2, 12), nn.GroupNorm(3, 12), nn.Tanh(), nn.Linear(12, 16)]
    vae = VAE(2, decoder=nn.Sequential(*layers), epochs=2, batch_size=20, random_state=0)
    vae.connect(srk.Observation(rows, image_shape=(4, 4)))
    graph = srk.Graph(GMM(2, random_state=0).connect(vae)).fit(1, verbose=False)
    path = graph.explore(tmp_path / "page.html", runtime=folder)
    found = opened(explorer.page.context.browser, path)
    z = [0.3, -0.8]
    made = found.run("async (z) => Array.from((await explorer.decode(z)).observation)", z)
    np.testing.assert_allclose(made, vae.decode([z])[0], atol=1e-4)
    assert found.run("explorer.wrong") == found.problems == []
    found.page.close()


def test_a_page_whose_nets_are_wrong_says_so(graph, explorer, tmp_path):
    path = graph.explore(tmp_path / "page.html", max_rows=20)
    text = path.read_text("utf-8")
    assert text.count("x > 0 ? x : 0") == 1  # ReLU
    path.write_text(text.replace("x > 0 ? x : 0", "x > 0.1 ? x : 0"), "utf-8")
    page = opened(explorer.page.context.browser, path).page
    assert "differs from torch: vae's decoder by" in page.locator("#problem").inner_text()
    page.close()

"""Pages of other kinds of data, each opened in the browser: nothing fails, and rows are there."""

import os

import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

import serkit as srk
from serkit.modules import GMM, MLDA, VAE
from tests.helpers.browser import browser, opened


def images(load):
    """A graph of 200 images of 28 x 28 pixels, of which 100 are shown."""
    rows, labels = (values[:200] for values in load("test", progress=False))
    return graph(srk.Observation(rows, name="rows"), labels, 10)


def wine():
    """A table with names of its columns."""
    data = load_wine(as_frame=True)
    rows = StandardScaler().set_output(transform="pandas").fit_transform(data.data)
    return graph(srk.Observation(rows, name="rows"), data.target, 3)


def speech():
    """Two modalities: digits seen and heard."""
    rows, labels = (values[:150] for values in srk.datasets.load_tutorial_digits())
    words = srk.datasets.load_tutorial_speech().counts[:150]
    below = graph(srk.Observation(rows, name="rows"), labels, 10)["gmm"]
    mlda = MLDA(10, labels=labels, random_state=0)
    return srk.Graph(mlda.connect(below, srk.Observation(words, name="heard")))


def graph(observation, labels, n_classes):
    """Observation -> VAE -> GMM."""
    options = {"likelihood": "gaussian", "noise_variance": 0.1, "epochs": 3, "batch_size": 50}
    vae = VAE(3, hidden_sizes=(16,), random_state=0, **options).connect(observation)
    return srk.Graph(GMM(n_classes, labels=labels, n_init=1, random_state=0).connect(vae))


DATA = {
    "wine": (wine, 178),
    "mnist": (lambda: images(srk.datasets.load_mnist), 100),
    "fashion": (lambda: images(srk.datasets.load_fashion_mnist), 100),
    "speech": (speech, 100),
}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.mark.parametrize("name", DATA)
@pytest.mark.filterwarnings("ignore:.*lost all their rows", "ignore:.*all rows are most probably")
def test_a_page_of_other_data_opens(chromium, tmp_path, name):
    if name != "wine" and not os.environ.get("SERKIT_DATA"):
        pytest.skip("SERKIT_DATA names no folder with the data")
    make, n_shown = DATA[name]
    trained = make().fit(2, keep_latents=True, verbose=False)
    path = trained.explore(tmp_path / "page.html", max_rows=n_shown)
    explorer = opened(chromium, path, width=900)
    explorer.page.get_by_text("Draw 12").click()
    explorer.page.keyboard.press("[")  # the round before
    assert explorer.run("explorer.contents.n_rows") == n_shown
    assert explorer.page.locator("#sliders input").count() == 3
    assert explorer.problems == []
    explorer.page.close()

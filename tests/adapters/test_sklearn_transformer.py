"""SklearnTransformer: latents are the estimator's own, and go down again by its inverse."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import NMF, PCA, KernelPCA
from sklearn.manifold import Isomap
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_estimator import on

from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.messages import Data, Mixture
from serkit.modules import GMM, VAE, Sklearn


def alone(module, rows):
    """The estimator by itself, with the seed it was given in the graph."""
    estimator = clone(module.estimator)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=module.estimator_.random_state)
    return estimator.fit(rows.reshape(len(rows), -1).astype(float))


@pytest.mark.parametrize(
    "estimator",
    [PCA(3), NMF(2, max_iter=900), Isomap(n_neighbors=25), make_pipeline(StandardScaler(), PCA(2))],
)
def test_latents_are_the_estimators_own(estimator, digits):
    module = on(digits.x, estimator)
    x = digits.x.reshape(200, -1).astype(float)
    expected = module.estimator_.transform(x)
    np.testing.assert_array_equal(module.message_up.mean, expected)
    if not hasattr(estimator, "steps"):
        np.testing.assert_allclose(alone(module, x).transform(x), expected, atol=1e-9)
    assert module.message_up.var is None
    assert module.size == expected.shape[1]


def test_rows_of_several_parents_are_set_side_by_side_and_turned_back(digits):
    top, bottom = digits.x[:, :3], digits.x[:, 3:]
    module = Sklearn(PCA(5), random_state=0).connect(Observation(top), Observation(bottom))
    up = module.update().message_up.mean
    x = np.concatenate([top.reshape(200, -1), bottom.reshape(200, -1)], axis=1).astype(float)
    pca = PCA(5, random_state=0).fit(x)
    np.testing.assert_allclose(np.abs(up), np.abs(pca.transform(x)), atol=1e-6)
    back = pca.inverse_transform(pca.transform(x))
    first, second = module.messages_down
    np.testing.assert_allclose(first.array, back[:, :24].reshape(top.shape), atol=1e-6)
    np.testing.assert_allclose(second.array, back[:, 24:].reshape(bottom.shape), atol=1e-6)


def test_only_seen_rows_train_and_unseen_ones_are_decoded_from_the_childrens_means(blobs):
    seen = np.arange(120) >= 30
    rows = np.where(seen[:, None], blobs.x, np.nan)
    module = Sklearn(PCA(2), random_state=0).connect(Observation(rows, observed=seen)).update()
    pca = PCA(2).fit(blobs.x[seen])
    np.testing.assert_allclose(module.estimator_.mean_, pca.mean_)
    np.testing.assert_array_equal(module.message_up.observed, seen)
    means = np.array([[1.0, 2.0], [3.0, -1.0]])
    told = Mixture(np.log(np.full((120, 2), 0.5)), means, np.stack([np.eye(2)] * 2))
    (down,) = module.backward(module.received_from_parents(), told)
    expected = module.estimator_.inverse_transform(np.tile(means.mean(axis=0), (30, 1)))
    np.testing.assert_allclose(down.array[~seen], expected)
    own = module.estimator_.inverse_transform(module.estimator_.transform(blobs.x[seen]))
    np.testing.assert_allclose(down.array[seen], own)


def test_samples_go_down_through_the_inverse(digits):
    pca = Sklearn(PCA(4), random_state=0, name="pca").connect(Observation(digits.x))
    graph = Graph(GMM(3, random_state=0).connect(pca)).fit(1, verbose=False)
    drawn = graph.sample(6, random_state=1)
    assert drawn.shape == (6, 8, 8)
    flat = drawn.reshape(6, -1)
    inside = pca.estimator_.inverse_transform(pca.estimator_.transform(flat))
    np.testing.assert_allclose(flat, inside, atol=1e-6)  # in the plane that PCA decodes to


def test_latents_turned_back_go_only_where_data_is_taken(digits):
    vae = VAE(3, epochs=1, random_state=0).connect(Observation(digits.x))
    module = Sklearn(PCA(2), random_state=0).connect(vae)
    graph = Graph(module).fit(1, verbose=False)
    assert module.messages_down == (None,)
    assert graph.predict(digits.x[:4]).latents.shape == (4, 2)


def test_an_inverse_that_cannot_work_or_is_not_wanted(blobs):
    with pytest.raises(InputError, match=r"'own': KernelPCA\.inverse_transform failed.*invert=Fal"):
        on(blobs.x, KernelPCA(2))
    module = on(blobs.x, KernelPCA(2), invert=False)
    assert module.messages_down == (None,)
    assert module.sends_down is None
    assert on(blobs.x, KernelPCA(2, fit_inverse_transform=True)).sends_down is Data

"""Projections against scikit-learn, and what they leave out."""

import re

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from serkit.errors import InputError
from serkit.plots.projection import linear_map, project

LABELS = np.arange(60) % 4


def latents(d=5):
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, d)) + 2 * rng.standard_normal((4, d))[LABELS]


@pytest.mark.parametrize("n_dims", [2, 3])
def test_projections_equal_those_of_scikit_learn(n_dims):
    z = latents()
    np.testing.assert_allclose(project(z, None, "pca", n_dims), PCA(n_dims).fit_transform(z))
    lda = LinearDiscriminantAnalysis(n_components=n_dims).fit(z, LABELS)
    np.testing.assert_allclose(project(z, LABELS, "lda", n_dims), lda.transform(z))


@pytest.mark.parametrize("projection", ["pca", "lda"])
@pytest.mark.parametrize("labels", [LABELS, LABELS % 2, np.array(["cat", "dog"])[LABELS % 2]])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_there_are_always_as_many_columns_as_asked_for(projection, labels, d, n_dims):
    found = project(latents(d), labels, projection, n_dims)
    assert found.shape == (60, n_dims)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, d:], 0)


@pytest.mark.parametrize("d", [1, 2])
def test_principal_components_of_few_dimensions_are_the_latents_themselves(d):
    np.testing.assert_array_equal(project(latents(d), None, "pca", 2)[:, :d], latents(d))


def test_missing_discriminants_are_principal_components_of_the_rest():
    z, labels = latents(), LABELS % 2
    lda = LinearDiscriminantAnalysis().fit(z, labels)
    direction = lda.scalings_[:, 0] / np.linalg.norm(lda.scalings_[:, 0])
    rest = (z - z.mean(axis=0)) @ (np.eye(5) - np.outer(direction, direction))
    variances = np.linalg.eigvalsh(rest.T @ rest / 59)[::-1]
    found = project(z, labels, "lda", 3)
    np.testing.assert_allclose(found[:, :1], lda.transform(z))
    np.testing.assert_allclose(found[:, 1:].var(axis=0, ddof=1), variances[:2])
    directions = np.linalg.lstsq(z - z.mean(axis=0), found, rcond=None)[0]  # (D, 3)
    np.testing.assert_allclose(
        direction @ directions[:, 1:], 0, atol=1e-10
    )  # sums of 60 terms about 1


def test_rows_are_kept_and_labels_only_part_the_classes():
    z = latents()
    order = np.random.default_rng(1).permutation(60)
    permuted = project(z[order], LABELS[order], "lda", 2)
    signs = np.sign((permuted * project(z, LABELS, "lda", 2)[order]).sum(axis=0))
    np.testing.assert_allclose(permuted * signs, project(z, LABELS, "lda", 2)[order])
    names = np.array(["a", "b", "c", "d"])[LABELS]
    np.testing.assert_array_equal(project(z, names, "lda", 2), project(z, LABELS, "lda", 2))


@pytest.mark.parametrize(
    ("z", "labels", "projection", "text"),
    [
        (latents(), None, "lda", "projection='lda' needs labels of two classes or more; or use"),
        (latents(), np.zeros(60), "lda", "projection='lda' needs labels of two classes or more"),
        (latents(), np.arange(60), "lda", "projection='lda' cannot part these labels.*samples"),
        (latents(), LABELS[1:], "lda", r"a label for each of 60 rows, got shape \(59,\)"),
        (latents(), None, "mds", "unknown projection='mds'; expected one of 'pca', 'lda', 'umap'"),
        (latents()[:3], None, "tsne", "projection='tsne' needs 4 rows or more, got 3"),
        (latents(), None, lambda z: z[:, :1], r"must return shape \(60, 2\), got \(60, 1\)"),
        (latents(), None, lambda z: z[:, :2] * np.nan, "plots: what projection returns"),
        (latents(), None, lambda z: 1 / 0, "projection fails with ZeroDivisionError"),
        (np.zeros((3, 2, 2)), None, "pca", re.escape("shape (N, D), got (3, 2, 2)")),
        (np.full((3, 2), np.nan), None, "pca", "latents: NaN or infinity in 3 of 3 rows"),
    ],
)
def test_what_cannot_be_projected_is_refused(z, labels, projection, text):
    with pytest.raises(InputError, match=text):
        project(z, labels, projection, 2)


def test_tsne_keeps_neighbours():
    z = np.random.default_rng(0).normal(size=(60, 5)) + 20 * np.eye(5)[LABELS]
    plane = project(z, None, "tsne", 2)
    distances = np.linalg.norm(plane[:, None] - plane, axis=2) + np.diag(np.full(60, np.inf))
    assert (LABELS[distances.argmin(axis=1)] == LABELS).all()
    np.testing.assert_array_equal(project(z, None, "tsne", 2), plane)


def test_a_function_projects_as_it_says():
    z = latents()
    np.testing.assert_array_equal(project(z, None, lambda z: z[:, 1:3], 2), z[:, 1:3])


@pytest.mark.parametrize("projection", ["pca", "lda"])
def test_linear_maps_are_those_of_the_projections(projection):
    z = latents()
    found = project(z, LABELS, projection, 2)
    matrix, shift = linear_map(z, found)
    np.testing.assert_allclose(z @ matrix + shift, found, atol=1e-8)

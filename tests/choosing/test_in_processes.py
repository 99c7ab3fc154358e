"""Choosing by runs in other processes: as in this one. All here share those, as starts are slow."""

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import serkit as srk
from serkit import Graph, GraphEstimator, Observation
from serkit.modules import GMM, VAE
from tests.choosing.test_components import blobs
from tests.choosing.test_estimator import ROWS as OF_TWO
from tests.choosing.test_estimator import mixture
from tests.choosing.test_repeating import ROWS, SEEDS, VAE_OPTIONS, assert_equal, build


def test_seeds_give_the_same_bits():
    alone = srk.repeat(build, SEEDS, rounds=2)
    assert_equal(alone, srk.repeat(build, SEEDS, rounds=2, n_jobs=2))


def test_modules_without_a_seed_get_one_of_the_seed():
    def unseeded(seed):
        vae = VAE(2, **VAE_OPTIONS).connect(Observation(ROWS))
        return GMM(3, n_init=1).connect(vae)

    def seeded(seed):
        return Graph(unseeded(seed), random_state=seed)

    assert_equal(srk.repeat(unseeded, [1, 2], 2), srk.repeat(seeded, [1, 2], 2, n_jobs=2))


def test_numbers_of_components_give_the_same_bits_and_nothing_is_changed():
    rows, model = blobs(2, n_each=20), GMM(1, n_init=1)
    first = srk.select_components(rows, [1, 2], model=model, n_runs=2)
    second = srk.select_components(rows, [1, 2], model=model, n_runs=2, n_jobs=2)
    for name, values in first.values.items():
        np.testing.assert_array_equal(values, second.values[name])
    assert vars(model) == vars(GMM(1, n_init=1))


def test_a_pipeline_and_a_search_choose_by_the_held_out_bound():
    pipeline = make_pipeline(StandardScaler(), GraphEstimator(mixture, rounds=1, random_state=0))
    name = "graphestimator__gmm__n_components"
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=3, n_jobs=2).fit(OF_TWO)
    by_hand = [
        np.mean(cross_val_score(clone(pipeline).set_params(**{name: k}), OF_TWO, cv=3))
        for k in (1, 2)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], by_hand)
    assert search.best_params_ == {name: 2}
    assert search.predict(OF_TWO).shape == (60,)

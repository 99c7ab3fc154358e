"""Numbers of components: criteria against formulas, and what is recommended where it is known."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import serkit as srk
from serkit import Graph, Observation
from serkit.errors import GraphError, InputError
from serkit.graph.restarting import seed_of_run
from serkit.modules import GMM, VAE

QUICK = GMM(1, n_init=2)
VAE_OPTIONS = {"likelihood": "gaussian", "epochs": 2, "hidden_sizes": (8,), "random_state": 0}


def blobs(k, seed=0, n_each=40, d=3):
    rng = np.random.default_rng(seed)
    centres = 12 * np.array([*np.ndindex(*[3] * d)])[rng.permutation(3**d)[:k]]
    return rng.normal(size=(k * n_each, d)) + np.repeat(centres, n_each, axis=0)


@pytest.mark.parametrize("k", [1, 4])
def test_separated_blobs_are_counted(k):
    near = range(max(k - 1, 1), k + 3)
    selection = srk.select_components(blobs(k, n_each=50), near, model=QUICK, n_runs=2)
    assert selection.n_components == k
    assert selection.agreement >= 0.8
    assert selection.sureness == "sure"


def test_wine_has_three_kinds():
    rows = StandardScaler().fit_transform(load_wine(return_X_y=True)[0])
    diagonal = GMM(1, covariance_type="diag")
    selection = srk.select_components(rows, [2, 3, 4], model=diagonal, n_runs=2)
    assert selection.n_components == 3
    assert selection.agreement >= 0.8


def test_information_criteria_are_those_of_the_formulas():
    rows = blobs(2)
    model = GMM(1, inference="ml", random_state=3, tol=1e-9, reg_covar=1e-6)
    selection = srk.select_components(rows, [2], model=model, n_runs=2)
    peer = GaussianMixture(2, random_state=0, tol=1e-9).fit(rows)
    own = peer.bic(rows) - 18 * np.log(80) + 18 * np.log(40)  # 9 parameters each, of 40 rows
    assert selection.values["bic"].min() == pytest.approx(own, rel=1e-6)
    r = peer.predict_proba(rows)
    entropy = -(r * np.log(np.maximum(r, 1e-300))).sum()
    assert selection.values["icl"].min() == pytest.approx(own + 2 * entropy, rel=1e-6)


def test_runs_are_fits_of_other_seeds_and_of_halves():
    rows = blobs(3, n_each=20)
    model = GMM(1, n_init=1, random_state=7)
    selection = srk.select_components(rows, [4], model=model, n_runs=2, random_state=5)

    def fit(rows, run):
        gmm = GMM(4, n_init=1, random_state=seed_of_run(7, run))
        return gmm.connect(Observation(rows)).update()

    first, second = (fit(rows, run).posterior.clusters for run in range(2))
    expected = adjusted_rand_score(first, second)
    np.testing.assert_allclose(selection.values["stability_seeds"], [[expected] * 2])
    for run in range(2):
        order = np.random.default_rng([5, run]).permutation(60)
        left, right = np.sort(order[:30]), np.sort(order[30:])
        one, other = fit(rows[left], run), fit(rows[right], run)
        held_out = (one.score(rows[right]) + other.score(rows[left])) / 2
        assert selection.values["held_out"][0, run] == pytest.approx(held_out)
        agree = adjusted_rand_score(one.predict(rows), other.predict(rows))
        assert selection.values["stability_halves"][0, run] == pytest.approx(agree)


def test_graphs_are_judged_by_their_joint_bound_and_stability():
    rows = blobs(2, n_each=30).astype(np.float32)
    labels = np.repeat([0, 1], 30)

    def build(k):
        vae = VAE(2, **VAE_OPTIONS).connect(Observation(rows))
        return GMM(k, n_init=1, random_state=0, labels=labels).connect(vae)

    selection = srk.select_components(build, [1, 2], rounds=2, n_runs=2)
    assert set(selection.votes) <= {"held_out", "stability_seeds", "stability_halves"}
    graph = Graph(build(2)).fit(2, verbose=False)
    assert selection.values["objective"][1, 0] == graph.objective()
    gmm = graph["gmm"]
    assert selection.values["bic"][1, 0] == pytest.approx(
        -120 * gmm.log_likelihood_[-1] + gmm.density().penalty(60)
    )
    assert not np.isnan(selection.values["held_out"]).any()


def test_table_frame_and_picture():
    selection = srk.select_components(blobs(2), [1, 2, 3], model=QUICK)
    lines = repr(selection).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert lines[2].count("*") == 5
    assert lines[-1].startswith("2 components, sure: bic, icl")
    frame = selection.to_frame()
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.loc[2, "bic"] == selection.values["bic"][1].mean()
    assert len(selection.draw().axes) == 5


def test_a_number_at_the_end_is_told():
    selection = srk.select_components(blobs(4, n_each=20), [2, 4], model=QUICK, n_runs=2)
    assert selection.recommendation.endswith("largest number tried: try larger ones")


def test_what_cannot_be_compared_is_refused():
    rows = blobs(2, n_each=5)
    for components in ([], [0, 2], "12", 3, [1.5]):
        with pytest.raises(InputError, match="components must be integers >= 1"):
            srk.select_components(rows, components)
    with pytest.raises(InputError, match="6 components are more than half of the 10 rows"):
        srk.select_components(rows, [1, 6])
    with pytest.raises(InputError, match="n_runs must be an integer >= 2, got 1"):
        srk.select_components(rows, [1], n_runs=1)
    with pytest.raises(InputError, match="model must be a module with n_components"):
        srk.select_components(rows, [1], model=3)
    with pytest.raises(InputError, match="model= is for a table"):
        srk.select_components(lambda k: None, [1], model=GMM(1))
    with pytest.raises(GraphError, match=r"build\(1\) must return a Graph or its leaf"):
        srk.select_components(lambda k: None, [1])
    with pytest.raises(GraphError, match=r"no module of build\(2\) has classes"):
        srk.select_components(lambda k: VAE(k).connect(Observation(rows)), [2])

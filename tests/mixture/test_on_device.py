"""The E-step by torch, on the processor where there is no GPU: the sums of the one by NumPy."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from serkit import Observation
from serkit.errors import InputError
from serkit.messages import Categorical
from serkit.modules import GMM, GMMClassifier
from serkit.modules.mixture import em, on_device
from serkit.modules.mixture.on_device import RowsOnDevice, is_worth_it
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import Statistics, e_step
from tests.helpers.mixtures import all_types, some_density, unsure

N, K, D = 500, 3, 4
CPU = torch.device("cpu")
GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    ],
)


@pytest.fixture(scope="module")
def rows():
    """In float32, weighted, unsure, and far from the origin."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) + rng.integers(3, size=(N, 1)) * 3.0 + 70.0
    weight = rng.gamma(2.0, size=N)
    return Rows(x.astype(np.float32), rng.gamma(2.0, 0.2, size=x.shape), weight=weight)


def said(kind):
    """What children say: nothing, evidence, a prior, or a prior of some rows."""
    if kind == "nothing":
        return None
    rng = np.random.default_rng(2)
    observed = np.arange(N) % 3 > 0 if kind == "prior of some" else None
    values = np.log(rng.dirichlet(np.ones(K), N))
    return Categorical(values, is_prior=kind.startswith("prior"), observed=observed)


@all_types
@unsure
@pytest.mark.parametrize("kind", ["nothing", "evidence", "prior", "prior of some"])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_same_statistics(rows, monkeypatch, covariance_type, with_variances, kind, device):
    rows = rows if with_variances else replace(rows, variances=None)
    densities = [some_density(covariance_type, k=K, d=D, seed=seed) for seed in range(3)]
    densities = [replace(density, means=density.means + 70) for density in densities]
    densities[2] = replace(densities[2], weights=np.array([0.4, 0.6, 0.0]))  # log 0
    expected = e_step(rows, densities, said(kind))
    monkeypatch.setattr(on_device, "_TILE_VALUES", 1000)  # several tiles
    there = RowsOnDevice.of(rows, said(kind), torch.device(device))
    totals = there.totals(densities)
    for of_mixture, theirs in zip(totals, expected, strict=True):
        ours = Statistics.of_totals(of_mixture, rows, covariance_type)
        # the same sums in another order
        np.testing.assert_allclose(ours.sums, theirs.sums, rtol=1e-10, atol=1e-8)
        assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_fit_by_steps_on_a_device(monkeypatch, device):
    x = np.random.default_rng(1).normal(size=(N, D)) + np.arange(N)[:, None] % K * 6
    here = GMM(K, n_init=1, device="cpu", random_state=0).fit(x)
    monkeypatch.setattr(em, "is_worth_it", lambda *_: True)
    there = GMM(K, n_init=1, device=device, random_state=0).fit(x)
    np.testing.assert_allclose(there.means_, here.means_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(there.log_likelihood_, here.log_likelihood_, rtol=1e-10)


def test_narrow_components_are_left_to_the_processor(rows):
    """Far from the centre in their standard deviations, features would round too much."""
    rows, asked = replace(rows, variances=None), []

    def totals_on_device(densities):
        asked.extend(densities)
        return RowsOnDevice.of(rows, None, CPU).totals(densities)

    wide = some_density("full", k=K, d=D)
    narrow = replace(wide, covariances=wide.covariances * 1e-9)
    for density in (wide, narrow):
        [found] = e_step(rows, [density], totals_on_device=totals_on_device)
        [expected] = e_step(rows, [density])
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-10)
    assert [*map(id, asked)] == [id(wide)]


def test_few_products_or_little_memory_keep_steps_on_the_processor(monkeypatch):
    memory = SimpleNamespace(total_memory=8e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    gpu, many = torch.device("cuda"), Rows(np.zeros((10**6, 16)))
    assert is_worth_it(many, 10, "full", gpu)
    assert not is_worth_it(many, 10, "full", CPU)
    assert not is_worth_it(many[:1000], 10, "full", gpu)
    assert not is_worth_it(replace(many, observed=many.x == 0), 10, "full", gpu)
    memory.total_memory = 4.2e9  # the rows take 0.3
    assert not is_worth_it(many, 10, "full", gpu)


def test_a_device_that_is_not_there_is_refused_before_learning():
    gmm = GMM(K, device="cuda:99").connect(Observation(np.eye(5)))
    with pytest.raises(InputError, match="GMM: device='cuda:99' asked for, but torch sees"):
        gmm.update()
    with pytest.raises(InputError, match="GMM: unknown device='tpu'"):
        GMM(K, device="tpu").fit(np.eye(5))
    assert not hasattr(gmm, "means_")
    with pytest.raises(InputError, match="GMMClassifier: device='cuda:99' asked for"):
        GMMClassifier(1, labels=[0, 0, 1, 1], device="cuda:99").connect(
            Observation(np.eye(4))
        ).update()

"""The training loop: batches, schedules, seeds, devices, early stops, and losses gone NaN."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from serkit import Observation
from serkit.errors import InputError, NotFittedError, TrainingError
from serkit.modules import AE, VAE, MultinomialVAE, RandomAffine
from serkit.modules.common.devices import resolve_device
from serkit.modules.nets import device
from serkit.modules.nets.device import (
    check_float32,
    private_random_state,
    uses_bfloat16,
)
from serkit.modules.nets.trainer import Trainer, batches_of, make_scheduler

both = pytest.mark.parametrize("kind", [AE, VAE])


@pytest.fixture
def x():
    """Rows (40, 3, 3) in [0, 1] of two kinds."""
    rng = np.random.default_rng(0)
    return np.where(rng.random((40, 1, 1)) < 0.5, 0.8, 0.2) + rng.uniform(-0.2, 0.2, (40, 3, 3))


def tiny(kind, n_outputs=2, **options):
    """A small net, one batch an epoch, on one device and in one precision everywhere."""
    defaults = {"hidden_sizes": (8,), "epochs": 3, "lr": 1e-2, "random_state": 0}
    return kind(n_outputs, **defaults | {"device": "cpu", "precision": "float32"} | options)


def losses(module):
    return [epoch["loss"] for epoch in module.loss_curve_]


def weights(module):
    return {name: value.clone() for name, value in module.nets_.state_dict().items()}


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# -- the loop ----------------------------------------------------------------------------------


def fit(loss, rows, parameter, *, epochs=1, **settings):
    """Plain gradient descent with learning rate 1; the terms of every epoch."""
    n = len(rows)
    nets, curve = nn.ParameterList([parameter]), []
    optimizer = torch.optim.SGD(nets.parameters(), lr=1.0)
    settings = {"batch_size": n, "lr": 1.0, "device": torch.device("cpu")} | settings
    trainer = Trainer(nets=nets, loss=loss, optimizer=optimizer, **settings)
    every = torch.arange(n)
    trainer.fit(rows, epochs, every, every[:0], lambda epoch, terms: curve.append(terms))
    return curve


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("n", "batch_size", "n_batches"), [(10, 10, 1), (10, 4, 3), (11, 20, 1)])
def test_every_epoch_visits_every_row_once_in_even_batches(
    tmp_path, n, batch_size, n_batches, mapped
):
    """Also where batches are read from a file ahead of time."""
    parameter, visited = nn.Parameter(torch.zeros(1)), []
    rows = np.arange(n, dtype=np.float32)[:, None]
    rows.tofile(tmp_path / "rows")
    rows = np.memmap(tmp_path / "rows", np.float32, "r", shape=rows.shape) if mapped else rows

    def loss(x, original, index, epoch):
        assert torch.equal(x[:, 0], index.float())
        if torch.is_grad_enabled():  # not in the check of the last weights
            visited.append((epoch, index.tolist()))
        return {"loss": parameter.sum() * 0 + index.float().mean(), "one": torch.tensor(1.0)}

    for terms in fit(loss, rows, parameter, epochs=2, batch_size=batch_size):
        assert terms == pytest.approx({"loss": (n - 1) / 2, "one": 1.0})  # means over rows
    orders = []
    for epoch in range(2):
        batches = [index for e, index in visited if e == epoch]
        assert len(batches) == n_batches == batches_of(n, batch_size)
        sizes = [len(index) for index in batches]
        assert max(sizes) <= min(batch_size, min(sizes) + 1)
        orders.append([row for index in batches for row in index])
        assert sorted(orders[-1]) == list(range(n))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("max_grad_norm", "step"), [(0.5, 0.5), (None, 200.0), (1e3, 200.0)])
def test_gradients_are_clipped_to_the_norm(max_grad_norm, step):
    parameter = nn.Parameter(torch.zeros(4))
    slope = lambda x, original, index, epoch: {"loss": (parameter * 100.0).sum()}  # noqa: E731
    fit(slope, np.zeros((4, 1)), parameter, max_grad_norm=max_grad_norm)
    torch.testing.assert_close(parameter.detach().norm(), torch.tensor(step))


def rates(scheduler, n_steps, optimizer=None):
    """Learning rates of the steps of one update, from lr=0.1."""
    if optimizer is None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=99.0)
    schedule = make_scheduler("vae", scheduler, optimizer, 0.1, n_steps)
    used = []
    for _ in range(n_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return used


def test_schedules_span_the_steps_of_one_update():
    steps = np.arange(20)
    np.testing.assert_allclose(rates(None, 20), 0.1)
    np.testing.assert_allclose(rates("cosine", 20), 0.05 * (1 + np.cos(np.pi * steps / 20)))
    onecycle = np.array(rates("onecycle", 20))
    assert onecycle.max() == pytest.approx(0.1, rel=0.05)
    assert onecycle.argmax() in range(3, 9)  # torch's default: 30 % of the steps warm up
    assert onecycle[-1] < 1e-4 < onecycle[0] < 0.01
    own = lambda optimizer, n: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n)  # noqa: E731
    np.testing.assert_allclose(rates(own, 20), 0.1 * (1 - steps / 20), atol=1e-12)


@pytest.mark.parametrize("scheduler", [None, "cosine", "onecycle"])
def test_schedules_start_afresh_with_each_update(scheduler):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=99.0)
    first = rates(scheduler, 12, optimizer)
    np.testing.assert_allclose(rates(scheduler, 12, optimizer), first)


def test_a_module_hands_its_steps_to_an_own_schedule(x):
    given = []
    constant = torch.optim.lr_scheduler.ConstantLR
    tiny(AE, scheduler=lambda o, n: given.append(n) or constant(o), batch_size=15).fit(x)
    assert given == [3 * 3]  # epochs of as many batches


def plateau(optimizer, n_steps):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)


def short(optimizer, n_steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=n_steps - 2)


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [(plateau, "TypeError: .*'metrics'"), (short, "ValueError: .* step 2 times")],
)
def test_schedules_whose_steps_fail_are_told(x, scheduler, text):
    with pytest.raises(InputError, match=rf"AE: scheduler\.step fails with {text}"):
        tiny(AE, scheduler=scheduler).fit(x)


def test_columns_too_fine_for_float32_are_warned_of():
    """Around 1e6 its steps are 1/16, of which 256 are 16."""
    fine = np.random.default_rng(0).random((40, 3))
    text = "label: {} of 3 columns vary by less than 256 steps of float32"
    for spread, n in ((1.0, 3), ([1.0, 1.0, 100.0], 2)):
        with pytest.warns(UserWarning, match=text.format(n)):
            check_float32("label", 1e6 + spread * fine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (fine, 1e6 + 100 * fine, np.full((40, 3), 1e6), (1e6 + fine).astype("f4")):
            check_float32("label", rows)


# -- seeds, devices, precision -----------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, RandomAffine()])
@both
def test_same_seed_same_bits_and_global_state_untouched(x, kind, augment):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make = partial(tiny, kind, augment=augment, batch_size=15)
    one, same, other = (make(random_state=seed) for seed in (0, 0, 1))
    for module in (one, same, other):
        module.fit(x)
        torch.rand(3)  # what others draw must not matter
        module.fit(x)
    torch.set_rng_state(before[0])
    assert same_weights(weights(one), weights(same))
    assert losses(one) == losses(same)
    assert not same_weights(weights(one), weights(other))
    module.fit(x)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@both
def test_threads_learn_the_same_bits_and_leave_the_global_generator_alone(x, kind):
    before = torch.get_rng_state()
    alone = tiny(kind, batch_size=15).fit(x)
    with ThreadPoolExecutor(3) as pool:
        fits = list(pool.map(lambda _: tiny(kind, batch_size=15).fit(x), range(3)))
    assert all(same_weights(weights(fit), weights(alone)) for fit in fits)
    assert torch.equal(before, torch.get_rng_state())


@contextmanager
def default_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, default_float64])
@pytest.mark.parametrize("kind", [AE, VAE, MultinomialVAE])
def test_the_callers_modes_do_not_matter(x, kind, mode):
    plain = tiny(kind, validation_fraction=0.2).fit(x)
    with mode():
        dtype = torch.get_default_dtype()
        module = tiny(kind, validation_fraction=0.2).connect(Observation(x)).update()
        assert torch.get_default_dtype() == dtype
        assert np.isfinite(module.posterior.bound)
    assert same_weights(weights(module), weights(plain))


def test_numpys_integers_are_integers(x):
    sizes = {"batch_size": np.int64(15), "epochs": np.int32(2), "patience": np.int64(3)}
    nets = {"net": "conv", "filters": (np.int64(3), np.int32(4)), "hidden_sizes": [np.int64(8)]}
    module = tiny(VAE, np.int64(2), **sizes, **nets, validation_fraction=0.2).fit(x)
    plain = tiny(VAE, batch_size=15, epochs=2, patience=3, **nets, validation_fraction=0.2).fit(x)
    assert same_weights(weights(module), weights(plain))


def test_private_random_state_is_put_back_after_an_error_too():
    before, cpu = torch.get_rng_state(), torch.device("cpu")
    with pytest.raises(ValueError, match="inside"), private_random_state(1, cpu):
        raise ValueError(f"inside, after {torch.rand(1)}")
    assert torch.equal(before, torch.get_rng_state())


@both
@pytest.mark.parametrize(
    ("device", "match"),
    [
        pytest.param(
            "cuda",
            "device='cuda' asked for, but torch sees 0 GPUs here; use device='cpu'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
        ("cuda:3", "device='cuda:3' asked for"),
        ("mps", "device='mps' asked for"),
        ("meta", "device='meta' asked for, but torch cannot use it here"),
        ("hpu", "device='hpu' asked for, but torch cannot use it here"),
        ("abacus", "unknown device='abacus'; expected 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_devices_that_are_not_there(x, monkeypatch, kind, device, match):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"{kind.__name__}: {match}"):
        tiny(kind, device=device).fit(x)
    assert resolve_device("auto", "") == torch.device("cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@both
def test_on_a_gpu(x, kind):
    before = torch.cuda.get_rng_state()
    module = tiny(kind, device="cuda", epochs=50).connect(Observation(x)).update()
    assert next(module.nets_.parameters()).is_cuda
    assert losses(module)[-1] < losses(module)[0]
    assert module.message_up.mean.shape == (40, 2)
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.mark.parametrize("features", [{}, {"amx_bf16": True}, {"avx512_bf16": True}])
def test_automatic_precision_asks_the_processor(monkeypatch, features):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    cpu, net = torch.device("cpu"), nn.Linear(1000, 100)
    assert uses_bfloat16("auto", cpu, net, 500) == bool(features)
    assert uses_bfloat16("bfloat16", cpu, net, 1)
    assert not uses_bfloat16("float32", cpu, net, 500)


@pytest.mark.parametrize(
    "features", [{}, {"_is_amx_tile_supported"}, {"_is_avx512_bf16_supported"}]
)
def test_automatic_precision_asks_an_older_torch_for_what_it_knows(monkeypatch, features):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in features, raising=False)
    cpu, net = torch.device("cpu"), nn.Linear(1000, 100)
    assert uses_bfloat16("auto", cpu, net, 500) == bool(features)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not uses_bfloat16("auto", cpu, net, 500)


def test_automatic_precision_of_small_nets_is_float32(monkeypatch):
    """On a GPU, where to start a conversion takes as long as the products, of larger ones too."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    gpu, net = torch.device("cuda"), nn.Linear(1000, 1000)
    assert not uses_bfloat16("auto", gpu, net, 500)
    assert uses_bfloat16("auto", gpu, net, 500_000)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert not uses_bfloat16("auto", torch.device("cpu"), nn.Linear(64, 128), 128)


@both
def test_automatic_precision_is_decided_once(x, monkeypatch, kind):
    asked = []
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"amx_bf16": not asked}, raising=False
    )
    monkeypatch.setattr(device, "_MANY_PRODUCTS", 0)
    module = tiny(kind, precision="auto").fit(x)
    asked.append("another processor")
    copy = tiny(kind, precision="auto")
    copy.set_state(module.get_state())
    assert copy.bfloat16_ is True
    assert copy.fit(x).bfloat16_ is True
    assert copy.set_params(precision="float32").fit(x).bfloat16_ is False
    assert tiny(kind, precision="auto").fit(x).bfloat16_ is False


@both
def test_bfloat16_trains_coarsely_but_keeps_float32_weights(x, kind):
    fits = [tiny(kind, precision=p, epochs=30).fit(x) for p in ("float32", "bfloat16")]
    exact, coarse = map(losses, fits)
    assert exact != coarse
    np.testing.assert_allclose(coarse, exact, rtol=0.03)
    assert all(value.dtype == torch.float32 for value in weights(fits[1]).values())


# -- updates -----------------------------------------------------------------------------------


@both
def test_epochs_by_update(x, kind):
    module = tiny(kind, epochs=[np.int64(4), 1, 2]).connect(Observation(x))
    for n in (4, 1, 2, 2):
        assert module.n_epochs == n
        module.update()
        assert module.history_[-1]["epochs"] == n
    known = [(e["update"], e["epoch"]) for e in module.loss_curve_]
    assert known == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (3, 1), (3, 2), (4, 1), (4, 2)]


@both
@pytest.mark.parametrize("warm_start", [True, False])
def test_weights_and_optimiser_are_kept_from_update_to_update(x, kind, warm_start):
    module = tiny(kind, warm_start=warm_start, epochs=[100, 1]).connect(Observation(x)).update()
    first = losses(module)
    module.update()
    start, low, again = first[0], first[-1], losses(module)[-1]
    steps = {int(s["step"]) for s in module.optimizer_.state.values()}
    assert low < start - 0.3
    assert (abs(again - low) < abs(again - start)) == warm_start
    assert steps == ({101} if warm_start else {1})
    assert len(module.loss_curve_) == 101


@both
def test_early_stopping_keeps_the_best_weights(x, kind):
    seen = []
    module = tiny(kind, epochs=400, lr=0.1, validation_fraction=0.5, patience=7, hidden_sizes=(64,))
    module.on_epoch = lambda m, epoch, terms: seen.append((terms["held_out_loss"], weights(m)))
    module.fit(x)
    held_out = [value for value, _ in seen]
    best = int(np.argmin(held_out))
    assert len(seen) == best + 1 + 7 < 400
    assert same_weights(weights(module), seen[best][1])
    assert module.history_[-1]["held_out_loss"] == held_out[best]


def test_epochs_are_compared_by_the_last_ones_alpha():
    """Rows that are all alike and steps that move nothing: held out or not, the loss is the same.

    By each epoch's own alpha the first would seem to be the best.
    """
    options = {"alpha": lambda update, epoch: 2.0 * epoch, "validation_fraction": 0.5, "lr": 1e-30}
    ae = tiny(AE, epochs=4, **options).fit(np.full((8, 3), 0.7))
    learnt = losses(ae)
    assert np.diff(learnt).min() > 1e-3  # alpha rises, and the pull is none of 0
    held_out = [epoch["held_out_loss"] for epoch in ae.loss_curve_]
    assert held_out == pytest.approx([learnt[-1]] * 4, rel=1e-6)


def test_a_callback_may_end_an_update(x):
    module = tiny(VAE, epochs=50)
    module.on_epoch = lambda m, epoch, terms: len(m.loss_curve_) == 4
    assert module.fit(x).history_[-1]["epochs"] == 4


# -- arguments that change ---------------------------------------------------------------------


SHAPES = {
    "latent_dim": 3,
    "hidden_sizes": (5,),
    "net": "conv",
    "batch_norm": True,
    "likelihood": "gaussian",
}


@both
@pytest.mark.parametrize(("name", "value"), SHAPES.items(), ids=SHAPES)
def test_nets_are_built_anew_where_their_shape_has_changed(x, kind, name, value):
    module = tiny(kind, filters=(3,)).connect(Observation(x)).update()
    old, curve = module.nets_, len(module.loss_curve_)
    module.set_params(**{name: value}).update()
    fresh = tiny(kind, filters=(3,)).set_params(**{name: value})
    fresh.fit(x)
    assert module.nets_ is not old
    assert [w.shape for w in weights(module).values()] == [w.shape for w in weights(fresh).values()]
    assert module.message_up.mean.shape == (40, module.latent_dim)
    assert len(module.loss_curve_) == curve + 3  # the curve goes on


@pytest.mark.parametrize("use", ["encode", "log_prob", "score", "sample"])
@pytest.mark.parametrize(("name", "value"), SHAPES.items(), ids=SHAPES)
def test_nets_of_another_shape_are_not_used_before_they_have_learnt(x, name, value, use):
    vae = tiny(VAE, filters=(3,)).fit(x)
    given, before = (3,) if use == "sample" else (x,), vae.get_params()[name]
    expected = getattr(vae, use)(*given)
    vae.set_params(**{name: value})
    with pytest.raises(NotFittedError, match="VAE: arguments that its nets are made of have chan"):
        getattr(vae, use)(*given)
    np.testing.assert_array_equal(getattr(vae.set_params(**{name: before}), use)(*given), expected)


@both
def test_other_nets_of_a_users_take_the_place_of_the_old(x, kind):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(9, 2 * kind.codes_per_latent))
    module = tiny(kind).fit(x).set_params(encoder=linear, decoder=nn.Linear(2, 9)).fit(x)
    assert isinstance(module.nets_["decoder"], nn.Linear)
    nets = module.nets_
    assert deepcopy(module).fit(x).nets_ is not nets
    assert module.fit(x).nets_ is nets


@both
@pytest.mark.parametrize("options", [{"lr": 1e-30}, {"lr": 1e-30, "net": "conv"}])
def test_a_failed_change_of_shape_loses_nothing(x, kind, options):
    module = tiny(kind).fit(x)
    before = weights(module)
    module.set_params(**options, hidden_sizes=(5,), augment=lambda batch: batch[:1])
    with pytest.raises(InputError, match="augment must return"):
        module.fit(x)
    assert same_weights(before, weights(module))
    module.set_params(augment=None, hidden_sizes=(8,), net="mlp")
    assert same_weights(before, weights(module.fit(x)))  # goes on from them, by steps of 1e-30


@both
def test_rates_take_effect_at_the_next_update(x, kind):
    """With a huge decay and no gradient to speak of, Adam only shrinks the weights."""
    module = tiny(kind, epochs=1, alpha=0.0).fit(x)
    before = weights(module)
    module.set_params(lr=1e-9, weight_decay=1e8).fit(x)
    for name, value in weights(module).items():
        torch.testing.assert_close(value, 0.9 * before[name], rtol=1e-4, atol=1e-6)


# -- when it goes wrong ------------------------------------------------------------------------


class NaNFrom:
    """An augmentation that returns NaN from its `first` call on (counted from 1)."""

    def __init__(self, first):
        self.left = first

    def __call__(self, batch):
        self.left -= 1
        return batch if self.left > 0 else batch * torch.nan


@both
@pytest.mark.parametrize("first", [1, 3, 6, 7])
def test_nan_undoes_the_update(x, kind, first):
    """Two batches an epoch: NaN comes in the first or the second of one."""
    module = tiny(kind, epochs=5, batch_size=20).connect(Observation(x)).update()
    good, message, curve = [weights(module)], module.message_up, len(module.loss_curve_)
    module.augment = NaNFrom(first)
    module.on_epoch = lambda m, epoch, terms: good.append(weights(m))
    epoch = (first + 1) // 2
    match = rf"{kind.__name__}: loss became nan in epoch {epoch} of update 2; .*kept.*lr=0\.01"
    with pytest.raises(TrainingError, match=match):
        module.update()
    assert len(good) == epoch
    assert same_weights(weights(module), good[0])
    assert module.message_up is message
    assert len(module.history_) == 1
    assert len(module.loss_curve_) == curve
    module.augment, module.on_epoch = None, None
    again = tiny(kind, epochs=5, batch_size=20).connect(Observation(x)).update()
    assert same_weights(weights(module.update()), weights(again.update()))


@both
@pytest.mark.parametrize("epochs", [1, 5])
def test_weights_that_explode_after_a_finite_loss_are_not_kept(x, kind, epochs):
    """One batch an epoch: the loss is that before the step, so it is finite once too often."""
    module = tiny(kind).connect(Observation(x)).update()
    message, module.lr, module.epochs = module.message_up, 1e30, epochs
    with pytest.raises(TrainingError, match="loss became"):
        module.update()
    assert module.message_up is message
    assert np.isfinite(module.reconstruct(x)).all()


def test_a_failed_fresh_start_loses_nothing(x):
    module = tiny(AE, warm_start=False).connect(Observation(x)).update()
    kept = deepcopy(weights(module))
    module.augment = NaNFrom(1)
    with pytest.raises(TrainingError, match="loss became nan"):
        module.update()
    assert same_weights(weights(module), kept)

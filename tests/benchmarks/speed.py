"""Speed beside a peer measured in the same run."""

from __future__ import annotations

import time
import warnings
from functools import partial

import numpy as np
import torch
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

import serkit as srk
from serkit.modules import GMM, VAE
from serkit.modules.mixture.on_device import RowsOnDevice
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import e_step, kept_features
from serkit.modules.nets.architectures import conv_pair
from serkit.training import Callback

from . import table


def gmm(_: int, quick: bool = False) -> None:
    """A fit to 3,000 x 18, K = 10, full covariances, by maximum likelihood from several starts.

    Targets: n_init = 5 five times faster than scikit-learn at no lower likelihood, n_init = 20
    under 0.4 seconds. Both with their default tolerance, which is the same, 1e-3 nats.
    """
    images, repeats = _images(quick), _repeats(quick)
    z = VAE(18, epochs=2 if quick else 20, random_state=0).fit(images).encode(images)
    blobs, _ = make_blobs(len(images), 18, centers=10, cluster_std=3.0, random_state=0)
    rows = []
    for name, x in (("latents", z.astype(np.float64)), ("overlapping blobs", blobs)):
        for n_init in (2,) if quick else (5, 20):
            ours, theirs = _fits(x, n_init, repeats)
            ratio = np.median(theirs[0]) / np.median(ours[0])
            seconds = table.spread(ours[0]), table.spread(theirs[0]), f"{ratio:.1f}"
            gain = ours[1] - theirs[1]
            rows.append((name, n_init, *seconds, f"{gain.mean():+.4f} ({gain.min():+.4f})"))
    header = ["rows", "n_init", "serkit, seconds", "scikit-learn, seconds", "ratio of medians"]
    header += ["its gain in nats a row, mean and least"]
    table.show(f"GMM.fit to {blobs.shape}, K = 10, full covariances", header, rows)


def _fits(x: np.ndarray, n_init: int, repeats: int) -> np.ndarray:
    """Seconds and log-likelihood per row of serkit's and scikit-learn's: (2, 2, repeats)."""
    fits = []
    for seed in range(-1, repeats):
        ours = GMM(10, n_init=n_init, inference="ml", tol=1e-3, random_state=seed + 1)
        options = {"n_init": n_init, "max_iter": 200, "init_params": "k-means++"}
        theirs = GaussianMixture(10, **options, random_state=seed + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's of restarts that did not converge
            taken = [table.seconds(lambda m=m: m.fit(x)) for m in (ours, theirs)]
        fits.append([taken, [ours.score(x), theirs.score(x)]])
    return np.transpose(fits[1:], (2, 1, 0))  # the first round was for warming up


def vae(_: int, quick: bool = False) -> None:
    """Time to the loss of a plain eager float32 loop of 200 epochs; target: half of its time.

    Once with everything as in the plain loop (what the code itself gains), once with a learning
    rate of 3e-3 in place of 1e-3.
    """
    images, n_epochs = _images(quick), 2 if quick else 200
    rows, ratios = [], []
    flat = images.reshape(len(images), -1)
    _plain_loop(flat, 0, *_plain_mlp(flat.shape[1]), 2)  # warming up
    _time_to(-np.inf, images, 0, 1e-3, 2)
    for seed in range(_repeats(quick)):
        torch.manual_seed(seed)
        goal, plain = _plain_loop(flat, seed, *_plain_mlp(flat.shape[1]), n_epochs)
        same, _, _ = _time_to(-np.inf, images, seed, 1e-3, n_epochs)
        reached, epochs, loss = _time_to(goal, images, seed, 3e-3, n_epochs)
        ratios.append((same / plain, reached / plain))
        rows.append(
            (seed, f"{goal:.2f}", f"{plain:.2f}", f"{same:.2f}", f"{reached:.2f}", epochs, loss)
        )
    header = ["seed", f"loss after {n_epochs} epochs", "plain, seconds", "serkit, the same epochs"]
    header += ["serkit, lr 3e-3, to that loss", "epochs", "its loss"]
    table.show(f"VAE {flat.shape[1]}-128-18, {len(flat):,} rows, batch 500, lr 1e-3", header, rows)
    same, faster = np.median(ratios, axis=0)
    table.say(
        f"median ratios to the plain loop: {same:.2f} (same epochs), {faster:.2f} (to its loss)"
    )


def conv_vae(_: int, quick: bool = False) -> None:
    """Five epochs of a convolutional VAE on 28 x 28 images; target: half of a plain loop's time.

    Both train nets of the same layers, the plain loop in float32.
    """
    images, n_epochs = _images(quick), 1 if quick else 5
    row_shape, options = images.shape[1:], {"filters": (32, 64), "hidden_sizes": (128,)}
    rows, ratios = [], []
    for seed in range(-1, _repeats(quick)):
        nets = conv_pair((1, *row_shape), (32, 64), (128,), 36, 18, batch_norm=False)
        loss, plain = _plain_loop(images[:, None], 1 + seed, *nets, n_epochs)
        options |= {"epochs": n_epochs, "batch_size": 500, "random_state": 1 + seed}
        module = VAE(18, net="conv", **options)
        taken = table.seconds(lambda module=module: module.fit(images))
        if seed < 0:  # warming up
            continue
        ratios.append(plain / taken)
        reached = f"{module.history_[-1]['loss']:.2f}"
        rows.append((seed, f"{plain:.2f}", f"{taken:.2f}", f"{loss:.2f}", reached))
    header = ["seed", "plain, seconds", "serkit, seconds", "plain's loss", "serkit's loss"]
    table.show(f"Convolutional VAE, {len(images):,} x {row_shape}, batch 500", header, rows)
    table.say(f"median ratio: {np.median(ratios):.2f} times faster")


def compiled(_: int, quick: bool = False) -> None:
    """Updates of five epochs eagerly, and with compile=True once torch has compiled; no target."""
    images = _images(quick)
    mlp = {"hidden_sizes": (500, 500), "batch_size": 250}
    conv = {"net": "conv", "filters": (32, 64), "hidden_sizes": (128,), "batch_size": 500}
    rows = []
    nets = {"784-500-500-18": mlp} | ({} if quick else {"convolutional, 32 and 64 filters": conv})
    for name, options in nets.items():
        modules = [VAE(18, **options, epochs=5, random_state=0, compile=c) for c in (False, True)]
        first = [table.seconds(lambda module=module: module.fit(images)) for module in modules]
        fits = [lambda m=m: m.fit(images) for m in modules]
        eager, faster = table.in_turn(fits, _repeats(quick))
        ratio = f"{np.median(eager) / np.median(faster):.2f}"
        rows.append((name, table.spread(eager), table.spread(faster), ratio, f"{first[1]:.0f}"))
    header = ["net", "eager, seconds", "compiled, seconds", "times faster", "the first update"]
    table.show(f"VAE with compile=True, {len(images):,} rows, 5 epochs", header, rows)


def gpu(_: int, quick: bool = False) -> None:
    """Nets and E-steps of EM on a GPU, if there is one, beside the processor; no target.

    After an update that does not count, which loads the device's libraries.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    _nets_on(devices, quick)
    _e_steps_on(devices, quick)


def _nets_on(devices: list[str], quick: bool) -> None:
    images = _images(quick)
    epochs = {"epochs": 1 if quick else 3}
    mlp = {"hidden_sizes": (500, 500), "batch_size": 250, **epochs}
    conv = {"net": "conv", "filters": (32, 64), "hidden_sizes": (128,), "batch_size": 500, **epochs}
    rows = []
    for name, options in {"784-500-500-18": mlp, "convolutional, 32 and 64 filters": conv}.items():
        for device in devices:
            module = VAE(18, **options, random_state=0, device=device)
            [seconds] = table.in_turn([lambda m=module: m.fit(images)], _repeats(quick))
            speed = len(images) * options["epochs"] / seconds
            rows.append((name, device, table.spread(speed, 0)))
    header = ["net", "device", "rows a second"]
    table.show(f"VAE, {len(images):,} x {images.shape[1:]}", header, rows)


def _e_steps_on(devices: list[str], quick: bool) -> None:
    rng, k, d, table_rows = np.random.default_rng(0), 32, 16, []
    for n in (1_000,) if quick else (3_000, 30_000, 300_000, 3_000_000):
        x = rng.normal(size=(n, d)) + 3 * rng.normal(size=(k, d))[rng.integers(k, size=n)]
        rows = Rows(x)
        density = GMM(k, n_init=1, max_iter=5, device="cpu", random_state=0).fit(x[:3000]).density()
        for device in devices:
            features, copy_time = kept_features(rows, "full"), ""
            step = partial(e_step, rows, [density], features=features)
            if device != "cpu":
                copy = partial(RowsOnDevice.of, rows, None, torch.device(device))
                copy_time = table.spread(1000 * table.in_turn([copy], _repeats(quick))[0], 1)
                step = partial(copy().totals, [density])
            milliseconds = table.spread(1000 * table.in_turn([step], _repeats(quick))[0], 1)
            table_rows.append((f"{n:,}", device, milliseconds, copy_time))
    header = ["rows", "device", "ms an E-step", "ms to copy the rows there, once"]
    table.show(f"EM, D = {d}, K = {k}, full covariances", header, table_rows)


def _plain_mlp(d: int) -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Linear(d, 128), nn.ReLU(), nn.Linear(128, 36))
    return encoder, nn.Sequential(nn.Linear(18, 128), nn.ReLU(), nn.Linear(128, d))


def _plain_loop(
    rows: np.ndarray, seed: int, encoder: nn.Module, decoder: nn.Module, epochs: int
) -> tuple[float, float]:
    """What a researcher would write: the last epoch's loss, and the seconds it took."""
    torch.manual_seed(seed)
    x = torch.tensor(rows)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    start = time.perf_counter()
    for _ in range(epochs):
        total = 0.0
        for index in torch.randperm(len(x)).split(500):
            batch = x[index]
            mean, log_var = encoder(batch).chunk(2, dim=1)
            z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
            bce = F.binary_cross_entropy_with_logits(decoder(z), batch, reduction="sum")
            kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()
            optimizer.zero_grad()
            ((bce + kl) / len(batch)).backward()
            optimizer.step()
            total += (bce + kl).item()
    return total / len(x), time.perf_counter() - start


class _StopAt(Callback):
    """Ends the update at a loss."""

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def on_epoch(
        self, graph: srk.Graph, module: srk.Module, epoch: int, terms: dict[str, float]
    ) -> bool:
        return terms["loss"] <= self.loss


def _time_to(
    goal: float, images: np.ndarray, seed: int, lr: float, n_epochs: int
) -> tuple[float, int, str]:
    """Seconds of one update that ends at a loss or after all epochs; its epochs and its loss."""
    options = {"hidden_sizes": (128,), "batch_size": 500, "lr": lr, "random_state": seed}
    module = VAE(18, epochs=n_epochs, **options).connect(srk.Observation(images))
    srk.Graph(module).fit(1, callbacks=[_StopAt(goal)], verbose=False)
    update = module.history_[-1]
    return update["seconds"], update["epochs"], f"{update['loss']:.2f}"


def _repeats(quick: bool) -> int:
    return 1 if quick else 5


def _images(quick: bool) -> np.ndarray:
    """The tutorial's 3,000 digits; the embedded ones where those are not at hand."""
    if quick:
        return srk.datasets.load_digits().images[:200]
    try:
        return srk.datasets.load_tutorial_digits().images
    except srk.errors.DatasetError:
        return srk.datasets.load_digits().images

"""What `Graph.fit(out=...)` leaves behind: a folder a module, and pictures.

::

    runs/vae_gmm/
        module001_vae/   z_learn.txt, x_hat_learn.txt, loss.txt, parameters.safetensors
        module002_gmm/   class_learn.txt, Pdz_learn.txt, mu_learn.txt, acc_learn.txt, ...
        history.json     what every update reported
        *.png            latents before and after, reconstructions, samples, losses, rounds, ...
        round001/        the module folders after each round, if asked for

A row of ``loss.txt`` is an epoch: update, epoch, loss and its terms as in ``loss_curve_``; one of
``acc_learn.txt`` is an update.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import plots
from ..errors import GraphError, OutputError
from ..messages import Categorical, Gaussian
from ..module import Module
from ..observation import Observation
from ..saving import format
from . import inference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .graph import Graph


_SAMPLES_SHOWN, _RECONSTRUCTIONS_SHOWN = 8, 10


def prepare(folder: Path) -> Path:
    """Make a folder and make sure that it can be written to.

    Raises
    ------
    OutputError
        If not; raised before training, so that no result is lost.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None


def write(graph: Graph, folder: Path) -> None:
    """Write module folders, history and pictures."""
    write_modules(graph, folder)
    (folder / "history.json").write_text(
        json.dumps(graph.history, indent=1, default=_plain), encoding="utf-8"
    )
    for name, figure in pictures(graph):
        figure.savefig(folder / f"{name}.png", dpi=120)


def _plain(value: np.generic | np.ndarray) -> object:
    """What `json` cannot write itself: numpy's numbers and arrays, from a user's module."""
    return value.tolist()


def write_modules(graph: Graph, folder: Path) -> None:
    """Write each module's folder: its arrays as text, its parameters as safetensors."""
    for number, (name, module) in enumerate(_learning(graph), start=1):
        place = prepare(folder / f"module{number:03d}_{name}")
        for file, values in module.artefacts().items():
            fmt = "%d" if np.issubdtype(values.dtype, np.integer) else "%.8g"
            np.savetxt(place / file, values, fmt=fmt)
        format.write(place / "parameters.safetensors", module.get_state())


def _learning(graph: Graph) -> Iterator[tuple[str, Module]]:
    """The modules that have learnt something, with their names."""
    for name, module in graph.names.items():
        if not isinstance(module, Observation) and module.history_:
            yield name, module


def pictures(graph: Graph) -> Iterator[tuple[str, Figure]]:
    """Every picture the graph has the data for, with its name."""
    yield "graph", graph.graph(graph.names)
    yield "rounds", graph.rounds(graph.history)
    labels, clusters = _labels(graph), _clusters(graph)
    for name, module in _learning(graph):
        if getattr(module, "loss_curve_", None):
            yield f"losses_{name}", plots.losses(module.loss_curve_, title=name)
        if hasattr(module, "log_likelihood_"):
            yield f"log_likelihood_{name}", plots.log_likelihood(module.log_likelihood_)
    for name, module in _learning(graph):
        if not isinstance(module.message_up, Gaussian):
            continue
        latents = {"before": graph.first_latents.get(name), "after": module.message_up.mean}
        for when, z in latents.items():
            if z is None:
                continue
            title = f"{name}: {when} the joint training"
            figure = plots.latents(z, labels, clusters, title=title)
            yield f"latents_{name}_{when}", figure
    if labels is not None and clusters is not None:
        yield "confusion", plots.confusion(labels, clusters)
    yield from _image_pictures(graph)


def _labels(graph: Graph) -> np.ndarray | None:
    found = [m.labels for m in graph.modules if getattr(m, "labels", None) is not None]
    return np.asarray(found[-1]) if found else None


def _clusters(graph: Graph) -> np.ndarray | None:
    found = [clusters for m in graph.modules if (clusters := m.clusters()) is not None]
    return found[-1] if found else None


def _image_pictures(graph: Graph) -> Iterator[tuple[str, Figure]]:
    """Reconstructions and samples, of observations whose rows can be shown as images."""
    shown = {graph.name_of(m): m for m in graph.observations if is_image(m)}
    for name, observation in shown.items():
        if messages := observation.messages_from_children():
            n_shown = min(_RECONSTRUCTIONS_SHOWN, len(observation.data))
            rows = inference.mean_rows(messages, observation.row_shape, n_shown)
            yield (
                f"reconstructions_{name}",
                plots.reconstructions(observation.data[:n_shown], rows),
            )
    for top in graph.modules:
        if top.sends_up is not Categorical or top.children:
            continue
        try:
            drawn = [
                inference.generate(graph.names, top, _SAMPLES_SHOWN, k, None)
                for k in range(top.size)
            ]
        except GraphError:
            continue  # some module on the way down generates nothing
        for name in [name for name in drawn[0] if name in shown]:
            images = np.stack([found[name] for found in drawn])
            classes = getattr(top, "classes_", None)  # a classifier's; else clusters are numbered
            yield f"samples_{graph.name_of(top)}_{name}", plots.samples(images, names=classes)


def is_image(observation: Observation) -> bool:
    """Whether rows are (H, W), (1 or 3, H, W), or flat, square and not tiny."""
    shape = observation.row_shape
    if len(shape) == 1:
        return shape[0] >= 16 and int(np.sqrt(shape[0])) ** 2 == shape[0]
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))

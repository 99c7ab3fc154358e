"""Results that `Graph.fit(out=...)` writes: a folder for each module, history and pictures.

::

    runs/vae_gmm/
        module001_vae/   z_learn.txt, x_hat_learn.txt, loss.txt, parameters.safetensors
        module002_gmm/   class_learn.txt, Pdz_learn.txt, mu_learn.txt, acc_learn.txt, ...
        module003_mlda/  Pmdw[0]_learn.txt, phi_0.txt, ... (P(word | row), P(word | topic))
        history.json     what every update reported
        run.json         settings, data and versions, by which `serkit report` compares runs
        *.png            latents before and after, reconstructions, samples, losses, rounds, ...
        report.html      a page with all of that
        round001/        the module folders after each round, if asked for
        files.json       what was written here, by which run

The text files have the original Serket's names; `TEXT_FILES` says what is in each. The results of
an earlier run in the folder are deleted, by that list: nothing else ever is.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from .. import metrics
from ..errors import GraphError, OutputError
from ..messages import Categorical, Data, Gaussian
from ..module import Module, messages_to
from ..observation import Observation
from ..saving import format, write_atomically
from ..saving.atomic import explained, reserve
from ..saving.snapshot import Run
from . import inference, report
from .hearing import hearing_warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLES_SHOWN, _RECONSTRUCTIONS_SHOWN = 8, 10
_ROWS_SCALED = 1000  # whose largest value is white
_LIST = "files.json"
Arrays = dict[str, np.ndarray]
File = tuple[str, Callable[[Path], object]]  # a name below a folder, and what writes it to a path
Drawing = tuple[str, Callable[[], "Figure"]]


def prepare(folder: Path, n_bytes: int) -> None:
    """Make a folder; OutputError, before training, if it cannot take so many bytes."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file, n_bytes)


def write(run: Run, folder: Path, heard: Sequence[str] = ()) -> None:
    """Write module folders, history, pictures, report; of earlier results this run's rounds stay.

    A file that cannot be made or written does not keep the others from it: a warning names the one,
    and an OutputError, which comes last, the other. `heard` are texts of warnings for the report.
    """
    rounds = [f"round{number:03d}" for number in range(1, len(run.history) + 1)]
    history = json.dumps(run.history, indent=1, default=lambda value: value.tolist()).encode()
    history_file: File = ("history.json", partial(write_atomically, content=history))
    shown = dict[str, bytes]()
    with hearing_warnings() as of_results:

        def put_page(path: Path) -> None:
            page = report.page(run, path.parent.name, shown, [*heard, *of_results])
            write_atomically(path, page.encode())

        def put_facts(path: Path) -> None:
            write_atomically(path, json.dumps(report.facts(run), indent=1).encode())

        ends: list[File] = [("run.json", put_facts), ("report.html", put_page)]
        files = chain(_module_files(run), [history_file], _picture_files(run, shown), ends)
        _write_files(run, folder, files, lambda name: name.partition("/")[0] in rounds)


@contextmanager
def _leaving_out(name: str) -> Iterator[None]:
    """Warn if a file of results cannot be made, and go on; not being able to write is an error."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"results without {name}, which failed ({reason})", stacklevel=3)


def write_round(run: Run, folder: Path) -> None:
    """Write the module folders as they are now, in a folder for the last round."""
    name = f"round{len(run.history):03d}"
    files = ((f"{name}/{file}", put) for file, put in _module_files(run))
    _write_files(run, folder, files, lambda name: True)


def _module_files(run: Run) -> Iterator[File]:
    """A folder per module: its arrays as text, its parameters as safetensors."""
    for number, (name, module) in enumerate(run.learnt.items(), start=1):
        place = f"module{number:03d}_{name}"
        for file, values in text_files(module).items():
            fmt = "%d" if np.issubdtype(values.dtype, np.integer) else "%.8g"
            text = partial(np.savetxt, X=values, fmt=fmt)
            yield f"{place}/{file}", partial(_put, render=text)
        state = module.get_state()
        yield f"{place}/parameters.safetensors", partial(format.write, tree=state)


def _picture_files(run: Run, shown: dict[str, bytes]) -> Iterator[File]:
    """The pictures, which are left in `shown` too once they are written."""
    for name, figure in pictures(run):
        picture = partial(figure.savefig, format="png", dpi=120)
        yield f"{name}.png", partial(_put_picture, name=name, render=picture, shown=shown)


def _put_picture(
    path: Path, name: str, render: Callable[[BinaryIO], object], shown: dict[str, bytes]
) -> None:
    shown[name] = _rendered(render)
    write_atomically(path, shown[name])


def _put(path: Path, render: Callable[[BinaryIO], object]) -> None:
    """Write a file whose content is made first: an error in that is no error of the disk."""
    write_atomically(path, _rendered(render))


def _rendered(render: Callable[[BinaryIO], object]) -> bytes:
    content = io.BytesIO()
    render(content)
    return content.getvalue()


# -- what runs have written ------------------------------------------------------------------------


def _write_files(
    run: Run, folder: Path, files: Iterable[File], keeps: Callable[[str], bool]
) -> None:
    """Write files, and delete those of other runs and of this one that it does not keep."""
    first_round = json.dumps(run.history[0], default=lambda value: value.tolist())
    this = hashlib.sha256(first_round.encode()).hexdigest()  # no other took as many seconds
    runs, written, problems = _runs_by_file(folder), set[str](), list[OutputError]()

    def attempt(put: Callable[[Path], object], name: str) -> None:
        try:
            with _leaving_out(name):
                put(folder / name)
        except OutputError as error:
            problems.append(error)

    def attempt_list() -> None:
        attempt(partial(write_atomically, content=json.dumps(runs, indent=1).encode()), _LIST)

    for name, put in files:
        written.add(name)
        if runs.get(name) != this:  # listed first, so that even a killed run leaves nothing else
            runs[name] = this
            attempt_list()
        attempt(put, name)
    for name, writer in list(runs.items()):
        if name not in written and not (writer == this and keeps(name)):
            _delete(folder, name)
            del runs[name]
    attempt_list()
    if problems:
        others = f"; nor to {len(problems) - 1} more files there" if len(problems) > 1 else ""
        raise OutputError(f"{problems[0]}{others}; what was learnt is intact")


def _runs_by_file(folder: Path) -> dict[str, str]:
    """The files that runs have written below a folder, each with the run that has."""
    try:
        runs = json.loads((folder / _LIST).read_bytes())
    except (OSError, ValueError):
        return {}
    is_list = isinstance(runs, dict) and all(isinstance(writer, str) for writer in runs.values())
    return runs if is_list else {}


def _delete(folder: Path, name: str) -> None:
    """Delete a file below a folder, and the folders that are empty then; no link, nothing else."""
    path = folder / name
    if path.is_symlink() or not path.is_file() or folder.resolve() not in path.resolve().parents:
        return
    with suppress(OSError):
        path.unlink()
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent).rmdir()


# -- text files ------------------------------------------------------------------------------------


def _latents(module: Module) -> np.ndarray | None:
    """Latent means (N, D)."""
    return module.message_up.mean if isinstance(module.message_up, Gaussian) else None


def _reconstruction(module: Module) -> np.ndarray | None:
    """An autoencoder's reconstructions of its parents' rows, side by side, (N, D)."""
    if not hasattr(module, "loss_curve_"):
        return None
    arrays = [message.array for message in module.messages_down if isinstance(message, Data)]
    return np.hstack([array.reshape(len(array), -1) for array in arrays]) if arrays else None


def _clusters(module: Module) -> np.ndarray | None:
    """The most probable class of each row, (N,), by all that is known."""
    return None if module.posterior is None else module.posterior.clusters


def _probabilities(module: Module) -> np.ndarray | None:
    """Class probabilities (N, K), by all that is known."""
    classes = None if module.posterior is None else module.posterior.classes
    return None if classes is None else np.exp(classes.log_prob)


def _accuracies(module: Module) -> np.ndarray | None:
    """Accuracy after each update."""
    values = [entry["accuracy"] for entry in module.history_ if "accuracy" in entry]
    return np.array(values) if values else None


def _losses(module: Module) -> np.ndarray | None:
    """One row per epoch: update, epoch, loss and its terms."""
    curve = getattr(module, "loss_curve_", None)
    rows = [list(epoch.values()) for epoch in curve] if isinstance(curve, list) else []
    return np.array(rows) if rows else None


def _learnt(name: str, module: Module) -> np.ndarray | None:
    """An attribute, if it is an array."""
    values = getattr(module, name, None)
    return values if isinstance(values, np.ndarray) else None


TEXT_FILES: dict[str, Callable[[Module], np.ndarray | None]] = {
    "z_learn.txt": _latents,
    "x_hat_learn.txt": _reconstruction,
    "class_learn.txt": _clusters,
    "Pdz_learn.txt": _probabilities,
    "acc_learn.txt": _accuracies,
    "loss.txt": _losses,
    "log_likelihood.txt": partial(_learnt, "log_likelihood_"),
    "mu_learn.txt": partial(_learnt, "means_"),
    "component_classes.txt": partial(_learnt, "component_classes_"),
    "transition.txt": partial(_learnt, "transition_"),
    "initial.txt": partial(_learnt, "initial_"),
    "permutations.txt": partial(_learnt, "permutations_"),
}


def text_files(module: Module) -> Arrays:
    """The arrays of a module for text files, by file name."""
    arrays = dict[str, np.ndarray | None]()
    for name, values_of in TEXT_FILES.items():
        with _leaving_out(f"{name} of {module.label}"):
            arrays[name] = values_of(module)
    if hasattr(module, "word_probabilities"):
        with _leaving_out(f"word probabilities of {module.label}"):
            for number, phi in enumerate(module.components_):  # P(word | topic) of each modality
                arrays[f"phi_{number}.txt"] = np.asarray(phi)
            for number, of_rows in enumerate(module.word_probabilities()):
                arrays[f"Pmdw[{number}]_learn.txt"] = np.asarray(of_rows)
    return {name: values for name, values in arrays.items() if values is not None}


# -- pictures --------------------------------------------------------------------------------------


def pictures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Every picture the graph has the data for, with its name; a warning names what fails."""
    for name, draw in _drawings(run):
        with _leaving_out(f"{name}.png"):
            yield name, draw()


def _drawings(run: Run) -> Iterator[Drawing]:
    """What draws each picture, with its name."""
    from .. import plots  # only here, as Matplotlib takes a while

    yield "graph", partial(plots.graph.graph, run.names)
    yield "rounds", partial(plots.graph.rounds, run.history)
    clusters = _last(map(_clusters, run.modules.values()))
    labels = _last((getattr(n, "labels", None) for n in run.names.values()), clusters)
    for name, module in run.learnt.items():
        curve = getattr(module, "loss_curve_", None)
        if isinstance(curve, list) and curve:
            yield f"losses_{name}", partial(plots.losses, curve, title=name)
        if getattr(module, "log_likelihoods_", []):
            yield f"log_likelihood_{name}", partial(_log_likelihoods, run, name, module)
        if isinstance(getattr(module, "components_", None), list):
            yield f"topics_{name}", partial(_topics, run, name, module)
        if (transition := _learnt("transition_", module)) is not None:
            yield f"transitions_{name}", partial(_transitions, name, module, transition)
        if isinstance(module.message_up, Gaussian):
            after = module.message_up.mean
            groups = [_last([values], after) for values in (labels, clusters)]
            for when, z in {"before": run.first_latents.get(name), "after": after}.items():
                if z is not None:
                    title = f"{name}: {when} the joint training"
                    rows = slice(len(z) if len(z) < len(after) else None)  # others were added later
                    colours = (c if c is None else c[rows] for c in groups)
                    draw = partial(plots.latents, z, *colours, title=title)
                    yield f"latents_{name}_{when}", draw
    if len(run.latents_by_round) > 1 and any(r["latents"] for r in run.latents_by_round):
        yield "evolution", partial(plots.evolution, run)
    if labels is not None and clusters is not None:
        yield "confusion", partial(plots.confusion, labels, clusters)
    nodes = run.names.items()
    observations = {name: node for name, node in nodes if isinstance(node, Observation)}
    images = {name: node for name, node in observations.items() if node.image_shape is not None}
    yield from _image_drawings(run, images)
    for name, observation in observations.items():
        is_table = observation.data is not None and len(observation.row_shape) == 1
        if is_table and name not in images:
            yield f"profiles_{name}", partial(_profiles, observation, clusters, labels)


def _last(several: Iterable[ArrayLike | None], rows: np.ndarray | None = None) -> np.ndarray | None:
    """The last that is not None, as an array; of as many rows as `rows` has, if that is given."""
    arrays = [np.asarray(values) for values in several if values is not None]
    fitting = [values for values in arrays if rows is None or values.shape[:1] == rows.shape[:1]]
    return fitting[-1] if fitting else None


def _log_likelihoods(run: Run, name: str, module: Module) -> Figure:
    """Of all updates in the training, each in its round."""
    from .. import plots

    entries = [(r["round"], u) for r in run.history for u in r["updates"]]
    rounds = [n for n, entry in entries if entry["module"] == name and not entry["frozen"]]
    curves = module.log_likelihoods_
    n_shown = min(len(rounds), len(curves))  # there may be updates before the training
    per = "token" if hasattr(module, "word_probabilities") else "row"
    return plots.log_likelihood(curves[-n_shown:], rounds=rounds[-n_shown:], per=per, title=name)


def _topics(run: Run, name: str, module: Module) -> Figure:
    """By the words of each modality, by their names where these are known."""
    from .. import plots

    names = {node: name for name, node in run.names.items()}
    words = {names[node]: getattr(node, "feature_names_in_", None) for node in module.parents}
    components = dict(zip(words, module.components_, strict=True))
    return plots.topics(components, words=words, names=_matched_names(module), title=name)


def _transitions(name: str, module: Module, matrix: np.ndarray) -> Figure:
    from .. import plots

    return plots.heat_map(
        matrix.round(4),
        _matched_names(module),
        title=name,
        label="P(next | class)",
        xlabel="class of the next row",
        ylabel="class of a row",
    )


def _matched_names(module: Module) -> list[str] | None:
    """A module's classes, with the labels that they are matched to, if it has any."""
    labels, clusters = getattr(module, "labels", None), _clusters(module)
    if labels is None or clusters is None or len(labels) != len(clusters):
        return None
    pairs = metrics.matching(labels, clusters)
    classes = range(module.n_outputs or 0)
    return [f"{k} (label {pairs[k]})" if k in pairs else str(k) for k in classes]


def _profiles(
    observation: Observation, clusters: np.ndarray | None, labels: np.ndarray | None
) -> Figure:
    """What is typical of the clusters in a table, by the rows that are observed."""
    from .. import plots

    message = observation.message_up
    assert message is not None
    rows, seen = message.array, message.is_observed
    groups = {
        name: values[observation.share][seen]
        for name, values in {"clusters": clusters, "labels": labels}.items()
        if values is not None and len(values) == observation.n_rows
    }
    names = getattr(observation, "feature_names_in_", None)
    return plots.profiles(rows[seen], **groups, names=names, title=observation.label)


def _image_drawings(run: Run, images: dict[str, Observation]) -> Iterator[Drawing]:
    """Reconstructions and samples of observations whose rows are images."""
    from .. import plots

    modules = list(run.modules.values())
    for name, observation in images.items():
        readers = [module for module in modules if observation in module.parents]
        if observation.data is not None and any(_tells(reader, observation) for reader in readers):
            yield f"reconstructions_{name}", partial(_reconstructions, observation, readers)
    below = {parent for module in modules for parent in module.parents}
    for name, top in run.learnt.items():
        if top.sends_up is not Categorical or top in below:
            continue
        samples = list[Arrays]()
        with _leaving_out(f"samples_{name}"), suppress(GraphError):  # where one generates nothing
            for component in range(top.n_outputs or 0):
                draws = inference.generate(run.names, top, _SAMPLES_SHOWN, component, None)
                samples.append(draws)
        for observed in [key for key in next(iter(samples), {}) if key in images]:
            rows = np.stack([_as_images(images[observed], sample[observed]) for sample in samples])
            classes = getattr(top, "classes_", None)  # a classifier's; else clusters are numbered
            yield f"samples_{name}_{observed}", partial(plots.samples, rows, names=classes)


def _tells(module: Module, parent: Observation) -> bool:
    """Whether a module sends a message down to a parent."""
    down = () if module.posterior is None else module.posterior.down  # not made yet if deferred
    pairs = zip(module.parents, down, strict=False)
    return any(node is parent and message is not None for node, message in pairs)


def _reconstructions(observation: Observation, readers: list[Module]) -> Figure:
    """The first images and what the messages down predict of them."""
    from .. import plots

    message = observation.message_up
    assert message is not None
    rows = message.array[:_RECONSTRUCTIONS_SHOWN]
    means = inference.mean_rows(messages_to(observation, readers), rows.shape[1:], len(rows))
    return plots.reconstructions(*(_as_images(observation, values) for values in (rows, means)))


def _as_images(observation: Observation, rows: np.ndarray) -> np.ndarray:
    """Rows as images in [0, 1], those of counts too."""
    message = observation.message_up
    largest = 1.0 if message is None else np.max(message.array[:_ROWS_SCALED], initial=1.0)
    return observation.as_images(rows) / largest

"""A graph's learnt functions as files for other programs: what `Graph.export` writes.

::

    vae_gmm/
        vae_encoder.onnx     observation -> vae_mean, vae_var
        vae_decoder.onnx     vae_mean -> vae_reconstruction
        gmm_posterior.onnx   vae_mean -> gmm_probabilities
        predict.py           all of them in turn, by onnxruntime and numpy alone
        README.md            the model card

Each file is a `serkit.module.Part` of a module. Tensors have the same name wherever they go in or
come out: of an observation its own, of all else the module's and what it is.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import GraphError, InputError
from ..messages import Data, Message
from ..module import Module, Node, Part, content_of, naming, posterior_of
from ..observation import Observation
from ..saving import write_atomically
from ..saving.snapshot import Run
from . import summary

PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torch": ()}
ENDINGS = {"onnx": "onnx", "torch": "pt2"}
TOLERANCE = 1e-5  # of values up to 1 in size; of larger ones that share of the largest
_EXAMPLES = 64  # rows that files are checked on
Messages = dict[Node, Message]


@dataclass(frozen=True)
class PartFile:
    """A part of a module, to be written: names of tensors, and examples of what goes in and out."""

    label: str  # for error texts
    name: str
    part: Part
    takes: dict[str, np.ndarray]
    gives: dict[str, np.ndarray]


def check_installed(kind: str) -> None:
    """Raise ImportError if a package is missing that files of this kind are written with."""
    missing = [package for package in PACKAGES[kind] if find_spec(package) is None]
    if missing:
        raise ImportError(
            f"Graph.export needs {', '.join(missing)}: pip install '.[export]' in serkit's "
            "checkout (format='torch' needs none)"
        )


def export(run: Run, folder: Path, modules: Sequence[Module], kind: str) -> None:
    """Make and check every file of some modules, then write them all."""
    check_installed(kind)
    parts = _parts_of(run, modules)
    every = [part for several in parts.values() for part in several]
    messages = _example_messages(run, every)
    files = [_file_of(run, m, p, messages, kind) for m, several in parts.items() for p in several]
    _check_names(run, files)
    contents, differences = dict[str, bytes](), dict[str, float]()
    for file in files:
        with _quiet():
            contents[file.name] = _written(file, kind)
            differences[file.name] = _difference(file, contents[file.name], kind)
    card = _card(run, modules, files, differences, kind)
    contents |= {"predict.py": _predict(files, kind).encode(), "README.md": card.encode()}
    for name, content in contents.items():
        write_atomically(folder / name, content)


# -- what there is to write ------------------------------------------------------------------------


def _parts_of(run: Run, modules: Sequence[Module]) -> dict[Module, list[Part]]:
    """The parts of each module; GraphError that names all that have none."""
    parts, refused = dict[Module, list[Part]](), list[str]()
    for module in modules:
        try:
            with naming(module, "parts"):
                parts[module] = module.parts()
            if not all(isinstance(part, Part) for part in parts[module]):
                raise InputError(f"{module.label}.parts must return a list of serkit.Part")
        except GraphError as error:
            refused.append(str(error))
    if refused:
        rest = [name for name, node in run.names.items() if node in parts]
        remedy = f"Export the rest: modules={rest}" if rest else "There is nothing else to export"
        raise GraphError(f"Graph.export: {'; '.join(refused)}. {remedy}")
    return parts


def _example_messages(run: Run, parts: Sequence[Part]) -> Messages:
    """Messages up about a few rows, of all that parts take and of what is below that.

    Rows are those of training that are observed everywhere, and random ones after `Graph.load`. In
    float64 are those that some part takes as they are.
    """
    taken = {node for part in parts for node, _ in part.takes}
    taken |= {ancestor for node in taken for ancestor in node.ancestors()}
    nodes = [node for node in run.names.values() if node in taken]
    exact = {node for part in parts if part.exact for node, _ in part.takes}
    messages: Messages = {}
    for node, rows in _example_rows([n for n in nodes if isinstance(n, Observation)]).items():
        array = rows if node in exact else rows.astype(np.float32)
        messages[node] = Data(array, checked=False)
    for node in nodes:
        if isinstance(node, Module):
            up = posterior_of(node, [messages[parent] for parent in node.parents]).up
            assert up is not None  # as others take it
            messages[node] = up
    return messages


def _example_rows(observations: Sequence[Observation]) -> dict[Observation, np.ndarray]:
    """The same rows of all observations, the first complete ones in turn, or else random ones."""
    held = [len(o.data) for o in observations if o.data is not None]
    complete = np.ones(min(held, default=0), dtype=bool)
    for observation in observations:
        if observation.observed is not None:
            complete &= observation.observed[: len(complete)]
    numbers = np.resize(np.flatnonzero(complete), _EXAMPLES)  # zeros if there are none
    rng, rows = np.random.default_rng(0), dict[Observation, np.ndarray]()
    for observation in observations:
        data = observation.data if complete.any() else None
        shape = (_EXAMPLES, *observation.row_shape)
        rows[observation] = rng.random(shape) if data is None else data[numbers]
    return rows


def _file_of(run: Run, module: Module, part: Part, messages: Messages, kind: str) -> PartFile:
    """A part with the names of its tensors, and what the module itself makes of the examples."""
    name_of = {node: name for name, node in run.names.items()}
    takes = {}
    for node, content in part.takes:
        name = name_of[node] if content == "array" else f"{name_of[node]}_{content}"
        array = content_of(messages[node], content)
        takes[name] = array if isinstance(node, Observation) else array.astype(np.float32)
    with naming(module, "parts"):
        truth = part.truth(*takes.values())
    own = name_of[module]
    names = [own if content == "array" else f"{own}_{content}" for content in part.gives]
    gives = {n: v.astype(np.float32) for n, v in zip(names, truth, strict=True)}
    label, file = f"{module.label}: its {part.name}", f"{own}_{part.name}.{ENDINGS[kind]}"
    return PartFile(label, file, part, takes, gives)


def _check_names(run: Run, files: Sequence[PartFile]) -> None:
    """Raise InputError if two tensors would have the same name."""
    observations = [name for name, n in run.names.items() if isinstance(n, Observation)]
    names = [*observations, *(name for file in files for name in file.gives)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"Graph.export: two tensors would be called {twice[0]!r}; give the modules other names"
        )


# -- files -----------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it torch's exporters, which tell of packages that nobody needs, say nothing."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


class _OfSeveral(torch.nn.Module):
    """A net whatever it calls its arguments."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.net(*tensors)


def _written(file: PartFile, kind: str) -> bytes:
    """A part's file; InputError for a net that cannot be exported."""
    rows = tuple(torch.tensor(array, device="cpu") for array in file.takes.values())
    shapes = tuple({0: torch.export.Dim("batch")} for _ in rows)
    content = io.BytesIO()
    try:
        with torch.no_grad():
            program = torch.export.export(_OfSeveral(file.part.net), rows, dynamic_shapes=(shapes,))
        if kind == "torch":
            torch.export.save(program, content)
            return content.getvalue()
    except Exception as error:  # of the net's own code too
        raise InputError(
            f"Graph.export: {file.label} cannot be exported. torch.export says: {_gist(error)}. A "
            "net must take batches of any number of rows (x.shape[0] in place of len(x), no number "
            "of its own), do the same steps whatever the values are, and compute in torch alone"
        ) from error
    inputs, outputs = [*file.takes], [*file.gives]
    try:
        written: Any = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=inputs, output_names=outputs
        )
    except Exception as error:
        raise InputError(
            f"Graph.export: {file.label} cannot be written as ONNX: {_gist(error)}. Use other "
            "layers, or format='torch'"
        ) from error
    proto = written.model_proto
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto.SerializeToString()


def _gist(error: Exception) -> str:
    """What matters of an exporter's error, which may be pages long."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "specialized it to be" in line or "No ONNX function" in line]
    gist = (told or lines or [type(error).__name__])[0]
    return f"{gist:.200}".rstrip(".")


def _difference(file: PartFile, content: bytes, kind: str) -> float:
    """How far a file's outputs are from the module's own, of all examples and of one row alone.

    InputError if that is more than is allowed.
    """
    largest = 0.0
    for rows in (slice(None), slice(1)):
        given = {name: array[rows] for name, array in file.takes.items()}
        made = _outputs(given, content, kind)
        for name, values, truth in zip(file.gives, made, file.gives.values(), strict=True):
            truth = truth[rows]
            if values.shape != truth.shape:
                raise InputError(
                    f"Graph.export: {file.label} gives {name} of shape {values.shape} once it is "
                    f"exported, and {truth.shape} here"
                )
            apart = np.abs(values - truth).max() / max(1.0, np.abs(truth).max())
            largest = max(largest, float(apart)) if apart == apart else np.inf
    if not largest <= TOLERANCE:
        raise InputError(
            f"Graph.export: {file.label} gives other values once it is exported, by up to "
            f"{largest:.2g} where {TOLERANCE:g} is allowed (of the largest value, if above 1). A "
            "net must give the same for the same row in evaluation mode, and rows must be on a "
            "scale that float32 holds"
        )
    return largest


def _outputs(given: dict[str, np.ndarray], content: bytes, kind: str) -> list[np.ndarray]:
    """What a file makes of arrays, by the program that is meant to run it."""
    if kind == "torch":
        net = torch.export.load(io.BytesIO(content)).module()
        with torch.no_grad():
            made = net(*(torch.tensor(array, device="cpu") for array in given.values()))
        return [tensor.numpy() for tensor in made]
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    taken = {tensor.name for tensor in session.get_inputs()}
    return session.run(None, {name: array for name, array in given.items() if name in taken})


# -- the script ------------------------------------------------------------------------------------

_PREDICT = {
    "onnx": """# python predict.py {usage}
# writes all that follows from these rows to predictions.npz

import sys

import numpy as np
import onnxruntime

tensors = {{name: np.load(file) for name, file in (pair.split("=") for pair in sys.argv[1:])}}
for file in {files}:
    net = onnxruntime.InferenceSession(f"{{sys.path[0]}}/{{file}}")
    takes = {{t.name: "f8" if "double" in t.type else "f4" for t in net.get_inputs()}}
    if takes.keys() <= tensors.keys():
        made = net.run(None, {{name: tensors[name].astype(takes[name]) for name in takes}})
        tensors |= {{t.name: array for t, array in zip(net.get_outputs(), made)}}
np.savez("predictions.npz", **tensors)
""",
    "torch": """# python predict.py {usage}
# writes all that follows from these rows to predictions.npz

import sys

import numpy as np
import torch

tensors = {{name: np.load(file) for name, file in (pair.split("=") for pair in sys.argv[1:])}}
for file, takes, gives in {files}:
    net = torch.export.load(f"{{sys.path[0]}}/{{file}}").module()
    if takes.keys() <= tensors.keys():
        made = net(*(torch.tensor(tensors[name].astype(takes[name])) for name in takes))
        tensors.update(zip(gives, (tensor.detach().numpy() for tensor in made)))
np.savez("predictions.npz", **tensors)
""",
}


def _predict(files: Sequence[PartFile], kind: str) -> str:
    """The script that runs all files."""
    if kind == "onnx":
        listed = json.dumps([file.name for file in files])
    else:
        types = [{name: a.dtype.str[1:] for name, a in file.takes.items()} for file in files]
        triples = [[f.name, takes, [*f.gives]] for f, takes in zip(files, types, strict=True)]
        lines = [f"    {json.dumps(triple)},\n" for triple in triples]
        listed = f"[\n{''.join(lines)}]"
    return _PREDICT[kind].format(usage=_usage(files), files=listed)


def _usage(files: Sequence[PartFile]) -> str:
    """The script's arguments: what is needed from outside, each with a file's name."""
    return " ".join(
        f'"{name}={name}.npy"' if " " in name else f"{name}={name}.npy" for name in _needed(files)
    )


def _needed(files: Sequence[PartFile]) -> dict[str, np.ndarray]:
    """The tensors that files take and none of them gives, with examples."""
    given = {name for file in files for name in file.gives}
    return {n: array for file in files for n, array in file.takes.items() if n not in given}


# -- the model card --------------------------------------------------------------------------------


def _card(
    run: Run,
    modules: Sequence[Module],
    files: Sequence[PartFile],
    differences: dict[str, float],
    kind: str,
) -> str:
    """The model card, as Markdown."""
    names = [name for name, node in run.names.items() if node in modules]
    runs_on = "onnxruntime" if kind == "onnx" else "torch"
    sections = [
        f"# {', '.join(names)}",
        "What `serkit.Graph.export` wrote of a trained graph: functions of rows that any program "
        f"can run. Each takes any number of rows at once; `predict.py` needs {runs_on} and numpy.",
        f"```sh\npython predict.py {_usage(files)}\n```",
        "It writes every tensor that follows from those given to `predictions.npz`.",
        "## Files",
        _table(("file", "takes", "gives", "differs by"), _files(files, differences)),
        f"By how much a file differs from serkit, in {runs_on}, was measured on {_EXAMPLES} rows "
        "when it was written: of values above 1 as a share of the largest. Probabilities are what "
        "a row alone says; what modules above say of it is not in them. No value may be missing.",
        *_classes(run, modules, files),
        "## Data",
        _table(*summary.data(run)),
        "## Modules",
        _table(("module", "settings, but for defaults", "updates", "last numbers"), _modules(run)),
        *_training(run),
        "## Versions",
        _table(("package", "version"), [*summary.versions(*PACKAGES[kind]).items()]),
    ]
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)


def _files(files: Sequence[PartFile], differences: dict[str, float]) -> list[tuple[str, ...]]:
    return [
        (f.name, _tensors(f.takes), _tensors(f.gives), f"{differences[f.name]:.1e}") for f in files
    ]


def _tensors(tensors: dict[str, np.ndarray]) -> str:
    """Names, shapes and types of tensors, in words."""
    shapes = [", ".join(["batch", *map(str, array.shape[1:])]) for array in tensors.values()]
    types = [array.dtype for array in tensors.values()]
    return ", ".join(f"{n} ({s}) {t}" for n, s, t in zip(tensors, shapes, types, strict=True))


def _classes(run: Run, modules: Sequence[Module], files: Sequence[PartFile]) -> Iterator[str]:
    """Which class each probability is of, where classes have names."""
    for name, node in run.names.items():
        classes = getattr(
            node, "classes_", getattr(getattr(node, "estimator_", 0), "classes_", None)
        )
        if node in modules and classes is not None:
            listed = [*classes.tolist()]
            yield f"The classes of {name}, in the order of its probabilities: {listed}."


def _modules(run: Run) -> list[tuple[str, ...]]:
    return [
        (name, f"`{module!r}`", f"{len(module.history_)}", _numbers({**module.history_[-1]}))
        for name, module in run.learnt.items()
    ]


def _numbers(report: dict[str, Any]) -> str:
    """Numbers that a module reported, without how long it took."""
    numbers = {k: v for k, v in report.items() if isinstance(v, int | float) and k != "seconds"}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _training(run: Run) -> list[str]:
    """What was reported by round."""
    if not run.history:
        return []
    return [f"## Training, {len(run.history)} rounds", _table(*summary.rounds(run.history))]

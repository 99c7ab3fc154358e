"""Damaged files: each is read as something sound, or an error of serkit's names the file.

    python -m tests.campaigns.damage [--saved 1500] [--data 250] [--seed 0]
    python -m tests.campaigns.damage --seed 0 --only saved 1234    # one case again, with its error

Saved graphs and modules are cut, their bits and headers changed, or their contents changed under a
checksum that is right; what is read all the same is used. So are the files of data sets, and rows
of Zarr and HDF5. Counted as faults: other errors, errors that do not name the file, hangs, crashes,
and more than 200 MB of memory beyond the file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
import zarr
from PIL import Image
from safetensors.numpy import save as to_safetensors
from scipy.io import wavfile
from sklearn.ensemble import RandomForestClassifier
from tqdm import tqdm

import serkit
from serkit import Graph, Module, Observation, datasets
from serkit.datasets import loaders, sources
from serkit.errors import SavedFileError, SerkitError
from serkit.modules import AE, GMM, HAC, MLDA, VAE, MarkovModel, Supervised
from serkit.saving import format
from tests.benchmarks.table import show
from tests.campaigns.fuzz import Hang, confined, limited

MOST_BYTES = 200 * 2**20  # beyond the file
FAULTS = ("untyped error", "file not named", "hang", "crash", "memory")
KINDS = ("read", "refused", "refused when used", *FAULTS)
RNG = np.random.default_rng(0)
ROWS, COUNTS = RNG.uniform(size=(40, 16)), RNG.poisson(3, (40, 5))
NET = {"epochs": 1, "batch_size": 20, "hidden_sizes": (8,), "random_state": 0}


class Case(NamedTuple):
    """A damaged file, and what reads and uses it."""

    kind: str
    path: Path
    read: Callable[[Path], Any]
    use: Callable[[Any], Any]


class Outcome(NamedTuple):
    """What came of a case."""

    number: int
    kind: str
    result: str
    n_bytes: int = 0
    error: str = ""


# -- saved files -----------------------------------------------------------------------------------


def graphs() -> dict[str, Callable[[], Graph]]:
    """Small graphs of all families, by name."""

    def images() -> Observation:
        return Observation(ROWS)

    def vae_gmm() -> Graph:
        vae = VAE(2, **NET).connect(images())
        return Graph(GMM(2, labels=list("ab") * 20, random_state=0).connect(vae))

    def chain() -> Graph:
        days = np.datetime64("2024-01-01") + np.arange(40) // 10
        gmm = GMM(2, random_state=0).connect(Observation(ROWS[:, :2]))
        return Graph(MarkovModel(groups=days, random_state=0).connect(gmm))

    def topics() -> Graph:
        gmm = GMM(2, random_state=0).connect(
            AE(2, net="conv", filters=(2,), **NET).connect(images())
        )
        return Graph(MLDA(2, random_state=0).connect(gmm, Observation(COUNTS)))

    def forest() -> Graph:
        gmm = GMM(2, random_state=0).connect(Observation(ROWS[:, :2]))
        numbers = Observation((np.arange(40) % 2)[:, None])
        top = Supervised(RandomForestClassifier(2, max_depth=2), random_state=0)
        return Graph(top.connect(gmm, numbers))

    return {"vae_gmm": vae_gmm, "chain": chain, "topics": topics, "forest": forest}


@cache
def whole_file(name: str) -> bytes:
    """A saved graph, or a module saved by itself."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "module":
            serkit.save(VAE(2, **NET).fit(ROWS), path)
        else:
            graphs()[name]().fit(1, verbose=False).save(path)
        return path.read_bytes()


def saved_case(folder: Path, rng: np.random.Generator) -> Case:
    """A damaged saved file."""
    name = str(rng.choice([*graphs(), "module"]))
    kind = str(rng.choice([*BYTES, *CONTENTS]))
    path, whole = folder / f"{name}.safetensors", whole_file(name)
    path.write_bytes(BYTES[kind](whole, rng) if kind in BYTES else changed(whole, kind, rng))
    if name == "module":
        return Case(kind, path, serkit.load, lambda vae: vae.reconstruct(ROWS[:5]))
    if rng.random() < 0.3:
        graph = graphs()[name]()
        read = partial(graph.fit, 1, verbose=False)  # which goes on from what it reads
        return Case(kind, path, lambda path: read(checkpoint=path), predict)
    return Case(kind, path, Graph.load, predict)


def predict(graph: Graph) -> Any:
    """New rows, as far as a graph tells of which shape, through a graph."""
    rows = [np.abs(np.resize(COUNTS, (40, *node.row_shape))) % 2 for node in graph.observations]
    graph.predict(*rows)
    first = next(node for node in graph.modules if isinstance(node, Module))
    return graph.sample(2, leaf=first, random_state=0)


def cut(whole: bytes, rng: np.random.Generator) -> bytes:
    """The first bytes alone, or more than there were."""
    n = int(rng.integers(len(whole)))
    return whole[:n] if rng.random() < 0.9 else whole + whole[:n]


def bits(whole: bytes, rng: np.random.Generator) -> bytes:
    """A few bits turned, anywhere or at the start."""
    spoilt = bytearray(whole)
    end = len(spoilt) if rng.random() < 0.7 else min(64, len(spoilt))
    for place in rng.integers(end, size=rng.integers(1, 9)):
        spoilt[place] ^= 1 << rng.integers(8)
    return bytes(spoilt)


def block(whole: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros or noise."""
    start = int(rng.integers(len(whole)))
    n = int(rng.integers(1, 600))
    noise = bytes(n) if rng.random() < 0.5 else rng.bytes(n)
    return (whole[:start] + noise + whole[start + n :])[: len(whole)]


def header(whole: bytes, rng: np.random.Generator) -> bytes:
    """Another length of the header, or other numbers in it."""
    n = int.from_bytes(whole[:8], "little")
    if rng.random() < 0.3:
        return int(rng.choice([0, n - 1, n + 8, 2**31, 2**63])).to_bytes(8, "little") + whole[8:]
    tensors = json.loads(whole[8 : 8 + n])
    tensor = tensors[str(rng.choice([key for key in tensors if key != "__metadata__"]))]
    odd_ones: list[Any] = [[], [10**12], [2**40, 2**40], [-1], "F32", "x", None, [0, 10**12]]
    tensor[str(rng.choice([*tensor]))] = odd_ones[rng.integers(len(odd_ones))]
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + n :]


BYTES = {"cut": cut, "bits": bits, "block": block, "header": header}


# -- damage under a right checksum -----------------------------------------------------------------


def changed(whole: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A file whose text or arrays are changed, and whose checksum is theirs."""
    n = int.from_bytes(whole[:8], "little")
    text = json.loads(whole[8 : 8 + n])["__metadata__"]["serkit"]
    with TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(whole)
        with format.safe_open(f"{folder}/file", framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = CONTENTS[kind](text, arrays, rng)
    metadata = {"serkit": text, "sha256": format._digest(text, arrays)}
    return to_safetensors(arrays, metadata)


def other_text(text: str, arrays: dict, rng: np.random.Generator) -> str:
    """A few characters of the JSON replaced."""
    spoilt = [*text]
    for place in rng.integers(len(spoilt), size=rng.integers(1, 4)):
        spoilt[place] = str(rng.choice([*'0123456789-e{}[],":x ']))
    return "".join(spoilt)


def other_value(text: str, arrays: dict, rng: np.random.Generator) -> str:
    """A value of the JSON left out, or replaced by an odd one."""
    tree = json.loads(text)
    places = [*_places(tree["tree"])]
    owner, key = places[rng.integers(len(places))]
    odd_ones: list[Any] = [None, True, 0, -1, 10**6, 2**70, 1e308, float("nan"), "", "x", "gmm"]
    odd_ones += [[], {}, [[]], ["x"], {"x": 1}, [5, 10**5], {"__array__": "0"}, {"__array__": "77"}]
    odd_ones += [{"__tensor__": "1"}, {"__records__": [0, 1]}, {"__custom__": "f"}, {"__odd__": 1}]
    odd_ones += [{"__object__": ["serkit.modules.VAE", {"latent_dim": 2}, {}]}, _deep(rng)]
    if rng.random() < 0.2 and isinstance(owner, dict):
        del owner[key]
    else:
        owner[key] = odd_ones[rng.integers(len(odd_ones))]
    return json.dumps(tree)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree, as what holds it and its key there."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _deep(rng: np.random.Generator) -> Any:
    tree: Any = 0
    for _ in range(int(rng.choice([100, 700]))):
        tree = [tree]
    return tree


def other_array(text: str, arrays: dict, rng: np.random.Generator) -> str:
    """An array of another shape, type or size, or with other values."""
    name = str(rng.choice([*arrays]))
    array = arrays[name]
    floats = array.astype(float)
    choices = [
        np.zeros(0, array.dtype),
        array.ravel(),
        array[:1] if array.ndim else array.reshape(1),
        np.stack([array, array]),
        np.zeros((3, 3)),
        np.full_like(floats, np.nan),
        -floats,
        floats * 1e300,
        np.zeros(10**6, np.uint8),
        rng.permutation(array.ravel()).reshape(array.shape),
        (array.view(np.uint8) ^ 1).view(array.dtype) if array.ndim else array + 1,
    ]
    arrays[name] = np.ascontiguousarray(choices[rng.integers(len(choices))])
    return text


def other_bytes(text: str, arrays: dict, rng: np.random.Generator) -> str:
    """Bits of lines of records, or of an estimator, turned."""
    name = str(rng.choice([name for name in arrays if arrays[name].dtype == np.uint8]))
    spoilt = BYTES[str(rng.choice(["cut", "bits", "block"]))]
    arrays[name] = np.frombuffer(spoilt(arrays[name].tobytes() or b"x", rng), np.uint8)
    return text


def swollen(text: str, arrays: dict, rng: np.random.Generator) -> str:
    """A small file that would become a large value."""
    tree = json.loads(text)
    arrays["big"] = np.zeros(10**5)
    lines = arrays["records"].tobytes().split(b"\n")
    n, lines = len(lines), lines + [b'{"a": 1}'] * 10**4
    arrays["records"] = np.frombuffer(b"\n".join(lines), np.uint8)
    many: list[Any] = [
        [{"__tensor__": "big"}] * 10**4,
        [{"__records__": [n, n + 10**4]}] * 10**3,
        [{"__estimator__": "big"}] * 10**4,
        {"__values__": ["U", [10**4], ["x" * 10**5] + ["x"] * (10**4 - 1)]},
        {"__object__": ["serkit.modules.VAE", {"latent_dim": 10**9}, {}]},
    ]
    large = [(30_000, 30_000), [10**5] * 3, 10**9]
    nodes = [node for node in tree["tree"]["nodes"].values() if "Observation" not in node["kind"]]
    node = nodes[rng.integers(len(nodes))]
    if rng.random() < 0.6:
        node["state"][str(rng.choice(["more_", *node["state"]]))] = many[rng.integers(len(many))]
    else:
        node["arguments"][str(rng.choice([*node["arguments"]]))] = large[rng.integers(len(large))]
    return json.dumps(tree)


CONTENTS = {
    "text": other_text,
    "value": other_value,
    "array": other_array,
    "bytes": other_bytes,
    "swollen": swollen,
}


# -- files of data ---------------------------------------------------------------------------------


def data_case(folder: Path, rng: np.random.Generator) -> Case:
    """A damaged file of a data set, a recording, or rows of Zarr or HDF5."""
    return DATA[str(rng.choice([*DATA]))](folder, rng)


def _spoil(path: Path, rng: np.random.Generator) -> str:
    kind = str(rng.choice(["cut", "bits", "block"]))
    path.write_bytes(BYTES[kind](path.read_bytes(), rng))
    return kind


def arrays_case(folder: Path, rng: np.random.Generator) -> Case:
    """An npz file of digits."""
    sources._ARRAYS = {
        "x_train": (12, 28, 28),
        "y_train": (12,),
        "x_test": (4, 28, 28),
        "y_test": (4,),
    }
    arrays = {k: rng.integers(10, size=s).astype(np.uint8) for k, s in sources._ARRAYS.items()}
    path, name = folder / "mnist.npz", str(rng.choice([*arrays]))
    odd_ones = {
        "NaN": np.full(arrays[name].shape, np.nan),
        "range": np.full(arrays[name].shape, -3),
        "labels": np.full(arrays["y_train"].shape, 250),
        "objects": np.full(arrays[name].shape, None),
        "text": np.full(arrays[name].shape, "7"),
        "shape": arrays[name][:2],
        "large": np.zeros((200_000_000,), np.uint8) if rng.random() < 0.1 else np.zeros(10**6),
    }
    kind = str(rng.choice([*odd_ones, "header", "spoilt", "spoilt"]))
    arrays |= {"y_train" if kind == "labels" else name: odd_ones[kind]} if kind in odd_ones else {}
    np.savez_compressed(path, **arrays)
    if kind == "spoilt":
        kind = _spoil(path, rng)
    if kind == "header":  # of more than there is
        large = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            large, {"descr": "|u1", "fortran_order": False, "shape": (10**11,)}
        )
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{name}.npy", large.getvalue())
    return Case(f"npz: {kind}", path, lambda path: datasets.load_mnist("all"), len)


def photographs_case(folder: Path, rng: np.random.Generator) -> Case:
    """A zip of photographs."""
    loaders._ANIMALS_EACH = 2
    path, names = (
        folder / "animals128.zip",
        [f"{f}/{n}.jpg" for f in ("cats", "dogs", "panda") for n in "12"],
    )
    kind = str(
        rng.choice(["large", "cut picture", "bits of a picture", "unpacks", "spoilt", "spoilt"])
    )
    members = {name: _picture(128, rng) for name in names}
    if kind == "large":
        members[names[0]] = _picture(int(rng.choice([127, 9000])), rng, "png")
    if kind in ("cut picture", "bits of a picture"):
        members[names[0]] = (cut if kind == "cut picture" else bits)(members[names[0]], rng)
    if kind == "unpacks":
        members[names[0]] = members[names[0]] + bytes(3 * 10**8 if rng.random() < 0.1 else 10**7)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    kind = _spoil(path, rng) if kind == "spoilt" else kind
    return Case(f"zip: {kind}", path, lambda path: datasets.load_animals(), len)


def _picture(size: int, rng: np.random.Generator, kind: str = "jpeg") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), tuple(rng.integers(256, size=3).tolist())).save(buffer, kind)
    return buffer.getvalue()


def recording_case(folder: Path, rng: np.random.Generator) -> Case:
    """A WAV file, as a data set or as HAC takes it."""
    path = folder / "spoken_digits" / "3_ann_0.wav"
    path.parent.mkdir()
    wavfile.write(path, 8000, rng.integers(-3000, 3000, 4000, dtype=np.int16))
    if rng.random() < 0.5:
        kind = _spoil(path, rng)
    else:
        kind, content = "sizes", bytearray(path.read_bytes())
        place = int(rng.choice([4, 16, 22, 24, 28, 32, 34, 40]))
        content[place : place + 2] = rng.bytes(2)
        content[place + 2 : place + 4] = (
            rng.bytes(2) if place in (4, 40) else content[place + 2 : place + 4]
        )
        path.write_bytes(content)
    if rng.random() < 0.5:
        return Case(f"WAV: {kind}", path, lambda path: HAC(2, random_state=0).fit([path]), repr)
    return Case(f"WAV: {kind}", path, lambda path: datasets.load_spoken_digits(), len)


def zarr_case(folder: Path, rng: np.random.Generator) -> Case:
    """Rows of Zarr."""
    path = folder / "rows.zarr"
    zarr.create_array(path, data=ROWS, chunks=(10, 8))
    chunk = rng.choice([file for file in (path / "c").rglob("*") if file.is_file()])
    if (kind := "deleted") and rng.random() < 0.5:
        chunk.unlink()
    else:
        kind = _spoil(chunk if rng.random() < 0.8 else path / "zarr.json", rng)
    return Case(
        f"Zarr: {kind}", path, lambda path: _observed(partial(zarr.open_array, path, mode="r")), len
    )


def hdf5_case(folder: Path, rng: np.random.Generator) -> Case:
    """Rows of HDF5."""
    path = folder / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=ROWS, chunks=(10, 8), compression="gzip")
        file.create_dataset("empty", shape=(10**9, 784), chunks=(100, 784))
    name = "empty" if rng.random() < 0.2 else "rows"
    kind = "empty" if name == "empty" else _spoil(path, rng)
    return Case(f"HDF5: {kind}", path, lambda path: _observed(lambda: h5py.File(path)[name]), len)


def _observed(opened: Callable[[], Any]) -> Any:
    """An observation of rows, if their own library opens the file at all."""
    try:
        rows = opened()
    except Exception:
        return ()
    return Observation(rows).data


DATA: dict[str, Callable[[Path, np.random.Generator], Case]] = {
    "npz": arrays_case,
    "zip": photographs_case,
    "WAV": recording_case,
    "Zarr": zarr_case,
    "HDF5": hdf5_case,
}
CASES = {"saved": saved_case, "data": data_case}


# -- the judge -------------------------------------------------------------------------------------


def outcome_of(kinds: str, seed: int, number: int) -> Outcome:
    """Damage a file, read it, and look at what comes of it."""
    with TemporaryDirectory() as folder, confined():
        os.environ["SERKIT_DATA"] = folder
        rng = np.random.default_rng([seed, *kinds.encode(), number])
        case = CASES[kinds](Path(folder), rng)
        size = case.path.stat().st_size
        before = _memory("VmRSS", reset=True)
        result, error = _result(case)
        more = max(_memory("VmHWM") - before - size, 0)
    told = "MemoryError" in error or "allocate" in error  # of more than `confined` lets it have
    result = "memory" if more > MOST_BYTES or told else result
    return Outcome(number, case.kind, result, more, error)


def _result(case: Case) -> tuple[str, str]:
    """The result of reading and using a file, and the error if there is one."""
    stage = "refused"
    try:
        with limited():
            read = case.read(case.path)
            stage = "refused when used"
            case.use(read)
        return "read", ""
    except Hang:
        return "hang", ""
    except SerkitError as error:
        is_named = case.path.name in str(error) or stage != "refused"
        if stage == "refused" and case.path.suffix == ".safetensors":  # or code is asked for
            is_named = is_named and (isinstance(error, SavedFileError) or "custom=" in str(error))
        return stage if is_named else "file not named", f"{type(error).__name__}: {error!s:.300}"
    except Exception as error:
        return "untyped error", f"{type(error).__name__}: {error!s:.300} ({stage})"


def _memory(name: str, *, reset: bool = False) -> int:
    """Bytes in memory, now (VmRSS) or at most since the last reset (VmHWM)."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


# -- the campaign ----------------------------------------------------------------------------------


def attack(kinds: str, seed: int, numbers: range) -> Iterator[Outcome]:
    """Outcomes of numbered cases, made in another process, which one of them may end."""
    waiting = list(numbers)
    while waiting:
        with ProcessPoolExecutor(1) as pool:
            try:
                for outcome in pool.map(partial(outcome_of, kinds, seed), waiting):
                    waiting.pop(0)
                    yield outcome
            except BrokenProcessPool:
                yield Outcome(waiting.pop(0), kinds, "crash")


def report(title: str, outcomes: Iterable[Outcome]) -> int:
    """Print what came of all cases, by kind of damage, and the faults; returns their number."""
    outcomes = list(outcomes)
    kinds = sorted({outcome.kind for outcome in outcomes})
    counts = Counter((outcome.kind, outcome.result) for outcome in outcomes)
    rows = [(kind, *(counts[kind, result] for result in KINDS)) for kind in kinds]
    totals = [sum(numbers) for numbers in zip(*(row[1:] for row in rows), strict=True)]
    most = max(outcome.n_bytes for outcome in outcomes) / 2**20
    show(f"{title}: at most {most:.0f} MB beyond the file", ["", *KINDS], [*rows, ("all", *totals)])
    faults = [outcome for outcome in outcomes if outcome.result in FAULTS]
    for fault in faults:
        print(f"{fault.number}: {fault.kind}: {fault.result}: {fault.error}")
    return len(faults)


def run(n_saved: int, n_data: int, seed: int = 0) -> int:
    """Both halves of the campaign; returns the number of faults."""
    n_faults = 0
    for kinds, n in ((kinds, n) for kinds, n in (("saved", n_saved), ("data", n_data)) if n):
        outcomes = tqdm(attack(kinds, seed, range(n)), total=n, disable=None)
        n_faults += report(f"{n} damaged {kinds} files, seed {seed}", outcomes)
    return n_faults


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--saved", type=int, default=1500)
    parser.add_argument("--data", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.only:
        with TemporaryDirectory() as folder, confined():
            os.environ["SERKIT_DATA"] = folder
            rng = np.random.default_rng(
                [chosen.seed, *chosen.only[0].encode(), int(chosen.only[1])]
            )
            case = CASES[chosen.only[0]](Path(folder), rng)
            print(case, case.use(case.read(case.path)))
        return 0
    return run(chosen.saved, chosen.data, chosen.seed)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))

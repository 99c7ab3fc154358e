"""Libraries of a GPU that is not there, so that torch's wheels of a registry load without them.

Those for Linux are linked against gigabytes of GPU libraries, also where there is no GPU. Each is
replaced by one whose functions answer "no device"; torch then says that it sees none.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

OF_A_GPU = re.compile(r"lib(cu|nv|nccl)\w*(-\w+)?\.so")
FUNCTION = re.compile(r"_?_?(cu|nccl|nv)\w+")
NO_DEVICE = "int {}() {{ return 100; }}"
OTHERWISE = {
    "__cudaRegisterFatBinary": "static void *none; void **{}() {{ return &none; }}",
    "__cudaRegisterFunction": "int {}() {{ return 0; }}",
    "__cudaRegisterVar": "int {}() {{ return 0; }}",
    "cudaGetErrorString": 'const char *{}() {{ return "no GPU"; }}',
    "cudaGetLastError": "int {}() {{ return 0; }}",
}


def replace_gpu_libraries(torch: Path) -> None:
    """Write what is missing into the folder ``lib`` of an installed torch. It needs gcc."""
    folder = torch / "lib"
    here = {path.name for path in folder.glob("*.so*")}
    missing = {
        name for path in folder.glob("*.so*") for name in _needed(path) if OF_A_GPU.match(name)
    } - here
    functions = _functions(folder)
    for name in missing:
        _write(folder / name, {v: f for (of, v), f in functions.items() if of == name})
    loose = functions.get(("", ""), set())
    if missing and loose:
        first = next(name for name in sorted(missing) if name.startswith("libcudart"))
        of_first = {v: f for (of, v), f in functions.items() if of == first}
        _write(folder / first, {**of_first, "": loose})


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _needed(path: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", _output("readelf", "-d", path))


def _functions(folder: Path) -> dict[tuple[str, str], set[str]]:
    """Undefined functions by the library they are of and their version; ("", "") for no version."""
    wanted, defined = defaultdict(set), set()
    for path in folder.glob("*.so*"):
        owner_of = {}  # of a version
        owner = ""
        for line in _output("readelf", "-V", "--wide", path).splitlines():
            if found := re.search(r"File: (\S+)", line):
                owner = found[1]
            elif found := re.search(r"Name: (\S+)\s+Flags", line):
                owner_of[found[1]] = owner
        for line in _output("nm", "-D", path).splitlines():
            *_, kind, symbol = line.split()
            name, _, version = symbol.partition("@")
            version = version.strip("@")
            if kind not in "Uw":
                defined.add(name)
            elif FUNCTION.fullmatch(name):
                wanted[owner_of.get(version, ""), version].add(name)
    return {key: names - defined for key, names in wanted.items()}


def _write(path: Path, functions: dict[str, set[str]]) -> None:
    names = sorted(set().union(*functions.values()))
    code = "\n".join(OTHERWISE.get(name, NO_DEVICE).format(name) for name in names)
    versions = "\n".join(
        f"{version} {{ global: {'; '.join(sorted(names))}; }};"
        for version, names in functions.items()
        if version
    )
    with TemporaryDirectory() as folder:
        source, script = Path(folder, "library.c"), Path(folder, "versions")
        source.write_text(f"{code}\n", "utf-8")
        script.write_text(versions, "utf-8")
        options = [f"-Wl,--version-script={script}"] if versions else []
        _output(
            *("gcc", "-w", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{path.name}"),
            *(*options, "-o", path, source),
        )

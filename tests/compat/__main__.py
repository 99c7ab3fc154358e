"""Install serkit into one end of its range of versions, and run a part of the tests there.

    python -m tests.compat lower --python python3.11 --folder /tmp/lower
    python -m tests.compat upper --python python3.13 --folder /tmp/upper

"lower" takes the floors in setup.py, "upper" the newest releases there are. What is installed and
tested is the last commit, as users get it. By hand: torch's wheel alone is up to a gigabyte. A
folder that is there already is gone on with.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from tests.compat.no_gpu import replace_gpu_libraries

ROOT = Path(__file__).parents[2]
OF_TORCH = ["filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools"]
TESTED = (
    "tests/test_messages.py",
    "tests/test_module.py",
    "tests/test_scikit_learn.py",
    "tests/mixture",
    "tests/nets",
    "tests/autoencoder",
    "tests/sequence/test_field.py",
    "tests/saving/test_format.py",
    "tests/saving/test_snapshot.py",
    "tests/graph/test_graph.py",
    "tests/tutorials/test_tutorials.py",
)
SCRIPT = "import platform, numpy, scipy, sklearn, torch; print(platform.python_version(), *("
SCRIPT += "f'{m.__name__} {m.__version__}' for m in (numpy, scipy, sklearn, torch)))"


def requirements(end: str) -> list[str]:
    """What serkit needs: at the floors for "lower", else whatever is newest."""
    listed = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text("utf-8"), re.S)
    floors = re.findall(r'"([\w-]+)>=([\d.]+)"', listed[1])
    return [f"{name}=={floor}.*" if end == "lower" else name for name, floor in floors]


def unpack(*paths: str, into: Path) -> None:
    """Files of the last commit."""
    command = ["git", "archive", "HEAD", *paths]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(into, filter="data")


def main() -> int:
    """Run it; pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("end", choices=["lower", "upper"])
    parser.add_argument("--python", default="python3", help="the interpreter of the environment")
    parser.add_argument("--folder", type=Path, required=True, help="outside the repository")
    parser.add_argument("--torch", help="another version of torch, such as 2.7.*")
    parser.add_argument("tests", nargs="*", default=TESTED)
    chosen = parser.parse_intermixed_args()

    folder = chosen.folder.resolve()
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([chosen.python, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    wanted = requirements(chosen.end)
    torch = [name for name in wanted if name.startswith("torch")]
    torch = [f"torch=={chosen.torch}"] if chosen.torch else torch
    # Without its dependencies: those of a GPU are gigabytes.
    subprocess.run([*install, "--no-deps", *torch], check=True)
    others = [name for name in wanted if not name.startswith("torch")]
    subprocess.run([*install, *others, *OF_TORCH, "pytest"], check=True)
    libraries = folder / "lib"
    for found in libraries.glob("python3*/site-packages/torch"):
        replace_gpu_libraries(found)
    unpack(into=folder / "source")
    subprocess.run([*install, "--no-deps", "--force-reinstall", folder / "source"], check=True)
    for name in ("serkit", "modules"):  # the tests are of what is installed
        (folder / "source" / name).rename(folder / f"unused_{name}_{os.getpid()}")
    subprocess.run([python, "-c", SCRIPT], cwd=folder, check=True)
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", *chosen.tests]
    return subprocess.run(command, cwd=folder / "source").returncode


if __name__ == "__main__":
    raise SystemExit(main())

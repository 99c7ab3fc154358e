"""What the package's files import of each other: arrows that go one way, and public names."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE, MODULES = ROOT / "serkit", ROOT / "modules"


def name_of(file):
    """A file's name in an import; a package's for its __init__."""
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"serkit.{name}" if MODULES in file.parents else name


FILES = {name_of(file): file for top in (CORE, MODULES) for file in sorted(top.rglob("*.py"))}


def imports_of(name, everywhere=True):
    """A file's imports, also in functions and for types unless not: (imported file, name in it)."""
    tree = ast.parse(FILES[name].read_text("utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                if f"{source}.{alias.name}" in FILES:
                    yield f"{source}.{alias.name}", ""
                elif source in FILES:
                    yield source, alias.name


IMPORTS = {name: set(imports_of(name)) for name in FILES}


GATHERING = {"serkit", "serkit.command", "serkit.presets", "serkit.__main__"}


def folder_of(name):
    """Where a file lies; those which gather the others stand for themselves."""
    return FILES[name] if name in GATHERING else FILES[name].parent


def circle_in(arrows):
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [str(place) for place in error.args[1]]
    return []


def test_files_do_not_import_in_a_circle():
    assert not circle_in({name: {file for file, _ in IMPORTS[name]} for name in FILES})


def test_arrows_between_folders_go_one_way():
    arrows = {folder_of(name): set() for name in FILES}
    for name in FILES:
        arrows[folder_of(name)] |= {folder_of(file) for file, _ in IMPORTS[name]}
    arrows = {folder: others - {folder} for folder, others in arrows.items()}
    assert not arrows[CORE]
    assert arrows[MODULES / "common"] <= {CORE}
    assert not circle_in(arrows)


def test_only_saving_knows_the_modules_and_only_when_called():
    inner = [name for name in FILES if CORE in FILES[name].parents]
    for name in (name for name in inner if name != "serkit.presets"):  # which sets their arguments
        is_saving = folder_of(name) == CORE / "saving"
        found = imports_of(name, everywhere=False) if is_saving else IMPORTS[name]
        assert not [file for file, _ in found if file.startswith("serkit.modules")], name


def test_pictures_are_imported_only_when_they_are_drawn():
    for name in (name for name in FILES if folder_of(name) != CORE / "plots"):
        top = imports_of(name, everywhere=False)
        assert not [file for file, _ in top if file.startswith("serkit.plots")], name


def test_private_names_stay_in_their_file():
    private = {name: [own for _, own in IMPORTS[name] if own.startswith("_")] for name in FILES}
    assert not {name: names for name, names in private.items() if names}


def test_no_file_is_private():
    files = {name.rpartition(".")[2] for name in FILES} - {"__main__"}
    assert not [name for name in files if name.startswith("_")]


# What takes a while to load, and is needed by few: 0.05 to several seconds each.
LOADED_WHEN_USED = (
    "IPython",
    "h5py",
    "librosa",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "plotly",
    "polars",
    "sklearn.cluster",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "skops",
    "soundfile",
    "tensorboard",
    "torch._dynamo",
    "torch._inductor",
    "torch.onnx._internal.exporter",
    "torch.utils.tensorboard",
    "tqdm.auto",  # warns in notebooks without ipywidgets
    "umap",
    "wandb",
    "yaml",
    "zarr",
)


def test_what_takes_long_to_load_is_loaded_when_it_is_used():
    script = "import sys, serkit.modules; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "serkit.modules" in run.stdout.split()
    assert not set(LOADED_WHEN_USED) & set(run.stdout.split())

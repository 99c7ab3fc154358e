"""README and guide: their code runs, what they link to is there, and so is what they name."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_wine

import serkit as srk
import serkit.modules
from serkit import Module
from tests.helpers.pictures import SAVEFIG
from tests.test_architecture import CORE, GATHERING, IMPORTS, ROOT, folder_of
from tutorials import vae_gmm

GUIDE = ROOT / "tutorials" / "guide"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [*ROOT.glob("*.md"), *GUIDE.rglob("*.md")]
}
FLAGS = re.DOTALL | re.MULTILINE
BLOCK = re.compile(r"^```python\n(.*?)^```", FLAGS)
TUTORIALS = [path.name for path in (ROOT / "tutorials").glob("*.py")]


def code_of(page):
    """The Python blocks of a page, in the page's own lines, so that errors tell where they are."""
    lines = []
    for block in BLOCK.finditer(PAGES[page]):
        lines += [""] * (PAGES[page].count("\n", 0, block.start(1)) - len(lines))
        lines += block[1].splitlines()
    return "\n".join(lines)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a page's code in a folder of its own, by presets of few epochs; gives what it defines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)
    preset = vae_gmm.shortened(srk.presets.vae_gmm())
    monkeypatch.setattr(srk.presets, "vae_gmm", lambda name: preset)

    def run(page):
        namespace = {"__name__": "page"}
        exec(compile(code_of(page), page, "exec"), namespace)
        return namespace

    return run


@pytest.mark.parametrize("page", [p for p in PAGES if code_of(p) and p != "README.md"])
def test_code_of_the_guide_runs(page, run):
    assert run(page)


def test_recipe_of_optuna_runs():
    optuna = pytest.importorskip("optuna", reason="the recipe is for those who have optuna")
    page = PAGES["tutorials/guide/choosing.md"]
    (recipe,) = re.findall(r"^```py\n(import optuna.*?)^```", page, FLAGS)
    recipe = recipe.replace("n_trials=50", "n_trials=7").replace(
        "VAE(\n", "VAE(epochs=2, latent_dim="
    )
    known = {"srk": srk, "wine": load_wine().data[:, :5] / 10, **vars(serkit.modules)}
    exec(recipe, known)
    states = [trial.state for trial in known["study"].trials]
    assert len(states) == 7
    assert {*states} <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}


def test_code_of_the_readme_runs_and_leaves_files(run):
    made = run("README.md")
    accuracies = [update["accuracy"] for update in made["gmm1"].history_]
    assert len(accuracies) == 6  # of four rounds in a loop and two of a graph
    assert accuracies[3] > 0.6  # chance is 0.1
    assert Path("runs", "digits", "module002_gmm", "class_learn.txt").exists()
    objectives = [round_["updates"][-1]["objective"] for round_ in made["graph"].history]
    assert min(objectives) > 20  # a mixture much narrower than its latents has hundreds below 0
    for graph in (made["graph"], made["linear"].fit(1, verbose=False)):
        assert graph.predict(made["images"]).classes.shape == (1797,)


def test_readme_shows_the_module_of_the_tutorial():
    (shown,) = re.findall(r"^@dataclass.*?(?=\n\n\n)", PAGES["README.md"], re.DOTALL | re.MULTILINE)
    assert shown in (ROOT / "tutorials" / "own_module.py").read_text("utf-8")


def test_readme_is_short_and_names_every_tutorial():
    assert len(PAGES["README.md"].splitlines()) <= 160
    assert [name for name in TUTORIALS if f"`{name}`" not in PAGES["README.md"]] == []


def anchors_of(path):
    """What a link can name in a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)", path.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = (ROOT / page).parent / file if file else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_and_functions_that_are_named_exist(page):
    """`serkit/module.py` is a file, `serkit/module.py::Module.update` is defined in it."""
    for file, name in re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", PAGES[page]):
        assert (ROOT / file).exists() or file in TUTORIALS, file
        scope = ast.parse((ROOT / file).read_text("utf-8")).body if name else []
        for part in filter(None, name.split(".")):
            scope = next((n.body for n in scope if getattr(n, "name", None) == part), None)
            assert scope is not None, f"{file}::{name}"


def test_table_of_modules_has_them_all():
    public = {name: getattr(serkit.modules, name) for name in serkit.modules.__all__}
    modules = {
        n for n, kind in public.items() if isinstance(kind, type) and issubclass(kind, Module)
    }
    made_by_sklearn = {"SklearnClusterer", "SklearnTransformer"}
    rows = re.findall(r"^\| `(\w+)", PAGES["tutorials/guide/modules.md"], re.MULTILINE)
    assert modules - made_by_sklearn <= set(rows)
    pages = "".join(text for page, text in PAGES.items() if "guide/modules/" in page)
    of_pages = re.findall(r"^\| `(\w+)|^# .*?: (.*)", pages, re.MULTILINE)
    told = {name for row, title in of_pages for name in (row, *title.split(", "))}
    assert {
        name for name, kind in public.items() if isinstance(kind, type)
    } - made_by_sklearn <= told


def test_picture_of_the_architecture_has_the_arrows_of_the_code():
    arrows = {
        (folder_of(file).name, folder_of(other).name)
        for file in IMPORTS
        if file not in GATHERING
        for other, _ in IMPORTS[file]
        if folder_of(file) != folder_of(other) and folder_of(other) != CORE
    }
    drawn = re.findall(
        r"^ *(\w+) --> (\w+)$", PAGES["tutorials/guide/architecture.md"], re.MULTILINE
    )
    assert set(drawn) == {arrow for arrow in arrows if "modules" not in arrow}


def test_diagrams_are_drawn_whole(monkeypatch):
    monkeypatch.syspath_prepend(GUIDE)
    svg = import_module("diagrams").svg
    blocks = re.findall(r"^```mermaid\n(.*?)^```", "".join(PAGES.values()), FLAGS)
    assert len(blocks) >= 2
    for block in blocks:
        assert svg(block).count("<rect") == block.count('["')
        assert svg(block).count('class="arrow"') == block.count("->")
    drawn = svg('graph BT\n a["low"]\n b["high"]\n a -->|"up"| b\n b -.->|"down"| a\n')
    heights = {text: int(y) for y, text in re.findall(r'y="(\d+)"[^>]*>(\w+)</text>', drawn)}
    assert heights["high"] < heights["up"] == heights["down"] < heights["low"]


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "$$" in text])
def test_formulas_become_mathml(page):
    convert = pytest.importorskip("latex2mathml.converter").convert
    formulas = re.findall(r"\$\$(.*?)\$\$", PAGES[page], re.DOTALL)
    assert formulas
    for formula in formulas:
        mathml = convert(formula, display="block")
        assert "\\" not in mathml  # a command that it does not know
        assert mathml.count("<mi>") > 1


def test_contents_of_the_guide_have_every_page_and_every_public_name():
    contents = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [page.relative_to(GUIDE).as_posix() for page in GUIDE.rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in contents] == []
    documented = re.findall(r": api/([\w.]+)\.md", contents)
    listed = re.search(r"PARTS = \((.*?)\)", (GUIDE / "hooks.py").read_text("utf-8"), re.DOTALL)
    assert documented == re.findall(r'"([\w.]+)"', listed[1])
    within = {f"serkit.{name}" for name in srk.__all__ if inspect.ismodule(getattr(srk, name))}
    assert within - {"serkit.processes"} <= set(documented)  # which modules speak to, not people

"""What `make docs` adds to the guide.

Scripts and notebooks, pages of the repository, the API reference; formulas, as MathML, and
diagrams, as SVG, so that pages need no network.
"""

from __future__ import annotations

import html
import importlib
import inspect
import posixpath
import re
from importlib.resources import files as files_of
from pathlib import Path
from types import ModuleType
from typing import Any

from diagrams import svg
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PARTS = (
    "serkit",
    "serkit.modules",
    "serkit.messages",
    "serkit.datasets",
    "serkit.presets",
    "serkit.metrics",
    "serkit.measures",
    "serkit.paths",
    "serkit.plots",
    "serkit.training",
    "serkit.training.loggers",
    "serkit.options",
    "serkit.errors",
)
OF_THE_REPOSITORY = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
FUNCTION = re.compile(r"<mi>(log|exp|max|min)</mi>")  # of TeX, which has room round it
FONT = files_of("ziamath.fonts") / "STIXTwoMath-Regular.ttf"  # with which formulas look alike


def on_files(files: Files, *, config: Any) -> Files:
    """Add pages that are made of what lies elsewhere."""
    for path in sorted((ROOT / "tutorials").glob("*.*")):
        kind = path.suffix[1:].replace("py", "python")
        content = f"# {path.name}\n\n````{kind}\n{path.read_text('utf-8')}````\n"
        _add(files, config, _script(path.name), content)
    for name in OF_THE_REPOSITORY:
        if (ROOT / name).exists():
            text = (ROOT / name).read_text("utf-8")
            _add(files, config, f"repository/{name.lower()}", LINK.sub(_from_the_top, text))
    for path in sorted((ROOT / "tutorials" / "pictures").glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "assets/math.ttf", content=FONT.read_bytes()))
    for part in PARTS:
        _add(files, config, f"api/{part}.md", _reference(part))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Draw diagrams, and lead links out of the guide's folder to the pages made above."""
    markdown = DIAGRAM.sub(lambda block: svg(block[1]), markdown)
    path = page.file.src_path
    if path.startswith(("repository/", "scripts/", "api/")):
        return markdown
    return LINK.sub(lambda link: _from_the_guide(link, posixpath.dirname(path)), markdown)


def on_page_content(content: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn TeX into MathML."""
    return FORMULA.sub(_formula, content)


def _formula(found: re.Match[str]) -> str:
    display = "inline" if found[1] == "span" else "block"
    formula = convert(html.unescape(found[2]), display=display)
    formula = formula.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # "distributed as"
    return FUNCTION.sub(r'<mo form="prefix" lspace="0.17em" rspace="0.17em">\1</mo>', formula)


def _add(files: Files, config: Any, path: str, content: str) -> None:
    files.append(File.generated(config, path, content=content))


def _from_the_guide(link: re.Match[str], folder: str) -> str:
    """A link of a page of the guide, from its folder there to the page that is made of a file."""
    target, anchor = link[1], link[2] or ""
    if target.startswith("http"):
        return link[0]
    place = posixpath.normpath(posixpath.join("tutorials/guide", folder, target))
    if place.startswith("tutorials/guide/"):
        return link[0]
    if place.endswith((".py", ".yaml")):
        place = _script(Path(place).name)
    elif place.startswith("tutorials/"):
        place = place.removeprefix("tutorials/")
    else:
        place = f"repository/{place.lower()}"
    return f"]({posixpath.relpath(place, folder or '.')}{anchor})"


def _script(name: str) -> str:
    """The page that shows a script."""
    return f"scripts/{name.removesuffix('.py').replace('.', '_')}.md"


def _from_the_top(link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    if target.startswith("http"):
        return link[0]
    if target.startswith("tutorials/guide/"):
        return f"](../{target[16:]}{anchor})"
    if target.startswith("tutorials/pictures/"):
        return f"](../pictures/{Path(target).name})"
    if target.startswith("tutorials/"):
        return f"](../{_script(Path(target).name)})"
    if target in OF_THE_REPOSITORY:
        return f"]({target.lower()}{anchor})"
    return "](readme.md)"  # a file that has no page


def _reference(part: str) -> str:
    """Every public name of a part of the package, in its own words."""
    module = importlib.import_module(part)
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == part
    ]
    entries = [f"# {part}", inspect.cleandoc(module.__doc__ or "").replace("`serkit`", "serkit")]
    for name in names:
        value = getattr(module, name)
        if not isinstance(value, ModuleType) and (inspect.isclass(value) or callable(value)):
            entries.append(f"::: {value.__module__}.{value.__qualname__}")
    return "\n\n".join(entries) + "\n"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Let the search work without a network: own lines in place of a script from elsewhere."""
    script = (ROOT / "tutorials" / "guide" / "worker.js").read_text("utf-8")
    return re.sub(
        r'<script src="https://unpkg\.com/iframe-worker/shim"></script>',
        lambda _: f"<script>{script}</script>",
        output,
    )

"""What `make docs` adds to the guide: scripts, pages of the repository, and the API reference."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

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


def on_files(files: Files, *, config: Any) -> Files:
    """Add pages that are made of what lies elsewhere."""
    for path in sorted((ROOT / "tutorials").glob("*.py")):
        content = f"# {path.name}\n\n````python\n{path.read_text('utf-8')}````\n"
        _add(files, config, f"scripts/{path.stem}.md", content)
    for name in OF_THE_REPOSITORY:
        if (ROOT / name).exists():
            text = (ROOT / name).read_text("utf-8")
            _add(files, config, f"repository/{name.lower()}", LINK.sub(_from_the_top, text))
    for path in sorted((ROOT / "tutorials" / "pictures").glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    for part in PARTS:
        _add(files, config, f"api/{part}.md", _reference(part))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Lead links out of the guide's folder to the pages made above."""
    return LINK.sub(_from_the_guide, markdown) if "/" not in page.file.src_path else markdown


def _add(files: Files, config: Any, path: str, content: str) -> None:
    files.append(File.generated(config, path, content=content))


def _from_the_guide(link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    if target.startswith("../../"):
        return f"](repository/{target[6:].lower()}{anchor})"
    if target.endswith(".py"):
        return f"](scripts/{Path(target).stem}.md)"
    return f"]({target.removeprefix('../')}{anchor})"


def _from_the_top(link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    if target.startswith("http"):
        return link[0]
    if target.startswith("tutorials/guide/"):
        return f"](../{target[16:]}{anchor})"
    if target.startswith("tutorials/pictures/"):
        return f"](../pictures/{Path(target).name})"
    if target.startswith("tutorials/"):
        return f"](../scripts/{Path(target).stem}.md)"
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

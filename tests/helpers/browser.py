"""A headless Chromium for pages that were written, where one is installed."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU


@dataclass
class Opened:
    """A page in the browser, and what went wrong in it or out of it so far."""

    page: object
    problems: list = field(default_factory=list)  # errors, and requests but that of the page

    def run(self, script, argument=None):
        """The value of a JavaScript expression or function, awaited."""
        return self.page.evaluate(script, argument)


@contextmanager
def browser():
    """A browser; the test is skipped, with a reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian's package chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield opened
        opened.close()


def opened(browser, path, width=1400):
    """A page from a file, once it is complete."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    found = Opened(page)
    page.on("pageerror", lambda error: found.problems.append(f"error: {error}"))
    page.on("console", lambda message: _note(found, message.type, message.text))
    page.on("request", lambda request: _note_request(found, request.url, path.as_uri()))
    page.goto(path.as_uri())
    page.evaluate("explorer.ready")
    return found


def _note(found, kind, text):
    if kind == "error":
        found.problems.append(f"{kind}: {text}")


def _note_request(found, url, own):
    if url != own and not url.startswith(("data:", "blob:")):
        found.problems.append(f"request: {url}")

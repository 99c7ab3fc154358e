"""HTML made of elements, in which a text is never markup, whoever wrote it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_VOID = ("img", "meta")  # elements without an end
_IN_NOTEBOOKS = """
.serkit { font: 13px/1.4 system-ui, sans-serif; color: #1c2733; }
.serkit table { border-collapse: collapse; margin: 4px 0; font: inherit; color: inherit; }
.serkit th, .serkit td { border: 0; border-bottom: 1px solid #e3e8ee; padding: 2px 10px 2px 4px;
  text-align: left; vertical-align: top; background: none; overflow-wrap: break-word; }
.serkit th, .serkit td:first-child { white-space: nowrap; }
.serkit .number { text-align: right; font-variant-numeric: tabular-nums; }
.serkit details { border: 1px solid #8fa3b8; border-radius: 6px; background: #fff;
  padding: 4px 10px; margin: 4px; max-width: 520px; }
.serkit details tr:first-child { display: none; }
.serkit summary { cursor: pointer; } .serkit small { color: #52606d; margin-left: 10px; }
.serkit .diagram { display: inline-block; background: #f3f5f8; border-radius: 8px; padding: 6px; }
.serkit .level { display: flex; flex-wrap: wrap; justify-content: center;
  align-items: flex-start; }
.serkit .level + .level::before { content: "\\2195"; flex-basis: 100%; text-align: center;
  color: #52606d; line-height: 1; }
"""
_NUMBER = re.compile(r"[+-]?\d[\d.e+-]*( .*)?")
_TAG = re.compile(r"<[^>]*>")


class Markup(str):
    """Text that is HTML; any other is escaped where it comes into an element."""


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An HTML element of some content, each `Markup` or else a text.

    Attributes that are None are left out; ``class_`` stands for ``class``.

    >>> from serkit.markup import element
    >>> element("p", "a < b, ", element("b", "bold"), class_="note")
    '<p class="note">a &lt; b, <b>bold</b></p>'
    """
    written = {name.rstrip("_"): value for name, value in attributes.items() if value is not None}
    inner = "".join(f' {name}="{html.escape(str(value))}"' for name, value in written.items())
    end = "" if tag in _VOID else f"{joined(content)}</{tag}>"
    return Markup(f"<{tag}{inner}>{end}")


def joined(content: Iterable[object]) -> Markup:
    """Several elements or texts, one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in content))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Markup:
    """A table; columns of numbers in words stand to the right.

    >>> from serkit.markup import table
    >>> table(("loss",), [("0.5",)])
    '<table><tr><th class="number">loss</th></tr><tr><td class="number">0.5</td></tr></table>'
    """
    rows = [*rows]
    columns = (
        [_TAG.sub("", str(c)) for c in column if str(c)] for column in zip(*rows, strict=True)
    )
    of_numbers = [any(texts) and all(map(_is_number, texts)) for texts in columns]
    kinds = ["number" if number else None for number in of_numbers] or [None] * len(head)
    lines = [("th", head), *(("td", row) for row in rows)]
    return element("table", *(_line(tag, cells, kinds) for tag, cells in lines), **attributes)


def _line(tag: str, cells: Sequence[object], kinds: Sequence[str | None]) -> Markup:
    pairs = zip(cells, kinds, strict=True)
    return element("tr", *(element(tag, content, class_=kind) for content, kind in pairs))


def _is_number(text: str) -> bool:
    """Whether a text is a number, or one with words behind it, such as a unit."""
    return text in ("", "nan", "inf", "-inf") or _NUMBER.fullmatch(text) is not None


def fragment(*content: object) -> Markup:
    """Elements for a notebook, with their style."""
    return element("div", element("style", Markup(_IN_NOTEBOOKS)), *content, class_="serkit")


def document(title: str, style: str, *content: object) -> Markup:
    """A page that stands by itself: whatever it shows is in it, and it loads nothing else."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    return Markup(f"<!doctype html>\n{element('html', head, element('body', *content), lang='en')}")

"""Mermaid's "graph BT", as far as the guide uses it, as SVG: it shows without a network."""

from __future__ import annotations

import html
import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

NODE = re.compile(r'^\s*(\w+)\["(.*)"\]\s*$', re.MULTILINE)
EDGE = re.compile(r'^\s*(\w+) (-->|-\.->)(?:\|"(.*)"\|)? (\w+)\s*$', re.MULTILINE)
LONGEST = 18  # letters of a line in a box
LINE, LETTER, CLIMB, GAP, ASIDE = 14, 6.4, 48, 9, 12  # pixels
LEAST = 0.7  # share of its width to which a narrow page may shrink it
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)


@dataclass(eq=False)
class Box:
    """A node, or a bend: where an arrow passes a level, without a text."""

    lines: list[str]
    level: int = 0
    x: float = 0.0  # of its middle
    y: float = 0.0

    @property
    def width(self) -> float:
        """Of the frame."""
        return LETTER * max(map(len, self.lines)) + 2 * GAP if self.lines else GAP

    @property
    def height(self) -> float:
        """Of the frame."""
        return LINE * len(self.lines) + 12 if self.lines else 0


@dataclass(frozen=True)
class Arrow:
    """From the first of some boxes, past bends, to the last."""

    path: list[Box]
    text: str
    is_dotted: bool

    @property
    def sign(self) -> int:
        """1 for what comes down, -1 for what goes up."""
        return 1 if self.path[0].level > self.path[-1].level else -1


def svg(text: str) -> str:
    """The picture of a graph's boxes and arrows."""
    boxes = {name: Box(_lines(label)) for name, label in NODE.findall(text)}
    edges = [(boxes[a], boxes[b], words, line) for a, line, words, b in EDGE.findall(text)]
    solid = [(a, b) for a, b, _, line in edges if line == "-->"]
    _put_on_levels([*boxes.values()], [(a, b) for a, b, *_ in edges if (b, a) not in solid])
    arrows = [Arrow(_with_bends(a, b), words, line != "-->") for a, b, words, line in edges]
    bends = [bend for arrow in arrows for bend in arrow.path[1:-1]]
    _put_in_places([*boxes.values(), *bends], arrows)
    return _drawn([*boxes.values(), *bends], arrows)


def _lines(label: str) -> list[str]:
    """What stands before a colon has a line of its own."""
    parts = label.split(": ", 1)
    return [line for part in parts for line in textwrap.wrap(part, LONGEST, break_long_words=False)]


def _put_on_levels(boxes: list[Box], upward: list[tuple[Box, Box]]) -> None:
    """Each box above what leads to it, and as near as can be below what it leads to."""
    for _ in boxes:
        for low, high in upward:
            high.level = max(high.level, low.level + 1)
    for box in sorted(boxes, key=lambda box: -box.level):
        above = [high.level for low, high in upward if low is box]
        box.level = min(above, default=box.level + 1) - 1


def _with_bends(first: Box, last: Box) -> list[Box]:
    step = 1 if last.level > first.level else -1
    return [first, *(Box([], at) for at in range(first.level + step, last.level, step)), last]


def _put_in_places(boxes: list[Box], arrows: list[Arrow]) -> None:
    """Boxes of a level side by side, each near the middle of what it is joined to."""
    joined = defaultdict(list)
    for one, other in (pair for arrow in arrows for pair in pairwise(arrow.path)):
        joined[one].append(other)
        joined[other].append(one)
    levels = [[b for b in boxes if b.level == at] for at in sorted({b.level for b in boxes})]
    for sweep in range(24):
        for level in levels if sweep % 2 else levels[::-1]:
            wanted = {b: sum(o.x for o in joined[b]) / max(len(joined[b]), 1) for b in level}
            end = -float("inf")
            for box in sorted(level, key=wanted.__getitem__):
                box.x = max(wanted[box], end + box.width / 2)
                end = box.x + box.width / 2 + GAP
            shift = sum(box.x - wanted[box] for box in level) / len(level)
            for box in level:
                box.x -= shift
    top = 4.0
    for level in reversed(levels):
        height = max(box.height for box in level)
        for box in level:
            box.y = top + height / 2
        top += height + CLIMB


def _drawn(boxes: list[Box], arrows: list[Arrow]) -> str:
    beside = LETTER * max((len(arrow.text) for arrow in arrows), default=0) + 4
    left = min(box.x - box.width / 2 for box in boxes) - beside
    right = max(box.x + box.width / 2 for box in boxes) + beside
    bottom = max(box.y + box.height / 2 for box in boxes) + 4
    width = right - left
    size = f'viewBox="{left:.0f} 0 {width:.0f} {bottom:.0f}" width="{width:.0f}"'
    size += f' style="min-width: {LEAST * width:.0f}px"'
    content = "".join([*map(_curve, arrows), *(_frame(box) for box in boxes if box.lines)])
    return f'<div class="diagram"><svg {size} role="img">{TIP}{content}</svg></div>'


def _curve(arrow: Arrow) -> str:
    """An arrow; one with a text leaves room for the one that comes back."""
    aside = ASIDE * arrow.sign if arrow.text else 0
    first, *_ = arrow.path
    at = first.y + arrow.sign * first.height / 2
    commands, middles = [f"M{first.x + aside:.0f} {at:.0f}"], []
    for one, other in pairwise(arrow.path):
        end = other.y - arrow.sign * other.height / 2
        middles.append((at + end) / 2)
        points = (one.x + aside, middles[-1], other.x + aside, middles[-1], other.x + aside, end)
        commands.append("C" + " ".join(f"{value:.0f}" for value in points))
        at = other.y + arrow.sign * other.height / 2
    dashes = ' stroke-dasharray="4 3"' if arrow.is_dotted else ""
    path = f'<path class="arrow" d="{"".join(commands)}"{dashes} marker-end="url(#tip)"/>'
    anchor = "start" if arrow.sign > 0 else "end"
    return path + (_text(arrow.text, first.x + 1.5 * aside, middles[0], anchor))


def _frame(box: Box) -> str:
    corner = f'x="{box.x - box.width / 2:.0f}" y="{box.y - box.height / 2:.0f}"'
    first = box.y - LINE * (len(box.lines) - 1) / 2
    lines = [_text(line, box.x, first + LINE * n, "middle") for n, line in enumerate(box.lines)]
    size = f'width="{box.width:.0f}" height="{box.height:.0f}" rx="6"'
    return f"<rect {corner} {size}/>{''.join(lines)}"


def _text(text: str, x: float, y: float, anchor: str) -> str:
    place = f'x="{x:.0f}" y="{y + 4:.0f}" text-anchor="{anchor}"'
    return f"<text {place}>{html.escape(text)}</text>" if text else ""

"""Draws a flow chart as SVG: the way down on the left, what leaves it on the right; for wide and for narrow pages."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from narrun_async.reporting.html.blocks import FlowBox, FlowChart

_FONT_SIZE, _LINE, _PADDING = 13, 18, 10
#: of an average letter of the page's fonts, as a share of the size; a little more than they need
_LETTER = 0.56
_ARROW = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where boxes stand, in units of the drawing."""

    name: str
    width: int
    #: of the boxes on the way down
    main_x: int
    main_width: int
    #: of those that leave it
    side_x: int
    side_width: int
    #: where the line down runs
    trunk_x: int
    gap: int


WIDE = Plan(name="wide", width=720, main_x=1, main_width=330, side_x=400, side_width=318, trunk_x=166, gap=34)
NARROW = Plan(name="narrow", width=352, main_x=1, main_width=310, side_x=56, side_width=295, trunk_x=26, gap=26)


def draw_flow(chart: FlowChart, plan: Plan) -> str:
    """The chart as an `<svg>` element."""
    drawing = _Drawing(plan)
    for number, step in enumerate(chart.steps):
        drawing.add_main(step.box, is_first=number == 0)
        if step.leaves is not None:
            drawing.add_side(step.leaves)
    if chart.outcomes:
        drawing.add_outcomes(chart.outcomes)
    identity = f"figure-{chart.name}-{plan.name}"
    return (
        f'<svg viewBox="0 0 {plan.width} {drawing.y + 1}" role="img" class="flow {plan.name}" '
        f'aria-labelledby="{identity}-title {identity}-desc">'
        f'<title id="{identity}-title">{escape(chart.title)}</title>'
        f'<desc id="{identity}-desc">{escape(chart.description)}</desc>'
        f"{''.join(drawing.parts)}</svg>"
    )


class _Drawing:
    """Grows downwards; `y` is where the last box ends."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.parts: list[str] = []
        self.y = 1
        #: where the line from the last box of the way down begins
        self._from_y = 1

    def add_main(self, box: FlowBox, *, is_first: bool) -> None:
        plan = self._plan
        if not is_first:
            self.y = max(self.y, self._from_y) + plan.gap
            self._line_down(plan.trunk_x, self._from_y, self.y)
        self.y += self._box(box, plan.main_x, self.y, plan.main_width, style="main")
        self._from_y = self.y

    def add_side(self, box: FlowBox) -> None:
        plan = self._plan
        top = self.y + plan.gap // 2
        height = self._box(box, plan.side_x, top, plan.side_width, style="side")
        middle = top + height // 2
        self.parts.append(f'<path class="line" d="M{plan.trunk_x} {middle}H{plan.side_x - _ARROW}"/>')
        self._head(plan.side_x, middle, to_the_right=True)
        self.y = top + height - plan.gap // 2

    def add_outcomes(self, boxes: Sequence[FlowBox]) -> None:
        plan = self._plan
        space = 16
        width = (plan.width - 2 - space * (len(boxes) - 1)) // len(boxes)
        bar_y = max(self.y, self._from_y) + plan.gap // 2
        top = bar_y + plan.gap
        centres = [1 + number * (width + space) + width // 2 for number in range(len(boxes))]
        left, right = min(plan.trunk_x, centres[0]), max(plan.trunk_x, centres[-1])
        self.parts.append(f'<path class="line" d="M{plan.trunk_x} {self._from_y}V{bar_y}M{left} {bar_y}H{right}"/>')
        heights = []
        for centre, box in zip(centres, boxes, strict=True):
            self._line_down(centre, bar_y, top)
            heights.append(self._box(box, centre - width // 2, top, width, style="main"))
        self.y = top + max(heights)

    def _box(self, box: FlowBox, x: int, y: int, width: int, *, style: str) -> int:
        """:returns: its height"""
        letters = int((width - 2 * _PADDING) / (_FONT_SIZE * _LETTER))
        titles = textwrap.wrap(box.title, letters) or [""]
        lines = [line for text in box.lines for line in textwrap.wrap(text, letters)]
        told = [*(("title", line) for line in titles), ("count", box.count), *(("line", line) for line in lines)]
        height = len(told) * _LINE + 2 * _PADDING - 4
        self.parts.append(f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>')
        for number, (kind, text) in enumerate(told):
            baseline = y + _PADDING + _LINE * number + _FONT_SIZE
            self.parts.append(f'<text class="{kind}" x="{x + _PADDING}" y="{baseline}">{escape(text)}</text>')
        return height

    def _line_down(self, x: int, start: int, end: int) -> None:
        self.parts.append(f'<path class="line" d="M{x} {start}V{end - _ARROW}"/>')
        self._head(x, end, to_the_right=False)

    def _head(self, x: int, y: int, *, to_the_right: bool) -> None:
        half = _ARROW - 1
        corners = (
            f"{x - _ARROW - 2},{y - half} {x},{y} {x - _ARROW - 2},{y + half}"
            if to_the_right
            else f"{x - half},{y - _ARROW - 2} {x},{y} {x + half},{y - _ARROW - 2}"
        )
        self.parts.append(f'<polygon class="head" points="{corners}"/>')

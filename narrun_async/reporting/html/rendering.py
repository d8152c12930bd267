"""Turns a page into one HTML file: templates, the style sheet and the drawings, and nothing from anywhere else.

Everything that is not markup of ours is escaped by the templates. A template that asks for what is not there fails.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from narrun_async.reporting.html.blocks import Figure, FlowChart, Page
from narrun_async.reporting.html.drawing import draw
from narrun_async.reporting.html.flow_drawing import NARROW, WIDE, draw_flow
from narrun_async.reporting.html.wording import clean_lines

_TEMPLATES = Path(__file__).with_name("templates")


def render_page(page: Page) -> str:
    """The whole file."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_presentable,
    )
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    environment.globals.update(
        draw_figure=_draw_figure,
        draw_flow=_draw_flow,
        exactly=escape,
        style=Markup(style),  # noqa: S704 - ours
    )
    return environment.get_template("page.html").render(page=page)


def _presentable(value: object) -> object:
    """Without control characters, and a percent sign stays with its number. Markup is ours and left as it is."""
    return clean_lines(value).replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _draw_figure(figure: Figure) -> Markup:
    svg = draw(figure.chart, name=f"figure-{figure.name}", title=figure.title, description=figure.description)
    return Markup(svg)  # noqa: S704 - written as XML, which escapes


def _draw_flow(chart: FlowChart) -> Markup:
    return Markup(draw_flow(chart, WIDE) + draw_flow(chart, NARROW))  # noqa: S704 - escapes every text

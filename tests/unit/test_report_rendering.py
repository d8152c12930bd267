"""Promises of the report's file: it loads nothing, runs nothing, escapes everything, and is the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from jinja2 import UndefinedError
from made_up_cohorts import Rates, draw_cohort, make_row, rows_of_table
from made_up_reports import make_calls, make_experiment, make_material, make_run

from narrun_async.analysis.report_tree import IndicatorCount
from narrun_async.models import CohortRow, Serving, ServingUse
from narrun_async.reporting.html.blocks import FlowBox, FlowChart, FlowStep
from narrun_async.reporting.html.charts import (
    BarChart,
    BarSeries,
    Chart,
    Curve,
    ForestChart,
    ForestRow,
    HistogramChart,
    Ink,
    IntervalChart,
    PlacedPoint,
    Point,
    Series,
    SquareChart,
    TimeChart,
)
from narrun_async.reporting.html.drawing import draw
from narrun_async.reporting.html.flow_drawing import NARROW, WIDE, draw_flow
from narrun_async.reporting.html.page import build_page
from narrun_async.reporting.html.rendering import render_page

#: S07 of the faults: markup where names, messages and quotations come from
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</style><link rel=stylesheet href=//evil.example/x.css>",
    "\x00\x1b[31m\u202e",
)
#: elements without an end
VOID = {"meta", "link", "br", "img", "hr", "input"}


def full_rows() -> list[CohortRow]:
    """Enough of everything that no section is empty."""
    drawn = draw_cohort(Rates(n_incidents=120, prevalence=0.4, labelled=0.6, failed=0.05), seed=3)
    rows = [*drawn, make_row("p", skipped="placeholder"), make_row("q", detected=0, copied_from=1)]
    years = {row.incident_id: 2015 + number % 4 for number, row in enumerate(rows)}
    return [
        CohortRow(
            **{name: getattr(row, name) for name in CohortRow.__slots__} | {"incident_year": years[row.incident_id]}
        )
        for row in rows
    ]


def full_document(rows: list[CohortRow] | None = None, **changes: object) -> str:
    options: dict[str, object] = {
        "calls": [*make_calls(40), *make_calls(20, run_id=2, failed=3)],
        "runs": [make_run(1), make_run(2, mode="resume")],
        "indicators": [IndicatorCount(indicator="threatened her", n_narratives=12, n_yes=11, n_no=1)],
        "n_resamples": 50,
    }
    return render_page(build_page(make_material(rows or full_rows(), **options | changes)))  # type: ignore[arg-type]


class Reading(HTMLParser):
    """A strict look at a document: elements are closed in order, and what they hold is kept."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(document: str) -> Reading:
    reading = Reading()
    reading.feed(document)
    reading.close()
    assert not reading.open
    return reading


@pytest.fixture(scope="module")
def document() -> str:
    return full_document()


def test_the_document_is_well_formed_and_ids_are_unique(document: str) -> None:
    elements = read(document).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {attributes["href"] for _, attributes in elements if (attributes.get("href") or "").startswith("#")}
    named = {name for _, attributes in elements for name in (attributes.get("aria-labelledby") or "").split()}
    assert {one[1:] for one in referred if one} | named <= set(ids)
    urls = set(re.findall(r"url\(#([^)]+)\)", document))
    assert urls and urls <= set(ids)


def test_nothing_is_loaded_from_anywhere_and_nothing_runs(document: str) -> None:
    reading = read(document)
    tags = {tag for tag, _ in reading.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img", "image", "form", "base", "video", "audio"}
    for tag, attributes in reading.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in document and not re.search(r"url\((?!#)", document)
    policy = next(attributes for tag, attributes in reading.elements if attributes.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_headings_are_in_order_and_there_is_one_of_the_first_kind(document: str) -> None:
    levels = [int(tag[1]) for tag, _ in read(document).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_drawing_has_a_title_a_description_and_its_numbers_beside_it(document: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", document, flags=re.DOTALL)
    assert len(drawings) >= 12
    for drawing in drawings:
        assert re.search(r"<title id=.*?>.+?</title><desc id=.*?>.+?</desc>", drawing, flags=re.DOTALL)
        assert 'role="img"' in drawing
    figures = re.findall(r'<figure id="(?!figure-flow)([\w-]+)">(.*?)</figure>', document, flags=re.DOTALL)
    assert figures and all("<table" in figure for _, figure in figures)


def test_every_table_says_what_its_rows_and_columns_are(document: str) -> None:
    tables = re.findall(r"<table.*?</table>", document, flags=re.DOTALL)
    assert len(tables) > 10
    for table in tables:
        assert "<caption>" in table and '<th scope="col">' in table and '<th scope="row">' in table


def test_drawings_have_the_colours_and_fonts_of_the_page(document: str) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", document, flags=re.DOTALL):
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!-)", re.sub(r'(href="|url\()#[\w-]+', "", drawing))
        assert "DejaVu" not in drawing
    used = set(re.findall(r"var\((--[\w-]+)\)", document))
    defined = set(re.findall(r"(--[\w-]+):", document))
    assert used <= defined


def test_the_same_material_gives_the_same_bytes(document: str) -> None:
    assert full_document() == document


@pytest.mark.fault("S07")
@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_stands_in_names_prompts_messages_and_quotations_is_text(
    document: str, payload: str, measured: Any
) -> None:
    clean = read(document)
    attacked = full_document(
        rows_of_table(3, 2, 1, 9),
        calls=(),
        experiment=make_experiment(payload, notes=payload, model_name=payload, api_url=payload),
        system_prompt=payload,
        user_template=payload,
        approval_note=payload,
        settings={payload: payload, "privacy.allow_remote": "true"},
        runs=[make_run(1, ended_why=payload, host=payload), make_run(2, api_url=payload, api_url_overridden=True)],
        servings=[
            ServingUse(
                serving=Serving(model=payload, system_fingerprint=payload, server=payload),
                run_id=1,
                first_seen_at=None,
                n_results=1,
            )
        ],
        indicators=[IndicatorCount(indicator=payload, n_narratives=3, n_yes=2, n_no=1)],
        remarks=[payload],
    )
    found = read(attacked)
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in clean.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", attacked)[0]
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", attacked)
    measured("the HTML report: no element and no handler that a harmless one does not have")


def test_an_error_category_and_a_skip_reason_of_a_foreign_database_are_text() -> None:
    rows = [make_row("a", error="<b>x</b>"), make_row("b", skipped="<i>y</i>"), make_row("c", detected=1)]
    found = read(render_page(build_page(make_material(rows))))
    assert not {"b", "i"} & {tag for tag, _ in found.elements}
    assert any("<b>x</b>" in text for text in found.text)


def test_a_prompt_is_printed_to_the_letter_and_a_percent_sign_stays_with_its_number() -> None:
    document = full_document(rows_of_table(3, 2, 1, 9), calls=(), system_prompt="Say  50 % or\n\tless & <TEXT>.")
    assert "<pre>Say  50 % or\n\tless &amp; &lt;TEXT&gt;.</pre>" in document
    assert not re.search(r">[^<]*\d %[^<]*</dd>", document)


def test_a_template_that_asks_for_what_is_not_there_fails() -> None:
    with pytest.raises(UndefinedError):
        render_page(object())  # type: ignore[arg-type]  # that is the point


# --- drawings --------------------------------------------------------------------------------------------------------

P = Point(value=0.3, low=0.1, high=0.6)
CHARTS: dict[str, Chart] = {
    "intervals": IntervalChart(
        labels=tuple(map(str, range(2003, 2025))),
        series=(
            Series(name="CME", ink=Ink.FIRST, points=(P, Point(value=None)) * 11),
            Series(name="LE", ink=Ink.SECOND, points=(P,) * 22),
        ),
        x_title="year",
        y_title="share",
    ),
    "one interval": IntervalChart(
        labels=("2015",), series=(Series(name="x", ink=Ink.BAD, points=(Point(value=0.0),)),), x_title="", y_title=""
    ),
    "forest": ForestChart(rows=(ForestRow(label="Incidents", point=P, ink=Ink.MUTED),), x_title="share"),
    "no forest": ForestChart(rows=(), x_title="share"),
    "bars": BarChart(
        labels=("a", "b"),
        series=(
            BarSeries(name="yes", ink=Ink.FIRST, counts=(1, 2)),
            BarSeries(name="no", ink=Ink.SECOND, counts=(0, 0)),
        ),
        title_of_labels="x",
        title_of_counts="y",
    ),
    "lying bars": BarChart(
        labels=("$5 and $6_a", "日本語 {x}", "a\\b%"),
        series=(BarSeries(name="n", ink=Ink.BAD, counts=(1, 0, 3)),),
        title_of_labels="",
        title_of_counts="n",
        is_lying=True,
    ),
    "square": SquareChart(
        points=(PlacedPoint(x=0.9, y=1.0, low=0.8, high=1.0), PlacedPoint(x=0.5, y=0.4)),
        x_title="x",
        y_title="y",
        has_diagonal=True,
    ),
    "line": SquareChart(
        points=(PlacedPoint(x=1, y=0.1), PlacedPoint(x=0, y=1)), x_title="x", y_title="y", is_line=True, level=0.1
    ),
    "histogram": HistogramChart(edges=(0.01, 0.3, 40.0), counts=(3, 0), x_title="s", y_title="n"),
    "narrow histogram": HistogramChart(edges=(0.0613, 0.0614), counts=(3,), x_title="s", y_title="n"),
    "time": TimeChart(
        edges=(0.0, 1.0, 2.0),
        curves=(Curve(name="a", ink=Ink.FIRST, values=(1.0, None)), Curve(name="b", ink=Ink.BAD, values=(None, None))),
        marks=(1.0,),
        x_title="s",
        y_title="n",
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_of_any_kind_is_drawn_as_text_and_lines(name: str) -> None:
    svg = draw(CHARTS[name], name="figure-x", title="A <title>", description="what & why")
    assert svg.startswith('<svg viewBox="0 0 400 ') and "xmlns" not in svg
    assert "A &lt;title&gt;" in svg and "what &amp; why" in svg
    assert all(one.startswith("figure-x-") for one in re.findall(r'\bid="([^"]+)"', svg))
    read(svg)


def test_a_dollar_sign_and_foreign_letters_in_a_label_are_themselves() -> None:
    svg = draw(CHARTS["lying bars"], name="x", title="t", description="d")
    assert "$5 and $6_a" in svg and "日本語 {x}" in svg and "a\\b%" in svg


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(CHARTS["bars"], name="x", title="t", description="d")
    assert dict(mpl.rcParams) == before


def test_a_flow_is_drawn_wide_and_narrow_and_every_line_fits_its_box() -> None:
    long = "a reason that takes many more words than would ever fit on a single line of the box"
    step = FlowStep(box=FlowBox(title="A & B", count="1,234"), leaves=FlowBox(title="x", count="2", lines=(long,)))
    chart = FlowChart(
        name="flow",
        title="<flow>",
        description="d",
        steps=(step, step),
        outcomes=(FlowBox(title="yes", count="3"), FlowBox(title="no", count="4", lines=("l",))),
    )
    for plan in (WIDE, NARROW):
        svg = draw_flow(chart, plan)
        read(svg)
        assert "A &amp; B" in svg and "&lt;flow&gt;" in svg
        height = int(re.findall(r'viewBox="0 0 \d+ (\d+)"', svg)[0])
        boxes = [tuple(map(int, one)) for one in re.findall(r'x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', svg)]
        assert all(x + width <= plan.width and y + tall <= height for x, y, width, tall in boxes)
        lines = [(int(y), text) for y, text in re.findall(r'<text class="line" x="\d+" y="(\d+)">(.*?)</text>', svg)]
        assert max(len(text) for _, text in lines) * 13 * 0.6 < max(width for _, _, width, _ in boxes)
        assert all(any(top < y < top + tall for _, top, _, tall in boxes) for y, _ in lines)


def test_an_empty_report_is_a_document_too() -> None:
    read(render_page(build_page(make_material([], runs=[], servings=[], source=None))))
    read(render_page(build_page(make_material(rows_of_table(1, 0, 0, 1)))))

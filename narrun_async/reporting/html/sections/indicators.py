"""What the answers say they are based on: quotations of narratives, so only where they were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.report_tree import IndicatorCount, Withheld
from narrun_async.reporting.html.blocks import Aside, Block, Figure, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.charts import BarChart, BarSeries, Ink
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import DASH, clean

_MAX_LABEL_CHARS = 32


def indicators_section(material: ReportMaterial) -> Section:
    return Section(slug="indicators", title="What the answers are based on", blocks=tuple(_blocks(material)))


def _blocks(material: ReportMaterial) -> Sequence[Block]:
    if material.indicators is None:
        return [
            Paragraph(
                text="The model names indicators for its answers. They are mostly quotations of narratives, so they "
                "are left out of this report; narrun report --with-text puts them in."
            )
        ]
    if material.hides(Withheld.INDICATORS):
        return [Aside(tone=Tone.NOTE, text=material.not_shown)]
    if not material.indicators and material.scrub is not None:
        return [Paragraph(text="The indicators were removed from the database, together with the narratives.")]
    if not material.indicators:
        return [Paragraph(text="No indicator is shared by enough narratives to be shown.")]
    blocks: list[Block] = [_figure(material.indicators)]
    if material.analysis.suppress_below is not None:
        text = f"Indicators of fewer than {material.analysis.suppress_below} narratives are not shown."
        blocks.append(Aside(tone=Tone.NOTE, text=text))
    return blocks


def _figure(indicators: Sequence[IndicatorCount]) -> Figure:
    tells_apart = all(one.n_yes is not None and one.n_no is not None for one in indicators)
    series = (
        (
            BarSeries(name="yes", ink=Ink.FIRST, counts=tuple(one.n_yes or 0 for one in indicators)),
            BarSeries(name="no", ink=Ink.SECOND, counts=tuple(one.n_no or 0 for one in indicators)),
        )
        if tells_apart
        else (BarSeries(name="narratives", ink=Ink.FIRST, counts=tuple(one.n_narratives for one in indicators)),)
    )
    return Figure(
        name="indicators",
        title="Most frequent indicators, by answer",
        description="Bars for the indicators that most narratives share. The numbers are in the table.",
        caption="As the model words them. An indicator is counted once a narrative.",
        chart=BarChart(
            labels=tuple(_shortened(clean(one.indicator)) for one in indicators),
            series=series,
            title_of_labels="",
            title_of_counts="narratives",
            is_lying=True,
        ),
        numbers=Table(
            caption="Most frequent indicators",
            head=("Indicator", "Narratives", "Yes", "No"),
            rows=tuple(
                Row(
                    head=clean(one.indicator),
                    cells=(f"{one.n_narratives:,}", _or_dash(one.n_yes), _or_dash(one.n_no)),
                )
                for one in indicators
            ),
        ),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LABEL_CHARS else f"{text[: _MAX_LABEL_CHARS - 1]}…"


def _or_dash(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"

"""What the model said: how many yes, of how many, at every level and in every year."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.report_tree import Withheld, YearGroup
from narrun_async.reporting.html.blocks import Aside, Block, Figure, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.charts import Ink, IntervalChart, Series
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    DASH,
    LEVEL_NAMES,
    as_point,
    capital,
    kind_name,
    parts,
    percent_interval,
    plural,
    years_text,
)
from narrun_async.reporting.measure_text import percent_of

_INKS = (Ink.FIRST, Ink.SECOND)


def detection_section(material: ReportMaterial) -> Section:
    return Section(slug="results", title="What the model said", blocks=(*_levels(material), *_years(material)))


def _levels(material: ReportMaterial) -> Sequence[Block]:
    levels = [level for level in material.evaluation.levels if level.counts.n_units]
    if not levels:
        hides_all = material.hides(Withheld.INCIDENTS, Withheld.NARRATIVES)
        return [Aside(tone=Tone.NOTE, text=material.not_shown if hides_all else "There is no answer yet.")]
    rows = []
    for level in levels:
        apparent, counts = level.prevalence.apparent, level.counts
        rows.append(
            Row(
                head=capital(LEVEL_NAMES[level.level]),
                cells=(
                    # which incidents have both narratives answered is known of those alone
                    DASH if level.level is Level.INCIDENTS_WITH_BOTH else f"{counts.n_units:,}",
                    f"{counts.n_answered:,}",
                    f"{counts.n_detected:,}",
                    percent_of(apparent.value),
                    percent_interval(apparent.best_interval),
                ),
            )
        )
    table = Table(
        caption="Detected, of those with an answer",
        head=("Counted are", "Eligible", "Answered", "Detected", "Share", "95 % interval"),
        rows=tuple(rows),
        notes=(_whose_intervals(material), *_hidden_levels(material)),
    )
    return [table]


def _whose_intervals(material: ReportMaterial) -> str:
    if material.hides(Withheld.NARRATIVES):
        return "Intervals are Wilson's."
    if material.hides(Withheld.CLUSTERS):
        return (
            "Intervals are Wilson's. Those of narratives take the two narratives of one incident for strangers, so "
            "they are a little too narrow; wider ones would give small counts away."
        )
    return "Intervals are Wilson's. Those of narratives allow for the two narratives of one incident being alike."


def _hidden_levels(material: ReportMaterial) -> Sequence[str]:
    names = {
        Withheld.NARRATIVES: "narratives",
        Withheld.KINDS: "CME and LE narratives apart",
        Withheld.INCIDENTS: "incidents",
        Withheld.BOTH: "incidents with both narratives answered",
    }
    hidden = [name for what, name in names.items() if material.hides(what)]
    return [f"{capital(', '.join(hidden))}: {material.not_shown.lower()}"] if hidden else []


def _years(material: ReportMaterial) -> Sequence[Block]:
    groups = material.analysis.by_year
    if material.hides(Withheld.YEARS):
        return [Aside(tone=Tone.NOTE, text=f"By year: {material.not_shown.lower()}")]
    if not groups:
        return [
            Paragraph(
                text="By year: the database does not know in which year the incidents happened. It learns it from a "
                "column IncidentYear (in a CSV table incident_year) when a file is loaded."
            )
        ]
    blocks: list[Block] = [_year_figure(groups)]
    if material.hides(Withheld.SINGLE_YEARS):
        blocks.append(
            Aside(
                tone=Tone.NOTE,
                text=f"Years were put together until no count is below {material.analysis.suppress_below}.",
            )
        )
    elif material.analysis.n_without_year:
        text = f"Of {plural(material.analysis.n_without_year, 'answered narrative')} the year is not known."
        blocks.append(Paragraph(text=text))
    return blocks


def _year_figure(groups: Sequence[YearGroup]) -> Figure:
    kinds = list(dict.fromkeys(group.kind for group in groups))
    by_kind = {kind: [group for group in groups if group.kind == kind] for kind in kinds}
    labels = tuple(years_text(group) for group in by_kind[kinds[0]])
    series = tuple(
        Series(name=kind_name(kind), ink=ink, points=tuple(as_point(group.detected) for group in by_kind[kind]))
        for kind, ink in zip(kinds, _INKS, strict=False)
    )
    rows = [
        Row(
            head=years_text(group),
            cells=(
                kind_name(group.kind),
                parts(group.detected),
                percent_of(group.detected.value),
                percent_interval(group.detected.best_interval),
            ),
        )
        for group in groups
    ]
    kinds_text = " and ".join(kind_name(kind) for kind in kinds)
    return Figure(
        name="years",
        title="Share detected, by year of the incident",
        description=(
            f"Points with 95 % intervals for {kinds_text}, {labels[0]} to {labels[-1]}. The numbers are in the table."
        ),
        caption="Bars are 95 % intervals of each year by itself. Whether they overlap is no test of a difference.",
        chart=IntervalChart(labels=labels, series=series, x_title="year of the incident", y_title="share detected"),
        numbers=Table(
            caption="Share detected, by year of the incident",
            head=("Year", "Counted are", "Detected", "Share", "95 % interval"),
            rows=tuple(rows),
        ),
    )

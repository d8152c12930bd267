"""Narratives without a usable answer: why, and whether long texts fail more often than short ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.analysis.evaluation_tree import FailuresByLength, Level
from narrun_async.analysis.report_tree import Withheld
from narrun_async.reporting.html.blocks import Block, Figure, Gallery, Paragraph, Row, Section, Table
from narrun_async.reporting.html.charts import BarChart, BarSeries, Ink, IntervalChart, Series
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.sections.flow import error_words
from narrun_async.reporting.html.wording import (
    DASH,
    as_point,
    capital,
    clean,
    parts,
    percent_interval,
    plural,
)
from narrun_async.reporting.measure_text import p_text, percent_of


def errors_section(material: ReportMaterial) -> Section:
    errors = material.evaluation.flow.errors
    if not errors:
        blocks: list[Block] = [Paragraph(text="Every narrative that was sent got a usable answer.")]
        return Section(slug="errors", title="Errors", blocks=tuple(blocks))
    failures = material.evaluation.failures_by_length
    figures = [_categories(errors)]
    if failures.bins:
        figures.append(_by_length(failures))
    blocks = [Paragraph(text=_how_many(material)), Gallery(items=tuple(figures)), *_told_of_lengths(failures)]
    return Section(slug="errors", title="Errors", blocks=tuple(blocks))


def _how_many(material: ReportMaterial) -> str:
    flow = material.evaluation.flow
    n_errors = sum(flow.errors.values())
    asked = n_errors + flow.n_answered
    text = (
        f"{plural(n_errors, 'narrative')} of {asked:,} ({percent_of(n_errors / asked)}) got no usable answer. They are "
        "counted neither as yes nor as no."
    )
    incidents = material.level(Level.INCIDENTS)
    if incidents is None or material.hides(Withheld.ERROR_BOUNDS) or not incidents.if_errors.n_open_all:
        return text
    bounds, n_detected = incidents.if_errors, incidents.counts.n_detected
    return (
        f"{text} Of {plural(bounds.n_units, 'incident')} with an answer or an error, {n_detected:,} "
        f"({percent_of(bounds.apparent.worst)}) are detected if every missing answer were no, and "
        f"{n_detected + bounds.n_open_all:,} ({percent_of(bounds.apparent.best)}) if every one were yes."
    )


def _categories(errors: Mapping[str, int]) -> Figure:
    rows = tuple(Row(head=error_words(category), cells=(f"{number:,}",)) for category, number in errors.items())
    return Figure(
        name="errors",
        title="Why there is no answer",
        description="; ".join(f"{error_words(category)}: {number:,}" for category, number in errors.items()) + ".",
        chart=BarChart(
            labels=tuple(clean(category.replace("_", " ")) for category in errors),
            series=(BarSeries(name="narratives", ink=Ink.BAD, counts=tuple(errors.values())),),
            title_of_labels="",
            title_of_counts="narratives",
            is_lying=True,
        ),
        numbers=Table(caption="Narratives without a usable answer", head=("Why", "Narratives"), rows=rows),
    )


def _by_length(failures: FailuresByLength) -> Figure:
    labels = tuple(f"{one.shortest:,}{DASH}{one.longest:,}" for one in failures.bins)
    return Figure(
        name="errors-by-length",
        title="Do long texts fail more often?",
        description=(
            f"Share without a usable answer by length of the text, from {labels[0]} to {labels[-1]} characters. The "
            "numbers are in the table."
        ),
        caption="Tenths of the narratives by length in characters, with 95 % intervals.",
        chart=IntervalChart(
            labels=labels,
            series=(Series(name="failed", ink=Ink.BAD, points=tuple(as_point(one.failed) for one in failures.bins)),),
            x_title="characters",
            y_title="share failed",
        ),
        numbers=Table(
            caption="Share without a usable answer, by length of the text",
            head=("Characters", "Failed", "Share", "95 % interval"),
            rows=tuple(
                Row(
                    head=label,
                    cells=(
                        parts(one.failed),
                        percent_of(one.failed.value),
                        percent_interval(one.failed.best_interval),
                    ),
                )
                for label, one in zip(labels, failures.bins, strict=True)
            ),
        ),
    )


def _told_of_lengths(failures: FailuresByLength) -> Sequence[Block]:
    sentences = []
    if failures.p_trend is not None:
        p = p_text(failures.p_trend)
        is_trend = "Errors follow" if failures.p_trend < 0.05 else "No trend can be seen over"
        sentences.append(
            f"{is_trend} the length of the text (Cochran-Armitage test, p {p if p.startswith('<') else f'= {p}'})."
        )
    elif failures.remark:
        sentences.append(f"{capital(failures.remark)}.")
    if failures.bins and failures.n_without_length:
        sentences.append(f"The texts of {failures.n_without_length:,} more are gone.")
    return [Paragraph(text=" ".join(sentences))] if sentences else []

"""Answers against labels: 2×2 tables, what follows from them, and what errors leave open."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.evaluation_tree import ErrorBounds, Level, LevelReport
from narrun_async.analysis.report_tree import Withheld
from narrun_async.analysis.values import Bounds, Measure
from narrun_async.reporting.html.blocks import Aside, Block, Gallery, Heading, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    LEVEL_NAMES,
    PERFORMANCE,
    SHORT_NAMES,
    capital,
    clean,
    cross_table,
    fraction_interval,
    fraction_words,
    parts,
    plural,
    reason,
)
from narrun_async.reporting.measure_text import fraction_text

_MEANINGS = ("found", "false alarms", "missed", "rightly not detected")
_MAIN = (Level.NARRATIVES, Level.INCIDENTS)
_PARTS = (Level.CME, Level.LE, Level.INCIDENTS_WITH_BOTH)


def accuracy_section(material: ReportMaterial) -> Section:
    return Section(slug="accuracy", title="How good the answers are", blocks=tuple(_blocks(material)))


def _blocks(material: ReportMaterial) -> Sequence[Block]:
    main = [level for one in _MAIN if (level := material.level(one)) is not None and level.counts.n_evaluated]
    hidden: list[Block] = [
        Aside(tone=Tone.NOTE, text=f"{capital(SHORT_NAMES[one])}: {material.not_shown.lower()}")
        for one in _MAIN
        if material.hides_labels(one)
    ]
    if not main:
        text = "No narrative has both an answer and a label from people, so this cannot be said."
        return hidden or [Aside(tone=Tone.WARNING, text=text)]
    tables = tuple(
        cross_table(
            level.confusion,
            caption=capital(LEVEL_NAMES[level.level]),
            first="answer",
            second="label",
            meanings=(_MEANINGS[0], _MEANINGS[1], _MEANINGS[2], _MEANINGS[3]),
        )
        for level in main
    )
    return [
        Paragraph(text=_whose_labels(material, main[0])),
        *hidden,
        Gallery(items=tables),
        *(_measures_table(level) for level in main),
        *_parts(material),
        *_error_bounds(material, main),
    ]


def _whose_labels(material: ReportMaterial, main: LevelReport) -> str:
    counts, n_answered = main.counts, main.counts.n_answered
    if main.level is Level.NARRATIVES:
        judged = f"{plural(counts.n_evaluated, 'narrative')} of {plural(counts.n_clusters, 'incident')}"
    else:
        judged = plural(counts.n_evaluated, "incident")
    weighed = ""
    if material.review is not None:
        weighed = "Every label counts for as many narratives as it stands for, so the counts below are estimates. "
    return (
        f"The yardstick is what people said: {clean(material.evaluation.labels)}. {judged} have both an answer and a "
        f"label, of {n_answered:,} answered. {weighed}Who read, and whether they knew the answers, "
        "is for you to say. Labels can be wrong, too; what follows takes them for the truth."
    )


def _measures_table(level: LevelReport) -> Table:
    rows = []
    for name, (title, meaning) in PERFORMANCE.items():
        measure: Measure = getattr(level.performance, name)
        rows.append(
            Row(
                head=f"{title}: {meaning}",
                cells=(fraction_text(measure.value), parts(measure), fraction_interval(measure.best_interval)),
            )
        )
    measures = [getattr(level.performance, name) for name in PERFORMANCE]
    remarks = dict.fromkeys(f"{capital(reason(one))}." for one in measures if one.remark)
    return Table(
        caption=f"Measures of {SHORT_NAMES[level.level]}",
        head=("Measure", "Value", "Counts", "95 % interval"),
        rows=tuple(rows),
        notes=tuple(remarks),
    )


def _parts(material: ReportMaterial) -> Sequence[Block]:
    found = [material.level(one) for one in _PARTS]
    levels = [level for level in found if level is not None and level.counts.n_evaluated]
    notes = []
    if material.hides(Withheld.LABELS_OF_KINDS):
        notes.append(f"CME and LE narratives apart: {material.not_shown.lower()}")
    if material.hides(Withheld.LABELS_OF_BOTH):
        notes.append(f"Incidents with both narratives answered: {material.not_shown.lower()}")
    if not levels:
        return [Aside(tone=Tone.NOTE, text=note) for note in notes]
    rows = [
        Row(head="With an answer and a label", cells=tuple(f"{level.counts.n_evaluated:,}" for level in levels)),
        Row(head="TP, FP, FN, TN", cells=tuple(_cells(level) for level in levels)),
    ]
    rows += [
        Row(head=title, cells=tuple(fraction_words(getattr(level.performance, name)) for level in levels))
        for name, (title, _) in PERFORMANCE.items()
    ]
    return [
        Heading(text="Parts of the cohort"),
        Table(
            caption="Measures of parts, with 95 % intervals",
            head=("Measure", *(capital(SHORT_NAMES[level.level]) for level in levels)),
            rows=tuple(rows),
            notes=tuple(notes),
        ),
    ]


def _cells(level: LevelReport) -> str:
    table = level.confusion
    return ", ".join(f"{number:,.0f}" for number in (table.tp, table.fp, table.fn, table.tn))


def _error_bounds(material: ReportMaterial, levels: Sequence[LevelReport]) -> Sequence[Block]:
    if material.hides(Withheld.ERROR_BOUNDS):
        return [Aside(tone=Tone.NOTE, text=f"What errors leave open: {material.not_shown.lower()}")]
    shown = [level for level in levels if level.if_errors.n_open]
    if not shown:
        return []
    names = {"sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1"}
    rows = [
        Row(head=title, cells=tuple(_bounds_text(getattr(level.if_errors, name)) for level in shown))
        for name, title in names.items()
    ]
    rows.insert(0, Row(head="Left open by errors", cells=tuple(_open_text(level.if_errors) for level in shown)))
    return [
        Heading(text="What errors leave open"),
        Paragraph(
            text="Narratives without a usable answer are in no table above. Had all of them been answered wrongly, or "
            "all of them rightly, the measures would lie at the ends of these ranges."
        ),
        Table(
            caption="From all errors wrong to all errors right",
            head=("Measure", *(capital(SHORT_NAMES[level.level]) for level in shown)),
            rows=tuple(rows),
        ),
    ]


def _open_text(bounds: ErrorBounds) -> str:
    return f"{bounds.n_open:,} with a label"


def _bounds_text(bounds: Bounds) -> str:
    return f"{fraction_text(bounds.worst)} to {fraction_text(bounds.best)}"

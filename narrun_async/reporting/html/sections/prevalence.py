"""How common it is: as detected, as labelled, and corrected for what the answers miss and invent."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.evaluation_tree import Level, LevelReport, Validity
from narrun_async.analysis.report_tree import Withheld
from narrun_async.analysis.values import Share
from narrun_async.reporting.html.blocks import Aside, Block, Figure, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.charts import ForestChart, ForestRow, Ink
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    SHORT_NAMES,
    as_point,
    capital,
    clean,
    fraction_words,
    parts,
    percent_interval,
    reason,
)
from narrun_async.reporting.measure_text import count_text, percent_of

_MAIN = (Level.INCIDENTS, Level.NARRATIVES)


def prevalence_section(material: ReportMaterial) -> Section:
    levels = [level for one in _MAIN if (level := material.level(one)) is not None and level.counts.n_answered]
    title = "How common is it?"
    if not levels:
        hides_all = material.hides(Withheld.INCIDENTS, Withheld.NARRATIVES)
        text = material.not_shown if hides_all else "There is no answer yet."
        return Section(slug="prevalence", title=title, blocks=(Aside(tone=Tone.NOTE, text=text),))
    blocks: list[Block] = [
        Paragraph(
            text="The share detected counts false alarms and lacks what was missed. With sensitivity and specificity "
            "known it can be corrected (Rogan and Gladen). The corrected interval carries the uncertainty of "
            "both, and takes the labelled cases for as hard as the others. All of it speaks of the texts of this file, "
            "and of no other people."
        ),
        _figure(material, levels),
        *_remarks(material, levels),
        *(table for level in levels if (table := _predictive_values(level)) is not None),
    ]
    return Section(slug="prevalence", title=title, blocks=tuple(blocks))


def _figure(material: ReportMaterial, levels: Sequence[LevelReport]) -> Figure:
    named = [
        (f"{capital(SHORT_NAMES[level.level])}, {what}", measure, ink)
        for level in levels
        for what, measure, ink in (
            ("detected", level.prevalence.apparent, Ink.MUTED),
            ("corrected", level.prevalence.corrected, Ink.FIRST),
            ("labelled yes", level.prevalence.labelled, Ink.SECOND),
        )
        if measure.value is not None or not material.hides_labels(level.level)
    ]
    rows = tuple(
        Row(
            head=name,
            cells=(percent_of(measure.value), parts(measure), percent_interval(measure.best_interval)),
        )
        for name, measure, _ in named
    )
    shown = [(name, measure, ink) for name, measure, ink in named if measure.value is not None]
    return Figure(
        name="prevalence",
        title="Share of incidents and of narratives: detected, corrected, labelled",
        description="; ".join(f"{name} {percent_of(measure.value)}" for name, measure, _ in shown) + ".",
        caption=f"Points with 95 % intervals. {_whom_labels_speak_of(material)}",
        chart=ForestChart(
            rows=tuple(ForestRow(label=name, point=as_point(measure), ink=ink) for name, measure, ink in shown),
            x_title="share",
        ),
        numbers=Table(
            caption="Detected, corrected, labelled",
            head=("", "Share", "Counts", "95 % interval"),
            rows=rows,
            notes=tuple(dict.fromkeys(f"{capital(name)}: {reason(one)}." for name, one, _ in named if one.remark)),
        ),
    )


def _whom_labels_speak_of(material: ReportMaterial) -> str:
    if material.review is None:
        return "“Labelled yes” is about the labelled part only."
    return "“Labelled yes” is an estimate for all narratives that the sample was drawn from."


def _remarks(material: ReportMaterial, levels: Sequence[LevelReport]) -> Sequence[Block]:
    blocks: list[Block] = []
    for level in levels:
        name, prevalence = SHORT_NAMES[level.level], level.prevalence
        if prevalence.includes_zero and prevalence.apparent.numerator:
            text = f"The corrected interval of {name} includes zero: all that is detected may be false alarms."
            blocks.append(Aside(tone=Tone.WARNING, text=text))
        if prevalence.validity is not None:
            blocks.append(Paragraph(text=f"{capital(name)}: {_validity_words(prevalence.validity)}."))
        elif prevalence.corrected.value is None:
            hides_labels = material.hides_labels(level.level)
            why = material.not_shown if hides_labels else f"{reason(prevalence.corrected)}."
            blocks.append(Paragraph(text=f"{capital(name)}, corrected: {why}"))
        blocks += [Paragraph(text=f"{capital(name)}: {remark}.") for remark in prevalence.remarks]
    return blocks


def _validity_words(validity: Validity) -> str:
    return (
        f"sensitivity {_share_words(validity.sensitivity)} and specificity {_share_words(validity.specificity)}, from "
        f"{clean(validity.source)}"
    )


def _share_words(share: Share) -> str:
    return f"{share.value:.3f} (effective sample size {count_text(round(share.n_effective, 1))})"


def _predictive_values(level: LevelReport) -> Table | None:
    values = level.prevalence.predictive_values
    if not values:
        return None
    known = level.prevalence.corrected.value
    return Table(
        caption=f"What a yes and a no about {SHORT_NAMES[level.level]} would be worth, by how common it is",
        head=("If the true share is", "PPV: a yes is right", "NPV: a no is right"),
        rows=tuple(
            Row(
                head=percent_of(one.prevalence) + (", as corrected above" if one.prevalence == known else ""),
                cells=(fraction_words(one.ppv), fraction_words(one.npv)),
            )
            for one in values
        ),
        notes=("From sensitivity and specificity by Bayes' rule, with 95 % intervals.",),
    )

"""How far answers agree with labels, and the two narratives of an incident with each other, beyond chance."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.evaluation_tree import Level, LevelReport
from narrun_async.analysis.report_tree import Withheld
from narrun_async.reporting.html.blocks import Aside, Block, Gallery, Heading, Paragraph, Row, Section, Table, Tone
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    AGREEMENT,
    SHORT_NAMES,
    capital,
    cross_table,
    fraction_interval,
    fraction_words,
    plural,
)
from narrun_async.reporting.measure_text import fraction_text, p_text, percent_of

_MAIN = (Level.NARRATIVES, Level.INCIDENTS)


def agreement_section(material: ReportMaterial) -> Section:
    blocks = [*_with_labels(material), Heading(text="Do both narratives of an incident say the same?")]
    return Section(slug="agreement", title="Agreement", blocks=(*blocks, *_cme_le(material)))


def _with_labels(material: ReportMaterial) -> Sequence[Block]:
    hidden = [
        Aside(tone=Tone.NOTE, text=f"With labels of {SHORT_NAMES[one]}: {material.not_shown.lower()}")
        for one in _MAIN
        if material.hides_labels(one)
    ]
    levels = [level for one in _MAIN if (level := material.level(one)) is not None and level.counts.n_evaluated]
    if not levels:
        return hidden or [Paragraph(text="With labels: there is none to agree with.")]
    rows = tuple(
        Row(head=title, cells=tuple(fraction_words(getattr(level.agreement, name)) for level in levels))
        for name, title in AGREEMENT.items()
    )
    return [
        Paragraph(text=_why_kappa(levels[0])),
        *hidden,
        Table(
            caption="Agreement of answers and labels, with 95 % intervals",
            head=("Measure", *(capital(SHORT_NAMES[level.level]) for level in levels)),
            rows=rows,
            notes=(
                "PABAK is what kappa would be if yes and no were equally common; AC1 is less moved by rarity than "
                "kappa. Agreement on yes equals F1.",
            ),
        ),
    ]


def _why_kappa(level: LevelReport) -> str:
    """What raw agreement hides."""
    agreement, units = level.agreement, SHORT_NAMES[level.level]
    observed, kappa = agreement.observed.value, agreement.kappa.value
    if observed is None or kappa is None:
        return "Raw agreement says how often both say the same; kappa, how much of that is beyond chance."
    if kappa == 1:
        return f"Answers and labels say the same of all {units}."
    by_chance = (observed - kappa) / (1 - kappa)
    return (
        f"Answers and labels say the same of {percent_of(observed)} of the {units}. Most of that is to be expected: "
        "two judges who say yes as often as these, at random and without reading anything, would agree on "
        f"{percent_of(by_chance)}. Cohen's kappa is the share of the possible agreement beyond that: {kappa:.2f}. "
        "Where yes is rare it falls even if judgement does not, so read it beside the agreement on yes and on no."
    )


def _cme_le(material: ReportMaterial) -> Sequence[Block]:
    if material.hides(Withheld.CME_LE):
        return [Aside(tone=Tone.NOTE, text=material.not_shown)]
    agreement = material.evaluation.cme_le
    if not agreement.table.n_units:
        return [Paragraph(text="No incident has an answer for both its CME and its LE narrative.")]
    table = cross_table(
        agreement.table,
        caption=f"{plural(agreement.table.n_units, 'incident')} with both narratives answered",
        first="CME",
        second="LE",
        meanings=("both", "CME alone", "LE alone", "neither"),
    )
    rows = tuple(
        Row(
            head=title,
            cells=(
                fraction_text(getattr(agreement, name).value),
                fraction_interval(getattr(agreement, name).best_interval),
            ),
        )
        for name, title in AGREEMENT.items()
    )
    blocks: list[Block] = [
        Paragraph(
            text="The coroner or medical examiner (CME) and law enforcement (LE) write about the same incident, but "
            "not the same things. Where their narratives differ, one may mention what the other leaves out; it need "
            "not be the model that errs."
        ),
        Gallery(items=(table,)),
        Table(caption="Agreement of CME and LE", head=("Measure", "Value", "95 % interval"), rows=rows),
    ]
    if agreement.p_mcnemar is not None:
        text = f"Is one kind detected more often than the other? Exact McNemar test: p {_p_words(agreement.p_mcnemar)}."
        blocks.append(Paragraph(text=text))
    return blocks


def _p_words(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"

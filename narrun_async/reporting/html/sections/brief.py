"""The first page: what was asked of how many, what came out, and what it does not mean."""

from __future__ import annotations

from collections.abc import Iterator

from narrun_async.analysis.evaluation_tree import Level, LevelReport
from narrun_async.analysis.report_tree import Withheld
from narrun_async.reporting.html.blocks import Block, Bullets, Card, Cards, Heading, Paragraph, Section
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    capital,
    fraction_interval,
    parts,
    percent_interval,
    plural,
    reason,
    share_words,
)
from narrun_async.reporting.measure_text import percent_of


def brief_section(material: ReportMaterial) -> Section:
    blocks: list[Block] = [Paragraph(text=_what_was_done(material))]
    cards = tuple(_cards(material))
    if cards:
        blocks.append(Cards(items=cards))
    hidden = [what for what in (Withheld.INCIDENTS, Withheld.NARRATIVES) if material.hides(what)]
    blocks += [Paragraph(text=f"{capital(what.value)} detected: {material.not_shown.lower()}") for what in hidden]
    blocks += [Heading(text="What these numbers do not mean"), Bullets(items=tuple(_caveats(material)))]
    return Section(slug="in-brief", title="In brief", blocks=tuple(blocks))


def _what_was_done(material: ReportMaterial) -> str:
    flow = material.evaluation.flow
    model = material.column("model_name") or "a language model"
    asked = "A simulated endpoint" if material.is_simulated else f"The language model {model}"
    all_of_them = plural(flow.n_eligible, "narrative")
    given = all_of_them if flow.n_sent == flow.n_eligible else f"{flow.n_sent:,} of {all_of_them}"
    n_skipped = sum(flow.skipped.values())
    skipped = f"{n_skipped:,} were left out (see the flow below). " if n_skipped else ""
    alike = f"{flow.n_copied:,} more have the text of one of these and share what came of it. " if flow.n_copied else ""
    return (
        f"{asked} was given {given} about {plural(flow.n_incidents, 'incident')}, one "
        "at a time, and asked whether each shows that the person was a victim of intimate partner violence: yes or no, "
        f"with a confidence and reasons. {alike}{skipped}{plural(flow.n_answered, 'narrative')} got a usable answer. "
        "The exact question is the prompt, printed in full under “Provenance”."
    )


def _cards(material: ReportMaterial) -> Iterator[Card]:
    incidents, narratives = material.level(Level.INCIDENTS), material.level(Level.NARRATIVES)
    if incidents is not None:
        yield _detected_card(incidents, "Incidents detected", "An incident counts if any of its narratives does")
    if narratives is not None:
        yield _detected_card(narratives, "Narratives detected", "Share of the narratives with an answer")
    if incidents is not None:
        yield _labelled_card(incidents) if incidents.counts.is_all_evaluated else _corrected_card(material, incidents)
    if narratives is not None and narratives.counts.n_evaluated:
        weighed = "" if material.review is None else f", estimated from {narratives.counts.n_evaluated:,} labels"
        yield _performance_card(
            narratives, "sensitivity", "Sensitivity, of narratives", f"labelled yes were detected{weighed}"
        )
        yield _performance_card(
            narratives, "specificity", "Specificity, of narratives", f"labelled no were not detected{weighed}"
        )
        yield _performance_card(
            narratives, "ppv", "Precision, of narratives", f"detected and labelled were right{weighed}"
        )


def _detected_card(level: LevelReport, label: str, what: str) -> Card:
    apparent = level.prevalence.apparent
    if apparent.value is None:
        return Card(label=label, value="none yet", detail=reason(apparent))
    interval = percent_interval(apparent.best_interval)
    return Card(
        label=label,
        value=percent_of(apparent.value),
        detail=f"{parts(apparent)}; 95 % interval {interval}. {what}.",
    )


def _labelled_card(level: LevelReport) -> Card:
    labelled = level.prevalence.labelled
    return Card(
        label="Incidents labelled yes by people",
        value=percent_of(labelled.value),
        detail=f"{parts(labelled)}; 95 % interval {percent_interval(labelled.best_interval)}.",
    )


def _corrected_card(material: ReportMaterial, level: LevelReport) -> Card:
    corrected, label = level.prevalence.corrected, "Incidents, corrected for wrong answers"
    if corrected.value is None:
        why = f"It {_cannot(reason(corrected))}."
        if material.hides_labels(Level.INCIDENTS):
            why = material.not_shown
        return Card(label=label, value="not known", detail=why)
    zero = " The interval includes zero." if level.prevalence.includes_zero else ""
    interval = percent_interval(corrected.best_interval)
    validity, known = level.prevalence.validity, ""
    if validity is not None:
        known = (
            f" With sensitivity {validity.sensitivity.value:.3f} and specificity {validity.specificity.value:.3f} of "
            "incidents."
        )
    return Card(label=label, value=percent_of(corrected.value), detail=f"95 % interval {interval}.{zero}{known}")


def _cannot(why: str) -> str:
    return why if why.startswith("cannot") else f"cannot be said: {why}"


def _performance_card(level: LevelReport, name: str, label: str, what: str) -> Card:
    measure = getattr(level.performance, name)
    if measure.value is None:
        return Card(label=label, value="not known", detail=f"{capital(reason(measure))}.")
    interval = fraction_interval(measure.best_interval)
    return Card(
        label=label,
        value=f"{measure.value:.3f}",
        detail=f"{parts(measure)} narratives {what}; 95 % interval {interval}.",
    )


def _caveats(material: ReportMaterial) -> Iterator[str]:
    if material.is_simulated:
        yield (
            "This is a simulation. The answers come from a keyword rule and mean nothing, and neither does any number "
            "in this report. It shows what a report looks like."
        )
    yield (
        "“Detected” means that the model said yes to a text. It is no finding about a person: a narrative may leave "
        "out what happened, and the model may be wrong."
    )
    yield from _caveats_of_labels(material)
    yield from _caveats_of_prevalence(material)
    yield from _caveats_of_errors(material)
    yield from (f"{capital(remark)}." for remark in material.analysis.remarks)


def _caveats_of_labels(material: ReportMaterial) -> Iterator[str]:
    narratives = material.level(Level.NARRATIVES)
    if narratives is None or material.hides_labels(Level.NARRATIVES):
        return
    if not narratives.counts.n_evaluated:
        yield (
            "No narrative with an answer has a label from people, so nobody knows how often the answers are wrong. The "
            "share detected must not be reported as a prevalence."
        )
        return
    if material.review is not None:
        yield (
            f"{plural(narratives.counts.n_evaluated, 'answer')} can be held against a label from people, who read a "
            f"random sample of {material.review.n_population:,} narratives. Each stands for others like it, and counts "
            "as many times."
        )
    elif narratives.counts.n_evaluated < narratives.counts.n_answered:
        yield (
            f"Only {narratives.counts.n_evaluated:,} of the {narratives.counts.n_answered:,} answers can be held "
            "against a label from people. Whether the others are as good, nobody has looked."
        )
    ppv = narratives.performance.ppv
    if ppv.value is not None and ppv.numerator is not None and ppv.denominator is not None:
        n_false = round(ppv.denominator - ppv.numerator, 1)
        with_label, are = "with a label", "are labelled no"
        if material.review is not None:
            with_label, are = "that the labels stand for", "would be labelled no"
        yield (
            f"Not every yes is right: of the {ppv.denominator:,.0f} detected narratives {with_label}, {n_false:,.0f} "
            f"{are}. Where violence is rare, false alarms can outnumber true ones."
        )
    kappa, observed = narratives.agreement.kappa.value, narratives.agreement.observed.value
    if kappa is not None and observed is not None:
        yield (
            f"Agreement of {percent_of(observed)} with the labels is to a large part chance where most are no. Beyond "
            f"that, kappa is {kappa:.2f}."
        )
    if material.n_configurations > 1:
        judged, by_these = "were judged on the labels of this file", ""
        if material.review is not None:
            judged, by_these = "are over the narratives of this file", " by the labels of this review"
        yield (
            f"{material.n_configurations:,} experiments {judged}. If this one was chosen because it did best{by_these},"
            " its figures flatter it; labels that no choice has seen would tell."
        )


def _caveats_of_prevalence(material: ReportMaterial) -> Iterator[str]:
    incidents = material.level(Level.INCIDENTS)
    if incidents is None or material.hides_labels(Level.INCIDENTS):
        return
    prevalence = incidents.prevalence
    known, how = prevalence.corrected, "corrected for the answers' errors"
    if incidents.counts.is_all_evaluated:
        known, how = prevalence.labelled, "by the labels"
    if prevalence.apparent.numerator and known.value is not None:
        yield (
            f"The share detected, {share_words(prevalence.apparent)} of the incidents, is not how common violence is: "
            f"{how} it is {share_words(known)}."
        )
    if incidents.counts.is_all_evaluated:
        return
    if prevalence.includes_zero:
        yield "The corrected interval includes zero: all that is detected may be false alarms."
    yield from (f"{capital(remark)}." for remark in prevalence.remarks)


def _caveats_of_errors(material: ReportMaterial) -> Iterator[str]:
    flow = material.evaluation.flow
    if flow.n_missing:
        yield f"The experiment is not finished: {plural(flow.n_missing, 'narrative')} have not been asked about yet."
    n_errors = sum(flow.errors.values())
    if n_errors:
        yield (
            f"{plural(n_errors, 'narrative')} got no usable answer and are in no rate. Errors are seldom spread evenly "
            "over texts; “Errors” shows where they fall."
        )

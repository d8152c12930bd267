"""Two paragraphs ready to be pasted into a paper: true to what was done, every number from the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from narrun_async.analysis.evaluation_tree import Level, LevelReport
from narrun_async.analysis.report_tree import Withheld
from narrun_async.analysis.values import Measure, Method
from narrun_async.models import RunMode, RunRecord, text_sha256
from narrun_async.reporting.html.blocks import Aside, Block, Heading, Paragraph, Quotation, Section, Tone
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import (
    clean,
    method_name,
    parts,
    percent_interval,
    plural,
    share_words,
)
from narrun_async.reporting.measure_text import percent_of

_SETTINGS = {
    "model.temperature": "temperature {}",
    "model.top_p": "top-p {}",
    "model.max_tokens": "at most {} tokens an answer",
    "model.max_completion_tokens": "at most {} tokens an answer",
    "model.reasoning_effort": "reasoning effort {}",
    "model.seed": "seed {}",
}
_NOT_SET = "not set"


def methods_section(material: ReportMaterial) -> Section:
    blocks: list[Block] = [
        Paragraph(
            text="Taken from the database as it is; check every sentence, and add what it cannot know: how the file "
            "came about, who labelled it, who approved the study."
        )
    ]
    if material.is_simulated:
        blocks.append(Aside(tone=Tone.ALARM, text="A simulation is no study: do not publish these paragraphs."))
    blocks += [Heading(text="Methods"), Quotation(text=" ".join(methods_sentences(material)))]
    results = list(results_sentences(material))
    if results:
        blocks += [Heading(text="Results"), Quotation(text=" ".join(results))]
    return Section(slug="methods", title="Paragraphs for a paper", blocks=tuple(blocks))


# --- methods ---------------------------------------------------------------------------------------------------------


def methods_sentences(material: ReportMaterial) -> Iterator[str]:
    """What was done, in the order in which it was done."""
    yield from _data_sentences(material)
    yield from _model_sentences(material)
    yield from _work_sentences(material)
    yield from _statistics_sentences(material)


def _data_sentences(material: ReportMaterial) -> Iterator[str]:
    flow, checksum = material.evaluation.flow, material.experiment.cohort.data_checksum
    name = clean(PurePath(material.source.path).name) if material.source is not None else "a file"
    digest = f" (SHA-256 {checksum[:12]}…)" if len(checksum) == 64 else ""
    yield (
        f"The data were {plural(flow.n_eligible, 'narrative')} of {plural(flow.n_incidents, 'incident')} from "
        f"{name}{digest}."
    )
    n_placeholders = flow.skipped.get("placeholder", 0)
    if n_placeholders:
        yield (
            f"{plural(n_placeholders, 'text')} that only say that there is no report were recognised by fixed rules "
            "and not sent to the model."
        )
    if flow.n_copied:
        yield f"Identical texts were asked once; {plural(flow.n_copied, 'narrative')} got the answer of another one."


def _model_sentences(material: ReportMaterial) -> Iterator[str]:
    model = clean(material.column("model_name") or "a language model")
    provider = clean(material.column("model_provider") or "an unknown provider")
    told = [wording.format(value) for key, wording in _SETTINGS.items() if (value := _setting(material, key))]
    with_settings = f" with {', '.join(told)}" if told else ""
    if material.is_simulated:
        yield "Answers came from a simulated endpoint that applies a keyword rule, not from a language model."
    else:
        yield (
            f"Each narrative was classified by itself by the large language model {model} (provider {provider}), "
            f"called through an OpenAI-compatible chat completion interface{with_settings}."
        )
        names = {use.serving.model for use in material.servings if use.serving.model}
        fingerprints = {use.serving.system_fingerprint for use in material.servings if use.serving.system_fingerprint}
        if names:
            printed = f", fingerprint {', '.join(sorted(map(clean, fingerprints)))}" if fingerprints else ""
            yield f"The endpoint named itself {', '.join(sorted(map(clean, names)))}{printed}."
    prompts = [text for text in (material.system_prompt, material.user_template) if text]
    if prompts:
        hashes = ", ".join(f"{text_sha256(text)[:12]}…" for text in prompts)
        yield f"The prompts (SHA-256 {hashes}) were the same for all narratives; the supplement gives them in full."
    yield (
        "An answer had to state whether intimate partner violence is detected, with a confidence from 0 to 1, "
        "indicators and a rationale; answers that could not be read so count as errors, not as no."
    )


def _setting(material: ReportMaterial, key: str) -> str | None:
    value = material.settings.get(key)
    if value is None and key == "model.temperature":
        value = material.column("temperature")
    return None if value in (None, _NOT_SET) else clean(value)


def _work_sentences(material: ReportMaterial) -> Iterator[str]:
    by_predecessor = [run for run in material.runs if run.mode == RunMode.LEGACY]
    ours = [run for run in material.runs if run.mode != RunMode.LEGACY]
    if by_predecessor:
        n_sent = plural(sum(run.n_saved for run in by_predecessor), "narrative")
        yield f"The first {n_sent} were sent by another program, written in R, {_when(by_predecessor)}."
    if ours:
        versions = dict.fromkeys(run.narrun_version for run in ours if run.narrun_version)
        program = f"narrun_async {', '.join(map(clean, versions))}" if versions else "narrun_async"
        calls = "The other calls" if by_predecessor else "The calls"
        yield f"{calls} were made by {program} {_when(ours)} (UTC), in {plural(len(ours), 'run')}."
    course = material.analysis.course
    if course is not None:
        failed = f", {course.n_failed:,} of which failed" if course.n_failed else ""
        yield (
            f"It took {plural(course.n_calls, 'call')}{failed}; calls that failed for technical reasons were repeated."
        )
    if material.n_batched_calls:
        yield f"{plural(material.n_batched_calls, 'call')} went through the provider's batch interface."
    canaries = material.canaries
    if canaries.n_answered:
        differed = f"{canaries.n_flipped:,} of the answers" if canaries.n_flipped else "none"
        yield (
            f"To check that answers stay the same, {plural(canaries.n_answered, 'narrative')} were asked again in "
            f"mid-work; {differed} changed between yes and no."
        )


def _when(runs: Sequence[RunRecord]) -> str:
    """Of a run that was killed only the beginning is known."""
    first, last = runs[0].started_at[:10], (runs[-1].ended_at or runs[-1].started_at)[:10]
    return f"on {first}" if last == first else f"between {first} and {last}"


def _statistics_sentences(material: ReportMaterial) -> Iterator[str]:
    incidents, narratives = material.level(Level.INCIDENTS), material.level(Level.NARRATIVES)
    if incidents is not None:
        yield "An incident counts as detected if any of its answered narratives is."
    if narratives is not None or incidents is not None:
        yield f"Shares are given with 95 % score intervals (Wilson){_allowance(material)}."
    yield from _comparison_sentences(material)
    if incidents is not None:
        yield from _correction_sentences(incidents)
    if material.analysis.suppress_below is not None:
        yield f"Counts of fewer than {material.analysis.suppress_below} people are not shown."


def _allowance(material: ReportMaterial) -> str:
    """How the intervals of narratives take two of one incident."""
    if material.level(Level.NARRATIVES) is None:
        return ""
    if material.hides(Withheld.CLUSTERS):
        return ", which do not allow for two narratives of one incident being alike"
    return (
        ", for narratives with the effective number of units that allows for two narratives of one incident being "
        "alike (Rao and Scott)"
    )


def _comparison_sentences(material: ReportMaterial) -> Iterator[str]:
    evaluation = material.evaluation
    main = [material.level(one) for one in (Level.NARRATIVES, Level.INCIDENTS)]
    judged = next((level for level in main if level is not None and level.counts.n_evaluated), None)
    if judged is None:
        return
    how_many = plural(judged.counts.n_clusters, "incident")
    if judged.level is Level.NARRATIVES:
        how_many = f"{plural(judged.counts.n_evaluated, 'narrative')} of {how_many}"
    yield f"Answers were compared with labels that people gave ({clean(evaluation.labels)}) for {how_many}."
    yield from _review_sentences(material)
    of_kappa = judged.agreement.kappa.best_interval
    is_resampled = of_kappa is not None and of_kappa.method is Method.BCA
    if evaluation.n_resamples:
        of_what = "narratives" if material.hides(Withheld.CLUSTERS) else "incidents"
        and_kappa = ", balanced accuracy and Cohen's kappa" if is_resampled else " and balanced accuracy"
        yield (
            f"Intervals of F1, Matthews' correlation{and_kappa} are those of a bias-corrected and accelerated "
            f"bootstrap of {of_what} ({evaluation.n_resamples:,} resamples, seed {evaluation.seed})."
        )
    if of_kappa is not None and not is_resampled:
        yield "The interval of Cohen's kappa is that of Fleiss, Cohen and Everitt."


def _review_sentences(material: ReportMaterial) -> Iterator[str]:
    review = material.review
    if review is None:
        return
    strata = f", stratified by {clean(review.strata.replace(',', ', '))}," if review.strata else ""
    where = " in another experiment" if review.is_drawn_elsewhere else ""
    yield (
        f"These were a random sample{strata} of the {review.n_population:,} narratives that had an answer{where} on "
        f"{review.drawn_at[:10]}; labels were weighted by the inverse of their chance to be drawn (Horvitz and "
        "Thompson)."
    )
    if n_without := review.n_drawn - review.n_final:
        yield f"{plural(n_without, 'narrative')} without a final label were stood for by others of the same stratum."
    narratives = material.level(Level.NARRATIVES)
    interval = None if narratives is None else narratives.performance.sensitivity.interval
    if interval is not None and interval.method is Method.MOVER:
        yield (
            "The sample was drawn by the answers, so intervals of sensitivity, specificity and agreement were "
            "recovered from those of PPV and NPV (Begg and Greenes; Donner and Zou)."
        )


def _correction_sentences(incidents: LevelReport) -> Iterator[str]:
    corrected, validity = incidents.prevalence.corrected, incidents.prevalence.validity
    if corrected.value is None or validity is None or _needs_no_correction(incidents):
        return
    interval = corrected.best_interval
    which = f"; the interval is {method_name(interval)}" if interval is not None else ""
    yield (
        "The share detected was corrected for sensitivity and specificity after Rogan and Gladen, with both taken "
        f"from {clean(validity.source)}{which}."
    )


def _needs_no_correction(level: LevelReport) -> bool:
    """The labels say the share themselves, and no sensitivity from elsewhere was brought to bear."""
    validity = level.prevalence.validity
    return level.counts.is_all_evaluated and (validity is None or validity.is_own)


# --- results ---------------------------------------------------------------------------------------------------------


def results_sentences(material: ReportMaterial) -> Iterator[str]:
    """What came out; nothing where it may not be shown."""
    flow = material.evaluation.flow
    incidents, narratives = material.level(Level.INCIDENTS), material.level(Level.NARRATIVES)
    levels = {"incidents": incidents, "narratives": narratives}
    shown = {what: level for what, level in levels.items() if level is not None}
    if not shown or not flow.n_answered:
        return
    n_errors = sum(flow.errors.values())
    failed = f"; {n_errors:,} got no usable answer" if n_errors else ""
    n_skipped = sum(flow.skipped.values())
    failed += f"; {n_skipped:,} were not sent" if n_skipped else ""
    yield (
        f"Of {plural(flow.n_eligible, 'eligible narrative')}, {flow.n_answered:,} "
        f"({percent_of(flow.n_answered / flow.n_eligible)}) were answered{failed}."
    )
    counted = [_counted(level.prevalence.apparent, what) for what, level in shown.items()]
    yield f"Intimate partner violence was detected in {' and in '.join(counted)}."
    judged = narratives if narratives is not None and narratives.counts.n_evaluated else incidents
    if judged is not None:
        yield from _accuracy_sentences(judged)
    if incidents is not None:
        yield from _prevalence_sentences(incidents)


def _prevalence_sentences(incidents: LevelReport) -> Iterator[str]:
    prevalence = incidents.prevalence
    if incidents.counts.is_all_evaluated:
        yield f"By the labels, the share of incidents is {share_words(prevalence.labelled)}."
    if prevalence.corrected.value is None or prevalence.validity is None or _needs_no_correction(incidents):
        return
    zero = ", which includes zero" if prevalence.includes_zero else ""
    known = prevalence.validity
    yield (
        f"Corrected for wrong answers (sensitivity {known.sensitivity.value:.3f} and specificity "
        f"{known.specificity.value:.3f} of incidents), the share of incidents is "
        f"{share_words(prevalence.corrected)}{zero}."
    )


def _counted(measure: Measure, what: str) -> str:
    """`112 of 458 incidents (24.45 %, 95 % interval 20.74 to 28.59 %)`."""
    interval = measure.best_interval
    reach = "" if interval is None else f", 95 % interval {percent_interval(interval)}"
    return f"{parts(measure)} {what} ({percent_of(measure.value)}{reach})"


def _accuracy_sentences(level: LevelReport) -> Iterator[str]:
    performance, agreement = level.performance, level.agreement
    named = {
        "sensitivity": performance.sensitivity,
        "specificity": performance.specificity,
        "PPV": performance.ppv,
        "NPV": performance.npv,
    }
    told = [f"{name} {_told(measure)}" for name, measure in named.items() if measure.value is not None]
    if not told:
        return
    one = "narrative" if level.level is Level.NARRATIVES else "incident"
    yield f"Per {one}, against the labels: {'; '.join(told)}."
    more = {"F1": performance.f1, "Cohen's kappa": agreement.kappa, "raw agreement": agreement.observed}
    told = [f"{name} {_value(measure)}" for name, measure in more.items() if measure.value is not None]
    if told:
        yield f"{'; '.join(told)}."


def _told(measure: Measure) -> str:
    return f"{_value(measure)}, {parts(measure)}"


def _value(measure: Measure) -> str:
    interval = measure.best_interval
    if interval is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"

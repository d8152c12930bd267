"""From the rows of the file to classified incidents: what left the way where, as STARD asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from narrun_async.analysis.evaluation_tree import Flow, Level, LevelReport
from narrun_async.models import IngestRecord
from narrun_async.reporting.html.blocks import (
    Block,
    FlowBox,
    FlowChart,
    FlowStep,
    Fold,
    Paragraph,
    Row,
    Section,
    Table,
)
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import clean, plural

_SKIPPED = {"placeholder": "texts that say there is no report"}


def flow_section(material: ReportMaterial) -> Section:
    steps = (*_file_steps(material), *_cohort_steps(material))
    chart = FlowChart(
        name="flow",
        title="From the file to the answers",
        description=". ".join(_in_words(step) for step in steps),
        steps=steps,
        outcomes=_outcomes(material),
    )
    blocks: list[Block] = [
        Paragraph(
            text="Boxes on the way down say how many are left; those beside it, how many left the way there, and why."
        ),
        chart,
        Fold(summary="The same as a table", blocks=(_table(steps, chart.outcomes),)),
    ]
    return Section(slug="flow", title="From the file to the answers", blocks=tuple(blocks))


def _in_words(step: FlowStep) -> str:
    left = f", of which leave: {step.leaves.count} ({'; '.join(step.leaves.lines)})" if step.leaves else ""
    return f"{step.box.title}: {step.box.count}{left}"


def _table(steps: tuple[FlowStep, ...], outcomes: tuple[FlowBox, ...]) -> Table:
    rows = []
    for step in steps:
        left = f"{step.leaves.count}: {'; '.join(step.leaves.lines)}" if step.leaves else "none"
        rows.append(Row(head=step.box.title, cells=(step.box.count, left)))
    rows += [Row(head=box.title, cells=(box.count, "; ".join(box.lines))) for box in outcomes]
    head = ("Step", "How many", "What leaves, or what it is made of")
    return Table(caption="From the file to the answers", head=head, rows=tuple(rows), is_prose=True)


def _file_steps(material: ReportMaterial) -> tuple[FlowStep, ...]:
    source, ingest = material.source, material.ingest
    if source is None:
        return ()
    beyond = source.n_narratives - material.evaluation.flow.n_eligible
    not_taken = None
    if beyond > 0:
        why = "the experiment was made for the first narratives of the file only"
        not_taken = FlowBox(title="Not part of this experiment", count=plural(beyond, "narrative"), lines=(why,))
    loaded = FlowStep(
        box=FlowBox(title="Loaded into the database", count=plural(source.n_narratives, "narrative")), leaves=not_taken
    )
    if ingest is None:
        return (loaded,)
    left = _left_in_the_file(ingest)
    n_textless = _cases_without_text(material, ingest)
    n_left = sum(left.values())
    in_file = FlowBox(
        title=f"In the file {clean(PurePath(source.path).name)}",
        count=plural(ingest.n_cases, "case"),
        lines=(f"with {plural(source.n_narratives + n_left, 'cell')} for texts",),
    )
    lines = tuple(f"{what}: {number:,}" for what, number in left.items())
    if n_textless:
        lines = (*lines, f"{plural(n_textless, 'case')} had no text at all")
    leaves = FlowBox(title="Not loaded", count=plural(n_left, "cell"), lines=lines) if left else None
    return (FlowStep(box=in_file, leaves=leaves), loaded)


def _cases_without_text(material: ReportMaterial, ingest: IngestRecord) -> int:
    """Where the whole file was taken and every row is a case of its own; else nobody can tell, and it says 0."""
    flow, source = material.evaluation.flow, material.source
    if source is None or source.n_narratives != flow.n_eligible:
        return 0
    if ingest.n_blank_ids or ingest.n_duplicates or ingest.n_conflicts_dropped:
        return 0
    return max(0, ingest.n_cases - flow.n_incidents)


def _left_in_the_file(ingest: IngestRecord) -> Mapping[str, int]:
    """Why so many texts were not loaded."""
    left = {
        "blank": ingest.n_blank,
        "in rows without an id": ingest.n_blank_ids,
        "the same narrative again": ingest.n_duplicates,
        "another text of the same narrative": ingest.n_conflicts_dropped,
    }
    return {what: number for what, number in left.items() if number}


def _cohort_steps(material: ReportMaterial) -> tuple[FlowStep, ...]:
    flow = material.evaluation.flow
    eligible = FlowBox(
        title="Eligible",
        count=plural(flow.n_eligible, "narrative"),
        lines=(f"of {plural(flow.n_incidents, 'incident')}", *_noticed(flow)),
    )
    asked = FlowBox(title="Sent to the model", count=plural(flow.n_sent, "narrative"))
    if flow.n_copied:
        alike = f"{flow.n_copied:,} with the text of one of these, which share what came of it"
        lines = (f"{flow.n_sent:,} sent", alike)
        asked = FlowBox(title="Put to the model", count=plural(flow.n_sent + flow.n_copied, "narrative"), lines=lines)
    answered = FlowBox(title="Answered", count=plural(flow.n_answered, "narrative"), lines=_kinds(material))
    steps = [FlowStep(box=eligible, leaves=_not_sent(flow)), FlowStep(box=asked, leaves=_failed(flow))]
    incidents = material.level(Level.INCIDENTS)
    if incidents is None:
        return (*steps, FlowStep(box=answered))
    classified = FlowBox(title="Classified", count=plural(incidents.counts.n_answered, "incident"))
    return (*steps, FlowStep(box=answered, leaves=_without_any(incidents, flow.n_missing)), FlowStep(box=classified))


def _noticed(flow: Flow) -> tuple[str, ...]:
    """What stood out in texts that were sent all the same."""
    noticed = {
        "only say that there is no report": (flow.n_placeholders or 0) - flow.skipped.get("placeholder", 0),
        "are nearly empty": flow.n_near_empty or 0,
        "are probably cut off": flow.n_truncated or 0,
    }
    return tuple(f"{number:,} {what}" for what, number in noticed.items() if number > 0)


def _not_sent(flow: Flow) -> FlowBox | None:
    n_skipped = sum(flow.skipped.values())
    if not n_skipped + flow.n_missing:
        return None
    lines = [f"{_SKIPPED.get(why, clean(why))}: {number:,}" for why, number in flow.skipped.items()]
    if flow.n_missing:
        lines.append(f"not reached yet: {flow.n_missing:,}")
    return FlowBox(title="Not sent", count=plural(n_skipped + flow.n_missing, "narrative"), lines=tuple(lines))


def _failed(flow: Flow) -> FlowBox | None:
    n_errors = sum(flow.errors.values())
    if not n_errors:
        return None
    lines = tuple(f"{error_words(category)}: {number:,}" for category, number in flow.errors.items())
    return FlowBox(title="No usable answer", count=plural(n_errors, "narrative"), lines=lines)


def _kinds(material: ReportMaterial) -> tuple[str, ...]:
    kinds = [(name, material.level(level)) for name, level in (("CME", Level.CME), ("LE", Level.LE))]
    return tuple(f"{level.counts.n_answered:,} {name}" for name, level in kinds if level is not None)


def _without_any(incidents: LevelReport, n_missing: int) -> FlowBox | None:
    n_without = incidents.counts.n_units - incidents.counts.n_answered
    if not n_without:
        return None
    return FlowBox(
        title="No answer at all",
        count=plural(n_without, "incident"),
        lines=(f"all of their narratives were left out or failed{', or are not reached' if n_missing else ''}",),
    )


def _outcomes(material: ReportMaterial) -> tuple[FlowBox, ...]:
    incidents = material.level(Level.INCIDENTS)
    if incidents is None:
        return ()
    n_yes, n_answered = incidents.counts.n_detected, incidents.counts.n_answered
    return (
        FlowBox(title="Detected", count=plural(n_yes, "incident"), lines=_labels(material, incidents, said_yes=True)),
        FlowBox(
            title="Not detected",
            count=plural(n_answered - n_yes, "incident"),
            lines=_labels(material, incidents, said_yes=False),
        ),
    )


def _labels(material: ReportMaterial, incidents: LevelReport, *, said_yes: bool) -> tuple[str, ...]:
    """What people say of them; not where labels stand for others, too."""
    counts, table = incidents.counts, incidents.confusion
    if material.hides_labels(Level.INCIDENTS):
        return ("labels are not shown",)
    if not counts.n_evaluated or table.tp + table.fp + table.fn + table.tn != counts.n_evaluated:
        return ()
    yes, no = (table.tp, table.fp) if said_yes else (table.fn, table.tn)
    n_all = counts.n_detected if said_yes else counts.n_answered - counts.n_detected
    lines = [f"{yes:,.0f} labelled yes", f"{no:,.0f} labelled no"]
    if n_all > yes + no:
        lines.append(f"{n_all - yes - no:,.0f} without a label")
    return tuple(lines)


_ERRORS = {
    "empty": "empty answers",
    "no_content": "answers without text",
    "truncated": "answers cut off",
    "refusal": "refused by the model",
    "content_filter": "blocked by a content filter",
    "bad_json": "answers not in the form asked for",
    "schema": "answers of the wrong shape",
    "ambiguous": "answers that say both",
    "confidence_out_of_range": "answers with an impossible confidence",
    "bad_request": "requests refused",
    "context_length": "texts too long for the model",
    "transient_exhausted": "failed again and again for technical reasons",
    "endpoint_crash": "the server went down over them",
    "source_changed": "texts changed since they were loaded",
    "internal": "a defect of the program",
    "no_verdict": "rows without a verdict",
    "unknown": "for reasons that were not recorded",
    "timeout": "took too long",
    "connection_lost": "the connection broke",
    "server_error": "the server failed",
    "overloaded": "the server was overloaded",
    "unreachable": "the server could not be reached",
    "bad_envelope": "replies that are no answer",
    "response_too_large": "replies too large to read",
}


def error_words(category: str) -> str:
    """An error category for people, with the name under which the database has it."""
    words = _ERRORS.get(category)
    return f"{words} ({category})" if words else clean(category)

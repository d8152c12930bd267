"""How the work went: runs, calls, failures, speed."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.analysis.report_tree import Course
from narrun_async.errors import ExitCode
from narrun_async.models import RunRecord
from narrun_async.reporting.html.blocks import Block, Figure, Gallery, Paragraph, Row, Section, Table
from narrun_async.reporting.html.charts import Curve, HistogramChart, Ink, TimeChart
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import DASH, clean, plural
from narrun_async.reporting.measure_text import percent_of
from narrun_async.reporting.wording import duration_text

_MODES = {
    "new": "new",
    "resume": "resumed",
    "retry-errors": "errors asked again",
    "batch": "answers of batches",
    "r": "by the R program",
}
_UNITS = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


def course_section(material: ReportMaterial) -> Section:
    blocks: list[Block] = [_runs_table(material.runs)] if material.runs else [Paragraph(text="No runs are recorded.")]
    course = material.analysis.course
    if material.n_batched_calls:
        batched = plural(material.n_batched_calls, "call")
        blocks.append(
            Paragraph(
                text=f"{batched} went through batches of the provider, which took hours; no figure here counts them."
            )
        )
    if course is None and not material.n_batched_calls:
        blocks.append(
            Paragraph(
                text="The database has no ledger of calls for this experiment, so speed and failures are unknown."
            )
        )
    if course is not None:
        blocks += [Paragraph(text=_calls_words(material, course)), Gallery(items=tuple(_figures(course)))]
    return Section(slug="course", title="How the work went", blocks=tuple(blocks))


def _runs_table(runs: Sequence[RunRecord]) -> Table:
    rows = tuple(
        Row(
            head=f"{run.run_id}",
            cells=(
                _mode_words(run),
                run.started_at[:19].replace("T", " "),
                duration_text(run.runtime_s),
                f"{run.n_saved:,}",
                DASH if run.concurrency is None else str(run.concurrency),
                _end_words(run),
            ),
        )
        for run in runs
    )
    return Table(
        caption="Runs of the program on this experiment",
        head=("Run", "Why", "Began (UTC)", "Took", "Rows saved", "Calls at a time", "Ended"),
        rows=rows,
        is_prose=True,
    )


def _end_words(run: RunRecord) -> str:
    """Why a run ended; where an endpoint refused it, its own words may quote a narrative and are left out."""
    if run.exit_code == ExitCode.CONFIGURATION:
        return "the endpoint or the configuration was refused"
    return clean(run.ended_why or ("ended" if run.ended_at else "no end recorded: killed, or still running"))


def _mode_words(run: RunRecord) -> str:
    return _MODES.get(run.mode, clean(run.mode))


def _calls_words(material: ReportMaterial, course: Course) -> str:
    failed = f", of which {course.n_failed:,} ({percent_of(course.n_failed / course.n_calls)}) failed"
    speed = ""
    if course.latency_median_s is not None and course.latency_p95_s is not None:
        speed = (
            f" An answer took {duration_text(course.latency_median_s)} (median; 95 % within "
            f"{duration_text(course.latency_p95_s)})."
        )
    canaries = material.canaries.n_asked
    again = (
        f" {plural(canaries, 'more call')} asked a narrative again, to see whether answers stay the same."
        if canaries
        else ""
    )
    return (
        f"{plural(course.n_calls, 'call')} were made{failed if course.n_failed else ''}, at most "
        f"{course.peak_in_flight:,} at a time, in {duration_text(course.working_s)} of work.{speed} Prompts and "
        f"answers came to {material.prompt_tokens:,} and {material.completion_tokens:,} tokens.{again}"
    )


def _figures(course: Course) -> Sequence[Figure]:
    figures = []
    if course.bins:
        figures += [_throughput(course), _in_flight(course), _latency_over_time(course)]
    if course.latencies:
        figures.append(_latency(course))
    return figures


def _scale(course: Course) -> tuple[float, str]:
    """Seconds in a unit of the time axis, and its name."""
    return next((float(size), name) for least, size, name in _UNITS if course.working_s >= least)


def _chart(course: Course, curves: Sequence[Curve], *, y_title: str) -> TimeChart:
    size, unit = _scale(course)
    edges = [one.start_s / size for one in course.bins] + [course.bins[-1].end_s / size]
    return TimeChart(
        edges=tuple(edges),
        curves=tuple(curves),
        marks=tuple(run.start_s / size for run in course.runs[1:]),
        x_title=f"working time, {unit}",
        y_title=y_title,
    )


def _numbers(course: Course, caption: str, names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Table:
    """At most a dozen stretches: a curve has too many to be read."""
    size, unit = _scale(course)
    step = max(1, len(course.bins) // 12)
    rows = tuple(
        Row(
            head=f"{one.start_s / size:.1f}",
            cells=tuple(DASH if value is None else f"{value:,.2f}" for value in values_of),
        )
        for one, *values_of in list(zip(course.bins, *values, strict=True))[::step]
    )
    every = f" (every {step}th stretch)" if step > 1 else ""
    return Table(caption=f"{caption}{every}", head=(f"From, {unit}", *names), rows=rows)


def _marks_words(course: Course) -> str:
    return " Upright lines: a new run. Time between runs is left out." if len(course.runs) > 1 else ""


def _throughput(course: Course) -> Figure:
    answers = tuple(one.answers_per_s for one in course.bins)
    failures = tuple(one.failures_per_s for one in course.bins)
    curves = [Curve(name="answers", ink=Ink.FIRST, values=answers)]
    if course.n_failed:
        curves.append(Curve(name="failed calls", ink=Ink.BAD, values=failures))
    title = "Answers a second"
    return Figure(
        name="throughput",
        title=title,
        description=f"Answers a second over working time, at most {max(answers):.1f}.{_marks_words(course)}",
        caption=_marks_words(course).strip(),
        chart=_chart(course, curves, y_title="a second"),
        numbers=_numbers(course, title, ("Answers a second", "Failed calls a second"), (answers, failures)),
    )


def _in_flight(course: Course) -> Figure:
    values = tuple(one.in_flight for one in course.bins)
    title = "Calls at a time"
    return Figure(
        name="in-flight",
        title=title,
        description=f"Calls in flight over working time, at most {course.peak_in_flight:,} at one moment.",
        caption="On average over each stretch.",
        chart=_chart(course, [Curve(name="calls in flight", ink=Ink.FIRST, values=values)], y_title="calls"),
        numbers=_numbers(course, title, ("Calls in flight",), (values,)),
    )


def _latency_over_time(course: Course) -> Figure:
    median = tuple(one.latency_median_s for one in course.bins)
    p95 = tuple(one.latency_p95_s for one in course.bins)
    title = "How long an answer took, over time"
    curves = [
        Curve(name="95 % within", ink=Ink.SECOND, values=p95),
        Curve(name="median", ink=Ink.FIRST, values=median),
    ]
    return Figure(
        name="latency-over-time",
        title=title,
        description="Median and 95th percentile of the duration of calls that gave an answer, over working time.",
        chart=_chart(course, curves, y_title="seconds"),
        numbers=_numbers(course, title, ("Median, s", "95 % within, s"), (median, p95)),
    )


def _latency(course: Course) -> Figure:
    bins = course.latencies
    edges = (*(one.low_s for one in bins), bins[-1].high_s)
    return Figure(
        name="latency",
        title="How long an answer took",
        description=(
            f"Histogram of the duration of calls that gave an answer, on a logarithmic axis from "
            f"{duration_text(edges[0])} to {duration_text(edges[-1])}."
        ),
        chart=HistogramChart(
            edges=edges,
            counts=tuple(one.n_calls for one in bins),
            x_title="seconds, logarithmic",
            y_title="calls",
        ),
        numbers=Table(
            caption="Duration of calls that gave an answer",
            head=("From", "To", "Calls"),
            rows=tuple(
                Row(head=duration_text(one.low_s), cells=(duration_text(one.high_s), f"{one.n_calls:,}"))
                for one in bins
                if one.n_calls
            ),
        ),
    )

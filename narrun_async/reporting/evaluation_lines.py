"""What the answers of one experiment are worth, as lines for people and as a document for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from narrun_async.analysis.evaluation_tree import (
    Calibration,
    ErrorBounds,
    EvaluationReport,
    FailuresByLength,
    Flow,
    Level,
    LevelReport,
    Prevalence,
)
from narrun_async.analysis.values import Agreement, Bounds, Measure, Share
from narrun_async.reporting.measure_text import (
    brief_text,
    count_text,
    fraction_text,
    interval_text,
    p_text,
    parts_text,
    percent_interval_text,
    percent_of,
    table_rows,
)
from narrun_async.reporting.tables import SIMULATED_NOTICE
from narrun_async.reporting.wording import aligned, categories_text, printable

_INDENT = "  "
_TITLES = {
    Level.NARRATIVES: "EVERY NARRATIVE",
    Level.CME: "CME narratives",
    Level.LE: "LE narratives",
    Level.INCIDENTS: "EVERY INCIDENT (yes if any of its narratives is)",
    Level.INCIDENTS_WITH_BOTH: "both answered",
}
_NAMES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "mcc": "MCC",
}
_AGREEMENT_NAMES = {
    "observed": "agreement",
    "kappa": "Cohen's kappa",
    "pabak": "PABAK",
    "ac1": "Gwet's AC1",
    "positive": "agreement on yes",
    "negative": "agreement on no",
}


def evaluation_lines(report: EvaluationReport) -> list[str]:
    """The whole report, section by section."""
    levels = {one.level: one for one in report.levels}
    main = [levels[Level.NARRATIVES], levels[Level.INCIDENTS]]
    beside = [levels[one] for one in (Level.CME, Level.LE, Level.INCIDENTS_WITH_BOTH) if one in levels]
    lines = [f"experiment {report.subject.experiment_id}  {printable(report.subject.name)}"]
    if report.subject.is_simulated:
        lines.append(SIMULATED_NOTICE)
    lines += [f"NOTE: {remark}" for remark in report.remarks]
    lines += _section("WHAT BECAME OF THE NARRATIVES", aligned(_flow_rows(report.flow)))
    for level in main:
        lines += _section(_TITLES[level.level], _level_lines(level, report.labels))
    lines += _section("PARTS OF THE COHORT", _side_by_side(beside))
    lines += _section("DO BOTH NARRATIVES OF AN INCIDENT AGREE?", _cme_le_lines(report.cme_le))
    lines += _section("HOW COMMON IS IT?", _prevalence_lines(main))
    lines += _section("IS THE STATED CONFIDENCE DESERVED?", _calibration_lines(report.calibration))
    lines += _section("DO ERRORS FALL ON TEXTS OF ANY LENGTH ALIKE?", _failure_lines(report.failures_by_length))
    return [*lines, "", *_legend(report)]


def compact_lines(levels: Sequence[LevelReport]) -> list[str]:
    """A few lines for the end of a run: the measures that one asks for first, with their intervals."""
    rows = [("95 % intervals", *(one.level.value for one in levels))]
    for key in ("sensitivity", "specificity", "ppv", "f1"):
        rows.append((_NAMES[key], *(brief_text(getattr(one.performance, key)) for one in levels)))
    rows.append(("kappa", *(brief_text(one.agreement.kappa) for one in levels)))
    rows.append(("detected", *(_brief_percent(one.prevalence.apparent) for one in levels)))
    rows.append(("corrected", *(_brief_percent(one.prevalence.corrected) for one in levels)))
    return aligned(rows)


def evaluation_json(report: EvaluationReport) -> dict[str, object]:
    """The whole tree by the names of its fields; null where undefined, with the reason in `remark`."""
    return {"confidence_level": 0.95, **asdict(report)}


# --- sections --------------------------------------------------------------------------------------------------------


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"{_INDENT}{line}".rstrip() for line in lines)]


def _flow_rows(flow: Flow) -> list[tuple[str, str]]:
    flags = {"placeholders": flow.n_placeholders, "near empty": flow.n_near_empty, "truncated": flow.n_truncated}
    noticed = [f"{name} {count:,}" for name, count in flags.items() if count is not None]
    n_skipped, n_errors = sum(flow.skipped.values()), sum(flow.errors.values())
    return [
        ("eligible", f"{flow.n_eligible:,} narratives of {flow.n_incidents:,} incidents"),
        ("noticed at ingest", ", ".join(noticed) or "placeholders and the like were not looked for"),
        ("missing", f"{flow.n_missing:,} have no row yet"),
        ("skipped", f"{n_skipped:,}" + (f": {categories_text(flow.skipped)}" if n_skipped else "")),
        ("sent", f"{flow.n_sent:,}" + (f", and {flow.n_copied:,} with the same text" if flow.n_copied else "")),
        ("errors", f"{n_errors:,}" + (f": {categories_text(flow.errors)}" if n_errors else "")),
        ("answered", f"{flow.n_answered:,}"),
        ("unlabelled", f"{flow.n_unlabelled:,} of those"),
        ("evaluated", f"{flow.n_evaluated:,} have an answer and a label"),
    ]


def _level_lines(level: LevelReport, labels: str) -> list[str]:
    counts = level.counts
    if not counts.n_evaluated:
        return ["no measure is defined, because none has both an answer and a label"]
    whose = "" if counts.n_evaluated == counts.n_clusters else f" of {counts.n_clusters:,} incidents"
    lines = [
        f"{counts.n_evaluated:,} with an answer and a label{whose}; labels: {printable(labels)}",
        "",
        *aligned(table_rows(level.confusion, first="answer", second="label"), right=frozenset({1, 2, 3})),
        "",
    ]
    if level.agreement.observed.denominator != counts.n_evaluated:
        lines += ["Counts are sums of weights: a label counts for as many narratives as it stands for.", ""]
    named = {name: getattr(level.performance, key) for key, name in _NAMES.items()}
    lines += _measure_lines(named | _agreement_measures(level.agreement, without=("positive",)))
    lines += _kappa_lines(level.agreement)
    return [*lines, *_error_lines(level.if_errors)]


def _agreement_measures(agreement: Agreement, *, without: Sequence[str] = ()) -> dict[str, Measure]:
    return {name: getattr(agreement, key) for key, name in _AGREEMENT_NAMES.items() if key not in without}


def _measure_lines(measures: Mapping[str, Measure]) -> list[str]:
    """A measure a line; a column for the clustered interval where any has one; warnings once, below."""
    is_clustered = any(one.clustered is not None for one in measures.values())
    rows = [("", "", "of", "95 % interval", *(("by incident",) if is_clustered else ()), "")]
    for name, one in measures.items():
        mark = "*" if one.interval is not None and one.remark else ""
        clustered = (interval_text(one.clustered) if one.clustered else "",) if is_clustered else ()
        reason = "" if mark else one.remark.removeprefix("undefined: ")
        shown = (
            name,
            fraction_text(one.value),
            parts_text(one),
            interval_text(one.interval) + mark,
            *clustered,
            reason,
        )
        rows.append(shown)
    warnings = dict.fromkeys(one.remark for one in measures.values() if one.interval is not None and one.remark)
    return [*aligned(rows, right=frozenset({1, 2})), *(f"* {warning}" for warning in warnings)]


def _kappa_lines(agreement: Agreement) -> list[str]:
    """What raw agreement hides."""
    observed, kappa = agreement.observed.value, agreement.kappa.value
    if observed is None or kappa is None or kappa == 1:
        return []
    by_chance = (observed - kappa) / (1 - kappa)
    return [
        "",
        f"{100 * observed:.1f} % agreement, kappa {kappa:.2f}: at random, two who say yes as often as these would "
        f"agree in {100 * by_chance:.1f} %.",
    ]


def _error_lines(bounds: ErrorBounds) -> list[str]:
    if not bounds.n_open:
        return []
    names = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1"}
    told = ", ".join(f"{name} {_bounds_text(getattr(bounds, key))}" for key, name in names.items())
    return ["", f"Had the {bounds.n_open:,} labelled ones that errors leave open all been wrong, or all right:", told]


def _bounds_text(bounds: Bounds) -> str:
    return f"{fraction_text(bounds.worst)} to {fraction_text(bounds.best)}"


def _side_by_side(levels: Sequence[LevelReport]) -> list[str]:
    """The measures of several levels in columns."""
    rows = [("", *(_TITLES[one.level] for one in levels))]
    rows.append(("evaluated", *(f"{one.counts.n_evaluated:,}" for one in levels)))
    rows.append(("TP, FP, FN, TN", *(_cells_text(one) for one in levels)))
    for key, name in _NAMES.items():
        rows.append((name, *(brief_text(getattr(one.performance, key)) for one in levels)))
    rows.append(("Cohen's kappa", *(brief_text(one.agreement.kappa) for one in levels)))
    rows.append(("Gwet's AC1", *(brief_text(one.agreement.ac1) for one in levels)))
    rows.append(("detected", *(_brief_percent(one.prevalence.apparent) for one in levels)))
    return aligned(rows)


def _cells_text(level: LevelReport) -> str:
    table = level.confusion
    return ", ".join(map(count_text, (table.tp, table.fp, table.fn, table.tn)))


def _brief_percent(measure: Measure) -> str:
    interval = measure.best_interval
    if measure.value is None or interval is None:
        return percent_of(measure.value)
    return f"{percent_of(measure.value)} ({100 * interval.low:.2f}-{100 * interval.high:.2f})"


def _cme_le_lines(agreement: Agreement) -> list[str]:
    if not agreement.table.n_units:
        return ["no incident has an answer for both its CME and its LE narrative"]
    lines = [
        f"{agreement.table.n_units:,} incidents have an answer for both",
        "",
        *aligned(table_rows(agreement.table, first="CME", second="LE"), right=frozenset({1, 2, 3})),
        "",
        *_measure_lines(_agreement_measures(agreement)),
        *_kappa_lines(agreement),
    ]
    if agreement.p_mcnemar is not None:
        lines.append(f"Is one kind detected more often? Exact McNemar p = {p_text(agreement.p_mcnemar)}.")
    return lines


def _prevalence_lines(levels: Sequence[LevelReport]) -> list[str]:
    lines = []
    for level in levels:
        lines += [level.level.value, *(f"{_INDENT}{line}" for line in _one_prevalence(level.prevalence))]
    return lines


def _one_prevalence(prevalence: Prevalence) -> list[str]:
    apparent, corrected = prevalence.apparent, prevalence.corrected
    rows = [
        ("detected", percent_of(apparent.value), parts_text(apparent), _rate_interval(apparent)),
        ("labelled yes", percent_of(prevalence.labelled.value), parts_text(prevalence.labelled), ""),
        ("corrected", percent_of(corrected.value), "", corrected.remark or _rate_interval(corrected)),
    ]
    lines = aligned(rows, right=frozenset({1, 2}))
    if prevalence.validity is not None:
        known = prevalence.validity
        lines.append(
            f"with sensitivity {_share_text(known.sensitivity)} and specificity {_share_text(known.specificity)}, "
            f"from {printable(known.source)}"
        )
    if prevalence.includes_zero and apparent.numerator:
        lines.append("THE CORRECTED INTERVAL INCLUDES ZERO: what is detected may be false positives alone.")
    lines += [f"Note: {remark}." for remark in prevalence.remarks]
    if prevalence.predictive_values:
        lines += ["What a yes and a no would be worth, by how common it is:"]
        values = prevalence.predictive_values
        table = [(percent_of(one.prevalence), brief_text(one.ppv), brief_text(one.npv)) for one in values]
        lines += [f"{_INDENT}{line}" for line in aligned([("", "PPV", "NPV"), *table], right=frozenset({0}))]
    return lines


def _rate_interval(measure: Measure) -> str:
    return percent_interval_text(measure.best_interval)


def _share_text(share: Share) -> str:
    return f"{share.value:.3f} (effective n {count_text(round(share.n_effective, 1))})"


def _calibration_lines(calibration: Calibration) -> list[str]:
    right = calibration.right
    if right.value is None or calibration.mean_confidence is None:
        return [right.remark]
    rows = [("confidence", "answers", "evaluated", "mean", "right", "95 % interval")]
    for one in calibration.bins:
        if one.n_answers:
            rows.append(
                (
                    f"{one.low:.1f} to {one.high:.1f}",
                    f"{one.n_answers:,}",
                    count_text(one.right.denominator or 0),
                    "-" if one.mean_confidence is None else f"{one.mean_confidence:.3f}",
                    "-" if one.right.value is None else fraction_text(one.right.value),
                    interval_text(one.right.best_interval),
                )
            )
    base = calibration.brier_of_base_rate
    told = [
        f"On average the model is {100 * calibration.mean_confidence:.1f} % sure of its answer; "
        f"{100 * right.value:.1f} % of the answers are right ({parts_text(right)}).",
        f"Brier score {fraction_text(calibration.brier.value)} ({interval_text(calibration.brier.interval)}); "
        f"always saying the labelled rate would give {fraction_text(base)}.",
        f"Average precision {fraction_text(calibration.average_precision.value)}.",
    ]
    if calibration.n_without_confidence:
        told.append(f"{calibration.n_without_confidence:,} answers state no confidence and are not in this.")
    return [*aligned(rows, right=frozenset({1, 2, 3, 4})), *told]


def _failure_lines(failures: FailuresByLength) -> list[str]:
    rows = [("characters", "failed", "of", "95 % interval")]
    for one in failures.bins:
        rows.append(
            (
                f"{one.shortest:,} to {one.longest:,}",
                percent_of(one.failed.value),
                parts_text(one.failed),
                percent_interval_text(one.failed.best_interval),
            )
        )
    lines = aligned(rows, right=frozenset({0, 1, 2})) if failures.bins else []
    if failures.p_trend is not None:
        lines.append(f"trend over the lengths: Cochran-Armitage p = {p_text(failures.p_trend)}")
    if failures.remark:
        lines.append(failures.remark)
    if failures.bins and failures.n_without_length:
        lines.append(f"the texts of {failures.n_without_length:,} more are gone")
    return lines


def _legend(report: EvaluationReport) -> list[str]:
    resamples = f"{report.n_resamples:,} resamples, seed {report.seed}" if report.n_resamples else "no resamples"
    return [
        f"Intervals: Wilson's for shares; b = BCa bootstrap of incidents ({resamples}). `by incident` allows for the",
        "narratives of one incident being alike: report that one. docs/metrics.md says what each number means.",
    ]

"""Puts together what a report is computed from, after taking out of the rows what it may not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from narrun_async.analysis.breakdowns import answered_rows, break_down_by_confidence, break_down_by_year
from narrun_async.analysis.course import describe_course
from narrun_async.analysis.disclosure import decide_what_to_withhold
from narrun_async.analysis.evaluation import Evaluating
from narrun_async.analysis.evaluation_tree import EvaluationReport, Flow, Level
from narrun_async.analysis.report_tree import DETECTIONS_OF, LABELS_OF, ReportAnalysis, Withheld
from narrun_async.analysis.values import Measure
from narrun_async.models import CallRecord, CohortRow


def analyse_for_report(
    rows: Sequence[CohortRow],
    calls: Sequence[CallRecord],
    evaluating: Evaluating,
    *,
    suppress_below: int | None = None,
) -> ReportAnalysis:
    """Everything that a report shows of an experiment's answers and calls."""
    below = suppress_below or 0
    withheld = decide_what_to_withhold(rows, evaluating.labels, below) if below else frozenset()
    return ReportAnalysis(
        evaluation=_evaluation(rows, evaluating, withheld, below),
        remarks=tuple(evaluating.remarks),
        by_year=(
            () if Withheld.YEARS in withheld else break_down_by_year(rows, of_incidents=below > 0, suppress_below=below)
        ),
        n_without_year=0 if below else sum(row.incident_year is None for row in answered_rows(rows)),
        bands=() if Withheld.CONFIDENCE in withheld else break_down_by_confidence(rows, suppress_below=below),
        course=describe_course(calls),
        withheld=withheld,
        suppress_below=suppress_below,
    )


def _evaluation(
    rows: Sequence[CohortRow], evaluating: Evaluating, withheld: frozenset[Withheld], below: int
) -> EvaluationReport:
    if not withheld:
        return evaluating.report(rows)
    shown = [replace(row, confidence=None) for row in rows] if Withheld.CALIBRATION in withheld else rows
    alone, alone_evaluating = _each_alone(shown, evaluating)

    @cache
    def report(*, by_itself: bool, with_labels: bool) -> EvaluationReport:
        if by_itself:
            return alone_evaluating.report(alone, with_labels=with_labels)
        return evaluating.report(shown, with_labels=with_labels)

    def report_of(level: Level) -> EvaluationReport:
        """As far as it is told of that level."""
        by_itself = level is Level.NARRATIVES and Withheld.CLUSTERS in withheld
        return report(by_itself=by_itself, with_labels=LABELS_OF[level] not in withheld)

    whole = report(by_itself=False, with_labels=True)
    calibration = report(by_itself=True, with_labels=LABELS_OF[Level.NARRATIVES] not in withheld).calibration
    return replace(
        whole,
        flow=_flow(whole.flow, below),
        levels=tuple(
            replace(level, counts=replace(level.counts, n_clusters=of_all.counts.n_clusters))
            for of_all in whole.levels
            if DETECTIONS_OF[of_all.level] not in withheld
            for level in report_of(of_all.level).levels
            if level.level is of_all.level
        ),
        cme_le=evaluating.report([]).cme_le if Withheld.CME_LE in withheld else whole.cme_le,
        calibration=replace(calibration, average_precision=Measure(value=None), curve=()),
        remarks=(),
    )


def _each_alone(rows: Sequence[CohortRow], evaluating: Evaluating) -> tuple[Sequence[CohortRow], Evaluating]:
    """Every narrative as an incident of its own, with the label that it had."""
    apart = [replace(row, incident_id=str(number)) for number, row in enumerate(rows)]
    known = evaluating.labels.narratives
    labels = {
        (one.incident_id, one.narrative_type): label
        for one, row in zip(apart, rows, strict=True)
        if (label := known.get((row.incident_id, row.narrative_type))) is not None
    }
    return apart, replace(evaluating, labels=replace(evaluating.labels, narratives=labels, incidents={}))


def _flow(flow: Flow, below: int) -> Flow:
    """How many have a label is no secret as long as these, and the others, are many."""
    if 0 < flow.n_evaluated < below or 0 < flow.n_unlabelled < below:
        return replace(flow, n_evaluated=0, n_unlabelled=flow.n_answered)
    return flow

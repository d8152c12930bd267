"""Puts together what a report is computed from, after taking out of the rows what it may not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from narrun_async.analysis.breakdowns import answered_rows, break_down_by_confidence, break_down_by_year
from narrun_async.analysis.cohort import CohortTable, LabelSet
from narrun_async.analysis.course import describe_course
from narrun_async.analysis.disclosure import decide_what_to_withhold
from narrun_async.analysis.evaluation import Evaluating, describe_flow
from narrun_async.analysis.evaluation_tree import EvaluationReport, Flow, Level
from narrun_async.analysis.report_tree import ReportAnalysis, Withheld
from narrun_async.analysis.values import Measure
from narrun_async.models import CallRecord, CohortRow

_KINDS = frozenset({Level.CME, Level.LE})


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
            ()
            if Withheld.YEARS in withheld
            else break_down_by_year(rows, by_kind=Withheld.KINDS not in withheld, suppress_below=below)
        ),
        n_without_year=sum(row.incident_year is None for row in answered_rows(rows)),
        bands=() if Withheld.CONFIDENCE in withheld else break_down_by_confidence(rows, suppress_below=below),
        course=describe_course(calls),
        withheld=withheld,
        suppress_below=suppress_below,
    )


def _evaluation(
    rows: Sequence[CohortRow], evaluating: Evaluating, withheld: frozenset[Withheld], below: int
) -> EvaluationReport:
    hides_confidence = Withheld.CALIBRATION in withheld
    shown = [replace(row, confidence=None) for row in rows] if hides_confidence else rows
    report = evaluating.report(shown, with_labels=Withheld.LABELS not in withheld)
    if not withheld:
        return report
    unlabelled = evaluating.report(shown, with_labels=False)
    levels = {one.level: one for one in report.levels}
    without_labels = {one.level: one for one in unlabelled.levels}
    hidden = set(levels) if Withheld.DETECTION in withheld else set()
    if Withheld.LABELS_OF_KINDS in withheld:
        levels |= {level: without_labels[level] for level in _KINDS & levels.keys()}
    if Withheld.LABELS_OF_BOTH in withheld:
        levels[Level.INCIDENTS_WITH_BOTH] = without_labels[Level.INCIDENTS_WITH_BOTH]
    if Withheld.KINDS in withheld:
        hidden |= _KINDS
    if Withheld.BOTH in withheld:
        hidden.add(Level.INCIDENTS_WITH_BOTH)
    nobody = evaluating.report([], with_labels=False)
    return replace(
        report,
        flow=_flow(rows, evaluating.labels, below),
        levels=tuple(one for one in levels.values() if one.level not in hidden),
        cme_le=nobody.cme_le if Withheld.CME_LE in withheld else report.cme_le,
        calibration=replace(report.calibration, average_precision=Measure(value=None), curve=()),
    )


def _flow(rows: Sequence[CohortRow], labels: LabelSet, below: int) -> Flow:
    """How many have a label is no secret as long as these, and the others, are many."""
    flow = describe_flow(CohortTable.build(rows, labels))
    if 0 < flow.n_evaluated < below or 0 < flow.n_unlabelled < below:
        return replace(flow, n_evaluated=0, n_unlabelled=flow.n_answered)
    return flow

"""Puts the evaluation of one experiment together: every level, agreement of both narratives, calibration, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from narrun_async.analysis.assessment import assess_agreement
from narrun_async.analysis.calibration import calibrate
from narrun_async.analysis.cohort import CohortTable, LabelSet, State, manual_flags
from narrun_async.analysis.evaluation_tree import EvaluationReport, Flow, Subject
from narrun_async.analysis.failures import failures_by_length
from narrun_async.analysis.levels import FindValidity, assess_level, levels_of, own_validity
from narrun_async.analysis.resampling import Bootstrap, resample
from narrun_async.analysis.samples import Pairs, sum_by_cluster
from narrun_async.analysis.values import Agreement
from narrun_async.models import CohortRow


def evaluate(
    rows: Sequence[CohortRow],
    subject: Subject,
    bootstrap: Bootstrap,
    *,
    labels: LabelSet | None = None,
    find_validity: FindValidity = own_validity,
    remarks: Sequence[str] = (),
) -> EvaluationReport:
    """All that the answers of one experiment are worth.

    :param labels: the manual flags of the file where none are given
    :param find_validity: where sensitivity and specificity for the correction come from; by default the labelled part
        of the same rows
    :param remarks: what else a reader should know, before what is found here
    """
    labels = labels or manual_flags(rows)
    table = CohortTable.build(rows, labels)
    levels = [assess_level(units, bootstrap, find_validity) for units in levels_of(table)]
    flow = describe_flow(table)
    return EvaluationReport(
        subject=subject,
        labels=labels.name,
        flow=flow,
        levels=tuple(levels),
        cme_le=_agreement(table.cme_and_le(), bootstrap, label="cme and le"),
        calibration=calibrate(table),
        failures_by_length=failures_by_length(table),
        n_resamples=bootstrap.n_resamples,
        seed=bootstrap.seed,
        remarks=(*remarks, *_remarks(flow)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating:
    """How the answers of an experiment are to be judged; `evaluate` for who judges them more than once."""

    subject: Subject
    bootstrap: Bootstrap
    labels: LabelSet
    find_validity: FindValidity = own_validity
    remarks: Sequence[str] = ()

    def report(self, rows: Sequence[CohortRow], *, with_labels: bool = True) -> EvaluationReport:
        """:param with_labels: False: as if nobody had labelled anything"""
        return evaluate(
            rows,
            self.subject,
            self.bootstrap,
            labels=self.labels if with_labels else replace(self.labels, narratives={}, incidents={}),
            find_validity=self.find_validity,
            remarks=self.remarks,
        )


def describe_flow(table: CohortTable) -> Flow:
    """What became of every narrative of the cohort."""
    units = table.narratives()
    n_missing, n_skipped = int((table.state == State.MISSING).sum()), int((table.state == State.SKIPPED).sum())
    n_copied = int((table.is_copied & (table.state >= State.ERROR)).sum())
    return Flow(
        n_eligible=int(table.state.size),
        n_incidents=len(table.incident_ids),
        n_placeholders=_count_flag(table, "placeholder"),
        n_near_empty=_count_flag(table, "near_empty"),
        n_truncated=_count_flag(table, "truncated"),
        n_missing=n_missing,
        skipped=_ranked([reason for reason in table.skip_reasons if reason is not None]),
        n_copied=n_copied,
        n_sent=int(table.state.size) - n_missing - n_skipped - n_copied,
        errors=_ranked([category for category in table.error_categories if category is not None]),
        n_answered=int(units.is_answered.sum()),
        n_unlabelled=int((units.is_answered & ~units.is_evaluated).sum()),
        n_evaluated=int(units.is_evaluated.sum()),
    )


def _count_flag(table: CohortTable, flag: str) -> int | None:
    looked_at = [flags for flags in table.flags if flags is not None]
    return sum(flag in flags for flags in looked_at) if looked_at else None


def _ranked(words: Sequence[str]) -> Mapping[str, int]:
    return dict(sorted(Counter(words).items(), key=lambda one: (-one[1], one[0])))


def _agreement(pairs: Pairs, bootstrap: Bootstrap, *, label: str) -> Agreement:
    contributions = sum_by_cluster(pairs.cells, pairs.weights, pairs.clusters)
    return assess_agreement(pairs, resample(contributions, bootstrap, label=label))


def _remarks(flow: Flow) -> Sequence[str]:
    remarks = []
    if flow.n_missing:
        remarks.append(
            f"{flow.n_missing:,} narratives have no row yet: these are the numbers of an unfinished experiment"
        )
    if not flow.n_evaluated:
        remarks.append("no narrative has both an answer and a label, so what the answers are worth cannot be said")
    return remarks

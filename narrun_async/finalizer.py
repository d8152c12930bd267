"""Fills every derived column of an experiment from its rows; what it writes it has counted, so it is safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from narrun_async.models import Experiment
from narrun_async.ports import ExperimentStore
from narrun_async.reporting.summary import ExperimentSummary, SummaryStore, load_summary


class FinalizerStore(ExperimentStore, SummaryStore, Protocol):
    """What the finalizer needs of a store."""


async def finalize(store: FinalizerStore, experiment: Experiment, *, runtime_s: float) -> ExperimentSummary:
    """Count the rows and copy what was counted into the columns that R readers watch.

    :param runtime_s: seconds of work of all runs together
    """
    summary = await load_summary(store, experiment)
    await store.update_experiment(experiment.experiment_id, derived_columns(summary, runtime_s=runtime_s))
    return summary


def derived_columns(summary: ExperimentSummary, *, runtime_s: float) -> Mapping[str, object]:
    """The columns of `experiments` that follow from rows."""
    counts, confusion, metrics = summary.counts, summary.confusion, summary.metrics
    return {
        "n_narratives_processed": counts.n_rows,
        "n_narratives_completed": counts.n_rows,
        "n_narratives_skipped": counts.n_skipped,
        "n_errors": counts.n_errors,
        "avg_time_per_narrative_sec": runtime_s / counts.n_asked if counts.n_asked else None,
        "n_positive_detected": summary.n_detected,
        "n_negative_detected": summary.n_not_detected,
        "n_positive_manual": confusion.tp + confusion.fn,
        "n_negative_manual": confusion.fp + confusion.tn,
        "accuracy": metrics.accuracy,
        "precision_ipv": metrics.precision,
        "recall_ipv": metrics.recall,
        "f1_ipv": metrics.f1,
        "n_true_positive": confusion.tp,
        "n_false_positive": confusion.fp,
        "n_false_negative": confusion.fn,
        "n_true_negative": confusion.tn,
        "pct_overlap_with_manual": metrics.pct_overlap_with_manual,
    }

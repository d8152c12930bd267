"""Owns the numbers of an experiment as people read them; every one is counted from rows at the moment of asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from narrun_async.metrics import ConfusionCounts, Metrics, compute_metrics
from narrun_async.models import CanaryCounts, Experiment, FlagCounts, ResultCounts, Serving
from narrun_async.ports import ResultStore, ScreeningStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSummary:
    """The state of an experiment's results."""

    counts: ResultCounts
    confusion: ConfusionCounts
    metrics: Metrics
    n_detected: int
    n_not_detected: int
    #: error rows by category, most frequent first
    errors: Mapping[str, int]
    #: answers that came when they were asked for once more
    n_second_tries: int = 0
    #: of all calls, failed ones included
    prompt_tokens: int
    completion_tokens: int
    #: who answered, oldest first
    servings: Sequence[Serving] = ()
    canaries: CanaryCounts = field(default_factory=CanaryCounts)
    #: doubtful texts of the cohort; None: nobody has looked
    flags: FlagCounts | None = None


class SummaryStore(ScreeningStore, ResultStore, Protocol):
    """What counting needs of a store."""


async def load_summary(store: SummaryStore, experiment: Experiment) -> ExperimentSummary:
    """Count the rows of an experiment."""
    experiment_id = experiment.experiment_id
    confusion = await store.count_confusion(experiment_id)
    n_detected, n_not_detected = await store.count_detected(experiment_id)
    prompt_tokens, completion_tokens = await store.sum_tokens(experiment_id)
    return ExperimentSummary(
        counts=await store.count_results(experiment),
        confusion=confusion,
        metrics=compute_metrics(confusion),
        n_detected=n_detected,
        n_not_detected=n_not_detected,
        errors=await store.count_errors(experiment_id),
        n_second_tries=await store.count_second_tries(experiment_id),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        servings=await store.list_servings(experiment_id),
        canaries=await store.count_canaries(experiment_id),
        flags=await store.count_flags(experiment.cohort),
    )

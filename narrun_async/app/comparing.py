"""`narrun compare`: experiments side by side. Reads the database, and imports what computes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from narrun_async.app.databases import reading
from narrun_async.app.evaluating import load_cohort_rows
from narrun_async.app.extras import require_analysis
from narrun_async.app.showing import find_shown, is_simulated
from narrun_async.errors import UsageError
from narrun_async.models import Experiment
from narrun_async.operations.comparing import are_repetitions, comparable_settings, varying_settings
from narrun_async.reporting.comparison_lines import comparison_json, comparison_lines
from narrun_async.stores import SqliteStore

if TYPE_CHECKING:
    from narrun_async.analysis.comparison_tree import ComparisonReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What the command line asks for."""

    wanted: Sequence[str]
    n_resamples: int
    seed: int
    #: how many discordant cases to list
    limit: int
    as_json: bool


async def tell_comparison(database: Path, request: ComparisonRequest) -> Sequence[str]:
    """The comparison, as lines or as one JSON document.

    :raises ConfigurationError: the extra `analysis` is not installed
    :raises UsageError: fewer than two experiments are named, or one of them is not there
    """
    require_analysis()
    report = await compare_experiments(database, request)
    if request.as_json:
        return [json.dumps(comparison_json(report), ensure_ascii=False, indent=2, allow_nan=False)]
    return comparison_lines(report)


async def compare_experiments(database: Path, request: ComparisonRequest) -> ComparisonReport:
    """Load the cohorts and compare them."""
    from narrun_async.analysis.cohort import CohortTable, manual_flags
    from narrun_async.analysis.comparison import compare
    from narrun_async.analysis.comparison_tree import Contender
    from narrun_async.analysis.evaluation_tree import Subject
    from narrun_async.analysis.resampling import Bootstrap

    async with reading(database) as store:
        experiments = [await find_shown(store, one) for one in request.wanted]
        _require_several(experiments)
        cohorts, labels = list[CohortTable](), manual_flags(())
        for one in experiments:
            rows = await load_cohort_rows(store, one)
            labels = manual_flags(rows, known=labels)
            cohorts.append(CohortTable.build(rows, labels))
        n_configurations = await count_configurations(store, experiments)
    settings = [comparable_settings(one) for one in experiments]
    contenders = [
        Contender(
            subject=Subject(experiment_id=one.experiment_id, name=one.name, is_simulated=is_simulated(one)),
            settings=found,
        )
        for one, found in zip(experiments, settings, strict=True)
    ]
    return compare(
        contenders,
        cohorts,
        labels,
        Bootstrap(n_resamples=request.n_resamples, seed=request.seed),
        repetitions={
            (first, second)
            for first, second in combinations(range(len(settings)), 2)
            if are_repetitions(settings[first], settings[second])
        },
        varying=varying_settings(settings),
        n_configurations=n_configurations,
        limit=request.limit,
    )


def _require_several(experiments: Sequence[Experiment]) -> None:
    ids = [one.experiment_id for one in experiments]
    if len(ids) < 2:
        raise UsageError("a comparison takes at least two experiments", advice="`narrun list` shows the ids")
    twice = {one for one in ids if ids.count(one) > 1}
    if twice:
        raise UsageError(f"experiment {min(twice)} is named twice", advice="name each of them once")


async def count_configurations(store: SqliteStore, experiments: Sequence[Experiment]) -> int:
    """Experiments over the same files that have answers with labels, these included."""
    checksums = {one.cohort.data_checksum for one in experiments}
    others = [one for one in await store.list_experiments() if one.cohort.data_checksum in checksums]
    judged = {one.experiment_id for one in others if (await store.count_confusion(one.experiment_id)).n_labelled}
    return len(judged | {one.experiment_id for one in experiments})

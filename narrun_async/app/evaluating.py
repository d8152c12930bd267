"""`narrun metrics`: what the answers of an experiment are worth. Reads the database, and imports what computes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from narrun_async.app.databases import reading
from narrun_async.app.extras import has_analysis, require_analysis
from narrun_async.app.showing import find_shown, is_simulated
from narrun_async.errors import UsageError
from narrun_async.models import CohortRow, Experiment
from narrun_async.operations.comparing import OF_REPETITIONS, comparable_settings, varying_settings
from narrun_async.ports import ResultStore
from narrun_async.reporting.evaluation_lines import compact_lines, evaluation_json, evaluation_lines

if TYPE_CHECKING:
    from narrun_async.analysis.cohort import Units
    from narrun_async.analysis.evaluation_tree import EvaluationReport, Validity
    from narrun_async.analysis.levels import FindValidity

#: for the lines at the end of a run; the command itself takes more
RESAMPLES_AT_THE_END = 2000
#: of a larger cohort the end of a run tells no intervals: a run keeps its memory flat, however long it is
MOST_AT_THE_END = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """So many of so many, as a person gives it."""

    hits: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What the command line asks for."""

    wanted: str
    n_resamples: int
    seed: int
    as_json: bool
    #: an experiment whose labelled part tells sensitivity and specificity
    validated_by: str | None = None
    #: both or none
    sensitivity: Fraction | None = None
    specificity: Fraction | None = None
    #: what those two were measured on
    measured_on_incidents: bool = False


async def tell_metrics(database: Path, request: EvaluationRequest) -> Sequence[str]:
    """The report of one experiment, as lines or as one JSON document.

    :raises ConfigurationError: the extra `analysis` is not installed
    :raises UsageError: there is no such experiment, or the flags contradict each other
    """
    require_analysis()
    report = await evaluate_experiment(database, request)
    if request.as_json:
        return [json.dumps(evaluation_json(report), ensure_ascii=False, indent=2, allow_nan=False)]
    return evaluation_lines(report)


async def evaluate_experiment(database: Path, request: EvaluationRequest) -> EvaluationReport:
    """Load the cohort and evaluate it."""
    from narrun_async.analysis.evaluation import evaluate
    from narrun_async.analysis.evaluation_tree import Subject
    from narrun_async.analysis.levels import own_validity
    from narrun_async.analysis.resampling import Bootstrap

    async with reading(database) as store:
        experiment = await find_shown(store, request.wanted)
        rows = await load_cohort_rows(store, experiment)
        find_validity: FindValidity = own_validity
        remarks: Sequence[str] = ()
        if request.validated_by is not None:
            other = await find_shown(store, request.validated_by)
            find_validity = _validity_of_another(other, await load_cohort_rows(store, other))
            remarks = _differences(experiment, other)
        elif request.sensitivity is not None and request.specificity is not None:
            find_validity = _given_validity(request.sensitivity, request.specificity, request.measured_on_incidents)
    if not experiment.cohort.last_narrative_id:
        remarks = [*remarks, "the predecessor recorded no cohort: only narratives that have a row are counted"]
    return evaluate(
        rows,
        Subject(experiment_id=experiment.experiment_id, name=experiment.name, is_simulated=is_simulated(experiment)),
        Bootstrap(n_resamples=request.n_resamples, seed=request.seed),
        find_validity=find_validity,
        remarks=remarks,
    )


async def load_cohort_rows(store: ResultStore, experiment: Experiment) -> Sequence[CohortRow]:
    """All of them: 42,000 rows take 20 MB and less than a second."""
    return [row async for row in store.iter_cohort(experiment)]


async def lines_at_the_end(store: ResultStore, experiment: Experiment) -> Sequence[str]:
    """A few measures with their intervals; none where nothing is labelled or the extra is not installed.

    They take a second and 120 MB, most of it for the packages.
    """
    if not has_analysis() or experiment.cohort.n_narratives > MOST_AT_THE_END:
        return []
    rows = await load_cohort_rows(store, experiment)
    if not any(row.manual_flag_ind is not None for row in rows):
        return []
    from narrun_async.analysis.cohort import CohortTable, manual_flags
    from narrun_async.analysis.levels import assess_level, own_validity
    from narrun_async.analysis.resampling import Bootstrap

    table = CohortTable.build(rows, manual_flags(rows))
    bootstrap = Bootstrap(n_resamples=RESAMPLES_AT_THE_END, seed=1)
    levels = [assess_level(units, bootstrap, own_validity) for units in (table.narratives(), table.incidents())]
    return compact_lines([one for one in levels if one.counts.n_evaluated])


def _validity_of_another(other: Experiment, rows: Sequence[CohortRow]) -> FindValidity:
    """Level by level, from the labelled part of another experiment."""
    from narrun_async.analysis.cohort import CohortTable, manual_flags
    from narrun_async.analysis.levels import levels_of, validity_of

    source = f"the labelled part of experiment {other.experiment_id[:8]} ({other.name})"
    table = CohortTable.build(rows, manual_flags(rows))
    known = {units.level: validity_of(units, source=source) for units in levels_of(table)}
    if not any(known.values()):
        raise UsageError(
            f"experiment {other.experiment_id[:8]} tells no sensitivity and specificity",
            advice="it takes answers to narratives of both labels; name another one with --validated-by",
        )
    return lambda units: known.get(units.level)


def _given_validity(sensitivity: Fraction, specificity: Fraction, on_incidents: bool) -> FindValidity:
    """Holds for what it was measured on: narratives of either type, or incidents."""
    from narrun_async.analysis.evaluation_tree import Level, Validity
    from narrun_async.analysis.values import Share

    given = Validity(
        sensitivity=Share(value=sensitivity.hits / sensitivity.n, n_effective=sensitivity.n),
        specificity=Share(value=specificity.hits / specificity.n, n_effective=specificity.n),
        source="the command line",
    )
    of_incidents = {Level.INCIDENTS, Level.INCIDENTS_WITH_BOTH}

    def find(units: Units) -> Validity | None:
        return given if (units.level in of_incidents) == on_incidents else None

    return find


def _differences(experiment: Experiment, other: Experiment) -> list[str]:
    settings = [comparable_settings(experiment), comparable_settings(other)]
    varying = [key for key in varying_settings(settings) if key not in OF_REPETITIONS]
    if not varying:
        return []
    return [
        f"sensitivity and specificity come from experiment {other.experiment_id[:8]}, which differs in "
        f"{', '.join(varying)}: they hold here only if that makes no difference"
    ]

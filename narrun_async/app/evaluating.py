"""`narrun metrics`: what the answers of an experiment are worth. Reads the database, and imports what computes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from narrun_async.app.databases import reading
from narrun_async.app.extras import has_analysis, require_analysis
from narrun_async.app.showing import find_shown, is_simulated
from narrun_async.errors import UsageError
from narrun_async.metrics.resampling import DEFAULT_RESAMPLES, DEFAULT_SEED
from narrun_async.metrics.sampling import Stratifier
from narrun_async.models import CohortRow, Experiment, ReviewId, ReviewState
from narrun_async.operations.comparing import OF_REPETITIONS, comparable_settings, varying_settings
from narrun_async.operations.reviewing import WeightedLabel, weighted_labels
from narrun_async.ports import ResultStore, ReviewStore
from narrun_async.reporting.evaluation_lines import compact_lines, evaluation_json, evaluation_lines
from narrun_async.stores import SqliteStore

if TYPE_CHECKING:
    from narrun_async.analysis.cohort import LabelSet, Units
    from narrun_async.analysis.evaluation import Evaluating
    from narrun_async.analysis.evaluation_tree import EvaluationReport, Validity
    from narrun_async.analysis.levels import FindValidity

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
    #: whose final labels are meant; None: the manual flags of the file
    review: ReviewId | None = None
    #: measures of another experiment that rest on fewer people are not taken; None: all are
    suppress_below: int | None = None


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
    async with reading(database) as store:
        experiment = await find_shown(store, request.wanted)
        rows, evaluating = await load_evaluation(store, experiment, request)
    return evaluating.report(rows)


async def load_evaluation(
    store: SqliteStore, experiment: Experiment, request: EvaluationRequest
) -> tuple[Sequence[CohortRow], Evaluating]:
    """The cohort of an experiment, and how its answers are to be judged.

    :raises UsageError: what the request names is not there, or tells nothing
    """
    from narrun_async.analysis.cohort import manual_flags
    from narrun_async.analysis.evaluation import Evaluating
    from narrun_async.analysis.evaluation_tree import Subject
    from narrun_async.analysis.levels import own_validity
    from narrun_async.analysis.resampling import Bootstrap

    rows = await load_cohort_rows(store, experiment)
    find_validity: FindValidity = own_validity
    remarks: Sequence[str] = ()
    if request.validated_by is not None:
        other = await find_shown(store, request.validated_by)
        if other.experiment_id == experiment.experiment_id and request.review is None:
            raise UsageError(
                "--validated-by names the experiment itself",
                advice="leave it out: its own labels are taken by themselves, and not for those of others",
            )
        find_validity = _validity_of_another(other, await load_cohort_rows(store, other), request.suppress_below)
        remarks = _differences(experiment, other)
    elif request.sensitivity is not None and request.specificity is not None:
        find_validity = _given_validity(request.sensitivity, request.specificity, request.measured_on_incidents)
        remarks = [_given_words(request.measured_on_incidents)]
    labels = manual_flags(rows)
    if request.review is not None:
        labels, of_review = await _review_labels(store, request.review, experiment, rows, request.suppress_below)
        remarks = [*remarks, *of_review]
    if not experiment.cohort.last_narrative_id:
        remarks = [*remarks, "the predecessor recorded no cohort: only narratives that have a row are counted"]
    evaluating = Evaluating(
        subject=Subject(
            experiment_id=experiment.experiment_id, name=experiment.name, is_simulated=is_simulated(experiment)
        ),
        bootstrap=Bootstrap(n_resamples=request.n_resamples, seed=request.seed),
        labels=labels,
        find_validity=find_validity,
        remarks=remarks,
    )
    return rows, evaluating


async def _review_labels(
    store: ReviewStore,
    review_id: ReviewId,
    experiment: Experiment,
    rows: Sequence[CohortRow],
    suppress_below: int | None,
) -> tuple[LabelSet, Sequence[str]]:
    """The final labels of a review with their weights, and what a reader should know of them.

    :raises UsageError: there is no such review, or nothing in it is final
    """
    from narrun_async.analysis.cohort import Label, LabelSet

    state = await store.load_review(review_id)
    weighted = weighted_labels(state)
    if not weighted:
        raise UsageError(f"review {review_id} has no final label yet", advice=f"`narrun review show {review_id}`")
    keys = {
        one.item_key: (one.incident_id, one.narrative_type) for one in await store.load_review_narratives(review_id)
    }
    labels = LabelSet(
        name=f"review {review_id}: {len(weighted):,} final labels, weighted by their chance to be drawn",
        narratives={keys[key]: Label(is_positive=one.is_positive, weight=one.weight) for key, one in weighted.items()},
        incidents={},
        is_drawn_by_answer=_is_drawn_by_answers_of(state, experiment),
    )
    answered = {(row.incident_id, row.narrative_type) for row in rows if row.detected is not None}
    n_unanswered = len(labels.narratives.keys() - answered)
    return labels, [
        *_remarks_on(state, weighted, suppress_below or 0),
        *_remarks_on_origin(state, experiment, n_answered=len(answered), n_unanswered=n_unanswered),
    ]


def _remarks_on(state: ReviewState, weighted: Mapping[str, WeightedLabel], suppress_below: int) -> list[str]:
    number = state.review.review_id
    remarks = [f"review {number} labels single narratives, so nothing is said of incidents"]
    if missing := len(state.items) - len(weighted):
        remarks.append(
            f"{missing:,} of its {len(state.items):,} narratives have no final label; those of the same stratum that"
            " have one stand for them"
        )
    sizes = {item.stratum: item.stratum_size for item in state.items}
    seen = {item.stratum for item in state.items if item.item_key in weighted}
    if unseen := sum(size for stratum, size in sizes.items() if stratum not in seen):
        how_many = "a few" if unseen < suppress_below else f"{unseen:,}"
        remarks.append(f"strata of {how_many} narratives have no final label at all, and are left out")
    return remarks


def _is_drawn_by_answers_of(state: ReviewState, experiment: Experiment) -> bool:
    is_by_answer = Stratifier.PREDICTED in state.review.strata.split(",")
    return is_by_answer and state.review.experiment_id == experiment.experiment_id


def _remarks_on_origin(
    state: ReviewState, experiment: Experiment, *, n_answered: int, n_unanswered: int
) -> Iterator[str]:
    """Where the labels do not stand for the answers that are judged by them.

    :param n_unanswered: final labels of narratives that have no answer here
    """
    review = state.review
    if review.experiment_id != experiment.experiment_id:
        origin = review.experiment_id[:8]
        yield f"review {review.review_id} was drawn by the answers of experiment {origin}, not of this one"
    if n_answered > review.n_population:
        yield (
            f"review {review.review_id} was drawn when {review.n_population:,} narratives had an answer, and its labels"
            f" stand for those; {n_answered:,} have one here, and the others may be of another kind"
        )
    if n_unanswered:
        yield f"{n_unanswered:,} of its final labels are of narratives that have no answer here, and count for nothing"


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
    bootstrap = Bootstrap(n_resamples=DEFAULT_RESAMPLES, seed=DEFAULT_SEED)
    levels = [assess_level(units, bootstrap, own_validity) for units in (table.narratives(), table.incidents())]
    return [
        *compact_lines([one for one in levels if one.counts.n_evaluated]),
        f"more: `narrun metrics {experiment.experiment_id[:8]}`",
    ]


def _validity_of_another(other: Experiment, rows: Sequence[CohortRow], suppress_below: int | None) -> FindValidity:
    """Level by level, from the labelled part of another experiment."""
    from narrun_async.analysis.cohort import CohortTable, manual_flags
    from narrun_async.analysis.disclosure import rests_on_few
    from narrun_async.analysis.levels import levels_of, validity_of

    source = f"the labelled part of experiment {other.experiment_id[:8]} ({other.name})"
    table = CohortTable.build(rows, manual_flags(rows))
    known = {
        units.level: None if rests_on_few(units, suppress_below or 0) else validity_of(units, source=source)
        for units in levels_of(table)
    }
    if suppress_below is None and not any(known.values()):
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


def _given_words(on_incidents: bool) -> str:
    measured, others = ("incidents", "narratives") if on_incidents else ("narratives", "incidents")
    return (
        f"sensitivity and specificity were given as measured on {measured}"
        f"{'' if on_incidents else ' (--of-incidents says otherwise)'}: nothing of {others} is corrected with them"
    )


def _differences(experiment: Experiment, other: Experiment) -> list[str]:
    settings = [comparable_settings(experiment), comparable_settings(other)]
    varying = [key for key in varying_settings(settings) if key not in OF_REPETITIONS]
    if not varying:
        return []
    return [
        f"sensitivity and specificity come from experiment {other.experiment_id[:8]}, which differs in "
        f"{', '.join(varying)}: they hold here only if that makes no difference"
    ]

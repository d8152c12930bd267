"""`narrun report`: gathers what a report is written from, and writes it. Reads the database, changes nothing in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from narrun_async import __version__
from narrun_async.app.comparing import count_configurations
from narrun_async.app.databases import reading
from narrun_async.app.evaluating import EvaluationRequest, load_evaluation
from narrun_async.app.extras import require_analysis
from narrun_async.app.showing import find_shown, is_simulated
from narrun_async.clock import utc_now
from narrun_async.config import config_from_snapshot, settings_of_snapshot
from narrun_async.errors import ConfigurationError, StorageError
from narrun_async.logs import make_private_directory, replace_private_file, require_regular_file
from narrun_async.models import DataSource, Experiment, ReviewState
from narrun_async.operations.reviewing import ReaderPair, disputed_keys, final_labels, reviewer_pairs
from narrun_async.statuses import shown_status
from narrun_async.stores import SqliteStore, database_is_locked

if TYPE_CHECKING:
    from narrun_async.analysis.report_tree import IndicatorCount, ReportAnalysis
    from narrun_async.reporting.html.material import ReaderPairFacts, ReportMaterial, ReviewFacts

#: of the indicators that most narratives share
SHOWN_INDICATORS = 25
DEFAULT_DIRECTORY = Path("reports")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What the command line asks for."""

    evaluation: EvaluationRequest
    #: None: under the experiment's id, in `DEFAULT_DIRECTORY`
    target: Path | None
    #: with the indicators, which quote narratives
    with_text: bool


async def write_report(database: Path, request: ReportRequest) -> Path:
    """Write the report of an experiment, whole or not at all, readable by its owner only.

    :raises ConfigurationError: the extra `analysis` is not installed
    :raises UsageError: there is no such experiment, or the flags contradict each other
    :raises StorageError: the file cannot be written; one that was there before stays
    """
    require_analysis()
    if request.target is not None:
        with _writing_to(request.target):  # before a minute's work
            require_regular_file(request.target)
    material = await gather_material(database, request)
    from narrun_async.reporting.html.page import build_page
    from narrun_async.reporting.html.rendering import render_page

    target = request.target or DEFAULT_DIRECTORY / f"{material.experiment.experiment_id}.html"
    document = render_page(build_page(material))
    with _writing_to(target):
        if request.target is None:
            make_private_directory(target.parent)
        replace_private_file(target, document)
    return target


@contextmanager
def _writing_to(target: Path) -> Iterator[None]:
    """:raises StorageError: in place of an OSError"""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the report cannot be written: {error.strerror or type(error).__name__}",
            path=target,
            advice="name another file with --html; its directory must be there",
        ) from error


async def gather_material(database: Path, request: ReportRequest) -> ReportMaterial:
    """Everything that the report is written from."""
    from narrun_async.reporting.html.material import ReportMaterial

    in_use = database_is_locked(database)
    async with reading(database) as store:
        experiment = await find_shown(store, request.evaluation.wanted)
        experiment_id = experiment.experiment_id
        analysis = await _analyse(store, experiment, request.evaluation)
        prompt_tokens, completion_tokens = await store.sum_tokens(experiment_id)
        settings, approval_note = _settings(experiment)
        return ReportMaterial(
            experiment=experiment,
            status=shown_status(experiment.status, database_in_use=in_use),
            is_simulated=is_simulated(experiment),
            source=await _source_of(store, experiment),
            ingest=await store.load_ingest(experiment.cohort.data_checksum),
            screening=await store.load_screening(experiment.cohort.data_checksum),
            canaries=await store.count_canaries(experiment_id),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            n_batched_calls=sum((await store.count_recorded(experiment_id)).values()),
            analysis=analysis,
            settings=settings,
            system_prompt=_text(experiment, "system_prompt"),
            user_template=_text(experiment, "user_template"),
            approval_note=approval_note,
            runs=await store.list_runs(experiment_id),
            servings=await store.list_serving_uses(experiment_id),
            n_configurations=await count_configurations(store, [experiment]),
            reviews=await _reviews(store, experiment, request.evaluation),
            scrub=await store.load_latest_scrub(),
            indicators=await _indicators(store, experiment, request) if request.with_text else None,
            written_at=utc_now(),
            narrun_version=__version__,
        )


async def _analyse(store: SqliteStore, experiment: Experiment, request: EvaluationRequest) -> ReportAnalysis:
    from narrun_async.analysis.report import analyse_for_report

    rows, evaluating = await load_evaluation(store, experiment, request)
    calls = [call async for call in store.iter_calls(experiment.experiment_id)]
    return analyse_for_report(rows, calls, evaluating, suppress_below=request.suppress_below)


async def _source_of(store: SqliteStore, experiment: Experiment) -> DataSource | None:
    checksum = experiment.cohort.data_checksum
    return await store.find_source(checksums=[checksum]) if checksum else None


def _settings(experiment: Experiment) -> tuple[Mapping[str, str], str | None]:
    """By dotted key, and who approved that narratives leave; nothing where there is no snapshot that we understand."""
    if experiment.config_json is None:
        return {}, None
    try:
        privacy = config_from_snapshot(experiment.config_json).privacy
        return settings_of_snapshot(experiment.config_json), privacy.approval_note
    except ConfigurationError:
        return {}, None


def _text(experiment: Experiment, column: str) -> str | None:
    value = experiment.columns.get(column)
    return value if isinstance(value, str) and value else None


async def _indicators(store: SqliteStore, experiment: Experiment, request: ReportRequest) -> Sequence[IndicatorCount]:
    from narrun_async.analysis.breakdowns import rank_indicators

    answers = [one async for one in store.iter_indicators(experiment.experiment_id)]
    return rank_indicators(answers, at_most=SHOWN_INDICATORS, suppress_below=request.evaluation.suppress_below or 0)


# --- human review ----------------------------------------------------------------------------------------------------


async def _reviews(store: SqliteStore, experiment: Experiment, request: EvaluationRequest) -> Sequence[ReviewFacts]:
    """The samples that were drawn from the experiment, and the one whose labels are used."""
    chosen = [
        one.review_id
        for one in await store.list_reviews()
        if one.experiment_id == experiment.experiment_id or one.review_id == request.review
    ]
    return [_review_facts(await store.load_review(one), experiment, request) for one in chosen]


def _review_facts(state: ReviewState, experiment: Experiment, request: EvaluationRequest) -> ReviewFacts:
    from narrun_async.reporting.html.material import ReviewFacts

    review, finals = state.review, final_labels(state)
    numbers = {workbook.reader: number for number, workbook in enumerate(state.workbooks, start=1)}
    pairs, below = reviewer_pairs(state), request.suppress_below or 0
    hides_agreement = any(min(_cells(pair)) < below for pair in pairs)
    return ReviewFacts(
        review_id=review.review_id,
        drawn_at=review.drawn_at,
        seed=review.seed,
        strata=review.strata,
        allocation=review.allocation,
        n_population=review.n_population,
        n_drawn=review.n_drawn,
        n_final=sum(final.is_positive is not None for final in finals),
        n_adjudicated=sum(final.is_adjudicated for final in finals),
        n_disputed=len(disputed_keys(state)),
        n_readers=len(state.workbooks),
        n_blinded=sum(workbook.is_blinded for workbook in state.workbooks),
        pairs=() if hides_agreement else [_pair_facts(pair, numbers) for pair in pairs],
        hides_agreement=hides_agreement,
        is_drawn_elsewhere=review.experiment_id != experiment.experiment_id,
        is_used=review.review_id == request.review,
    )


def _cells(pair: ReaderPair) -> Sequence[int]:
    return pair.both_yes, pair.first_only, pair.second_only, pair.both_no


def _pair_facts(pair: ReaderPair, numbers: Mapping[str, int]) -> ReaderPairFacts:
    from narrun_async.analysis.readers import assess_readers
    from narrun_async.reporting.html.material import ReaderPairFacts

    agreement = assess_readers(
        both_yes=pair.both_yes, first_only=pair.first_only, second_only=pair.second_only, both_no=pair.both_no
    )
    return ReaderPairFacts(
        first=numbers[pair.first],
        second=numbers[pair.second],
        n=pair.n,
        n_agreed=pair.both_yes + pair.both_no,
        n_undecided=pair.n_undecided,
        kappa=agreement.kappa,
    )

"""Takes up an experiment of the predecessor: under its own id, with what its columns say, over a cohort frozen now.

Planning it only reads, so that a dry run shows what would become of it; `adopt` writes it, all in one transaction.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Protocol

from narrun_async import __version__
from narrun_async.clock import parse_local, utc_now
from narrun_async.config import (
    ExperimentConfig,
    OperationalSettings,
    config_from_columns,
    notices,
    snapshot_json,
    snapshot_sha256,
)
from narrun_async.errors import BadInputError
from narrun_async.finalizer import derived_columns
from narrun_async.logs import can_hold_files
from narrun_async.metrics import ConfusionCounts, compute_metrics
from narrun_async.models import (
    AdoptionRecord,
    Cohort,
    DataSource,
    Experiment,
    ExperimentStatus,
    LegacySurvey,
    PastRun,
    ResultCounts,
)
from narrun_async.operations.repairing import refuse_strays
from narrun_async.ports import ExperimentStore, LegacyStore, SourceStore
from narrun_async.reporting.summary import ExperimentSummary

#: data sources that an error names
LISTED_SOURCES = 10


class AdoptingStore(SourceStore, ExperimentStore, LegacyStore, Protocol):
    """What taking up an experiment needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionRequest:
    """What a person says when an experiment is taken up, for what the predecessor did not store."""

    #: the configuration that was named, and its file
    given: ExperimentConfig | None
    config_file: Path | None
    operational: OperationalSettings
    #: the cohort is the first so many narratives
    max_narratives: int | None
    #: an address for an experiment whose own cannot be stored
    api_url: str | None
    #: where log directories are made, for an experiment whose own cannot be used
    log_root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """An experiment of the predecessor as it is going to be, and what has to be written for that."""

    experiment: Experiment
    config: ExperimentConfig
    counts: ResultCounts
    record: AdoptionRecord
    #: one sentence each
    notices: Sequence[str]


def is_legacy(experiment: Experiment) -> bool:
    """Whether the predecessor made it, and nobody has taken it up."""
    return experiment.config_json is None


async def plan_adoption(store: AdoptingStore, experiment: Experiment, request: AdoptionRequest) -> Adoption:
    """Work out what the experiment is. Only reads.

    The cohort is the whole data source; of an experiment that the predecessor completed, it ends at the last result, so
    that a pilot that was finished does not grow.

    :raises BadInputError: its narratives are not certain, or its results do not fit into the cohort
    :raises ConfigurationError: a column that is needed is empty, or holds what cannot be asked or stored
    """
    await refuse_strays(store, experiment.experiment_id)
    source = _choose_source(experiment, request.given, await store.list_sources())
    survey = await store.survey_results(experiment.experiment_id, source.checksum)
    n_wanted = _cohort_size(experiment, source, survey, request.max_narratives)
    cohort = await store.load_cohort(source.checksum, max_narratives=n_wanted)
    if not cohort.n_narratives:
        raise BadInputError(
            f"experiment {experiment.experiment_id} has no result of a narrative of {source.path}, and nothing to retry"
        )
    config = config_from_columns(
        experiment.columns,
        data_file=source.path,
        max_narratives=None if cohort.n_narratives == source.n_narratives else cohort.n_narratives,
        api_url=request.api_url,
        given=request.given,
        operational=request.operational,
    )
    log_dir = _log_dir(experiment, await store.list_experiments(), request.log_root)
    counts = ResultCounts(n_total=cohort.n_narratives, n_success=survey.n_success, n_errors=survey.n_errors)
    past = _past_run(experiment, survey, counts, config)
    columns = {
        **derived_columns(_summary(survey, counts), runtime_s=past.runtime_s),
        "status": _status(experiment, counts).value,
        "n_narratives_total": cohort.n_narratives,
        "log_dir": str(log_dir),
        "config_json": snapshot_json(config),
        "config_sha256": snapshot_sha256(config),
        "config_file": str(request.config_file.absolute()) if request.config_file else None,
        "cohort_last_narrative_id": cohort.last_narrative_id,
        "data_checksum": cohort.data_checksum,
        "narrun_version": __version__,
        "python_version": platform.python_version(),
    }
    return Adoption(
        experiment=_adopted(experiment, cohort, columns),
        config=config,
        counts=counts,
        record=AdoptionRecord(experiment_id=experiment.experiment_id, cohort=cohort, columns=columns, past=past),
        notices=[*_notices(experiment, source, cohort, survey, config, log_dir), *notices(config)],
    )


async def adopt(store: LegacyStore, adoption: Adoption) -> None:
    """Write it. Afterwards the experiment is one of ours, and what it was can be read in `legacy_changes`."""
    await store.adopt_experiment(adoption.record)


# --- the cohort ------------------------------------------------------------------------------------------------------


def _choose_source(experiment: Experiment, given: ExperimentConfig | None, sources: Sequence[DataSource]) -> DataSource:
    """The source that the experiment names; else one with the same file name; else the only one there is.

    :raises BadInputError: it could be one of several
    """
    recorded = experiment.columns.get("data_file")
    names = [name for name in (recorded, given.data.file if given else None) if isinstance(name, str) and name.strip()]
    for name in names:
        for found in (
            [one for one in sources if one.path == name],
            [one for one in sources if _file_name(one.path) == _file_name(name)],
        ):
            if len(found) == 1:
                return found[0]
    if len(sources) == 1:
        return sources[0]
    listed = ", ".join(f"{one.path or '(no name)'} ({one.n_narratives:,})" for one in sources[:LISTED_SOURCES])
    raise BadInputError(
        f"experiment {experiment.experiment_id} says that its narratives came from {recorded or 'no file'}, and the"
        f" database holds {listed or 'no narratives'}",
        advice="name a configuration with --config whose `data.file` is the right one; nothing was changed",
    )


def _file_name(path: str) -> str:
    """The last part of a path of any system."""
    return PureWindowsPath(path).name


def _cohort_size(experiment: Experiment, source: DataSource, survey: LegacySurvey, max_narratives: int | None) -> int:
    """How many narratives, from the first on.

    :raises BadInputError: results lie beyond that
    """
    if max_narratives is not None and max_narratives < survey.last_rank:
        raise BadInputError(
            f"experiment {experiment.experiment_id} has results beyond the first {max_narratives:,} narratives of"
            f" {source.path}",
            advice=f"the smallest --max-narratives that holds them all is {survey.last_rank}; nothing was changed",
        )
    most = survey.last_rank if experiment.status is ExperimentStatus.COMPLETED else source.n_narratives
    return most if max_narratives is None else min(most, max_narratives)


# --- what it is going to be ------------------------------------------------------------------------------------------


def _status(experiment: Experiment, counts: ResultCounts) -> ExperimentStatus:
    """As the predecessor left it, if that is true; nobody runs it."""
    if experiment.status is ExperimentStatus.FAILED:
        return ExperimentStatus.FAILED
    is_complete = experiment.status is ExperimentStatus.COMPLETED and not counts.n_missing
    return ExperimentStatus.COMPLETED if is_complete else ExperimentStatus.INTERRUPTED


def _adopted(experiment: Experiment, cohort: Cohort, columns: Mapping[str, object]) -> Experiment:
    return replace(
        experiment,
        status=ExperimentStatus(str(columns["status"])),
        cohort=cohort,
        config_json=str(columns["config_json"]),
        config_sha256=str(columns["config_sha256"]),
        log_dir=str(columns["log_dir"]),
        columns={**experiment.columns, **columns},
    )


def _summary(survey: LegacySurvey, counts: ResultCounts) -> ExperimentSummary:
    confusion = ConfusionCounts(
        tp=survey.n_true_positive,
        fp=survey.n_false_positive,
        fn=survey.n_false_negative,
        tn=survey.n_true_negative,
    )
    return ExperimentSummary(
        counts=counts,
        confusion=confusion,
        metrics=compute_metrics(confusion),
        n_detected=survey.n_detected,
        n_not_detected=survey.n_not_detected,
        errors={},
        prompt_tokens=0,
        completion_tokens=0,
    )


def _past_run(experiment: Experiment, survey: LegacySurvey, counts: ResultCounts, config: ExperimentConfig) -> PastRun:
    """What the predecessor did, as far as it wrote that down: its clock was local, its run time may be missing."""
    columns = experiment.columns
    first, last = survey.first_processed_at, survey.last_processed_at
    starts = (parse_local(text) for text in (columns.get("start_time"), columns.get("created_at"), first))
    started_at = next((moment for moment in starts if moment is not None), utc_now())
    ends = (parse_local(text) for text in (columns.get("end_time"), last, columns.get("last_progress_update")))
    ended_at = next((moment for moment in ends if moment is not None), None)
    recorded_s = columns.get("total_runtime_sec")
    runtime_s = recorded_s if isinstance(recorded_s, int | float) and recorded_s > 0 else survey.response_sec
    host = columns.get("hostname")
    return PastRun(
        host=host if isinstance(host, str) else None,
        # Its own, unless that holds what is not to be stored again.
        api_url=config.model.api_url if config.model.api_url == columns.get("api_url") else None,
        started_at=started_at,
        ended_at=None if ended_at is None else max(started_at, ended_at),
        runtime_s=max(0.0, float(runtime_s)),
        n_saved=counts.n_success + counts.n_errors,
        ended_why=f"the work of R, which left it as {columns.get('status') or 'nothing in particular'}",
    )


# --- what people should know -----------------------------------------------------------------------------------------


def _log_dir(experiment: Experiment, others: Sequence[Experiment], log_root: Path) -> Path:
    """The directory that the predecessor used, if it can be used here and is this experiment's alone."""
    own = (log_root / "experiments" / experiment.experiment_id).absolute()
    if not experiment.log_dir or not experiment.log_dir.strip():
        return own
    recorded = Path(experiment.log_dir).absolute()
    is_shared = any(
        Path(other.log_dir).absolute() == recorded
        for other in others
        if other.log_dir and other.experiment_id != experiment.experiment_id
    )
    is_of_another_system = bool(PureWindowsPath(experiment.log_dir).drive) or "\\" in experiment.log_dir
    return own if is_shared or is_of_another_system or not can_hold_files(recorded) else recorded


def _notices(
    experiment: Experiment,
    source: DataSource,
    cohort: Cohort,
    survey: LegacySurvey,
    config: ExperimentConfig,
    log_dir: Path,
) -> list[str]:
    is_whole = cohort.n_narratives == source.n_narratives
    size = (
        f"all {cohort.n_narratives:,}" if is_whole else f"the first {cohort.n_narratives:,} of {source.n_narratives:,}"
    )
    narrower = "; --max-narratives makes it smaller, and only now" if is_whole else ""
    left_as = experiment.columns.get("status") or "nothing in particular"
    found = [
        f"an experiment of R, which left it as {left_as}, is taken up; its cohort is {size} narratives of"
        f" {source.path}{narrower}"
    ]
    if survey.n_outside:
        found.append(
            f"{survey.n_outside:,} of its results belong to no narrative of that cohort; they are set aside, whole, in"
            " the table legacy_results"
        )
    url = config.model.api_url or ""
    if "${" in url:
        found.append(f"its address holds a variable, which each run fills in from its environment: {url}")
    if url != experiment.columns.get("api_url"):
        found.append("the address that R stored cannot be used; the one of --api-url is stored instead")
    if experiment.log_dir and Path(experiment.log_dir).absolute() != log_dir:
        found.append(
            f"the log directory that R used cannot be used here ({experiment.log_dir}); the logs go to {log_dir}"
        )
    return found

"""Works out what a run is going to do, before anything is sent: which experiment, which settings, which narratives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from narrun_async.app.databases import checked_database, source_file
from narrun_async.app.restored import compare_with_journal, refuse_older_copy
from narrun_async.config import (
    Difference,
    ExperimentConfig,
    OperationalSettings,
    config_from_snapshot,
    notices,
    parse_config,
)
from narrun_async.config.complaints import complaint_about
from narrun_async.errors import BadInputError, NarrunError, UnknownExperimentError, UsageError
from narrun_async.models import (
    ROWS_IDENTITY,
    Experiment,
    IngestReport,
    ResultCounts,
    RunMode,
    Selection,
    UncalledCounts,
)
from narrun_async.operations.adopting import Adoption, AdoptionRequest, is_legacy, plan_adoption
from narrun_async.operations.experiments import (
    LATEST,
    create_experiment,
    find_experiment,
    is_incomplete,
    list_drift,
    list_incomplete,
    require_snapshot,
)
from narrun_async.operations.ingesting import ingest
from narrun_async.operations.screening import ensure_screened, refuse_other_rules, rules_differ
from narrun_async.operations.scrubbing import refuse_scrubbed
from narrun_async.ports import LegacyStore, Store, TextPresence
from narrun_async.sources import file_checksum, file_md5
from narrun_async.sources.yaml_file import load_yaml, text_reader

DEFAULT_DATABASE = Path("data/experiments.db")
SMOKE_CONFIG = Path("configs/exp_101_smoke.yaml")
#: the one setting of `run` that decides what an experiment is
_MAX_NARRATIVES = "run.max_narratives"


class PlanningStore(Store, TextPresence, LegacyStore, Protocol):
    """What planning needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a person asked for, by flags and environment; None where they said nothing."""

    config_file: Path | None = None
    #: the file comes from the smoke default, so a resume must not compare with it
    config_is_default: bool = False
    database: Path | None = None
    resume: bool | None = None
    experiment_id: str | None = None
    retry_errors_only: bool | None = None
    #: retry error rows beside working on what is missing
    retry_errors: bool = False
    api_url: str | None = None
    #: copy the database before the resumed run changes it
    backup: bool = False
    #: dotted key of `run` → value, such as `run.concurrency`
    overrides: Mapping[str, object] = field(default_factory=dict)
    log_root: Path = Path("logs")
    export_root: Path = Path("exports")
    #: go on although the database holds less than its journal says
    accept_restored: bool = False
    #: set older results of the same narrative aside where the predecessor left several, instead of refusing the file
    dedupe: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What is going to happen."""

    experiment: Experiment
    config: ExperimentConfig
    mode: RunMode
    selection: Selection
    counts: ResultCounts
    #: rows to be made or made anew, with a call or without
    n_remaining: int
    #: of those, what takes no call
    uncalled: UncalledCounts
    #: None on a resume, which reads no file
    ingest_report: IngestReport | None = None
    #: what the YAML of today says differently; the stored configuration stays in force
    drift: Sequence[Difference] = ()
    notices: Sequence[str] = ()
    #: the database holds less than its journal says, and that was asked for
    accepts_restored: bool = False
    #: an experiment of the predecessor that has to be taken up first; `experiment` is what it is going to be
    adoption: Adoption | None = None

    @property
    def n_to_ask(self) -> int:
        return self.n_remaining - self.uncalled.n_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToDo:
    """Everything that was asked for is there, and the experiment says so."""

    experiment: Experiment
    mode: RunMode
    selection: Selection
    counts: ResultCounts
    #: as in a plan
    drift: Sequence[Difference] = ()
    notices: Sequence[str] = ()


def load_config(path: Path, environment: Mapping[str, str], overrides: Mapping[str, object]) -> ExperimentConfig:
    """:raises ConfigurationError: the file is missing or wrong"""
    return parse_config(
        load_yaml(path),
        read_text=text_reader(path.parent),
        origin=str(path),
        environment=environment,
        overrides=overrides,
    )


def chosen_database(request: RunRequest, config: ExperimentConfig | None, environment: Mapping[str, str]) -> Path:
    """Flag > EXPERIMENTS_DB > YAML > default.

    :raises StorageError: that cannot be a database
    """
    if request.database is not None:
        return checked_database(request.database)
    if environment.get("EXPERIMENTS_DB"):
        return checked_database(Path(environment["EXPERIMENTS_DB"]))
    return checked_database(Path(config.operational.database) if config else DEFAULT_DATABASE)


def chosen_selection(request: RunRequest, operational: OperationalSettings, *, resume: bool) -> Selection:
    """:raises UsageError: error rows are to be retried, but of which experiment?"""
    only = operational.retry_errors_only if request.retry_errors_only is None else request.retry_errors_only
    if only and request.retry_errors:
        raise UsageError("--retry-errors-only and --retry-errors contradict each other")
    if (only or request.retry_errors) and not resume:
        raise UsageError(
            "retrying error rows needs an experiment that has some",
            advice="add RESUME=1 EXPERIMENT_ID=<id> (or --resume --experiment-id <id>)",
        )
    if only:
        return Selection.ERRORS
    return Selection.MISSING_AND_ERRORS if request.retry_errors else Selection.MISSING


async def plan_new(
    store: PlanningStore, request: RunRequest, config: ExperimentConfig, warnings: Sequence[str]
) -> RunPlan:
    """Take in the data source and create the experiment.

    :raises NarrunError: as `take_in_source`
    """
    report, doubts = await take_in_source(store, config)
    experiment = await create_experiment(
        store,
        config,
        report.source,
        screening=report.screening,
        config_file=request.config_file,
        log_root=request.log_root,
    )
    return RunPlan(
        experiment=experiment,
        config=config,
        mode=RunMode.NEW,
        selection=Selection.MISSING,
        counts=await store.count_results(experiment),
        n_remaining=experiment.cohort.n_narratives,
        uncalled=await store.count_uncalled(experiment, Selection.MISSING),
        ingest_report=report,
        notices=(*warnings, *doubts),
    )


async def take_in_source(store: PlanningStore, config: ExperimentConfig) -> tuple[IngestReport, Sequence[str]]:
    """The narratives of a configuration: ingested if they are new, screened if that was never done and matters.

    :returns: what was found, and what people should know of it
    :raises ConfigurationError: placeholders are to be skipped, and are told by other rules than those that were named
    :raises BadInputError: the file cannot be taken, or its texts were scrubbed from the database
    """
    file = source_file(config.data)
    report = await ingest(store, file)
    if config.run.skip_placeholders or config.run.ask_identical_once:
        report = await ensure_screened(store, file, report)
    doubts: Sequence[str] = ()
    if config.run.skip_placeholders:
        refuse_other_rules(file, report.source, report.screening)
    elif differing := rules_differ(file, report.source, report.screening):
        doubts = (differing,)
    await refuse_scrubbed(
        store, await store.load_cohort(report.source.checksum, max_narratives=config.run.max_narratives)
    )
    return report, doubts


async def plan_resume(
    store: PlanningStore,
    database: Path,
    request: RunRequest,
    environment: Mapping[str, str],
    given: ExperimentConfig | None,
) -> RunPlan | NothingToDo:
    """Take up an experiment with its stored configuration, whatever the YAML says today. Only reads.

    :param given: the configuration file that was named, if one was
    :raises UsageError: no id, or one that leads nowhere
    :raises BadInputError: something remains, and its texts were scrubbed; or see `plan_adoption`
    :raises StorageError: the database holds less of the experiment than was committed to it
    """
    wanted = await _find_wanted(store, database, request, environment, given)
    if is_legacy(wanted.experiment) and wanted.has_nothing_left:
        return wanted.nothing_to_do()
    plan = await _take_up(store, database, request, environment, wanted)
    if plan.n_remaining or is_incomplete(plan.experiment):
        return plan
    return wanted.nothing_to_do(drift=plan.drift, notices=plan.notices)


async def take_up(
    store: PlanningStore,
    database: Path,
    request: RunRequest,
    environment: Mapping[str, str],
    given: ExperimentConfig | None,
) -> RunPlan:
    """`plan_resume` for whoever needs the plan of an experiment, be it complete or not.

    :raises NarrunError: as `plan_resume`
    """
    wanted = await _find_wanted(store, database, request, environment, given)
    return await _take_up(store, database, request, environment, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """An experiment that is to go on, and what people said of that."""

    experiment: Experiment
    counts: ResultCounts
    selection: Selection
    operational: OperationalSettings
    #: the configuration file that was named; and what is compared with: that, else the recorded one as it is today
    given: ExperimentConfig | None
    current: ExperimentConfig | None
    notices: Sequence[str]

    @property
    def mode(self) -> RunMode:
        return RunMode.RESUME if self.selection is Selection.MISSING else RunMode.RETRY_ERRORS

    @property
    def has_nothing_left(self) -> bool:
        """By what the experiment itself says of its state."""
        has_errors = self.selection is not Selection.MISSING and self.counts.n_errors > 0
        return not is_incomplete(self.experiment) and not has_errors

    def nothing_to_do(self, *, drift: Sequence[Difference] = (), notices: Sequence[str] = ()) -> NothingToDo:
        return NothingToDo(
            experiment=self.experiment,
            mode=self.mode,
            selection=self.selection,
            counts=self.counts,
            drift=drift,
            notices=notices,
        )


async def _find_wanted(
    store: PlanningStore,
    database: Path,
    request: RunRequest,
    environment: Mapping[str, str],
    given: ExperimentConfig | None,
) -> _Wanted:
    experiment = await _find(store, database, request, given)
    current, warnings = given, list[str]()
    if current is None:
        current, warnings = _recorded_config(experiment, environment, request.overrides)
    operational = _operational(current, request.overrides)
    return _Wanted(
        experiment=experiment,
        counts=await store.count_results(experiment),
        selection=chosen_selection(request, operational, resume=True),
        operational=operational,
        given=given,
        current=current,
        notices=warnings,
    )


async def _find(
    store: PlanningStore, database: Path, request: RunRequest, given: ExperimentConfig | None
) -> Experiment:
    wanted = request.experiment_id or (given.operational.experiment_id if given else None)
    if wanted is None:
        raise UsageError("RESUME needs an experiment id", advice=await _advise_ids(store))
    # `latest` beside a configuration means the latest of that name; an id needs no help
    name = given.experiment.name if given is not None and wanted == LATEST else None
    try:
        return await find_experiment(store, wanted, name=name, selection=_wanted_of_latest(request, given))
    except UnknownExperimentError as error:
        refuse_older_copy(error, database, request.log_root)
        raise


def _wanted_of_latest(request: RunRequest, given: ExperimentConfig | None) -> Selection:
    """As `chosen_selection`, before it is known which experiment's settings count."""
    if request.retry_errors_only or (
        request.retry_errors_only is None and given and given.operational.retry_errors_only
    ):
        return Selection.ERRORS
    return Selection.MISSING_AND_ERRORS if request.retry_errors else Selection.MISSING


async def _take_up(
    store: PlanningStore, database: Path, request: RunRequest, environment: Mapping[str, str], wanted: _Wanted
) -> RunPlan:
    experiment, selection, current = wanted.experiment, wanted.selection, wanted.current
    told = list(wanted.notices)
    adoption = None
    if is_legacy(experiment):
        adoption = await plan_adoption(store, experiment, _adoption_request(request, wanted.given, wanted.operational))
        experiment, config, counts = adoption.experiment, adoption.config, adoption.counts
        n_remaining, uncalled = counts.remaining(selection), UncalledCounts()
        told += adoption.notices
    else:
        if _MAX_NARRATIVES in request.overrides:
            raise UsageError("--max-narratives cannot change an experiment: its cohort was frozen when it was created")
        config, counts = (
            config_from_snapshot(require_snapshot(experiment), operational=wanted.operational),
            wanted.counts,
        )
        n_remaining = await store.count_remaining(experiment, selection)
        uncalled = await store.count_uncalled(experiment, selection)
    runs = await store.list_runs(experiment.experiment_id)
    accepts_restored, doubts = compare_with_journal(experiment, counts, runs, database, accept=request.accept_restored)
    if n_remaining > uncalled.n_rows:
        await refuse_scrubbed(store, experiment.cohort)
    if _has_changed(Path(config.data.file), experiment.cohort.data_checksum):
        told.append(f"{config.data.file} has changed since it was loaded; the texts in the database are used")
    return RunPlan(
        experiment=experiment,
        config=config,
        mode=wanted.mode,
        selection=selection,
        counts=counts,
        n_remaining=n_remaining,
        uncalled=uncalled,
        drift=list_drift(experiment, current),
        notices=(*told, *doubts, *(notices(current, environment) if current else ())),
        accepts_restored=accepts_restored,
        adoption=adoption,
    )


def _adoption_request(
    request: RunRequest, given: ExperimentConfig | None, operational: OperationalSettings
) -> AdoptionRequest:
    max_narratives = request.overrides.get(_MAX_NARRATIVES)
    return AdoptionRequest(
        given=given,
        config_file=request.config_file if given is not None else None,
        operational=operational,
        max_narratives=max_narratives if isinstance(max_narratives, int) else None,
        api_url=request.api_url,
        log_root=request.log_root,
    )


async def _advise_ids(store: Store) -> str:
    listed = [f"{one.experiment_id} ({one.name}, {one.status})" for one in await list_incomplete(store)]
    if not listed:
        return "no experiment in this database is incomplete"
    return "set EXPERIMENT_ID to one of: " + "; ".join(listed)


def _has_changed(file: Path, checksum: str) -> bool:
    """Whether another file stands where a cohort came from. One that is gone or cannot be read is not needed."""
    if checksum.startswith(ROWS_IDENTITY):
        return False  # the predecessor kept nothing to compare with
    try:
        return checksum not in (file_checksum(file), file_md5(file))
    except BadInputError:
        return False


def _recorded_config(
    experiment: Experiment, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[ExperimentConfig | None, list[str]]:
    """The file that the experiment was created from, as it is today; only to compare, so it may be gone or broken."""
    recorded = experiment.columns.get("config_file")
    if not isinstance(recorded, str) or not os.path.isfile(recorded):  # noqa: PTH113 - false where it may not be looked at
        return None, []
    try:
        return load_config(Path(recorded), environment, overrides), []
    except NarrunError as error:
        return None, [f"the configuration file has changed and cannot be compared: {error}"]


def _operational(current: ExperimentConfig | None, overrides: Mapping[str, object]) -> OperationalSettings:
    """Settings that may change from run to run: flags over the YAML of today over defaults."""
    if current is not None:
        return current.operational  # the overrides went into it when it was parsed
    flags = {key.removeprefix("run."): value for key, value in overrides.items() if key != _MAX_NARRATIVES}
    try:
        return OperationalSettings.model_validate(flags)
    except ValidationError as error:
        raise UsageError(complaint_about(error, known=OperationalSettings, origin="flags")) from None

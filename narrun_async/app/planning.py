"""Works out what a run is going to do, before anything is sent: which experiment, which settings, which narratives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from narrun_async.app.databases import checked_database, source_file
from narrun_async.config import (
    Difference,
    ExperimentConfig,
    OperationalSettings,
    config_from_snapshot,
    notices,
    parse_config,
)
from narrun_async.errors import BadInputError, NarrunError, StorageError, UnknownExperimentError, UsageError
from narrun_async.models import Experiment, IngestReport, ResultCounts, RunMode, Selection, UncalledCounts
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
from narrun_async.ports import Store, TextPresence
from narrun_async.progress.commits import FILE_NAME as JOURNAL
from narrun_async.progress.commits import read_journal, require_all_committed
from narrun_async.sources import file_checksum, file_md5
from narrun_async.sources.yaml_file import load_yaml, text_reader

DEFAULT_DATABASE = Path("data/experiments.db")
SMOKE_CONFIG = Path("configs/exp_101_smoke.yaml")


class PlanningStore(Store, TextPresence, Protocol):
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

    @property
    def n_to_ask(self) -> int:
        return self.n_remaining - self.uncalled.n_rows


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
) -> RunPlan:
    """Take up an experiment with its stored configuration, whatever the YAML says today.

    :param given: the configuration file that was named, if one was
    :raises UsageError: no id, or one that leads nowhere
    :raises BadInputError: something remains, and its texts were scrubbed
    :raises StorageError: the database holds less of the experiment than was committed to it
    """
    if "run.max_narratives" in request.overrides:
        raise UsageError("--max-narratives cannot change an experiment: its cohort was frozen when it was created")
    wanted = request.experiment_id or (given.operational.experiment_id if given else None)
    if wanted is None:
        raise UsageError("RESUME needs an experiment id", advice=await _advise_ids(store))
    # `latest` beside a configuration means the latest of that name; an id needs no help
    name = given.experiment.name if given is not None and wanted == LATEST else None
    try:
        experiment = await find_experiment(store, wanted, name=name)
    except UnknownExperimentError as error:
        _refuse_older_copy(error, database, request.log_root)
        raise
    current = given
    warnings: Sequence[str] = ()
    if current is None:
        current, warnings = _recorded_config(experiment, environment, request.overrides)
    operational = _operational(current, request.overrides)
    selection = chosen_selection(request, operational, resume=True)
    config = config_from_snapshot(require_snapshot(experiment), operational=operational)
    counts = await store.count_results(experiment)
    accepts_restored, doubts = _compare_with_journal(experiment, counts, database, accept=request.accept_restored)
    n_remaining = await store.count_remaining(experiment, selection)
    uncalled = await store.count_uncalled(experiment, selection)
    if n_remaining > uncalled.n_rows:
        await refuse_scrubbed(store, experiment.cohort)
    if _has_changed(Path(config.data.file), experiment.cohort.data_checksum):
        warnings = (
            *warnings,
            f"{config.data.file} has changed since it was loaded; the texts in the database are used",
        )
    return RunPlan(
        experiment=experiment,
        config=config,
        mode=RunMode.RESUME if selection is Selection.MISSING else RunMode.RETRY_ERRORS,
        selection=selection,
        counts=counts,
        n_remaining=n_remaining,
        uncalled=uncalled,
        drift=list_drift(experiment, current),
        notices=(*warnings, *doubts, *(notices(current, environment) if current else ())),
        accepts_restored=accepts_restored,
    )


def _refuse_older_copy(error: UnknownExperimentError, database: Path, log_root: Path) -> None:
    """:raises StorageError: results of an experiment were committed that the database does not know any more"""
    if error.candidates:
        return
    for journal in sorted((log_root / "experiments").glob(f"{error.wanted}*/{JOURNAL}")):
        if _holds_something(journal):
            raise StorageError(
                f"does not hold experiment {journal.parent.name}, and {journal} knows of its results: its -wal file "
                "was removed, it is an older copy, or the experiment is in another database",
                path=database,
                advice="put the right file back, with its -wal beside it, or name the other one with --db",
            ) from error


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _compare_with_journal(
    experiment: Experiment, counts: ResultCounts, database: Path, *, accept: bool
) -> tuple[bool, Sequence[str]]:
    """Whether less is there than was committed and that is accepted, and what people should know.

    :raises StorageError: less is there than was committed
    """
    if experiment.log_dir is None:
        return False, ()
    path = Path(experiment.log_dir) / JOURNAL
    try:
        committed = read_journal(path)
    except OSError as error:
        committed, why = None, f"({error.strerror})"
    else:
        why = "and has no line that can be read"
    if committed is None:
        # An experiment that was killed before its first commit, or that the predecessor made, has none.
        if _holds_something(path) or (counts.n_rows and experiment.config_json is not None):
            return False, [f"{path} cannot be used {why}: results that are missing would not be noticed"]
        return False, ()
    if accept and committed.exceeds(counts):
        return True, [f"{database} is taken as it is; what is missing is asked for again"]
    require_all_committed(committed, counts, database=database, journal=path)
    return False, ()


async def _advise_ids(store: Store) -> str:
    listed = [f"{one.experiment_id} ({one.name}, {one.status})" for one in await list_incomplete(store)]
    if not listed:
        return "no experiment in this database is incomplete"
    return "set EXPERIMENT_ID to one of: " + "; ".join(listed)


def _has_changed(file: Path, checksum: str) -> bool:
    """Whether another file stands where a cohort came from. One that is gone or cannot be read is not needed."""
    try:
        return checksum not in (file_checksum(file), file_md5(file))
    except BadInputError:
        return False


def _recorded_config(
    experiment: Experiment, environment: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[ExperimentConfig | None, Sequence[str]]:
    """The file that the experiment was created from, as it is today; only to compare, so it may be gone or broken."""
    recorded = experiment.columns.get("config_file")
    if not isinstance(recorded, str) or not os.path.isfile(recorded):  # noqa: PTH113 - false where it may not be looked at
        return None, ()
    try:
        return load_config(Path(recorded), environment, overrides), ()
    except NarrunError as error:
        return None, [f"the configuration file has changed and cannot be compared: {error}"]


def _operational(current: ExperimentConfig | None, overrides: Mapping[str, object]) -> OperationalSettings:
    """Settings that may change from run to run: flags over the YAML of today over defaults."""
    if current is not None:
        return current.operational  # the overrides went into it when it was parsed
    return OperationalSettings.model_validate({key.removeprefix("run."): value for key, value in overrides.items()})


def is_nothing_to_do(plan: RunPlan) -> bool:
    """Everything that was asked for is there, and the experiment says so."""
    return plan.n_remaining == 0 and not is_incomplete(plan.experiment)

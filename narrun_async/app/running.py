"""`narrun run` and `narrun resume`: plan, banner, run, export, and how to go on."""

from __future__ import annotations

import gc
import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from narrun_async import __version__
from narrun_async.app.allowances import budget_limits, limit_settings, pace_words
from narrun_async.app.databases import reading, source_file, writing
from narrun_async.app.descriptors import calls_in_room, cramped_words, make_room_for_files, within_room
from narrun_async.app.endpoints import (
    Endpoint,
    call_spec,
    check_endpoint,
    open_endpoint,
    require_allowed_address,
)
from narrun_async.app.planning import (
    DEFAULT_DATABASE,
    NothingToDo,
    RunPlan,
    RunRequest,
    chosen_database,
    chosen_selection,
    load_config,
    plan_new,
    plan_resume,
)
from narrun_async.app.showing import is_simulated
from narrun_async.clock import utc_now
from narrun_async.config import ExperimentConfig, notices
from narrun_async.control import RunControl
from narrun_async.errors import ExitCode, NarrunError, UsageError
from narrun_async.limits import Budget
from narrun_async.logs import open_experiment_logs
from narrun_async.models import Experiment, ExperimentStatus, RunMode, RunStart, Selection
from narrun_async.operations.adopting import adopt
from narrun_async.operations.ingesting import find_known_source
from narrun_async.planner import CanaryPlan
from narrun_async.progress import Progress
from narrun_async.progress.display import show_progress
from narrun_async.reporting.banner import Banner, banner_lines
from narrun_async.reporting.exports import export_results
from narrun_async.reporting.ingest_lines import ingest_lines
from narrun_async.reporting.legacy_lines import migrated_lines
from narrun_async.reporting.summary import load_summary
from narrun_async.reporting.tables import summary_lines
from narrun_async.runner import Runner, RunResult, RunSettings
from narrun_async.stores import SqliteStore
from narrun_async.writer import BatchPolicy, storage_pauses

#: one line for a person
Tell = Callable[[str], None]


async def run_experiment(
    request: RunRequest, environment: Mapping[str, str], *, tell: Tell, say: Tell, interactive: bool
) -> ExitCode:
    """Create or take up an experiment and work on it until nothing remains or something stops the run.

    :param tell: lines for people (stderr)
    :param say: the results (stdout)
    :raises NarrunError: nothing was started; whatever stops a run that has started is told, and becomes the exit code
    """
    given, resume = _read_config(request, environment)
    if request.backup and not resume:
        raise UsageError("--backup copies a database before a resume, and this is a new experiment")
    n_files = make_room_for_files()
    if request.config_is_default and not resume:
        tell(f"no configuration was named; this is the simulated smoke run ({request.config_file})")
    database = chosen_database(request, given, environment)
    if resume and not database.exists():
        raise UsageError(f"{database}: there is no database here to resume from", advice="name it with --db")
    if given is not None and not resume:
        check_endpoint(given, environment, api_url=None)
    async with writing(database, purpose="run", dedupe=request.dedupe) as (store, lock):
        for line in migrated_lines(store.migrated):
            tell(line)
        plan: RunPlan | NothingToDo
        if resume:
            plan = await plan_resume(store, database, request, environment, given)
        else:
            assert given is not None
            plan = await plan_new(store, request, given, notices(given, environment))
        lock.note(f"{plan.mode.value} {plan.experiment.experiment_id}")
        tell_plan(plan, tell)
        if isinstance(plan, NothingToDo):
            await _tell_nothing_to_do(store, plan, tell, say)
            return ExitCode.COMPLETED
        if request.backup and not store.migrated.backup:
            tell(f"backup     {await store.back_up()}")
        api_url = request.api_url if resume else None
        async with open_endpoint(plan.config, environment, api_url=api_url) as endpoint:
            if plan.adoption is not None:
                await require_allowed_address(endpoint.url, allow_remote=plan.config.privacy.allow_remote)
                await adopt(store, plan.adoption)
            for line in banner_lines(_banner(plan, endpoint, database)):
                tell(line)
            most_calls = calls_in_room(n_files, is_simulated=endpoint.is_simulated)
            if words := cramped_words(limit_settings(plan.config.operational), most_calls):
                tell(f"NOTE: {words}")
            result = await _work(store, plan, endpoint, most_calls=most_calls, interactive=interactive)
        await _finish(store, plan, result, request, endpoint=endpoint, tell=tell, say=say)
        if result.verdict.status is not ExperimentStatus.COMPLETED:
            tell_how_to_resume(plan, database, tell)
        return result.verdict.exit_code


async def preview_run(request: RunRequest, environment: Mapping[str, str], *, tell: Tell) -> ExitCode:
    """`--dry-run`: what a run would work on. Reads only; nothing is written, nothing is sent.

    :raises NarrunError: as the run itself would
    """
    given, resume = _read_config(request, environment)
    database = chosen_database(request, given, environment)
    if resume:
        async with reading(database) as store:
            plan = await plan_resume(store, database, request, environment, given)
        tell_plan(plan, tell)
        counts = plan.counts
        tell(f"experiment {plan.experiment.experiment_id} ({plan.experiment.name}), {plan.selection.value}")
        tell(f"cohort     {counts.n_total} narratives, {counts.n_success} successes, {counts.n_errors} errors")
        if isinstance(plan, NothingToDo):
            tell("to do      nothing")
        else:
            tell(f"to do      {plan.n_remaining} narratives, {pace_words(plan.config.operational)}")
    else:
        assert given is not None
        n_narratives = await _count_narratives(database, given)
        limit = given.run.max_narratives
        tell(f"experiment a new one ({given.experiment.name}) in {database}")
        tell(f"to do      {min(n_narratives, limit or n_narratives)} of {n_narratives} narratives of {given.data.file}")
    tell("dry run: nothing was written, nothing was sent")
    return ExitCode.COMPLETED


async def _count_narratives(database: Path, given: ExperimentConfig) -> int:
    """From the database where it holds the file, else by reading the file, storing nothing."""
    file = source_file(given.data)
    if database.exists():
        async with reading(database) as store:
            known = await find_known_source(store, file)
        if known is not None:
            return known.n_narratives
    return len({(one.incident_id, one.narrative_type) for one in file.open().iter_narratives()})


def _read_config(request: RunRequest, environment: Mapping[str, str]) -> tuple[ExperimentConfig | None, bool]:
    """The configuration that was named, and whether this is a resume (flag > environment > YAML).

    :raises UsageError: a new experiment has no error rows that could be retried, and no id yet
    """
    if request.resume and (request.config_is_default or request.config_file is None):
        return None, True
    if request.config_file is None:
        return None, bool(request.resume)
    given = load_config(request.config_file, environment, request.overrides)
    resume = given.operational.resume if request.resume is None else request.resume
    if request.experiment_id is not None and request.resume is None and not resume:
        raise UsageError(
            "an experiment id is given, but not that it is to be resumed",
            advice="add RESUME=1 (or --resume); for a new experiment leave EXPERIMENT_ID unset, or say --no-resume",
        )
    if request.api_url is not None and not resume:
        # a new experiment is created with that URL; only a resumed one is overridden
        given = load_config(request.config_file, environment, {**request.overrides, "model.api_url": request.api_url})
    if not resume:
        chosen_selection(request, given.operational, resume=False)
    return given, resume


async def _work(
    store: SqliteStore, plan: RunPlan, endpoint: Endpoint, *, most_calls: int, interactive: bool
) -> RunResult:
    operational = plan.config.operational
    prompt_tokens, completion_tokens = await store.sum_tokens(plan.experiment.experiment_id)
    runner = Runner(
        store,
        endpoint.provider,
        plan.experiment,
        spec=call_spec(plan.config),
        settings=RunSettings(
            limits=within_room(limit_settings(operational), most_calls),
            max_passes=operational.max_passes,
            max_consecutive_errors=operational.max_consecutive_errors,
            page_size=operational.page_size,
            stops_on_model_change=operational.on_model_change == "stop",
            canaries=CanaryPlan(count=operational.canaries, every=operational.canary_every),
            most_calls=most_calls,
        ),
        budget=Budget(budget_limits(operational), prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
        batches=BatchPolicy(storage_pauses_s=storage_pauses(operational.max_storage_wait_s)),
        accepts_restored=plan.accepts_restored,
    )
    calm_garbage_collector()
    start = begin_run(plan, endpoint)
    log_dir = Path(plan.experiment.log_dir or "logs")
    with open_experiment_logs(log_dir, level=operational.log_level):
        return await runner.run(start, partial(_watch, plan.experiment.name, interactive))


def begin_run(plan: RunPlan, endpoint: Endpoint) -> RunStart:
    """The record of this process life."""
    return RunStart(
        experiment_id=plan.experiment.experiment_id,
        mode=plan.mode,
        selection=plan.selection,
        host=socket.gethostname(),
        pid=os.getpid(),
        narrun_version=__version__,
        concurrency=plan.config.operational.concurrency,
        api_url=endpoint.url,
        api_url_overridden=endpoint.is_overridden,
        started_at=utc_now(),
    )


def calm_garbage_collector() -> None:
    """What start-up made lives until the end, and a narrative leaves few cycles: look rarely, and not at the old.

    Of the 330 µs of a narrative at 128 in flight the collector took 34; this way it takes 9.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _watch(name: str, interactive: bool, progress: Progress, control: RunControl) -> None:
    await show_progress(
        progress,
        stream=sys.stderr,
        interactive=interactive,
        description=name,
        note=lambda: "stopping, what is in flight is let come to its end" if control.is_stopping else progress.notice,
    )


async def _finish(
    store: SqliteStore,
    plan: RunPlan,
    result: RunResult,
    request: RunRequest,
    *,
    endpoint: Endpoint,
    tell: Tell,
    say: Tell,
) -> None:
    if result.problem is not None:
        tell(f"stopped: {result.problem}")
    if plan.config.operational.save_csv_json:
        await _export(store, plan.experiment, request.export_root, tell)
    for line in summary_lines(result.summary, simulated=endpoint.is_simulated):
        say(line)
    say(f"status     {result.verdict.status.value}: {result.verdict.why}")


async def _export(store: SqliteStore, experiment: Experiment, directory: Path, tell: Tell) -> None:
    """Write the files that the configuration asks for; a failure is told and changes nothing else."""
    try:
        paths = await export_results(store, experiment, directory, formats=("csv", "json"))
        columns = {f"{path.suffix.removeprefix('.')}_file": str(path) for path in paths}
        await store.update_experiment(experiment.experiment_id, columns)
    except NarrunError as error:
        tell(f"the export failed, the results are safe in the database: {error}")
        return
    tell("exported   " + ", ".join(str(path) for path in paths))


def tell_plan(plan: RunPlan | NothingToDo, tell: Tell) -> None:
    for notice in plan.notices:
        tell(f"NOTE: {notice}")
    if isinstance(plan, RunPlan) and plan.ingest_report is not None:
        for line in ingest_lines(plan.ingest_report):
            tell(line)
    if plan.drift:
        tell("WARNING: the configuration file differs from the one this experiment was created with.")
        tell("         The stored one is used; these changes have no effect here:")
        for difference in plan.drift:
            tell(f"         {difference}")


def _banner(plan: RunPlan, endpoint: Endpoint, database: Path) -> Banner:
    return Banner(
        experiment_id=plan.experiment.experiment_id,
        name=plan.experiment.name,
        mode=plan.mode.value,
        model=plan.config.model.name,
        endpoint=endpoint.url,
        is_simulated=endpoint.is_simulated,
        is_overridden=endpoint.is_overridden,
        database=str(database),
        n_cohort=plan.counts.n_total,
        n_done=plan.counts.n_success + plan.counts.n_errors,
        n_errors=plan.counts.n_errors,
        n_remaining=plan.n_remaining,
        pace=pace_words(plan.config.operational),
        log_dir=plan.experiment.log_dir,
    )


async def _tell_nothing_to_do(store: SqliteStore, plan: NothingToDo, tell: Tell, say: Tell) -> None:
    experiment = plan.experiment
    tell(f"nothing to do: experiment {experiment.experiment_id} is complete; no call was made")
    if plan.counts.n_errors and plan.mode is RunMode.RESUME:
        tell(f"{plan.counts.n_errors} of its rows are errors; RETRY_ERRORS_ONLY=1 tries them again")
    for line in summary_lines(await load_summary(store, experiment), simulated=is_simulated(experiment)):
        say(line)


def tell_how_to_resume(plan: RunPlan, database: Path, tell: Tell) -> None:
    """The exact commands, in the two ways that people work."""
    experiment = plan.experiment
    place = "" if database == DEFAULT_DATABASE else f"EXPERIMENTS_DB={shlex.quote(str(database))} "
    option = "" if database == DEFAULT_DATABASE else f" --db {shlex.quote(str(database))}"
    if plan.selection is Selection.ERRORS:
        place, option = f"{place}RETRY_ERRORS_ONLY=1 ", f"{option} --retry-errors-only"
    elif plan.selection is Selection.MISSING_AND_ERRORS:
        option = f"{option} --retry-errors"
    tell("to go on:  " + f"{place}RESUME=1 EXPERIMENT_ID={experiment.experiment_id} make resume")
    tell(f"       or  python -m narrun_async resume {experiment.experiment_id}{option}")

"""`narrun run` and `narrun resume`: plan, banner, run, export, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from narrun_async.app.allowances import limit_settings, open_budget, pace_words
from narrun_async.app.databases import reading, source_file, writing
from narrun_async.app.descriptors import calls_in_room, cramped_words, make_room_for_files
from narrun_async.app.endpoints import Endpoint, check_endpoint, endpoint_words, open_endpoint, require_allowed_address
from narrun_async.app.evaluating import lines_at_the_end
from narrun_async.app.invocation import database_option, this_program
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
from narrun_async.app.working import work_on
from narrun_async.config import ExperimentConfig, notices
from narrun_async.errors import ExitCode, NarrunError, UsageError
from narrun_async.models import Experiment, ExperimentStatus, RunMode, Selection, UncalledCounts
from narrun_async.operations.adopting import adopt
from narrun_async.operations.batches.refusing import refuse_open_batches
from narrun_async.operations.ingesting import find_known_source
from narrun_async.operations.previewing import Preview, preview_file, preview_source
from narrun_async.operations.scrubbing import refuse_scrubbed
from narrun_async.reporting.banner import UNSCREENED_NOTICE, Banner, answer_words, banner_lines, uncalled_rows
from narrun_async.reporting.exports import ExportOptions, export_results
from narrun_async.reporting.ingest_lines import ingest_lines
from narrun_async.reporting.summary import load_summary
from narrun_async.reporting.tables import summary_lines
from narrun_async.runner import RunResult
from narrun_async.stores import SqliteStore

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
    async with writing(database, purpose="run", tell=tell, dedupe=request.dedupe, creates=True) as (store, lock):
        plan: RunPlan | NothingToDo
        if resume:
            plan = await plan_resume(store, database, request, environment, given)
            await refuse_open_batches(store, plan.experiment.experiment_id)
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
            budget = await open_budget(store, [plan.experiment], plan.config.operational)
            result, _ = await work_on(
                store, plan, endpoint, budget=budget, most_calls=most_calls, interactive=interactive
            )
        await _finish(store, plan, result, request, endpoint=endpoint, tell=tell, say=say)
        if result.verdict.status is not ExperimentStatus.COMPLETED:
            tell_how_to_resume(plan, database, tell)
        elif result.summary.counts.n_errors:
            tell_how_to_resume(replace(plan, selection=Selection.ERRORS), database, tell, label="to retry:")
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
            await refuse_open_batches(store, plan.experiment.experiment_id)
        if isinstance(plan, RunPlan):
            check_endpoint(plan.config, environment, api_url=request.api_url)
        tell_plan(plan, tell)
        counts, rules = plan.counts, _placeholder_rules_of(plan.experiment)
        skipped = f", {counts.n_skipped} skipped" if counts.n_skipped else ""
        tell(f"experiment {plan.experiment.experiment_id} ({plan.experiment.name}): what is {plan.selection.words}")
        tell(f"cohort     {counts.n_total} narratives, {counts.n_success} successes, {counts.n_errors} errors{skipped}")
        if isinstance(plan, NothingToDo):
            tell("to do      nothing")
            uncalled, answers = UncalledCounts(), None
        else:
            tell(f"to do      {plan.n_to_ask} narratives, {pace_words(plan.config.operational)}")
            uncalled, answers = plan.uncalled, answer_words(plan.config.model, plan.experiment.answer_format)
    else:
        assert given is not None
        check_endpoint(given, environment, api_url=None)
        preview = await preview_new(database, given)
        tell(f"experiment a new one ({given.experiment.name}) in {database}")
        tell(
            f"to do      {preview.n_to_ask} of {preview.n_narratives} narratives of {given.data.file},"
            f" {pace_words(given.operational)}"
        )
        tell(f"endpoint   {endpoint_words(given, environment)}")
        uncalled, rules = preview.uncalled, preview.placeholder_rules
        answers = answer_words(given.model)
        if preview.is_unscreened:
            tell(f"NOTE: {UNSCREENED_NOTICE}")
    for label, words in uncalled_rows(uncalled, rules):
        tell(f"{label:<11}{words}")
    if answers is not None:
        tell(f"answers    {answers}")
    tell("dry run: nothing was written, nothing was sent")
    return ExitCode.COMPLETED


async def preview_new(database: Path, given: ExperimentConfig) -> Preview:
    """From the database where it holds the file, else by reading the file, storing nothing.

    :raises BadInputError: the file cannot be taken, or its texts were scrubbed from the database
    """
    file = source_file(given.data)
    if database.exists():
        async with reading(database) as store:
            known = await find_known_source(store, file)
            if known is not None:
                cohort = await store.load_cohort(known.checksum, max_narratives=given.run.max_narratives)
                await refuse_scrubbed(store, cohort)
                return await preview_source(store, file, known, given.run)
    return preview_file(file.open().iter_narratives(), given.run, file.rules())


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
    if result.answer_format is not None:
        tell(f"answers    {answer_words(plan.config.model, result.answer_format)}")
    if result.problem is not None:
        tell(f"stopped: {result.problem}")
    if plan.config.operational.save_csv_json:
        await export_files(store, plan.experiment, request.export_root, tell)
    for line in summary_lines(result.summary, simulated=endpoint.is_simulated):
        say(line)
    if result.verdict.status is ExperimentStatus.COMPLETED:
        await _say_intervals(store, plan.experiment, tell, say)
    say(f"status     {result.verdict.status.value}: {result.verdict.why}")


async def _say_intervals(store: SqliteStore, experiment: Experiment, tell: Tell, say: Tell) -> None:
    try:
        lines = await lines_at_the_end(store, experiment)
    except Exception as error:  # the run is complete; nothing that keeps its measures from being told may change that
        tell(f"NOTE: the intervals could not be computed ({type(error).__name__}); see `narrun metrics`")
        return
    for line in lines:
        say(line)


async def export_files(store: SqliteStore, experiment: Experiment, directory: Path, tell: Tell) -> None:
    """Write the files that the configuration asks for; a failure is told and changes nothing else."""
    try:
        exported = await export_results(store, experiment, directory, ExportOptions(formats=("csv", "json")))
        columns = {f"{name}_file": str(path) for name, path in exported.files.items()}
        await store.update_experiment(experiment.experiment_id, columns)
    except NarrunError as error:
        tell(f"the export failed, the results are safe in the database: {error}")
        return
    tell("exported   " + ", ".join(str(path) for path in exported.paths))


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
        n_done=plan.counts.n_rows,
        n_errors=plan.counts.n_errors,
        n_skipped=plan.counts.n_skipped,
        n_to_ask=plan.n_to_ask,
        uncalled=plan.uncalled,
        placeholder_rules=_placeholder_rules_of(plan.experiment),
        pace=pace_words(plan.config.operational),
        answers=answer_words(plan.config.model, plan.experiment.answer_format),
        log_dir=plan.experiment.log_dir,
    )


def _placeholder_rules_of(experiment: Experiment) -> str | None:
    recorded = experiment.columns.get("placeholder_rules")
    return recorded if isinstance(recorded, str) else None


async def _tell_nothing_to_do(store: SqliteStore, plan: NothingToDo, tell: Tell, say: Tell) -> None:
    experiment = plan.experiment
    tell(f"nothing to do: experiment {experiment.experiment_id} is complete; no call was made")
    if plan.counts.n_errors and plan.mode is RunMode.RESUME:
        tell(f"{plan.counts.n_errors} of its rows are errors; RETRY_ERRORS_ONLY=1 tries them again")
    for line in summary_lines(await load_summary(store, experiment), simulated=is_simulated(experiment)):
        say(line)


def tell_how_to_resume(plan: RunPlan, database: Path, tell: Tell, *, label: str = "to go on:") -> None:
    """The exact commands, in the two ways that people work."""
    experiment = plan.experiment
    place = "" if database == DEFAULT_DATABASE else f"EXPERIMENTS_DB={shlex.quote(str(database))} "
    option = database_option(database)
    if plan.selection is Selection.ERRORS:
        place, option = f"{place}RETRY_ERRORS_ONLY=1 ", f"{option} --retry-errors-only"
    elif plan.selection is Selection.MISSING_AND_ERRORS:
        option = f"{option} --retry-errors"
    tell(f"{label}  {place}RESUME=1 EXPERIMENT_ID={experiment.experiment_id} make resume")
    tell(f"{'or':>{len(label)}}  {this_program()} resume {experiment.experiment_id}{option}")

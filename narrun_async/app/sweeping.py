"""`narrun sweep`: makes the experiments of a sweep, runs them one after another, and ends with a ranked table.

One lock and one set of limits for all of them. Killed at any moment, the same command goes on where it was: the sweep
is found by its name, its experiments are in the database, and each is resumed as any other is.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from narrun_async.app.allowances import limit_settings, open_budget, pace_words
from narrun_async.app.databases import reading, writing
from narrun_async.app.descriptors import calls_in_room, cramped_words, make_room_for_files
from narrun_async.app.endpoints import Endpoint, check_endpoint, open_endpoint
from narrun_async.app.invocation import database_option, this_program
from narrun_async.app.planning import RunPlan, RunRequest, chosen_database, take_in_source, take_up
from narrun_async.app.running import Tell, export_files, preview_new, tell_plan
from narrun_async.app.working import work_on
from narrun_async.config.sweeps import SweepCell, SweepDocument, expand_sweep, label_of, parse_sweep, sweep_sha256
from narrun_async.errors import ConfigurationError, ExitCode
from narrun_async.limits import Budget, EndpointLimits
from narrun_async.models import Experiment, ExperimentId, ExperimentStatus, RunMode
from narrun_async.operations.batches.refusing import refuse_open_batches
from narrun_async.operations.experiments import is_incomplete
from narrun_async.operations.sweeping import begin_sweep, find_begun_sweep
from narrun_async.reporting.banner import uncalled_rows
from narrun_async.reporting.ingest_lines import ingest_lines
from narrun_async.reporting.summary import load_summary
from narrun_async.reporting.sweep_lines import SweepRow, ranking_lines
from narrun_async.runner import RunResult
from narrun_async.sources.yaml_file import load_yaml, text_reader
from narrun_async.stores import SqliteStore

#: experiments in a row that the endpoint refuses: then it is not the one model or setting that is wrong
REFUSALS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What a person asked for."""

    sweep_file: Path
    database: Path | None = None
    #: dotted key of `run` → value, such as `run.concurrency`
    overrides: Mapping[str, object] = field(default_factory=dict)
    log_root: Path = Path("logs")
    export_root: Path = Path("exports")
    #: the database was put back from an older copy, and that is meant
    accept_restored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    """A sweep's file, all of it read and checked."""

    document: SweepDocument
    cells: Sequence[SweepCell]
    sha256: str


def load_sweep(path: Path, environment: Mapping[str, str], overrides: Mapping[str, object]) -> _Definition:
    """:raises ConfigurationError: the file, its base or a prompt file is missing or wrong"""
    document = parse_sweep(load_yaml(path), origin=str(path))
    base = path.parent / document.base
    cells = expand_sweep(
        document,
        load_yaml(base),
        read_base_text=text_reader(base.parent),
        read_text=text_reader(path.parent),
        origin=str(path),
        environment=environment,
        overrides=overrides,
    )
    operational = cells[0].config.operational
    for key in ("resume", "experiment_id", "retry_errors_only"):
        if getattr(operational, key):
            raise ConfigurationError(
                f"{base}: `run.{key}` has no place in the base of a sweep, which resumes by itself", advice="remove it"
            )
    return _Definition(document=document, cells=cells, sha256=sweep_sha256(document, cells))


async def preview_sweep(request: SweepRequest, environment: Mapping[str, str], *, tell: Tell) -> ExitCode:
    """`--dry-run`: every experiment that the sweep would make, or what is left of each once it has begun.

    Reads only; nothing is written, nothing is sent.

    :raises NarrunError: as the sweep itself would
    """
    definition = load_sweep(request.sweep_file, environment, request.overrides)
    config = definition.cells[0].config
    database = chosen_database(RunRequest(database=request.database), config, environment)
    lines = await _begun_lines(database, definition, request, environment)
    for line in lines or await _new_lines(database, definition):
        tell(line)
    tell("dry run: nothing was written, nothing was sent")
    return ExitCode.COMPLETED


async def _new_lines(database: Path, definition: _Definition) -> Sequence[str]:
    config, n_cells = definition.cells[0].config, len(definition.cells)
    preview = await preview_new(database, config)
    n_to_ask = preview.n_to_ask
    return [
        f"sweep      {definition.document.name}: {n_cells} experiments in {database}",
        *(f"{position:>9}  {label_of(cell.settings)}" for position, cell in enumerate(definition.cells, start=1)),
        f"to do      {n_cells} x {n_to_ask:,} = {n_cells * n_to_ask:,} narratives of {config.data.file}",
        *(f"{label:<11}{words}" for label, words in uncalled_rows(preview.uncalled, preview.placeholder_rules)),
    ]


async def _begun_lines(
    database: Path, definition: _Definition, request: SweepRequest, environment: Mapping[str, str]
) -> Sequence[str]:
    """Nothing where the sweep has not begun."""
    if not database.exists():
        return ()
    async with reading(database) as store:
        experiments = await _find_begun(store, definition)
        if experiments is None:
            return ()
        await _refuse_batches(store, experiments)
        lines, n_to_ask = [_progress_line(definition.document.name, experiments)], 0
        for position, (experiment, cell) in enumerate(zip(experiments, definition.cells, strict=True), start=1):
            n_remaining = 0
            if is_incomplete(experiment):
                plan = await _plan(store, database, experiment, cell, request, environment)
                n_remaining, n_to_ask = plan.n_remaining, n_to_ask + plan.n_to_ask
            lines.append(f"{position:>9}  {label_of(cell.settings)}: {n_remaining:,} to do")
    return [*lines, f"to do      {n_to_ask:,} narratives are to be asked"]


async def run_sweep(
    request: SweepRequest, environment: Mapping[str, str], *, tell: Tell, say: Tell, interactive: bool
) -> ExitCode:
    """Begin a sweep, or go on with the one of that name, until every experiment is complete or something stops it.

    :param tell: lines for people (stderr)
    :param say: the table (stdout)
    :raises NarrunError: nothing was started
    """
    definition = load_sweep(request.sweep_file, environment, request.overrides)
    n_files = make_room_for_files()
    config = definition.cells[0].config
    database = chosen_database(RunRequest(database=request.database), config, environment)
    check_endpoint(config, environment, api_url=None)
    purpose = f"sweep {definition.document.name}"
    async with writing(database, purpose=purpose, tell=tell, creates=True) as (store, _):
        experiments = await _begin_or_take_up(store, definition, request, tell)
        tell(_progress_line(definition.document.name, experiments))
        exit_code = ExitCode.COMPLETED
        if any(map(is_incomplete, experiments)):
            await _refuse_batches(store, experiments)
            async with open_endpoint(config, environment, api_url=None) as endpoint:
                most_calls = calls_in_room(n_files, is_simulated=endpoint.is_simulated)
                tell(f"endpoint   {endpoint.url}, {pace_words(config.operational)}")
                if words := cramped_words(limit_settings(config.operational), most_calls):
                    tell(f"NOTE: {words}")
                passage = _Passage(store, database, definition, request, environment, endpoint, tell)
                exit_code = await passage.go_through(experiments, most_calls=most_calls, interactive=interactive)
        else:
            tell("nothing to do: every experiment is complete; no call was made")
        rows = [await _row(store, one.experiment_id) for one in experiments]
    for line in ranking_lines(rows, simulated=config.simulation is not None):
        say(line)
    if exit_code is ExitCode.COMPLETED:
        exit_code = max(map(_code_of, rows))
    if exit_code > ExitCode.COMPLETED_WITH_ERRORS:
        tell(f"to go on:  {this_program()} sweep {shlex.quote(str(request.sweep_file))}{database_option(database)}")
    return exit_code


async def _find_begun(store: SqliteStore, definition: _Definition) -> Sequence[Experiment] | None:
    return await find_begun_sweep(
        store,
        name=definition.document.name,
        definition_sha256=definition.sha256,
        configs=[cell.config for cell in definition.cells],
    )


async def _begin_or_take_up(
    store: SqliteStore, definition: _Definition, request: SweepRequest, tell: Tell
) -> Sequence[Experiment]:
    begun = await _find_begun(store, definition)
    if begun is not None:
        return begun
    config = definition.cells[0].config
    report, doubts = await take_in_source(store, config)
    for line in (*ingest_lines(report), *(f"NOTE: {doubt}" for doubt in doubts)):
        tell(line)
    return await begin_sweep(
        store,
        name=definition.document.name,
        definition_sha256=definition.sha256,
        notes=definition.document.notes,
        sweep_file=request.sweep_file,
        cells=[(cell.settings, cell.config) for cell in definition.cells],
        source=report.source,
        screening=report.screening,
        log_root=request.log_root,
    )


async def _refuse_batches(store: SqliteStore, experiments: Sequence[Experiment]) -> None:
    """:raises BatchesOpenError: what is left of one of them is in batches, and would be paid for twice"""
    for experiment in filter(is_incomplete, experiments):
        await refuse_open_batches(store, experiment.experiment_id)


async def _plan(
    store: SqliteStore,
    database: Path,
    experiment: Experiment,
    cell: SweepCell,
    request: SweepRequest,
    environment: Mapping[str, str],
) -> RunPlan:
    """What is left of one experiment. Only reads."""
    wanted = RunRequest(
        resume=True,
        experiment_id=experiment.experiment_id,
        log_root=request.log_root,
        accept_restored=request.accept_restored,
    )
    return await take_up(store, database, wanted, environment, cell.config)


class _Passage:
    """The way through the experiments of a sweep, one run after another."""

    def __init__(
        self,
        store: SqliteStore,
        database: Path,
        definition: _Definition,
        request: SweepRequest,
        environment: Mapping[str, str],
        endpoint: Endpoint,
        tell: Tell,
    ) -> None:
        self._store = store
        self._database = database
        self._definition = definition
        self._request = request
        self._environment = environment
        self._endpoint = endpoint
        self._tell = tell
        self._limits: EndpointLimits | None = None
        #: notices, which are much the same for all experiments
        self._told: set[str] = set()

    async def go_through(self, experiments: Sequence[Experiment], *, most_calls: int, interactive: bool) -> ExitCode:
        """Every experiment that is not complete, in order.

        One that the endpoint refuses is left `failed`, and the next one has its turn; three in a row stop the sweep.
        Whatever else stops a run stops the sweep.

        :returns: why it was stopped; COMPLETED where it came to its end
        """
        operational = self._definition.cells[0].config.operational
        n_refused = 0
        for position, experiment in enumerate(experiments, start=1):
            if not is_incomplete(experiment):
                continue
            cell = self._definition.cells[position - 1]
            plan = await self._plan(experiment, cell)
            place = f"[{position}/{len(experiments)}]"
            tell_plan(plan, self._tell)
            self._tell(f"{place} {plan.n_remaining:,} to do: {label_of(cell.settings)}")
            result = await self._work(
                plan,
                budget=await open_budget(self._store, experiments, operational),
                most_calls=most_calls,
                interactive=interactive,
                name=f"{place} {self._definition.document.name}",
            )
            if result.problem is not None:
                self._tell(f"{place} stopped: {result.problem}")
            is_refused = result.verdict.exit_code is ExitCode.CONFIGURATION
            n_refused = n_refused + 1 if is_refused else 0
            was_stopped = result.verdict.exit_code > ExitCode.COMPLETED_WITH_ERRORS and not is_refused
            if was_stopped or n_refused == REFUSALS_IN_A_ROW:
                return result.verdict.exit_code
        return ExitCode.COMPLETED

    async def _plan(self, experiment: Experiment, cell: SweepCell) -> RunPlan:
        plan = await _plan(self._store, self._database, experiment, cell, self._request, self._environment)
        is_new = not await self._store.list_runs(experiment.experiment_id)
        notices = [notice for notice in plan.notices if notice not in self._told]
        self._told.update(notices)
        return replace(plan, mode=RunMode.NEW if is_new else plan.mode, notices=notices)

    async def _work(self, plan: RunPlan, *, budget: Budget, most_calls: int, interactive: bool, name: str) -> RunResult:
        result, self._limits = await work_on(
            self._store,
            plan,
            self._endpoint,
            budget=budget,
            most_calls=most_calls,
            interactive=interactive,
            name=name,
            after=self._limits,
        )
        if plan.config.operational.save_csv_json:
            await export_files(self._store, plan.experiment, self._request.export_root, self._tell)
        return result


def _progress_line(name: str, experiments: Sequence[Experiment]) -> str:
    n_complete = sum(not is_incomplete(one) for one in experiments)
    n_narratives = sum(one.cohort.n_narratives for one in experiments)
    return (
        f"sweep      {name}: {len(experiments)} experiments, {n_complete} complete; {n_narratives:,} narratives in all"
    )


async def _row(store: SqliteStore, experiment_id: ExperimentId) -> SweepRow:
    experiment = await store.load_experiment(experiment_id)
    return SweepRow.of(experiment, await load_summary(store, experiment))


def _code_of(row: SweepRow) -> ExitCode:
    """What an experiment alone would make of the exit code."""
    match row.status:
        case ExperimentStatus.COMPLETED:
            return ExitCode.COMPLETED_WITH_ERRORS if row.summary.counts.n_errors else ExitCode.COMPLETED
        case ExperimentStatus.FAILED:
            return ExitCode.CONFIGURATION
        case ExperimentStatus.RUNNING | ExperimentStatus.INTERRUPTED:
            return ExitCode.TEMPORARY

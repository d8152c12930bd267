"""`narrun batch poll` and `collect`: how batches stand at the provider, and their answers into the database."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import anyio

from narrun_async import __version__
from narrun_async.app.batches import BatchRequest, batch_directory, chosen_batches, named, option, remove_closed_files
from narrun_async.app.databases import reading, writing
from narrun_async.app.endpoints import open_batch_provider
from narrun_async.app.planning import RunPlan, take_up
from narrun_async.app.running import Tell, tell_plan
from narrun_async.app.showing import is_simulated
from narrun_async.batching.requests import experiment_key
from narrun_async.batching.states import OPEN
from narrun_async.clock import utc_now
from narrun_async.config import config_from_snapshot
from narrun_async.errors import BadInputError, ExitCode, LockHeldError, NarrunError, TemporaryError
from narrun_async.logs import open_experiment_logs
from narrun_async.models import Batch, BatchState, Experiment, RemoteBatch, RunMode, RunStart, Selection
from narrun_async.operations.batches.answers import Survey, Target, survey
from narrun_async.operations.batches.collecting import Collected, Collection, collect
from narrun_async.operations.batches.failures import problem_of
from narrun_async.operations.batches.polling import ask, is_news, note
from narrun_async.operations.experiments import find_experiment, require_snapshot
from narrun_async.operations.scrubbing import refuse_scrubbed
from narrun_async.ports import BatchProvider
from narrun_async.reporting.batch_lines import found_lines, standing_line
from narrun_async.reporting.tables import summary_lines
from narrun_async.stores import SqliteStore
from narrun_async.stores.batch_files import BatchFiles, WholeFile
from narrun_async.writer import storage_pauses

#: what an answer may take on average, and at least a file; beyond that it is not what was asked for
_MOST_BYTES_PER_REQUEST, _ALWAYS_ALLOWED_BYTES = 256 * 1024, 64 * 1024 * 1024


async def poll_batches(request: BatchRequest, *, waits: bool, interval_s: float, tell: Tell, say: Tell) -> ExitCode:
    """Ask how the submitted batches stand, once or until all have ended. The lock is taken only to note news.

    Waiting, it says what is new.

    :returns: TEMPORARY while one goes on
    :raises NarrunError: the provider cannot be asked; while waiting only what does not pass by itself
    """
    request, shown = await _pinned(request), set[str]()
    while True:
        try:
            told = await _ask_and_note(request, tell)
        except TemporaryError as error:
            if not waits:
                raise
            tell(f"NOTE: {error}")
        else:
            for line in (standing_line(batch, remote) for batch, remote in told):
                if line not in shown:  # who waits for a day wants to see what changes
                    say(line)
            shown = {standing_line(batch, remote) for batch, remote in told}
            if not told:
                tell("no batch is with the provider; `narrun batch list` shows what there is")
                return ExitCode.COMPLETED
            if not any(batch.state is BatchState.SUBMITTED for batch, _ in told):
                tell(f"next       narrun batch collect {named(request.run.experiment_id)}{option(request.run)}")
                return ExitCode.COMPLETED
            if not waits:
                return ExitCode.TEMPORARY
        await anyio.sleep(interval_s)


async def _pinned(request: BatchRequest) -> BatchRequest:
    """The same request by the experiment's own id: `latest` may be another one a moment later."""
    async with reading(request.database) as store:
        experiment = await find_experiment(store, named(request.run.experiment_id))
    return replace(request, run=replace(request.run, experiment_id=experiment.experiment_id))


async def _ask_and_note(request: BatchRequest, tell: Tell) -> Sequence[tuple[Batch, RemoteBatch]]:
    """The batches that were with the provider, as they are now, and what it says of each."""
    async with reading(request.database) as store:
        experiment = await find_experiment(store, named(request.run.experiment_id))
        batches = await chosen_batches(store, experiment, request.numbers, states=OPEN)
    # Where nothing was sent there is nobody to ask, and no key is needed.
    with_provider = [one for one in batches if one.state is BatchState.SUBMITTED]
    told: list[tuple[Batch, RemoteBatch]] = []
    async with _providers(request, experiment, with_provider) as groups:
        for provider, group in groups:
            told += await ask(provider, group)
    if not any(is_news(batch, remote) for batch, remote in told):
        return told
    try:
        async with writing(request.database, purpose="batch poll", tell=tell) as (store, _):
            return [
                (await note(store, batch, remote), remote) if is_news(batch, remote) else (batch, remote)
                for batch, remote in told
            ]
    except LockHeldError as error:
        tell(f"NOTE: not noted, and asked again by the next command: {error.problem}")
        return told


@asynccontextmanager
async def _providers(
    request: BatchRequest, experiment: Experiment, batches: Sequence[Batch]
) -> AsyncIterator[Sequence[tuple[BatchProvider, Sequence[Batch]]]]:
    """The provider of each batch: it was sent somewhere, and is asked for there."""
    config = config_from_snapshot(require_snapshot(experiment))
    by_url = groupby(sorted(batches, key=lambda one: one.api_url or ""), key=lambda one: one.api_url)
    async with AsyncExitStack() as open_until_end:
        groups = []
        for recorded_url, group in by_url:
            api_url = request.run.api_url or recorded_url
            opened = open_batch_provider(config, request.environment, api_url=api_url)
            provider, _ = await open_until_end.enter_async_context(opened)
            groups.append((provider, list(group)))
        yield groups


# --- collect ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """How answers are to be taken."""

    #: files that a person brings; empty: those of the provider
    files: Sequence[Path] = ()
    #: leave the batch files where they are
    keeps_files: bool = False
    #: refusals become error rows even where nothing shows that the settings work
    accepts_refusals: bool = False
    #: have the provider delete the files of what was collected
    deletes_remote: bool = False


async def collect_batches(request: BatchRequest, options: CollectOptions, *, tell: Tell, say: Tell) -> ExitCode:
    """Store the answers of batches that have ended, or those in files.

    :raises NarrunError: nothing was stored, or what was stored is safe and the rest can be collected again
    """
    request = await _pinned(request)
    if options.files:
        return await _collect_files(request, options, files=options.files, numbers=None, tell=tell, say=say)
    obstacle = await _ask_if_possible(request, tell)
    async with reading(request.database) as store:
        experiment = await find_experiment(store, named(request.run.experiment_id))
        open_batches = await chosen_batches(store, experiment, request.numbers, states=OPEN)
    ended = [one for one in open_batches if one.state is BatchState.ENDED]
    if not ended:
        if obstacle is not None:
            raise obstacle
        for batch in open_batches:
            tell(f"batch {batch.number}: {batch.state.value} {batch.remote_status or ''}".rstrip())
        tell("nothing to collect" if not open_batches else "nothing to collect yet")
        async with writing(request.database, purpose="batch collect", tell=tell) as (store, _):
            await remove_closed_files(store, experiment, request.run.log_root, tell)
        return ExitCode.TEMPORARY if open_batches else ExitCode.COMPLETED
    if obstacle is not None:
        tell(f"NOTE: {obstacle}")
    directory = batch_directory(experiment, request.run.log_root)
    files: list[Path] = []
    async with _providers(request, experiment, ended) as groups:
        for provider, group in groups:
            for batch in group:
                files += await _download(provider, batch, directory, tell)
        code = await _collect_files(
            request, options, files=files, numbers=[one.number for one in ended], tell=tell, say=say
        )
        if options.deletes_remote:
            for provider, group in groups:
                await _delete_remote(request, provider, group, tell)
    return code


async def _ask_if_possible(request: BatchRequest, tell: Tell) -> NarrunError | None:
    """What keeps the provider from being asked; batches that are known to have ended may be collected all the same."""
    try:
        await _ask_and_note(request, tell)
    except NarrunError as error:
        return error
    return None


async def _download(provider: BatchProvider, batch: Batch, directory: Path, tell: Tell) -> list[Path]:
    """The output and error file of a batch, from disk where an earlier command has brought them whole."""
    files = BatchFiles(directory=directory, number=batch.number)
    most = max(_ALWAYS_ALLOWED_BYTES, batch.n_requests * _MOST_BYTES_PER_REQUEST)
    found: list[Path] = []
    for file_id, path in ((batch.output_file_id, files.output), (batch.error_file_id, files.errors)):
        if file_id is None:
            continue
        if not _is_of(batch, path):
            with WholeFile(path) as file:
                failure = await provider.download_file(file_id, file.write, max_bytes=most)
                if failure is not None:
                    raise problem_of(failure, doing=f"{file_id}, a file of batch {batch.number}, cannot be fetched")
                file.publish()
                tell(f"batch {batch.number}: fetched {file.n_bytes:,} bytes of {path.suffixes[0][1:]}")
        found.append(path)
    return found


def _is_of(batch: Batch, path: Path) -> bool:
    """Whether a batch's answers were fetched already. A file from before its export is of another batch of that number,
    which a database that was put back from a copy has forgotten.
    """
    return path.exists() and path.stat().st_mtime >= batch.exported_at.timestamp()


async def _collect_files(
    request: BatchRequest,
    options: CollectOptions,
    *,
    files: Sequence[Path],
    numbers: Sequence[int] | None,
    tell: Tell,
    say: Tell,
) -> ExitCode:
    """:param numbers: the batches that the files answer; None: whichever do"""
    run = request.run
    async with writing(request.database, purpose="batch collect", tell=tell) as (store, _):
        plan = await take_up(store, request.database, run, request.environment, None)
        tell_plan(plan, tell)
        experiment = plan.experiment
        # Answers quote narratives, and would bring back what was taken out.
        await refuse_scrubbed(store, experiment.cohort)
        targets = await _targets(store, experiment, request.numbers if numbers is None else numbers)
        surveyed = survey(files, experiment_key(experiment.experiment_id), targets)
        if options.files and not surveyed.n_ours:
            raise _not_ours(experiment, surveyed)
        collection = Collection(
            experiment=experiment,
            counts=plan.counts,
            targets=targets,
            files=files,
            surveyed=surveyed,
            accepts_refusals=options.accepts_refusals,
            stops_on_model_change=plan.config.operational.on_model_change == "stop",
            storage_pauses_s=storage_pauses(plan.config.operational.max_storage_wait_s),
            # What could not be read may be looked at.
            keeps_files=options.keeps_files or surveyed.n_unreadable > 0,
            accepts_restored=plan.accepts_restored,
        )
        log_dir = batch_directory(experiment, run.log_root).parent
        with open_experiment_logs(log_dir, level=plan.config.operational.log_level):
            collected = await collect(store, collection, _run_start(experiment, targets), tell=tell)
        _tell_collected(plan, surveyed, collected, tell, say)
        for batch in collected.closed:
            tell(f"batch {batch.number}: closed; {batch.closed_why}")
            if batch.keeps_files:
                tell(f"           its files stay in {batch_directory(experiment, run.log_root)}; they hold narratives")
        for number in _still_open(targets, collected):
            tell(f"batch {number}: stays open; collect the rest of it, or give it back with `narrun batch cancel`")
        await remove_closed_files(store, experiment, run.log_root, tell)
    return collected.verdict.exit_code


def _still_open(targets: dict[int, Target], collected: Collected) -> Sequence[int]:
    open_before = {number for number, one in targets.items() if one.batch.state in OPEN}
    return sorted(open_before - {batch.number for batch in collected.closed})


async def _targets(store: SqliteStore, experiment: Experiment, numbers: Sequence[int]) -> dict[int, Target]:
    """Batches that may still get answers; those that were given up, too, where no others are named."""
    batches = await chosen_batches(store, experiment, numbers, states=frozenset(BatchState))
    targets = [Target(batch=one, members=await store.load_members(one.batch_id)) for one in batches]
    return {
        one.batch.number: one
        for one in targets
        if one.batch.state is not BatchState.CLOSED or not all(one.members.values())
    }


def _run_start(experiment: Experiment, targets: dict[int, Target]) -> RunStart:
    selections = {target.batch.selection for target in targets.values()}
    return RunStart(
        experiment_id=experiment.experiment_id,
        mode=RunMode.BATCH,
        selection=selections.pop() if len(selections) == 1 else Selection.MISSING_AND_ERRORS,
        host=socket.gethostname(),
        pid=os.getpid(),
        narrun_version=__version__,
        concurrency=0,
        api_url=next((target.batch.api_url for target in targets.values() if target.batch.api_url), ""),
        api_url_overridden=False,
        started_at=utc_now(),
    )


def _not_ours(experiment: Experiment, surveyed: Survey) -> BadInputError:
    if surveyed.n_of_others:
        found = f"{surveyed.n_of_others:,} of its {surveyed.n_lines:,} lines answer requests of another experiment"
    elif surveyed.n_foreign:
        found = f"its {surveyed.n_lines:,} lines answer no request that was exported and is not answered yet"
    else:
        found = f"none of its {surveyed.n_lines:,} lines is one of a batch's output"
    return BadInputError(
        f"there is no answer to experiment {experiment.experiment_id} in what was given: {found}",
        advice="name the output file of a batch of this experiment, or the right experiment; nothing was stored",
    )


def _tell_collected(plan: RunPlan, surveyed: Survey, collected: Collected, tell: Tell, say: Tell) -> None:
    tell(f"collected  {collected.n_decided:,} rows")
    for line in found_lines(
        n_unreadable=surveyed.n_unreadable,
        n_foreign=surveyed.n_foreign,
        n_of_others=surveyed.n_of_others,
        unanswered=surveyed.unanswered,
        undecided=collected.undecided,
    ):
        tell(line)
    if collected.problem is not None:
        tell(f"stopped: {collected.problem}")
    for line in summary_lines(collected.summary, simulated=is_simulated(plan.experiment)):
        say(line)
    say(f"status     {collected.verdict.status.value}: {collected.verdict.why}")


async def _delete_remote(request: BatchRequest, provider: BatchProvider, batches: Sequence[Batch], tell: Tell) -> None:
    """Have the provider delete what it keeps of batches that are closed."""
    async with reading(request.database) as store:
        experiment = await find_experiment(store, named(request.run.experiment_id))
        closed = {one.number for one in await store.list_batches(experiment.experiment_id) if one.state not in OPEN}
    for batch in batches:
        if batch.number not in closed:
            continue
        ids = [one for one in (batch.remote_file_id, batch.output_file_id, batch.error_file_id) if one is not None]
        for file_id in ids:
            failure = await provider.delete_file(file_id)
            if failure is not None:
                tell(f"NOTE: the provider keeps the file {file_id}: {failure.message}")
        tell(f"batch {batch.number}: the provider was asked to delete {len(ids)} files")

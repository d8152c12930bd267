"""`narrun batch export`, `submit`, `list` and `cancel`: remaining sets as files, and their way to the provider."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from narrun_async.app.allowances import budget_limits
from narrun_async.app.databases import reading, writing
from narrun_async.app.endpoints import call_spec, endpoint_url, open_batch_provider, require_allowed_address
from narrun_async.app.planning import RunPlan, RunRequest, chosen_database, load_config, plan_new, take_up
from narrun_async.app.running import Tell, tell_plan
from narrun_async.batching.requests import endpoint_of
from narrun_async.batching.shards import ShardLimits
from narrun_async.batching.spending import Allowance, Spending, refuse_overspending
from narrun_async.batching.states import OPEN, UNSENT
from narrun_async.config import config_from_snapshot, notices
from narrun_async.config.sections import AUTO
from narrun_async.errors import ExitCode, StorageError, UsageError
from narrun_async.finalizer import finalize
from narrun_async.logs import can_hold_files
from narrun_async.models import Batch, BatchState, Experiment, ExperimentStatus
from narrun_async.operations.adopting import adopt
from narrun_async.operations.batches.cancelling import abandon, cancel, withdraw
from narrun_async.operations.batches.exporting import ExportOrder, export_batches
from narrun_async.operations.batches.submitting import SETTLE_S, Submitter
from narrun_async.operations.experiments import find_experiment, require_snapshot
from narrun_async.ports import BatchStore
from narrun_async.prompting import RequestTemplate
from narrun_async.reporting.batch_lines import batch_json, batches_lines, exported_line
from narrun_async.stores import SqliteStore
from narrun_async.stores.batch_files import find_batch_files
from narrun_async.stores.removal import BATCHES_DIRECTORY, overwrite_and_remove

Named = TypeVar("Named")

_LIST = "`narrun batch list` shows those that there are"
_ITS_ANSWERS = "`narrun batch collect` stores its answers, which are paid for"

UNDECIDED = "what `model.response_format: auto` comes to is found out by asking the endpoint, which a file cannot"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a person asked for, about the batches of one experiment."""

    run: RunRequest
    environment: Mapping[str, str] = field(repr=False)
    #: batch numbers; empty: all that the command is about
    numbers: Sequence[int] = ()
    #: how long a provider may take to list what it was asked to create
    settle_s: float = SETTLE_S

    @property
    def database(self) -> Path:
        return chosen_database(self.run, None, self.environment)


def batch_directory(experiment: Experiment, log_root: Path) -> Path:
    """Where the batch files of an experiment are, beside its logs."""
    log_dir = Path(experiment.log_dir) if experiment.log_dir else log_root / "experiments" / experiment.experiment_id
    return (log_dir / BATCHES_DIRECTORY).absolute()


async def export_experiment(
    request: BatchRequest, *, limits: ShardLimits, out: Path | None, tell: Tell, say: Tell
) -> ExitCode:
    """Write what remains into batch files, the experiment being created first where a configuration is named.

    :param out: where the files go instead of beside the logs
    :raises NarrunError: nothing more was exported than was said
    """
    run, environment = request.run, request.environment
    given = None if run.config_file is None else load_config(run.config_file, environment, run.overrides)
    new = None if run.resume else given
    if new is not None and new.model.response_format == AUTO:
        raise UsageError(UNDECIDED, advice="say json_schema, json_object or off in the configuration")
    database = chosen_database(run, new, environment)
    if new is not None and not can_hold_files((out or run.log_root).absolute()):
        # before an experiment is made that nobody would know of
        raise StorageError("no file can be made there", path=out or run.log_root, advice="name another directory")
    async with writing(database, purpose="batch export", tell=tell, creates=new is not None) as (store, _):
        if new is None:
            plan = await take_up(store, database, run, environment, given)
            _require_use_of_address(plan, run)
        else:
            plan = await plan_new(store, run, new, notices(new, environment))
            # No process works on it; it waits for its batches.
            await finalize(store, plan.experiment, runtime_s=0.0)
            waiting = {"status": ExperimentStatus.INTERRUPTED.value}
            await store.update_experiment(plan.experiment.experiment_id, waiting)
        tell_plan(plan, tell)
        if plan.adoption is not None:
            url = endpoint_url(plan.config, environment, api_url=run.api_url)
            await require_allowed_address(url, allow_remote=plan.config.privacy.allow_remote)
            await adopt(store, plan.adoption)
        order = ExportOrder(
            experiment=plan.experiment,
            selection=plan.selection,
            template=_decided_template(plan),
            endpoint=endpoint_of(plan.config.model.api_url),
            limits=limits,
            directory=out or batch_directory(plan.experiment, run.log_root),
            is_elsewhere=out is not None,
        )
        exported = await export_batches(store, order)
        await remove_closed_files(store, plan.experiment, run.log_root, tell)
    tell(f"experiment {plan.experiment.experiment_id}  ({plan.experiment.name}): what is {plan.selection.words}")
    for batch in exported.batches:
        say(exported_line(batch))
    if exported.n_spoken_for:
        tell(f"{exported.n_spoken_for:,} narratives are in open batches already and were left out")
    if exported.n_changed:
        tell(f"NOTE: {exported.n_changed:,} texts are not what was ingested and were left out; a run says which")
    if not exported.batches:
        tell("nothing to export")
    elif out is None:
        tell(f"next       narrun batch submit {plan.experiment.experiment_id}{option(run)}")
    else:
        tell("these files hold narratives; only you can read them, and `narrun purge` names them but leaves them")
        tell(f"next       narrun batch collect {plan.experiment.experiment_id} --from OUTPUT{option(run)}")
    return ExitCode.COMPLETED


def _require_use_of_address(plan: RunPlan, run: RunRequest) -> None:
    """:raises UsageError: an address was given, and batch files name none"""
    if run.api_url is not None and plan.adoption is None:
        raise UsageError(
            "--api-url is for an experiment of R that is taken up", advice="give it to `narrun batch submit` instead"
        )


def _decided_template(plan: RunPlan) -> RequestTemplate:
    """:raises UsageError: what the requests are bound to is still to be found out, which takes the endpoint"""
    spec = call_spec(plan.config, plan.experiment.answer_format)
    if spec.choice is not None:
        advice = f"`narrun resume {plan.experiment.experiment_id}` finds it out before its first narrative"
        raise UsageError(UNDECIDED, advice=advice)
    return spec.template


async def submit_batches(request: BatchRequest, *, resubmit: bool, tell: Tell) -> ExitCode:
    """Bring every batch that is not with the provider to it, one after the other.

    :param resubmit: send batches again of which nobody can tell whether the provider has them
    :raises NarrunError: what was submitted before stays so, and is known
    """
    run, database = request.run, request.database
    async with writing(database, purpose="batch submit", tell=tell) as (store, _):
        plan = await take_up(store, database, run, request.environment, None)
        batches = await chosen_batches(store, plan.experiment, request.numbers, states=UNSENT)
        if plan.adoption is None:  # one of R has no batches before it is taken up, and that is not done here
            tell_plan(plan, tell)
        if not batches:
            tell(
                "nothing to submit; `narrun batch export` makes batches, `narrun batch list` shows those that there are"
            )
            return ExitCode.COMPLETED
        if resubmit and any(one.state is not BatchState.CREATING for one in batches):
            raise UsageError("--resubmit is for batches whose creation is in doubt", advice="name them with --batch")
        async with open_batch_provider(plan.config, request.environment, api_url=run.api_url) as (provider, url):
            submitter = Submitter(
                store=store,
                provider=provider,
                api_url=url,
                tell=tell,
                sleep=anyio.sleep,
                settle_s=request.settle_s,
                before_sending=partial(_refuse_overspending, store, plan),
            )
            for batch in batches:
                submitted = await (submitter.resubmit(batch) if resubmit else submitter.submit(batch))
                tell(f"batch {batch.number}: submitted as {submitted.remote_batch_id} ({submitted.remote_status})")
    tell(f"next       narrun batch poll {plan.experiment.experiment_id} --wait{option(run)}")
    return ExitCode.COMPLETED


async def _refuse_overspending(store: SqliteStore, plan: RunPlan, batch: Batch) -> None:
    limits = budget_limits(plan.config.operational)
    if limits.max_tokens is None and limits.max_cost is None:
        return
    experiment_id = plan.experiment.experiment_id
    prompt_tokens, completion_tokens = await store.sum_tokens(experiment_id)
    counts = await store.count_results(plan.experiment)
    recorded = await store.count_recorded(experiment_id)
    on_their_way = [one for one in await store.list_batches(experiment_id) if one.state in OPEN - UNSENT]
    spending = Spending(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        n_answered=counts.n_success + counts.n_errors,
        n_on_their_way=sum(one.n_requests - recorded.get(one.batch_id, 0) for one in on_their_way),
    )
    allowance = Allowance(max_tokens=limits.max_tokens, max_cost=limits.max_cost, prices=limits.prices)
    refuse_overspending(allowance, spending, n_requests=batch.n_requests, n_bytes=batch.n_bytes)


async def list_batches(database: Path, wanted: str | None, *, open_only: bool, as_json: bool) -> Sequence[str]:
    """Every batch of an experiment, or of all."""
    async with reading(database) as store:
        experiment_id = (await find_experiment(store, wanted)).experiment_id if wanted else None
        batches = [one for one in await store.list_batches(experiment_id) if one.state in OPEN or not open_only]
        recorded = await store.count_recorded(experiment_id)
    if as_json:
        documents = [batch_json(one, n_recorded=recorded.get(one.batch_id, 0)) for one in batches]
        return [json.dumps(documents, ensure_ascii=False, indent=2)]
    return batches_lines(batches, recorded)


async def cancel_batches(request: BatchRequest, *, abandons: bool, tell: Tell) -> ExitCode:
    """Give the narratives of open batches back: withdraw, ask the provider to stop, or abandon.

    :raises NarrunError: the provider cannot be asked, or refuses; batches before this one are done with
    """
    run, database = request.run, request.database
    async with writing(database, purpose="batch cancel", tell=tell) as (store, _):
        experiment = await find_experiment(store, named(run.experiment_id))
        batches = await chosen_batches(store, experiment, request.numbers, states=OPEN)
        if not abandons:
            batches = _not_ended(batches, were_named=bool(request.numbers), tell=tell)
        if not batches:
            tell("nothing to cancel")
        for batch in batches:
            if abandons:
                done = await abandon(store, batch)
            elif batch.state is BatchState.EXPORTED and batch.remote_file_id is None:
                done = await withdraw(store, batch)
            else:
                done = await _cancel_at_provider(request, store, experiment, batch, tell)
            if done.state is BatchState.CLOSED:
                tell(f"batch {done.number}: {done.closed_why}; what has no row is missing again")
            else:
                tell(f"batch {done.number}: the provider says {done.remote_status}")
                tell("           what it answered until it stops is paid for; `narrun batch collect` stores it")
        await remove_closed_files(store, experiment, run.log_root, tell)
    return ExitCode.COMPLETED


def _not_ended(batches: Sequence[Batch], *, were_named: bool, tell: Tell) -> Sequence[Batch]:
    """Those whose answers are not there yet.

    :raises UsageError: one of the others was meant
    """
    for batch in batches:
        if batch.state is BatchState.ENDED:
            said = f"batch {batch.number} has ended ({batch.remote_status}), so there is nothing to cancel"
            if were_named:
                raise UsageError(said, advice=f"{_ITS_ANSWERS}; --abandon gives them up")
            tell(f"{said}; {_ITS_ANSWERS}")
    return [one for one in batches if one.state is not BatchState.ENDED]


async def _cancel_at_provider(
    request: BatchRequest, store: SqliteStore, experiment: Experiment, batch: Batch, tell: Tell
) -> Batch:
    config = config_from_snapshot(require_snapshot(experiment))
    api_url = request.run.api_url or batch.api_url
    async with open_batch_provider(config, request.environment, api_url=api_url) as (provider, url):
        submitter = Submitter(
            store=store, provider=provider, api_url=url, tell=tell, sleep=anyio.sleep, settle_s=request.settle_s
        )
        return await cancel(submitter, batch)


async def chosen_batches(
    store: BatchStore, experiment: Experiment, numbers: Sequence[int], *, states: frozenset[BatchState]
) -> Sequence[Batch]:
    """Those of the experiment's batches that were named, or all, where they are in one of the states.

    :raises UsageError: one was named that does not exist, or is in another state
    """
    by_number = {one.number: one for one in await store.list_batches(experiment.experiment_id)}
    for number in numbers:
        if number not in by_number:
            raise UsageError(f"experiment {experiment.experiment_id} has no batch {number}", advice=_LIST)
        if by_number[number].state not in states:
            raise UsageError(f"batch {number} is {by_number[number].state.value}", advice=_LIST)
    return [one for one in by_number.values() if one.state in states and (not numbers or one.number in numbers)]


async def remove_closed_files(store: BatchStore, experiment: Experiment, log_root: Path, tell: Tell) -> None:
    """Overwrite and remove the files of closed batches: they hold narratives, and nobody needs them any more.

    Those of batches that an earlier command has closed, too: it may have been killed before it came so far.
    """
    directory = batch_directory(experiment, log_root)
    n_removed = 0
    for batch in await store.list_batches(experiment.experiment_id):
        if batch.state is not BatchState.CLOSED or batch.keeps_files:
            continue
        try:
            n_removed += len([overwrite_and_remove(path) for path in find_batch_files(directory, batch.number)])
        except StorageError as error:
            tell(f"NOTE: {error}")
        if batch.input_path.parent != directory and batch.input_path.exists():
            tell(f"NOTE: {batch.input_path} holds narratives and is yours to remove")
    if n_removed:
        tell(f"removed    {n_removed} batch files, which held narratives; each was overwritten once")


def named(value: Named | None) -> Named:
    """What the command line never leaves out."""
    assert value is not None
    return value


def option(run: RunRequest) -> str:
    """What a following command has to be told, too."""
    return f" --db {shlex.quote(str(run.database))}" if run.database is not None else ""

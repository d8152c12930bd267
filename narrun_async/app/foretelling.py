"""`narrun estimate`: send a few narratives, and tell what all of them will take."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from narrun_async.app.allowances import budget_limits, limit_settings
from narrun_async.app.databases import reading, source_file, writing
from narrun_async.app.endpoints import Endpoint, call_spec, open_endpoint
from narrun_async.app.planning import RunPlan, RunRequest, chosen_database, load_config, plan_new
from narrun_async.app.running import Tell, begin_run, tell_how_to_resume, tell_plan
from narrun_async.caller import Caller, make_probe
from narrun_async.clock import utc_end
from narrun_async.config import ExperimentConfig, notices
from narrun_async.errors import ExitCode
from narrun_async.finalizer import finalize
from narrun_async.limits import EndpointLimits, ServingGuard
from narrun_async.logs import open_experiment_logs
from narrun_async.metrics import extrapolate, spread_evenly
from narrun_async.models import (
    Attempt,
    Cohort,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    NarrativeId,
    Outcome,
    ProgressMark,
    RunEnd,
    Serving,
    SourceNarrative,
    WorkItem,
)
from narrun_async.operations.estimating import call_items, pick_items, sampled_call
from narrun_async.operations.ingesting import SourceFile, find_known_source
from narrun_async.operations.scrubbing import refuse_scrubbed
from narrun_async.progress import Progress
from narrun_async.progress.commits import CommitJournal
from narrun_async.reporting.estimate_lines import estimate_lines
from narrun_async.reporting.legacy_lines import migrated_lines
from narrun_async.stores import SqliteStore

#: in flight while estimating where the configuration says `auto`: what a run begins with
AUTO_SAMPLE_CONCURRENCY = 4


async def estimate_experiment(
    request: RunRequest, environment: Mapping[str, str], *, k: int, keep: bool, tell: Tell, say: Tell
) -> ExitCode:
    """Send `k` narratives spread over the cohort of a new experiment, and extrapolate.

    :param keep: create the experiment and store the answers; otherwise nothing is written anywhere
    :raises NarrunError: as a run would end
    """
    assert request.config_file is not None
    config = load_config(request.config_file, environment, request.overrides)
    database = chosen_database(request, config, environment)
    if not keep:
        items, n_narratives = await _items_without_writing(database, config, k)
        async with open_endpoint(config, environment, api_url=None) as endpoint:
            outcomes, _ = await _send(config, endpoint, items)
        _say_estimate(config, outcomes, n_remaining=n_narratives, simulated=endpoint.is_simulated, say=say)
        tell("nothing was stored; --keep stores the answers as the beginning of an experiment")
        return ExitCode.COMPLETED
    async with writing(database, purpose="estimate") as (store, _):
        for line in migrated_lines(store.migrated):
            tell(line)
        plan = await plan_new(store, request, config, notices(config, environment))
        tell_plan(plan, tell)
        items = await pick_items(store, plan.experiment, n_remaining=plan.n_remaining, k=k)
        async with open_endpoint(config, environment, api_url=None) as endpoint:
            n_left = await _send_and_keep(store, plan, endpoint, items, say)
    tell_how_to_resume(plan, database, tell)
    return ExitCode.TEMPORARY if n_left else ExitCode.COMPLETED


async def _send_and_keep(
    store: SqliteStore, plan: RunPlan, endpoint: Endpoint, items: Sequence[WorkItem], say: Tell
) -> int:
    """A run that ends after the sample.

    :returns: how many narratives remain
    """
    started = time.monotonic()
    start = begin_run(plan, endpoint)
    run_id = await store.begin_run(start)
    outcomes, failed = await _send(plan.config, endpoint, items)
    runtime_s = time.monotonic() - started
    mark = ProgressMark(runtime_s=runtime_s, estimated_completion_time=None)
    log_dir = Path(plan.experiment.log_dir or "logs")
    with open_experiment_logs(log_dir, level=plan.config.operational.log_level):
        await store.write_batch(plan.experiment.experiment_id, run_id, [*_servings(outcomes), *failed, *outcomes], mark)
        CommitJournal(run_id, plan.counts).note(outcomes)
    summary = await finalize(store, plan.experiment, runtime_s=runtime_s)
    n_left = summary.counts.n_missing
    end = RunEnd(
        status=ExperimentStatus.INTERRUPTED if n_left else ExperimentStatus.COMPLETED,
        ended_at=utc_end(start.started_at, runtime_s),
        runtime_s=runtime_s,
        exit_code=ExitCode.TEMPORARY if n_left else ExitCode.COMPLETED,
        ended_why=f"an estimate from {len(outcomes)} narratives",
    )
    await store.end_run(plan.experiment.experiment_id, run_id, end)
    _say_estimate(plan.config, outcomes, n_remaining=n_left, simulated=endpoint.is_simulated, say=say)
    return n_left


def _servings(outcomes: Sequence[Outcome]) -> list[Serving]:
    """Who answered, each once, for the runs that go on from here to compare with."""
    guard = ServingGuard([], stops=False, tell=lambda _: None)
    return [serving for outcome in outcomes if (serving := guard.meet(outcome)) is not None]


async def _send(
    config: ExperimentConfig, endpoint: Endpoint, items: Sequence[WorkItem]
) -> tuple[Sequence[Outcome], Sequence[Attempt]]:
    """The outcomes, and the calls that decided nothing."""
    spec, rng, failed = call_spec(config), random.Random(), list[Attempt]()
    settings = limit_settings(config.operational, auto_means=AUTO_SAMPLE_CONCURRENCY)
    limits = EndpointLimits(
        settings,
        probe=make_probe(endpoint.provider, spec.template, deadline_s=spec.attempt_deadline_s),
        clock=time.monotonic,
        sleep=anyio.sleep,
        rng=rng,
    )
    progress = Progress(n_done_before=0, n_remaining=len(items), clock=time.monotonic)

    async def record(attempt: Attempt) -> None:
        failed.append(attempt)

    caller = Caller(spec, endpoint.provider, limits, progress, record=record, sleep=anyio.sleep, rng=rng)
    return await call_items(items, caller, limits), failed


async def _items_without_writing(database: Path, config: ExperimentConfig, k: int) -> tuple[Sequence[WorkItem], int]:
    """The sample, and the size of the cohort: from the database where it holds the file, else from the file."""
    file, limit = source_file(config.data), config.run.max_narratives
    if database.exists():
        async with reading(database) as store:
            known = await find_known_source(store, file)
            if known is not None:
                cohort = await store.load_cohort(known.checksum, max_narratives=limit)
                await refuse_scrubbed(store, cohort)
                experiment = _unborn(cohort)
                return await pick_items(store, experiment, n_remaining=cohort.n_narratives, k=k), cohort.n_narratives
    return _items_of_file(file, limit, k)


def _items_of_file(file: SourceFile, limit: int | None, k: int) -> tuple[Sequence[WorkItem], int]:
    source = file.open()
    n_found = sum(1 for _ in source.iter_narratives())
    n_narratives = min(n_found, limit or n_found)
    wanted = frozenset(spread_evenly(n_narratives, k))
    items = [_item(one, rank) for rank, one in enumerate(source.iter_narratives()) if rank in wanted]
    return items, n_narratives


def _item(narrative: SourceNarrative, rank: int) -> WorkItem:
    return WorkItem(
        narrative_id=NarrativeId(rank + 1),
        row_num=rank + 1,
        incident_id=narrative.incident_id,
        narrative_type=narrative.narrative_type.value,
        narrative_text=narrative.narrative_text,
        text_sha256=narrative.text_sha256,
        manual_flag_ind=narrative.manual_flag_ind,
        manual_flag=narrative.manual_flag,
    )


def _unborn(cohort: Cohort) -> Experiment:
    """An experiment that has no rows, because it does not exist; its remaining set is the whole cohort."""
    return Experiment(
        experiment_id=ExperimentId(""),
        name="",
        status=ExperimentStatus.RUNNING,
        cohort=cohort,
        config_json=None,
        config_sha256=None,
        log_dir=None,
        created_at="",
        columns={},
    )


def _say_estimate(
    config: ExperimentConfig, outcomes: Sequence[Outcome], *, n_remaining: int, simulated: bool, say: Tell
) -> None:
    calls = [call for outcome in outcomes if (call := sampled_call(outcome)) is not None]
    if not calls:
        say("no call came to an end, so nothing can be said")
        return
    settings = limit_settings(config.operational, auto_means=AUTO_SAMPLE_CONCURRENCY)
    estimate = extrapolate(
        calls,
        n_remaining=n_remaining,
        concurrency=settings.concurrency or AUTO_SAMPLE_CONCURRENCY,
        prices=budget_limits(config.operational).prices,
    )
    for line in estimate_lines(estimate, is_auto=config.operational.concurrency == "auto", simulated=simulated):
        say(line)

"""`narrun estimate`: send a few narratives, and tell what all of them will take."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio

from narrun_async.app.allowances import budget_limits, limit_settings
from narrun_async.app.databases import reading, source_file, writing
from narrun_async.app.endpoints import Endpoint, call_spec, open_endpoint
from narrun_async.app.planning import RunPlan, RunRequest, chosen_database, load_config, plan_new
from narrun_async.app.running import Tell, tell_how_to_resume, tell_plan
from narrun_async.app.working import begin_run
from narrun_async.caller import Caller, choose_format, make_probe
from narrun_async.clock import utc_end
from narrun_async.config import ExperimentConfig, notices
from narrun_async.errors import ExitCode
from narrun_async.finalizer import finalize
from narrun_async.limits import EndpointLimits, ServingGuard
from narrun_async.logs import open_experiment_logs
from narrun_async.metrics import extrapolate, spread_evenly
from narrun_async.models import (
    AnswerFormat,
    Attempt,
    ExperimentStatus,
    NarrativeId,
    Outcome,
    ProgressMark,
    RunEnd,
    Selection,
    Serving,
    SourceNarrative,
    UncalledCounts,
    WorkItem,
)
from narrun_async.operations.estimating import call_items, pick_items, sampled_call
from narrun_async.operations.ingesting import find_known_source
from narrun_async.operations.previewing import Preview, distinct, preview_file, preview_source, unborn_experiment
from narrun_async.operations.scrubbing import refuse_scrubbed
from narrun_async.progress import Progress
from narrun_async.progress.commits import CommitJournal
from narrun_async.reporting.banner import UNSCREENED_NOTICE, answer_words
from narrun_async.reporting.estimate_lines import estimate_lines
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
        items, preview = await _items_without_writing(database, config, k)

        async def tell_format(found: AnswerFormat) -> None:
            tell(f"answers    {answer_words(config.model, found)}")

        async with open_endpoint(config, environment, api_url=None) as endpoint:
            sample = await _send(config, endpoint, items, on_format=tell_format)
        if preview.is_unscreened:
            tell(f"NOTE: {UNSCREENED_NOTICE}")
        _say_estimate(
            config,
            sample,
            n_remaining=preview.n_to_ask,
            uncalled=preview.uncalled,
            simulated=endpoint.is_simulated,
            say=say,
        )
        tell("nothing was stored; --keep stores the answers as the beginning of an experiment")
        return ExitCode.COMPLETED
    async with writing(database, purpose="estimate", tell=tell, creates=True) as (store, _):
        plan = await plan_new(store, request, config, notices(config, environment))
        tell_plan(plan, tell)
        items = await pick_items(store, plan.experiment, n_remaining=plan.n_to_ask, k=k)
        async with open_endpoint(config, environment, api_url=None) as endpoint:
            n_left = await _send_and_keep(store, plan, endpoint, items, tell=tell, say=say)
    tell_how_to_resume(plan, database, tell)
    return ExitCode.TEMPORARY if n_left else ExitCode.COMPLETED


async def _send_and_keep(
    store: SqliteStore, plan: RunPlan, endpoint: Endpoint, items: Sequence[WorkItem], *, tell: Tell, say: Tell
) -> int:
    """A run that ends after the sample.

    :returns: how many narratives remain
    """
    started = time.monotonic()
    start = begin_run(plan, endpoint)
    run_id = await store.begin_run(start)

    async def keep_format(found: AnswerFormat) -> None:
        await store.update_experiment(plan.experiment.experiment_id, {"answer_format": found.value})
        tell(f"answers    {answer_words(plan.config.model, found)}")

    sample = await _send(plan.config, endpoint, items, on_format=keep_format)
    outcomes, failed = sample
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
    uncalled = await store.count_uncalled(plan.experiment, Selection.MISSING)
    _say_estimate(
        plan.config,
        sample,
        n_remaining=n_left - uncalled.n_rows,
        uncalled=uncalled,
        simulated=endpoint.is_simulated,
        say=say,
    )
    return n_left


def _servings(outcomes: Sequence[Outcome]) -> list[Serving]:
    """Who answered, each once, for the runs that go on from here to compare with."""
    guard = ServingGuard([], stops=False, tell=lambda _: None)
    return [serving for outcome in outcomes if (serving := guard.meet(outcome)) is not None]


#: the outcomes, and the calls that decided nothing
Sample = tuple[Sequence[Outcome], Sequence[Attempt]]


async def _send(
    config: ExperimentConfig,
    endpoint: Endpoint,
    items: Sequence[WorkItem],
    *,
    on_format: Callable[[AnswerFormat], Awaitable[None]],
) -> Sample:
    """The outcomes, and the calls that decided nothing.

    :param on_format: told what `response_format: auto` came to, before the first narrative is sent
    """
    spec, rng, failed = call_spec(config), random.Random(), list[Attempt]()
    settings = limit_settings(config.operational, auto_means=AUTO_SAMPLE_CONCURRENCY)
    limits = EndpointLimits(
        settings,
        probe=make_probe(endpoint.provider, spec.template, deadline_s=spec.attempt_deadline_s),
        clock=time.monotonic,
        sleep=anyio.sleep,
        rng=rng,
    )
    if spec.choice is not None:
        found = await choose_format(spec.choice, endpoint.provider, limits, deadline_s=spec.attempt_deadline_s)
        await on_format(found)
        spec = spec.decided(found)
    progress = Progress(n_done_before=0, n_remaining=len(items), clock=time.monotonic)

    async def record(attempt: Attempt) -> None:
        failed.append(attempt)

    caller = Caller(spec, endpoint.provider, limits, progress, record=record, sleep=anyio.sleep, rng=rng)
    return await call_items(items, caller, limits), failed


async def _items_without_writing(
    database: Path, config: ExperimentConfig, k: int
) -> tuple[Sequence[WorkItem], Preview]:
    """The sample, and what a run would come to: from the database where it holds the file, else from the file."""
    file = source_file(config.data)
    if database.exists():
        async with reading(database) as store:
            known = await find_known_source(store, file)
            if known is not None:
                cohort = await store.load_cohort(known.checksum, max_narratives=config.run.max_narratives)
                await refuse_scrubbed(store, cohort)
                preview = await preview_source(store, file, known, config.run)
                experiment = unborn_experiment(cohort, config.run)
                return await pick_items(store, experiment, n_remaining=preview.n_to_ask, k=k), preview
    source = file.open()
    preview = preview_file(source.iter_narratives(), config.run, file.rules())
    wanted = frozenset(preview.asked[place] for place in spread_evenly(preview.n_to_ask, k))
    narratives = enumerate(distinct(source.iter_narratives()))
    return [_item(one, position) for position, one in narratives if position in wanted], preview


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


def _say_estimate(
    config: ExperimentConfig,
    sample: Sample,
    *,
    n_remaining: int,
    uncalled: UncalledCounts,
    simulated: bool,
    say: Tell,
) -> None:
    outcomes, undecided = sample
    calls = [call for outcome in outcomes if (call := sampled_call(outcome, undecided)) is not None]
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
    is_auto = config.operational.concurrency == "auto"
    for line in estimate_lines(estimate, uncalled, is_auto=is_auto, simulated=simulated):
        say(line)

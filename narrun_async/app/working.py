"""Puts one run together from its plan and its endpoint, and lets it work: what running and sweeping have in common."""

from __future__ import annotations

import gc
import os
import socket
import sys
from functools import partial
from pathlib import Path

from narrun_async import __version__
from narrun_async.app.allowances import limit_settings
from narrun_async.app.descriptors import within_room
from narrun_async.app.endpoints import Endpoint, call_spec
from narrun_async.app.planning import RunPlan
from narrun_async.clock import utc_now
from narrun_async.control import RunControl
from narrun_async.limits import Budget, EndpointLimits
from narrun_async.logs import open_experiment_logs
from narrun_async.models import RunStart
from narrun_async.planner import CanaryPlan
from narrun_async.progress import Progress
from narrun_async.progress.display import show_progress
from narrun_async.runner import Runner, RunResult, RunSettings
from narrun_async.stores import SqliteStore
from narrun_async.writer import BatchPolicy, storage_pauses


async def work_on(
    store: SqliteStore,
    plan: RunPlan,
    endpoint: Endpoint,
    *,
    budget: Budget,
    most_calls: int,
    interactive: bool,
    name: str | None = None,
    after: EndpointLimits | None = None,
) -> tuple[RunResult, EndpointLimits]:
    """One run of one experiment, to its end.

    :param most_calls: what the process has room for
    :param name: what the progress line calls it; None: the experiment's name
    :param after: the limits of an earlier run of this process on the same endpoint
    :returns: how it ended, and its limits, for a run that comes after it
    """
    operational = plan.config.operational
    runner = Runner(
        store,
        endpoint.provider,
        plan.experiment,
        spec=call_spec(plan.config, plan.experiment.answer_format),
        settings=RunSettings(
            limits=within_room(limit_settings(operational), most_calls),
            max_passes=operational.max_passes,
            max_consecutive_errors=operational.max_consecutive_errors,
            page_size=operational.page_size,
            stops_on_model_change=operational.on_model_change == "stop",
            canaries=CanaryPlan(count=operational.canaries, every=operational.canary_every),
            most_calls=most_calls,
        ),
        budget=budget,
        batches=BatchPolicy(storage_pauses_s=storage_pauses(operational.max_storage_wait_s)),
        accepts_restored=plan.accepts_restored,
        after=after,
    )
    calm_garbage_collector()
    start = begin_run(plan, endpoint)
    log_dir = Path(plan.experiment.log_dir or "logs")
    with open_experiment_logs(log_dir, level=operational.log_level):
        result = await runner.run(start, partial(_watch, name or plan.experiment.name, interactive))
    return result, runner.limits


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

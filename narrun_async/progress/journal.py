"""Writes what a run goes through into its log files; opens none and decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from narrun_async.logs import ERROR_LOG, PERFORMANCE_LOG, RUN_LOG
from narrun_async.models import Failure, Outcome, WriterMessage
from narrun_async.progress.display import render_line
from narrun_async.progress.tally import Progress
from narrun_async.reporting.wording import duration_text

#: how often it is looked whether the run waits
LOOK_EVERY_S = 1.0
#: looks between two lines of performance.log
LOOKS_PER_LINE = 10


async def log_progress(progress: Progress, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
    """A line in performance.log every ten seconds, and one in run.log when the run starts or stops waiting.

    Runs until it is cancelled; the last state is logged then.
    """
    waits_since: float | None = None
    try:
        while True:
            for _ in range(LOOKS_PER_LINE):
                await sleep(LOOK_EVERY_S)
                waits_since = _log_waiting(progress, waits_since)
            PERFORMANCE_LOG.info("%s", render_line(progress.snapshot()))
    finally:
        PERFORMANCE_LOG.info("%s", render_line(progress.snapshot()))


def _log_waiting(progress: Progress, waits_since: float | None) -> float | None:
    """Since when the run waits, in seconds of its runtime."""
    snapshot = progress.snapshot()
    if snapshot.waiting_for is None:
        if waits_since is not None:
            RUN_LOG.info("going on after waiting %s", duration_text(snapshot.runtime_s - waits_since))
        return None
    if waits_since is None:
        RUN_LOG.warning("waiting: %s", snapshot.waiting_for)
        return snapshot.runtime_s
    return waits_since


def log_failures(messages: Sequence[WriterMessage]) -> None:
    """A line in errors.log for every failed call and every error row of a batch that is on disk.

    The sentences are those of the rows: without narrative text, prompt or answer.
    """
    for message in messages:
        if not isinstance(message, Outcome):
            if message.error_category is not None:
                ERROR_LOG.warning(
                    "narrative %d: call failed, %s: %s%s",
                    message.narrative_id,
                    message.error_category.value,
                    message.error_message,
                    "" if message.charged else " (not charged)",
                )
        elif isinstance(message.verdict, Failure):
            ERROR_LOG.error(
                "narrative %d: error row, %s: %s",
                message.item.narrative_id,
                message.verdict.category.value,
                message.verdict.message,
            )

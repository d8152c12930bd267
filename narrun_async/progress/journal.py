"""Writes what a run goes through into its log files; opens none and decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from narrun_async.logs import ERROR_LOG, PERFORMANCE_LOG
from narrun_async.models import Attempt, Failure, Outcome, WriterMessage
from narrun_async.progress.display import render_line
from narrun_async.progress.tally import Progress

#: between two lines of performance.log
LINE_EVERY_S = 10.0


async def log_progress(progress: Progress, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
    """A line in performance.log every ten seconds until it is cancelled; the last state is logged then."""
    try:
        while True:
            await sleep(LINE_EVERY_S)
            PERFORMANCE_LOG.info("%s", render_line(progress.snapshot()))
    finally:
        PERFORMANCE_LOG.info("%s", render_line(progress.snapshot()))


def log_failures(messages: Sequence[WriterMessage]) -> None:
    """A line in errors.log for every failed call and every error row of a batch that is on disk.

    The sentences are those of the rows: without narrative text, prompt or answer.
    """
    for message in messages:
        if isinstance(message, Attempt):
            if message.error_category is not None:
                ERROR_LOG.warning(
                    "narrative %d: call failed, %s: %s%s",
                    message.narrative_id,
                    message.error_category.value,
                    message.error_message,
                    "" if message.charged else " (not charged)",
                )
        elif isinstance(message, Outcome) and isinstance(message.verdict, Failure):
            ERROR_LOG.error(
                "narrative %d: %s, %s: %s",
                message.item.narrative_id,
                "canary without an answer" if message.item.is_canary else "error row",
                message.verdict.category.value,
                message.verdict.message,
            )

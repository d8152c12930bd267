"""Picks a few narratives spread over what remains, and sends them, so that the time and cost of all can be foretold."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio

from narrun_async.caller import AttemptFailed, Caller, Flight
from narrun_async.limits import EndpointLimits
from narrun_async.metrics import SampledCall, spread_evenly
from narrun_async.models import Experiment, Failure, Outcome, PageCursor, RunId, Selection, WorkItem
from narrun_async.ports import RemainingStore

#: items read at once while looking for those to be sent
PAGE_ITEMS = 500


async def pick_items(store: RemainingStore, experiment: Experiment, *, n_remaining: int, k: int) -> Sequence[WorkItem]:
    """Up to `k` items spread over what is missing of an experiment; one page in memory."""
    wanted = deque(spread_evenly(n_remaining, k))
    picked: list[WorkItem] = []
    cursor, position = PageCursor(), 0
    while wanted:
        page = await store.load_page(experiment, Selection.MISSING, run_id=RunId(0), after=cursor, limit=PAGE_ITEMS)
        if not page:
            break
        while wanted and wanted[0] < position + len(page):
            picked.append(page[wanted.popleft() - position])
        position += len(page)
        cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return picked


async def call_items(items: Sequence[WorkItem], caller: Caller, limits: EndpointLimits) -> Sequence[Outcome]:
    """Send each item as a run would, retries included, and return what became of those that came to an end.

    :raises NarrunError: as a run would end
    """
    outcomes: list[Outcome] = []

    async def call(item: WorkItem) -> None:
        flight = Flight(item=item, is_last_pass=True)
        outcome: Outcome | None = None
        try:
            while outcome is None:
                await limits.wait_open()
                async with limits.slots.new:
                    if limits.is_open_for_calls:
                        outcome = await caller.attempt(flight)
        except AttemptFailed as failed:
            outcome = await caller.retry(flight, failed)
        if outcome is not None:
            outcomes.append(outcome)

    async with anyio.create_task_group() as calls:
        for item in items:
            calls.start_soon(call, item)
    return outcomes


def sampled_call(outcome: Outcome) -> SampledCall | None:
    """What an outcome tells about the time and tokens of others; None where no call was decisive."""
    if outcome.attempt is None:
        return None
    return SampledCall(
        duration_s=outcome.attempt.duration_s,
        prompt_tokens=outcome.attempt.usage.prompt_tokens,
        completion_tokens=outcome.attempt.usage.completion_tokens,
        is_error=isinstance(outcome.verdict, Failure),
    )

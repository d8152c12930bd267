"""Picks a few narratives spread over what remains, and sends them, so that the time and cost of all can be foretold."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import anyio

from narrun_async.caller import AttemptFailed, Caller, Flight
from narrun_async.limits import EndpointLimits
from narrun_async.metrics import SampledCall, spread_evenly
from narrun_async.models import (
    NO_USAGE,
    Attempt,
    Experiment,
    Failure,
    Outcome,
    PageCursor,
    RunId,
    Selection,
    WorkItem,
)
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


def sampled_call(outcome: Outcome, undecided: Sequence[Attempt]) -> SampledCall | None:
    """What an outcome tells about the time and tokens of others; None where no call was answered.

    :param undecided: calls that decided nothing; an answer among them was paid for and asked for once more
    """
    answered = [
        attempt
        for attempt in undecided
        if attempt.narrative_id == outcome.item.narrative_id and attempt.usage != NO_USAGE
    ]
    calls = [*answered, outcome.attempt] if outcome.attempt is not None else answered
    if not calls:
        return None
    return SampledCall(
        duration_s=sum(call.duration_s for call in calls),
        prompt_tokens=_sum_known(call.usage.prompt_tokens for call in calls),
        completion_tokens=_sum_known(call.usage.completion_tokens for call in calls),
        is_error=isinstance(outcome.verdict, Failure),
    )


def _sum_known(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None

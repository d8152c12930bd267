"""Feeds one pass over the remaining set to the dispatcher, page by page; holds one page in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from narrun_async.models import Copy, Experiment, PageCursor, RunId, Selection, Skip, WorkItem, WriterMessage
from narrun_async.ports import RemainingStore
from narrun_async.streams import send


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryPlan:
    """Narratives that have results already and are asked again, to see whether the endpoint still answers alike."""

    #: how many; 0: none
    count: int = 0
    #: narratives of the remaining set between two rounds
    every: int = 500


async def plan_pass(
    store: RemainingStore,
    experiment: Experiment,
    selection: Selection,
    *,
    run_id: RunId,
    page_size: int,
    work: MemoryObjectSendStream[WorkItem],
    canaries: CanaryPlan | None = None,
) -> int:
    """Send every item of the remaining set once, in narrative order, and close the stream.

    Rows written meanwhile lie behind the cursor, so nothing is met twice in a pass. A round of canaries goes before the
    first item (of a resumed run: a new experiment has no results to compare with) and after every so many.

    :returns: how many items were sent, canaries left out
    :raises StorageError: a page cannot be read
    """
    plan = canaries or CanaryPlan()
    cursor, sent = PageCursor(), 0
    async with work:
        while page := await store.load_page(experiment, selection, run_id=run_id, after=cursor, limit=page_size):
            for item in page:
                try:
                    if plan.count and sent % plan.every == 0:
                        for canary in await store.load_canaries(experiment, limit=plan.count):
                            await send(work, canary)
                    await send(work, item)
                except anyio.BrokenResourceError:
                    return sent  # nobody works any more: the run is stopping
                sent += 1
            cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return sent


async def plan_uncalled(
    load_page: Callable[[PageCursor], Awaitable[Sequence[Skip] | Sequence[Copy]]],
    rows: MemoryObjectSendStream[WriterMessage],
) -> None:
    """Send what gets its row without a call straight to the writer, in narrative order, and close the stream.

    :param load_page: what comes after a narrative; empty at the end
    :raises StorageError: a page cannot be read
    """
    cursor = PageCursor()
    async with rows:
        while page := await load_page(cursor):
            for row in page:
                try:
                    await send(rows, row)
                except anyio.BrokenResourceError:
                    return  # the writer has given up
            cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)

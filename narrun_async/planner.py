"""Feeds one pass over the remaining set to the dispatcher, page by page; holds one page in memory."""

from __future__ import annotations

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from narrun_async.models import Experiment, PageCursor, RunId, Selection, WorkItem
from narrun_async.ports import RemainingStore
from narrun_async.streams import send


async def plan_pass(
    store: RemainingStore,
    experiment: Experiment,
    selection: Selection,
    *,
    run_id: RunId,
    page_size: int,
    work: MemoryObjectSendStream[WorkItem],
) -> int:
    """Send every item of the remaining set once, in narrative order, and close the stream.

    Rows written meanwhile lie behind the cursor, so nothing is met twice in a pass.

    :returns: how many items were sent
    :raises StorageError: a page cannot be read
    """
    cursor, sent = PageCursor(), 0
    async with work:
        while page := await store.load_page(experiment, selection, run_id=run_id, after=cursor, limit=page_size):
            for item in page:
                try:
                    await send(work, item)
                except anyio.BrokenResourceError:
                    return sent  # nobody works any more: the run is stopping
                sent += 1
            cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return sent

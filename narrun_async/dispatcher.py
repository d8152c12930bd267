"""Owns the workers: a bounded number of items under way, retries before new work, outcomes to the writer."""

from __future__ import annotations

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from narrun_async.caller import AttemptFailed, Caller, Flight
from narrun_async.control import RunControl
from narrun_async.errors import NarrunError, RunStopping
from narrun_async.limits import EndpointLimits, ErrorGuard
from narrun_async.models import Outcome, WorkItem, WriterMessage

#: workers per slot: one item in flight and one that backs off, so at most 2C items are open
WORKERS_PER_SLOT = 2


class Dispatcher:
    """Runs one pass: takes items while there are any, and returns when the last of them is handed over."""

    def __init__(self, caller: Caller, limits: EndpointLimits, guard: ErrorGuard, control: RunControl) -> None:
        self._caller = caller
        self._limits = limits
        self._guard = guard
        self._control = control
        #: items left for the next pass
        self.n_deferred = 0

    async def run_pass(
        self,
        work: MemoryObjectReceiveStream[WorkItem],
        outcomes: MemoryObjectSendStream[WriterMessage],
        *,
        is_last_pass: bool,
    ) -> None:
        """Work until the stream of items ends or the run stops; closes both streams.

        Cancelled, it abandons what is in flight; those items stay in the remaining set.
        """
        async with work, outcomes, anyio.create_task_group() as workers:
            for _ in range(WORKERS_PER_SLOT * self._limits.slots.limit):
                workers.start_soon(self._work, work, outcomes, is_last_pass)

    async def _work(
        self,
        work: MemoryObjectReceiveStream[WorkItem],
        outcomes: MemoryObjectSendStream[WriterMessage],
        is_last_pass: bool,
    ) -> None:
        try:
            while not self._control.is_stopping:
                await self._work_one(work, outcomes, is_last_pass)
        except (anyio.EndOfStream, RunStopping, anyio.BrokenResourceError):
            return  # no more items, no more time, or nobody to hand outcomes to
        except NarrunError as error:
            self._control.stop(error)

    async def _work_one(
        self,
        work: MemoryObjectReceiveStream[WorkItem],
        outcomes: MemoryObjectSendStream[WriterMessage],
        is_last_pass: bool,
    ) -> None:
        await self._limits.wait_open()
        # The slot is held until the outcome is handed over, so that a writer that cannot store stops the calls.
        async with self._limits.slots.new:
            if not self._limits.is_open_for_calls:
                return None
            flight = Flight(item=await work.receive(), is_last_pass=is_last_pass)
            if self._control.is_stopping:
                return None
            decided = await self._attempt(flight)
            if isinstance(decided, Outcome):
                return await self._deliver(decided, outcomes)
        outcome = await self._caller.retry(flight, decided)
        if outcome is None:
            self.n_deferred += 1
            return None
        return await self._deliver(outcome, outcomes)

    async def _attempt(self, flight: Flight) -> Outcome | AttemptFailed:
        try:
            return await self._caller.attempt(flight)
        except AttemptFailed as failed:
            return failed

    async def _deliver(self, outcome: Outcome, outcomes: MemoryObjectSendStream[WriterMessage]) -> None:
        for admitted in self._guard.admit(outcome):
            await outcomes.send(admitted)

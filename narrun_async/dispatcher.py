"""Owns the workers: a bounded number of items under way, retries before new work, outcomes to the writer."""

from __future__ import annotations

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from narrun_async.caller import AttemptFailed, Caller, Flight
from narrun_async.control import RunControl
from narrun_async.errors import NarrunError, RunStopping
from narrun_async.limits import EndpointLimits, ErrorGuard, ServingGuard
from narrun_async.models import Outcome, WorkItem, WriterMessage
from narrun_async.streams import receive, send

#: workers per slot: one item in flight and one that backs off, so at most 2C items are open
WORKERS_PER_SLOT = 2


class Dispatcher:
    """Runs one pass: takes items while there are any, and returns when the last of them is handed over.

    :param is_last_pass: items whose attempts all fail become error rows instead of being left for another pass
    """

    def __init__(
        self,
        caller: Caller,
        limits: EndpointLimits,
        guard: ErrorGuard,
        serving: ServingGuard,
        control: RunControl,
        *,
        is_last_pass: bool,
    ) -> None:
        self._caller = caller
        self._limits = limits
        self._guard = guard
        self._serving = serving
        self._control = control
        self._is_last_pass = is_last_pass
        self._n_workers = 0
        self._hiring = anyio.CancelScope()
        #: items left for the next pass
        self.n_deferred = 0

    async def run_pass(
        self, work: MemoryObjectReceiveStream[WorkItem], outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> None:
        """Work until the stream of items ends or the run stops; closes both streams. For one pass only.

        Cancelled, it abandons what is in flight; those items stay in the remaining set.
        """
        async with work, outcomes, anyio.create_task_group() as workers:
            with self._hiring:
                while True:
                    while self._n_workers < WORKERS_PER_SLOT * self._limits.slots.limit:
                        self._n_workers += 1
                        workers.start_soon(self._work, work, outcomes)
                    await self._limits.slots.wait_resized()

    async def _work(
        self, work: MemoryObjectReceiveStream[WorkItem], outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> None:
        try:
            while not self._control.is_stopping:
                await self._limits.wait_open()
                async with self._limits.slots.new:
                    undecided = await self._work_in_slot(work, outcomes)
                if undecided is not None:
                    await self._retry(*undecided, outcomes)
        except (anyio.EndOfStream, RunStopping, anyio.BrokenResourceError):
            pass  # no more items, no more time, or nobody to hand outcomes to
        except NarrunError as error:
            self._control.stop(error)
        finally:
            self._n_workers -= 1
            if not self._n_workers:
                self._hiring.cancel()

    async def _work_in_slot(
        self, work: MemoryObjectReceiveStream[WorkItem], outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> tuple[Flight, AttemptFailed] | None:
        """One item after the other, until one needs a retry or the slot is wanted back: handing it on costs 8 µs.

        The slot is held until an outcome is handed over, so that a writer that cannot store stops the calls.
        """
        while self._limits.is_open_for_calls:
            item = await receive(work)
            # No other pass meets a canary again.
            flight = Flight(item=item, is_last_pass=self._is_last_pass or item.is_canary)
            if self._control.is_stopping:
                return None
            try:
                outcome = await self._caller.attempt(flight)
            except AttemptFailed as failed:
                return flight, failed
            await self._deliver(outcome, outcomes)
            if self._limits.slots.are_wanted_back:
                return None
        return None

    async def _retry(
        self, flight: Flight, failed: AttemptFailed, outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> None:
        outcome = await self._caller.retry(flight, failed)
        if outcome is None:
            self.n_deferred += 1
        else:
            await self._deliver(outcome, outcomes)

    async def _deliver(self, outcome: Outcome, outcomes: MemoryObjectSendStream[WriterMessage]) -> None:
        serving = self._serving.meet(outcome)
        if serving is not None:
            await send(outcomes, serving)
        for admitted in (outcome,) if outcome.item.is_canary else self._guard.admit(outcome):
            await send(outcomes, admitted)

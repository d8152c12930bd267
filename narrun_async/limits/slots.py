"""Owns how many calls may be in flight; retries are served before new work, and the number may change at any time."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from narrun_async.errors import RunStopping

#: calls in flight before the first success: enough to be useful, few enough that a wrong setting costs little
FIRST_WINDOW = 4


class Slots:
    """A resizable limiter with two lanes, `retry` before `new`, both held only through `async with`.

    The window lies below the limit while the endpoint has yet to prove itself: at the start, and after it went down
    again while it was recovering. Waiters are served first come, first served within a lane.
    """

    def __init__(self, limit: int, *, window: int | None = None) -> None:
        self.limit = limit
        self.window = min(limit, window or limit)
        self.held = 0
        self.peak_held = 0
        self._stopping = False
        self._resized = asyncio.Event()
        self._waiting_retries: deque[asyncio.Future[None]] = deque()
        self._waiting_new: deque[asyncio.Future[None]] = deque()
        self.retry = Lane(self, self._waiting_retries)
        self.new = Lane(self, self._waiting_new)

    def resize(self, limit: int) -> None:
        """Change the limit; takes effect as slots are given back."""
        was_open = self.window >= self.limit
        self.limit = limit
        self.window = limit if was_open else min(self.window, limit)
        self._resized.set()
        self._grant()

    async def wait_resized(self) -> None:
        """Return when the limit has been changed since the last wait."""
        await self._resized.wait()
        self._resized.clear()

    def narrow(self) -> None:
        """One call at a time, until `widen`."""
        self.window = 1

    def widen(self) -> None:
        """Twice as many calls at a time, up to the limit."""
        self.window = min(self.limit, self.window * 2)
        self._grant()

    def open(self) -> None:
        """As many calls at a time as the limit allows."""
        self.window = self.limit
        self._grant()

    @property
    def is_narrowed(self) -> bool:
        return self.window < self.limit

    @property
    def are_wanted_back(self) -> bool:
        """Whoever finished a call should leave the slot to a retry, or to nobody, rather than go on with new work."""
        return bool(self._waiting_retries) or self.held > self.window or self._stopping

    def close(self) -> None:
        """Let nobody in any more: whoever waits, and whoever comes later, gets `RunStopping`."""
        self._stopping = True
        for queue in (self._waiting_retries, self._waiting_new):
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    waiter.set_exception(RunStopping())

    async def _acquire(self, queue: deque[asyncio.Future[None]]) -> None:
        if self._stopping:
            raise RunStopping
        if self.held < self.window and not self._waiting_retries and not self._waiting_new:
            self._take()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release()
            elif waiter in queue:
                queue.remove(waiter)
            raise

    def _take(self) -> None:
        self.held += 1
        self.peak_held = max(self.peak_held, self.held)

    def _release(self) -> None:
        self.held -= 1
        self._grant()

    def _grant(self) -> None:
        while self.held < self.window:
            queue = self._waiting_retries or self._waiting_new
            if not queue:
                return
            waiter = queue.popleft()
            if not waiter.done():
                self._take()
                waiter.set_result(None)


class Lane:
    """One way into the slots: `async with slots.new:` or `async with slots.retry:`.

    :raises RunStopping: on entry, when the run is stopping
    """

    def __init__(self, slots: Slots, queue: deque[asyncio.Future[None]]) -> None:
        self._slots = slots
        self._queue = queue

    async def __aenter__(self) -> None:
        await self._slots._acquire(self._queue)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slots._release()

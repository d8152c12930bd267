"""Makes requests wait as they would at a real server: a time of their own, a queue for slots, or a batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil

from narrun_async.simulation.behaviour import Behaviour, LatencyModel


def service_time_s(behaviour: Behaviour, *, share: float, in_flight: int) -> float:
    """Seconds that serving one request takes.

    With batching, n requests in flight take 1 + slowdown * (n - 1) times as long, so throughput climbs
    towards 1 / (latency * slowdown) and never falls. Where memory holds only `thrash_above` of them, throughput beyond
    is what it was there divided by `thrash_slowdown`, however many more there are.

    :param share: where in the spread this request lies, in [0, 1)
    :param in_flight: requests at the server, this one included
    """
    mean_s = behaviour.latency_ms / 1000
    if behaviour.latency_model == LatencyModel.BATCHING:
        mean_s *= _batch_factor(behaviour, max(1, in_flight))
    return mean_s * (1 + behaviour.latency_spread * (2 * share - 1))


def _batch_factor(behaviour: Behaviour, in_flight: int) -> float:
    """How many times as long a request takes as it would alone."""
    most = behaviour.thrash_above
    if most is None or in_flight <= most:
        return 1 + behaviour.batch_slowdown * (in_flight - 1)
    return (1 + behaviour.batch_slowdown * (most - 1)) * behaviour.thrash_slowdown * in_flight / most


class Wait:
    """One request that waits; `cancel` gives its place away and is safe to repeat."""

    __slots__ = ("_queue", "done", "service_s", "timer")

    def __init__(self, queue: ServiceQueue, service_s: float, done: Callable[[], None]) -> None:
        self._queue = queue
        self.service_s = service_s
        self.done = done
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        self._queue.leave(self)


class ServiceQueue:
    """Serves requests in order of arrival; with the slots model only so many at a time."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._waiting: deque[Wait] = deque()
        self._served: set[Wait] = set()

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def join(self, service_s: float, done: Callable[[], None]) -> Wait:
        """Call `done` once this request has been served."""
        wait = Wait(self, service_s, done)
        self._waiting.append(wait)
        self._start_waiting()
        return wait

    def leave(self, wait: Wait) -> None:
        """The client went away: its place goes to the next one."""
        if wait.timer is None:
            if wait in self._waiting:
                self._waiting.remove(wait)
            return
        wait.timer.cancel()
        self._served.discard(wait)
        self._start_waiting()

    def change_behaviour(self, behaviour: Behaviour) -> None:
        """Take a new number of slots or another model; those that are being served keep their time."""
        self._behaviour = behaviour
        self._start_waiting()

    def _start_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        limited = self._behaviour.latency_model == LatencyModel.SLOTS
        while self._waiting and not (limited and len(self._served) >= self._behaviour.slots):
            wait = self._waiting.popleft()
            self._served.add(wait)
            wait.timer = loop.call_later(wait.service_s, self._finish, wait)

    def _finish(self, wait: Wait) -> None:
        self._served.discard(wait)
        self._start_waiting()
        wait.done()


class RateLimit:
    """A token bucket that holds a second's worth; the clock is given."""

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._then_s = 0.0

    def wait_s(self, rate_per_s: float, *, now_s: float) -> int:
        """0 when a request may pass (it is then counted), else whole seconds until one may."""
        capacity = max(1.0, rate_per_s)
        tokens = capacity if self._tokens is None else self._tokens + (now_s - self._then_s) * rate_per_s
        self._then_s = now_s
        self._tokens = min(capacity, tokens)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return ceil((1 - self._tokens) / rate_per_s)


class CountingRateLimit:
    """A sliding window that counts every request, refused ones too; the clock is given.

    A second's worth in any second; below one a second, one request in any 1 / rate seconds.
    """

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()

    def wait_s(self, rate_per_s: float, *, now_s: float) -> int:
        """0 when a request may pass, else whole seconds of silence until one may; counted in either case."""
        most = max(1, int(rate_per_s))
        span_s = most / rate_per_s
        while self._arrivals and self._arrivals[0] <= now_s - span_s:
            self._arrivals.popleft()
        self._arrivals.append(now_s)
        if len(self._arrivals) <= most:
            return 0
        return ceil(self._arrivals[-most] + span_s - now_s)

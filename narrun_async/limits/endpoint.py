"""Puts the limits of one endpoint together, so that the caller asks one object."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from narrun_async.limits.breaker import CircuitBreaker, Probe
from narrun_async.limits.gate import OverloadGate
from narrun_async.limits.patience import Patience
from narrun_async.limits.slots import FIRST_WINDOW, Slots
from narrun_async.retrying import CallFailure, FailureClass


class EndpointLimits:
    """Slots, gate and breaker of one endpoint, and the patience that they share.

    :param clock: monotonic seconds
    :param sleep: seconds; may raise `RunStopping`
    """

    def __init__(
        self,
        *,
        concurrency: int,
        max_wait_s: float,
        probe: Probe,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self.slots = Slots(concurrency, window=FIRST_WINDOW)
        self.patience = Patience(max_wait_s, clock=clock)
        self.gate = OverloadGate(self.patience, clock=clock, sleep=sleep, rng=rng)
        self.breaker = CircuitBreaker(probe, self.slots, self.patience, sleep=sleep, rng=rng)

    @property
    def is_open_for_calls(self) -> bool:
        return not self.breaker.is_open and not self.gate.is_closed

    @property
    def waiting_for(self) -> str | None:
        """Why no calls are sent, in a few words for people; None while they are."""
        if self.breaker.is_open:
            return "the endpoint is not well"
        return "the endpoint is overloaded" if self.gate.is_closed else None

    async def wait_open(self) -> None:
        """Return when calls may be sent. To be awaited without holding a slot.

        :raises RunStopping: the run stops meanwhile
        """
        while not self.is_open_for_calls:
            await self.breaker.wait_closed()
            await self.gate.wait_open()

    def record_success(self) -> None:
        """The endpoint answered a narrative, usably or not."""
        self.patience.restore()
        self.gate.record_success()
        self.breaker.record_success()

    def record_refusal(self) -> None:
        """The endpoint is well and refused a request: no reason to wait, and none to send more calls at a time."""
        self.patience.restore()
        self.gate.record_success()
        self.breaker.record_refusal()

    async def charge(self, failure: CallFailure, *, call_started: float, was_alone: bool) -> tuple[bool, bool]:
        """Whose fault was a failed call? See `CircuitBreaker.charge`; an overload is never the narrative's."""
        if failure.failure_class is FailureClass.OVERLOAD:
            self.gate.close(call_started=call_started, retry_after_s=failure.retry_after_s, problem=failure.message)
            return False, False
        charged, is_suspect = await self.breaker.charge(failure, was_alone=was_alone)
        if charged:
            self.patience.restore()
        return charged, is_suspect

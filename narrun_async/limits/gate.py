"""Owns the pause that an overloaded endpoint asks for: one gate for all calls (429, 503, 529)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from narrun_async.limits.patience import Patience
from narrun_async.logs import RUN_LOG

#: first wait where the endpoint names none; doubles with each wave that follows without a success
FIRST_WAIT_S = 1.0
#: shortest wait, whatever the endpoint names; doubles likewise, because "at once" may be said for hours
SHORTEST_WAIT_S = 0.1
#: longest wait that we choose ourselves
LONGEST_WAIT_S = 30.0
#: calls start again within this share of the wait, at most STAGGER_CAP_S, so that they do not arrive as one burst
STAGGER_SHARE = 0.25
STAGGER_CAP_S = 2.0


class OverloadGate:
    """Closed until the time the endpoint named; everybody waits in front of it, holding no slot.

    :param sleep: seconds; may raise `RunStopping`
    """

    def __init__(
        self,
        patience: Patience,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._closed_at = float("-inf")
        self._opens_at = float("-inf")
        self._wait_s = 0.0
        self._waves = 0

    @property
    def is_closed(self) -> bool:
        return self._clock() < self._opens_at

    def close(self, *, call_started: float, retry_after_s: float | None, problem: str) -> None:
        """An endpoint refused a call for being too busy.

        Refusals of calls that were sent before the gate closed belong to the same wave and do not lengthen the wait
        that we choose ourselves.

        :param call_started: monotonic seconds
        :raises WaitedTooLongError: the wait would pass `--max-wait`
        """
        now = self._clock()
        same_wave = call_started <= self._closed_at
        if not same_wave:
            self._waves += 1
            self._closed_at = now
        if retry_after_s is None and same_wave:
            return
        if retry_after_s is None:
            wait_s = self._chosen_wait_s(FIRST_WAIT_S)
        else:
            wait_s = max(retry_after_s, self._chosen_wait_s(SHORTEST_WAIT_S))
        self._patience.spend(problem, coming_wait_s=wait_s)
        if now + wait_s > self._opens_at:
            RUN_LOG.info("the endpoint is overloaded, no calls for %.1f s: %s", wait_s, problem)
            self._wait_s = wait_s
            self._opens_at = now + wait_s

    def record_success(self) -> None:
        self._waves = 0

    async def wait_open(self) -> None:
        """Return when the gate is open, a little after the others.

        :raises RunStopping: the run stops meanwhile
        """
        while (remaining_s := self._opens_at - self._clock()) > 0:
            stagger_s = min(STAGGER_CAP_S, STAGGER_SHARE * self._wait_s)
            await self._sleep(remaining_s + self._rng.uniform(0, stagger_s))

    def _chosen_wait_s(self, first_s: float) -> float:
        # The exponent is bounded because a float overflows at 2^1024.
        return min(LONGEST_WAIT_S, first_s * 2.0 ** min(max(self._waves - 1, 0), 64))

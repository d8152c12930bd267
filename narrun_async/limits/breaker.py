"""Owns the question whether the endpoint or the narrative is to blame, and stops all calls while it is the endpoint.

The probe is the judge, and it is never a narrative. A failure is charged to its narrative when few failures came in a
row, or when the endpoint answers a probe right after it. Otherwise the breaker is open: nothing is sent but probes,
one at a time and ever further apart, and whoever failed meanwhile gets its attempt back. Afterwards all go again, a
little apart, and those that failed while in flight go first. If the endpoint goes down again before they are through,
one of them may be the reason: they go one, then two, then four at a time, and if it goes down once more, one by one. A
failure of one that was alone is charged whatever the probe says, so a narrative that takes the endpoint down with it
cannot keep the breaker open. Each such crash is put on record (`limits.culprits`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio

from narrun_async.errors import FatalEndpointError, RunStopping
from narrun_async.limits.culprits import Culprits
from narrun_async.limits.patience import Patience
from narrun_async.limits.slots import Slots
from narrun_async.logs import RUN_LOG
from narrun_async.models import ErrorCategory, NarrativeId
from narrun_async.retrying import CallFailure, FailureClass

#: transient failures in a row, without a success, that open the breaker
FAILURES_IN_A_ROW = 5
#: successes at the start of a run after which the window opens fully: they show that the setting is right. By
#: reckoning, one doubling for each takes an answer time more at 512 in flight
SUCCESSES_TO_OPEN = 4
#: falls within one recovery after which suspects go one by one
FALLS_TO_ONE_BY_ONE = 2
#: the pause between two probes starts here, doubles, and is jittered by half
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

#: sends one probe; None means that the endpoint is well
Probe = Callable[[], Awaitable[CallFailure | None]]


class _Episode:
    """One time of the breaker being open."""

    def __init__(self, trouble: str) -> None:
        self.over = anyio.Event()
        self.stopped = False
        self.trouble = trouble


class CircuitBreaker:
    """Charges failures to narratives or to the endpoint; see the module.

    :param probe: one probe
    :param slots: narrowed to one call at a time when the breaker opens
    :param sleep: seconds; may raise `RunStopping`
    :param on_change: told when the breaker opens (True) and closes
    :param on_opening: told when the window opens fully, at the start of a run (True) and after an outage
    """

    def __init__(
        self,
        probe: Probe,
        slots: Slots,
        patience: Patience,
        *,
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        on_change: Callable[[bool], None] = lambda is_open: None,
        on_opening: Callable[[bool], None] = lambda is_start: None,
    ) -> None:
        self._on_change = on_change
        self._on_opening = on_opening
        self._probe = probe
        self._slots = slots
        self._patience = patience
        self.culprits = Culprits()
        self._sleep = sleep
        self._rng = rng
        self._episode: _Episode | None = None
        self._failures_in_a_row = 0
        self._recovering = False
        #: how often the endpoint went down again in recovery: one of the suspects may be the reason
        self._falls = 0
        #: at the start of a run
        self._successes = 0
        #: items that failed in flight during an episode and have not been tried since
        self._suspects = 0

    @property
    def is_open(self) -> bool:
        return self._episode is not None

    @property
    def trouble(self) -> str | None:
        """What the last call or probe met, in our words; None while the breaker is closed."""
        return None if self._episode is None else self._episode.trouble

    @property
    def is_recovering(self) -> bool:
        """It was open, and not everybody who failed then has been tried again."""
        return self._recovering

    def record_success(self) -> None:
        self._failures_in_a_row = 0
        if self._slots.is_narrowed and not (self._falls >= FALLS_TO_ONE_BY_ONE and self._suspects):
            self._widen()
        if self._recovering and not self._slots.is_narrowed and not self._suspects:
            self._recovering, self._falls = False, 0

    def _widen(self) -> None:
        self._successes += 1
        if self._recovering or self._successes < SUCCESSES_TO_OPEN:
            self._slots.widen()
        else:
            self._on_opening(True)
            self._slots.open()

    def record_refusal(self) -> None:
        """The endpoint answered that it will not take a request: it is well, but nothing shows that calls succeed."""
        self._failures_in_a_row = 0

    def release_suspect(self) -> None:
        """A suspect has been tried again, whatever came of it."""
        self._suspects -= 1

    async def wait_closed(self) -> None:
        """:raises RunStopping: the run stops meanwhile"""
        while (episode := self._episode) is not None:
            await episode.over.wait()
            if episode.stopped:
                raise RunStopping

    async def charge(
        self, failure: CallFailure, *, was_alone: bool, narrative_id: NarrativeId | None = None
    ) -> tuple[bool, bool]:
        """Whose fault is it? Returns once the endpoint is well, or at once when there is no doubt about it.

        :param was_alone: no other call was in flight, and the endpoint had answered a probe before
        :returns: (the attempt counts against the narrative, the narrative is a suspect from now on)
        :raises FatalEndpointError: a probe was refused for good
        :raises WaitedTooLongError: the endpoint stayed unwell for longer than `--max-wait`
        :raises RunStopping: the run stops meanwhile
        """
        reached_endpoint = failure.failure_class is not FailureClass.UNREACHABLE
        if reached_endpoint and self._episode is None:
            self._failures_in_a_row += 1
            if self._failures_in_a_row < FAILURES_IN_A_ROW and not self._recovering:
                # A lost connection may be the first sign of a server that died, and this narrative the reason.
                is_suspect = failure.category is ErrorCategory.CONNECTION_LOST
                self._suspects += is_suspect
                return True, is_suspect
        # While the window is open, others may have joined a call that began alone.
        was_alone = was_alone and self._slots.window == 1
        alone_in_recovery = reached_endpoint and self._recovering and was_alone and self._episode is None
        well_at_once = await self._sit_out(failure)
        if reached_endpoint:
            self._suspects += 1
        if alone_in_recovery and not well_at_once and narrative_id is not None:
            self.culprits.record_crash(narrative_id)
        charged = reached_endpoint and (well_at_once or alone_in_recovery)
        return charged, reached_endpoint

    async def confirm(self) -> CallFailure | None:
        """One probe, now: is the endpoint well?

        :raises FatalEndpointError: the probe was refused for good
        """
        problem = await self._probe()
        if problem is not None and problem.failure_class is FailureClass.FATAL:
            raise FatalEndpointError(problem.message)
        if problem is not None and problem.failure_class is FailureClass.PERMANENT and not problem.is_unexplained:
            return None  # it reads requests and answers them, if not this one
        return problem

    async def _sit_out(self, failure: CallFailure) -> bool:
        """Wait until the endpoint is well; whoever comes first sends the probes.

        :returns: whether we sent them and the very first one succeeded
        """
        if self._episode is not None:
            await self.wait_closed()
            return False
        RUN_LOG.warning("the breaker opens: %s", failure.message)
        self._episode = episode = _Episode(failure.message)
        self._on_change(True)
        self._slots.narrow()
        was_recovering, self._recovering = self._recovering, True
        try:
            well_at_once = await self._probe_until_well(failure, episode)
        except BaseException:
            episode.stopped = True
            raise
        else:
            self._falls += was_recovering and not well_at_once
            if not was_recovering:
                # The probe has shown that it is well: with one call at first, seven of ten seconds' work were done.
                self._on_opening(False)
                self._slots.open()
            return well_at_once
        finally:
            self._episode = None
            self._on_change(False)
            episode.over.set()

    async def _probe_until_well(self, failure: CallFailure, episode: _Episode) -> bool:
        pause_s = FIRST_PAUSE_S
        probes = 0
        problem: CallFailure | None = failure
        while problem is not None:
            episode.trouble = problem.message
            if probes:
                jittered_s = pause_s * self._rng.uniform(0.5, 1.0)
                self._patience.spend(problem.message, coming_wait_s=jittered_s)
                await self._sleep(jittered_s)
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            else:
                self._patience.spend(problem.message)
            probes += 1
            problem = await self.confirm()
        RUN_LOG.info("the breaker closes after %d probes", probes)
        return probes == 1

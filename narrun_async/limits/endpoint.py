"""Puts the limits of one endpoint together, so that the caller asks one object."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio

from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import RunStopping
from narrun_async.limits.auto import AutoConcurrency, Change
from narrun_async.limits.auto_policy import AutoPolicy
from narrun_async.limits.breaker import CircuitBreaker, Probe
from narrun_async.limits.budget import Budget, BudgetLimits, RetryBudget
from narrun_async.limits.gate import FIRST_WAIT_S, SHORTEST_WAIT_S, OverloadGate
from narrun_async.limits.pacing import PaceLearner
from narrun_async.limits.patience import Patience
from narrun_async.limits.slots import FIRST_WINDOW, Slots
from narrun_async.limits.strays import StrayRefusals
from narrun_async.limits.turns import OPENING_AFTER_OUTAGE_S, OPENING_S, SendTurns
from narrun_async.logs import RUN_LOG
from narrun_async.models import ErrorCategory, NarrativeId, Usage
from narrun_async.retrying import CallFailure, FailureClass

#: refusals for overload of one item, in a row, after which a probe decides whether it is the item
OVERLOADS_IN_A_ROW = 5
TOO_MANY_REQUESTS = 429
#: changes of the limits that are remembered for whoever looks
HISTORY = 64
#: whoever waits for a turn looks again after this long, for the pace may have been taken back meanwhile
LOOK_AGAIN_S = 1.0
#: why calls are held back, in words for people
BY_A_PERSON = "paused; `narrun unpause` goes on"
BY_THE_DISK = "results cannot be stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What a user allows for one endpoint."""

    #: calls in flight; None: found by the controller
    concurrency: int | None
    #: what the controller may go up to
    max_concurrency: int = 64
    max_wait_s: float
    #: requests and tokens a minute; None: no limit
    rpm: float | None = None
    tpm: float | None = None


class EndpointLimits:
    """Slots, turns, gate, breaker, budget and the controller of one endpoint.

    :param clock: monotonic seconds
    :param sleep: seconds; may raise `RunStopping`
    :param after: the limits of an earlier run, now over, on the same endpoint: what they have learnt of it goes on, and
        so do rates a minute and a number of calls that a person has set meanwhile
    """

    def __init__(
        self,
        settings: LimitSettings,
        *,
        probe: Probe,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        budget: Budget | None = None,
        after: EndpointLimits | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        now = clock()
        self.auto: AutoConcurrency | None = None
        # One for both ways of running: a pace outlives a change from one to the other.
        self._pace: PaceLearner = after._pace if after else PaceLearner(AutoPolicy(), now=now)
        self._strays: StrayRefusals = after._strays if after else StrayRefusals(AutoPolicy(), now=now)
        self.slots: Slots = Slots(after.slots.limit if after else settings.concurrency or 1, window=FIRST_WINDOW)
        self.turns: SendTurns = after.turns if after else SendTurns(rpm=settings.rpm, tpm=settings.tpm, now=now)
        #: why nothing is sent, the first reason first
        self._pauses: list[str] = []
        self._paused_at: float | None = None
        self._paused_s = 0.0
        # Time that a person or the disk paused is no trouble of the endpoint.
        self.patience = Patience(settings.max_wait_s, clock=lambda: clock() - self._time_paused_s())
        self.gate = OverloadGate(self.patience, clock=clock, sleep=sleep, rng=rng)
        self.breaker = CircuitBreaker(
            probe,
            self.slots,
            self.patience,
            sleep=sleep,
            rng=rng,
            on_change=self._on_breaker,
            on_opening=self._on_opening,
        )
        self.budget = budget or Budget(BudgetLimits())
        self.retry_budget = RetryBudget()
        self._turn = anyio.Lock()
        self._unpaused = anyio.Event()
        self._unpaused.set()
        self._is_closed = False
        #: latest changes, oldest first: UTC, what it became, why
        self.history: deque[tuple[str, str, str]] = deque(maxlen=HISTORY)
        if after is None:
            self.set_concurrency(settings.concurrency)
        elif after.auto is None:
            self.set_concurrency(after.slots.limit)
        else:
            self._follow(after.auto, now)

    # --- what may be asked ---

    @property
    def is_open_for_calls(self) -> bool:
        return self._paused_at is None and not self.breaker.is_open and not self.gate.is_closed

    @property
    def is_paused(self) -> bool:
        """Whether a person paused the run."""
        return BY_A_PERSON in self._pauses

    @property
    def waiting_for(self) -> str | None:
        """Why no calls are sent, in a few words for people; None while they are."""
        if self._pauses:
            return self._pauses[0]
        if self.breaker.is_open:
            return f"the endpoint is not well ({self.breaker.trouble})"
        return "the endpoint is overloaded" if self.gate.is_closed else None

    @property
    def downtime_s(self) -> float:
        """Seconds in which no narrative could be worked on, for a rate and an ETA that ignore them."""
        return self.patience.downtime_s + self._time_paused_s()

    def _time_paused_s(self) -> float:
        return self._paused_s + (0.0 if self._paused_at is None else self._clock() - self._paused_at)

    @property
    def pace_per_s(self) -> float | None:
        """The send rate that refusals have taught; None where there were none."""
        return self._pace.rate_per_s

    # --- what a person may change while it runs ---

    def set_concurrency(self, concurrency: int | None) -> None:
        """So many calls in flight from now on; None: as many as the controller finds best."""
        if concurrency is not None:
            self.auto = None
            self.slots.resize(concurrency)
            self._note(f"{concurrency} in flight", "set")
        elif self.auto is None:
            maximum, now = self._settings.max_concurrency, self._clock()
            auto = AutoConcurrency(start=min(FIRST_WINDOW, maximum), maximum=maximum, now=now, learner=self._pace)
            self._follow(auto, now)

    def _follow(self, auto: AutoConcurrency, now: float) -> None:
        self.auto = auto
        auto.on_recovered(now)  # what is in flight was sent under another limit, and says nothing
        self.slots.resize(auto.limit)
        self._note(f"{auto.limit} in flight", "auto")

    def pause(self, why: str = BY_A_PERSON) -> None:
        """Send nothing more; calls in flight come to their end. Safe to repeat."""
        if why not in self._pauses:
            self._pauses.append(why)
        if self._paused_at is None:
            self._paused_at = self._clock()
            self._unpaused = anyio.Event()

    def unpause(self, why: str = BY_A_PERSON) -> None:
        """Go on, where nothing else holds the calls back. Safe to repeat."""
        if why in self._pauses:
            self._pauses.remove(why)
        if self._paused_at is not None and not self._pauses:
            self._paused_s += self._clock() - self._paused_at
            self._paused_at = None
            self._unpaused.set()

    def close(self) -> None:
        """The run stops: whoever waits for a slot or for the end of a pause is let go."""
        self._is_closed = True
        self.slots.close()
        for why in [*self._pauses]:
            self.unpause(why)

    # --- before a call ---

    async def wait_open(self) -> None:
        """Return when calls may be sent. To be awaited without holding a slot.

        :raises RunStopping: the run stops meanwhile
        """
        while not self.is_open_for_calls:
            if self._is_closed:
                raise RunStopping
            await self._unpaused.wait()
            await self.breaker.wait_closed()
            await self.gate.wait_open()

    async def wait_turn(self, request_bytes: int, *, in_flight: Callable[[], int]) -> float:
        """The last look before a call: budget, pace, requests and tokens a minute.

        :param in_flight: calls on the wire at the moment of asking
        :returns: tokens set aside for the call, to be handed to `record_success`
        :raises BudgetSpentError: the call would pass the budget
        :raises RunStopping: the run stops meanwhile
        """
        if self.turns.are_free:
            self.budget.require(calls_in_flight=in_flight())
            return 0.0
        # One at a time and in order; whoever is first looks again after each wait, for a gate may have closed.
        async with self._turn:
            while True:
                await self.wait_open()
                if self._is_closed:
                    raise RunStopping
                delay_s = self.turns.delay_s(request_bytes, now=self._clock())
                if delay_s <= 0:
                    self.budget.require(calls_in_flight=in_flight())
                    return self.turns.take(request_bytes, now=self._clock())
                await self._sleep(min(delay_s, LOOK_AGAIN_S))

    # --- after a call ---

    def record_success(
        self, *, taken_tokens: float, started: float, usage: Usage, headers: Mapping[str, str] | None, in_flight: int
    ) -> None:
        """The endpoint answered a narrative, usably or not."""
        now = self._clock()
        self._strays.on_accepted(now)
        self.patience.restore()
        self.gate.record_success()
        self.breaker.record_success()
        self.breaker.culprits.record_answer()
        self.budget.record(usage)
        self.retry_budget.record_success()
        self.turns.settle(taken_tokens, usage, now=now)
        if headers is not None:
            self.turns.learn(headers, in_flight=in_flight)
        if self.auto is not None:
            change = self.auto.on_completion(
                now, started=started, completion_tokens=usage.completion_tokens, in_flight=in_flight
            )
            if change is not None:
                self._apply(change)
        elif self._pace.on_accepted(now, started):
            self.turns.set_pace(self._pace.rate_per_s)

    def record_refusal(self) -> None:
        """The endpoint is well and refused a request: no reason to wait, and none to send more calls at a time."""
        self.patience.restore()
        self.gate.record_success()
        self.breaker.record_refusal()

    async def charge(
        self,
        failure: CallFailure,
        *,
        call_started: float,
        in_flight: int,
        n_overloads: int,
        narrative_id: NarrativeId | None = None,
    ) -> tuple[bool, bool]:
        """Whose fault was a failed call? See `CircuitBreaker.charge`.

        An overload is the endpoint's, unless it keeps coming for one item while the endpoint is well for a probe: some
        servers answer so to a request that is larger than their quota. One among very many accepted calls holds back
        its own call only, which waits here.

        :param in_flight: calls on the wire when it began, itself included
        :param n_overloads: how often the item was refused for overload before, in a row
        """
        if failure.failure_class is FailureClass.OVERLOAD:
            if n_overloads >= OVERLOADS_IN_A_ROW and await self.breaker.confirm() is None:
                self.patience.restore()
                self.gate.record_success()
                return True, False
            if self._is_stray(failure):
                wait_s = FIRST_WAIT_S if failure.retry_after_s is None else failure.retry_after_s
                await self._sleep(max(SHORTEST_WAIT_S, wait_s))
                return False, False
            if failure.http_status == TOO_MANY_REQUESTS:
                # 503 and 529 say that the server is busy with others, or still loading; no pace of ours mends that.
                self._learn_refusal(failure, call_started=call_started, in_flight=in_flight)
            self.gate.close(call_started=call_started, retry_after_s=failure.retry_after_s, problem=failure.message)
            return False, False
        was_alone = in_flight == 1
        if failure.category is ErrorCategory.TIMEOUT and self.auto is not None:
            change = self.auto.on_timeout(self._clock(), call_started)
            if change is not None:
                self._apply(change)
        charged, is_suspect = await self.breaker.charge(failure, was_alone=was_alone, narrative_id=narrative_id)
        if charged:
            self.patience.restore()
        return charged, is_suspect

    def _is_stray(self, failure: CallFailure) -> bool:
        return self._strays.on_refused(
            self._clock(),
            retry_after_s=failure.retry_after_s,
            is_trial=self._pace.is_trial,
            has_quota=self._pace.has_quota,
        )

    def _learn_refusal(self, failure: CallFailure, *, call_started: float, in_flight: int) -> None:
        now = self._clock()
        if self.auto is not None:
            change = self.auto.on_overload(now, call_started=call_started)
            if change is not None:
                self._apply(change)
            return
        # The first call of a burst began alone, and it was the burst that was refused.
        at_once = min(self.slots.window, max(in_flight, self.slots.held + 1))
        if self._pace.on_refused(now, call_started, at_once):
            self.turns.set_pace(self._pace.rate_per_s)
            self._note(_pace_text(self._pace.rate_per_s), "overload")

    def _on_breaker(self, is_open: bool) -> None:
        if self.auto is None:
            return
        if not is_open:
            self.auto.on_recovered(self._clock())
        elif (change := self.auto.on_outage(self._clock())) is not None:
            self._apply(change)

    def _on_opening(self, is_start: bool) -> None:
        within_s = OPENING_S if is_start else OPENING_AFTER_OUTAGE_S
        self.turns.open(self.slots.limit, within_s=within_s, now=self._clock())

    def _apply(self, change: Change) -> None:
        if change.limit != change.limit_before:
            self.slots.resize(change.limit)
            self._note(f"{change.limit} in flight", change.reason.value)
        if change.pace_per_s != change.pace_before_per_s:
            self.turns.set_pace(change.pace_per_s)
            self._note(_pace_text(change.pace_per_s), change.reason.value)

    def _note(self, what: str, why: str) -> None:
        if self.history and self.history[-1][1:] == (what, why):
            return
        RUN_LOG.info("limit: %s (%s)", what, why)
        self.history.append((utc_text(utc_now()), what, why))


def _pace_text(per_s: float | None) -> str:
    return "no pace" if per_s is None else f"{per_s:.3g} calls a second"

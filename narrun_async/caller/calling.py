"""The calls of a work item: attempts, the one retry loop of the program, who pays, and the probe."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from narrun_async.caller.flights import AttemptFailed, CallSpec, Flight, SecondTry
from narrun_async.caller.outcomes import (
    decided,
    endpoint_crash,
    exhausted,
    failed_attempt,
    internal_failure,
    refused,
    source_changed,
    unpack,
)
from narrun_async.caller.second_tries import first_answer_stands, outcome_of_both, second_try_after
from narrun_async.clock import utc_now
from narrun_async.errors import FatalEndpointError, NarrunError, RunStopping
from narrun_async.limits import EndpointLimits, Probe
from narrun_async.models import (
    Attempt,
    Detection,
    Envelope,
    ErrorCategory,
    Outcome,
    RawReply,
    text_sha256,
)
from narrun_async.ports import ChatProvider
from narrun_async.progress import Progress
from narrun_async.prompting import Change, RequestTemplate
from narrun_async.retrying import (
    DECIDING,
    CallError,
    CallFailure,
    FailureClass,
    judge_answer,
    judge_call_error,
    judge_reply,
    timeout_failure,
)

#: an attempt of ours to see whether the endpoint is well is given up after this long, however long answers may take
PROBE_DEADLINE_S = 30.0
WORDS_ADVICE = "`narrun doctor CONFIG` shows what the endpoint says"


class Caller:
    """Calls one endpoint for one item at a time; safe to use by many workers at once.

    :param record: stores an attempt that decided nothing
    :param sleep: seconds; may raise `RunStopping`
    :param clock: monotonic seconds
    """

    def __init__(
        self,
        spec: CallSpec,
        provider: ChatProvider,
        limits: EndpointLimits,
        progress: Progress,
        *,
        record: Callable[[Attempt], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._provider = provider
        self._limits = limits
        self._culprits = limits.breaker.culprits
        self._progress = progress
        self._record = record
        self._sleep = sleep
        self._rng = rng
        self._clock = clock

    async def attempt(self, flight: Flight) -> Outcome:
        """One physical call, made while the worker holds a slot.

        :raises AttemptFailed: it decided nothing; `retry` is next
        :raises FatalEndpointError: the endpoint refuses the configuration
        """
        try:
            outcome = await self._attempt(flight)
        except (AttemptFailed, NarrunError, RunStopping):
            raise
        except Exception as error:
            # A defect of ours that one narrative brings to light costs that narrative, not the run.
            outcome = internal_failure(flight.item, error)
        self._release_suspect(flight)
        return outcome

    async def _attempt(self, flight: Flight) -> Outcome:
        item = flight.item
        if item.text_sha256 is not None and text_sha256(item.narrative_text) != item.text_sha256:
            return source_changed(item)
        if self._culprits.is_convicted(item.narrative_id):
            return endpoint_crash(item, n_crashes=self._culprits.crashes_of(item.narrative_id))
        tried = flight.second_try
        body = self._spec.template.body_for(item.narrative_text, None if tried is None else tried.change)
        taken_tokens = await self._limits.wait_turn(len(body), in_flight=lambda: self._progress.in_flight)
        started_at, started = utc_now(), self._clock()
        self._progress.in_flight += 1
        in_flight = self._progress.in_flight
        try:
            judged = await call_within(self._provider, body, self._spec.attempt_deadline_s)
        finally:
            self._progress.in_flight -= 1
        duration_s = self._clock() - started
        coming: SecondTry | None = None
        if isinstance(judged, CallFailure) and judged.failure_class is FailureClass.FATAL:
            raise FatalEndpointError(judged.message, advice=WORDS_ADVICE if judged.quoted else "")
        if isinstance(judged, CallFailure) and (judged.failure_class not in DECIDING or judged.is_unexplained):
            failure = judged
        else:
            self._record_answered(judged, taken_tokens=taken_tokens, started=started)
            outcome = decided(item, judged, started_at=started_at, duration_s=duration_s)
            if tried is not None:
                return outcome_of_both(tried, outcome)
            if not self._spec.second_try or isinstance(outcome.verdict, Detection):
                return outcome
            coming = second_try_after(outcome, self._spec.template)
            if coming is None:
                return outcome
            failure = judge_answer(outcome.verdict)
        raise AttemptFailed(
            failure,
            started_at=started_at,
            started=started,
            duration_s=duration_s,
            in_flight=in_flight,
            second_try=coming,
        )

    def _record_answered(
        self, judged: tuple[RawReply, Envelope] | CallFailure, *, taken_tokens: float, started: float
    ) -> None:
        """Tell the limits that the endpoint is well, whatever its answer is worth."""
        if isinstance(judged, CallFailure) and judged.failure_class is FailureClass.PERMANENT:
            self._limits.record_refusal()
            return
        reply, envelope = (None, Envelope()) if isinstance(judged, CallFailure) else judged
        self._limits.record_success(
            taken_tokens=taken_tokens,
            started=started,
            usage=envelope.usage,
            headers=None if reply is None else reply.headers,
            in_flight=self._progress.in_flight + 1,
        )

    async def retry(self, flight: Flight, first: AttemptFailed) -> Outcome | None:
        """The retry loop, entered only after a first failure; each further attempt takes its own slot, before new work.

        :returns: the outcome, or None when the item is left for the next pass
        :raises FatalEndpointError: the endpoint refuses the configuration
        :raises WaitedTooLongError: it stayed unwell for longer than `--max-wait`
        :raises RunStopping: the run stops; nothing of this item is stored
        """
        try:
            return await self._retry(flight, first)
        except (NarrunError, RunStopping, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise  # the last two: there is nobody left to hand a failed attempt to
        except Exception as error:
            self._release_suspect(flight)
            return internal_failure(flight.item, error)

    async def _retry(self, flight: Flight, first: AttemptFailed) -> Outcome | None:
        pending: AttemptFailed | None = first
        while True:
            try:
                return await self._retry_in_pass(flight, pending)
            except AttemptFailed as last:
                self._release_suspect(flight)
                if flight.outlasts_deadline and flight.second_try is not None:
                    return first_answer_stands(flight.second_try)
                if not flight.is_last_pass and not last.failure.is_unexplained:
                    return None
                if await self._limits.breaker.confirm() is None:
                    return self._given_up(flight, last.failure)
            # The endpoint is unwell, so those failures say nothing about the narrative: begin again behind the breaker.
            flight.charged, pending = 0, None

    async def _retry_in_pass(self, flight: Flight, pending: AttemptFailed | None) -> Outcome:
        """Up to the allowed number of charged attempts; a failure that is known already enters the loop as the first.

        :raises AttemptFailed: the last one
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(AttemptFailed),
            stop=lambda _: self._gives_up(flight),
            wait=lambda state: self._backoff_s(flight, state),
            sleep=self._sleep,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                try:
                    if pending is not None:
                        failed, pending = pending, None
                        raise failed
                    return await self._attempt_in_slot(flight)
                except AttemptFailed as failed:
                    if not failed.is_settled:
                        await self._settle(flight, failed)
                    raise
        raise AssertionError("the retry loop neither returned nor raised")

    async def _attempt_in_slot(self, flight: Flight) -> Outcome:
        while True:
            await self._limits.wait_open()
            async with self._limits.slots.retry:
                if self._limits.is_open_for_calls:
                    return await self._attempt_until_cleared(flight)

    async def _attempt_until_cleared(self, flight: Flight) -> Outcome:
        """One attempt; one that took the endpoint down, alone in flight, is followed by the next in the same slot.

        So nobody goes before it when the endpoint is back, and one that goes down by itself answers it.

        :raises AttemptFailed: as `attempt`; settled if the slot was kept for that
        """
        while True:
            try:
                return await self.attempt(flight)
            except AttemptFailed as failed:
                if failed.in_flight > 1:
                    raise
                await self._settle(flight, failed)
                is_accused = flight.crashed_endpoint and self._limits.is_open_for_calls
                if not is_accused or self._has_used_its_attempts(flight):
                    raise

    async def _settle(self, flight: Flight, failed: AttemptFailed) -> None:
        """Decide who pays for a failed attempt, and put it into the ledger."""
        if failed.failure.failure_class is not FailureClass.UNREACHABLE:
            self._release_suspect(flight)
        if failed.second_try is not None:
            failed.is_settled = True
            flight.second_try = failed.second_try
            flight.overloads, flight.was_charged, flight.crashed_endpoint = 0, False, False
            await self._note_failure(flight, failed, charged=True)
            return
        charged = False
        narrative_id = flight.item.narrative_id
        n_crashes = self._culprits.crashes_of(narrative_id)
        try:
            charged, is_suspect = await self._limits.charge(
                failed.failure,
                call_started=failed.started,
                in_flight=failed.in_flight,
                n_overloads=flight.overloads,
                narrative_id=narrative_id,
            )
        except (NarrunError, RunStopping):
            await self._note_failure(flight, failed, charged=False)
            raise
        failed.is_settled = True
        flight.is_suspect |= is_suspect
        flight.crashed_endpoint = self._culprits.crashes_of(narrative_id) > n_crashes
        flight.charged += charged
        flight.was_charged = charged
        is_longer = flight.second_try is not None and flight.second_try.change is Change.MORE_TOKENS
        flight.outlasts_deadline = is_longer and charged and failed.failure.category is ErrorCategory.TIMEOUT
        is_overload = failed.failure.failure_class is FailureClass.OVERLOAD
        flight.overloads = flight.overloads + 1 if is_overload else 0
        await self._note_failure(flight, failed, charged=charged)

    async def _note_failure(self, flight: Flight, failed: AttemptFailed, *, charged: bool) -> None:
        if not flight.item.is_canary:  # the ledger is of calls that led to results
            await self._record(failed_attempt(flight.item, failed, charged=charged))

    def _gives_up(self, flight: Flight) -> bool:
        """Whether the pass is over for this item; asked once after each failure.

        An endpoint that fails too often gets its items deferred to a later pass instead of being hammered.
        """
        if self._has_used_its_attempts(flight):
            return True
        is_free = flight.is_last_pass or not flight.was_charged
        return not is_free and not self._limits.retry_budget.spend()

    def _has_used_its_attempts(self, flight: Flight) -> bool:
        """A narrative that crashed the endpoint often enough is not tried again before others were answered.

        Nor is one whose answer, with twice the tokens, runs into the deadline: it would do so again.
        """
        if flight.outlasts_deadline or flight.charged >= self._spec.retry.attempts:
            return True
        return not flight.is_last_pass and self._crashed_too_often(flight)

    def _crashed_too_often(self, flight: Flight) -> bool:
        """The last attempt crashed the endpoint, and with those before it that is no coincidence any more."""
        return flight.crashed_endpoint and self._culprits.has_crashed_enough(flight.item.narrative_id)

    def _given_up(self, flight: Flight, last: CallFailure) -> Outcome:
        if flight.second_try is not None:
            return first_answer_stands(flight.second_try)
        if self._crashed_too_often(flight):
            return endpoint_crash(flight.item, n_crashes=self._culprits.crashes_of(flight.item.narrative_id))
        return refused(flight.item, last) if last.is_unexplained else exhausted(flight.item, last)

    def _release_suspect(self, flight: Flight) -> None:
        if flight.is_suspect:
            flight.is_suspect = False
            self._limits.breaker.release_suspect()

    def _backoff_s(self, flight: Flight, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if not flight.charged or (isinstance(error, AttemptFailed) and error.second_try is not None):
            return 0.0  # the gate and the breaker did the waiting, or there is nothing to wait for
        asked_s = error.failure.retry_after_s if isinstance(error, AttemptFailed) else None
        return max(self._spec.retry.backoff_s(flight.charged, self._rng), min(asked_s or 0.0, self._spec.retry.cap_s))


async def call_within(
    provider: ChatProvider, body: bytes, deadline_s: float
) -> tuple[RawReply, Envelope] | CallFailure:
    """One call, whose answer must be a chat completion."""
    reply = await _reply_within(provider, body, deadline_s)
    return reply if isinstance(reply, CallFailure) else unpack(reply)


async def _reply_within(provider: ChatProvider, body: bytes, deadline_s: float) -> RawReply | CallFailure:
    # asyncio.timeout costs 5 µs a call, anyio.fail_after 12
    try:
        async with asyncio.timeout(deadline_s):
            reply = await provider.complete(body)
    except TimeoutError:
        return timeout_failure(deadline_s)
    except CallError as error:
        return judge_call_error(error)
    return judge_reply(reply, now=None) or reply


def make_probe(provider: ChatProvider, template: RequestTemplate, *, deadline_s: float) -> Probe:
    """The health check: a fixed completion of one token, never a narrative.

    It must be answered by a completion: LM Studio says 200 to a path that it does not know, and so do login pages.
    """
    body = template.probe_body()

    async def probe() -> CallFailure | None:
        judged = await call_within(provider, body, min(deadline_s, PROBE_DEADLINE_S))
        return judged if isinstance(judged, CallFailure) else None

    return probe

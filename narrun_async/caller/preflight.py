"""Finds out, before the first narrative is sent, whether an endpoint binds its answers to JSON where it is asked to.

The questions hold nothing of any narrative. An endpoint that is down or overloaded decides nothing: it is waited for as
a run waits, behind breaker and gate. Where it is well and only the question fails, its form is to blame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from narrun_async.answer_format import BINDING_FORMATS, obeys
from narrun_async.caller.calling import WORDS_ADVICE, call_within
from narrun_async.caller.flights import FormatChoice
from narrun_async.errors import FatalEndpointError
from narrun_async.limits import EndpointLimits
from narrun_async.limits.endpoint import OVERLOADS_IN_A_ROW
from narrun_async.logs import RUN_LOG
from narrun_async.models import AnswerFormat, Envelope
from narrun_async.ports import ChatProvider
from narrun_async.retrying import CallFailure, FailureClass

#: failures of a question in a row, each followed by a health check that is answered: one may be an accident
TRIES = 2


async def choose_format(
    choice: FormatChoice,
    provider: ChatProvider,
    limits: EndpointLimits,
    *,
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> AnswerFormat:
    """The strictest form that the endpoint obeys, shown by an answer and not by its status; else `off`.

    Cancelled or failed, it has decided nothing, and may be asked again.

    :param deadline_s: of one question; the first may have to wait until the model is loaded
    :raises FatalEndpointError: the endpoint refuses the configuration, or a plain question with the same options
    :raises WaitedTooLongError: it stayed unwell for longer than `--max-wait`
    :raises RunStopping: the run stops
    """

    async def ask(bodies: Sequence[bytes]) -> Envelope | CallFailure:
        return await _ask(bodies, provider, limits, deadline_s=deadline_s, clock=clock)

    all_refused = True
    for wanted in BINDING_FORMATS:
        answer = await ask(choice.probes[wanted])
        if isinstance(answer, Envelope) and obeys(wanted, answer):
            RUN_LOG.info("answers are bound to JSON: %s is obeyed", wanted)
            return wanted
        said = answer.message if isinstance(answer, CallFailure) else "accepted, and not obeyed"
        RUN_LOG.info("answers cannot be bound with %s: %s", wanted, said)
        all_refused &= _is_refused(answer)
    if all_refused and _is_refused(plain := await ask(choice.probes[AnswerFormat.OFF])):
        assert isinstance(plain, CallFailure)
        raise FatalEndpointError(
            f"the endpoint refuses even a plain question with the options of this experiment: {plain.message}",
            advice=WORDS_ADVICE,
        )
    return AnswerFormat.OFF


async def ask_once(bodies: Sequence[bytes], provider: ChatProvider, *, deadline_s: float) -> Envelope | CallFailure:
    """The answer to the first body that is not refused for good, each sent once; for a diagnosis."""
    for body in bodies:
        answer = await call_within(provider, body, deadline_s)
        if not _is_refused(answer):
            break
    return answer if isinstance(answer, CallFailure) else answer[1]


def _is_refused(answer: object) -> bool:
    return isinstance(answer, CallFailure) and answer.failure_class is FailureClass.PERMANENT


async def _ask(
    bodies: Sequence[bytes],
    provider: ChatProvider,
    limits: EndpointLimits,
    *,
    deadline_s: float,
    clock: Callable[[], float],
) -> Envelope | CallFailure:
    """The answer to the first body that is not refused for good; a failure only of an endpoint that is well."""
    for body in bodies:
        answer = await _ask_until_well(body, provider, limits, deadline_s=deadline_s, clock=clock)
        if not _is_refused(answer):
            break
    return answer


async def _ask_until_well(
    body: bytes, provider: ChatProvider, limits: EndpointLimits, *, deadline_s: float, clock: Callable[[], float]
) -> Envelope | CallFailure:
    n_failures = n_overloads = 0
    while True:
        await limits.wait_open()
        started = clock()
        answer = await call_within(provider, body, deadline_s)
        if not isinstance(answer, CallFailure):
            # Nothing is learnt about the pace, nor that narratives are taken.
            limits.record_refusal()
            return answer[1]
        match answer.failure_class:
            case FailureClass.FATAL:
                raise FatalEndpointError(answer.message, advice=WORDS_ADVICE if answer.quoted else "")
            case FailureClass.PERMANENT | FailureClass.ANSWER if not answer.is_unexplained:
                limits.record_refusal()
                return answer
        is_charged = await _charge(answer, limits, call_started=started, n_overloads=n_overloads)
        n_overloads = n_overloads + 1 if answer.failure_class is FailureClass.OVERLOAD else 0
        # Between two failures that count there is a sign of life, or the endpoint may just have come back.
        is_well = is_charged and await limits.breaker.confirm() is None
        n_failures = n_failures + 1 if is_well else 0
        if n_failures >= TRIES:
            return answer


async def _charge(failure: CallFailure, limits: EndpointLimits, *, call_started: float, n_overloads: int) -> bool:
    """Whether the failure may be the question's; returns when the endpoint is well, or the gate says when."""
    if failure.failure_class is FailureClass.OVERLOAD and n_overloads < OVERLOADS_IN_A_ROW:
        # A question that goes alone teaches nothing about the pace of narratives.
        limits.gate.close(call_started=call_started, retry_after_s=failure.retry_after_s, problem=failure.message)
        return False
    charged, is_suspect = await limits.charge(failure, call_started=call_started, in_flight=1, n_overloads=n_overloads)
    if is_suspect:
        limits.breaker.release_suspect()
    return charged

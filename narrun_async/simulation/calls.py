"""Takes a chat completion from its arrival to its answer, through faults and waiting, and counts it on the way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from narrun_async.simulation.answers import Answer, answer_for, completion, error_body
from narrun_async.simulation.behaviour import Behaviour, Fault
from narrun_async.simulation.chat import ChatRequest
from narrun_async.simulation.faults import Draws, draws_of, fault_for, outage_fault, text_digest
from narrun_async.simulation.formats import formatted_answer
from narrun_async.simulation.http_server import Connection
from narrun_async.simulation.latency import CountingRateLimit, RateLimit, ServiceQueue, Wait, service_time_s

_PROBE_ANSWER = Answer(content="ok", finish_reason="length")
HTTP_ERRORS = {
    Fault.HTTP_400: (400, error_body("Simulated: this request is invalid.", kind="invalid_request_error")),
    Fault.HTTP_429: (429, error_body("Simulated: too many requests.", kind="requests", code="rate_limit_exceeded")),
    Fault.HTTP_500: (500, error_body("Simulated: the server had an error.", kind="server_error")),
    Fault.HTTP_503: (503, error_body("Simulated: the server is overloaded.", kind="server_error")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCounts:
    """What was called for so far; probes are apart from everything but the calls in flight."""

    #: chat completions asked for, answered or not
    calls: int
    #: by HTTP status, and `timeout` and `reset` for calls that got none
    calls_by_status: Mapping[str, int]
    #: completions of at most one token, and questions that are no narratives
    probes: int
    distinct_narratives: int
    max_calls_per_narrative: int
    #: chat completions that wait for their answer now, and the most there were
    in_flight: int
    peak_in_flight: int


class Calls:
    """All chat completions of one endpoint."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._queue = ServiceQueue(behaviour)
        self._rate_limit = RateLimit()
        self._counting_rate_limit = CountingRateLimit()
        self._by_status: Counter[str] = Counter()
        # The counts of a narrative stay for the life of the endpoint: 32 bytes each, and no text.
        self._attempts: dict[bytes, int] = {}
        self._n_calls = 0
        self._n_probes = 0
        self._in_flight = 0
        self._peak_in_flight = 0

    @property
    def behaviour(self) -> Behaviour:
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._queue.change_behaviour(behaviour)

    def counts(self) -> CallCounts:
        return CallCounts(
            calls=self._n_calls,
            calls_by_status=dict(sorted(self._by_status.items())),
            probes=self._n_probes,
            distinct_narratives=len(self._attempts),
            max_calls_per_narrative=max(self._attempts.values(), default=0),
            in_flight=self._in_flight,
            peak_in_flight=self._peak_in_flight,
        )

    def refused(self, status: int) -> None:
        """Count a call that was answered with an error because of what it said."""
        self._n_calls += 1
        self._by_status[str(status)] += 1

    def begin(self, connection: Connection, chat: ChatRequest) -> None:
        """Answer this request on its connection, now or later."""
        digest = text_digest(self._behaviour.seed, chat.text)
        if chat.is_probe or chat.wanted_word is not None:
            self._n_probes += 1
            attempt = 1
            fault = outage_fault(self._behaviour)
        else:
            self._n_calls += 1
            attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
            fault = fault_for(
                self._behaviour,
                text=chat.text,
                digest=digest,
                attempt=attempt,
                is_reminded=chat.is_reminded,
                token_limit=chat.token_limit,
            )
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        call_id = f"chatcmpl-{digest[:8].hex()}-{attempt}"
        call = _Call(connection=connection, chat=chat, draws=draws_of(digest), call_id=call_id, fault=fault)
        self._meet(call)

    def _meet(self, call: _Call) -> None:
        behaviour = self._behaviour
        if behaviour.requests_per_s is not None:
            limit = self._counting_rate_limit if behaviour.refused_calls_count else self._rate_limit
            pause_s = limit.wait_s(behaviour.requests_per_s, now_s=asyncio.get_running_loop().time())
            if pause_s:
                self._reply_error(call, Fault.HTTP_429, retry_after_s=pause_s)
                return
        if call.fault is Fault.TIMEOUT:
            self._count(call, "timeout")
            call.connection.on_lost = self._leave
        elif call.fault in (Fault.HTTP_429, Fault.HTTP_503):
            self._reply_error(call, call.fault, retry_after_s=behaviour.retry_after_s)
        elif behaviour.latency_ms == 0:
            self._finish(call)
        else:
            service_s = service_time_s(behaviour, share=call.draws.latency, in_flight=self._in_flight)
            wait = self._queue.join(service_s, partial(self._finish, call))
            call.connection.on_lost = partial(self._abandon, wait)

    def _finish(self, call: _Call) -> None:
        if call.fault in HTTP_ERRORS:
            self._reply_error(call, call.fault, retry_after_s=None)
            return
        body = self._completion(call)
        self._leave()
        if call.fault is Fault.RESET:
            self._count(call, "reset")
            call.connection.on_lost = None
            call.connection.reset(body=body)
        else:
            self._count(call, "200")
            call.connection.reply(200, body)

    def _completion(self, call: _Call) -> bytes:
        chat, behaviour = call.chat, self._behaviour
        answer = _PROBE_ANSWER
        if not chat.is_probe:
            answer = self._answer(chat, call)
        return completion(
            answer,
            call_id=call.call_id,
            created=int(time.time()),
            model=behaviour.model_name,
            prompt_chars=chat.prompt_chars,
            n_messages=chat.n_messages,
        )

    def _answer(self, chat: ChatRequest, call: _Call) -> Answer:
        flip_rate = self._behaviour.flip_rate
        formatted = formatted_answer(chat, call.draws, flip_rate=flip_rate) if call.fault is None else None
        return formatted or answer_for(chat.text, call.draws, flip_rate=flip_rate, fault=call.fault)

    def _reply_error(self, call: _Call, fault: Fault, *, retry_after_s: float | None) -> None:
        status, body = HTTP_ERRORS[fault]
        self._leave()
        self._count(call, str(status))
        headers = b"" if retry_after_s is None else f"Retry-After: {retry_after_s:g}\r\n".encode()
        call.connection.reply(status, body, headers=headers)

    def _abandon(self, wait: Wait) -> None:
        """The client went away before its answer."""
        wait.cancel()
        self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1

    def _count(self, call: _Call, status: str) -> None:
        if not call.chat.is_probe and call.chat.wanted_word is None:
            self._by_status[status] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    connection: Connection
    chat: ChatRequest
    draws: Draws
    call_id: str
    fault: Fault | None

"""The endpoint in memory: a `ChatProvider` whose answers and faults are those of the simulation, in the loop's time.

The endpoint outlives the process that calls it, as a real one does: it keeps its counts over a crash. A narrative's
answer depends on its text alone, so any two runs that end well have equal results.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

from narrun_async.models import RawReply
from narrun_async.retrying import CallError, CallProblem
from narrun_async.simulation.answers import Answer, answer_for, completion, error_body
from narrun_async.simulation.behaviour import Behaviour, Fault
from narrun_async.simulation.chat import RefusedError, parse_chat
from narrun_async.simulation.faults import draws_of, fault_for, outage_fault, text_digest

_STATUSES = {Fault.HTTP_400: 400, Fault.HTTP_429: 429, Fault.HTTP_500: 500, Fault.HTTP_503: 503}
_PROBE_ANSWER = Answer(content="ok", finish_reason="length")
#: one token takes so much less time than an answer
PROBE_SHARE = 100


@dataclass(kw_only=True)
class VirtualEndpoint:
    """One server. What is changed here holds for calls that begin afterwards."""

    behaviour: Behaviour
    #: answers take a time around this mean, exponential or, if `is_even`, within a fifth of it
    mean_s: float = 1.0
    is_even: bool = False
    #: refuses every connection
    is_down: bool = False
    #: times the tokens that it reports
    token_factor: int = 1
    #: served at a time; the others wait in line. None: all at once
    slots: int | None = None
    #: whoever calls asks once more after an answer without JSON, so that one decides nothing
    is_asked_twice: bool = False

    def __post_init__(self) -> None:
        #: calls by text, probes apart, answered or not
        self.calls: Counter[str] = Counter()
        #: calls by text that were answered with 200 or, for good, with 400, and decided the narrative
        self.decided: Counter[str] = Counter()
        self.n_probes = 0
        self.n_refused = 0

    def connect(self, rng: random.Random) -> VirtualProvider:
        """A client of its own for each life of a process."""
        return VirtualProvider(self, rng)


class VirtualProvider:
    """`ports.ChatProvider` over a `VirtualEndpoint`."""

    def __init__(self, endpoint: VirtualEndpoint, rng: random.Random) -> None:
        self._endpoint = endpoint
        self._rng = rng
        self._queue = asyncio.Semaphore(endpoint.slots) if endpoint.slots else None
        #: calls that wait for their answer
        self.in_flight = 0
        self.peak_in_flight = 0

    async def aclose(self) -> None:
        return None

    async def complete(self, body: bytes) -> RawReply:
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._complete(body)
        finally:
            self.in_flight -= 1

    async def _complete(self, body: bytes) -> RawReply:
        endpoint = self._endpoint
        if endpoint.is_down:
            endpoint.n_refused += 1
            await asyncio.sleep(self._rng.uniform(0.0, 0.002))
            raise CallError(CallProblem.UNREACHABLE, "the connection was refused")
        behaviour = endpoint.behaviour
        try:
            chat = parse_chat(behaviour, body)
        except RefusedError as refused:
            return RawReply(status=refused.status, headers={}, body=refused.body)
        digest = text_digest(behaviour.seed, chat.text)
        if chat.is_probe:
            endpoint.n_probes += 1
            fault = outage_fault(behaviour)
        else:
            endpoint.calls[chat.text] += 1
            fault = fault_for(
                behaviour,
                text=chat.text,
                digest=digest,
                attempt=endpoint.calls[chat.text],
                is_reminded=chat.is_reminded,
                token_limit=chat.token_limit,
            )
        await self._serve(fault, is_probe=chat.is_probe)
        if fault is Fault.RESET:
            raise CallError(CallProblem.CONNECTION_LOST, "the connection was lost")
        if fault in _STATUSES:
            return self._refusal(fault, chat.text, chat.is_probe)
        answer = _PROBE_ANSWER
        if not chat.is_probe:
            answer = answer_for(chat.text, draws_of(digest), flip_rate=behaviour.flip_rate, fault=fault)
            if not (endpoint.is_asked_twice and fault is Fault.MALFORMED and not chat.is_reminded):
                endpoint.decided[chat.text] += 1
        # No number of the attempt, no time: the answer to a text is always the same, byte by byte.
        reply = completion(
            answer,
            call_id=f"chatcmpl-{digest[:8].hex()}",
            created=0,
            model=behaviour.model_name,
            prompt_chars=chat.prompt_chars * endpoint.token_factor,
            n_messages=chat.n_messages,
        )
        return RawReply(status=200, headers={}, body=reply)

    def _refusal(self, fault: Fault, text: str, is_probe: bool) -> RawReply:
        endpoint = self._endpoint
        if fault is Fault.HTTP_400 and not is_probe:
            endpoint.decided[text] += 1
        pause_s = endpoint.behaviour.retry_after_s
        asks = fault in (Fault.HTTP_429, Fault.HTTP_503) and pause_s is not None
        return RawReply(
            status=_STATUSES[fault],
            headers={"retry-after": f"{pause_s:g}"} if asks else {},
            body=error_body("Simulated.", kind="simulated"),
        )

    async def _serve(self, fault: Fault | None, *, is_probe: bool) -> None:
        if fault is Fault.TIMEOUT:
            await asyncio.get_running_loop().create_future()
        if fault in (Fault.HTTP_429, Fault.HTTP_503):
            await asyncio.sleep(0.001)
        elif is_probe:
            await asyncio.sleep(self._service_s() / PROBE_SHARE)
        elif self._queue is None:
            await asyncio.sleep(self._service_s())
        else:
            async with self._queue:
                await asyncio.sleep(self._service_s())

    def _service_s(self) -> float:
        mean_s = self._endpoint.mean_s
        if self._endpoint.is_even or not mean_s:
            return self._rng.uniform(0.8, 1.2) * mean_s
        return self._rng.expovariate(1 / mean_s)

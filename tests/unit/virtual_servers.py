"""Servers and a client in virtual time: what an endpoint does to `AutoConcurrency`, without a socket or a sleep.

A server is a shared machine (every call in service runs at the same speed, which depends on how many there are) behind
an optional quota. The client keeps as many calls in flight as the controller allows, waits as the gate does, retries
refused calls first, and calls an outage when nothing has come back for a deadline.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from narrun_async.limits.auto import AutoConcurrency
from narrun_async.limits.auto_policy import AutoPolicy
from narrun_async.limits.pacing import PaceLearner, Pacer
from narrun_async.limits.strays import StrayRefusals

Speed = Callable[[int], float]

# --- machines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Serves up to `slots` calls at once, the others wait in line; `speed(n)` is work done per second for each of n."""

    slots: int
    speed: Speed
    #: (from second, factor): the factor holds from then on; 0 stands still
    drift: Sequence[tuple[float, float]] = ()


def constant(_active: int) -> float:
    return 1.0


def batching(active: int) -> float:
    """A GPU: a full batch of 64 answers each call 2.6 times as slowly as a lone one, and 25 times as many."""
    return 1.0 / (1.0 + active / 40.0)


def thrashing(active: int) -> float:
    """Memory for 24 calls; beyond it they evict each other and the whole slows to a third."""
    return 1.0 / (1.0 + active / 100.0) if active <= 24 else 24 / active / 3.7


MACHINES = {
    "batching GPU, 64 slots": Machine(slots=64, speed=batching),
    "64 independent slots": Machine(slots=64, speed=constant),
    "4 slots": Machine(slots=4, speed=constant),
    "1 slot": Machine(slots=1, speed=constant),
    "thrashes above 24": Machine(slots=512, speed=thrashing),
    "saturates slowly": Machine(slots=512, speed=lambda active: 1.0 / (1.0 + active / 8.0)),
    "300 slots": Machine(slots=300, speed=constant),
}

# --- quotas ----------------------------------------------------------------------------------------------------------


class Bucket:
    """A token bucket. `admit` returns None, or how long to wait (whole seconds, as most servers say)."""

    def __init__(self, rate_per_s: float, burst: float, *, says_when: bool = True) -> None:
        self.rate_per_s, self._burst, self._level, self._at = rate_per_s, burst, burst, 0.0
        self._says_when = says_when

    def admit(self, now: float) -> float | None:
        self._level = min(self._burst, self._level + (now - self._at) * self.rate_per_s)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return None
        return math.ceil((1.0 - self._level) / self.rate_per_s) if self._says_when else -1.0


class Window:
    """So many calls in any `span_s`; with `counts_refused`, refused calls use the quota up as well."""

    def __init__(self, calls: int, span_s: float, *, counts_refused: bool = False, fixed: bool = False) -> None:
        self.rate_per_s, self._calls, self._span_s = calls / span_s, calls, span_s
        self._counts_refused, self._fixed = counts_refused, fixed
        self._times: deque[float] = deque()

    def admit(self, now: float) -> float | None:
        start = math.floor(now / self._span_s) * self._span_s if self._fixed else now - self._span_s
        while self._times and (self._times[0] < start if self._fixed else self._times[0] <= start):
            self._times.popleft()
        if len(self._times) < self._calls:
            self._times.append(now)
            return None
        if self._counts_refused:
            self._times.append(now)
        return math.ceil(self._times[0] + self._span_s - now) if not self._fixed else start + self._span_s - now


class Crowd:
    """Refuses whoever comes while so many are being served, and says nothing of when to come again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.present = 0


class Wave:
    """Refuses everything in some spans of time, and nothing outside of them."""

    def __init__(self, *spans: tuple[float, float], retry_after_s: float | None) -> None:
        self._spans, self._retry_after_s = spans, retry_after_s

    def admit(self, now: float) -> float | None:
        if not any(start <= now < end for start, end in self._spans):
            return None
        return -1.0 if self._retry_after_s is None else self._retry_after_s


class Dice:
    """Refuses a share of the calls, whenever they come."""

    def __init__(self, share: float, *, seed: int) -> None:
        self._share, self._rng = share, random.Random(seed)

    def admit(self, now: float) -> float | None:
        return 1.0 if self._rng.random() < self._share else None


Quota = Bucket | Window | Crowd | Wave | Dice

# --- work ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Independent calls: each takes `mean_s` on average when alone, and tells its tokens, or does not."""

    mean_s: float = 1.0
    #: sigma of lognormal answer lengths; 0.35 is a fixed form, 0.8 a model that reasons, 1.2 a very heavy tail
    sigma: float = 0.35
    #: the share of the time that follows the answer's length; the rest is the same for all
    token_share: float = 0.7
    tells_tokens: bool = True
    #: sigma of a lognormal factor on each call's time that its tokens do not explain
    noise: float = 0.1
    round_trip_s: float = 0.005
    deadline_s: float = 120.0

    def draw(self, rng: random.Random) -> tuple[float, int]:
        length = rng.lognormvariate(-(self.sigma**2) / 2, self.sigma) if self.sigma else 1.0
        noise = rng.lognormvariate(-(self.noise**2) / 2, self.noise) if self.noise else 1.0
        return self.mean_s * (1 - self.token_share + self.token_share * length) * noise, max(1, round(200 * length))


# --- the simulation ---------------------------------------------------------------------------------------------------

_REFUSAL_S = 0.03
_ARRIVE, _ANSWER, _REFUSE, _DEADLINE, _DRIFT, _OPEN, _SEND, _PROBE, _AGAIN = range(9)


@dataclass(slots=True, eq=False)
class _Call:
    work: float
    tokens: int
    started: float = 0.0
    over: bool = False
    in_service: bool = False
    retry_after_s: float | None = None


@dataclass(kw_only=True)
class Outcome:
    """What a simulated run came to."""

    elapsed_s: float
    completed: int
    refused: int
    timeouts: int
    #: (second, limit) at each change
    limits: list[tuple[float, int]] = field(repr=False)
    #: second of each completion
    finished_at: list[float] = field(repr=False)
    auto: AutoConcurrency | None = field(repr=False)

    @property
    def rate_per_s(self) -> float:
        return self.completed / self.elapsed_s

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.completed + self.refused)

    def rate_between(self, start_s: float, end_s: float) -> float:
        return sum(start_s <= at < end_s for at in self.finished_at) / (end_s - start_s)


class World:
    """One client, one server, one virtual clock."""

    def __init__(
        self, machine: Machine, work: Workload, *, seed: int, quota: Quota | None = None, fixed: int | None = None,
        start: int = 4, maximum: int = 64, auto: AutoConcurrency | None = None, now: float = 0.0,
    ) -> None:  # fmt: skip
        self.now = now
        self._machine, self._work, self._quota = machine, work, quota
        self._rng = random.Random(seed)
        self.auto = auto
        if auto is None and fixed is None:
            self.auto = AutoConcurrency(start=start, maximum=maximum, now=now)
        self._fixed = fixed
        #: of a fixed number in flight; `auto` has its own
        self._learner = PaceLearner(AutoPolicy(), now=now) if fixed is not None and quota is not None else None
        self._strays = StrayRefusals(AutoPolicy(), now=now)
        self._pacer: Pacer | None = None
        self._send_at = -math.inf
        self._opens_at = -math.inf
        self._gate_wait_s = 1.0
        self._closed_at = -math.inf
        self._retries: deque[_Call] = deque()
        self._in_flight = 0
        self._left = 0
        self._events: list[tuple[float, int, int, _Call | None]] = []
        self._sequence = 0
        # the machine: virtual work done per active call, and who finishes at which
        self._factor = 1.0
        self._done_work = 0.0
        self._done_at = now
        self._active = 0
        self._finishing: list[tuple[float, int, _Call]] = []
        self._line: deque[_Call] = deque()
        # outage detection
        self._failures_in_a_row = 0
        self._is_out = False
        self.outcome = Outcome(
            elapsed_s=0.0, completed=0, refused=0, timeouts=0, limits=[], finished_at=[], auto=self.auto
        )
        for at, _ in machine.drift:
            self._schedule(at, _DRIFT, None)

    def run(self, *, items: int | None = None, seconds: float = math.inf) -> Outcome:
        """Until so many calls were answered, or so long."""
        self._left = items if items is not None else 1 << 60
        target = self.outcome.completed + self._left
        end = self.now + seconds
        self._send()
        while self.outcome.completed < target:
            finish_at = self._next_finish()
            event_at = self._events[0][0] if self._events else math.inf
            at = min(finish_at, event_at)
            if at > end or at == math.inf:
                self.now = min(end, at)
                break
            self.now = at
            if finish_at <= event_at:
                self._finish()
            else:
                _, _, kind, call = heapq.heappop(self._events)
                self._happen(kind, call)
        self.outcome.elapsed_s = self.now
        return self.outcome

    # --- the server ---

    def _advance(self) -> None:
        if self._active:
            self._done_work += (self.now - self._done_at) * self._factor * self._machine.speed(self._active)
        self._done_at = self.now

    def _next_finish(self) -> float:
        finishing = self._finishing
        while finishing and finishing[0][2].over:
            heapq.heappop(finishing)
        if not finishing or self._factor == 0:
            return math.inf
        left = max(0.0, finishing[0][0] - self._done_work)
        return max(self.now, self._done_at + left / (self._factor * self._machine.speed(self._active)))

    def _serve(self) -> None:
        """Take calls from the line while there is room. The clock of the work must be up to date."""
        while self._line and self._active < self._machine.slots:
            call = self._line.popleft()
            if call.over:
                continue
            call.in_service = True
            self._active += 1
            self._sequence += 1
            heapq.heappush(self._finishing, (self._done_work + call.work, self._sequence, call))

    def _leave(self, call: _Call) -> None:
        self._advance()
        if call.in_service:
            self._active -= 1
            call.in_service = False
        if isinstance(self._quota, Crowd):
            self._quota.present -= 1
        self._serve()

    def _finish(self) -> None:
        self._advance()
        _, _, call = heapq.heappop(self._finishing)
        self._leave(call)
        self._schedule(self.now + self._work.round_trip_s / 2, _ANSWER, call)

    def _arrive(self, call: _Call) -> None:
        if call.over:
            return
        wait_s: float | None = None
        if isinstance(self._quota, Crowd):
            wait_s = -1.0 if self._quota.present >= self._quota.most else None
            self._quota.present += wait_s is None
        elif self._quota is not None:
            wait_s = self._quota.admit(self.now)
        if wait_s is not None:
            call.over = True
            told_s = wait_s if wait_s >= 0 else None
            refusal = _Call(work=call.work, tokens=call.tokens, started=call.started, retry_after_s=told_s)
            self._schedule(self.now + _REFUSAL_S, _REFUSE, refusal)
            return
        self._advance()
        self._line.append(call)
        self._serve()

    # --- the client ---

    @property
    def limit(self) -> int:
        allowed = self._fixed if self.auto is None else self.auto.limit
        assert allowed is not None
        return allowed

    @property
    def pace_per_s(self) -> float | None:
        if self.auto is not None:
            return self.auto.pace_per_s
        return None if self._learner is None else self._learner.rate_per_s

    def _is_stray(self, retry_after_s: float | None) -> bool:
        learner = self._learner if self.auto is None else self.auto._learner
        return self._strays.on_refused(
            self.now,
            retry_after_s=retry_after_s,
            is_trial=learner is not None and learner.is_trial,
            has_quota=learner is not None and learner.has_quota,
        )

    def _schedule(self, at: float, kind: int, call: _Call | None) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at, self._sequence, kind, call))

    def _send(self) -> None:
        """Fill the slots, as gate and pace allow."""
        while self._in_flight < self.limit and self._left - self._in_flight > 0:
            if self._is_out or self.now < self._opens_at:
                return
            pace = self.pace_per_s
            if pace is None:
                self._pacer = None
            else:
                self._pacer = self._pacer or Pacer(pace)
                self._pacer.set_rate(pace)
                delay_s = self._pacer.delay_s(self.now)
                if delay_s > 1e-9:
                    if self._send_at <= self.now:
                        self._send_at = self.now + delay_s
                        self._schedule(self._send_at, _SEND, None)
                    return
                self._pacer.record_send(self.now)
            self._dispatch()

    def _dispatch(self) -> None:
        if self._retries:
            call = self._retries.popleft()
        else:
            work, tokens = self._work.draw(self._rng)
            call = _Call(work=work, tokens=tokens)
        call.started = self.now
        self._in_flight += 1
        self._schedule(self.now + self._work.round_trip_s / 2, _ARRIVE, call)
        self._schedule(self.now + self._work.deadline_s, _DEADLINE, call)

    def _happen(self, kind: int, call: _Call | None) -> None:
        if kind == _ARRIVE and call is not None:
            self._arrive(call)
        elif kind == _ANSWER and call is not None:
            self._answered(call)
        elif kind == _REFUSE and call is not None:
            self._refused(call)
        elif kind == _DEADLINE and call is not None:
            self._timed_out(call)
        elif kind == _DRIFT:
            self._advance()
            self._factor = [factor for at, factor in self._machine.drift if at <= self.now][-1]
        elif kind == _PROBE:
            self._probe()
        elif kind == _AGAIN and call is not None:
            self._retries.append(call)
        self._send()

    def _answered(self, call: _Call) -> None:
        if call.over:
            return
        call.over = True
        self._strays.on_accepted(self.now)
        auto, outcome = self.auto, self.outcome
        if auto is not None:
            before = auto.limit
            tokens = call.tokens if self._work.tells_tokens else None
            auto.on_completion(self.now, started=call.started, completion_tokens=tokens, in_flight=self._in_flight)
            if auto.limit != before:
                outcome.limits.append((self.now, auto.limit))
        elif self._learner is not None:
            self._learner.on_accepted(self.now, call.started)
        self._in_flight -= 1
        self._left -= 1
        self._failures_in_a_row = 0
        self._gate_wait_s = 1.0
        outcome.completed += 1
        outcome.finished_at.append(self.now)

    def _refused(self, call: _Call) -> None:
        self._in_flight -= 1
        self.outcome.refused += 1
        told_s, again = call.retry_after_s, _Call(work=call.work, tokens=call.tokens)
        if self._is_stray(told_s):
            self._schedule(self.now + (1.0 if told_s is None else told_s), _AGAIN, again)
            return
        self._retries.append(again)
        if self.auto is not None:
            self.auto.on_overload(self.now, call_started=call.started)
        elif self._learner is not None:
            self._learner.on_refused(self.now, call.started, self._in_flight + 1)
        if call.started > self._closed_at:
            self._closed_at = self.now
            wait_s = self._gate_wait_s if told_s is None else told_s
            self._gate_wait_s = min(30.0, 2 * self._gate_wait_s)
        elif told_s is not None:
            wait_s = told_s
        else:
            return
        self._opens_at = max(self._opens_at, self.now + wait_s)
        self._schedule(self._opens_at, _OPEN, None)

    def _timed_out(self, call: _Call) -> None:
        if call.over:
            return
        call.over = True
        self._leave(call)
        self._in_flight -= 1
        self.outcome.timeouts += 1
        self._retries.append(_Call(work=call.work, tokens=call.tokens))
        self._failures_in_a_row += 1
        if self.auto is None or self._is_out:
            return
        self.auto.on_timeout(self.now, call.started)
        if self._failures_in_a_row >= 5:
            self._is_out = True
            self.auto.on_outage(self.now)
            self._schedule(self.now + 5.0, _PROBE, None)

    def _probe(self) -> None:
        if self._factor == 0:
            self._schedule(self.now + 20.0, _PROBE, None)
            return
        self._is_out = False
        self._failures_in_a_row = 0
        assert self.auto is not None
        self.auto.on_recovered(self.now)


# --- comparisons -----------------------------------------------------------------------------------------------------

LEVELS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 192, 256, 320, 512)


def best_fixed(machine: Machine, work: Workload, *, seed: int, items: int, maximum: int = 512) -> tuple[int, float]:
    """The best constant concurrency for exactly this work, and its rate."""
    rates: dict[int, float] = {}
    limit_s = items * work.mean_s * 2  # where every call times out, it would never end
    for level in reversed([level for level in LEVELS if level <= maximum]):
        outcome = World(machine, work, seed=seed, fixed=level).run(items=items, seconds=limit_s)
        rates[level] = outcome.rate_per_s
        limit_s = 1.02 * items / max(rates.values())  # the others need not be seen to their end
    best = max(rates.values())
    return min(level for level, rate in rates.items() if rate >= 0.999 * best), best

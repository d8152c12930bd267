"""Owns when the next call may be sent: the learnt pace, requests and tokens a minute, the quota's rest. Pure.

Where none of them is in force, a turn costs one look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from narrun_async.limits.pacing import Pacer
from narrun_async.limits.rates import Allowance, Quota, TokenEstimate, read_quota
from narrun_async.models import Usage

#: answers in which the endpoint may first mention its quota; after them nobody looks any more (2 µs an answer)
ANSWERS_TO_LOOK_AT = 16
#: bounds of the pace that a quota asks for: only answers tell that it has refilled, so some calls must be sent, and
#: a reset that is all but zero asks for nothing
SLOWEST_PER_S, FASTEST_PER_S = 0.1, 1000.0
#: when the window opens fully, the calls that it lets in go within about this long, not as one burst of connections: at
#: the start of a run, and after an outage, when the endpoint has just come back
OPENING_S, OPENING_AFTER_OUTAGE_S = 0.1, 0.25
#: … but not at a slower rate than this, for a few calls are no burst
SLOWEST_OPENING_PER_S = 250.0


class SendTurns:
    """Gives out turns, the latest of all limits; see the module.

    :param rpm: requests a minute; None: no limit
    :param tpm: tokens a minute, prompt and completion together; None: no limit
    """

    def __init__(self, *, rpm: float | None, tpm: float | None, now: float) -> None:
        self._requests = Allowance(rpm, now=now) if rpm else None
        self._tokens = Allowance(tpm, now=now) if tpm else None
        self._estimate = TokenEstimate()
        self._pacer: Pacer | None = None
        #: by the unit of the quota
        self._quota_pacers: dict[str, Pacer] = {}
        self._answers_to_look_at = ANSWERS_TO_LOOK_AT
        self._opening: Pacer | None = None
        self._opening_ends_at = 0.0

    @property
    def are_free(self) -> bool:
        return (
            self._pacer is None
            and self._requests is None
            and self._tokens is None
            and not self._quota_pacers
            and self._opening is None
        )

    def open(self, calls: int, *, within_s: float, now: float) -> None:
        """So many calls may go at once from now on: spread them a little."""
        self._opening = Pacer(max(SLOWEST_OPENING_PER_S, calls / within_s))
        self._opening_ends_at = now + within_s

    def set_pace(self, rate_per_s: float | None) -> None:
        """The pace that refusals have taught; None: there were none."""
        if rate_per_s is None:
            self._pacer = None
        elif self._pacer is None:
            self._pacer = Pacer(rate_per_s)
        elif self._pacer.rate_per_s != rate_per_s:
            self._pacer.set_rate(rate_per_s)

    def delay_s(self, request_bytes: int, *, now: float) -> float:
        """Seconds until the next call may go. It takes nothing: ask again after waiting."""
        if self._opening is not None and now >= self._opening_ends_at:
            self._opening = None
        delays = [pacer.delay_s(now) for pacer in self._pacers()]
        if self._requests is not None:
            delays.append(self._requests.delay_s(1.0, now=now))
        if self._tokens is not None:
            delays.append(self._tokens.delay_s(self._estimate.tokens_for(request_bytes), now=now))
        return max(delays, default=0.0)

    def take(self, request_bytes: int, *, now: float) -> float:
        """A call goes now.

        :returns: the tokens that were set aside for it, to be settled when it has been answered
        """
        for pacer in self._pacers():
            pacer.record_send(now)
        if self._requests is not None:
            self._requests.take(1.0, now=now)
        if self._tokens is None:
            return 0.0
        tokens = self._estimate.tokens_for(request_bytes)
        self._tokens.take(tokens, now=now)
        return tokens

    def settle(self, taken_tokens: float, usage: Usage, *, now: float) -> None:
        """A call has been answered: count the tokens that it really used."""
        used = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        if not used:
            return
        self._estimate.record(used)
        if self._tokens is not None:
            self._tokens.settle(taken=taken_tokens, used=used, now=now)

    def learn(self, headers: Mapping[str, str], *, in_flight: int) -> None:
        """What an answer says: while less is left than is in flight, calls go at the rate of the refill."""
        if not self._answers_to_look_at:
            return
        requests, tokens = read_quota(headers, "requests"), read_quota(headers, "tokens")
        is_told = requests is not None or tokens is not None
        self._answers_to_look_at = ANSWERS_TO_LOOK_AT if is_told else self._answers_to_look_at - 1
        self._follow("requests", requests, 1.0, in_flight)
        self._follow("tokens", tokens, self._estimate.mean_tokens, in_flight)

    def _follow(self, unit: str, quota: Quota | None, per_call: float | None, in_flight: int) -> None:
        """:param per_call: what a call uses of the quota; None where nobody knows"""
        if quota is None or per_call is None or quota.remaining > in_flight * per_call:
            self._quota_pacers.pop(unit, None)
            return
        rate_per_s = min(max(quota.refill_per_s() / per_call, SLOWEST_PER_S), FASTEST_PER_S)
        if unit in self._quota_pacers:
            self._quota_pacers[unit].set_rate(rate_per_s)
        else:
            self._quota_pacers[unit] = Pacer(rate_per_s)

    def _pacers(self) -> Iterator[Pacer]:
        if self._pacer is not None:
            yield self._pacer
        if self._opening is not None:
            yield self._opening
        yield from self._quota_pacers.values()

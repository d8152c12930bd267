"""Owns the send rate of a rate-limited endpoint: what it should be, and when the next call may go. It never sleeps."""

from __future__ import annotations

import math

from narrun_async.limits.auto_policy import AutoPolicy


class Pacer:
    """Spaces sends evenly at a rate.

    A wait that came out late is made up for, up to `LATE_S`; other unused time is not saved up, for it would come back
    as a burst.
    """

    #: a busy event loop wakes late by about this much
    LATE_S = 0.02

    __slots__ = ("_next_at", "rate_per_s")

    def __init__(self, rate_per_s: float) -> None:
        """:raises ValueError: the rate is not a positive finite number"""
        self._next_at = -math.inf
        self.rate_per_s = rate_per_s
        self.set_rate(rate_per_s)

    def delay_s(self, now: float) -> float:
        """Seconds until the next call may go; 0 if it may go now. Reserves nothing: ask again after waiting."""
        return max(0.0, self._next_at - now)

    def record_send(self, now: float) -> None:
        """A call goes now; the next may go one interval later, whatever had been waited for."""
        self._next_at = max(self._next_at, now - self.LATE_S) + 1.0 / self.rate_per_s

    def set_rate(self, rate_per_s: float) -> None:
        """Change the rate from the next send on.

        :raises ValueError: the rate is not a positive finite number
        """
        if not 0 < rate_per_s < math.inf:
            raise ValueError("a send rate is a positive finite number")
        self.rate_per_s = rate_per_s


class RateMeter:
    """The rate of late, over the present or the previous span, whichever is higher: a start is no steady rate.

    :param span_s: seconds
    """

    #: a shorter time than this is taken for this long, or a burst would pass for a rate
    SHORTEST_S = 1.0

    __slots__ = ("_before_per_s", "_count", "_since", "_span_s")

    def __init__(self, span_s: float, *, now: float) -> None:
        self._span_s = span_s
        self._since = now
        self._count = 0
        self._before_per_s = 0.0

    def add(self, now: float) -> None:
        self._count += 1
        if now - self._since > self._span_s:
            self._before_per_s = self._count / (now - self._since)
            self._count, self._since = 0, now

    def rate_per_s(self, now: float) -> float:
        return max(self._before_per_s, self._count / max(self.SHORTEST_S, now - self._since))


class PaceLearner:
    """Finds the highest send rate that an endpoint accepts, with few refusals.

    No pace until the first refusal. One wave of refusals does not tell a rate, so the pace becomes what the endpoint
    had been taking. A second wave does: what was accepted from one to the next, waiting included, is what a quota
    allows. From then on the pace grows fast up to a little below the lowest pace known to be refused, rests, and tries
    to pass it at ever longer intervals. Evidence is counted at the times of sending, so neither long answers nor a long
    `Retry-After` stand for clean time.
    """

    __slots__ = (
        "_accepted", "_accepted_since_wave", "_ceiling", "_cut_at", "_cuts", "_deaf_until", "_gain", "_good",
        "_highest", "_is_answered", "_last_sent", "_lowest", "_meter", "_next_growth_s", "_paced", "_policy", "_rest_s",
        "_since", "_wave_at", "rate_per_s",
    )  # fmt: skip

    def __init__(self, policy: AutoPolicy, *, now: float) -> None:
        self._policy = policy
        #: None until the first refusal
        self.rate_per_s: float | None = None
        #: calls accepted under a pace, and cuts of it; halved together, so that they speak of lately
        self._paced = self._cuts = 0.0
        #: the highest pace refused in this row of cuts
        self._highest = 0.0
        #: refusals that no pace prevents teach nothing until then
        self._deaf_until = -math.inf
        self._cut_at = -math.inf
        #: a call sent after the last cut has been accepted
        self._is_answered = True
        #: the last pace that was used and clean since the last cut
        self._good: float | None = None
        #: the lowest pace known to be refused
        self._ceiling = math.inf
        self._rest_s = policy.rest_s
        self._since = self._last_sent = now
        self._next_growth_s = policy.recover_s
        self._gain = policy.recover_gain
        self._accepted = 0
        self._meter = RateMeter(policy.measure_s, now=now)
        #: the first wave of refusals, while there was no second; and the calls accepted since
        self._wave_at: float | None = None
        self._accepted_since_wave = 0
        #: the pace does not go below this while there was one wave only
        self._lowest = 0.0

    @property
    def is_trial(self) -> bool:
        """The pace has been raised since it last went well."""
        return self._good is not None and self.rate_per_s is not None and self.rate_per_s > self._good

    @property
    def has_quota(self) -> bool:
        """Refusals have taught a rate; one wave has not."""
        return self._ceiling < math.inf

    def on_accepted(self, now: float, started: float) -> bool:
        """A call was answered. Returns whether the pace changed."""
        if self.rate_per_s is None:
            self._meter.add(now)
            return False
        if self._wave_at is not None and started > self._wave_at:
            self._accepted_since_wave += 1
        if started <= self._cut_at:
            return False
        self._is_answered = True
        self._paced += 1
        if self._paced >= self._policy.unmoved_memory_calls:
            self._paced, self._cuts, self._highest = self._paced / 2, self._cuts / 2, self.rate_per_s
        if self._accepted == 0:
            # The gate may have been closed for an hour: clean time begins with the first call that got through.
            self._since = self._last_sent = max(self._since, started)
        self._accepted += 1
        if started > self._last_sent:
            self._last_sent = started
        if self._last_sent - self._since < self._next_growth_s or self._accepted < self._policy.clean_completions:
            return False
        return self._grow()

    def on_refused(self, now: float, call_started: float, in_flight: int) -> bool:
        """A call was refused. Returns whether the pace changed.

        Calls that were sent before the last cut belong to its wave. Refusals with no call accepted in between lower the
        pace, by half at most where none has been learnt yet, but not the ceiling: a server that refuses everything (it
        loads its model) says nothing about a rate.

        :param in_flight: how many calls the server was seen to take at once, for want of anything better
        """
        if call_started <= self._cut_at or now < self._deaf_until:
            return False
        if self.rate_per_s is None:
            self._wave_at, self._accepted_since_wave = now, 0
            taken_per_s = max(self._meter.rate_per_s(now), in_flight / 2 / RateMeter.SHORTEST_S)
            self._lowest = self._policy.unknown_least * taken_per_s
            return self._cut(now, taken_per_s)
        if self._wave_at is not None:
            if self._accepted_since_wave:
                return self._cut(now, self._rate_of_quota(now, self._wave_at, in_flight))
            return self._cut(now, max(self._policy.repeated_cut * self.rate_per_s, self._lowest))
        return self._cut_again(now, self.rate_per_s)

    def _rate_of_quota(self, now: float, wave_at: float, in_flight: int) -> float:
        """What was accepted from one wave of refusals to the next is what the endpoint allows in that time."""
        allowed_per_s = (self._accepted_since_wave + in_flight / 2) / max(RateMeter.SHORTEST_S, now - wave_at)
        self._wave_at = None
        # The rule against refusals that no pace prevents looks at learnt paces only: this one fell for a reason.
        self._paced = self._cuts = self._highest = 0.0
        assert self.rate_per_s is not None
        self._ceiling = self.rate_per_s
        return min(self.rate_per_s, self._policy.first_cut * allowed_per_s)

    def _cut_again(self, now: float, refused: float) -> bool:
        """A pace that was learnt from refusals was refused."""
        policy = self._policy
        has_grown = self.is_trial
        if self._is_answered:
            if refused > self._ceiling * policy.ceiling_share:
                self._rest_s = min(policy.longest_rest_s, 2 * self._rest_s)
            self._ceiling = refused
        rate = min(refused, policy.later_cut * self._good if self._good else policy.repeated_cut * refused)
        if not has_grown:
            # Any limit refuses a pace that has grown too far: the fall is counted from paces that had not just grown.
            self._highest = max(self._highest, refused)
        self._cuts += 1
        if self._is_unmoved(rate):
            self._forget(now)
            return True
        return self._cut(now, rate)

    def _cut(self, now: float, rate_per_s: float) -> bool:
        before = self.rate_per_s
        self._gain = self._policy.recover_gain
        self.rate_per_s = max(rate_per_s, 1.0 / self._policy.slowest_interval_s)
        self._cut_at = now
        self._is_answered = False
        self._good = None
        self._restart(now)
        return self.rate_per_s != before

    def _is_unmoved(self, rate: float) -> bool:
        """Many cuts among few calls, and refusals go on although the pace has come down a long way."""
        policy = self._policy
        if self._cuts < policy.unmoved_cuts or self._cuts <= policy.unmoved_share * self._paced:
            return False
        return rate < policy.unmoved_fall * self._highest

    def _forget(self, now: float) -> None:
        """Refusals go on whatever the pace: they do not depend on it. The gate alone deals with them for a while."""
        self.rate_per_s = None
        self._paced = self._cuts = self._highest = 0.0
        self._deaf_until = now + self._policy.unmoved_rest_s
        self._ceiling, self._rest_s = math.inf, self._policy.rest_s
        self._is_answered, self._wave_at = True, None
        self._meter = RateMeter(self._policy.measure_s, now=now)

    def _grow(self) -> bool:
        """A clean time has passed at this pace; was it used, and may the pace grow?"""
        policy, rate = self._policy, self.rate_per_s
        assert rate is not None
        window_s = self._last_sent - self._since
        is_used = self._accepted >= policy.used_share * rate * window_s
        is_one_wave_of_many = self._wave_at is not None and self._accepted >= policy.wave_many_calls
        clean_since_cut_s = self._last_sent - self._cut_at
        self._restart(self._last_sent)
        if not is_used:
            return False
        self._good = rate
        if is_one_wave_of_many:
            self.rate_per_s = rate * policy.wave_gain
            return True
        if rate > self._ceiling * policy.forget_gain:
            self._ceiling, self._rest_s, self._gain = math.inf, policy.rest_s, policy.careful_gain
        resting = self._ceiling * policy.ceiling_share
        if rate * policy.careful_gain < resting:
            self.rate_per_s = min(rate * self._gain, resting)
            self._gain = min(policy.recover_gain, self._gain**2)
        elif clean_since_cut_s >= self._rest_s:
            self.rate_per_s = rate * policy.careful_gain
            self._next_growth_s = policy.clean_s
        else:
            return False
        return True

    def _restart(self, since: float) -> None:
        self._since = self._last_sent = since
        self._accepted = 0
        self._next_growth_s = self._policy.recover_s

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


class PaceLearner:
    """Finds the highest send rate that an endpoint accepts, with few refusals.

    No pace until the first refusal. Then it grows fast up to a little below the lowest pace known to be refused, rests,
    and tries to pass it at ever longer intervals. Evidence is counted at the times of sending, so neither long answers
    nor a long `Retry-After` stand for clean time.
    """

    __slots__ = (
        "_accepted",
        "_ceiling",
        "_cut_at",
        "_cuts",
        "_deaf_until",
        "_gain",
        "_good",
        "_highest",
        "_is_answered",
        "_last_sent",
        "_measured",
        "_measured_before",
        "_measuring_since",
        "_measuring_since_before",
        "_next_growth_s",
        "_paced",
        "_policy",
        "_rest_s",
        "_since",
        "rate_per_s",
    )

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
        # two halves of a sliding window, for the rate before the first refusal
        self._measured = self._measured_before = 0
        self._measuring_since = self._measuring_since_before = now

    def on_accepted(self, now: float, started: float) -> bool:
        """A call was answered. Returns whether the pace changed."""
        if self.rate_per_s is None:
            self._measured += 1
            if now - self._measuring_since > self._policy.longest_measure_s:
                self._measured_before, self._measured = self._measured, 0
                self._measuring_since_before, self._measuring_since = self._measuring_since, now
            return False
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

    def on_refused(self, now: float, call_started: float, retry_after_s: float | None, in_flight: int) -> bool:
        """A call was refused. Returns whether the pace changed.

        Calls that were sent before the last cut belong to its wave. Refusals with no call accepted in between lower the
        pace, but not the ceiling: a server that refuses everything (it loads its model) says nothing about a rate.

        :param in_flight: how many calls the server was seen to take at once, for want of anything better
        """
        policy = self._policy
        if call_started <= self._cut_at or now < self._deaf_until:
            return False
        has_grown = False
        if self.rate_per_s is None:
            rate = policy.first_cut * self._measure(now, retry_after_s, in_flight)
        else:
            has_grown = self._good is not None and self.rate_per_s > self._good
            if self._is_answered:
                if self.rate_per_s > self._ceiling * policy.ceiling_share:
                    self._rest_s = min(policy.longest_rest_s, 2 * self._rest_s)
                self._ceiling = self.rate_per_s
            rate = policy.later_cut * self._good if self._good else policy.repeated_cut * self.rate_per_s
            rate = min(rate, self.rate_per_s)
        if not has_grown:
            # Any limit refuses a pace that has grown too far: the fall is counted from paces that had not just grown.
            self._highest = max(self._highest, self.rate_per_s or 0.0)
        self._cuts += 1
        if self._is_unmoved(rate):
            self._forget(now)
            return True
        self._gain = policy.recover_gain
        self.rate_per_s = max(rate, 1.0 / policy.slowest_interval_s)
        self._cut_at = now
        self._is_answered = False
        self._good = None
        self._restart(now)
        return True

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
        self._is_answered = True
        self._measured = self._measured_before = 0
        self._measuring_since = self._measuring_since_before = now

    def _measure(self, now: float, retry_after_s: float | None, in_flight: int) -> float:
        policy = self._policy
        wait_s = min(retry_after_s or 0.0, policy.longest_wait_counted_s)
        elapsed_s = max(policy.shortest_measure_s, now - self._measuring_since_before)
        completions = self._measured + self._measured_before
        return max(completions, in_flight / 2) / (elapsed_s + wait_s)

    def _grow(self) -> bool:
        """A clean time has passed at this pace; was it used, and may the pace grow?"""
        policy, rate = self._policy, self.rate_per_s
        assert rate is not None
        window_s = self._last_sent - self._since
        is_used = self._accepted >= policy.used_share * rate * window_s
        clean_since_cut_s = self._last_sent - self._cut_at
        self._restart(self._last_sent)
        if not is_used:
            return False
        self._good = rate
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

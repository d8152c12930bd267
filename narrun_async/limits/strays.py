"""Owns the judgement whether a refusal is one of few among many accepted calls, and so says nothing about the rest."""

from __future__ import annotations

import math

from narrun_async.limits.auto_policy import AutoPolicy


class StrayRefusals:
    """Counts answers and refusals of the last seconds.

    A wave, or a rate that is too high, soon has more refusals than strays may be: it is met a few calls later.
    """

    __slots__ = ("_accepted", "_accepted_before", "_policy", "_refused", "_refused_before", "_since", "_stray_at")

    def __init__(self, policy: AutoPolicy, *, now: float) -> None:
        self._policy = policy
        self._since = now
        self._accepted = self._accepted_before = 0
        self._refused = self._refused_before = 0
        self._stray_at = -math.inf

    def on_accepted(self, now: float) -> None:
        self._pass(now)
        self._accepted += 1

    def on_refused(self, now: float, *, retry_after_s: float | None, is_trial: bool, has_quota: bool) -> bool:
        """A call was refused. Returns whether it alone should wait.

        :param is_trial: the pace has just been raised: then it is the likely cause, unless there were strays before
        :param has_quota: refusals have taught a rate, which may be a little too high
        """
        self._pass(now)
        self._refused += 1
        policy = self._policy
        share = policy.stray_share_of_quota if has_quota else policy.stray_share
        accepted, refused = self._accepted + self._accepted_before, self._refused + self._refused_before
        is_stray = (
            (retry_after_s or 0.0) <= policy.stray_longest_wait_s
            and accepted >= policy.stray_least_accepted
            and refused <= share * accepted
            and (not is_trial or now - self._stray_at <= policy.stray_memory_s)
        )
        # What came before a wave was its beginning.
        self._stray_at = now if is_stray else -math.inf
        return is_stray

    def _pass(self, now: float) -> None:
        passed_s = now - self._since
        if passed_s <= self._policy.stray_span_s:
            return
        is_next = passed_s <= 2 * self._policy.stray_span_s
        self._accepted_before, self._refused_before = (self._accepted, self._refused) if is_next else (0, 0)
        self._accepted = self._refused = 0
        self._since = now

"""Owns the search for the concurrency that an endpoint serves fastest. Pure: no I/O, no clock, no randomness.

    CLIMB ──no gain from a doubling──► REFINE or hold      CLIMB ──none from the first──► DESCEND ──► HOLD
    HOLD ──every few epochs──► PROBE ──better──► keep, again · ──much room──► CLIMB · ──not──► HOLD

It listens to throughput, not to latency: local servers queue instead of refusing, and batching raises latency long
before throughput saturates. Refusals set a send rate instead (`PaceLearner`); while that rate is what holds sends back,
in-flight stays below the limit, epochs are void, and so the limit rests.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from narrun_async.limits.auto_policy import AutoPolicy
from narrun_async.limits.epochs import EpochMeter, Sample, pooled
from narrun_async.limits.pacing import PaceLearner


class Phase(StrEnum):
    """What the controller is doing."""

    CLIMB = "climb"
    DESCEND = "descend"
    REFINE = "refine"
    HOLD = "hold"
    PROBE = "probe"


class ChangeReason(StrEnum):
    """Why the limit or the pace changed."""

    CLIMB = "climb"
    DESCEND = "descend"
    REFINE = "refine"
    PROBE = "probe"
    #: a trial did not pay
    REVERT = "revert"
    TIMEOUTS = "timeouts"
    #: an outage ended a trial, or showed that timeouts were its own
    OUTAGE = "outage"
    OVERLOAD = "overload"
    #: the pace went well
    CLEAN = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step, for the record of a run."""

    #: the caller's clock, seconds
    at_s: float
    limit_before: int
    limit: int
    pace_before_per_s: float | None
    pace_per_s: float | None
    reason: ChangeReason


class AutoConcurrency:
    """How many calls may be in flight, and how fast they may be sent. Every `now` is of one monotonic clock (s).

    Read `limit` and `pace_per_s` after each event; each event returns what it changed.
    """

    __slots__ = (
        "_base", "_base_limit", "_cut_at", "_cut_from", "_debt", "_epochs_to_probe", "_failed_probes", "_goes_up",
        "_has_climbed", "_history", "_in_flight", "_interval", "_is_out", "_learner", "_maximum", "_meter", "_phase",
        "_policy", "_recent", "_seen_since_cut", "_voids", "limit",
    )  # fmt: skip

    def __init__(
        self,
        *,
        start: int = 4,
        maximum: int = 64,
        now: float,
        policy: AutoPolicy | None = None,
        learner: PaceLearner | None = None,
    ) -> None:
        """:param learner: what is known about the send rate already; it is told of every event from now on
        :raises ValueError: start or maximum below 1
        """
        if start < 1 or maximum < 1:
            raise ValueError("a concurrency is at least 1")
        self._policy = policy or AutoPolicy()
        self._maximum = maximum
        #: calls that may be in flight, 1 to maximum
        self.limit = min(start, maximum)
        self._history: deque[Change] = deque(maxlen=self._policy.history)
        self._learner = learner or PaceLearner(self._policy, now=now)
        self._meter = EpochMeter()
        self._in_flight = self.limit
        # a trial is compared with this, and goes back there
        self._base: Sample | None = None
        self._base_limit = self.limit
        self._has_climbed = False
        # holding
        self._recent: deque[Sample] = deque(maxlen=self._policy.epochs_between_probes)
        self._interval = self._epochs_to_probe = self._policy.epochs_between_probes
        self._goes_up = True
        self._failed_probes = 0
        #: what downward probes have cost since the last gain, as a share
        self._debt = 1.0
        # trouble
        self._cut_at = -math.inf
        self._cut_from = self.limit
        self._seen_since_cut = 0
        self._is_out = False
        self._voids = 0
        self._phase = Phase.CLIMB
        self._begin(now, skip=self.limit)

    # --- what may be read ---------------------------------------------------------------------------------------------

    @property
    def pace_per_s(self) -> float | None:
        """Calls a second that may be sent; None where the endpoint has never refused one."""
        return self._learner.rate_per_s

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def history(self) -> tuple[Change, ...]:
        """The latest changes, oldest first."""
        return tuple(self._history)

    # --- events -------------------------------------------------------------------------------------------------------

    def on_completion(
        self, now: float, *, started: float, completion_tokens: int | None, in_flight: int
    ) -> Change | None:
        """A call brought an answer, usable or not.

        :param started: when it was sent
        :param in_flight: calls on the wire, this one included; a call that waits for its pace is not
        """
        self._in_flight = in_flight
        self._seen_since_cut += 1
        pace_before = self._learner.rate_per_s
        change = None
        if self._learner.on_accepted(now, started):
            change = self._record(now, self.limit, pace_before, ChangeReason.CLEAN)
        if self._is_out or not self._meter.add(now, started, completion_tokens, in_flight):
            return change
        return self._look(now) or change

    def on_timeout(self, now: float, started: float) -> Change | None:
        """A call was given up. Those sent before the last cut do not count: the cut was for them too."""
        if started <= self._cut_at or self._is_out:
            return None
        policy, meter = self._policy, self._meter
        meter.timeouts += 1
        if meter.timeouts < max(policy.timeouts, policy.timeout_share * (meter.completions + meter.timeouts)):
            return None
        before = self.limit
        self._cut_from, self._cut_at, self._seen_since_cut = before, now, 0
        self.limit = max(1, int(before * policy.timeout_cut))
        self._hold_anew(now)
        return self._record(now, before, self.pace_per_s, ChangeReason.TIMEOUTS)

    def on_overload(self, now: float, *, call_started: float) -> Change | None:
        """A call was refused for being one too many (429, 503, 529). One wave counts once."""
        pace_before = self._learner.rate_per_s
        is_news = self._learner.on_refused(now, call_started, self._in_flight)
        # The level stays, for it is the pace that matters now. Where it does not, a climb goes on from here.
        if self._phase in (Phase.CLIMB, Phase.REFINE):
            self._climb_anew(now)
        else:
            self._hold_anew(now)
        return self._record(now, self.limit, pace_before, ChangeReason.OVERLOAD) if is_news else None

    def on_outage(self, now: float) -> Change | None:
        """The endpoint is gone. Nothing counts until `on_recovered`; a trial ends; timeouts just before were its."""
        before = self.limit
        if self._cut_at > -math.inf and self._seen_since_cut < self._cut_from:
            self.limit = self._cut_from
        elif self._base is not None:
            self.limit = self._base_limit
        self._base = None
        self._cut_at = -math.inf
        self._is_out = True
        return self._record(now, before, self.pace_per_s, ChangeReason.OUTAGE)

    def on_recovered(self, now: float) -> None:
        """The endpoint is back; calls sent before now say nothing."""
        self._is_out = False
        if self._phase is Phase.CLIMB:
            self._climb_anew(now)
        else:
            self._hold_anew(now)

    # --- epochs -------------------------------------------------------------------------------------------------------

    def _begin(self, now: float, *, skip: int) -> None:
        policy = self._policy
        is_coarse = self._phase in (Phase.CLIMB, Phase.DESCEND)
        least = policy.climb_epoch_completions if is_coarse else policy.steady_epoch_completions
        if is_coarse and self._base is None and not self._has_climbed:
            least = policy.first_epoch_completions
        self._meter.begin(
            now,
            size=max(least, self.limit * (policy.climb_epoch_rounds if is_coarse else policy.steady_epoch_rounds)),
            look_every=None if self._base is None else policy.early_completions,
            skip=skip,
        )

    def _look(self, now: float) -> Change | None:
        """It is time to look at the epoch."""
        meter, policy = self._meter, self._policy
        if not meter.completions:
            return self._look_at_skipped(now)
        sample = meter.sample()
        if sample is None:
            meter.go_on()
            return None
        if sample.mean_in_flight < policy.filled_share * self.limit:
            return self._look_at_unfilled(now)
        if self._base is None:
            self._voids = 0
            return self._start_climbing(now, sample) if self._phase is Phase.CLIMB else self._hold(now, sample)
        gain = sample.gain_over(self._base)
        is_early_gain = self._phase is Phase.CLIMB and gain >= policy.early_gain
        is_hopeless = meter.completions >= policy.abandon_completions and gain < policy.abandon_gain
        if not (meter.is_whole or is_early_gain or is_hopeless):
            meter.go_on()
            return None
        if is_hopeless:
            meter.ignore_sent_before(now)
        self._voids = 0
        match self._phase:
            case Phase.CLIMB:
                return self._judge_doubling(now, sample, gain)
            case Phase.DESCEND:
                return self._judge_halving(now, sample, gain)
            case Phase.REFINE:
                return self._hold_at(now, self.limit if gain >= policy.keep_gain else self._base_limit)
            case _:
                return self._judge_probe(now, sample, gain)

    def _look_at_skipped(self, now: float) -> Change | None:
        """The completions of the change itself have come; if that took very long, the trial need not go on."""
        meter, policy, base = self._meter, self._policy, self._base
        if base is None or self.limit < self._base_limit or meter.skipped < policy.collapse_completions:
            return None
        if meter.skipped_per_s >= policy.collapse_gain * base.completions_per_s:
            return None
        if self._phase is Phase.PROBE:
            return self._judge_probe(now, base, 0.0)
        return (
            self._judge_doubling(now, base, 0.0) if self._phase is Phase.CLIMB else self._hold_at(now, self._base_limit)
        )

    def _look_at_unfilled(self, now: float) -> Change | None:
        """It was not the limit that held sends back."""
        if not self._meter.is_whole:
            self._meter.go_on()
            return None
        self._voids += 1
        if self._base is None or self._voids < self._policy.void_epochs_before_settling:
            self._begin(now, skip=0)
            return None
        return self._hold_at(now, self._base_limit if self.pace_per_s is None else self.limit)

    # --- climbing -----------------------------------------------------------------------------------------------------

    def _climb_anew(self, now: float) -> None:
        self._phase, self._base = Phase.CLIMB, None
        self._meter.ignore_sent_before(now)
        self._begin(now, skip=self.limit)

    def _start_climbing(self, now: float, sample: Sample) -> Change | None:
        if self.limit == self._maximum:
            return self._hold_at(now, self.limit)
        return self._try(now, 2 * self.limit, Phase.CLIMB, ChangeReason.CLIMB, base=sample)

    def _judge_doubling(self, now: float, sample: Sample, gain: float) -> Change | None:
        policy, below = self._policy, self._base_limit
        if gain >= policy.climb_gain and self.limit < self._maximum:
            self._has_climbed = True
            return self._try(now, 2 * self.limit, Phase.CLIMB, ChangeReason.CLIMB, base=sample)
        if gain >= policy.keep_gain:
            self._has_climbed = True
            return self._hold_at(now, self.limit)
        if not self._has_climbed and below > 1:
            return self._try(now, below // 2, Phase.DESCEND, ChangeReason.DESCEND, base=self._base, base_limit=below)
        halfway = (below + self.limit) // 2
        if gain < policy.past_peak_gain and halfway > below:
            return self._try(now, halfway, Phase.REFINE, ChangeReason.REFINE, base=self._base, base_limit=below)
        return self._hold_at(now, below)

    def _judge_halving(self, now: float, sample: Sample, gain: float) -> Change | None:
        if gain < self._policy.descend_kept:
            return self._hold_at(now, self._base_limit)
        if self.limit == 1:
            return self._hold_at(now, 1)
        # Compared with the start of the descent, or with what is better: each halving may not cost another tenth.
        base = sample if gain > 1 else self._base
        return self._try(now, self.limit // 2, Phase.DESCEND, ChangeReason.DESCEND, base=base)

    # --- holding ------------------------------------------------------------------------------------------------------

    def _hold_anew(self, now: float) -> None:
        """Whatever was measured is void; stay at the limit and look around soon."""
        self._meter.ignore_sent_before(now)
        self._forget()
        self._goes_up = True
        self._phase, self._base = Phase.HOLD, None
        self._begin(now, skip=self.limit)

    def _hold_at(self, now: float, limit: int) -> Change | None:
        self._forget()
        self._epochs_to_probe = self._policy.epochs_before_first_probe
        self._goes_up = True
        return self._move(now, limit, Phase.HOLD, ChangeReason.REVERT)

    def _forget(self) -> None:
        self._recent.clear()
        self._failed_probes, self._debt = 0, 1.0
        self._interval = self._epochs_to_probe = self._policy.epochs_between_probes

    def _hold(self, now: float, sample: Sample) -> Change | None:
        policy = self._policy
        if self._recent:
            gain = sample.gain_over(pooled(self._recent))
            if not policy.sank_gain < gain < policy.rose_gain:
                self._forget()
                self._epochs_to_probe = 1
                self._goes_up = gain > 1
        self._recent.append(sample)
        self._epochs_to_probe -= 1
        if self._epochs_to_probe > 0 or self._maximum == 1:
            self._begin(now, skip=0)
            return None
        return self._probe(now, pooled(self._recent))

    def _probe(self, now: float, base: Sample) -> Change | None:
        policy, limit = self._policy, self.limit
        if self._goes_up and limit >= self._maximum:
            self._goes_up = False
        elif not self._goes_up and limit == 1:
            self._goes_up = True
        if self._goes_up:
            target = max(limit + 1, round(limit * policy.probe_up))
        else:
            target = min(limit - 1, round(limit * policy.probe_down))
        return self._try(now, target, Phase.PROBE, ChangeReason.PROBE, base=base)

    def _judge_probe(self, now: float, sample: Sample, gain: float) -> Change | None:
        policy = self._policy
        went_up = self.limit > self._base_limit
        if went_up:
            added = self.limit / self._base_limit - 1
            if gain >= max(policy.keep_gain, 1 + policy.room_share * added) and self.limit < self._maximum:
                self._forget()
                return self._try(now, 2 * self.limit, Phase.CLIMB, ChangeReason.CLIMB, base=sample)
            is_kept = gain >= policy.keep_gain
        else:
            is_kept = gain >= policy.down_kept and self._debt * gain >= policy.down_kept_together
        if is_kept and gain >= policy.keep_gain:
            self._forget()
            self._epochs_to_probe = 1  # it pays to go on in this direction
            return self._move(now, self.limit, Phase.HOLD, ChangeReason.PROBE)
        if is_kept:
            self._debt *= min(1.0, gain)
            self._failed_probes = 0
        else:
            self._failed_probes += 1
            self._goes_up = not went_up
            if self._failed_probes > 1:
                self._interval = min(policy.most_epochs_between_probes, 2 * self._interval)
        self._epochs_to_probe = self._interval
        self._recent.clear()
        return self._move(now, self.limit if is_kept else self._base_limit, Phase.HOLD, ChangeReason.REVERT)

    # --- moving -------------------------------------------------------------------------------------------------------

    def _try(
        self, now: float, limit: int, phase: Phase, reason: ChangeReason, *, base: Sample | None, base_limit: int = 0
    ) -> Change | None:
        """:param base_limit: where to go back to; 0 is the present limit"""
        back_to = base_limit or self.limit
        change = self._move(now, limit, phase, reason, base=base)
        self._base_limit = back_to
        return change

    def _move(
        self, now: float, limit: int, phase: Phase, reason: ChangeReason, *, base: Sample | None = None
    ) -> Change | None:
        before = self.limit
        self.limit = max(1, min(self._maximum, limit))
        self._phase, self._base, self._base_limit = phase, base, self.limit
        # What was in flight was served under the old limit.
        self._begin(now, skip=max(before, self.limit) if self.limit != before else 0)
        return self._record(now, before, self.pace_per_s, reason)

    def _record(
        self, now: float, limit_before: int, pace_before_per_s: float | None, reason: ChangeReason
    ) -> Change | None:
        if limit_before == self.limit and pace_before_per_s == self.pace_per_s:
            return None
        change = Change(
            at_s=now,
            limit_before=limit_before,
            limit=self.limit,
            pace_before_per_s=pace_before_per_s,
            pace_per_s=self.pace_per_s,
            reason=reason,
        )
        self._history.append(change)
        return change

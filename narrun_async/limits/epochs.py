"""Owns the measuring of throughput over one epoch of completions at one limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What an epoch, or a part of one, measured.

    Throughput by Little's law (a mean in flight of N, each call done in W, is N/W a second), with W taken per token
    where tokens are told: a long answer brings its own long time, and the two cancel. Counting what happens to end
    within an epoch is several times as noisy where answers are of very unequal length.
    """

    completions: int
    #: 0 where an answer told none
    tokens: int
    #: sum over the completions
    latency_s: float
    #: integral over time
    in_flight_s: float
    elapsed_s: float

    @property
    def completions_per_s(self) -> float:
        return self.completions / self.elapsed_s

    @property
    def mean_in_flight(self) -> float:
        return self.in_flight_s / self.elapsed_s

    def gain_over(self, other: Sample) -> float:
        """Throughput as a share of another's: in completion tokens where both have them, else in completions."""
        busier = self.mean_in_flight / other.mean_in_flight
        if self.tokens and other.tokens:
            return busier * self.tokens * other.latency_s / (other.tokens * self.latency_s)
        return busier * self.completions * other.latency_s / (other.completions * self.latency_s)


def pooled(samples: Iterable[Sample]) -> Sample:
    """Several samples as one."""
    together = tuple(samples)
    return Sample(
        completions=sum(sample.completions for sample in together),
        tokens=sum(sample.tokens for sample in together) if all(sample.tokens for sample in together) else 0,
        latency_s=sum(sample.latency_s for sample in together),
        in_flight_s=sum(sample.in_flight_s for sample in together),
        elapsed_s=sum(sample.elapsed_s for sample in together),
    )


class EpochMeter:
    """Counts completions of one epoch, and says when it is time to look at them."""

    __slots__ = (
        "_began", "_in_flight_s", "_last", "_latency_s", "_look_at", "_look_every", "_since", "_skip", "_tokens",
        "_untold", "_valid_after", "completions", "size", "skipped", "timeouts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._valid_after = -math.inf
        self.timeouts = 0
        self.begin(0.0, size=1, look_every=None, skip=1)

    def begin(self, now: float, *, size: int, look_every: int | None, skip: int) -> None:
        """Start an epoch of `size` completions.

        :param look_every: completions after which to look; None looks at the end only
        :param skip: completions that still belong to what was before
        """
        self.size = size
        self._look_every = look_every or size
        self._look_at = min(size, self._look_every)
        self._skip = self.skipped = skip
        self._began = self._since = self._last = now
        self.completions = self._tokens = self._untold = self.timeouts = 0
        self._latency_s = self._in_flight_s = 0.0

    def ignore_sent_before(self, now: float) -> None:
        """Calls that were sent until now say nothing."""
        self._valid_after = now

    def add(self, now: float, started: float, tokens: int | None, in_flight: int) -> bool:
        """Count one completion. Returns whether it is time to look.

        :param in_flight: the number that has been in flight since the completion before, this one included
        """
        if started <= self._valid_after:
            return False
        if self._skip:
            self._skip -= 1
            self._since = self._last = now
            return not self._skip
        self.completions += 1
        self._latency_s += now - started
        self._in_flight_s += in_flight * (now - self._last)
        self._last = now
        if tokens:
            self._tokens += tokens
        else:
            self._untold += 1
        return self.completions >= self._look_at

    def go_on(self) -> None:
        """Look again a little later."""
        self._look_at = self.completions + self._look_every
        if self.completions < self.size:
            self._look_at = min(self.size, self._look_at)

    @property
    def skipped_per_s(self) -> float:
        """The rate at which the skipped completions came; a first, coarse look."""
        return self.skipped / max(self._since - self._began, 1e-9)

    @property
    def is_whole(self) -> bool:
        return self.completions >= self.size

    def sample(self) -> Sample | None:
        """What was measured so far; None while everything came in one instant."""
        elapsed_s = self._last - self._since
        if elapsed_s <= 0 or self._latency_s <= 0:
            return None
        return Sample(
            completions=self.completions,
            tokens=0 if self._untold else self._tokens,
            latency_s=self._latency_s,
            in_flight_s=self._in_flight_s,
            elapsed_s=elapsed_s,
        )

"""Owns intervals of sums and ratios of independent estimates, recovered from the intervals of these (MOVER)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.analysis.values import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float


def as_estimate(measure: Measure) -> Estimate | None:
    """None where it has no value or no interval."""
    interval = measure.best_interval
    if measure.value is None or interval is None:
        return None
    return Estimate(value=measure.value, low=interval.low, high=interval.high)


def weighted_sum(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Σ w x: G. Y. Zou, A. Donner, Stat. Med. 27 (2008) 1693-1702.

    :param parts: weights, which are known and not below 0, with what they belong to
    """
    value = math.fsum(weight * one.value for weight, one in parts)
    return Estimate(
        value=value,
        low=value - math.hypot(*(weight * (one.value - one.low) for weight, one in parts)),
        high=value + math.hypot(*(weight * (one.high - one.value) for weight, one in parts)),
    )


def difference(one: Estimate, other: Estimate) -> Estimate:
    """one - other, likewise."""
    opposite = Estimate(value=-other.value, low=-other.high, high=-other.low)
    return weighted_sum([(1, one), (1, opposite)])


def ratio(over: Estimate, under: Estimate) -> Estimate:
    """over / under, neither below 0: A. Donner, G. Y. Zou, Stat. Methods Med. Res. 21 (2012) 347-359, equation 9.

    The lower end is written so that it nowhere divides 0 by 0. An end is infinite where `under` may be 0.
    """
    product = over.value * under.value
    reach = over.low * (2 * over.value - over.low)
    low = 0.0
    if reach > 0:
        low = reach / (product + math.sqrt(product**2 - reach * under.high * (2 * under.value - under.high)))
    room = under.low * (2 * under.value - under.low)
    high = math.inf
    if room > 0:
        high = (product + math.sqrt(product**2 - room * over.high * (2 * over.value - over.high))) / room
    return Estimate(value=over.value / under.value if under.value else math.inf, low=low, high=high)

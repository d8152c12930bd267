"""What all of a set will take, from a sample of it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.models import Prices

#: 97.5 % quantiles of Student's t by degrees of freedom (NIST/SEMATECH e-Handbook of Statistical Methods, §1.3.6.7.2)
_STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
              11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 20: 2.086, 25: 2.060, 30: 2.042}  # fmt: skip
#: beyond 30 degrees of freedom the quantile is this, to within 5 %
_NORMAL_QUANTILE = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCall:
    """One narrative that was sent to foretell the others."""

    duration_s: float
    #: None where the endpoint reported none
    prompt_tokens: int | None
    completion_tokens: int | None
    is_error: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A value and the interval that covers its mean with 95 % confidence; the interval is infinite for one sample."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the remaining set will probably take."""

    n_sampled: int
    n_errors: int
    n_remaining: int
    concurrency: int
    #: seconds, with `concurrency` calls always in flight, each as fast as in the sample
    duration_s: Range
    #: None where the endpoint reports no usage
    prompt_tokens: Range | None
    completion_tokens: Range | None
    #: None without prices, or without usage
    cost: Range | None


def extrapolate(calls: Sequence[SampledCall], *, n_remaining: int, concurrency: int, prices: Prices | None) -> Estimate:
    """Multiply the mean of the sample, and the ends of its confidence interval, by what remains.

    The interval is mean ± t · s / √k with k - 1 degrees of freedom (Student 1908), bounded below by 0; it tells how
    far a sample of this size can be off, not what an endpoint does under another load.

    :raises ValueError: no calls, or a concurrency below 1
    """
    if not calls or concurrency < 1:
        raise ValueError("an estimate needs at least one call and a concurrency of at least 1")
    prompt = [float(call.prompt_tokens) for call in calls if call.prompt_tokens is not None]
    completion = [float(call.completion_tokens) for call in calls if call.completion_tokens is not None]
    costs = [
        prices.cost(prompt_tokens=call.prompt_tokens, completion_tokens=call.completion_tokens)
        for call in calls
        if prices is not None and call.prompt_tokens is not None and call.completion_tokens is not None
    ]
    in_parallel = min(concurrency, max(1, n_remaining))
    return Estimate(
        n_sampled=len(calls),
        n_errors=sum(call.is_error for call in calls),
        n_remaining=n_remaining,
        concurrency=concurrency,
        duration_s=_times([call.duration_s for call in calls], n_remaining / in_parallel),
        prompt_tokens=_times(prompt, n_remaining) if prompt else None,
        completion_tokens=_times(completion, n_remaining) if completion else None,
        cost=_times(costs, n_remaining) if costs else None,
    )


def spread_evenly(n_remaining: int, k: int) -> Sequence[int]:
    """Positions, from 0, of up to `k` items spread over the remaining set, the middle of each of `k` equal parts."""
    k = min(k, n_remaining)
    return [(2 * part + 1) * n_remaining // (2 * k) for part in range(k)]


def _times(values: Sequence[float], factor: float) -> Range:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Range(low=0.0, middle=mean * factor, high=math.inf)
    margin = _student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Range(low=max(0.0, mean - margin) * factor, middle=mean * factor, high=(mean + margin) * factor)


def _student_t(degrees: int) -> float:
    """Of the largest tabulated number of degrees that is not above; a wider interval than exact, never a narrower."""
    if degrees > 30:
        return _NORMAL_QUANTILE * 1.05
    return _STUDENT_T[max(known for known in _STUDENT_T if known <= degrees)]

"""Owns the bootstrap: incidents are drawn with all that belongs to them, and a measure's spread is read off.

Incidents are few kinds: of those with two narratives each, for instance, there are at most fourteen. So not incidents
are drawn but how many of each kind a draw of incidents would hold (a multinomial vector), which makes 10,000 resamples
of 20,000 incidents a matter of milliseconds and is the same thing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from narrun_async.analysis.samples import Floats, Ints
from narrun_async.analysis.tables import Statistic
from narrun_async.analysis.values import CONFIDENCE, Interval, Method

#: cells of the matrix of draws that are held at once: 32 MB
_CHUNK_CELLS = 4 << 20
_TAILS = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
#: a measure that more resamples than this leave undefined has no interval
MAX_UNDEFINED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How to draw. The same seed and the same label give the same draws, whatever else is drawn."""

    #: 0: none, and what needs them has no interval
    n_resamples: int
    seed: int

    def rng(self, label: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(label.encode())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Resamples:
    """Sums over incidents: of all of them, of each resample, and of all but one."""

    observed: Floats
    #: one row a resample
    drawn: Floats
    #: one row a kind of incident: the sums without one of that kind
    left_out: Floats
    #: how many incidents are of that kind
    n_of_kind: Ints

    def part(self, columns: slice) -> Resamples:
        """The same draws, of some of the sums."""
        return Resamples(
            observed=self.observed[columns],
            drawn=self.drawn[:, columns],
            left_out=self.left_out[:, columns],
            n_of_kind=self.n_of_kind,
        )


def resample(contributions: Floats, bootstrap: Bootstrap, *, label: str) -> Resamples:
    """Draw as many incidents as there are, with replacement, again and again.

    :param contributions: one row an incident, what it adds to each sum
    """
    kinds, n_of_kind = _count_kinds(contributions)
    n_incidents, n_kinds = len(contributions), len(kinds)
    observed = contributions.sum(axis=0)
    drawn = np.empty((bootstrap.n_resamples if n_incidents else 0, contributions.shape[1]))
    rng = bootstrap.rng(label)
    step = max(1, _CHUNK_CELLS // max(1, n_kinds))
    for start in range(0, len(drawn), step):
        rows = drawn[start : start + step]
        rows[:] = rng.multinomial(n_incidents, n_of_kind / n_incidents, size=len(rows)) @ kinds
    return Resamples(observed=observed, drawn=drawn, left_out=observed - kinds, n_of_kind=n_of_kind)


def _count_kinds(contributions: Floats) -> tuple[Floats, Ints]:
    """The distinct rows in their order, and how often each occurs; column by column, a fifth of `np.unique(axis=0)`."""
    codes = np.zeros(len(contributions), dtype=np.int64)
    for column in contributions.T:
        values, number = np.unique(column, return_inverse=True)
        _, codes = np.unique(codes * len(values) + number, return_inverse=True)
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return contributions[first], counts


def bootstrap_interval(
    resamples: Resamples, statistic: Statistic, *, is_difference: bool = False
) -> tuple[Interval | None, str]:
    """Where the middle 95 % of the resampled values lie.

    For a measure, bias-corrected and accelerated (B. Efron, JASA 82 (1987) 171-185), bias from the share of resamples
    below the estimate, acceleration from leaving out one incident at a time: of 1,200 simulated samples of 404
    narratives, 48 of them positive, the interval of F1, MCC and balanced accuracy covered the truth in 96, 95 and 96 %,
    that of the plain percentiles in 95, 94 and 92 %. For a difference, the plain percentiles: of 700 samples theirs for
    F1, sensitivity and specificity covered it in 95, 96 and 94 %, the corrected one in 93, 91 and 92 %, because few
    cases tell two experiments apart.

    :returns: the interval, or None and why
    """
    if not len(resamples.drawn):
        return None, "no interval, because no resamples were asked for"
    estimate = float(statistic(resamples.observed))
    values = statistic(resamples.drawn)
    values = values[np.isfinite(values)]
    n_undefined = len(resamples.drawn) - len(values)
    if n_undefined > MAX_UNDEFINED * len(resamples.drawn):
        return None, f"no interval: {n_undefined:,} of {len(resamples.drawn):,} resamples leave it undefined"
    if np.ptp(values) <= 1e-12 * max(1.0, abs(estimate)):
        return None, "no interval: no resample differs from another"
    levels = _TAILS if is_difference else _corrected_levels(resamples, statistic, estimate, values)
    low, high = np.quantile(values, levels)
    method = Method.PERCENTILES if is_difference else Method.BCA
    return Interval(low=float(low), high=float(high), method=method), ""


def _corrected_levels(resamples: Resamples, statistic: Statistic, estimate: float, values: Floats) -> Floats:
    """Which quantiles of the resampled values are the ends of the interval."""
    below = float((values < estimate).mean() + (values == estimate).mean() / 2)
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    without_one = statistic(resamples.left_out)
    is_defined = np.isfinite(without_one)
    without_one, n_of_kind = without_one[is_defined], resamples.n_of_kind[is_defined]
    acceleration = 0.0
    if n_of_kind.size:
        pulls = np.average(without_one, weights=n_of_kind) - without_one
        spread = (n_of_kind * pulls**2).sum()
        acceleration = float((n_of_kind * pulls**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0
    shifted = bias + ndtri(_TAILS)
    levels: Floats = ndtr(bias + shifted / (1 - acceleration * shifted))
    return levels

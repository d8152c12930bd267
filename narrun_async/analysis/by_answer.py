"""Owns shares of units that were drawn for labelling by their answers: some of those detected, some of the others.

The weight of such a unit follows from the very answer that sensitivity and specificity ask about, so no number of units
of equal weight says how sure they are. What is drawn evenly is a yes by itself, and a no by itself. So every share is
put together from what each of them turned out to be worth, as C. B. Begg and R. A. Greenes (Biometrics 39 (1983)
207-215) do, and its interval from theirs (docs/decisions/0007 has what that was found to cover). The two are taken for
independent, which leaves out that an incident can have a yes and a no.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from narrun_async.analysis.mover import Estimate, as_estimate, ratio, weighted_sum
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.samples import Bools, Pairs
from narrun_async.analysis.values import Interval, Measure, Method, Share, Z


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The units with one answer."""

    #: the sum of their weights
    total: float
    #: of them, those that have a property
    share: Estimate


def share_by_answer(pairs: Pairs, hits: Bools, *, empty: str, detected: float | None = None) -> Measure:
    """The share of units that have a property.

    :param empty: what to say where there are no units
    :param detected: share of yes among all that the units stand for, where it is known better than from their weights
    """
    plain = proportion(pairs.sample(hits), empty=empty)
    yes, no = _part(pairs, pairs.first, hits), _part(pairs, ~pairs.first, hits)
    if yes is None or no is None:
        return plain
    of_yes = yes.total / (yes.total + no.total) if detected is None else detected
    found = weighted_sum([(of_yes, yes.share), (1 - of_yes, no.share)])
    interval = Interval(low=max(0.0, found.low), high=min(1.0, found.high), method=Method.MOVER)
    return replace(plain, value=found.value, interval=interval, clustered=None)


def sensitivity_by_answer(pairs: Pairs, *, empty: str) -> Measure:
    """Of those labelled yes, the share that is detected; specificity is that of `pairs.opposite`.

    :param empty: what to say where none is labelled yes
    """
    positives = pairs[pairs.second]
    plain = proportion(positives.sample(positives.first), empty=empty)
    yes, no = _part(pairs, pairs.first, pairs.second), _part(pairs, ~pairs.first, pairs.second)
    if plain.value is None or yes is None or no is None:
        return plain
    missed_to_found = ratio(no.share, yes.share)
    low, high = (1 / (1 + one * no.total / yes.total) for one in (missed_to_found.high, missed_to_found.low))
    return replace(plain, interval=Interval(low=low, high=high, method=Method.MOVER), clustered=None)


def _part(pairs: Pairs, chosen: Bools, hits: Bools) -> _Part | None:
    """None where none is chosen."""
    measure = proportion(pairs[chosen].sample(hits[chosen]), empty="")
    share = as_estimate(measure)
    return None if share is None or measure.denominator is None else _Part(total=measure.denominator, share=share)


def as_share(measure: Measure) -> Share | None:
    """For formulas that carry its uncertainty on: as many independent units as give an interval as wide, Wilson's.

    Of the two ends the one that is farther away for its distance decides.
    """
    found = as_estimate(measure)
    if found is None:
        return None
    sizes = [Z**2 * end * (1 - end) / (end - found.value) ** 2 for end in (found.low, found.high) if 0 < end < 1]
    return Share(value=found.value, n_effective=min(sizes)) if sizes else None

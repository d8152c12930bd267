"""Stratified sampling of narratives for human review: strata, how many of each, and the draw. Pure, and seeded."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from narrun_async.models.ids import NarrativeId


class Stratifier(StrEnum):
    """What a population may be divided by."""

    #: the answer: yes or no
    PREDICTED = "predicted"
    #: bands of the model's confidence
    CONFIDENCE = "confidence"
    #: whether the case has both narratives, or only this one
    AVAILABILITY = "availability"
    #: whether the answers for the two narratives of the case agree
    DISAGREEMENT = "disagreement"


class Allocation(StrEnum):
    """How the sample is spread over the strata."""

    #: as evenly as their sizes allow: small strata, such as positives and disagreements, are seen well
    EQUAL = "equal"
    #: in proportion to their sizes, at least one of each
    PROPORTIONAL = "proportional"


#: upper ends, exclusive, of all bands of confidence but the last
DEFAULT_BANDS = (0.5, 0.8, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewUnit:
    """One narrative with an answer, as far as strata look at it."""

    narrative_id: NarrativeId
    detected: bool
    confidence: float | None
    #: it was not scrubbed
    has_text: bool
    #: the case has another narrative in the cohort
    has_both: bool
    #: the other narrative has an answer, too, and it is the opposite one
    disagrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnUnit:
    """A narrative of a sample, with what its weight follows from."""

    narrative_id: NarrativeId
    #: in words, such as `predicted yes, confidence 0.8 to 0.95`
    stratum: str
    #: narratives of the population in this stratum, and how many of them were drawn
    stratum_size: int
    stratum_drawn: int

    @property
    def probability(self) -> float:
        """That this narrative got into the sample: drawn without replacement, each of its stratum with the same."""
        return self.stratum_drawn / self.stratum_size


def stratum_of(unit: ReviewUnit, stratifiers: Sequence[Stratifier], *, bands: Sequence[float]) -> str:
    """The stratum of a narrative, in words; `all` where nothing divides."""
    return ", ".join(_part(unit, one, bands) for one in stratifiers) or "all"


def _part(unit: ReviewUnit, stratifier: Stratifier, bands: Sequence[float]) -> str:
    match stratifier:
        case Stratifier.PREDICTED:
            return f"predicted {'yes' if unit.detected else 'no'}"
        case Stratifier.CONFIDENCE:
            return f"confidence {_band(unit.confidence, bands)}"
        case Stratifier.AVAILABILITY:
            return "both narratives" if unit.has_both else "one narrative"
        case Stratifier.DISAGREEMENT:
            return "CME and LE differ" if unit.disagrees else "CME and LE do not differ"


def _band(confidence: float | None, bands: Sequence[float]) -> str:
    if confidence is None:
        return "not given"
    edges = (0.0, *bands, 1.0)
    place = min(bisect_right(bands, confidence), len(bands))
    return f"{edges[place]:g} to {edges[place + 1]:g}"


def allocate(sizes: Mapping[str, int], n: int, rule: Allocation) -> dict[str, int]:
    """How many to draw of each stratum: `n` in all, or everything where the population is smaller.

    No stratum is left out as long as `n` is at least their number; of fewer, the larger strata come first.

    :param sizes: stratum → narratives in it, each at least 1
    """
    n = min(n, sum(sizes.values()))
    order = sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))
    if n < len(order):
        return {stratum: int(place < n) for place, stratum in enumerate(order)}
    if rule is Allocation.EQUAL:
        return _allocate_equally(sizes, n, order)
    return _allocate_proportionally(sizes, n, order)


def _allocate_equally(sizes: Mapping[str, int], n: int, order: Sequence[str]) -> dict[str, int]:
    """Smallest strata first: each takes its share of what is left, or all it has."""
    given: dict[str, int] = {}
    left = n
    for place, stratum in enumerate(reversed(order)):
        given[stratum] = min(sizes[stratum], left // (len(order) - place))
        left -= given[stratum]
    return {stratum: given[stratum] for stratum in order}


def _allocate_proportionally(sizes: Mapping[str, int], n: int, order: Sequence[str]) -> dict[str, int]:
    """Largest remainders (Hamilton's method) over what is left once each stratum has one."""
    rest = n - len(order)
    spare = {stratum: sizes[stratum] - 1 for stratum in order}
    total = sum(spare.values())
    shares = {stratum: rest * spare[stratum] / total if total else 0.0 for stratum in order}
    given = {stratum: 1 + math.floor(shares[stratum]) for stratum in order}
    by_remainder = sorted(order, key=lambda stratum: (math.floor(shares[stratum]) - shares[stratum], stratum))
    for stratum in by_remainder[: n - sum(given.values())]:
        given[stratum] += 1
    return given


def draw(
    units: Sequence[ReviewUnit],
    *,
    n: int,
    stratifiers: Sequence[Stratifier],
    bands: Sequence[float],
    allocation: Allocation,
    seed: int,
) -> list[DrawnUnit]:
    """A stratified random sample without replacement, in an order of no meaning; the same for the same seed.

    :param units: the population
    """
    rng = random.Random(f"review:{seed}")
    strata: dict[str, list[NarrativeId]] = {}
    for unit in sorted(units, key=lambda unit: unit.narrative_id):
        strata.setdefault(stratum_of(unit, stratifiers, bands=bands), []).append(unit.narrative_id)
    given = allocate({stratum: len(members) for stratum, members in strata.items()}, n, allocation)
    drawn = [
        DrawnUnit(
            narrative_id=narrative_id,
            stratum=stratum,
            stratum_size=len(members),
            stratum_drawn=given[stratum],
        )
        for stratum, members in sorted(strata.items())
        for narrative_id in rng.sample(members, given[stratum])
    ]
    rng.shuffle(drawn)
    return drawn

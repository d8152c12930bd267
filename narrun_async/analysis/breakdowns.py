"""Owns what a report breaks the answers down by: year and kind, stated confidence, indicators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from narrun_async.analysis.calibration import N_BINS, bin_numbers
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.report_tree import ConfidenceBand, IndicatorCount, YearGroup
from narrun_async.analysis.samples import Sample
from narrun_async.models import AnswerIndicators, CohortRow

#: beside the kinds of narratives
INCIDENTS = "incidents"

_T = TypeVar("_T")


def answered_rows(rows: Iterable[CohortRow]) -> list[CohortRow]:
    """Those with a usable answer."""
    return [row for row in rows if row.detected is not None and row.error_category is None and row.skip_reason is None]


def merge_neighbours(parts: Sequence[_T], is_large: Callable[[Sequence[_T]], bool]) -> list[list[_T]]:
    """Put neighbours together until every group is large, a small rest with the group before it; empty if none is.

    A group of several parts may hold large ones. Single parts that are not large are in no group by themselves, so
    nothing can be subtracted from a group to get at them.
    """
    groups: list[list[_T]] = []
    rest: list[_T] = []
    for part in parts:
        rest.append(part)
        if is_large(rest):
            groups.append(rest)
            rest = []
    if rest and groups:
        groups[-1] += rest
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dated:
    """A narrative or an incident with an answer, and its year if that is known."""

    kind: str
    year: int | None
    is_yes: bool
    incident_id: str


def break_down_by_year(
    rows: Sequence[CohortRow], *, of_incidents: bool = False, suppress_below: int = 0
) -> tuple[YearGroup, ...]:
    """Detection among the answered narratives of each kind, or the incidents, by year; empty where no year is known.

    Years are put together until no count of yes or no is below `suppress_below`; empty where that leaves one group.
    """
    dated = _incidents(rows) if of_incidents else _narratives(rows)
    kinds = sorted({one.kind for one in dated})
    known = sorted({one.year for one in dated if one.year is not None})
    if not known:
        return ()
    years = [*known, *({one.year for one in dated} & {None})]
    counts = Counter((one.year, one.kind, one.is_yes) for one in dated)

    def is_large(group: Sequence[int | None]) -> bool:
        cells = (sum(counts[year, kind, said] for year in group) for kind in kinds for said in (True, False))
        return all(cell >= suppress_below for cell in cells)

    groups = merge_neighbours(years, is_large)
    if suppress_below and len(groups) < 2:
        return ()
    codes = {incident_id: code for code, incident_id in enumerate({one.incident_id: None for one in dated})}
    return tuple(
        _year_group([one for one in dated if one.kind == kind and one.year in group], kind, group, codes)
        for kind in kinds
        for group in groups
    )


def _narratives(rows: Sequence[CohortRow]) -> Sequence[_Dated]:
    return [
        _Dated(kind=row.narrative_type, year=row.incident_year, is_yes=row.detected == 1, incident_id=row.incident_id)
        for row in answered_rows(rows)
    ]


def _incidents(rows: Sequence[CohortRow]) -> Sequence[_Dated]:
    """One is a yes if any of its answered narratives is."""
    incidents: dict[str, _Dated] = {}
    for one in _narratives(rows):
        before = incidents.get(one.incident_id, one)
        year = one.year if before.year is None else before.year
        is_yes = before.is_yes or one.is_yes
        incidents[one.incident_id] = replace(one, kind=INCIDENTS, year=year, is_yes=is_yes)
    return list(incidents.values())


def _year_group(chosen: Sequence[_Dated], kind: str, years: Sequence[int | None], codes: dict[str, int]) -> YearGroup:
    sample = Sample(
        hits=np.array([one.is_yes for one in chosen], dtype=bool),
        weights=np.ones(len(chosen)),
        clusters=np.array([codes[one.incident_id] for one in chosen], dtype=np.int64),
    )
    return YearGroup(
        kind=kind,
        years=tuple(year for year in years if year is not None),
        has_unknown=None in years,
        detected=proportion(sample, empty="undefined: none is answered"),
    )


def break_down_by_confidence(rows: Sequence[CohortRow], *, suppress_below: int = 0) -> tuple[ConfidenceBand, ...]:
    """How often each answer is given with which confidence, by tenths; those below the lowest and above the highest
    are left out.

    Tenths are put together until no count is below `suppress_below`; empty where that leaves fewer than two.
    """
    stated = [row for row in answered_rows(rows) if row.confidence is not None]
    if not stated:
        return ()
    numbers = bin_numbers(np.array([row.confidence for row in stated], dtype=float))
    said_yes = np.array([row.detected == 1 for row in stated], dtype=bool)
    n_yes = np.bincount(numbers[said_yes], minlength=N_BINS)
    n_no = np.bincount(numbers[~said_yes], minlength=N_BINS)

    def is_large(group: Sequence[int]) -> bool:
        return bool(n_yes[list(group)].sum() >= suppress_below and n_no[list(group)].sum() >= suppress_below)

    groups = merge_neighbours(range(int(numbers.min()), int(numbers.max()) + 1), is_large)
    if suppress_below and len(groups) < 2:
        return ()
    return tuple(
        ConfidenceBand(
            low=group[0] / N_BINS,
            high=(group[-1] + 1) / N_BINS,
            n_yes=int(n_yes[group].sum()),
            n_no=int(n_no[group].sum()),
        )
        for group in groups
    )


def rank_indicators(
    answers: Iterable[AnswerIndicators], *, at_most: int, suppress_below: int = 0
) -> list[IndicatorCount]:
    """The indicators that most narratives share, whatever their capitals; none that too few share or lack.

    How often an indicator stands for a yes and for a no is told only where no count of these is too small, either.

    :param answers: those without indicators, too
    """
    spellings: dict[str, Counter[str]] = {}
    counts: Counter[tuple[str, bool]] = Counter()
    wholes: Counter[bool] = Counter()
    for answer in answers:
        wholes[answer.is_yes] += 1
        found = {" ".join(one.split()).casefold(): " ".join(one.split()) for one in answer.indicators if one.strip()}
        for key, spelling in found.items():
            spellings.setdefault(key, Counter())[spelling] += 1
            counts[key, answer.is_yes] += 1

    def is_told(n: int, whole: int) -> bool:
        return min(n, whole - n) >= suppress_below

    shown = []
    for key in sorted(spellings, key=lambda key: (-spellings[key].total(), key)):
        n_yes, n_no = counts[key, True], counts[key, False]
        if suppress_below and not is_told(n_yes + n_no, wholes.total()):
            continue
        tells_apart = not suppress_below or (is_told(n_yes, wholes[True]) and is_told(n_no, wholes[False]))
        shown.append(
            IndicatorCount(
                indicator=spellings[key].most_common(1)[0][0],
                n_narratives=n_yes + n_no,
                n_yes=n_yes if tells_apart else None,
                n_no=n_no if tells_apart else None,
            )
        )
        if len(shown) == at_most:
            break
    return shown

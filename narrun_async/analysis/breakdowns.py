"""Owns what a report breaks the answers down by: year and kind, stated confidence, indicators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from narrun_async.analysis.calibration import N_BINS, bin_numbers
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.report_tree import ConfidenceBand, IndicatorCount, YearGroup
from narrun_async.analysis.samples import Sample
from narrun_async.models import AnswerIndicators, CohortRow

#: both kinds of narrative together
EVERY_KIND = "narratives"

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


def break_down_by_year(rows: Sequence[CohortRow], *, by_kind: bool, suppress_below: int = 0) -> tuple[YearGroup, ...]:
    """Detection among the answered narratives by year; empty where no year is known.

    Years are put together until no count of yes or no is below `suppress_below`; empty where that leaves one group.
    """
    answered = answered_rows(rows)
    kinds = sorted({row.narrative_type for row in answered}) if by_kind else [EVERY_KIND]
    known = sorted({row.incident_year for row in answered if row.incident_year is not None})
    if not known:
        return ()
    years = [*known, *({row.incident_year for row in answered} & {None})]
    counts = Counter(
        (row.incident_year, row.narrative_type if by_kind else EVERY_KIND, row.detected) for row in answered
    )

    def is_large(group: Sequence[int | None]) -> bool:
        cells = (sum(counts[year, kind, said] for year in group) for kind in kinds for said in (0, 1))
        return all(cell >= suppress_below for cell in cells)

    groups = merge_neighbours(years, is_large)
    if suppress_below and len(groups) < 2:
        return ()
    codes: dict[str, int] = {}
    for row in answered:
        codes.setdefault(row.incident_id, len(codes))
    return tuple(_year_group(answered, kind, group, codes) for kind in kinds for group in groups)


def _year_group(
    answered: Sequence[CohortRow], kind: str, years: Sequence[int | None], codes: dict[str, int]
) -> YearGroup:
    chosen = [row for row in answered if row.incident_year in years and kind in (EVERY_KIND, row.narrative_type)]
    sample = Sample(
        hits=np.array([row.detected == 1 for row in chosen], dtype=bool),
        weights=np.ones(len(chosen)),
        clusters=np.array([codes[row.incident_id] for row in chosen], dtype=np.int64),
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
    """The indicators that most narratives share, whatever their capitals; none that too few share.

    How often an indicator stands for a yes and for a no is told only where neither is too rare.
    """
    spellings: dict[str, Counter[str]] = {}
    counts: Counter[tuple[str, bool]] = Counter()
    for answer in answers:
        found = {" ".join(one.split()).casefold(): " ".join(one.split()) for one in answer.indicators if one.strip()}
        for key, spelling in found.items():
            spellings.setdefault(key, Counter())[spelling] += 1
            counts[key, answer.is_yes] += 1
    ranked = sorted(spellings, key=lambda key: (-spellings[key].total(), key))
    shown = []
    for key in ranked[:at_most]:
        n_yes, n_no = counts[key, True], counts[key, False]
        if n_yes + n_no < suppress_below:
            break
        may_tell_apart = min(n_yes, n_no) >= suppress_below
        shown.append(
            IndicatorCount(
                indicator=spellings[key].most_common(1)[0][0],
                n_narratives=n_yes + n_no,
                n_yes=n_yes if may_tell_apart else None,
                n_no=n_no if may_tell_apart else None,
            )
        )
    return shown

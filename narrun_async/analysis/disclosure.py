"""Decides what a report may show if counts of people below some number are to be hidden, or computable from nothing.

Hiding single cells is not enough: margins, rates, intervals and kappas give them away. So whatever depends on a small
count is withheld as a whole, and the report is computed from rows that no longer hold what it may not tell: labels,
kinds, years, confidences. What is not in the rows cannot come out of them, in whatever figure or sentence.

Counts of people are those by answer, label, kind, year, confidence. How many texts were sent, failed, were skipped or
are missing says what the program did; those are shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narrun_async.analysis.breakdowns import break_down_by_confidence, break_down_by_year
from narrun_async.analysis.calibration import N_BINS, bin_numbers
from narrun_async.analysis.cohort import CohortTable, LabelSet, Units
from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.levels import levels_of
from narrun_async.analysis.report_tree import Withheld
from narrun_async.analysis.samples import N_CELLS, Bools, Ints
from narrun_async.models import CohortRow

_WHOLE = (Level.NARRATIVES, Level.INCIDENTS)
_KINDS = (Level.CME, Level.LE)

_OF_LABELS = frozenset({Withheld.LABELS, Withheld.LABELS_OF_KINDS, Withheld.LABELS_OF_BOTH, Withheld.CALIBRATION})
_OF_KINDS = frozenset({Withheld.KINDS, Withheld.LABELS_OF_KINDS, Withheld.CME_LE})
_OF_BOTH = frozenset({Withheld.BOTH, Withheld.LABELS_OF_BOTH, Withheld.CME_LE})


def decide_what_to_withhold(rows: Sequence[CohortRow], labels: LabelSet, below: int) -> frozenset[Withheld]:
    """What must not be shown, so that no count of people below `below` is shown or can be computed."""
    table = CohortTable.build(rows, labels)
    units = {one.level: one for one in levels_of(table)}
    if any(_is_small(_detection_cells(units[level]), below) for level in _WHOLE):
        return frozenset(Withheld)
    withheld = {Withheld.CURVE}
    kinds = [units[level] for level in _KINDS if level in units]
    both = units[Level.INCIDENTS_WITH_BOTH]
    if any(_is_small(_detection_cells(one), below) for one in kinds):
        withheld |= _OF_KINDS
    if _is_small(_detection_cells(both), below) or _differ_by_few(
        _detection_cells(units[Level.INCIDENTS]), _detection_cells(both), below
    ):
        withheld |= _OF_BOTH
    withheld |= _withheld_labels(units[Level.NARRATIVES], units[Level.INCIDENTS], kinds, both, below)
    withheld |= _withheld_cme_le(table, kinds, below)
    withheld |= _withheld_bands(rows, _detection_cells(units[Level.NARRATIVES]), below)
    withheld |= _withheld_years(rows, below, by_kind=Withheld.KINDS not in withheld)
    if Withheld.LABELS not in withheld and _has_small_calibration(table, below):
        withheld.add(Withheld.CALIBRATION)
    if any(bool(one.is_open.any()) for one in units.values()):
        withheld.add(Withheld.ERROR_BOUNDS)
    return frozenset(withheld)


def _withheld_labels(
    narratives: Units, incidents: Units, kinds: Sequence[Units], both: Units, below: int
) -> frozenset[Withheld]:
    if any(labels_are_small(one, below) for one in (narratives, incidents)):
        return _OF_LABELS
    withheld = set()
    if any(labels_are_small(one, below) for one in kinds):
        withheld.add(Withheld.LABELS_OF_KINDS)
    if labels_are_small(both, below) or _differ_by_few(_label_cells(incidents), _label_cells(both), below):
        withheld.add(Withheld.LABELS_OF_BOTH)
    return frozenset(withheld)


def labels_are_small(units: Units, below: int) -> bool:
    """Some cell of the 2×2 table is small, or what of the answers is not in it."""
    if not units.is_evaluated.any():
        return False
    cells = _label_cells(units)
    of_labelled = cells.reshape(2, 2).sum(axis=1)
    return _is_small(cells, below) or _differ_by_few(_detection_cells(units), of_labelled, below)


def _withheld_cme_le(table: CohortTable, kinds: Sequence[Units], below: int) -> frozenset[Withheld]:
    pairs = table.cme_and_le()
    cells = np.bincount(pairs.cells, minlength=N_CELLS).reshape(2, 2)
    if not cells.any():
        return frozenset()
    of_pairs = (cells.sum(axis=1), cells.sum(axis=0))
    is_small = _is_small(cells.ravel(), below) or any(
        _differ_by_few(_detection_cells(units), part, below) for units, part in zip(kinds, of_pairs, strict=True)
    )
    return frozenset({Withheld.CME_LE}) if is_small else frozenset()


def _withheld_bands(rows: Sequence[CohortRow], said: Ints, below: int) -> frozenset[Withheld]:
    single, merged = break_down_by_confidence(rows), break_down_by_confidence(rows, suppress_below=below)
    stated = np.array([sum(one.n_yes for one in merged), sum(one.n_no for one in merged)])
    if single and (not merged or _differ_by_few(said, stated, below)):
        return frozenset({Withheld.CONFIDENCE, Withheld.CALIBRATION})
    return frozenset({Withheld.SINGLE_BANDS}) if len(merged) < len(single) else frozenset()


def _withheld_years(rows: Sequence[CohortRow], below: int, *, by_kind: bool) -> frozenset[Withheld]:
    single = break_down_by_year(rows, by_kind=by_kind)
    merged = break_down_by_year(rows, by_kind=by_kind, suppress_below=below)
    if single and not merged:
        return frozenset({Withheld.YEARS})
    return frozenset({Withheld.SINGLE_YEARS}) if len(merged) < len(single) else frozenset()


def _has_small_calibration(table: CohortTable, below: int) -> bool:
    """Some tenth of confidence has few right or few wrong answers, or few answers at all."""
    units = table.narratives()
    stated = units.is_answered & np.isfinite(table.confidence)
    judged = stated & units.is_evaluated
    if not judged.any():
        return False
    is_right = units.detected == (units.label == 1)
    all_answers = _by_tenth(table, stated)
    right, wrong = _by_tenth(table, judged & is_right), _by_tenth(table, judged & ~is_right)
    shown = right + wrong > 0
    cells = _label_cells(units)
    judged_in_all = np.array([cells[0] + cells[3], cells[1] + cells[2]])
    return (
        _is_small(all_answers[all_answers > 0], below)
        or _is_small(np.concatenate([right[shown], wrong[shown]]), below)
        or _differ_by_few(all_answers, right + wrong, below)
        or _differ_by_few(judged_in_all, np.array([right.sum(), wrong.sum()]), below)
    )


def _by_tenth(table: CohortTable, chosen: Bools) -> Ints:
    return np.bincount(bin_numbers(table.confidence[chosen]), minlength=N_BINS)


def _detection_cells(units: Units) -> Ints:
    """Yes and no among the answered."""
    detected = units.detected[units.is_answered]
    return np.array([detected.sum(), (~detected).sum()])


def _label_cells(units: Units) -> Ints:
    """The 2×2 table, unweighted: what counts here is people."""
    return np.bincount(units.pairs(units.is_evaluated).cells, minlength=N_CELLS)


def _is_small(cells: Ints, below: int) -> bool:
    """Whether a cell is hidden; a table of nobody has nothing to hide."""
    return bool(cells.any() and (cells < below).any())


def _differ_by_few(whole: Ints, part: Ints, below: int) -> bool:
    """Whether subtracting a part that is shown from its whole gives away a few people."""
    rest = whole - part
    return bool(((rest > 0) & (rest < below)).any())

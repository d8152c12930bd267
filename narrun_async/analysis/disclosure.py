"""Decides what a report may show if counts of people below some number are to be hidden, and not to be computed either.

Hiding single cells is not enough: margins, rates, intervals and kappas give them away. So whatever depends on a small
count is withheld as a whole, and the report is computed without it: levels, labels, kinds, years, confidences. What is
not computed with cannot come out, in whatever figure or sentence.

Counts of people are those by answer, label, kind, year, confidence. How many texts were sent, failed, were skipped, are
missing or have a label says what was done; those are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product

import numpy as np

from narrun_async.analysis.auditing import (
    Audit,
    Count,
    Incident,
    Judged,
    YesNo,
    answers,
    answers_within,
    cells,
    each_cme,
    each_incident,
    each_le,
    each_narrative,
    each_with_both,
    is_small,
    judged_within,
    pairs,
)
from narrun_async.analysis.breakdowns import answered_rows, break_down_by_confidence, break_down_by_year
from narrun_async.analysis.calibration import N_BINS, bin_numbers
from narrun_async.analysis.cohort import CohortTable, Label, LabelSet, Units
from narrun_async.analysis.levels import levels_of
from narrun_async.analysis.report_tree import LABELS_OF, Withheld
from narrun_async.analysis.samples import N_CELLS, Bools, Ints
from narrun_async.models import CohortRow, NarrativeType


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tables that are shown together, with all that is computed from them, or not at all."""

    what: Withheld
    #: must be shown for this to be
    needs: Withheld | None = None
    tables: Sequence[Sequence[Count]]
    #: what intervals give away that allow for the narratives of an incident being alike
    known: Sequence[Count] = ()


#: in the order in which readers want them: where not all can be shown together, the later ones are withheld
_GROUPS = (
    Group(what=Withheld.INCIDENTS, tables=[answers(each_incident)]),
    Group(what=Withheld.NARRATIVES, tables=[answers(each_narrative)], known=answers_within()),
    Group(what=Withheld.LABELS_OF_INCIDENTS, needs=Withheld.INCIDENTS, tables=[cells(each_incident)]),
    Group(
        what=Withheld.LABELS_OF_NARRATIVES,
        needs=Withheld.NARRATIVES,
        tables=[cells(each_narrative)],
        known=judged_within(),
    ),
    Group(what=Withheld.KINDS, needs=Withheld.NARRATIVES, tables=[answers(each_cme), answers(each_le)]),
    Group(what=Withheld.LABELS_OF_KINDS, needs=Withheld.KINDS, tables=[cells(each_cme), cells(each_le)]),
    Group(what=Withheld.BOTH, needs=Withheld.INCIDENTS, tables=[answers(each_with_both)]),
    Group(what=Withheld.CME_LE, needs=Withheld.BOTH, tables=[pairs()]),
    Group(what=Withheld.LABELS_OF_BOTH, needs=Withheld.BOTH, tables=[cells(each_with_both)]),
)
#: what is told of narratives one by one, beside the tables
_OF_NARRATIVES = frozenset({Withheld.CONFIDENCE, Withheld.CALIBRATION, Withheld.INDICATORS})


def decide_what_to_withhold(rows: Sequence[CohortRow], labels: LabelSet, below: int) -> frozenset[Withheld]:
    """What must not be shown, so that no count of people below `below` is shown or can be computed."""
    incidents = incidents_of(rows, labels)
    if incidents is None:
        return frozenset(Withheld)
    table = CohortTable.build(rows, labels)
    barred = frozenset(LABELS_OF[units.level] for units in levels_of(table) if _has_few_of_some_weight(units, below))
    if _leaves_few_without_weight(table.narratives(), below):
        barred |= {Withheld.LABELS_OF_NARRATIVES}
    withheld = {Withheld.CURVE, *_withheld_tables(incidents, below, barred)}
    if any(bool(one.is_open.any()) for one in (table.narratives(), table.incidents())):
        withheld.add(Withheld.ERROR_BOUNDS)
    withheld |= {Withheld.YEARS} if Withheld.INCIDENTS in withheld else _withheld_years(rows, below)
    if Withheld.NARRATIVES in withheld:
        return frozenset(withheld | _OF_NARRATIVES)
    withheld |= _withheld_bands(rows, below)
    if Withheld.LABELS_OF_NARRATIVES in withheld or _has_small_calibration(table, below):
        withheld.add(Withheld.CALIBRATION)
    return frozenset(withheld)


def _withheld_tables(incidents: Sequence[Incident], below: int, barred: frozenset[Withheld]) -> frozenset[Withheld]:
    """Intervals that allow for clusters give more away; they are kept as long as no table has to go for them."""
    audit = Audit(incidents, below=below)
    with_clusters = _audited(copy(audit), barred, with_clusters=True)
    without_clusters = _audited(audit, barred, with_clusters=False)
    if with_clusters == without_clusters:
        return with_clusters
    return without_clusters | {Withheld.CLUSTERS}


def _audited(audit: Audit, barred: frozenset[Withheld], *, with_clusters: bool) -> frozenset[Withheld]:
    withheld = set(barred)
    for group in _GROUPS:
        known = group.known if with_clusters else ()
        if group.needs in withheld and audit.counts_nobody(*group.tables):
            continue
        if withheld & {group.what, group.needs} or not audit.show(*group.tables, known=known):
            withheld.add(group.what)
    return frozenset(withheld)


def _has_few_of_some_weight(units: Units, below: int) -> bool:
    """Sums of unequal weights give away how many there are of each."""
    chosen = units.is_evaluated
    weights = np.unique(units.weight[chosen])
    if weights.size < 2:
        return False
    for weight, said in product(weights, (True, False)):
        labels = units.label[chosen & (units.weight == weight) & (units.detected == said)]
        if labels.size and min(np.bincount(labels, minlength=2)) < below:
            return True
    return False


def _leaves_few_without_weight(units: Units, below: int) -> bool:
    """Subtracted from all, the answers that labels stand for leave those that came after the draw, and those of strata
    without a label."""
    evaluated = units.is_evaluated
    if not units.is_drawn_by_answer or not evaluated.any():
        return False
    left = [
        round(float((units.is_answered & said).sum() - units.weight[evaluated & said].sum()))
        for said in (units.detected, ~units.detected)
    ]
    return any(0 < one < below for one in left)


def incidents_of(rows: Sequence[CohortRow], labels: LabelSet) -> Sequence[Incident] | None:
    """The incidents with an answer, as tables see them.

    None where an incident has another kind of narrative, or two of one: then tables hang together in other ways.
    """
    judged: dict[str, dict[str, Judged]] = {}
    for row in answered_rows(rows):
        of_incident = judged.setdefault(row.incident_id, {})
        if row.narrative_type in of_incident or row.narrative_type not in set(NarrativeType):
            return None
        label = labels.narratives.get((row.incident_id, row.narrative_type))
        of_incident[row.narrative_type] = (_yes_no(row.detected == 1), _said(label))
    return [
        Incident(
            of_incident.get(NarrativeType.CME),
            of_incident.get(NarrativeType.LE),
            _said(labels.incidents.get(incident_id)),
        )
        for incident_id, of_incident in judged.items()
    ]


def _said(label: Label | None) -> YesNo | None:
    return None if label is None else _yes_no(label.is_positive)


def _yes_no(is_yes: bool) -> YesNo:
    return "yes" if is_yes else "no"


def rests_on_few(units: Units, below: int) -> bool:
    """Whether a 2×2 table of answers and labels has a small count; one of nobody has none."""
    return is_small(_label_cells(units), below)


# --- what is told of narratives one by one ---------------------------------------------------------------------------


def _withheld_bands(rows: Sequence[CohortRow], below: int) -> frozenset[Withheld]:
    answered = answered_rows(rows)
    single, merged = break_down_by_confidence(rows), break_down_by_confidence(rows, suppress_below=below)
    said = np.array([sum(row.detected == 1 for row in answered), sum(row.detected == 0 for row in answered)])
    stated = np.array([sum(one.n_yes for one in merged), sum(one.n_no for one in merged)])
    if single and (not merged or _differ_by_few(said, stated, below)):
        return frozenset({Withheld.CONFIDENCE, Withheld.CALIBRATION})
    return frozenset({Withheld.SINGLE_BANDS}) if len(merged) < len(single) else frozenset()


def _withheld_years(rows: Sequence[CohortRow], below: int) -> frozenset[Withheld]:
    """Of incidents: years of narratives hang together with the tables of them, for those of an incident share one."""
    single = break_down_by_year(rows, of_incidents=True)
    merged = break_down_by_year(rows, of_incidents=True, suppress_below=below)
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
    tp, fp, fn, tn = _label_cells(units)
    return (
        bool(
            (all_answers[all_answers > 0] < below).any() or (right[shown] < below).any() or (wrong[shown] < below).any()
        )
        or _differ_by_few(all_answers, right + wrong, below)
        or _differ_by_few(np.array([tp + tn, fp + fn]), np.array([right.sum(), wrong.sum()]), below)
    )


def _by_tenth(table: CohortTable, chosen: Bools) -> Ints:
    return np.bincount(bin_numbers(table.confidence[chosen]), minlength=N_BINS)


def _label_cells(units: Units) -> Ints:
    """The 2×2 table, unweighted: what counts here is people."""
    return np.bincount(units.pairs(units.is_evaluated).cells, minlength=N_CELLS)


def _differ_by_few(whole: Ints, part: Ints, below: int) -> bool:
    """Whether subtracting a part that is shown from its whole gives away a few people."""
    rest = whole - part
    return bool(((rest > 0) & (rest < below)).any())

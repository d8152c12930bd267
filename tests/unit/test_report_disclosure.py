"""Promises of `--suppress-below`: no count of people below it is shown, and none can be computed from what is shown.

The second is shown by worlds that cannot be told apart: where something is withheld, another cohort that differs in
nothing else gives the very same page. So no number, interval, figure or sentence of the page depends on it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_cohorts import Rates, draw_cohort, make_row
from made_up_reports import make_material, words_of_page

from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.report_tree import Withheld
from narrun_async.models import CohortRow
from narrun_async.reporting.html.page import build_page

BELOW = 5
Rows = list[CohortRow]
Change = Callable[[Rows, random.Random], Rows]


def draw(seed: int) -> Rows:
    """A cohort of its own for every seed, small enough that something in most of them is withheld."""
    rng = random.Random(seed)
    rates = Rates(
        n_incidents=rng.randint(10, 90),
        prevalence=rng.choice([0.05, 0.2, 0.5]),
        sensitivity=rng.choice([0.6, 0.9]),
        specificity=rng.choice([0.7, 0.95]),
        both=rng.choice([0.3, 0.8, 1.0]),
        labelled=rng.choice([0.0, 0.5, 1.0]),
        failed=rng.choice([0.0, 0.1]),
    )
    years = rng.choice([(), (2015,), (2015, 2016, 2017), (2015, 2016, 2017, 2018, None)])
    return with_years(draw_cohort(rates, seed), years, seed)


COHORTS = st.integers(0, 100_000).map(draw)


def with_years(rows: Sequence[CohortRow], years: Sequence[int | None], seed: int) -> Rows:
    """Each incident has one of the years; coarse confidences, so that some of them can be shown."""
    rng = random.Random(seed)
    of_incident: dict[str, int | None] = defaultdict(lambda: rng.choice(years) if years else None)
    return [
        replace(
            row,
            incident_year=of_incident[row.incident_id],
            confidence=None if row.confidence is None else round(row.confidence * 2.5) / 2.5,
        )
        for row in rows
    ]


def page_of(rows: Rows) -> tuple[object, frozenset[Withheld]]:
    material = make_material(rows, suppress_below=BELOW)
    return build_page(material), material.analysis.withheld


# --- nothing small is shown ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(COHORTS)
def test_no_count_of_people_below_the_limit_is_among_what_is_shown(rows: Rows) -> None:
    analysis = make_material(rows, suppress_below=BELOW).analysis
    shown: list[float] = []
    for level in analysis.evaluation.levels:
        if level.counts.n_answered:
            shown += [level.counts.n_detected, level.counts.n_answered - level.counts.n_detected]
        table = level.confusion
        if table.n_units:
            shown += [table.tp, table.fp, table.fn, table.tn]
            shown += [rest for rest in (level.counts.n_answered - table.n_units,) if rest]
    pairs = analysis.evaluation.cme_le.table
    shown += [pairs.tp, pairs.fp, pairs.fn, pairs.tn] if pairs.n_units else []
    for group in analysis.by_year:
        assert group.detected.numerator is not None and group.detected.denominator is not None
        shown += [group.detected.numerator, group.detected.denominator - group.detected.numerator]
    for band in analysis.bands:
        shown += [band.n_yes, band.n_no]
    if Withheld.CALIBRATION not in analysis.withheld:
        for one in analysis.evaluation.calibration.bins:
            if one.right.denominator:
                shown += [one.n_answers, one.right.numerator or 0, one.right.denominator - (one.right.numerator or 0)]
    assert all(count >= BELOW for count in shown)
    assert not analysis.evaluation.calibration.curve


@settings(deadline=None, max_examples=25)
@given(COHORTS)
def test_no_difference_of_a_whole_and_a_part_that_are_both_shown_is_a_small_count(rows: Rows) -> None:
    levels = {one.level: one for one in make_material(rows, suppress_below=BELOW).analysis.evaluation.levels}
    if Level.INCIDENTS_WITH_BOTH not in levels:
        return
    whole, part = levels[Level.INCIDENTS], levels[Level.INCIDENTS_WITH_BOTH]
    n_yes = whole.counts.n_detected - part.counts.n_detected
    n_no = whole.counts.n_answered - part.counts.n_answered - n_yes
    assert not {n_yes, n_no} & set(range(1, BELOW))
    if whole.confusion.n_units and part.confusion.n_units:
        cells = ("tp", "fp", "fn", "tn")
        rest = {getattr(whole.confusion, cell) - getattr(part.confusion, cell) for cell in cells}
        assert not rest & set(range(1, BELOW))


# --- what is withheld cannot be computed -----------------------------------------------------------------------------


def with_other_labels(rows: Rows, rng: random.Random) -> Rows:
    """Other labels for whoever has one; cases as the narratives have them."""
    labels = {index: rng.randint(0, 1) for index, row in enumerate(rows) if row.manual_flag_ind is not None}
    cases = {row.incident_id: rng.randint(0, 1) for row in rows}
    return [
        replace(
            row,
            manual_flag_ind=labels.get(index),
            manual_flag=None if row.manual_flag is None else cases[row.incident_id],
        )
        for index, row in enumerate(rows)
    ]


def with_kinds_swapped(rows: Rows, rng: random.Random) -> Rows:
    """In some incidents with both narratives, the answer and the label of the one become those of the other."""

    def swapped(one: CohortRow, other: CohortRow) -> CohortRow:
        return replace(one, detected=other.detected, confidence=other.confidence, manual_flag_ind=other.manual_flag_ind)

    return _swap_within_incidents(rows, rng, swapped, lambda one, other: True)


def with_labels_swapped_between_kinds(rows: Rows, rng: random.Random) -> Rows:
    """In some incidents whose narratives are answered alike, the label and the confidence change sides."""

    def swapped(one: CohortRow, other: CohortRow) -> CohortRow:
        return replace(one, confidence=other.confidence, manual_flag_ind=other.manual_flag_ind)

    return _swap_within_incidents(rows, rng, swapped, lambda one, other: one.detected == other.detected)


def _swap_within_incidents(
    rows: Rows,
    rng: random.Random,
    swapped: Callable[[CohortRow, CohortRow], CohortRow],
    may_swap: Callable[[CohortRow, CohortRow], bool],
) -> Rows:
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.detected is not None:
            places[row.incident_id].append(place)
    changed = list(rows)
    for found in places.values():
        if len(found) == 2 and may_swap(rows[found[0]], rows[found[1]]) and rng.random() < 0.6:
            one, other = rows[found[0]], rows[found[1]]
            changed[found[0]], changed[found[1]] = swapped(one, other), swapped(other, one)
    return changed


def with_years_swapped(rows: Rows, rng: random.Random) -> Rows:
    """Some pairs of incidents exchange their years."""
    years = {row.incident_id: row.incident_year for row in rows}
    incidents = sorted(years)
    for _ in range(len(incidents) // 3):
        one, other = rng.sample(incidents, 2)
        years[one], years[other] = years[other], years[one]
    return [replace(row, incident_year=years[row.incident_id]) for row in rows]


def with_confidences_moved(rows: Rows, rng: random.Random) -> Rows:
    """Answers exchange their confidences."""
    stated = [place for place, row in enumerate(rows) if row.confidence is not None]
    moved = stated.copy()
    rng.shuffle(moved)
    changed = list(rows)
    for place, origin in zip(stated, moved, strict=True):
        changed[place] = replace(rows[place], confidence=rows[origin].confidence)
    return changed


WORLDS: list[tuple[Withheld, Change]] = [
    (Withheld.LABELS, with_other_labels),
    (Withheld.KINDS, with_kinds_swapped),
    (Withheld.LABELS_OF_KINDS, with_labels_swapped_between_kinds),
    (Withheld.YEARS, with_years_swapped),
    (Withheld.CONFIDENCE, with_confidences_moved),
]


@pytest.mark.parametrize(("what", "change"), WORLDS, ids=[what.value for what, _ in WORLDS])
def test_pages_do_not_depend_on_what_is_withheld(what: Withheld, change: Change) -> None:
    n_worlds = 0
    for seed in range(150):
        rows = draw(seed)
        page, withheld = page_of(rows)
        if what not in withheld:
            continue
        other_rows = change(rows, random.Random(seed))
        other_page, other_withheld = page_of(other_rows)
        if other_rows == rows or other_withheld != withheld:
            continue
        assert page == other_page, f"told apart: seed {seed}"
        n_worlds += 1
        if n_worlds == 12:
            return
    assert n_worlds >= 6, "too few worlds differed to show anything"


def with_two_years_exchanged(rows: Rows, group: tuple[int, ...]) -> Rows:
    """Two incidents of different years within the group, of which one is detected, exchange their years."""
    yes = [row for row in rows if row.detected == 1 and row.incident_year in group]
    no = [row for row in rows if row.detected == 0 and row.incident_year in group]
    for one in yes:
        for other in no:
            if one.incident_year != other.incident_year:
                years = {one.incident_id: other.incident_year, other.incident_id: one.incident_year}
                return [replace(row, incident_year=years.get(row.incident_id, row.incident_year)) for row in rows]
    return rows


def test_of_years_put_together_only_the_sum_is_shown() -> None:
    n_worlds = 0
    for seed in range(60):
        halves = Rates(n_incidents=60, prevalence=0.5, told=1, both=0, labelled=0)
        rows = with_years(draw_cohort(halves, seed), (2015, 2016, 2017, 2018), seed)
        material = make_material(rows, suppress_below=BELOW)
        groups = [group.years for group in material.analysis.by_year]
        for group in groups:
            other_rows = with_two_years_exchanged(rows, group)
            other = make_material(other_rows, suppress_below=BELOW)
            if other_rows == rows or [one.years for one in other.analysis.by_year] != groups:
                continue
            assert build_page(other) == build_page(material), f"told apart: seed {seed}"
            n_worlds += 1
        if n_worlds >= 10:
            return
    assert n_worlds >= 5, "too few worlds differed to show anything"


def test_incidents_with_both_are_not_spoken_of_where_they_are_withheld() -> None:
    rows = [make_row(f"a{n}", kind, detected=n % 2) for n in range(40) for kind in ("cme", "le")]
    rows += [make_row(f"b{n}", detected=n % 2) for n in range(4)]
    material = make_material(rows, suppress_below=BELOW)
    assert Withheld.BOTH in material.analysis.withheld and Withheld.CME_LE in material.analysis.withheld
    words = words_of_page(build_page(material))
    assert "Incidents with both narratives answered: not shown" in words
    assert "20 of 40" not in words


def test_a_single_yes_among_many_withholds_all_that_counts_detections() -> None:
    rows = [make_row(f"a{n}", detected=int(n == 0), label=0, case_label=0, confidence=0.9) for n in range(100)]
    material = make_material(rows, suppress_below=10)
    assert material.analysis.withheld == frozenset(Withheld)
    assert material.analysis.evaluation.levels == ()
    words = words_of_page(build_page(material))
    assert "1 of 100" not in words and "99" not in words and "1.00 %" not in words
    assert "100 narratives" in words  # how many were answered tells of the work


def test_without_a_limit_nothing_is_withheld() -> None:
    rows = [make_row("a", detected=1), make_row("b", detected=0)]
    assert make_material(rows).analysis.withheld == frozenset()

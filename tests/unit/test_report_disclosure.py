"""Promises of `--suppress-below`: no count of people below it is shown, and none can be computed from what is shown.

The second is shown by worlds that cannot be told apart: where something is withheld, another cohort that differs in
nothing else gives the very same page. So no number, interval, figure or sentence of the page depends on it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_cohorts import Rates, draw_cohort, make_row, rows_of_table
from made_up_reports import make_material, section, words_of, words_of_page
from scipy.optimize import LinearConstraint, milp

from narrun_async.analysis import report
from narrun_async.analysis.auditing import (
    COUNTS_OF_WORK,
    Count,
    Incident,
    answers,
    answers_within,
    cells,
    each_cme,
    each_incident,
    each_le,
    each_narrative,
    each_with_both,
    judged_within,
    kinds_of_incident,
    pairs,
)
from narrun_async.analysis.cohort import Label, LabelSet, manual_flags
from narrun_async.analysis.disclosure import decide_what_to_withhold, incidents_of
from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.report_tree import DETECTIONS_OF, LABELS_OF, Withheld
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


@settings(max_examples=15)
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


# --- what is withheld cannot be computed -----------------------------------------------------------------------------

#: all that a report may show as tables, and what has to be shown for them to be
TABLES: list[tuple[Withheld, Sequence[Count]]] = [
    (Withheld.INCIDENTS, answers(each_incident)),
    (Withheld.NARRATIVES, answers(each_narrative)),
    (Withheld.KINDS, answers(each_cme)),
    (Withheld.KINDS, answers(each_le)),
    (Withheld.BOTH, answers(each_with_both)),
    (Withheld.CME_LE, pairs()),
    (Withheld.LABELS_OF_INCIDENTS, cells(each_incident)),
    (Withheld.LABELS_OF_NARRATIVES, cells(each_narrative)),
    (Withheld.LABELS_OF_KINDS, cells(each_cme)),
    (Withheld.LABELS_OF_KINDS, cells(each_le)),
    (Withheld.LABELS_OF_BOTH, cells(each_with_both)),
]


def total(found: Counter[Incident], count: Count) -> int:
    return sum(count(kind) * n for kind, n in found.items())


def small_counts(found: Counter[Incident]) -> list[Count]:
    """All of them, whether the page may show their table or not."""
    tables = [table for _, table in TABLES if any(total(found, count) for count in table)]
    return [count for table in tables for count in table if total(found, count) < BELOW]


def largest_of(found: Counter[Incident], count: Count, withheld: frozenset[Withheld]) -> Counter[Incident]:
    """The cohort in which a count is largest, of those that give the same tables as far as they are not withheld."""
    kinds = kinds_of_incident(found)
    shown = [*COUNTS_OF_WORK, *(one for what, table in TABLES if what not in withheld for one in table)]
    if Withheld.CLUSTERS not in withheld and Withheld.NARRATIVES not in withheld:
        shown += answers_within() if Withheld.LABELS_OF_NARRATIVES in withheld else judged_within()
    rows = np.array([[one(kind) for kind in kinds] for one in shown])
    seen = rows @ np.array([found[kind] for kind in kinds])
    sizes = np.array([count(kind) for kind in kinds])
    result = milp(-sizes, integrality=np.ones(len(kinds)), constraints=[LinearConstraint(rows, seen, seen)])
    return Counter({kind: round(n) for kind, n in zip(kinds, result.x, strict=True) if round(n)})


def rows_of(found: Counter[Incident], years: Sequence[tuple[bool, int | None]]) -> Rows:
    """A cohort of these incidents; those detected have the years of those detected, as far as they go."""
    left = {said: [year for was, year in years if was == said] for said in (True, False)}
    rows = []
    for number, kind in enumerate(one for one, n in found.items() for _ in range(n)):
        of_alike = left[kind.judged[0] == "yes"] or left[kind.judged[0] == "no"]
        year, case_label = of_alike.pop(), one_or_zero(kind.label)
        for narrative_type, judged in (("cme", kind.cme), ("le", kind.le)):
            if judged is not None:
                detected, label = map(one_or_zero, judged)
                row = make_row(f"w{number}", narrative_type, detected=detected, label=label, case_label=case_label)
                rows.append(replace(row, incident_year=year))
    return rows


def one_or_zero(word: str | None) -> int | None:
    return None if word is None else int(word == "yes")


def without_confidence(rows: Rows) -> Rows:
    """Answered ones only, alike but for answer and label."""
    return [replace(row, confidence=None, text_chars=1000) for row in rows if row.detected is not None]


def page_with(withheld: frozenset[Withheld], rows: Rows, monkeypatch: pytest.MonkeyPatch) -> object:
    """The page of a cohort of which as much is withheld: that something is, is no secret, for its place says so."""
    with monkeypatch.context() as patched:
        patched.setattr(report, "decide_what_to_withhold", lambda *_: withheld)
        return page_of(rows)[0]


def test_for_each_small_count_another_cohort_with_a_large_one_gives_the_very_same_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where counts that are always shown leave no room for a large one, it is as large as they allow."""
    seen: set[Withheld] = set()
    for seed in range(20):
        rows = without_confidence(draw(seed))
        incidents = incidents_of(rows, manual_flags(rows))
        assert incidents is not None
        found, (page, withheld) = Counter(incidents), page_of(rows)
        years = list({row.incident_id: row.incident_year for row in rows}.values())
        dated = list(zip([one.judged[0] == "yes" for one in incidents], years, strict=True))
        others: list[Counter[Incident]] = []
        for count in small_counts(found):
            room = min(BELOW, total(largest_of(found, count, frozenset(Withheld)), count))
            if any(total(other, count) >= room for other in others):
                continue
            other = largest_of(found, count, withheld)
            assert total(other, count) >= room, f"seed {seed}: a count is told to be small"
            others.append(other)
            assert page_with(withheld, rows_of(other, dated), monkeypatch) == page, f"told apart: seed {seed}"
            seen |= withheld
    assert seen >= {*DETECTIONS_OF.values(), *LABELS_OF.values(), Withheld.CME_LE, Withheld.CLUSTERS}


def with_years_swapped(rows: Rows, rng: random.Random) -> Rows:
    """Some pairs of incidents exchange their years."""
    years = {row.incident_id: row.incident_year for row in rows}
    incidents = sorted(years)
    for _ in range(len(incidents) // 3):
        one, other = rng.sample(incidents, 2)
        years[one], years[other] = years[other], years[one]
    return [replace(row, incident_year=years[row.incident_id]) for row in rows]


def with_confidences_moved(rows: Rows, rng: random.Random, *, within_answers: bool = False) -> Rows:
    """Answers exchange their confidences, those that say the same if within them."""
    changed = list(rows)
    for said in ((0,), (1,)) if within_answers else ((0, 1),):
        stated = [place for place, row in enumerate(rows) if row.confidence is not None and row.detected in said]
        for place, origin in zip(stated, rng.sample(stated, len(stated)), strict=True):
            changed[place] = replace(rows[place], confidence=rows[origin].confidence)
    return changed


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (Withheld.YEARS, with_years_swapped),
        (Withheld.CONFIDENCE, with_confidences_moved),
        (Withheld.CALIBRATION, partial(with_confidences_moved, within_answers=True)),
    ],
)
def test_pages_do_not_depend_on_years_and_confidences_that_are_withheld(
    what: Withheld, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_worlds = 0
    for seed in range(60):
        rows = draw(seed)
        other_rows = change(rows, random.Random(seed))
        if other_rows == rows:
            continue
        page, withheld = page_of(rows)
        if what in withheld:
            assert page_with(withheld, other_rows, monkeypatch) == page, f"told apart: seed {seed}"
            n_worlds += 1
        if n_worlds == 8:
            return
    pytest.fail("too few worlds differed to show anything")


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
    assert "incidents with both narratives answered: not shown" in words
    assert "20 of 40" not in words


def test_a_single_yes_among_many_withholds_all_that_counts_detections() -> None:
    rows = [make_row(f"a{n}", detected=int(n == 0), label=0, case_label=0, confidence=0.9) for n in range(100)]
    material = make_material(rows, suppress_below=10)
    of_both = {Withheld.BOTH, Withheld.LABELS_OF_BOTH}
    assert material.analysis.withheld >= {*DETECTIONS_OF.values(), *LABELS_OF.values()} - of_both
    assert not any(level.counts.n_answered for level in material.analysis.evaluation.levels)
    words = words_of_page(build_page(material))
    assert "1 of 100" not in words and "99" not in words and "1.00 %" not in words
    assert "100 narratives" in words  # how many were answered tells of the work


def few_incidents_without_detection() -> Rows:
    """Fewer than may be told; of narratives there are many, since most incidents have one of each."""
    n_none = BELOW - 1
    said = [(0, 0)] * n_none + [(0, 1), (1, 0)] * 10
    return [
        make_row(f"a{n}", kind, detected=one)
        for n, both in enumerate(said)
        for kind, one in zip(("cme", "le"), both, strict=True)
    ]


def test_sections_speak_of_the_levels_that_are_shown_and_of_no_other() -> None:
    seen: Counter[tuple[bool, ...]] = Counter()
    for rows in (*map(draw, range(20)), few_incidents_without_detection()):
        material = make_material(rows, suppress_below=BELOW)
        page, withheld = build_page(material), material.analysis.withheld
        paper, brief = (words_of(section(page, slug).blocks) for slug in ("methods", "in-brief"))
        for level, what in DETECTIONS_OF.items():
            found = material.level(level)
            assert (found is None) == (what in withheld)
            assert found is None or LABELS_OF[level] not in withheld or not found.counts.n_evaluated
        for one, name in ((Level.INCIDENTS, "incident"), (Level.NARRATIVES, "narrative")):
            is_shown, judged = DETECTIONS_OF[one] not in withheld, material.level(one)
            assert (f"{name.capitalize()}s detected\n" in brief) == is_shown
            assert (f"{name.capitalize()}s detected: not shown" in brief) != is_shown
            assert is_shown or f" {name}s (" not in paper
            is_judged = judged is not None and judged.counts.n_evaluated > 0
            assert is_judged or f"Per {name}, against the labels" not in paper
        is_apart = material.level(Level.NARRATIVES) is not None and Withheld.CLUSTERS in withheld
        assert ("do not allow for two narratives of one incident" in paper) == is_apart
        levels = [material.level(one) for one in (Level.INCIDENTS, Level.NARRATIVES)]
        seen[tuple(one is not None for one in levels)] += 1
    assert seen.keys() >= {(True, True), (True, False), (False, True), (False, False)}, seen


def test_labels_of_a_review_are_withheld_where_few_of_some_weight_can_be_told() -> None:
    rows = rows_of_table(20, 20, 20, 20)
    keys = [(row.incident_id, row.narrative_type) for row in rows]

    def withheld(weights: Sequence[float]) -> frozenset[Withheld]:
        flags = [row.manual_flag_ind == 1 for row in rows]
        labels = {
            key: Label(is_positive=is_positive, weight=weight)
            for key, is_positive, weight in zip(keys, flags, weights, strict=True)
        }
        return decide_what_to_withhold(rows, LabelSet(name="review 1", narratives=labels, incidents={}), BELOW)

    assert Withheld.LABELS_OF_NARRATIVES not in withheld([7.5] * 80)
    assert Withheld.LABELS_OF_NARRATIVES not in withheld([7.5, 2.0] * 40)
    assert Withheld.LABELS_OF_NARRATIVES in withheld([7.5] * 4 + [2.0] * 76)


def test_labels_of_a_review_are_withheld_where_they_stand_for_all_but_a_few_answers() -> None:
    """Of 100 detected and 100 others 20 each are labelled; the sum of their weights is what was there to be drawn."""
    rows = [make_row(f"case{n}", detected=int(n < 100)) for n in range(200)]

    def withheld(n_detected: int, n_others: int, *, is_drawn_by_answer: bool = True) -> frozenset[Withheld]:
        labels = {
            (f"case{first + n}", "cme"): Label(is_positive=n < 10, weight=n_drawn_from / 20)
            for first, n_drawn_from in ((0, n_detected), (100, n_others))
            for n in range(20)
        }
        of_review = LabelSet(name="review 1", narratives=labels, incidents={}, is_drawn_by_answer=is_drawn_by_answer)
        return decide_what_to_withhold(rows, of_review, BELOW)

    assert Withheld.LABELS_OF_NARRATIVES not in withheld(100, 100)
    assert Withheld.LABELS_OF_NARRATIVES not in withheld(100, 95)
    assert Withheld.LABELS_OF_NARRATIVES not in withheld(97, 100, is_drawn_by_answer=False)
    assert Withheld.LABELS_OF_NARRATIVES in withheld(97, 100)
    assert Withheld.LABELS_OF_NARRATIVES in withheld(60, 99)


def test_narratives_that_tables_do_not_know_withhold_everything() -> None:
    many = rows_of_table(20, 20, 20, 20)
    assert decide_what_to_withhold(many, manual_flags(many), BELOW) < frozenset(Withheld)
    for other in (make_row("case1", "cme", detected=1), make_row("case1", "toxicology", detected=1)):
        assert decide_what_to_withhold([*many, other], manual_flags(many), BELOW) == frozenset(Withheld)


def test_what_is_large_is_shown_though_few_incidents_have_one_narrative() -> None:
    said = [(1, 1), (1, 0), (0, 1), (0, 0)]
    rows = [
        make_row(f"a{n}", kind, detected=detected, label=label, case_label=label, year=2015 + n % 2)
        for n, (detected, label) in enumerate(said * 60)
        for kind in ("cme", "le")
    ]
    others = [replace(row, detected=1 - (row.detected or 0)) for row in rows[:160] if row.narrative_type == "le"]
    rows = [*others, *(row for row in rows[:160] if row.narrative_type == "cme"), *rows[160:]]
    assert withheld_of(rows) == {Withheld.CURVE}
    few = [make_row(f"b{n}", detected=n % 2, label=n % 2, case_label=n % 2, year=2015) for n in range(3)]
    assert not withheld_of([*rows, *few]) & {Withheld.INCIDENTS, Withheld.LABELS_OF_INCIDENTS, Withheld.YEARS}


def withheld_of(rows: Rows) -> frozenset[Withheld]:
    return decide_what_to_withhold(rows, manual_flags(rows), BELOW)


def test_without_a_limit_nothing_is_withheld() -> None:
    rows = [make_row("a", detected=1), make_row("b", detected=0)]
    assert make_material(rows).analysis.withheld == frozenset()

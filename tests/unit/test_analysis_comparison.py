"""Promises of `analysis.comparison`: common cases only, paired tests and intervals, and what luck does."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_cohorts import Rates, draw_cohort, make_row
from sklearn.metrics import cohen_kappa_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from narrun_async.analysis import tables
from narrun_async.analysis.cohort import CohortTable, Label, LabelSet, manual_flags
from narrun_async.analysis.comparison import MOST_FOR_ALL_PAIRS, compare, pairs_of
from narrun_async.analysis.comparison_tree import ComparisonReport, Contender
from narrun_async.analysis.evaluation_tree import Level, Subject
from narrun_async.analysis.luck import assess_luck, best_of_equals
from narrun_async.analysis.resampling import Bootstrap, resample
from narrun_async.analysis.samples import cells_of, sum_by_cluster
from narrun_async.analysis.values import Method
from narrun_async.models import CohortRow

FEW = Bootstrap(n_resamples=400, seed=1)


def compared(
    *cohorts: Sequence[CohortRow], bootstrap: Bootstrap = FEW, labels: LabelSet | None = None, **options: Any
) -> ComparisonReport:
    contenders = [
        Contender(subject=Subject(experiment_id=f"e{number}", name="", is_simulated=False), settings={})
        for number in range(len(cohorts))
    ]
    flags = labels or manual_flags(row for one in cohorts for row in one)
    tables = [CohortTable.build(one, flags) for one in cohorts]
    given_options = {"repetitions": (), "varying": (), "n_configurations": len(cohorts), "limit": 5, **options}
    return compare(contenders, tables, flags, bootstrap, **given_options)


def answered_again(rows: Sequence[CohortRow], flipped: float, seed: int) -> list[CohortRow]:
    """The same cohort, with some answers turned into their opposites."""
    rng = np.random.default_rng(seed)
    return [
        replace(row, detected=1 - row.detected) if row.detected is not None and rng.random() < flipped else row
        for row in rows
    ]


@pytest.fixture(scope="module")
def rows() -> Sequence[CohortRow]:
    return draw_cohort(Rates(n_incidents=200, prevalence=0.3, likeness=0.3), seed=4)


# --- which cases -----------------------------------------------------------------------------------------------------


def test_only_narratives_that_all_have_answered_are_compared_and_the_others_are_accounted_for() -> None:
    first = [
        make_row("a", detected=1, label=1),
        make_row("b", detected=0, label=0),
        make_row("c", error="timeout", label=0),
        make_row("d", detected=0),
    ]
    second = [
        make_row("a", detected=1, label=1),
        make_row("b", has_result=False, label=0),
        make_row("c", detected=0, label=0),
        make_row("d", detected=1),
        make_row("e", skipped="placeholder"),
    ]
    report = compared(first, second)
    narratives = report.levels[0]
    assert (report.n_narratives, narratives.n_common, narratives.n_compared) == (5, 2, 1)
    one, other = report.fall_outs
    assert (one.answered, one.errors, one.skipped, one.no_row_yet, one.not_in_cohort) == (3, 1, 0, 0, 1)
    assert (other.answered, other.errors, other.skipped, other.no_row_yet, other.not_in_cohort) == (3, 0, 1, 1, 0)
    assert [(case.incident_id, case.label, case.answers) for case in report.discordant] == [("d", None, (False, True))]


def test_narratives_are_matched_by_incident_and_type_whatever_their_order(rows: Sequence[CohortRow]) -> None:
    again = answered_again(rows, 0.2, seed=5)
    straight, shuffled = compared(rows, again), compared(rows, list(reversed(again)))
    assert straight.levels == shuffled.levels
    assert straight.discordant == shuffled.discordant


def test_incidents_are_judged_by_the_common_narratives_alone() -> None:
    first = [make_row("a", "cme", detected=0, case_label=1), make_row("a", "le", detected=1, case_label=1)]
    second = [make_row("a", "cme", detected=0, case_label=1), make_row("a", "le", error="timeout", case_label=1)]
    incidents = compared(first, second).levels[1]
    assert incidents.level is Level.INCIDENTS
    assert [standing.confusion.fn for standing in incidents.standings] == [1, 1]


def test_labelled_cases_are_listed_before_the_others_and_no_more_than_asked_for() -> None:
    first = [make_row(f"c{n}", detected=0, label=0 if n > 6 else None) for n in range(10)]
    second = [make_row(f"c{n}", detected=1, label=0 if n > 6 else None) for n in range(10)]
    report = compared(first, second, limit=4)
    assert report.n_discordant == 10
    assert [case.incident_id for case in report.discordant] == ["c7", "c8", "c9", "c0"]


# --- against the labels ----------------------------------------------------------------------------------------------


def test_standings_and_differences_equal_those_of_scikit_learn(rows: Sequence[CohortRow]) -> None:
    again = answered_again(rows, 0.1, seed=5)
    label = [row.manual_flag_ind for row in rows]
    first, second = ([row.detected for row in some] for some in (rows, again))
    narratives = compared(rows, again).levels[0]
    found = [standing.performance.f1.value for standing in narratives.standings]
    assert found == pytest.approx([f1_score(label, first), f1_score(label, second)], abs=1e-9)
    (pair,) = narratives.pairs
    assert pair.f1.value == pytest.approx(f1_score(label, first) - f1_score(label, second), abs=1e-9)
    assert pair.agreement.kappa.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
    assert pair.f1.interval is not None and pair.f1.interval.method is Method.PERCENTILES
    assert pair.f1.interval.low < pair.f1.value < pair.f1.interval.high


def test_the_paired_interval_is_narrower_than_the_difference_of_two_independent_ones_would_be(
    rows: Sequence[CohortRow],
) -> None:
    narratives = compared(rows, answered_again(rows, 0.03, seed=5)).levels[0]
    intervals = [standing.performance.f1.interval for standing in narratives.standings]
    (pair,) = narratives.pairs
    assert pair.f1.interval is not None and None not in intervals
    widths = [interval.high - interval.low for interval in intervals if interval is not None]
    assert pair.f1.interval.high - pair.f1.interval.low < 0.7 * math.hypot(*widths)


def test_mcnemar_is_exact_and_holm_allows_for_all_pairs(rows: Sequence[CohortRow]) -> None:
    cohorts = [rows, *(answered_again(rows, 0.02 * number, seed=number) for number in (1, 2, 3))]
    narratives = compared(*cohorts).levels[0]
    label = np.array([row.manual_flag_ind for row in rows])
    right = [np.array([row.detected for row in one]) == label for one in cohorts]
    for question, chosen in (("right", label >= 0), ("found", label == 1), ("spared", label == 0)):
        expected = []
        for pair in narratives.pairs:
            one, other = right[pair.first][chosen], right[pair.second][chosen]
            table = [[(one & other).sum(), (one & ~other).sum()], [(other & ~one).sum(), (~one & ~other).sum()]]
            expected.append(mcnemar(table, exact=True).pvalue)
        tests = [getattr(pair, question) for pair in narratives.pairs]
        assert [test.p for test in tests] == pytest.approx(expected, abs=1e-9)
        assert [test.p_holm for test in tests] == pytest.approx(
            list(multipletests(expected, method="holm")[1]), abs=1e-9
        )


def test_it_is_agrestis_approval_of_the_prime_minister() -> None:
    """A. Agresti, Categorical Data Analysis (2002), table 10.1: 150 of 1,600 changed one way, 86 the other; p < 0.001.

    The exact test on 150 against 86 of 236.
    """
    answers = [(1, 1)] * 794 + [(1, 0)] * 150 + [(0, 1)] * 86 + [(0, 0)] * 570
    first = [make_row(f"c{n}", detected=one, label=1) for n, (one, _) in enumerate(answers)]
    second = [make_row(f"c{n}", detected=other, label=1) for n, (_, other) in enumerate(answers)]
    (pair,) = compared(first, second).levels[0].pairs
    assert (pair.right.only_first, pair.right.only_second) == (150, 86)
    assert pair.right.p == pytest.approx(3.716e-5, abs=2e-8)


def test_holms_own_rule_never_reorders_and_never_falls_below_the_plain_p(rows: Sequence[CohortRow]) -> None:
    cohorts = [rows, *(answered_again(rows, 0.05 * number, seed=number) for number in (1, 2, 3, 4))]
    tests = sorted((pair.right for pair in compared(*cohorts).levels[0].pairs), key=lambda test: test.p or 0)
    for one, other in pairwise(tests):
        assert one.p is not None and one.p_holm is not None and other.p_holm is not None
        assert one.p <= one.p_holm <= other.p_holm <= 1


def test_cases_with_weights_are_not_put_to_a_test_that_counts() -> None:
    rows = [make_row(f"c{n}", detected=n % 2, label=n % 2) for n in range(20)]
    weighted = {
        (row.incident_id, "cme"): Label(is_positive=bool(row.detected), weight=1.0 + number)
        for number, row in enumerate(rows)
    }
    labels = LabelSet(name="reviewed", narratives=weighted, incidents={})
    (pair,) = compared(rows, answered_again(rows, 0.3, seed=1), labels=labels).levels[0].pairs
    assert (pair.right.p, pair.right.p_holm) == (None, None)
    assert pair.f1.value is not None


# --- many of them ----------------------------------------------------------------------------------------------------


def test_of_many_experiments_each_is_compared_with_the_first() -> None:
    assert pairs_of(3) == [(0, 1), (0, 2), (1, 2)]
    assert pairs_of(MOST_FOR_ALL_PAIRS + 1) == [(0, other) for other in range(1, MOST_FOR_ALL_PAIRS + 1)]


def test_repetitions_are_marked_and_their_flips_counted(rows: Sequence[CohortRow]) -> None:
    again = answered_again(rows, 0.1, seed=5)
    n_flipped = sum(one.detected != other.detected for one, other in zip(rows, again, strict=True))
    pairs = compared(rows, again, rows, repetitions={(0, 1)}).levels[0].pairs
    assert [pair.is_repetition for pair in pairs] == [True, False, False]
    assert pairs[0].agreement.table.fp + pairs[0].agreement.table.fn == n_flipped
    assert pairs[1].agreement.observed.value == 1


@pytest.mark.parametrize(
    ("n", "expected"),
    [(2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875), (20, 1.86748), (50, 2.24907), (100, 2.50759)],
)
def test_the_best_of_equals_is_tippetts_expected_extreme(n: int, expected: float) -> None:
    """L. H. C. Tippett (1925), and table 9 of D. Teichroew, Ann. Math. Stat. 27 (1956) 410-426."""
    assert best_of_equals(n) == pytest.approx(expected, abs=5e-6)
    assert best_of_equals(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert best_of_equals(3) == pytest.approx(3 / (2 * math.sqrt(math.pi)), abs=1e-9)
    assert best_of_equals(1) == 0


def test_luck_tells_about_the_lead_that_the_best_of_equal_configurations_really_has() -> None:
    """Twelve configurations that are equally good and err by themselves, again and again."""
    leads, foretold = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        label = rng.random(400) < 0.15
        answers = np.where(label, rng.random((12, 400)) < 0.85, rng.random((12, 400)) < 0.05)
        cells = [sum_by_cluster(cells_of(one, label), np.ones(400), np.arange(400)) for one in answers]
        luck = assess_luck(resample(np.hstack(cells), Bootstrap(n_resamples=300, seed=1), label="x"), 12, 12)
        assert luck is not None
        leads.append(luck.observed_lead)
        foretold.append(luck.expected_lead)
    assert np.mean(foretold) == pytest.approx(np.mean(leads), rel=0.1)


def test_of_two_configurations_the_spread_is_that_of_their_difference_by_the_root_of_two(
    rows: Sequence[CohortRow],
) -> None:
    label = np.array([row.manual_flag_ind for row in rows]) == 1
    cells = [
        sum_by_cluster(
            cells_of(np.array([row.detected == 1 for row in one]), label), np.ones(len(rows)), np.arange(len(rows))
        )
        for one in (rows, answered_again(rows, 0.1, seed=5))
    ]
    drawn = resample(np.hstack(cells), FEW, label="x")
    luck = assess_luck(drawn, 2, 2)
    difference = tables.f1(drawn.drawn[:, :4]) - tables.f1(drawn.drawn[:, 4:])
    assert luck is not None
    assert luck.spread == pytest.approx(difference.std() / math.sqrt(2), abs=1e-9)


def test_more_configurations_owe_more_to_luck(rows: Sequence[CohortRow]) -> None:
    few, many = (compared(rows, answered_again(rows, 0.1, seed=5), n_configurations=n).luck for n in (2, 50))
    assert few is not None and many is not None
    assert many.expected_lead == pytest.approx(few.expected_lead * best_of_equals(50) / best_of_equals(2), rel=1e-9)


# --- nothing breaks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cohorts",
    [
        pytest.param(([], []), id="empty"),
        pytest.param(([make_row("a", detected=1)], [make_row("b", detected=1)]), id="nothing in common"),
        pytest.param(([make_row("a", detected=1)], [make_row("a", detected=0)]), id="no labels"),
        pytest.param(([make_row("a", detected=1, label=1)], [make_row("a", detected=1, label=1)]), id="one case"),
        pytest.param(([make_row("a", error="x", label=1)], [make_row("a", error="x", label=1)]), id="all errors"),
    ],
)
@pytest.mark.parametrize("n_resamples", [0, 50])
def test_poor_cohorts_are_compared_without_a_fall(cohorts: tuple[list[CohortRow], ...], n_resamples: int) -> None:
    report = compared(*cohorts, bootstrap=Bootstrap(n_resamples=n_resamples, seed=1))
    json.dumps(asdict(report), allow_nan=False)
    for level in report.levels:
        for pair in level.pairs:
            for measure in (pair.f1, pair.sensitivity, pair.specificity):
                assert measure.value is not None or measure.remark


@settings(max_examples=15)
@given(st.lists(st.tuples(*[st.sampled_from([0, 1])] * 3, st.sampled_from([None, 0, 1])), min_size=1, max_size=25))
def test_a_comparison_turned_round_says_the_opposite(cases: list[tuple[int, int, int, int | None]]) -> None:
    kinds = [("le", "cme")[number % 2] for number in range(len(cases))]
    cohorts = [
        [
            make_row(f"c{number // 2}", kinds[number], detected=case[which], label=case[3])
            for number, case in enumerate(cases)
        ]
        for which in range(2)
    ]
    (there,) = compared(*cohorts).levels[0].pairs
    (back,) = compared(*reversed(cohorts)).levels[0].pairs
    assert (there.right.only_first, there.right.only_second) == (back.right.only_second, back.right.only_first)
    assert there.right.p == back.right.p
    assert there.agreement.kappa.value == pytest.approx(back.agreement.kappa.value)
    if there.f1.value is not None:
        assert there.f1.value == pytest.approx(-(back.f1.value or 0.0))

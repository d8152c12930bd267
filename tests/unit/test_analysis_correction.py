"""Promises of `analysis.correction`: published intervals, and coverage on experiments whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_cohorts import make_row, rows_of_table
from statsmodels.stats.contingency_tables import Table2x2

from narrun_async.analysis.cohort import CohortTable, Units, manual_flags
from narrun_async.analysis.correction import corrected_beside_labels, corrected_prevalence, predictive_values
from narrun_async.analysis.evaluation_tree import Level, Validity
from narrun_async.analysis.levels import PREVALENCES, estimate_prevalence, own_validity
from narrun_async.analysis.proportions import wilson_interval
from narrun_async.analysis.values import Measure, Method, Share


def share(hits: float, n: float) -> Share:
    return Share(value=hits / n, n_effective=n)


def validity(sensitivity: Share, specificity: Share) -> Validity:
    return Validity(sensitivity=sensitivity, specificity=specificity, source="a test")


def ends(measure: Measure) -> tuple[float, float]:
    assert measure.interval is not None, measure.remark
    return measure.interval.low, measure.interval.high


@pytest.mark.parametrize(
    ("apparent", "sensitivity", "specificity", "expected", "digits"),
    [
        (share(4060, 11284), share(178, 179), share(358, 359), (0.349, 0.372), 3),
        (share(51, 2971), share(32, 33), share(20, 20), (0.0, 0.053), 3),
        (share(0.06 * 11862, 11862), share(8, 10), share(12, 12), (0.0, 0.147), 3),
        (share(259, 509), share(84, 127), share(96, 109), (0.58, 0.87), 2),
        (share(51, 509), share(23, 41), share(187, 195), (0.037, 0.195), 3),
    ],
)
def test_the_interval_is_that_of_lang_and_reiczigels_examples(
    apparent: Share, sensitivity: Share, specificity: Share, expected: tuple[float, float], digits: int
) -> None:
    """Prev. Vet. Med. 113 (2014) 13-22, examples 1 to 4, as the manual of the R package asht (prevSeSp) cites them."""
    low, high = ends(corrected_prevalence(apparent, validity(sensitivity, specificity)))
    assert (round(low, digits), round(high, digits)) == expected


def test_the_predecessors_headline_shrinks_to_two_percent_and_may_be_nothing() -> None:
    """5.65 % of 35,312 narratives detected, with a sensitivity of 42/48 and a specificity of 342/356."""
    measure = corrected_prevalence(share(0.0565 * 35312, 35312), validity(share(42, 48), share(342, 356)))
    assert measure.value == pytest.approx(0.0206, abs=5e-5)
    low, high = ends(measure)
    assert low == 0
    assert 0.040 <= high <= 0.046
    assert measure.interval is not None and measure.interval.method is Method.LANG_REICZIGEL


@given(st.floats(0, 1), st.floats(0.51, 1), st.floats(0.51, 1))
def test_what_the_formula_gives_is_what_would_have_been_detected_so(truth: float, se: float, sp: float) -> None:
    apparent = truth * se + (1 - truth) * (1 - sp)
    found = corrected_prevalence(
        Share(value=apparent, n_effective=1000), validity(share(se * 50, 50), share(sp * 50, 50))
    )
    assert found.value == pytest.approx(truth, abs=1e-9)


@given(st.integers(0, 500), st.integers(0, 40), st.integers(0, 60))
def test_it_never_leaves_zero_to_one_and_says_when_answers_tell_nothing(x: int, hits: int, rejections: int) -> None:
    measure = corrected_prevalence(share(x, 500), validity(share(hits, 40), share(rejections, 60)))
    if hits / 40 + rejections / 60 - 1 <= 0:
        assert measure.value is None and measure.interval is None
        assert "tell nothing" in measure.remark
        return
    low, high = ends(measure)
    assert measure.value is not None and 0 <= measure.value <= 1
    assert 0 <= low <= high <= 1


def measured(hits: int, n: int) -> Measure:
    """The labelled rate, with Wilson's interval."""
    value = hits / n
    return Measure(value=value, interval=wilson_interval(value, n, method=Method.WILSON))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 400), st.floats(0.01, 0.99))
def test_beside_labels_it_is_rogans_number_of_all_and_never_leaves_zero_to_one(
    found: int, invented: int, x: int, fraction: float
) -> None:
    """60 labelled positive, 60 labelled negative; `x` of 400 others detected."""
    known = validity(share(found, 60), share(60 - invented, 60))
    if found <= invented:
        assert corrected_beside_labels(measured(60, 120), share(x, 400), known, fraction=fraction).value is None
        return
    whole = fraction * (found + invented) / 120 + (1 - fraction) * x / 400
    told = corrected_beside_labels(measured(60, 120), share(x, 400), known, fraction=fraction)
    assert told.value == pytest.approx(corrected_prevalence(share(1000 * whole, 1000), known).value, abs=1e-9)
    low, high = ends(told)
    assert told.value is not None and 0 <= low <= told.value <= high <= 1


def test_beside_labels_the_interval_lies_between_those_of_its_parts() -> None:
    known, labelled, others = validity(share(42, 48), share(342, 356)), measured(48, 404), share(300, 4000)
    alone = ends(corrected_prevalence(others, known))
    none, all_of_them = (
        ends(corrected_beside_labels(labelled, others, known, fraction=fraction)) for fraction in (0.0, 1.0)
    )
    assert none == pytest.approx(alone, abs=1e-9)
    assert labelled.interval is not None
    assert all_of_them == pytest.approx((labelled.interval.low, labelled.interval.high), abs=1e-9)


@pytest.mark.parametrize("prevalence", [0.001, 0.03, 0.5, 0.9])
def test_the_value_of_a_yes_has_the_interval_of_the_likelihood_ratio(prevalence: float) -> None:
    """Mercaldo, Lau, Zhou (2007), table VIII: ApoE.e4 in 240 of 418 patients and 87 of 375 controls.

    On the logit scale PPV is the likelihood ratio and a constant, and the likelihood ratio is a risk ratio.
    """
    known = validity(share(240, 418), share(288, 375))
    prior = prevalence / (1 - prevalence)
    found = predictive_values(known, prevalence)
    for measure, cells, odds in (
        (found.ppv, [[240, 178], [87, 288]], prior),
        (found.npv, [[288, 87], [178, 240]], 1 / prior),
    ):
        table = Table2x2(np.array(cells), shift_zeros=False)
        expected = [odds * ratio / (1 + odds * ratio) for ratio in (table.riskratio, *table.riskratio_confint())]
        assert [measure.value, *ends(measure)] == pytest.approx(expected, abs=1e-9)


def test_at_the_prevalence_of_the_sample_the_value_of_a_yes_is_the_share_of_true_ones() -> None:
    found = predictive_values(validity(share(42, 48), share(342, 356)), 48 / 404)
    assert found.ppv.value == pytest.approx(42 / 56, abs=1e-9)
    assert found.npv.value == pytest.approx(342 / 348, abs=1e-9)


@pytest.mark.parametrize(("se", "sp"), [(share(10, 10), share(9, 10)), (share(9, 10), share(10, 10))])
def test_without_errors_of_one_kind_the_interval_still_says_that_there_may_be_some(se: Share, sp: Share) -> None:
    found = predictive_values(validity(se, sp), 0.05)
    for measure in (found.ppv, found.npv):
        low, high = ends(measure)
        assert 0 < low < high <= 1
        assert high - low > 0.02


def test_an_answer_that_is_never_given_has_no_value() -> None:
    found = predictive_values(validity(share(0, 10), share(10, 10)), 0.05)
    assert found.ppv.value is None
    assert "never" in found.ppv.remark


# --- experiments whose truth is known --------------------------------------------------------------------------------


def draw_units(rng: np.random.Generator, *, n_units: int, n_labelled: int, truth: float, likeness: float) -> Units:
    """Two narratives an incident; with `likeness`, both tell the same and are answered by the same coin."""
    n_incidents = n_units // 2
    incident = np.repeat(np.arange(n_incidents), 2)
    alike = (rng.random(n_incidents) < likeness)[incident]
    shared, own = rng.random((2, n_incidents))[:, incident], rng.random((2, n_units))
    coins = np.where(alike, shared, own)
    is_true = coins[0] < truth
    detected = np.where(is_true, coins[1] < 0.875, coins[1] < 0.04)
    label = np.where(incident < n_labelled // 2, is_true, -1).astype(np.int64)
    return Units(
        level=Level.NARRATIVES,
        state=np.full(n_units, 3),
        detected=detected,
        is_open=np.zeros(n_units, dtype=bool),
        label=label,
        weight=np.ones(n_units),
        incident=incident,
    )


@pytest.mark.parametrize(("n_detected_of_others", "is_told"), [(20, False), (6, True), (40, True)])
def test_a_labelled_part_that_is_detected_at_another_rate_than_the_others_is_told(
    n_detected_of_others: int, is_told: bool
) -> None:
    """20 of 100 against 20, 6 and 40; by Newcombe the differences are 4.7 to 23.4 and -31.9 to -7.3 in a hundred."""
    rows = rows_of_table(16, 4, 4, 76) + [make_row(f"u{n}", detected=int(n < n_detected_of_others)) for n in range(100)]
    units = CohortTable.build(rows, manual_flags(rows)).narratives()
    told = estimate_prevalence(units, own_validity(units)).remarks
    assert any("at another rate than the others (20.0 % and" in remark for remark in told) == is_told


def test_a_corrected_share_that_is_zero_but_for_rounding_is_no_prevalence_to_reckon_with() -> None:
    rows = rows_of_table(1, 1, 0, 1) + [make_row(f"more{n}", detected=int(n < 2)) for n in range(5)]
    units = CohortTable.build(rows, manual_flags(rows)).narratives()
    found = estimate_prevalence(units, own_validity(units))
    assert found.corrected.value == pytest.approx(0, abs=1e-15)
    assert [one.prevalence for one in found.predictive_values] == list(PREVALENCES)


@pytest.mark.parametrize(
    ("truth", "likeness", "n_labelled"), [(0.06, 0.0, 400), (0.05, 0.6, 1000)], ids=["independent", "alike"]
)
def test_the_corrected_interval_covers_the_truth_in_93_to_97_percent_and_the_apparent_one_misses(
    truth: float, likeness: float, n_labelled: int
) -> None:
    """1,000 experiments of 3,000 narratives, some of them labelled; more settings: docs/decisions/0004."""
    rng = np.random.default_rng(2014)
    n_covered = n_covered_by_apparent = 0
    for _ in range(1000):
        units = draw_units(rng, n_units=3000, n_labelled=n_labelled, truth=truth, likeness=likeness)
        found = estimate_prevalence(units, own_validity(units))
        low, high = ends(found.corrected)
        n_covered += low <= truth <= high
        assert found.apparent.clustered is not None
        n_covered_by_apparent += found.apparent.clustered.low <= truth <= found.apparent.clustered.high
    assert 930 <= n_covered <= 970
    assert n_covered_by_apparent < 100

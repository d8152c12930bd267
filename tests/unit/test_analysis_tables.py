"""Promises of `analysis.tables`: every measure equals a library's, or a published worked example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.inter_rater import cohens_kappa

from narrun_async.analysis import tables
from narrun_async.analysis.samples import Floats

COUNT = st.integers(0, 40)
FOUR_COUNTS = st.tuples(COUNT, COUNT, COUNT, COUNT)
#: A. R. Feinstein, D. V. Cicchetti, J. Clin. Epidemiol. 43 (1990) 543-549: the same agreement, very different kappas
BALANCED, SKEWED = (40, 9, 6, 45), (80, 10, 5, 5)
#: K. Gwet, Kappa statistic is not satisfactory for assessing the extent of agreement (2002), table 2
ALMOST_ALL_YES = (118, 5, 2, 0)
#: J. Sim, C. C. Wright, Phys. Ther. 85 (2005) 257-268: two clinicians, 39 patients with low back pain
CLINICIANS = (22, 2, 4, 11)


def table(cells: tuple[float, ...]) -> Floats:
    return np.array(cells, dtype=float)


def vectors(cells: tuple[int, int, int, int]) -> tuple[list[int], list[int]]:
    """Labels and answers, as scikit-learn takes them."""
    tp, fp, fn, tn = cells
    return [1] * tp + [0] * fp + [1] * fn + [0] * tn, [1] * (tp + fp) + [0] * (fn + tn)


@settings(max_examples=40)
@given(FOUR_COUNTS)
def test_measures_of_performance_equal_those_of_scikit_learn(cells: tuple[int, int, int, int]) -> None:
    tp, fp, fn, tn = cells
    assume(tp + fn and tn + fp and tp + fp and tn + fn)
    label, answer = vectors(cells)
    expected = {
        tables.sensitivity: sk.recall_score(label, answer),
        tables.specificity: sk.recall_score(label, answer, pos_label=0),
        tables.ppv: sk.precision_score(label, answer),
        tables.npv: sk.precision_score(label, answer, pos_label=0),
        tables.balanced_accuracy: sk.balanced_accuracy_score(label, answer),
        tables.f1: sk.f1_score(label, answer),
        tables.mcc: sk.matthews_corrcoef(label, answer),
        tables.observed_agreement: sk.accuracy_score(label, answer),
        tables.cohens_kappa: sk.cohen_kappa_score(label, answer),
        tables.positive_agreement: sk.f1_score(label, answer),
        tables.negative_agreement: sk.f1_score(label, answer, pos_label=0),
    }
    for measure, value in expected.items():
        assert float(measure(table(cells))) == pytest.approx(value, abs=1e-9), measure.__name__


@settings(max_examples=40)
@given(FOUR_COUNTS, st.integers(0, 2**32 - 1))
def test_measures_of_weighted_units_equal_those_of_scikit_learn(cells: tuple[int, int, int, int], seed: int) -> None:
    tp, fp, fn, tn = cells
    assume(tp + fn and tn + fp and tp + fp and tn + fn)
    label, answer = vectors(cells)
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(label))
    sums = np.bincount([0] * tp + [1] * fp + [2] * fn + [3] * tn, weights=weights, minlength=4)
    for measure, score in {
        tables.f1: sk.f1_score,
        tables.mcc: sk.matthews_corrcoef,
        tables.balanced_accuracy: sk.balanced_accuracy_score,
        tables.cohens_kappa: sk.cohen_kappa_score,
    }.items():
        expected = score(label, answer, sample_weight=weights)
        assert float(measure(sums)) == pytest.approx(expected, abs=1e-9), measure.__name__


@given(FOUR_COUNTS)
def test_kappa_equals_that_of_statsmodels(cells: tuple[int, int, int, int]) -> None:
    tp, fp, fn, tn = cells
    assume((tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))
    expected = cohens_kappa(table(cells).reshape(2, 2), return_results=False)
    assert float(tables.cohens_kappa(table(cells))) == pytest.approx(expected, abs=1e-9)


def test_the_two_paradoxes_of_kappa_are_those_of_feinstein_and_cicchetti() -> None:
    for cells, kappa in ((BALANCED, 0.70), (SKEWED, 0.32)):
        assert float(tables.observed_agreement(table(cells))) == pytest.approx(0.85, abs=1e-9)
        assert round(float(tables.cohens_kappa(table(cells))), 2) == kappa


def test_positive_and_negative_agreement_are_those_of_cicchetti_and_feinstein() -> None:
    """J. Clin. Epidemiol. 43 (1990) 551-558, the tables of the first paper."""
    positive, negative = tables.positive_agreement(table(SKEWED)), tables.negative_agreement(table(SKEWED))
    assert (round(float(positive), 2), round(float(negative), 2)) == (0.91, 0.40)
    positive, negative = tables.positive_agreement(table(BALANCED)), tables.negative_agreement(table(BALANCED))
    assert (round(float(positive), 2), round(float(negative), 2)) == (0.84, 0.86)


def test_pabak_is_that_of_byrt_and_of_sim_and_wright() -> None:
    """Byrt, Bishop, Carlin (1993): 0.70 for both of Feinstein's tables; Sim, Wright (2005): kappa 0.67, PABAK 0.69."""
    assert float(tables.pabak(table(BALANCED))) == pytest.approx(0.7, abs=1e-9)
    assert float(tables.pabak(table(SKEWED))) == pytest.approx(0.7, abs=1e-9)
    assert round(float(tables.cohens_kappa(table(CLINICIANS))), 2) == 0.67
    assert round(float(tables.pabak(table(CLINICIANS))), 2) == 0.69


def test_ac1_is_that_of_gwet_where_kappa_is_below_zero() -> None:
    """Gwet (2002): 94 % agreement, kappa -0.0234, AC1 0.9408."""
    assert round(float(tables.cohens_kappa(table(ALMOST_ALL_YES))), 4) == -0.0234
    assert round(float(tables.gwets_ac1(table(ALMOST_ALL_YES))), 4) == 0.9408


@pytest.mark.parametrize(
    ("cells", "ac1", "standard_error"),
    [
        (ALMOST_ALL_YES, 0.940776337609, 0.02296455),
        (BALANCED, 0.700748129676, 0.0713518),
        (SKEWED, 0.808, 0.05212942),
        (CLINICIANS, 0.714981729598, 0.11183133),
        ((42, 14, 6, 342), 0.936180968027, 0.01454585),
    ],
)
def test_ac1_and_its_standard_error_equal_those_of_irrcac(
    cells: tuple[int, int, int, int], ac1: float, standard_error: float
) -> None:
    """irrCAC 0.4.4 (the package of AgreeStat, K. L. Gwet's own), `CAC(table).gwet()`, to the digits that it prints."""
    assert float(tables.gwets_ac1(table(cells))) == pytest.approx(ac1, abs=1e-9)
    assert tables.ac1_standard_error(table(cells)) == pytest.approx(standard_error, abs=5e-9)


@given(FOUR_COUNTS)
def test_mcc_is_the_square_root_of_chi_square_over_n(cells: tuple[int, int, int, int]) -> None:
    tp, fp, fn, tn = cells
    assume((tp + fp) * (fn + tn) * (tp + fn) * (fp + tn))
    found = Table2x2(table(cells).reshape(2, 2), shift_zeros=False).test_nominal_association()
    assert float(tables.mcc(table(cells))) ** 2 * sum(cells) == pytest.approx(found.statistic, abs=1e-9)


@given(st.lists(FOUR_COUNTS, min_size=1, max_size=5))
def test_many_tables_at_once_give_what_one_by_one_gives(cells: list[tuple[int, int, int, int]]) -> None:
    for measure in (tables.f1, tables.mcc, tables.balanced_accuracy, tables.cohens_kappa, tables.gwets_ac1):
        at_once = measure(np.array(cells, dtype=float))
        one_by_one = [float(measure(table(one))) for one in cells]
        assert np.array_equal(at_once, one_by_one, equal_nan=True)


@pytest.mark.parametrize(
    ("measure", "cells"),
    [
        (tables.sensitivity, (0, 3, 0, 4)),
        (tables.specificity, (3, 0, 4, 0)),
        (tables.ppv, (0, 0, 3, 4)),
        (tables.npv, (3, 4, 0, 0)),
        (tables.balanced_accuracy, (0, 3, 0, 4)),
        (tables.f1, (0, 0, 0, 5)),
        (tables.mcc, (0, 0, 3, 5)),
        (tables.cohens_kappa, (5, 0, 0, 0)),
        (tables.gwets_ac1, (0, 0, 0, 0)),
        (tables.pabak, (0, 0, 0, 0)),
        (tables.positive_agreement, (0, 0, 0, 5)),
        (tables.negative_agreement, (5, 0, 0, 0)),
    ],
)
def test_a_measure_without_a_denominator_is_undefined_and_never_zero(
    measure: tables.Statistic, cells: tuple[float, ...]
) -> None:
    assert np.isnan(measure(table(cells)))


@given(FOUR_COUNTS)
def test_agreement_beyond_chance_lies_between_minus_one_and_one(cells: tuple[int, int, int, int]) -> None:
    for measure in (tables.mcc, tables.cohens_kappa, tables.pabak, tables.gwets_ac1):
        value = float(measure(table(cells)))
        assert np.isnan(value) or -1 - 1e-9 <= value <= 1 + 1e-9

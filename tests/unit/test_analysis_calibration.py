"""Promises of `analysis.calibration` and `analysis.failures`."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_cohorts import Rates, draw_cohort, make_row
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from narrun_async.analysis.calibration import bin_numbers, calibrate
from narrun_async.analysis.cohort import CohortTable, manual_flags
from narrun_async.analysis.evaluation_tree import Calibration, FailuresByLength
from narrun_async.analysis.failures import _p_trend, failures_by_length
from narrun_async.models import CohortRow


def calibrated(rows: list[CohortRow]) -> Calibration:
    return calibrate(CohortTable.build(rows, manual_flags(rows)))


def failures(rows: list[CohortRow]) -> FailuresByLength:
    return failures_by_length(CohortTable.build(rows, manual_flags(rows)))


@pytest.fixture(scope="module")
def rows() -> list[CohortRow]:
    return list(draw_cohort(Rates(n_incidents=250, prevalence=0.3, failed=0.05), seed=8))


@pytest.fixture(scope="module")
def arrays(rows: list[CohortRow]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, P(yes), confidence of the evaluated narratives."""
    answered = [row for row in rows if row.detected is not None]
    label = np.array([row.manual_flag_ind for row in answered])
    confidence = np.array([row.confidence for row in answered], dtype=float)
    return label, np.where([row.detected == 1 for row in answered], confidence, 1 - confidence), confidence


def test_brier_score_and_precision_recall_equal_those_of_scikit_learn(
    rows: list[CohortRow], arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    label, p_yes, _ = arrays
    found = calibrated(rows)
    assert found.brier.value == pytest.approx(sk.brier_score_loss(label, p_yes), abs=1e-9)
    assert found.average_precision.value == pytest.approx(sk.average_precision_score(label, p_yes), abs=1e-9)
    precision, recall, thresholds = sk.precision_recall_curve(label, p_yes)
    at = dict(zip(thresholds, zip(precision, recall, strict=False), strict=False))
    for point in found.curve:
        assert at[point.threshold] == pytest.approx((point.precision, point.recall), abs=1e-9)


def test_the_reliability_table_is_the_calibration_curve_of_scikit_learn(
    rows: list[CohortRow], arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    label, p_yes, confidence = arrays
    is_right = ((p_yes == confidence) == (label == 1)).astype(int)
    # scikit-learn's bins are open on the other side, so values on an edge are moved a little
    expected_right, expected_mean = calibration_curve(is_right, np.clip(confidence + 1e-9, 0, 1), n_bins=10)
    filled = [one for one in calibrated(rows).bins if one.mean_confidence is not None]
    assert [one.right.value for one in filled] == pytest.approx(list(expected_right), abs=1e-9)
    assert [one.mean_confidence for one in filled] == pytest.approx(list(expected_mean), abs=1e-8)
    assert sum(one.n_answers for one in filled) == confidence.size


def test_it_is_briers_own_example_of_certain_and_of_useless_forecasts() -> None:
    """G. W. Brier (1950): perfect forecasts score 0, and saying a half always scores a half of 0.5, counted once."""
    certain = [make_row(f"c{n}", detected=n % 2, label=n % 2, confidence=1.0) for n in range(10)]
    useless = [make_row(f"c{n}", detected=1, label=n % 2, confidence=0.5) for n in range(10)]
    assert calibrated(certain).brier.value == 0
    assert calibrated(useless).brier.value == pytest.approx(0.25)


def test_the_interval_of_the_brier_score_is_that_of_a_mean_of_independent_incidents() -> None:
    rows = [make_row(f"c{n}", detected=1, label=int(n % 3 == 0), confidence=0.5 + n / 100) for n in range(40)]
    found = calibrated(rows).brier
    scores = np.array([(0.5 + n / 100 - (n % 3 == 0)) ** 2 for n in range(40)])
    reach = stats.norm.ppf(0.975) * scores.std() / np.sqrt(40)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (scores.mean() - reach, scores.mean() + reach), abs=1e-9
    )


def test_confidence_on_an_edge_belongs_to_the_bin_above_and_one_to_the_last() -> None:
    edges = np.array([0.0, 0.05, 0.1, 0.3, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
    assert bin_numbers(edges).tolist() == [0, 0, 1, 3, 6, 7, 8, 9, 9, 9]


def test_answers_without_confidence_are_counted_and_left_out() -> None:
    rows = [make_row("a", detected=1, label=1), make_row("b", detected=1, label=1, confidence=0.9)]
    found = calibrated(rows)
    assert (found.n_without_confidence, found.right.denominator) == (1, 1)


# --- failures --------------------------------------------------------------------------------------------------------


def test_failures_are_told_by_tenths_of_the_length_and_their_trend_is_tested() -> None:
    rows = [make_row(f"c{n}", detected=0, error="x" if n % 10 < n // 100 else None, text_chars=n) for n in range(1000)]
    found = failures(rows)
    assert [one.failed.denominator for one in found.bins] == [100] * 10
    assert [one.failed.numerator for one in found.bins] == [10 * tenth for tenth in range(10)]
    assert (found.bins[0].shortest, found.bins[-1].longest) == (0, 999)
    assert found.p_trend is not None and found.p_trend < 1e-9


def test_the_trend_test_is_agrestis_worked_example() -> None:
    """A. Agresti, Categorical Data Analysis (2002), table 5.3 and p. 182: alcohol and malformation, scores 0 to 4.

    Of 17,114, 14,502, 793, 126 and 37 mothers 48, 38, 5, 1 and 1 had a malformed child: z² = 1.83, p = 0.18 with
    equally spaced scores.
    """
    counts = [(17066, 48), (14464, 38), (788, 5), (126, 1), (37, 1)]
    numbers = np.repeat(np.arange(5), [sum(pair) for pair in counts])
    failed = np.concatenate([np.repeat([False, True], pair) for pair in counts])
    assert round(_p_trend(numbers, failed), 2) == 0.18


def test_texts_of_equal_length_stay_in_one_bin() -> None:
    rows = [make_row(f"c{n}", detected=0, text_chars=500 if n < 90 else 600) for n in range(100)]
    found = failures(rows)
    assert [(one.shortest, one.longest) for one in found.bins] == [(500, 500), (600, 600)]
    assert (found.p_trend, found.remark) == (None, "no test for a trend: none failed")


def test_texts_that_are_gone_are_counted_and_nothing_is_claimed() -> None:
    found = failures([make_row(detected=0, text_chars=None)])
    assert (found.bins, found.n_without_length, found.p_trend) == ((), 1, None)
    assert found.remark

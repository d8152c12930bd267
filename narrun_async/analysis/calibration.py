"""Owns whether the stated confidence is deserved: reliability by tenths, Brier score, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve

from narrun_async.analysis.cohort import CohortTable
from narrun_async.analysis.evaluation_tree import Calibration, CalibrationBin, PrecisionRecallPoint
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.samples import Bools, Floats, Ints, Sample
from narrun_async.analysis.values import Interval, Measure, Method, Z

N_BINS = 10
#: a curve is drawn, not tabulated
MAX_POINTS = 200


def calibrate(table: CohortTable) -> Calibration:
    """Over narratives that have an answer with a confidence.

    Confidence is read as that in the answer given, yes or no, so P(yes) = confidence of a yes, 1 - confidence of a no.
    """
    units = table.narratives()
    has_confidence = units.is_answered & np.isfinite(table.confidence)
    chosen = has_confidence & units.is_evaluated
    pairs, confidence = units.pairs(chosen), table.confidence[chosen]
    right = pairs.sample(pairs.first == pairs.second)
    p_yes = np.where(pairs.first, confidence, 1 - confidence)
    return Calibration(
        n_without_confidence=int((units.is_answered & ~has_confidence).sum()),
        mean_confidence=float(np.average(confidence, weights=right.weights)) if right.n_units else None,
        right=proportion(right, empty="undefined: no answer with a confidence has a label"),
        bins=_bins(table.confidence[has_confidence], confidence, right),
        brier=_brier(pairs.second, p_yes, right),
        brier_of_base_rate=_brier_of_base_rate(pairs.second, right.weights),
        average_precision=_average_precision(pairs.second, p_yes, right.weights),
        curve=_curve(pairs.second, p_yes, right.weights),
    )


def bin_numbers(confidence: Floats) -> Ints:
    """Tenths: [0, 0.1) is 0, [0.9, 1] is 9."""
    edges = np.arange(1, N_BINS) / N_BINS
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


def _bins(all_confidence: Floats, confidence: Floats, right: Sample) -> tuple[CalibrationBin, ...]:
    n_answers = np.bincount(bin_numbers(all_confidence), minlength=N_BINS)
    numbers = bin_numbers(confidence)
    bins = []
    for number in range(N_BINS):
        within = numbers == number
        is_empty = not within.any()
        bins.append(
            CalibrationBin(
                low=number / N_BINS,
                high=(number + 1) / N_BINS,
                n_answers=int(n_answers[number]),
                mean_confidence=(
                    None if is_empty else float(np.average(confidence[within], weights=right.weights[within]))
                ),
                right=proportion(right[within], empty="undefined: no evaluated answer has such a confidence"),
            )
        )
    return tuple(bins)


def _brier(label: Bools, p_yes: Floats, right: Sample) -> Measure:
    """G. W. Brier, Monthly Weather Review 78 (1950) 1-3, one class counted; the interval is clustered by incident."""
    if not label.size:
        return Measure(value=None, remark="undefined: no answer with a confidence has a label")
    value = float(brier_score_loss(label, p_yes, sample_weight=right.weights, labels=[False, True], pos_label=True))
    _, codes = np.unique(right.clusters, return_inverse=True)
    residuals = np.bincount(codes, weights=right.weights * (np.square(p_yes - label) - value))
    reach = Z * float(np.sqrt(np.square(residuals).sum())) / float(right.weights.sum())
    if reach <= 0:
        return Measure(value=value, remark="no interval: nothing varies")
    return Measure(
        value=value, interval=Interval(low=max(0.0, value - reach), high=min(1.0, value + reach), method=Method.NORMAL)
    )


def _brier_of_base_rate(label: Bools, weights: Floats) -> float | None:
    if not label.size:
        return None
    rate = float(np.average(label, weights=weights))
    return rate * (1 - rate)


def _average_precision(label: Bools, p_yes: Floats, weights: Floats) -> Measure:
    if not label.any():
        return Measure(value=None, remark="undefined: no answer with a confidence has a positive label")
    return Measure(value=float(average_precision_score(label, p_yes, sample_weight=weights)))


def _curve(label: Bools, p_yes: Floats, weights: Floats) -> tuple[PrecisionRecallPoint, ...]:
    if not label.any():
        return ()
    precision, recall, thresholds = precision_recall_curve(label, p_yes, sample_weight=weights, drop_intermediate=True)
    points = [
        PrecisionRecallPoint(threshold=float(threshold), precision=float(one), recall=float(other))
        for threshold, one, other in zip(thresholds, precision, recall, strict=False)
    ]
    return tuple(_thinned(points))


def _thinned(points: Sequence[PrecisionRecallPoint]) -> Sequence[PrecisionRecallPoint]:
    if len(points) <= MAX_POINTS:
        return points
    kept = np.unique(np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int))
    return [points[number] for number in kept]

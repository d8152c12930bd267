"""Promises of `metrics`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.metrics import ConfusionCounts, Metrics, compute_metrics

COUNT = st.integers(0, 10**6)


def test_the_predecessors_best_configuration_gives_its_published_figures() -> None:
    metrics = compute_metrics(ConfusionCounts(tp=42, fp=14, fn=6, tn=342))
    assert metrics.precision is not None and metrics.recall is not None and metrics.f1 is not None
    assert (round(metrics.precision, 3), round(metrics.recall, 3), round(metrics.f1, 3)) == (0.750, 0.875, 0.808)
    assert metrics.accuracy == pytest.approx(384 / 404)
    assert metrics.pct_overlap_with_manual == pytest.approx(38400 / 404)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0, 0), (None, None, None, None, None)),
        ((0, 0, 0, 5), (1.0, None, None, None, 100.0)),
        ((0, 0, 5, 0), (0.0, None, 0.0, 0.0, 0.0)),
        ((0, 5, 0, 0), (0.0, 0.0, None, 0.0, 0.0)),
        ((5, 0, 0, 0), (1.0, 1.0, 1.0, 1.0, 100.0)),
    ],
)
def test_a_measure_without_a_denominator_is_unknown_not_zero(
    counts: tuple[int, int, int, int], expected: tuple[float | None, ...]
) -> None:
    tp, fp, fn, tn = counts
    accuracy, precision, recall, f1, overlap = expected
    assert compute_metrics(ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn)) == Metrics(
        accuracy=accuracy, precision=precision, recall=recall, f1=f1, pct_overlap_with_manual=overlap
    )


@given(COUNT, COUNT, COUNT, COUNT)
def test_f1_is_the_harmonic_mean_and_every_measure_stays_in_range(tp: int, fp: int, fn: int, tn: int) -> None:
    metrics = compute_metrics(ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn))
    if metrics.precision and metrics.recall:
        harmonic = 2 * metrics.precision * metrics.recall / (metrics.precision + metrics.recall)
        assert metrics.f1 == pytest.approx(harmonic)
    for fraction in (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1):
        assert fraction is None or 0 <= fraction <= 1


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ConfusionCounts(tp=1, fp=-1, fn=0, tn=0)


def test_unlabelled_rows_are_not_in_the_denominator() -> None:
    assert ConfusionCounts(tp=1, fp=2, fn=3, tn=4).n_labelled == 10

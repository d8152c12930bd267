"""Owns how the calls went over time: answers a second, calls in flight, latency; from the ledger of attempts alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from narrun_async.analysis.report_tree import Course, CourseBin, LatencyBin, RunStretch
from narrun_async.analysis.samples import Bools, Floats, Ints
from narrun_async.models import CallRecord

#: what a curve of a page's width can show
MAX_BINS = 60
#: fewer calls than this in a bin make a curve of noise
_CALLS_PER_BIN = 5
N_LATENCY_BINS = 24
#: the ledger writes moments down to this
_CLOCK_S = 0.001


def describe_course(calls: Sequence[CallRecord]) -> Course | None:
    """Put the lives of an experiment end to end, leaving out the time between them; None where there was no call."""
    if not calls:
        return None
    runs, start, duration = _working_time(calls)
    answered = np.array([call.error_category is None for call in calls], dtype=bool)
    working_s = runs[-1].end_s
    latencies = duration[answered]
    return Course(
        n_calls=len(calls),
        n_failed=int((~answered).sum()),
        latency_median_s=_quantile(latencies, 0.5),
        latency_p95_s=_quantile(latencies, 0.95),
        latency_max_s=_quantile(latencies, 1.0),
        peak_in_flight=_peak(start, start + duration),
        working_s=working_s,
        bins=_bins(start, duration, answered, working_s),
        runs=runs,
        latencies=_latency_bins(latencies),
    )


def _working_time(calls: Sequence[CallRecord]) -> tuple[tuple[RunStretch, ...], Floats, Floats]:
    """The runs in working time, and for each call when it began in it and how long it took."""
    run_ids = np.array([call.run_id for call in calls], dtype=np.int64)
    duration = np.array([max(0.0, call.duration_s) for call in calls], dtype=float)
    start = np.array([call.started_at.timestamp() for call in calls], dtype=float)
    stretches: list[RunStretch] = []
    begun_s = 0.0
    for run_id in np.unique(run_ids):
        of_run = run_ids == run_id
        first, last = float(start[of_run].min()), float((start + duration)[of_run].max())
        start[of_run] += begun_s - first
        ended_s = begun_s + (last - first)
        stretches.append(RunStretch(run_id=int(run_id), start_s=begun_s, end_s=ended_s, n_calls=int(of_run.sum())))
        begun_s = ended_s
    return tuple(stretches), start, duration


def _bins(start: Floats, duration: Floats, answered: Bools, working_s: float) -> tuple[CourseBin, ...]:
    if working_s <= 0:
        return ()
    n_bins = min(MAX_BINS, max(1, len(start) // _CALLS_PER_BIN))
    edges = np.linspace(0, working_s, n_bins + 1)
    width = working_s / n_bins
    end = start + duration
    numbers = np.clip((end / width).astype(np.int64), 0, n_bins - 1)
    n_answers = np.bincount(numbers[answered], minlength=n_bins)
    n_failures = np.bincount(numbers[~answered], minlength=n_bins)
    # seconds that calls had spent in flight until each edge
    spent = np.array([np.clip(edge - start, 0, duration).sum() for edge in edges])
    in_flight = np.diff(spent) / width
    latencies = _by_bin(duration[answered], numbers[answered], n_bins)
    return tuple(
        CourseBin(
            start_s=float(edges[number]),
            end_s=float(edges[number + 1]),
            answers_per_s=float(n_answers[number] / width),
            failures_per_s=float(n_failures[number] / width),
            in_flight=float(in_flight[number]),
            latency_median_s=_quantile(latencies[number], 0.5),
            latency_p95_s=_quantile(latencies[number], 0.95),
        )
        for number in range(n_bins)
    )


def _by_bin(values: Floats, numbers: Ints, n_bins: int) -> list[Floats]:
    order = np.argsort(numbers, kind="stable")
    return np.split(values[order], np.searchsorted(numbers[order], np.arange(1, n_bins)))


def _peak(start: Floats, end: Floats) -> int:
    """Most calls in flight at once.

    A call that begins within a millisecond of another's end, which is how exactly beginnings are known, is not beside
    it.
    """
    moments = np.concatenate([end, np.minimum(start + _CLOCK_S, end)])
    steps = np.concatenate([np.full(end.size, -1), np.full(start.size, 1)])
    return max(1, int(np.cumsum(steps[np.argsort(moments, kind="stable")]).max()))


def _quantile(values: Floats, share: float) -> float | None:
    return float(np.quantile(values, share)) if values.size else None


def _latency_bins(latencies: Floats) -> tuple[LatencyBin, ...]:
    """Evenly spaced on a logarithmic scale, because latencies have long tails."""
    positive = latencies[latencies > 0]
    if not positive.size:
        return ()
    low, high = float(positive.min()), float(positive.max())
    if high <= low * 1.0001:
        return (LatencyBin(low_s=low * 0.9, high_s=high * 1.1, n_calls=int(positive.size)),)
    edges = np.geomspace(low, high, N_LATENCY_BINS + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(positive, bins=edges)
    return tuple(
        LatencyBin(low_s=float(edges[number]), high_s=float(edges[number + 1]), n_calls=int(count))
        for number, count in enumerate(counts)
    )

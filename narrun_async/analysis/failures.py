"""Owns whether errors fall on texts of any length alike; if not, what is missing is not missing at random."""

from __future__ import annotations

import numpy as np
from statsmodels.stats.contingency_tables import Table

from narrun_async.analysis.cohort import CohortTable, State
from narrun_async.analysis.evaluation_tree import FailuresByLength, LengthBin
from narrun_async.analysis.proportions import proportion
from narrun_async.analysis.samples import Bools, Ints, Sample

N_BINS = 10


def failures_by_length(table: CohortTable) -> FailuresByLength:
    """Errors among answers and errors, by tenths of the length of the text; equal lengths stay together."""
    was_asked = (table.state == State.ANSWERED) | (table.state == State.ERROR)
    chosen = was_asked & (table.chars >= 0)
    chars, failed = table.chars[chosen], table.state[chosen] == State.ERROR
    n_without_length = int((was_asked & (table.chars < 0)).sum())
    if not chars.size:
        remark = "no narrative that was answered or failed has its text any more" if n_without_length else "nothing yet"
        return FailuresByLength(bins=(), p_trend=None, n_without_length=n_without_length, remark=remark)
    numbers = bins_by_length(chars)
    sample = Sample(hits=failed, weights=np.ones(chars.size), clusters=table.incident[chosen])
    bins = []
    for number in np.unique(numbers):
        within = numbers == number
        bins.append(
            LengthBin(
                shortest=int(chars[within].min()),
                longest=int(chars[within].max()),
                failed=proportion(sample[within], empty=""),
            )
        )
    p_trend, remark = None, "no test for a trend: "
    if not failed.any() or failed.all():
        remark += "none failed" if not failed.any() else "all failed"
    elif len(bins) == 1:
        remark += "all texts are of one length"
    else:
        p_trend, remark = _p_trend(numbers, failed), ""
    return FailuresByLength(bins=tuple(bins), p_trend=p_trend, n_without_length=n_without_length, remark=remark)


def bins_by_length(chars: Ints) -> Ints:
    """A number from 0 for each text, longer ones higher; fewer bins where lengths repeat."""
    edges = np.unique(np.quantile(chars, np.arange(1, N_BINS) / N_BINS))
    return np.searchsorted(edges, chars, side="left").astype(np.int64)


def _p_trend(numbers: Ints, failed: Bools) -> float:
    """P. Armitage, Biometrics 11 (1955) 375-386, scored by the number of the bin."""
    _, rows = np.unique(numbers, return_inverse=True)
    counts = np.bincount(rows * 2 + failed, minlength=2 * (int(rows.max()) + 1)).reshape(-1, 2)
    return float(Table(counts, shift_zeros=False).test_ordinal_association().pvalue)

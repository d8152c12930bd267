"""Owns what choosing the best of many does by itself."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from narrun_async.analysis import tables
from narrun_async.analysis.comparison_tree import Luck
from narrun_async.analysis.resampling import Resamples
from narrun_async.analysis.samples import Floats, cells_of_number


def best_of_equals(n: int) -> float:
    """How many standard deviations above their mean the best of `n` equally good ones lies on average.

    The expected largest of n independent standard normal values: L. H. C. Tippett, Biometrika 17 (1925) 364-387.
    """
    if n < 2:
        return 0.0
    found, _ = quad(lambda x: x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), -12, 12)
    return float(found)


def assess_luck(resamples: Resamples, n_contenders: int, n_configurations: int) -> Luck | None:
    """From how F1 of one configuration moves against the mean of all when the same cases are drawn again.

    If all were equally good and moved by themselves with that spread, the best would lie `best_of_equals` spreads above
    the mean. On choosing after looking: G. C. Cawley, N. L. C. Talbot, J. Mach. Learn. Res. 11 (2010) 2079-2107.
    """

    def f1_of_all(sums: Floats) -> Floats:
        return np.stack([tables.f1(sums[..., cells_of_number(number)]) for number in range(n_contenders)], axis=-1)

    observed, drawn = f1_of_all(resamples.observed), f1_of_all(resamples.drawn)
    drawn = drawn[np.isfinite(drawn).all(axis=-1)]
    if not np.isfinite(observed).all() or len(drawn) < 2:
        return None
    apart = drawn - drawn.mean(axis=-1, keepdims=True)
    spread = float(np.sqrt(apart.var(axis=0).mean() * n_contenders / (n_contenders - 1)))
    return Luck(
        n_configurations=n_configurations,
        spread=spread,
        expected_lead=spread * best_of_equals(n_configurations),
        observed_lead=float(observed.max() - observed.mean()),
    )

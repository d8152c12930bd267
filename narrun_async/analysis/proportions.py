"""Owns proportions and their intervals, for units that are independent, and for those that are not."""

from __future__ import annotations

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from narrun_async.analysis.samples import Floats, Sample
from narrun_async.analysis.values import CONFIDENCE, Interval, Measure, Method, Share


def proportion(sample: Sample, *, empty: str) -> Measure:
    """The share of units that have the property.

    :param empty: what to say where there are no units
    """
    total = float(sample.weights.sum())
    if not sample.n_units or not total:
        return Measure(value=None, numerator=0.0, denominator=0.0, remark=empty)
    hits = float(sample.weights[sample.hits].sum())
    value = hits / total
    return Measure(
        value=value,
        numerator=hits,
        denominator=total,
        interval=(
            wilson_interval(value, effective_size(sample.apart), method=Method.WILSON_EFFECTIVE)
            if sample.is_weighted
            else wilson_interval(value, sample.n_units, method=Method.WILSON)
        ),
        clustered=(
            wilson_interval(value, effective_size(sample), method=Method.WILSON_EFFECTIVE)
            if sample.has_repeats
            else None
        ),
    )


def share(sample: Sample) -> Share | None:
    """The same for formulas that carry its uncertainty on; None where there are no units."""
    if not sample.n_units or not sample.weights.sum():
        return None
    value = float(np.average(sample.hits, weights=sample.weights))
    return Share(value=value, n_effective=effective_size(sample))


def wilson_interval(value: float, n: float, *, method: Method) -> Interval:
    """E. B. Wilson, JASA 22 (1927) 209-212, as statsmodels has it; `n` need not be whole."""
    low, high = proportion_confint(value * n, n, alpha=1 - CONFIDENCE, method="wilson")
    return Interval(low=float(low), high=float(high), method=method)


def kish_size(weights: Floats) -> float:
    """How many units of equal weight would tell as much: (Σw)² / Σw².

    L. Kish, Survey Sampling (1965), §11.7. With equal weights it is their number.
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def effective_size(sample: Sample) -> float:
    """How many independent units of equal weight would leave the proportion as uncertain as these leave it.

    p(1 - p) over the variance of the ratio estimator between incidents, Σ_c (Σ_{i in c} w_i (x_i - p))² / (Σw)²:
    J. N. K. Rao, A. J. Scott, Biometrics 48 (1992) 577-585, without their factor m / (m - 1), so that independent units
    of equal weight count fully; used in Wilson's interval as E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998)
    193-201 use it in the exact one. Never more than `kish_size`: that narratives of an incident happen to differ is
    no gain. Where all units are alike nothing can be seen of their likeness, and an incident counts as one.
    """
    _, codes = np.unique(sample.clusters, return_inverse=True)
    total = float(sample.weights.sum())
    value = float(np.average(sample.hits, weights=sample.weights))
    residuals = np.bincount(codes, weights=sample.weights * (sample.hits - value))
    variance = float(np.square(residuals).sum()) / total**2
    if 0 < value < 1 and variance > 0:
        return min(value * (1 - value) / variance, kish_size(sample.weights))
    return kish_size(np.bincount(codes, weights=sample.weights).astype(np.float64))

"""Numbers from numbers: agreement with manual labels, and estimates from a sample. Pure."""

from narrun_async.metrics.agreement import ConfusionCounts, Metrics, compute_metrics
from narrun_async.metrics.estimates import Estimate, Range, SampledCall, extrapolate, spread_evenly

__all__ = [
    "ConfusionCounts",
    "Estimate",
    "Metrics",
    "Range",
    "SampledCall",
    "compute_metrics",
    "extrapolate",
    "spread_evenly",
]

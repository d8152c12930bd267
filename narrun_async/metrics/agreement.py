"""Measures of agreement with the manual labels, from counts. Pure: it counts nothing itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCounts:
    """Labelled rows with a usable answer, by answer and label. Unlabelled rows and error rows are in none of them."""

    #: detected, and labelled positive
    tp: int
    #: detected, but labelled negative
    fp: int
    #: not detected, but labelled positive
    fn: int
    #: not detected, and labelled negative
    tn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.fn, self.tn) < 0:
            raise ValueError("a count cannot be negative")

    @property
    def n_labelled(self) -> int:
        return self.tp + self.fp + self.fn + self.tn


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Fractions of 1, except where the name says percent; None where the denominator is zero."""

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    #: 0 to 100
    pct_overlap_with_manual: float | None


def compute_metrics(counts: ConfusionCounts) -> Metrics:
    """The measures of the predecessor's tables, with accuracy over labelled rows only.

    accuracy = (TP + TN) / (TP + FP + FN + TN); precision = TP / (TP + FP); recall = TP / (TP + FN);
    F1 = 2 TP / (2 TP + FP + FN), the harmonic mean of the two, which is also defined where just one of them is.
    pct_overlap_with_manual = 100 × share of labelled rows on which answer and label agree.
    Source: C. D. Manning, P. Raghavan, H. Schütze, Introduction to Information Retrieval (2008), §8.3.
    """
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    return Metrics(
        accuracy=_ratio(tp + tn, counts.n_labelled),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        pct_overlap_with_manual=_ratio(100 * (tp + tn), counts.n_labelled),
    )


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None

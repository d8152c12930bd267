"""Owns how measures are put into words: every number with its denominator and its interval, or why there is none."""

from __future__ import annotations

from narrun_async.analysis.values import Confusion, Interval, Measure, Method

_BOOTSTRAPS = frozenset({Method.BCA, Method.PERCENTILES})


def count_text(count: float) -> str:
    """A count, or a sum of weights with one decimal place."""
    return f"{count:,.0f}" if count == int(count) else f"{count:,.1f}"


def fraction_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def percent_of(value: float | None) -> str:
    """A share as a percentage with two decimal places: rates here are small."""
    return "undefined" if value is None else f"{100 * value:.2f} %"


def parts_text(measure: Measure) -> str:
    """`42 of 48`; empty for what is no ratio of counts."""
    if measure.numerator is None or measure.denominator is None:
        return ""
    return f"{count_text(measure.numerator)} of {count_text(measure.denominator)}"


def interval_text(interval: Interval | None) -> str:
    """`0.753 to 0.941`, with a `b` where it is the bootstrap's; a dash where there is none."""
    if interval is None:
        return "-"
    mark = " b" if interval.method in _BOOTSTRAPS else ""
    return f"{interval.low:.3f} to {interval.high:.3f}{mark}"


def brief_text(measure: Measure) -> str:
    """`0.875 (0.753-0.941)`: the value and the interval that allows for clusters, for tables."""
    interval = measure.best_interval
    if measure.value is None or interval is None:
        return fraction_text(measure.value)
    return f"{measure.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def percent_interval_text(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"


def table_rows(table: Confusion, *, first: str, second: str) -> list[tuple[str, ...]]:
    """A 2×2 table with its margins.

    :param first: who says what a row stands for
    :param second: who says what a column stands for
    """
    tp, fp, fn, tn = table.tp, table.fp, table.fn, table.tn
    return [
        ("", f"{second} yes", f"{second} no", "all"),
        (f"{first} yes", *map(count_text, (tp, fp, tp + fp))),
        (f"{first} no", *map(count_text, (fn, tn, fn + tn))),
        ("all", *map(count_text, (tp + fn, fp + tn, tp + fp + fn + tn))),
    ]


def p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"

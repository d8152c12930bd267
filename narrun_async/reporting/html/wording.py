"""Owns how numbers and levels are put into words on the page: shares as percentages, every one with its interval."""

from __future__ import annotations

from collections.abc import Mapping

from narrun_async.analysis.evaluation_tree import Level
from narrun_async.analysis.report_tree import YearGroup
from narrun_async.analysis.values import Confusion, Interval, Measure, Method
from narrun_async.reporting.html.blocks import CrossCell, CrossTable
from narrun_async.reporting.html.charts import Point
from narrun_async.reporting.measure_text import count_text, fraction_text, percent_of
from narrun_async.reporting.wording import printable

DASH = "–"

LEVEL_NAMES: Mapping[Level, str] = {
    Level.NARRATIVES: "narratives",
    Level.CME: "narratives by coroners or medical examiners (CME)",
    Level.LE: "narratives by law enforcement (LE)",
    Level.INCIDENTS: "incidents (yes if any of their narratives is)",
    Level.INCIDENTS_WITH_BOTH: "incidents with both narratives answered",
}
SHORT_NAMES: Mapping[Level, str] = {
    Level.NARRATIVES: "narratives",
    Level.CME: "CME narratives",
    Level.LE: "LE narratives",
    Level.INCIDENTS: "incidents",
    Level.INCIDENTS_WITH_BOTH: "incidents with both",
}
_KIND_NAMES: Mapping[str, str] = {"cme": "CME", "le": "LE", "incidents": "incidents"}

PERFORMANCE: Mapping[str, tuple[str, str]] = {
    "sensitivity": ("Sensitivity (recall)", "of those labelled yes, share detected"),
    "specificity": ("Specificity", "of those labelled no, share not detected"),
    "ppv": ("PPV (precision)", "of those detected, share labelled yes"),
    "npv": ("NPV", "of those not detected, share labelled no"),
    "balanced_accuracy": ("Balanced accuracy", "mean of sensitivity and specificity"),
    "f1": ("F1", "sensitivity and PPV in one number"),
    "mcc": ("MCC", "correlation of answer and label, -1 to 1"),
}
AGREEMENT: Mapping[str, str] = {
    "observed": "Raw agreement",
    "kappa": "Cohen's kappa",
    "pabak": "PABAK",
    "ac1": "Gwet's AC1",
    "positive": "Agreement on yes",
    "negative": "Agreement on no",
}

_METHODS: Mapping[Method, str] = {
    Method.WILSON: "Wilson's",
    Method.WILSON_EFFECTIVE: "Wilson's with the effective number of units",
    Method.BCA: "that of a bias-corrected and accelerated bootstrap of incidents",
    Method.PERCENTILES: "that of a bootstrap of incidents",
    Method.NORMAL: "that of a normal distribution",
    Method.LANG_REICZIGEL: "that of Lang and Reiczigel",
    Method.MOVER: "that of Zou and Donner",
    Method.LOGIT: "that of a normal distribution on the logit scale",
}


def kind_name(kind: str) -> str:
    """How a kind of narrative is called; a database of the predecessor may hold others than ours."""
    return _KIND_NAMES.get(kind, kind)


def method_name(interval: Interval) -> str:
    """Whose it is, as the end of a sentence."""
    return _METHODS[interval.method]


def count(number: float) -> str:
    return count_text(number)


def capital(text: str) -> str:
    """As at the beginning of a sentence; the rest stays as it is."""
    return f"{text[:1].upper()}{text[1:]}"


def clean(text: str) -> str:
    """On one line and without control characters: what comes from files may hold anything."""
    return printable(" ".join(text.split()))


def clean_lines(text: str) -> str:
    """The same with its lines and tabs kept."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def plural(number: int, one: str, many: str = "") -> str:
    """`1 narrative`, `2 narratives`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent_interval(interval: Interval | None) -> str:
    return DASH if interval is None else f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"


def fraction_interval(interval: Interval | None) -> str:
    return DASH if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def share_words(measure: Measure) -> str:
    """`18.24 % (95 % interval 15.36 to 21.53 %)`."""
    interval = measure.best_interval
    if measure.value is None or interval is None:
        return percent_of(measure.value)
    return f"{percent_of(measure.value)} (95 % interval {percent_interval(interval)})"


def fraction_words(measure: Measure) -> str:
    """`0.875 (0.753 to 0.941)`."""
    interval = measure.best_interval
    if measure.value is None or interval is None:
        return fraction_text(measure.value)
    return f"{measure.value:.3f} ({fraction_interval(interval)})"


def reason(measure: Measure) -> str:
    """Why there is no value, as the end of a sentence."""
    return measure.remark.removeprefix("undefined: ")


def parts(measure: Measure) -> str:
    """`42 of 48`; a dash for what is no ratio of counts."""
    if measure.numerator is None or measure.denominator is None:
        return DASH
    return f"{count(measure.numerator)} of {count(measure.denominator)}"


def as_point(measure: Measure) -> Point:
    if measure.value is None:
        return Point(value=None)
    interval, value = measure.best_interval, on_paper(measure.value)
    if interval is None:
        return Point(value=value)
    return Point(value=value, low=on_paper(interval.low), high=on_paper(interval.high))


def on_paper(value: float) -> float:
    """As exactly as a drawing needs it, so that sums in another order draw the same."""
    return round(value, 6)


def years_text(group: YearGroup) -> str:
    """`2016`, `2015–2017`, `2015–2017 or unknown`, `unknown`."""
    if not group.years:
        return "unknown"
    first, last = group.years[0], group.years[-1]
    known = str(first) if first == last else f"{first}{DASH}{last}"
    return f"{known} or unknown" if group.has_unknown else known


def cross_table(
    table: Confusion, *, caption: str, first: str, second: str, meanings: tuple[str, str, str, str]
) -> CrossTable:
    """A 2×2 table; `meanings` in the order yes/yes, yes/no, no/yes, no/no."""
    counts = (table.tp, table.fp, table.fn, table.tn)
    cells = [
        CrossCell(count=count(number), meaning=meaning, is_agreement=place in (0, 3))
        for place, (number, meaning) in enumerate(zip(counts, meanings, strict=True))
    ]
    tp, fp, fn, tn = counts
    margins = (tp + fp, fn + tn, tp + fn, fp + tn, tp + fp + fn + tn)
    return CrossTable(
        caption=caption,
        first=first,
        second=second,
        cells=(cells[0], cells[1], cells[2], cells[3]),
        margins=(
            count(margins[0]),
            count(margins[1]),
            count(margins[2]),
            count(margins[3]),
            count(margins[4]),
        ),
    )

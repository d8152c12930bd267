"""Draws the charts of a report as SVG that lives inside an HTML page.

Text stays text, colours are names that the page resolves (by day, by night, on paper), and the same chart gives the
same bytes. Settings of matplotlib are changed for the moment of drawing only; pyplot, which keeps figures, is not used.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never
from xml.etree.ElementTree import Element, tostring

import matplotlib as mpl
from defusedxml.ElementTree import fromstring
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from narrun_async.reporting.html.charts import (
    BarChart,
    Chart,
    ForestChart,
    HistogramChart,
    Ink,
    IntervalChart,
    Point,
    SquareChart,
    TimeChart,
)

#: of a drawing, in points; it is shown at this width on a small screen, so its text keeps its size there
WIDTH, HEIGHT = 400, 250
_FONT_SIZE = 11
_FONT = "DejaVu Sans"
#: a line of lying bars or of a forest
_LINE_HEIGHT, _FRAME_HEIGHT = 22, 60
_MOST_UPRIGHT_LABELS = 6

#: colours that stand for names of the page; no drawing has others
_INKS = {Ink.FIRST: "#010101", Ink.SECOND: "#020202", Ink.MUTED: "#030303", Ink.BAD: "#040404"}
_TEXT, _RULE, _PAPER = "#050505", "#060606", "#070707"
_NAMES = {colour: f"var(--{ink.value})" for ink, colour in _INKS.items()} | {
    _TEXT: "var(--ink)",
    _RULE: "var(--rule)",
    _PAPER: "var(--paper)",
}
_MARKERS = ("o", "s", "D", "^")

_SETTINGS: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": _FONT,
    "font.size": _FONT_SIZE,
    # a dollar sign in a label is a dollar sign
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _TEXT,
    "axes.labelsize": _FONT_SIZE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "xtick.labelsize": _FONT_SIZE,
    "ytick.labelsize": _FONT_SIZE,
    "legend.frameon": False,
    "legend.fontsize": _FONT_SIZE,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
}


def draw(chart: Chart, *, name: str, title: str, description: str) -> str:
    """The chart as an `<svg>` element.

    :param name: unique on the page; ids within the drawing begin with it
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        # The page's fonts have what matplotlib's own lacks; it only measures with it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH / 72, _height(chart) / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _drawer(chart)(axes)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _as_part_of_a_page(written.getvalue(), name=name, title=title, description=description)


def _height(chart: Chart) -> float:
    if isinstance(chart, ForestChart):
        return _FRAME_HEIGHT + _LINE_HEIGHT * len(chart.rows)
    if isinstance(chart, BarChart) and chart.is_lying:
        return _FRAME_HEIGHT + (_LINE_HEIGHT if len(chart.series) > 1 else 0) + _LINE_HEIGHT * len(chart.labels)
    return HEIGHT


def _drawer(chart: Chart) -> Callable[[Axes], None]:
    match chart:
        case IntervalChart():
            return lambda axes: _draw_intervals(axes, chart)
        case ForestChart():
            return lambda axes: _draw_forest(axes, chart)
        case BarChart():
            return lambda axes: _draw_bars(axes, chart)
        case SquareChart():
            return lambda axes: _draw_square(axes, chart)
        case HistogramChart():
            return lambda axes: _draw_histogram(axes, chart)
        case TimeChart():
            return lambda axes: _draw_time(axes, chart)
        case _ as never:
            assert_never(never)


# --- kinds of chart --------------------------------------------------------------------------------------------------


def _draw_intervals(axes: Axes, chart: IntervalChart) -> None:
    n_series = len(chart.series)
    for number, series in enumerate(chart.series):
        shift = (number - (n_series - 1) / 2) * 0.18
        shown = [(place + shift, point) for place, point in enumerate(series.points) if point.value is not None]
        axes.errorbar(
            [place for place, _ in shown],
            [point.value or 0.0 for _, point in shown],
            yerr=_reaches([point for _, point in shown]),
            fmt=_MARKERS[number % len(_MARKERS)],
            color=_INKS[series.ink],
            markersize=5,
            elinewidth=1.4,
            label=series.name,
        )
    _label_categories(axes, chart.labels)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.set_ylim(bottom=0)
    _in_percent(axes.yaxis)
    axes.grid(visible=False, axis="x")
    _legend(axes, n_series)


def _reaches(points: Sequence[Point]) -> list[list[float]]:
    """How far intervals reach below and above their points; nowhere where there is none."""
    below = [max(0.0, (one.value or 0.0) - one.low) if one.low is not None else 0.0 for one in points]
    above = [max(0.0, one.high - (one.value or 0.0)) if one.high is not None else 0.0 for one in points]
    return [below, above]


def _draw_forest(axes: Axes, chart: ForestChart) -> None:
    places = range(len(chart.rows))
    for place, row in zip(places, chart.rows, strict=True):
        axes.errorbar(
            [row.point.value or 0.0],
            [place],
            xerr=_reaches([row.point]),
            fmt="o",
            color=_INKS[row.ink],
            markersize=6,
            elinewidth=1.6,
        )
    axes.set_yticks(list(places), [row.label for row in chart.rows])
    axes.set_ylim(max(1, len(chart.rows)) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(chart.x_title)
    _in_percent(axes.xaxis)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _draw_bars(axes: Axes, chart: BarChart) -> None:
    places = list(range(len(chart.labels)))
    filled = [0.0] * len(places)
    for series in chart.series:
        colour = _INKS[series.ink]
        if chart.is_lying:
            axes.barh(places, series.counts, left=filled, height=0.68, color=colour, label=series.name)
        else:
            axes.bar(places, series.counts, bottom=filled, width=0.78, color=colour, label=series.name)
        filled = [before + count for before, count in zip(filled, series.counts, strict=True)]
    if chart.is_lying:
        axes.set_yticks(places, list(chart.labels))
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlabel(chart.title_of_counts)
        axes.tick_params(axis="y", length=0)
        _in_whole_numbers(axes.xaxis)
        axes.grid(visible=False, axis="y")
    else:
        _label_categories(axes, chart.labels)
        axes.set_xlabel(chart.title_of_labels)
        axes.set_ylabel(chart.title_of_counts)
        _in_whole_numbers(axes.yaxis)
        axes.grid(visible=False, axis="x")
    _legend(axes, len(chart.series))


def _draw_square(axes: Axes, chart: SquareChart) -> None:
    if chart.has_diagonal:
        axes.plot([0, 1], [0, 1], linestyle=":", color=_INKS[Ink.MUTED], linewidth=1.4)
    if chart.level is not None:
        axes.axhline(chart.level, linestyle=":", color=_INKS[Ink.MUTED], linewidth=1.4, label=chart.level_name)
    x, y = [point.x for point in chart.points], [point.y for point in chart.points]
    if chart.is_line:
        axes.step(x, y, where="post", color=_INKS[Ink.FIRST])
    else:
        points = [Point(value=point.y, low=point.low, high=point.high) for point in chart.points]
        axes.errorbar(x, y, yerr=_reaches(points), fmt="o", color=_INKS[Ink.FIRST], markersize=5, elinewidth=1.4)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    _in_percent(axes.xaxis)
    _in_percent(axes.yaxis)


def _draw_histogram(axes: Axes, chart: HistogramChart) -> None:
    axes.stairs(chart.counts, chart.edges, fill=True, color=_INKS[Ink.FIRST])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_round_numbers(chart.edges[0], chart.edges[-1])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.set_ylim(bottom=0)
    _in_whole_numbers(axes.yaxis)
    axes.grid(visible=False, axis="x")


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; where that leaves few, other digits, and at last its ends."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), range(1, 10)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        apart = _far_apart(found, least=math.log10(high / low) / 8)
        if len(apart) >= 3:
            return apart
    return [float(f"{low:.2g}"), float(f"{high:.2g}")]


def _far_apart(numbers: Sequence[float], *, least: float) -> list[float]:
    """Of numbers in order, those that leave room for their labels on a logarithmic axis."""
    kept: list[float] = []
    for number in numbers:
        if not kept or math.log10(number / kept[-1]) >= least:
            kept.append(number)
    return kept


def _draw_time(axes: Axes, chart: TimeChart) -> None:
    for mark in chart.marks:
        axes.axvline(mark, color=_INKS[Ink.MUTED], linewidth=1, linestyle="--")
    for curve in chart.curves:
        values = [math.nan if value is None else value for value in curve.values]
        axes.stairs(values, chart.edges, baseline=None, color=_INKS[curve.ink], label=curve.name, linewidth=1.6)
    axes.set_xlim(chart.edges[0], chart.edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(visible=False, axis="x")
    _legend(axes, len(chart.curves))


# --- axes ------------------------------------------------------------------------------------------------------------


def _label_categories(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(list(range(len(labels))), list(labels))
    axes.set_xlim(-0.6, len(labels) - 0.4)
    if len(labels) > _MOST_UPRIGHT_LABELS:
        for label in axes.get_xticklabels():
            label.set_rotation(45)
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")


def _in_percent(axis: mpl.axis.Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=6))
    axis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))


def _in_whole_numbers(axis: mpl.axis.Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _legend(axes: Axes, n_series: int) -> None:
    if n_series > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_series, borderaxespad=0.2, handlelength=1.2)


# --- from a file to a part of a page ---------------------------------------------------------------------------------

_COLOUR = re.compile(r"#0[1-7]0[1-7]0[1-7]")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_WITH_REFERENCES = ("style", "clip-path")


def _as_part_of_a_page(svg: bytes, *, name: str, title: str, description: str) -> str:
    """Without namespaces, fixed colours, fixed fonts, sizes, and ids that other drawings may have, too."""
    root: Element = fromstring(svg)
    _drop(root, {"metadata", "style"})
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(attributes)
    referenced = set(_REFERENCE.findall(svg.decode())) | {one.attrib["href"][1:] for one in root.iter("use")}
    for element in root.iter():
        _make_own(element, name, referenced)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update({"role": "img", "class": "chart", "aria-labelledby": f"{name}-title {name}-desc"})
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        told = Element(tag, {"id": f"{name}-{tag}"})
        told.text = text
        root.insert(place, told)
    return tostring(root, encoding="unicode")


def _make_own(element: Element, name: str, referenced: set[str]) -> None:
    identity = element.attrib.pop("id", None)
    if identity is not None and identity in referenced:
        element.set("id", f"{name}-{identity}")
    if "href" in element.attrib:
        element.set("href", f"#{name}-{element.attrib['href'][1:]}")
    for key in _WITH_REFERENCES:
        if key in element.attrib:
            value = _REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", element.attrib[key])
            value = _COLOUR.sub(lambda found: _NAMES[found[0]], value)
            element.set(key, value.replace(f"'{_FONT}'", "var(--font)"))


def _drop(element: Element, tags: set[str]) -> None:
    for child in list(element):
        if _local(child.tag) in tags:
            element.remove(child)
        else:
            _drop(child, tags)


def _local(name: str) -> str:
    return name.rpartition("}")[2]

"""What the figures of a report show, as values: numbers with their labels, before anybody draws them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ink(StrEnum):
    """What a mark means; the page decides what colour that is, by day, by night and on paper."""

    FIRST = "first"
    SECOND = "second"
    MUTED = "muted"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A value with its interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One value for each label of an axis."""

    name: str
    ink: Ink
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalChart:
    """Shares with their intervals, side by side along an axis of categories."""

    labels: tuple[str, ...]
    series: tuple[Series, ...]
    x_title: str
    y_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One estimate on a line of its own."""

    label: str
    point: Point
    ink: Ink


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestChart:
    """Shares with their intervals, one below the other."""

    rows: tuple[ForestRow, ...]
    x_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BarSeries:
    """One count for each label of an axis."""

    name: str
    ink: Ink
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """Counts, stacked where there are several series; lying bars where the labels are long."""

    labels: tuple[str, ...]
    series: tuple[BarSeries, ...]
    title_of_labels: str
    title_of_counts: str
    is_lying: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPoint:
    """A point of a plane, with an interval upright where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareChart:
    """Shares against shares: what is stated against what is true, say."""

    points: tuple[PlacedPoint, ...]
    x_title: str
    y_title: str
    #: the line on which both are equal
    has_diagonal: bool = False
    #: points are the corners of a line of steps
    is_line: bool = False
    #: a level to compare with
    level: float | None = None
    level_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramChart:
    """Counts between edges that lie evenly on a logarithmic axis."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    x_title: str
    y_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One value for each stretch between two edges; None where there is none."""

    name: str
    ink: Ink
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeChart:
    """Curves over time, with marks where something began."""

    edges: tuple[float, ...]
    curves: tuple[Curve, ...]
    marks: tuple[float, ...]
    x_title: str
    y_title: str


Chart = IntervalChart | ForestChart | BarChart | SquareChart | HistogramChart | TimeChart

"""Owns how numbers, durations and names are put into words for people; pure, ASCII except for names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len

SIMULATED = "SIMULATED: the answers come from a keyword rule and mean nothing."

_HOUR_S = 3600
#: from here on hours alone say little
_DAYS_FROM_S = 100 * _HOUR_S


def clock_text(seconds: float) -> str:
    """A duration as `h:mm:ss`, from 100 hours on `N d h:mm:ss`; `unknown` for what is no duration."""
    if not math.isfinite(seconds):
        return "unknown"
    whole_s = max(0, round(seconds))
    days = 0
    if whole_s >= _DAYS_FROM_S:
        days, whole_s = divmod(whole_s, 24 * _HOUR_S)
    minutes, s = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{days} d ' if days else ''}{hours}:{minutes:02}:{s:02}"


def duration_text(seconds: float) -> str:
    """A duration in the unit that fits: `240 ms`, `7.3 s`, from a minute on `h:mm:ss`."""
    if not math.isfinite(seconds) or seconds >= 59.95:
        return clock_text(seconds)
    seconds = max(0.0, seconds)
    return f"{seconds:.1f} s" if seconds >= 0.9995 or seconds == 0 else f"{seconds * 1000:.0f} ms"


def rate_text(per_s: float) -> str:
    """Narratives over time: `42/s`, `4.2/s`, and when they are slower than one a second, `4.8 s per narrative`."""
    if per_s >= 1:
        return f"{per_s:,.0f}/s" if per_s >= 9.95 else f"{per_s:.1f}/s"
    return f"{duration_text(1 / per_s)} per narrative"


def short_count(count: int) -> str:
    """A large number in at most five characters: `999`, `1.2k`, `35k`, `1.2M`."""
    if count < 1000:
        return str(count)
    value, units = count / 1000, "kMGT"
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f}{units[0]}" if value < 9.95 else f"{value:,.0f}{units[0]}"


def percent_text(part: int, whole: int) -> str:
    """Rounded down, so that it says 100.0% only when nothing is left."""
    return f"{(1000 * part // whole) / 10:.1f}%" if whole > 0 else "100.0%"


def categories_text(counts: Mapping[str, int], *, at_most: int | None = None) -> str:
    """`timeout 2, refusal 1, and 3 more`: the most frequent first."""
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{printable(category)} {count:,}" for category, count in ranked[:at_most]]
    rest = sum(count for _, count in ranked[len(shown) :])
    return ", ".join([*shown, f"and {rest:,} more"] if rest else shown)


def printable(text: str) -> str:
    """On one line and without control characters: names come from files and may hold anything."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def aligned(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of equal length as lines with aligned columns, two blanks apart.

    :param right: columns that are flush right
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = []
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - cell_len(cell))
            padded.append(gap + cell if column in right else cell + gap)
        lines.append("  ".join(padded).rstrip())
    return lines

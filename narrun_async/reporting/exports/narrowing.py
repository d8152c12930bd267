"""Brings typed results into the bounds of a statistics format, and counts what did not fit, so that it can be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from narrun_async.codebook import Column, Kind
from narrun_async.reporting.exports.files import Remark, Tally, remarks_of
from narrun_async.reporting.exports.spool import Spool

#: of a text that was cut; the formats themselves have no sign for it
CUT_MARK = " [cut]"
#: larger whole numbers lose digits in the numbers of these formats
_LARGEST_EXACT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a format holds."""

    #: of one text; None: more than there ever is
    text_bytes: int | None
    #: of the title of the file
    title_bytes: int
    #: the smallest number beside zero, and the largest
    numbers: tuple[float, float]
    #: how a flag is held, and from where to where
    flag_type: type[pl.DataType]
    flags: range


class Narrowing:
    """One pass over a spool."""

    def __init__(self, spool: Spool, limits: Limits) -> None:
        self._spool = spool
        self._limits = limits
        self._n_cut: Tally = Counter()
        self._n_mended: Tally = Counter()
        self._n_lost: Tally = Counter()

    def iter_frames(self) -> Iterator[pl.DataFrame]:
        """The rows in order, part by part; a missing text is an empty one, for none of these formats has both."""
        for part in self._spool.iter_frames():
            yield pl.DataFrame([self._narrow(column, part[column.name]) for column in self._spool.columns])

    def remarks(self, format: str) -> Sequence[Remark]:
        """After the pass."""
        return [
            *self._spool.misfits(format),
            *remarks_of(format, self._n_lost, "beyond the numbers of the format, left out"),
            *remarks_of(format, self._n_mended, "a NUL character, replaced"),
            *remarks_of(format, self._n_cut, f"cut at {self._limits.text_bytes or 0:,} bytes"),
        ]

    def _narrow(self, column: Column, series: pl.Series) -> pl.Series:
        match column.kind:
            case Kind.NUMBER:
                smallest, largest = self._limits.numbers
                return self._keep(series, (series == 0) | series.abs().is_between(smallest, largest))
            case Kind.WHOLE:
                return self._keep(series, series.abs() <= _LARGEST_EXACT).cast(pl.Float64)
            case Kind.FLAG:
                flags = self._limits.flags
                return self._keep(series, series.is_between(flags[0], flags[-1])).cast(self._limits.flag_type)
            case _:
                return self._narrow_text(series.fill_null(""))

    def _keep(self, series: pl.Series, fits: pl.Series) -> pl.Series:
        kept = series.set(~fits, None)
        self._n_lost[series.name] += kept.null_count() - series.null_count()
        return kept

    def _narrow_text(self, series: pl.Series) -> pl.Series:
        with_nul = int(series.str.contains("\0", literal=True).sum())
        if with_nul:  # where a C program would see the end of the text
            self._n_mended[series.name] += with_nul
            series = series.str.replace_all("\0", "\ufffd", literal=True)
        limit = self._limits.text_bytes
        too_long = 0 if limit is None else int((series.str.len_bytes() > limit).sum())
        if limit is None or not too_long:
            return series
        self._n_cut[series.name] += too_long
        return pl.Series(series.name, [cut(text, limit, mark=CUT_MARK) for text in series], dtype=pl.String)


def cut(text: str, n_bytes: int, *, mark: str = "") -> str:
    """The text, or its beginning and the mark, in at most so many bytes and never in mid-character."""
    encoded = text.encode()
    if len(encoded) <= n_bytes:
        return text
    return encoded[: n_bytes - len(mark.encode())].decode("utf-8", "ignore") + mark

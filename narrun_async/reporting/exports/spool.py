"""Owns results as typed columns on their way into Parquet, Stata, SPSS and SAS files, in parts that lie on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from narrun_async.codebook import Column, Kind
from narrun_async.reporting.exports.files import Remark, Tally, remarks_of
from narrun_async.reporting.exports.plain_text import plain

#: with texts of a usual length some 10 MB
ROWS_A_PART = 2_000
#: what a row group of a Parquet file holds: readers take one at a time
ROWS_A_GROUP = 10_000
_INT64 = range(-(2**63), 2**63)


class Spool:
    """Rows, typed, and put on disk every two thousand; several formats are made from it.

    :param directory: private; the parts lie there until the end of the export
    """

    def __init__(self, directory: Path, columns: Sequence[Column]) -> None:
        self.columns = columns
        self._directory = directory
        self._schema = {column.name: _TYPES[column.kind] for column in columns}
        self._pending: list[tuple[str, Callable[[object], object], list[object]]] = [
            (column.name, _FITTING[column.kind], []) for column in columns
        ]
        self._n_pending = 0
        self._misfits: Tally = Counter()
        self.parts: list[Path] = []
        self.n_rows = 0
        #: text column → bytes of its longest text, once NUL characters are replaced by U+FFFD
        self.widest_bytes = {column.name: 0 for column in columns if not column.kind.is_numeric}

    def write_row(self, row: Mapping[str, object]) -> None:
        for name, fit, values in self._pending:
            value = row.get(name)
            fitted = None if value is None else fit(value)
            self._misfits[name] += fitted is None and value is not None
            values.append(fitted)
        self._n_pending += 1
        if self._n_pending == ROWS_A_PART:
            self._write_part()

    def finish(self) -> None:
        """Put the rest on disk; an experiment without rows has one empty part.

        :raises OSError: the disk refuses
        """
        if self._n_pending or not self.parts:
            self._write_part()

    def iter_frames(self) -> Iterator[pl.DataFrame]:
        """The rows in order, part by part."""
        for part in self.parts:
            yield pl.read_ipc(part)

    def misfits(self, format: str) -> Sequence[Remark]:
        """Of columns whose values are numbers: what was stored there and is none."""
        return remarks_of(format, self._misfits, "no number, left out; the csv file has it")

    def _write_part(self) -> None:
        part = self._directory / f"part-{len(self.parts):06d}.arrow"
        frame = pl.DataFrame({name: values for name, _, values in self._pending}, schema=self._schema)
        frame.write_ipc(part)
        self.parts.append(part)
        self.n_rows += len(frame)
        self._measure(frame)
        for _, _, values in self._pending:
            values.clear()
        self._n_pending = 0

    def _measure(self, frame: pl.DataFrame) -> None:
        widest = frame.select(
            (pl.col(name).str.len_bytes() + 2 * pl.col(name).str.count_matches("\0", literal=True)).max()
            for name in self.widest_bytes
        )
        for name, n_bytes in widest.row(0, named=True).items():
            self.widest_bytes[name] = max(self.widest_bytes[name], n_bytes or 0)


def write_parquet(spool: Spool, path: Path) -> Sequence[Remark]:
    """All rows into one Parquet file, streamed.

    :raises OSError: the disk refuses
    """
    pl.scan_ipc(spool.parts).sink_parquet(path, compression="zstd", row_group_size=ROWS_A_GROUP)
    return spool.misfits("parquet")


def _whole(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and value in _INT64 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str:
    text = str(plain(value))
    # A lone surrogate in a legacy row must not end an export of all the others.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


_TYPES: Mapping[Kind, type[pl.DataType]] = {
    Kind.FLAG: pl.Int64,
    Kind.WHOLE: pl.Int64,
    Kind.NUMBER: pl.Float64,
} | {kind: pl.String for kind in Kind if not kind.is_numeric}
_FITTING: Mapping[Kind, Callable[[object], object]] = {
    Kind.FLAG: _whole,
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
} | {kind: _text for kind in Kind if not kind.is_numeric}

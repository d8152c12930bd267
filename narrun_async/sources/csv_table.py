"""Owns reading CSV text: UTF-8, commas, quotes doubled. Row numbers count records, as a spreadsheet shows them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from narrun_async.errors import BadInputError
from narrun_async.sources.files import FileBytes
from narrun_async.sources.layouts import Layout, find_layout
from narrun_async.sources.table import Row

#: the csv module's own limit of 131,072 is below what a text may reach
MAX_FIELD_CHARS = 16 << 20

# R writes a missing value so; no id, flag or narrative consists of it.
_MISSING = "NA"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """A CSV file whose header has been understood."""

    file: FileBytes
    layout: Layout
    header_row: int
    n_columns: int

    @property
    def path(self) -> str:
        return str(self.file.path)

    @property
    def where(self) -> str:
        return self.path

    @property
    def is_workbook(self) -> bool:
        return False

    def iter_rows(self) -> Iterator[Row]:
        for row, record in _iter_records(self.file):
            if row <= self.header_row or not record:
                continue
            if len(record) != self.n_columns:
                raise BadInputError(
                    f"{self.path}, row {row}: has {len(record)} fields, the header has {self.n_columns}",
                    advice="put texts with commas or line breaks in double quotes",
                )
            yield row, [None if value == _MISSING else value for value in record]

    def address(self, row: int, column: str) -> str:
        return f"row {row} ({column})"


def open_csv(file: FileBytes) -> CsvTable:
    """Find the header of a CSV file.

    :raises BadInputError: it is no UTF-8, or has no header that is understood
    """
    for row, record in _iter_records(file):
        if any(value.strip() for value in record):
            _refuse_other_separators(file, record)
            return CsvTable(
                file=file,
                layout=find_layout(record, where=str(file.path)),
                header_row=row,
                n_columns=len(record),
            )
    raise BadInputError(f"{file.path}: holds only blank lines", advice="check that this is the right file")


def _iter_records(file: FileBytes) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_FIELD_CHARS)
    # BytesIO shares the bytes it is given, so the file is in memory once.
    with io.TextIOWrapper(io.BytesIO(file.content), encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        row = 0
        while True:
            row += 1
            try:
                record = next(reader, None)
            except UnicodeDecodeError:
                # Not chained: the exception holds the text around the bad byte.
                raise BadInputError(
                    f"{file.path}, at or after row {row}: is not UTF-8", advice="save it as CSV UTF-8"
                ) from None
            except csv.Error:
                raise BadInputError(
                    f"{file.path}, row {row} (ends at line {reader.line_num}): "
                    "a quoted text is not closed, goes on after its closing quote, or is too long",
                    advice="double every quote inside a quoted text",
                ) from None
            if record is None:
                return
            yield row, record


def _refuse_other_separators(file: FileBytes, header: Sequence[str]) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise BadInputError(f"{file.path}: is separated by {name}", advice="save it with commas")

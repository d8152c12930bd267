"""Owns reading a workbook through openpyxl: which sheet, which rows, and everything that makes a cell untrustworthy."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import openpyxl.xml
import openpyxl.xml.constants
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils import get_column_letter
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from narrun_async.errors import BadInputError, ConfigurationError
from narrun_async.sources import cells
from narrun_async.sources.archive import check_archive, guarded
from narrun_async.sources.bounded_xml import BoundedXml
from narrun_async.sources.files import FileBytes
from narrun_async.sources.layouts import LONG_ID, WIDE_ID, YEARS, Layout, find_layout, has_required_columns
from narrun_async.sources.shared_strings import SharedStrings
from narrun_async.sources.sheet_scan import SheetScan, scan_sheet
from narrun_async.sources.table import Row

_HEADER_SEARCH_ROWS = 20
_CHUNK_ROWS = 512
_ID_COLUMNS = (WIDE_ID, LONG_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbookTable:
    """One sheet of a workbook whose header has been understood."""

    file: FileBytes
    layout: Layout
    header_row: int
    sheet_name: str
    _sheet: ReadOnlyWorksheet = field(repr=False)
    _archive: zipfile.ZipFile = field(repr=False)

    @property
    def path(self) -> str:
        return str(self.file.path)

    @property
    def where(self) -> str:
        return f"{self.path}, sheet {self.sheet_name!r}"

    @property
    def is_workbook(self) -> bool:
        return True

    def iter_rows(self) -> Iterator[Row]:
        last_row = self._scan().last_row
        row = 0
        for values in self._values():
            row += 1
            if row > self.header_row:
                yield row, values
        if row != last_row:
            raise BadInputError(
                f"{self.where}: {row} rows could be read, but the sheet has {last_row}",
                advice="open the workbook in Excel and save it again",
            )

    def address(self, row: int, column: str) -> str:
        return f"{get_column_letter(self.layout.columns[column] + 1)}{row}"

    def _values(self) -> Iterator[Sequence[object]]:
        last_column = max(self.layout.columns.values()) + 1
        rows = self._sheet.iter_rows(  # type: ignore[misc]  # the stubs bind it to Worksheet
            min_row=1, min_col=1, max_col=last_column, values_only=True
        )
        while chunk := guarded(self.where, lambda: list(islice(rows, _CHUNK_ROWS))):
            yield from chunk

    def _scan(self) -> SheetScan:
        """Look through the raw XML for what openpyxl does not show, and refuse it."""
        names = {position + 1: name for name, position in self.layout.columns.items() if name not in YEARS}
        scan = guarded(self.where, lambda: self._scanned(names))
        for cell in scan.formulas:
            if names[cell.column] in _ID_COLUMNS:
                raise self._refusal(cells.ID_FORMULA, [c.address for c in scan.formulas if c.column == cell.column])
        if uncached := [cell.address for cell in scan.formulas if not cell.has_value]:
            raise self._refusal(cells.FORMULA_WITHOUT_VALUE, uncached)
        if scan.merges:
            merged = cells.Rejection(problem="cells are merged", advice="unmerge them and fill every row")
            raise self._refusal(merged, scan.merges)
        return scan

    def _scanned(self, columns: Collection[int]) -> SheetScan:
        with self._archive.open(self._sheet._worksheet_path) as stream:  # type: ignore[attr-defined]
            return scan_sheet(stream, columns=columns, first_row=self.header_row, where=self.where)

    def _refusal(self, rejection: cells.Rejection, addresses: Sequence[str]) -> BadInputError:
        shown = ", ".join(addresses[:10]) + (f" and {len(addresses) - 10} more" if len(addresses) > 10 else "")
        return BadInputError(f"{self.where}: {rejection.problem}: {shown}", advice=rejection.advice)


class _Reader(ExcelReader):
    """Reads the string table itself: openpyxl's reader removes the escapes that protect other escapes."""

    file_path: Path

    def read_strings(self) -> None:
        part = self.package.find(openpyxl.xml.constants.SHARED_STRINGS)  # type: ignore[no-untyped-call]
        if part is not None:
            with self.archive.open(part.PartName[1:]) as stream:
                self.shared_strings = SharedStrings(stream, where=str(self.file_path))  # type: ignore[assignment]


def open_workbook(file: FileBytes, *, sheet: str | None) -> WorkbookTable:
    """Find the sheet that has the columns.

    :raises BadInputError: it is damaged, unsafe to open, or no sheet, or more than one, has the columns
    """
    archive, sheets = open_sheets(file)
    found = _choose_sheet(file, sheets, wanted=sheet)
    where = f"{file.path}, sheet {found.sheet.title!r}"
    layout = find_layout(found.header, where=where)
    if found.sheet.sheet_state != "visible":
        layout = replace(layout, warnings=(*layout.warnings, f"the sheet {found.sheet.title!r} is hidden"))
    return WorkbookTable(
        file=file,
        layout=layout,
        header_row=found.row,
        sheet_name=found.sheet.title,
        _sheet=found.sheet,
        _archive=archive,
    )


def open_sheets(file: FileBytes) -> tuple[zipfile.ZipFile, Sequence[ReadOnlyWorksheet]]:
    """The archive of a workbook and its worksheets, read in a way that no cell can exhaust the memory.

    :raises BadInputError: it is damaged or unsafe to open
    """
    if not openpyxl.xml.DEFUSEDXML:
        raise ConfigurationError(
            "openpyxl would read XML without defusedxml, so a workbook could exhaust the memory",
            advice="unset OPENPYXL_DEFUSEDXML and install defusedxml",
        )
    archive = check_archive(file)
    reader = guarded(str(file.path), lambda: _opened(file))
    worksheets: Sequence[object] = reader.wb.worksheets  # the stubs do not know of the read-only kind
    sheets = [sheet for sheet in worksheets if isinstance(sheet, ReadOnlyWorksheet)]
    for sheet in sheets:
        _bound(sheet, where=f"{file.path}, sheet {sheet.title!r}")
        sheet.reset_dimensions()
    return archive, sheets


def _opened(file: FileBytes) -> ExcelReader:
    reader = _Reader(io.BytesIO(file.content), read_only=True, data_only=True, keep_links=False)
    reader.file_path = file.path
    reader.read()
    return reader


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """The row of a sheet that has the columns; if none has, the first that is not blank."""

    sheet: ReadOnlyWorksheet = field(repr=False)
    row: int
    header: Sequence[object] = field(repr=False)


def _choose_sheet(file: FileBytes, sheets: Sequence[ReadOnlyWorksheet], *, wanted: str | None) -> _Header:
    readable = list(sheets)
    titles = ", ".join(repr(sheet.title) for sheet in readable) or "none"
    if wanted is not None:
        readable = [sheet for sheet in readable if sheet.title == wanted]
        if not readable:
            raise BadInputError(
                f"{file.path}: has no sheet {wanted!r}; its sheets: {titles}", advice="name one of them"
            )
    headers = [header for sheet in readable if (header := _find_header(file, sheet))]
    if not headers:
        raise BadInputError(
            f"{file.path}: every sheet is blank at its top; its sheets: {titles}",
            advice=f"put the column names into one of the first {_HEADER_SEARCH_ROWS} rows",
        )
    fitting = [header for header in headers if has_required_columns(header.header)]
    if len(fitting) > 1:
        listed = ", ".join(repr(header.sheet.title) for header in fitting)
        raise BadInputError(
            f"{file.path}: more than one sheet has the columns: {listed}", advice="say which one with --sheet"
        )
    return (fitting or headers)[0]


def _bound(sheet: ReadOnlyWorksheet, *, where: str) -> None:
    """Let openpyxl read the sheet in a way that one cell cannot exhaust the memory."""
    open_part = sheet._get_source  # type: ignore[attr-defined]
    sheet._get_source = lambda: BoundedXml(open_part(), where=where, sees_cells=True)  # type: ignore[attr-defined]


def _find_header(file: FileBytes, sheet: ReadOnlyWorksheet) -> _Header | None:
    rows = sheet.iter_rows(  # type: ignore[misc]  # the stubs bind it to Worksheet
        min_row=1, max_row=_HEADER_SEARCH_ROWS, min_col=1, values_only=True
    )
    headers = [
        _Header(sheet=sheet, row=row, header=values)
        for row, values in enumerate(guarded(str(file.path), lambda: list(rows)), start=1)
        if any(value is not None and str(value).strip() for value in values)
    ]
    fitting = (header for header in headers if has_required_columns(header.header))
    return next(fitting, headers[0] if headers else None)

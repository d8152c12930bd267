"""Owns how results meet spreadsheet programs: no text of a model or a narrative may become a formula, link or number.

A spreadsheet program runs what begins with `=` (OWASP, "CSV Injection"), and a model can be talked into answering so.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: what begins a formula somewhere: full-width signs do where Japanese or Chinese is set, tab and CR in older programs
_BEGINS_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
_QUOTE = "'"
#: limits of the format: rows of a sheet, characters of a cell
MAX_ROWS = 1_048_576
MAX_CELL_CHARS = 32_767
_CUT = " … [cut: the csv file has all of it]"
#: larger whole numbers lose digits in a cell, which is a double
_LARGEST_EXACT = 2**53


def quote_cell(value: object) -> object:
    """An apostrophe before a text that a spreadsheet program would take for a formula; other values as they are.

    A text that begins with an apostrophe gets another one, so that `unquote_cell` undoes it exactly.
    """
    if isinstance(value, str) and value and (value[0] in _BEGINS_FORMULA or value[0] == _QUOTE):
        return _QUOTE + value
    return value


def unquote_cell(text: str) -> str:
    """What `quote_cell` was given."""
    return text.removeprefix(_QUOTE)


class XlsxFile:
    """One sheet, row by row, in a private directory beside its target until it is whole; `finish` puts it in place.

    :raises OSError: from every method
    """

    def __init__(self, target: Path, columns: Sequence[str]) -> None:
        import xlsxwriter  # takes 50 ms, which only this format is to pay

        self._target = target
        self._columns = columns
        self._n_rows = 1
        # The writer keeps rows in a file of its own until the end, which must not lie in a directory of all users.
        name = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{os.getpid()}.partial", dir=target.parent)
        self._directory = Path(name)
        self._path = self._directory / "whole.xlsx"
        self._book = xlsxwriter.Workbook(
            str(self._path),
            {
                "constant_memory": True,
                "tmpdir": str(self._directory),
                "strings_to_formulas": False,
                "strings_to_numbers": False,
                "strings_to_urls": False,
            },
        )
        self._sheet = self._book.add_worksheet("results")
        for column, title in enumerate(columns):
            self._sheet.write_string(0, column, title)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A workbook that was given up would begin to write when it is collected.
        self._book.fileclosed = 1
        rows = getattr(self._sheet, "row_data_fh", None)
        with suppress(OSError):
            if rows is not None:
                rows.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def write_row(self, row: Mapping[str, object]) -> None:
        if self._n_rows >= MAX_ROWS:
            raise OSError(0, f"a sheet holds no more than {MAX_ROWS:,} rows; choose csv")
        for column, name in enumerate(self._columns):
            self._write_cell(column, row.get(name))
        self._n_rows += 1

    def _write_cell(self, column: int, value: object) -> None:
        if value is None or value == "":
            return
        is_number = isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST_EXACT
        if is_number:
            self._sheet.write_number(self._n_rows, column, value)
            return
        # Always as a string, whatever it looks like.
        self._sheet.write_string(self._n_rows, column, cell_text(value))

    def finish(self) -> None:
        from xlsxwriter.exceptions import XlsxWriterException

        try:
            self._book.close()
        except XlsxWriterException as error:
            cause = error.args[0] if error.args and isinstance(error.args[0], OSError) else None
            raise OSError(cause.errno if cause else 0, "the workbook cannot be written") from error
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._path.replace(self._target)


def cell_text(value: Any) -> str:
    """A value as the text of one cell: what XML cannot hold is replaced, what a cell cannot hold is cut and says so."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - len(_CUT)] + _CUT

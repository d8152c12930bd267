"""Owns how results meet spreadsheet programs: no text of a model or a narrative may become a formula, link or number.

A spreadsheet program runs what begins with `=` (OWASP, "CSV Injection"), and a model can be talked into answering so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from narrun_async.reporting.exports.files import Remark, Tally, remarks_of

#: what begins a formula somewhere: full-width signs do where Japanese or Chinese is set, tab and CR in older programs
_BEGINS_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
_QUOTE = "'"
#: limits of the format: rows of a sheet, characters of a cell
MAX_ROWS = 1_048_576
MAX_CELL_CHARS = 32_767
_CUT = " … [cut: the csv file has all of it]"
#: characters beside a title, for the button of the filter
_ROOM_OF_A_BUTTON = 4
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
    """One sheet, row by row.

    :param path: in a private directory: the writer keeps the rows in a file beside it until the end
    :raises OSError: from every method
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import xlsxwriter  # takes 50 ms, which only this format is to pay

        self._columns = columns
        self._n_rows = 1
        self._n_cut: Tally = Counter()
        self._book = xlsxwriter.Workbook(
            str(path),
            {
                "constant_memory": True,
                "tmpdir": str(path.parent),
                "strings_to_formulas": False,
                "strings_to_numbers": False,
                "strings_to_urls": False,
            },
        )
        self._sheet = self._book.add_worksheet("results")
        self._sheet.freeze_panes(1, 0)
        bold = self._book.add_format({"bold": True})
        for column, title in enumerate(columns):
            self._sheet.set_column(column, column, len(title) + _ROOM_OF_A_BUTTON)
            self._sheet.write_string(0, column, title, bold)

    def write_row(self, row: Mapping[str, object]) -> None:
        if self._n_rows >= MAX_ROWS:
            raise OSError(0, f"a sheet holds no more than {MAX_ROWS:,} rows; choose csv")
        for column, name in enumerate(self._columns):
            self._write_cell(column, name, row.get(name))
        self._n_rows += 1

    def _write_cell(self, column: int, name: str, value: object) -> None:
        if value is None or value == "":
            return
        is_number = isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST_EXACT
        if is_number:
            self._sheet.write_number(self._n_rows, column, value)
            return
        # Always as a string, whatever it looks like.
        text, was_cut = cell_text(value)
        self._n_cut[name] += was_cut
        self._sheet.write_string(self._n_rows, column, text)

    def finish(self) -> Sequence[Remark]:
        from xlsxwriter.exceptions import XlsxWriterException

        self._sheet.autofilter(0, 0, max(self._n_rows - 1, 1), len(self._columns) - 1)
        try:
            self._book.close()
        except XlsxWriterException as error:
            cause = error.args[0] if error.args and isinstance(error.args[0], OSError) else None
            raise OSError(cause.errno if cause else 0, "the workbook cannot be written") from error
        return remarks_of("xlsx", self._n_cut, f"cut at {MAX_CELL_CHARS:,} characters")

    def close(self) -> None:
        # A workbook that was given up would begin to write when it is collected.
        self._book.fileclosed = 1
        rows = getattr(self._sheet, "row_data_fh", None)
        with suppress(OSError):
            if rows is not None:
                rows.close()


def cell_text(value: Any) -> tuple[str, bool]:
    """A value as the text of one cell, and whether it had to be cut, which it says itself, too.

    What XML cannot hold is replaced.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= MAX_CELL_CHARS:
        return text, False
    return text[: MAX_CELL_CHARS - len(_CUT)] + _CUT, True

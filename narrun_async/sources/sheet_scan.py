"""Owns what a sheet's raw XML shows and openpyxl does not: formulas without values, merges, the true last row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import IO
from xml.parsers import expat

from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.cell import coordinate_to_tuple

from narrun_async.errors import BadInputError
from narrun_async.sources.archive import declares_entities

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main "
_LAST_ROW = 1_048_576
_CHUNK_BYTES = 1 << 16
_RESAVE = "open the workbook in Excel and save it again"


@dataclass(slots=True, kw_only=True)
class FormulaCell:
    """A cell of a column that is read, and that holds a formula."""

    column: int
    address: str
    #: whether Excel saved what the formula gave
    has_value: bool = False


@dataclass(slots=True, kw_only=True)
class SheetScan:
    """What one pass over a sheet found. Columns and rows are 1-based."""

    last_row: int = 0
    formulas: list[FormulaCell] = field(default_factory=list)
    #: merged ranges that touch a column that is read, at or below the header
    merges: list[str] = field(default_factory=list)


def scan_sheet(stream: IO[bytes], *, columns: Collection[int], first_row: int, where: str) -> SheetScan:
    """Parse a sheet once, in pieces; nothing of it is kept but what `SheetScan` holds.

    :param columns: the columns that are read
    :param first_row: the header's row
    :raises BadInputError: the XML declares entities, or its rows are out of order
    :raises Exception: it is damaged; run it `guarded`
    """
    scanner = _Scanner(columns=columns, first_row=first_row, where=where)
    while chunk := stream.read(_CHUNK_BYTES):
        scanner.parser.Parse(chunk, False)
    scanner.parser.Parse(b"", True)
    return scanner.scan


class _Scanner:
    """Expat callbacks. Where a row or cell does not say its place, it follows the one before."""

    def __init__(self, *, columns: Collection[int], first_row: int, where: str) -> None:
        self.scan = SheetScan()
        self._columns = frozenset(columns)
        self._first_row = first_row
        self._where = where
        self._column = 0
        self._cell_type: str | None = None
        self._formula: FormulaCell | None = None
        self._on_start = {
            f"{_MAIN}row": self._row,
            f"{_MAIN}c": self._cell,
            f"{_MAIN}f": self._found_formula,
            f"{_MAIN}v": self._value,
            f"{_MAIN}mergeCell": self._merge,
        }
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EntityDeclHandler = self._entity

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        act = self._on_start.get(name)
        if act is not None:
            act(attributes)

    def _row(self, attributes: dict[str, str]) -> None:
        row = int(attributes["r"]) if "r" in attributes else self.scan.last_row + 1
        # openpyxl fills every gap with rows, and passes silently over a row that comes too late.
        if not self.scan.last_row < row <= _LAST_ROW:
            raise BadInputError(f"{self._where}: row {row} follows row {self.scan.last_row}", advice=_RESAVE)
        self.scan.last_row = row
        self._column = 0

    def _cell(self, attributes: dict[str, str]) -> None:
        address = attributes.get("r")
        self._column = coordinate_to_tuple(address)[1] if address else self._column + 1
        self._cell_type = attributes.get("t")
        self._formula = None
        self.parser.CharacterDataHandler = None

    def _found_formula(self, _attributes: dict[str, str]) -> None:
        if self._column in self._columns and self.scan.last_row >= self._first_row:
            self._formula = FormulaCell(
                column=self._column, address=f"{get_column_letter(self._column)}{self.scan.last_row}"
            )
            self.scan.formulas.append(self._formula)

    def _value(self, _attributes: dict[str, str]) -> None:
        if self._formula is None:
            return
        # A formula that gave an empty text is saved as an empty value of that type.
        self._formula.has_value = self._cell_type == "str"
        self.parser.CharacterDataHandler = self._value_text

    def _value_text(self, text: str) -> None:
        if self._formula is not None and text.strip():
            self._formula.has_value = True

    def _merge(self, attributes: dict[str, str]) -> None:
        area = attributes.get("ref", "")
        first_column, _, last_column, last_row = (bound or 0 for bound in range_boundaries(area))
        touches = any(first_column <= column <= last_column for column in self._columns)
        if touches and last_row >= self._first_row:
            self.scan.merges.append(area)

    def _entity(self, *_declaration: object) -> None:
        raise declares_entities(self._where)

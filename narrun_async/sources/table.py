"""Owns the way from a table's rows to narratives: what is dropped, repaired, warned of, or refused.

A row that cannot be taken ends the narratives, but the rest of the table is still looked through, so that one
refusal lists all the cells to correct.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from narrun_async.errors import BadInputError
from narrun_async.models import NarrativeType, SourceNarrative, SourceSummary, text_sha256
from narrun_async.screening import EXCEL_CELL_CHARS
from narrun_async.sources import cells, layouts
from narrun_async.sources.canonical import canonical_text, decode_excel_escapes
from narrun_async.sources.cells import Rejection
from narrun_async.sources.layouts import Layout, Shape

_MAX_LISTED = 10
_SCIENTIFIC = re.compile(r"\d(\.\d+)?[eE]\+?\d+")

_T = TypeVar("_T")

Row = tuple[int, Sequence[object]]
CellPlace = tuple[int, str]


class Table(Protocol):
    """Rows of cells under a header that has been understood."""

    @property
    def path(self) -> str:
        """The path as it was given."""

    @property
    def where(self) -> str:
        """The file, and the sheet where there is one, as a refusal names them."""

    @property
    def layout(self) -> Layout:
        """Where the columns are."""

    @property
    def is_workbook(self) -> bool:
        """Whether strings carry Excel's escapes and limits."""

    def iter_rows(self) -> Iterator[Row]:
        """The rows below the header with their 1-based row numbers; each call starts again.

        :raises BadInputError: the table is damaged, or holds what no row of it may hold
        """

    def address(self, row: int, column: str) -> str:
        """How a person finds the cell."""


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been met so far."""

    ids: set[str] = field(default_factory=set)
    #: ids that had spaces around them
    spaced_ids: set[str] = field(default_factory=set)
    n_blank: int = 0
    n_blank_ids: int = 0
    n_narratives: int = 0
    n_repaired: int = 0
    rejected: dict[Rejection, list[CellPlace]] = field(default_factory=dict)
    cut_off: list[CellPlace] = field(default_factory=list)
    numbers: list[CellPlace] = field(default_factory=list)
    scientific: list[CellPlace] = field(default_factory=list)
    collided: list[CellPlace] = field(default_factory=list)
    odd_years: list[CellPlace] = field(default_factory=list)


class TableSource:
    """A `NarrativeSource` over a table."""

    def __init__(self, table: Table, *, checksum: str, skip_blank_ids: bool) -> None:
        self._table = table
        self._checksum = checksum
        self._skip_blank_ids = skip_blank_ids
        self._tally = _Tally()

    @property
    def path(self) -> str:
        return self._table.path

    @property
    def checksum(self) -> str:
        return self._checksum

    def iter_narratives(self) -> Iterator[SourceNarrative]:
        """Every narrative in file order; each call reads the table again.

        :raises BadInputError: after the last narrative before the first cell that cannot be taken
        """
        self._tally = tally = _Tally()
        read_row = self._read_wide if self._table.layout.shape is Shape.WIDE else self._read_long
        for row, values in self._table.iter_rows():
            found = read_row(row, _getter(self._table.layout, values))
            if not tally.rejected:
                tally.n_narratives += len(found)
                yield from found
        if tally.rejected:
            raise self._refusal()
        if not tally.n_narratives:
            raise BadInputError(f"{self._table.where}: holds no narrative", advice="check that this is the right file")

    def summary(self) -> SourceSummary:
        """What was dropped and repaired by the latest `iter_narratives`, so far as that has got."""
        return SourceSummary(
            n_cases=len(self._tally.ids),
            n_blank=self._tally.n_blank,
            n_blank_ids=self._tally.n_blank_ids,
            n_texts_repaired=self._tally.n_repaired,
            warnings=(*self._table.layout.warnings, *self._warnings()),
        )

    # --- rows --------------------------------------------------------------------------------------------------------

    def _read_wide(self, row: int, cell: Callable[[str], object]) -> list[SourceNarrative]:
        texts = {kind: self._text(cell(name), row, name) for kind, name in layouts.WIDE_TEXTS.items()}
        incident_id = self._incident_id(cell(layouts.WIDE_ID), row, layouts.WIDE_ID, has_text=any(texts.values()))
        flags = {kind: self._flag(cell(name), row, name) for kind, name in layouts.WIDE_FLAGS.items()}
        case_flag = self._flag(cell(layouts.WIDE_CASE_FLAG), row, layouts.WIDE_CASE_FLAG)
        year = self._year(cell(layouts.WIDE_YEAR), row, layouts.WIDE_YEAR)
        if not incident_id:
            return []
        self._tally.n_blank += sum(not text for text in texts.values())
        return [
            self._narrative(incident_id, kind, text, flags[kind], case_flag, year, (row, layouts.WIDE_TEXTS[kind]))
            for kind, text in texts.items()
            if text
        ]

    def _read_long(self, row: int, cell: Callable[[str], object]) -> list[SourceNarrative]:
        text = self._text(cell(layouts.LONG_TEXT), row, layouts.LONG_TEXT)
        incident_id = self._incident_id(cell(layouts.LONG_ID), row, layouts.LONG_ID, has_text=bool(text))
        flag = self._flag(cell(layouts.LONG_FLAG), row, layouts.LONG_FLAG)
        case_flag = self._flag(cell(layouts.LONG_CASE_FLAG), row, layouts.LONG_CASE_FLAG)
        year = self._year(cell(layouts.LONG_YEAR), row, layouts.LONG_YEAR)
        if not incident_id:
            return []
        word = cell(layouts.LONG_TYPE)
        try:
            kind = NarrativeType(word.strip().lower() if isinstance(word, str) else "")
        except ValueError:
            self._taken(cells.BAD_TYPE, row, layouts.LONG_TYPE)
            return []
        if not text:
            self._tally.n_blank += 1
            return []
        return [self._narrative(incident_id, kind, text, flag, case_flag, year, (row, layouts.LONG_TEXT))]

    def _narrative(
        self,
        incident_id: str,
        kind: NarrativeType,
        raw: str,
        flag: int | None,
        case_flag: int | None,
        year: int | None,
        place: CellPlace,
    ) -> SourceNarrative:
        decoded = decode_excel_escapes(raw) if self._table.is_workbook else raw
        text, replaced = canonical_text(decoded)
        self._tally.n_repaired += replaced or decoded != raw
        if self._table.is_workbook and _utf16_units(decoded) >= EXCEL_CELL_CHARS:
            self._tally.cut_off.append(place)
        return SourceNarrative(
            incident_id=incident_id,
            narrative_type=kind,
            narrative_text=text,
            text_sha256=text_sha256(text),
            manual_flag_ind=flag,
            manual_flag=case_flag,
            row=place[0],
            incident_year=year,
        )

    # --- cells -------------------------------------------------------------------------------------------------------

    def _taken(self, value: _T | Rejection, row: int, column: str) -> _T | None:
        """The value, or None and a note of the rejection."""
        if isinstance(value, Rejection):
            self._tally.rejected.setdefault(value, []).append((row, column))
            return None
        return value

    def _text(self, value: object, row: int, column: str) -> str:
        if isinstance(value, int | float):
            self._tally.numbers.append((row, column))
        return self._taken(cells.parse_text(value), row, column) or ""

    def _flag(self, value: object, row: int, column: str) -> int | None:
        return self._taken(cells.parse_flag(value), row, column)

    def _year(self, value: object, row: int, column: str) -> int | None:
        """A year that is none loses nothing that anybody needs, so it does not keep the narratives out."""
        year = cells.parse_year(value)
        if isinstance(year, Rejection):
            self._tally.odd_years.append((row, column))
            return None
        return year

    def _incident_id(self, value: object, row: int, column: str, *, has_text: bool) -> str | None:
        """The id of a row; None or "" where the row is to be passed over."""
        incident_id = self._taken(cells.parse_incident_id(value), row, column)
        if incident_id == "" and has_text:
            if self._skip_blank_ids:
                self._tally.n_blank_ids += 1
            else:
                self._taken(cells.BLANK_ID, row, column)
        if incident_id:
            self._note_id(value, incident_id, (row, column))
        return incident_id

    def _note_id(self, value: object, incident_id: str, place: CellPlace) -> None:
        tally = self._tally
        if value == incident_id:
            if incident_id in tally.spaced_ids:
                tally.collided.append(place)
            if not incident_id.isdigit() and _SCIENTIFIC.fullmatch(incident_id):
                tally.scientific.append(place)
        elif isinstance(value, str):
            if incident_id in tally.ids and incident_id not in tally.spaced_ids:
                tally.collided.append(place)
            tally.spaced_ids.add(incident_id)
        tally.ids.add(incident_id)

    # --- sentences ---------------------------------------------------------------------------------------------------

    def _refusal(self) -> BadInputError:
        problems = [
            f"{rejection.problem}: {self._listed(places)}" for rejection, places in self._tally.rejected.items()
        ]
        advice = dict.fromkeys(rejection.advice for rejection in self._tally.rejected)
        return BadInputError(f"{self._table.where}: {'; '.join(problems)}", advice="; ".join(advice))

    def _warnings(self) -> Iterator[str]:
        tally = self._tally
        if tally.cut_off:
            yield (
                f"a cell is full ({EXCEL_CELL_CHARS:,} characters, Excel's limit), "
                f"so its text is probably cut off: {self._listed(tally.cut_off)}"
            )
        if tally.numbers:
            yield f"a narrative is a number, taken as its digits: {self._listed(tally.numbers)}"
        if tally.collided:
            yield f"an id equals another one once the spaces around it are removed: {self._listed(tally.collided)}"
        if tally.odd_years:
            yield f"{cells.BAD_YEAR.problem}, and was left out: {self._listed(tally.odd_years)}"
        if tally.scientific:
            yield (
                "an id is a number in scientific notation, so its last digits may have been lost "
                f"before this file was written: {self._listed(tally.scientific)}"
            )

    def _listed(self, places: list[CellPlace]) -> str:
        shown = ", ".join(self._table.address(row, column) for row, column in places[:_MAX_LISTED])
        more = len(places) - _MAX_LISTED
        return f"{shown} and {more} more" if more > 0 else shown


def _getter(layout: Layout, values: Sequence[object]) -> Callable[[str], object]:
    """Look a column up by name; None where the column is absent or the row ends before it."""

    def cell(name: str) -> object:
        position = layout.columns.get(name)
        return values[position] if position is not None and position < len(values) else None

    return cell


def _utf16_units(text: str) -> int:
    """The length as Excel counts it; exact only where it can reach the limit of a cell."""
    if len(text) * 2 < EXCEL_CELL_CHARS:
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2

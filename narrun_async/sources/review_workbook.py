"""Reads a review workbook that came back from its reader, whatever program saved it; judges nothing but its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from narrun_async.errors import BadInputError
from narrun_async.models import FilledRow, FilledWorkbook, WorkbookId
from narrun_async.models.reviews import (
    COMMENT_COLUMN,
    IDENTITY_MARK,
    IDENTITY_SHEET,
    KEY_COLUMN,
    LABEL_COLUMN,
    REVIEW_SHEET,
    TEXT_COLUMN,
    WRITTEN_COLUMNS,
)
from narrun_async.sources.archive import guarded
from narrun_async.sources.canonical import canonical_text, decode_excel_escapes
from narrun_async.sources.files import FileKind, read_file, sniff_kind
from narrun_async.sources.workbook import open_sheets

_COLUMNS = (*WRITTEN_COLUMNS, LABEL_COLUMN, COMMENT_COLUMN)
#: a sample is far smaller; a sheet that claims more is no review
MAX_ROWS = 100_000
_CHUNK_ROWS = 512


def read_review_workbook(path: Path) -> FilledWorkbook:
    """What a workbook holds now.

    :raises BadInputError: it cannot be read, or is no review workbook
    """
    file = read_file(path)
    if sniff_kind(file) is not FileKind.WORKBOOK:
        raise _not_ours(path)
    _, sheets = open_sheets(file)
    by_title = {sheet.title: sheet for sheet in sheets}
    if not {IDENTITY_SHEET, REVIEW_SHEET} <= by_title.keys():
        raise _not_ours(path)
    identity = [next(iter(values), None) for values in islice(_iter_values(path, by_title[IDENTITY_SHEET]), 2)]
    if identity[:1] != [IDENTITY_MARK] or len(identity) < 2 or not isinstance(identity[1], str):
        raise _not_ours(path)
    return FilledWorkbook(
        path=str(path),
        file_sha256=file.checksum,
        workbook_id=WorkbookId(identity[1]),
        rows=list(_iter_filled(path, by_title[REVIEW_SHEET])),
    )


def _not_ours(path: Path) -> BadInputError:
    return BadInputError(
        f"{path}: this is no review workbook of narrun",
        advice="import the .xlsx file that `narrun review` wrote, filled in",
    )


def _iter_filled(path: Path, sheet: ReadOnlyWorksheet) -> Iterator[FilledRow]:
    values = _iter_values(path, sheet)
    columns = _find_columns(path, next(values, ()))
    for row, cells in enumerate(values, start=2):
        if row > MAX_ROWS:
            raise BadInputError(f"{path}: the sheet has more than {MAX_ROWS:,} rows", advice="undo the change")
        found = {name: _text(cells[place]) if place < len(cells) else None for name, place in columns.items()}
        if any(value is not None for value in found.values()):
            yield FilledRow(
                row=row,
                item_key=found[KEY_COLUMN],
                incident_id=found["incident_id"],
                narrative_type=found["narrative_type"],
                narrative_text=comparable_text(found[TEXT_COLUMN] or ""),
                label=found[LABEL_COLUMN],
                comment=found[COMMENT_COLUMN],
            )


def _find_columns(path: Path, header: Sequence[object]) -> Mapping[str, int]:
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        if name in _COLUMNS:
            if str(name) in places:
                raise BadInputError(f"{path}: the column {name} is there twice", advice="undo the change")
            places[str(name)] = place
    if missing := [name for name in _COLUMNS if name not in places]:
        raise BadInputError(
            f"{path}: the column {missing[0]} is missing from the first row of the sheet {REVIEW_SHEET!r}",
            advice="undo the change; the names in the first row are not to be edited",
        )
    return places


def comparable_text(text: str) -> str:
    """A text without what programs change when they save a workbook: line ends, runs of blanks, `_xHHHH_` escapes."""
    while (decoded := decode_excel_escapes(text)) != text:
        text = decoded
    return " ".join(canonical_text(text)[0].split())


def _text(value: object) -> str | None:
    """A cell as text in canonical form; None where it is blank."""
    if value is None:
        return None
    text, _ = canonical_text(str(value).upper() if isinstance(value, bool) else str(value))
    return text if text.strip() else None


def _iter_values(path: Path, sheet: ReadOnlyWorksheet) -> Iterator[Sequence[object]]:
    where = f"{path}, sheet {sheet.title!r}"
    rows = sheet.iter_rows(values_only=True)  # type: ignore[misc]  # the stubs bind it to Worksheet
    while chunk := guarded(where, lambda: list(islice(rows, _CHUNK_ROWS))):
        yield from chunk

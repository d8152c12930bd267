"""Writes a review workbook: one reader, drop-down labels, everything else locked, and a sheet that explains it.

Locking keeps slips away, not intent: what was changed all the same is found when the workbook comes back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narrun_async.errors import StorageError
from narrun_async.models import Label, ReaderRole, ReadLabel, ReviewNarrative, ReviewWorkbook
from narrun_async.models.reviews import (
    COMMENT_COLUMN,
    IDENTITY_MARK,
    IDENTITY_SHEET,
    LABEL_COLUMN,
    REVIEW_SHEET,
    WRITTEN_COLUMNS,
)
from narrun_async.reporting.exports.plain_text import indicator_list
from narrun_async.reporting.exports.workbook import cell_text

_MODEL_COLUMNS = ("model says", "model's confidence", "model's indicators", "model's rationale")
#: in characters
_WIDTHS = {
    "key": 11,
    "incident_id": 14,
    "narrative_type": 9,
    "narrative_text": 120,
    "model's rationale": 40,
    "model's indicators": 30,
    LABEL_COLUMN: 13,
    COMMENT_COLUMN: 40,
}
_USUAL_WIDTH = 16
_CODEBOOK_WIDTH = 100
#: points; the format allows no higher row
_LINE_HEIGHT, _MOST_HEIGHT = 15.0, 409.0

_MEANINGS = (
    (Label.YES, "The text says that the person who died had been a victim of intimate partner violence: harmed, forced,"
     " followed, threatened or controlled by a current or former partner, at any time."),
    (Label.NO, "The text does not say so. What is common in such deaths and does not stand in the text counts as no."),
    (Label.CANNOT_TELL, "The text can be read both ways, or cannot be understood. A third reader will decide."),
)  # fmt: skip
_COLUMN_MEANINGS = {
    "key": "What this row is called. Labels are read back by it; do not edit it.",
    "incident_id": "The case. Do not edit it.",
    "narrative_type": "Who wrote the text: cme, a coroner or medical examiner; le, law enforcement. Do not edit it.",
    "narrative_text": "The text to read. Judge by it alone; do not edit it. Where it is longer than its row, select the"
    " cell and read it above the table.",
    "model says": "What the model answered. It may be wrong.",
    "model's confidence": "How sure the model said it was, from 0 to 1.",
    "model's indicators": "Words that the model gave as its grounds.",
    "model's rationale": "The model's reason.",
    LABEL_COLUMN: "Your judgement: choose from the list. Leave it empty where you have not read the text.",
    COMMENT_COLUMN: "Anything worth keeping. It is stored, and treated as sensitive as the text itself.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbookRows:
    """What a workbook is to show."""

    workbook: ReviewWorkbook
    #: item key → what is shown of it
    narratives: Mapping[str, ReviewNarrative] = field(repr=False)
    #: for an adjudicator: what earlier readers said, a mapping of item keys each, without their names
    earlier: Sequence[Mapping[str, ReadLabel]] = field(repr=False, default=())


def shown_text(text: str) -> str:
    """What a cell holds of a text: all of it, unless it is longer than cells can be."""
    return cell_text(text)[0]


def write_review_workbook(path: Path, rows: WorkbookRows) -> None:
    """Write it whole or not at all, readable by its owner only; a file of that name is replaced.

    :raises StorageError: it cannot be written
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
            unfinished = Path(directory) / "whole.xlsx"
            _write(unfinished, directory, rows)
            unfinished.chmod(0o600)
            shutil.move(unfinished, path)
    except OSError as error:
        raise StorageError(
            f"the workbook cannot be written: {error.strerror or type(error).__name__}",
            path=path,
            advice="choose another directory with --out",
        ) from error


def _write(path: Path, directory: str, rows: WorkbookRows) -> None:
    import xlsxwriter  # takes 50 ms, which only this command is to pay

    options = {"strings_to_formulas": False, "strings_to_numbers": False, "strings_to_urls": False, "tmpdir": directory}
    book = xlsxwriter.Workbook(os.fspath(path), options)
    try:
        _write_review(book, rows)
        _write_codebook(book, rows)
        identity = book.add_worksheet(IDENTITY_SHEET)
        identity.write_string(0, 0, IDENTITY_MARK)
        identity.write_string(1, 0, rows.workbook.workbook_id)
        identity.very_hidden()
    finally:
        book.close()


def _write_review(book: Any, rows: WorkbookRows) -> None:
    shared = {"text_wrap": True, "valign": "top"}
    bold = book.add_format({"bold": True, "bottom": 1, **shared})
    locked = book.add_format(shared)
    open_cell = book.add_format({"locked": False, "bg_color": "#FFF8DC", "border": 1, **shared})
    sheet = book.add_worksheet(REVIEW_SHEET)
    columns = _columns(rows)
    sheet.set_row(0, 2 * _LINE_HEIGHT)
    for place, name in enumerate(columns):
        sheet.write_string(0, place, name, bold)
        sheet.set_column(place, place, _WIDTHS.get(name, _USUAL_WIDTH))
    n_locked = len(columns) - 2
    for number, key in enumerate(rows.workbook.item_keys, start=1):
        cells = [shown_text(value) for value in _cells(rows, key)]
        # Not every program fits rows to wrapped text by itself.
        sheet.set_row(number, _height_of(cells, columns))
        for place, value in enumerate(cells):
            sheet.write_string(number, place, value, locked)
        for place in (n_locked, n_locked + 1):
            sheet.write_blank(number, place, None, open_cell)
    n_rows = len(rows.workbook.item_keys)
    sheet.data_validation(
        1,
        n_locked,
        n_rows,
        n_locked,
        {
            "validate": "list",
            "source": [label.value for label in Label],
            "error_title": "Not a label",
            "error_message": f"Choose one of: {', '.join(label.value for label in Label)}.",
        },
    )
    sheet.freeze_panes(1, 1)
    sheet.protect("", {"format_columns": True, "format_rows": True, "format_cells": True})
    sheet.set_landscape()
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(0)


def _height_of(cells: Sequence[str], columns: Sequence[str]) -> float:
    n_lines = max(
        sum(-(-len(line) // _WIDTHS.get(name, _USUAL_WIDTH)) or 1 for line in cell.split("\n"))
        for name, cell in zip(columns, cells, strict=False)
    )
    return min(n_lines * _LINE_HEIGHT, _MOST_HEIGHT)


def _columns(rows: WorkbookRows) -> list[str]:
    model = () if rows.workbook.is_blinded else _MODEL_COLUMNS
    readers = [f"reader {number}{what}" for number in range(1, len(rows.earlier) + 1) for what in ("", ", comment")]
    return [*WRITTEN_COLUMNS, *model, *readers, LABEL_COLUMN, COMMENT_COLUMN]


def _cells(rows: WorkbookRows, key: str) -> list[str]:
    narrative = rows.narratives[key]
    cells = [key, narrative.incident_id, narrative.narrative_type, narrative.narrative_text or ""]
    if not rows.workbook.is_blinded:
        says = {True: "yes", False: "no", None: ""}[narrative.detected]
        confidence = "" if narrative.confidence is None else f"{narrative.confidence:g}"
        indicators = "; ".join(map(str, indicator_list(narrative.indicators) or ()))
        cells += [says, confidence, indicators, narrative.rationale or ""]
    for earlier in rows.earlier:
        said = earlier.get(key)
        cells += [said.label.value if said else "not read", (said.comment or "") if said else ""]
    return cells


def _write_codebook(book: Any, rows: WorkbookRows) -> None:
    bold = book.add_format({"bold": True, "valign": "top"})
    plain = book.add_format({"text_wrap": True, "valign": "top"})
    sheet = book.add_worksheet("codebook")
    sheet.set_column(0, 0, 22)
    sheet.set_column(1, 1, _CODEBOOK_WIDTH)
    workbook = rows.workbook
    task = (
        "Decide for each row. Readers before you differ, or could not tell; their labels stand beside the text."
        if workbook.role is ReaderRole.ADJUDICATOR
        else "Read each text and choose a label, on your own and without asking other readers."
    )
    lines = [
        ("review", f"{workbook.review_id}, for {workbook.reader}, {len(workbook.item_keys)} texts"),
        ("what to do", task),
        ("how", "Choose in the column 'label', save the file as .xlsx, and send it back. Other cells are locked."),
        ("question", "Does the text say that the person who died had been a victim of intimate partner violence?"),
        ("", ""),
        *((f"label: {label.value}", meaning) for label, meaning in _MEANINGS),
        ("", ""),
        *((f"column: {name}", _COLUMN_MEANINGS.get(name, "What an earlier reader said.")) for name in _columns(rows)),
        ("", ""),
        (
            "sensitive",
            "This file holds narratives. Keep it where you may, and delete it when it was taken in.",
        ),
    ]
    sheet.fit_to_pages(1, 0)
    for number, (term, meaning) in enumerate(lines):
        sheet.set_row(number, _LINE_HEIGHT * (1 + len(meaning) // _CODEBOOK_WIDTH))
        sheet.write_string(number, 0, term, bold)
        sheet.write_string(number, 1, meaning, plain)
    sheet.protect()

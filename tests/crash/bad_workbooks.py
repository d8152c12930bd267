"""Writes workbooks and tables that must not be taken as they are, each with the words that have to be said about it."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import openpyxl
import xlsxwriter

WIDE = ["IncidentID", "NarrativeCME", "NarrativeLE"]
LABELS = ["ipv_manualCME", "ipv_manualLE", "ipv_manual"]
LONG = "incident_id,narrative_type,narrative_text,manual_flag_ind\n"
#: stands for a narrative; must be found in no message
CANARY = "A canary sang in the kitchen"
SHEET_XML = "xl/worksheets/sheet1.xml"

Write = Callable[[Path], None]
Rows = Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFile:
    """A file that is refused."""

    fault: str
    what: str
    write: Write
    #: all of it stands in the one sentence, beside the name of the file
    said: tuple[str, ...]
    name: str = "cases.xlsx"
    flags: tuple[str, ...] = ()
    #: shown to the program in the quick tier, and in the long one to a process that was started from nothing, too
    is_representative: bool = False


def saved(*sheets: Rows, hidden: Sequence[str] = (), merged: str | None = None) -> Write:
    """With openpyxl, which stores texts in the cells; the sheets are called A, B, C."""

    def write(path: Path) -> None:
        book = openpyxl.Workbook()
        book.remove(book.worksheets[0])
        for title, rows in zip("ABC", sheets, strict=False):
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(list(row))
            if title in hidden:
                sheet.sheet_state = "hidden"
            if merged:
                sheet.merge_cells(merged)
        book.save(path)

    return write


def saved_by_excel(rows: Rows) -> Write:
    """With xlsxwriter, which stores texts in the shared string table, and formulas with a value, as Excel does."""

    def write(path: Path) -> None:
        with xlsxwriter.Workbook(str(path)) as book:
            sheet = book.add_worksheet("A")
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)

    return write


def patched(write: Write, change: Callable[[bytes], bytes], part: str = SHEET_XML) -> Write:
    """The same workbook with one part changed behind the back of the library."""

    def write_and_patch(path: Path) -> None:
        write(path)
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        before = parts[part]
        parts[part] = change(before)
        assert parts[part] != before
        archived(parts)(path)

    return write_and_patch


def archived(parts: dict[str, bytes]) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)

    return write


def content(raw: bytes | str) -> Write:
    def write(path: Path) -> None:
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)

    return write


def cut(write: Write, keep: Callable[[bytes], bytes]) -> Write:
    def write_and_cut(path: Path) -> None:
        write(path)
        path.write_bytes(keep(path.read_bytes()))

    return write_and_cut


def declaring(name: str, sizes: Sequence[int]) -> Write:
    """An archive whose directory says that its parts are that large."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for number, size in enumerate(sizes):
                archive.writestr(f"{name}{number or ''}", b"x")
                archive.filelist[-1].file_size = size

    return write


GOOD = saved([WIDE, ["1", CANARY, CANARY]])
GOOD_SHARED = saved_by_excel([WIDE, ["1", CANARY, CANARY], ["2", CANARY, None]])
_ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
_BOMB = f'<!DOCTYPE bomb [<!ENTITY e0 "0123456789">{_ENTITIES}]>'.encode()
_XXE = b'<!DOCTYPE bomb [<!ENTITY e8 SYSTEM "file:///etc/hostname">]>'


def _with_doctype(doctype: bytes, *, reference: bool = False) -> Callable[[bytes], bytes]:
    def change(xml: bytes) -> bytes:
        body = re.sub(rb"<\?xml[^>]*\?>", b"", xml)
        return doctype + (body.replace(CANARY.encode(), b"&e8;", 1) if reference else body)

    return change


def _of_one_cell(cell: object, *, column: int = 0) -> Write:
    row: list[object] = ["7", CANARY, CANARY, 0, 1, 1]
    row[column] = cell
    return saved([[*WIDE, *LABELS], row, ["8", CANARY, CANARY, 0, 1, 1]])


def _bad(fault: str, what: str, write: Write, *said: str, first: bool = False, **more: object) -> BadFile:
    return BadFile(fault=fault, what=what, write=write, said=said, is_representative=first, **more)  # type: ignore[arg-type]


def _bad_csv(fault: str, what: str, raw: bytes | str, *said: str, first: bool = False) -> BadFile:
    return _bad(fault, what, content(raw), *said, first=first, name="cases.csv")


BAD_FILES: tuple[BadFile, ...] = (
    # columns
    _bad("W01", "missing", saved([WIDE[:2], ["1", CANARY]]), "sheet 'A'", "no column NarrativeLE", "found", first=True),
    _bad("W01", "renamed", saved([["IncidentID", "NarativeCME", "NarrativeLE"]]), "rename 'NarativeCME' to"),
    _bad("W01", "other case", saved([["incidentid", "NarrativeCME", "NarrativeLE"]]), "rename 'incidentid' to"),
    _bad("W01", "twice", saved([[*WIDE, WIDE[1]], ["1", CANARY, CANARY, "x"]]), "NarrativeCME is there twice"),
    _bad("W01", "no header", saved([["1", CANARY + " and on and on", CANARY * 3]]), "no column IncidentID"),
    _bad("W01", "half the labels", saved([[*WIDE, LABELS[0]], ["1", CANARY, CANARY, 1]]), "no column ipv_manualLE"),
    # ids
    _bad("W03", "1e15", _of_one_cell(1e15), "more than 15 digits", "A2", "format the column as Text", first=True),
    _bad("W03", "19 digits", _of_one_cell(1234567890123456789), "more than 15 digits", "A2"),
    _bad("W05", "boolean", _of_one_cell(True), "TRUE/FALSE", "A2"),
    _bad("W05", "date", _of_one_cell(datetime(2020, 5, 17)), "a date or time", "A2", first=True),
    _bad("W05", "formula", saved_by_excel([WIDE, ["=3*4", CANARY, CANARY]]), "computed by a formula", "A2"),
    _bad("W05", "line break", _of_one_cell("12\n3"), "line break or control character", "A2"),
    _bad("W05", "a text for an id", _of_one_cell(CANARY * 8), "longer than 128", "A2"),
    _bad("W05", "Excel error", _of_one_cell("#N/A"), "Excel error", "A2"),
    _bad("W06", "blank", _of_one_cell(None), "no incident id: A2", "--skip-blank-ids", first=True),
    _bad(
        "W06",
        "blank after a thousand good rows",
        saved([WIDE, *([f"x{n}", CANARY, CANARY] for n in range(1_000)), [None, CANARY, None]]),
        "no incident id: A1002",
        first=True,
    ),
    _bad("W06", "spaces", _of_one_cell(" \u00a0 "), "no incident id: A2"),
    # duplicates
    _bad(
        "W08",
        "another text",
        saved([WIDE, ["7", CANARY, None], ["7", CANARY + " twice", None], ["8", "x", None]]),
        "7/cme (rows 2, 3)",
        "--on-conflict first",
        first=True,
    ),
    # formulas and merges
    _bad("W09", "formula", saved([WIDE, ["1", '="Te"&"xt"', CANARY]]), "no saved value: B2", "as values", first=True),
    _bad(
        "W10",
        "merged ids",
        saved([WIDE, ["1", CANARY, CANARY], [None, CANARY, CANARY]], merged="A2:A3"),
        "cells are merged: A2:A3",
        "unmerge",
        first=True,
    ),
    _bad(
        "W10",
        "merged texts",
        saved([WIDE, ["1", CANARY, None], ["2", None, None]], merged="B2:C3"),
        "cells are merged: B2:C3",
    ),
    # sheets
    _bad(
        "W14",
        "two sheets",
        saved([WIDE, ["1", CANARY, None]], [WIDE, ["2", CANARY, None]], hidden=["B"]),
        "more than one sheet has the columns: 'A', 'B'",
        "--sheet",
        first=True,
    ),
    _bad("W14", "no such sheet", GOOD, "has no sheet 'a'; its sheets: 'A'", flags=("--sheet", "a")),
    _bad("W14", "blank sheets", saved([], []), "every sheet is blank at its top"),
    _bad(
        "W15",
        "rows out of order",
        patched(GOOD_SHARED, lambda xml: xml.replace(b'<row r="3"', b'<row r="1"')),
        "row 1 follows row 2",
        first=True,
    ),
    _bad(
        "W15",
        "a row beyond the last",
        patched(GOOD_SHARED, lambda xml: xml.replace(b'<row r="3"', b'<row r="1999999999"')),
        "row 1999999999 follows row 2",
    ),
    # bombs
    _bad(
        "W16",
        "ratio",
        patched(GOOD, lambda xml: xml.replace(b"</worksheet>", b" " * (8 << 20) + b"</worksheet>")),
        "unpacks to more than 200 times its size",
        first=True,
    ),
    _bad("W16", "parts", archived({f"xl/{n}": b"" for n in range(1_001)}), "1,001 parts"),
    _bad("W16", "a sheet", declaring("xl/worksheets/sheet1.xml", [(512 << 20) + 1]), "more than 512 MiB"),
    _bad("W16", "all", declaring("xl/media/image", [(512 << 20) + 1] * 2), "it unpacks to 1,024 MiB"),
    *(
        _bad(
            "W17",
            f"entities in {part.rpartition('/')[2]}",
            patched(GOOD_SHARED, _with_doctype(_BOMB), part),
            "declares entities",
        )
        for part in (SHEET_XML, "xl/workbook.xml", "[Content_Types].xml")
    ),
    _bad(
        "W17",
        "entities in a text",
        patched(GOOD_SHARED, _with_doctype(_BOMB, reference=True), "xl/sharedStrings.xml"),
        "declares entities",
        first=True,
    ),
    _bad(
        "W17",
        "a file outside",
        patched(GOOD_SHARED, _with_doctype(_XXE, reference=True), "xl/sharedStrings.xml"),
        "declares entities",
    ),
    # other formats
    _bad("W18", "encrypted or old", content(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600), "old .xls", first=True),
    _bad("W19", "CSV named xlsx", content(f"{LONG}1,cme,{CANARY},0\n"), "looks like CSV text", "rename", first=True),
    _bad("W19", "a document", archived({"word/document.xml": b"<x/>"}), "no Excel workbook"),
    _bad("W19", "xlsb", archived({"[Content_Types].xml": b"<x/>", "xl/workbook.bin": b""}), "binary workbook (.xlsb)"),
    _bad(
        "W19",
        "strict",
        patched(
            GOOD,
            lambda xml: xml.replace(
                b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
                b"http://purl.oclc.org/ooxml/spreadsheetml/main",
            ),
            "xl/workbook.xml",
        ),
        "Strict Open XML",
    ),
    _bad("W19", "no table", content(f"{LONG}1,cme,{CANARY},0\n"), ".sav files are not read", name="cases.sav"),
    _bad("W20", "empty", content(b""), "is empty (0 bytes)", "copy it again"),
    _bad("W20", "cut short", cut(GOOD, lambda raw: raw[:-200]), "damaged or cut short", "save it again", first=True),
    _bad("W20", "only its beginning", cut(GOOD, lambda raw: raw[:100]), "damaged or cut short"),
    _bad("W20", "a sheet cut", patched(GOOD_SHARED, lambda xml: xml[: len(xml) // 2]), "damaged or cut short"),
    _bad("W20", "a wrong index", patched(GOOD_SHARED, lambda xml: xml.replace(b"<v>", b"<v>9999")), "damaged"),
    _bad(
        "W20",
        "no sheet",
        patched(GOOD, lambda xml: xml.replace(b"worksheets/sheet1", b"worksheets/none"), "xl/_rels/workbook.xml.rels"),
        "cases.xlsx",
    ),
    # flags and texts
    _bad("W23", "a flag", _of_one_cell(2, column=3), "not 0, 1, TRUE, FALSE or blank: D2", first=True),
    _bad("W23", "a text for a flag", _of_one_cell(CANARY, column=5), "not 0, 1, TRUE, FALSE or blank: F2"),
    _bad("W23", "a date for a text", _of_one_cell(datetime(2020, 5, 17), column=1), "a date or time, not a text: B2"),
    _bad("W23", "#REF! for a text", _of_one_cell("#REF!", column=2), "Excel error such as #N/A: C2"),
    _bad("W23", "only blank texts", saved([WIDE, ["1", None, " "]]), "holds no narrative"),
    _bad("W23", "no row", saved([WIDE]), "holds no narrative"),
    # CSV
    _bad_csv("W24", "latin-1", LONG.encode() + f"1,cme,{CANARY} na\xefve,0\n".encode("latin-1"), "is not UTF-8"),
    _bad_csv("W24", "UTF-16", LONG.encode("utf-16"), "UTF-16", "CSV UTF-8"),
    _bad_csv("W24", "semicolons", LONG.replace(",", ";"), "separated by semicolons", "with commas"),
    _bad_csv("W24", "unclosed quote", f'{LONG}1,cme,"{CANARY},0\n', "row 2", "is not closed", first=True),
    _bad_csv("W24", "too few fields", f"{LONG}1,cme,{CANARY}\n", "row 2: has 3 fields, the header has 4"),
    _bad_csv("W24", "a comma in a text", f"{LONG}1,cme,{CANARY}, and on,0\n", "row 2: has 5 fields"),
    _bad_csv("W24", "another type", f"{LONG}1,police,{CANARY},0\n", "neither cme nor le: row 2"),
    _bad_csv("W24", "blank", "\n\n", "only blank lines"),
    _bad_csv("W24", "binary", b"\x89PNG\0\0", "neither a workbook nor a CSV table"),
    # what is no file
    _bad("W25", "missing", lambda path: None, "there is no such file", "check", first=True),
    _bad("W25", "directory", lambda path: path.mkdir(), "not a regular file", first=True),
    _bad("W25", "pipe", lambda path: os.mkfifo(path), "not a regular file", first=True),
    _bad(
        "W25", "a name that is too long", lambda path: None, "File name too long", first=True, name=f"{'x' * 300}.csv"
    ),
    _bad("W25", "link to itself", lambda path: path.symlink_to(path), "cases.xlsx"),
)

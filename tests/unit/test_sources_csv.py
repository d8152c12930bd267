"""Long and wide CSV tables, from bytes to narratives."""

from __future__ import annotations

from pathlib import Path

import pytest

from narrun_async.errors import BadInputError
from narrun_async.models import NarrativeType, SourceNarrative
from narrun_async.sources import open_source

HEADER = "incident_id,narrative_type,narrative_text,manual_flag_ind,manual_flag\n"


def _write(tmp_path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = tmp_path / "cases.csv"
    path.write_bytes(text.encode(encoding))
    return path


def _read(path: Path) -> list[SourceNarrative]:
    return list(open_source(path).iter_narratives())


def _refusal(path: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        _read(path)
    return str(caught.value)


def test_a_long_table_gives_its_rows_with_both_flags(tmp_path: Path) -> None:
    rows = (
        '007,CME,"One, with ""quotes""\r\nand two lines",1,1\n007, le ,Another,0,TRUE\n8,le,NA,NA,NA\n9,cme,_x000D_,,\n'
    )
    path = _write(tmp_path, HEADER + rows, encoding="utf-8-sig")
    source = open_source(path)
    found = list(source.iter_narratives())
    assert [(n.incident_id, n.narrative_type, n.manual_flag_ind, n.manual_flag, n.row) for n in found] == [
        ("007", NarrativeType.CME, 1, 1, 2),
        ("007", NarrativeType.LE, 0, 1, 3),
        ("9", NarrativeType.CME, None, None, 5),
    ]
    assert found[0].narrative_text == 'One, with "quotes"\nand two lines'
    assert found[2].narrative_text == "_x000D_"
    summary = source.summary()
    assert (summary.n_cases, summary.n_blank, summary.n_texts_repaired) == (3, 1, 0)


def test_a_wide_table_is_read_as_a_workbook_would_be(tmp_path: Path) -> None:
    path = _write(tmp_path, "\nNarrativeLE,IncidentID,NarrativeCME\nText L,5,Text C\n,6,Text D\n")
    found = [(n.incident_id, n.narrative_type, n.narrative_text, n.row) for n in _read(path)]
    assert found == [("5", "cme", "Text C", 3), ("5", "le", "Text L", 3), ("6", "cme", "Text D", 4)]


@pytest.mark.fault("W24")
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,cme,a,0\n", "row 2: has 4 fields, the header has 5"),
        ('1,cme,"never closed,0,0\n', "row 2 (ends at line 2): a quoted text is not closed"),
        ('1,cme,"a" b,0,0\n', "row 2 (ends at line 2): a quoted text is not closed, goes on after"),
        ("1,police,a,0,0\n2,,b,0,0\n", "neither cme nor le: row 2 (narrative_type), row 3 (narrative_type)"),
        ("1,cme,a,maybe,0\n", "not 0, 1, TRUE, FALSE or blank: row 2 (manual_flag_ind)"),
        (" ,cme,a,0,0\n", "no incident id: row 2 (incident_id)"),
        ("", "holds no narrative"),
        ("1,cme, ,0,0\n", "holds no narrative"),
    ],
    ids=["fields", "unclosed", "after-quote", "type", "flag", "blank-id", "no-rows", "only-blank"],
)
def test_what_cannot_be_taken_is_refused_by_row(tmp_path: Path, rows: str, said: str) -> None:
    assert said in _refusal(_write(tmp_path, HEADER + rows))


@pytest.mark.fault("W24")
def test_bytes_that_are_no_utf8_are_refused_without_showing_them(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(HEADER.encode() + b"1,cme,invented na\xefve,0,0\n")
    with pytest.raises(BadInputError) as caught:
        _read(path)
    assert "is not UTF-8" in str(caught.value)
    assert "invented" not in repr(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.fault("W24")
@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path: Path, separator: str, name: str) -> None:
    assert f"separated by {name}" in _refusal(_write(tmp_path, HEADER.replace(",", separator)))


@pytest.mark.fault("W03", "W04")
def test_ids_that_have_lost_digits_or_differ_by_spaces_are_warned_of(tmp_path: Path) -> None:
    rows = "1e+05,cme,a,0,0\n77,cme,b,0,0\n 77 ,le,c,0,0\n 8,cme,d,0,0\n8,le,e,0,0\n"
    source = open_source(_write(tmp_path, HEADER + rows))
    assert [n.incident_id for n in source.iter_narratives()] == ["1e+05", "77", "77", "8", "8"]
    warnings = "\n".join(source.summary().warnings)
    assert "scientific notation" in warnings and "row 2 (incident_id)" in warnings
    assert "once the spaces around it are removed: row 4 (incident_id), row 6 (incident_id)" in warnings


def test_a_text_longer_than_the_csv_module_allows_is_read(tmp_path: Path) -> None:
    assert len(_read(_write(tmp_path, f"{HEADER}1,cme,{'word ' * 60_000},0,0\n"))[0].narrative_text) == 300_000


@pytest.mark.fault("W12")
def test_nul_and_controls_are_replaced_and_counted(tmp_path: Path) -> None:
    # NUL in the first 4,096 bytes would make it no text at all.
    padding = "".join(f"{n},cme,{'word ' * 100},0,0\n" for n in range(10))
    source = open_source(_write(tmp_path, f"{HEADER}{padding}x,cme,a\0b\x1fc,0,0\n"))
    assert list(source.iter_narratives())[-1].narrative_text == "a\ufffdb\ufffdc"
    assert source.summary().n_texts_repaired == 1


def test_the_year_of_an_incident_comes_with_each_of_its_narratives(tmp_path: Path) -> None:
    path = _write(tmp_path, "IncidentID,NarrativeCME,NarrativeLE,IncidentYear\n5,a,b,2016\n6,c,,\n7,d,,unknown\n")
    source = open_source(path)
    assert [one.incident_year for one in source.iter_narratives()] == [2016, 2016, None, None]
    assert source.summary().warnings == ("the year of an incident is none, and was left out: row 4 (IncidentYear)",)
    long = _write(tmp_path, "incident_id,narrative_type,narrative_text,manual_flag_ind,incident_year\n5,le,a,0,2019\n")
    assert [one.incident_year for one in _read(long)] == [2019]

"""What single cells mean."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from narrun_async.sources import cells
from narrun_async.sources.cells import Rejection, parse_flag, parse_incident_id, parse_text, parse_year


@pytest.mark.fault("W02", "W04")
@pytest.mark.parametrize(
    ("value", "incident_id"),
    [
        (12345, "12345"),
        (12345.0, "12345"),
        (999_999_999_999_999, "999999999999999"),
        (-3.0, "-3"),
        (12.5, "12.5"),
        ("00123", "00123"),
        (" 77\u00a0", "77"),
        ("12345.0", "12345.0"),
        (None, ""),
        ("  ", ""),
    ],
)
def test_an_id_is_text_and_keeps_its_zeros(value: object, incident_id: str) -> None:
    assert parse_incident_id(value) == incident_id


@pytest.mark.fault("W03", "W05")
@pytest.mark.parametrize(
    ("value", "rejection"),
    [
        (True, cells.ID_BOOLEAN),
        (datetime(2020, 1, 1), cells.ID_DATE),
        (date(2020, 1, 1), cells.ID_DATE),
        (timedelta(days=1), cells.ID_DATE),
        (10**15, cells.ID_TOO_PRECISE),
        (1.234567890123457e18, cells.ID_TOO_PRECISE),
        (-1e15, cells.ID_TOO_PRECISE),
        (float("inf"), cells.ID_TOO_PRECISE),
        ("#N/A", cells.EXCEL_ERROR),
        ("x" * 129, cells.ID_TOO_LONG),
        ("12\n3", cells.ID_UNPRINTABLE),
        ("12\ud800", cells.ID_UNPRINTABLE),
    ],
    ids=lambda value: value.problem[:20] if isinstance(value, Rejection) else type(value).__name__,
)
def test_an_id_that_is_no_plain_text_or_whole_number_is_rejected(value: object, rejection: Rejection) -> None:
    assert parse_incident_id(value) is rejection


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "0.0", "FALSE", " false "])
def test_every_way_to_write_no_is_0(value: object) -> None:
    assert parse_flag(value) == 0
    assert type(parse_flag(value)) is int


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "TRUE", "True"])
def test_every_way_to_write_yes_is_1(value: object) -> None:
    assert parse_flag(value) == 1
    assert type(parse_flag(value)) is int


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_blank_flag_is_no_label(value: object) -> None:
    assert parse_flag(value) is None


@pytest.mark.fault("W23")
@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", "01", "NA", datetime(2020, 1, 1)])
def test_any_other_flag_is_rejected(value: object) -> None:
    assert parse_flag(value) is cells.BAD_FLAG


def test_a_text_is_taken_as_it_stands() -> None:
    assert parse_text("  two spaces before ") == "  two spaces before "
    assert parse_text(" \n\u00a0") == ""
    assert parse_text(None) == ""
    assert parse_text(7) == "7"
    assert parse_text(True) == "TRUE"


@pytest.mark.fault("W23")
def test_a_date_or_an_error_is_no_text() -> None:
    assert parse_text(datetime(2020, 1, 1)) is cells.TEXT_IS_DATE
    assert parse_text("#REF!") is cells.EXCEL_ERROR


@pytest.mark.parametrize("value", [2016, 2016.0, "2016", " 2016 ", "2016.0", datetime(2016, 5, 1)])
def test_every_way_to_write_a_year_is_one(value: object) -> None:
    assert parse_year(value) == 2016
    assert type(parse_year(value)) is int


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_blank_year_is_unknown(value: object) -> None:
    assert parse_year(value) is None


@pytest.mark.parametrize(
    "value", [16, 2016.5, True, 9999, 0, "unknown", "16", "20160", "\u0662\u0660\u0661\u0666", "#N/A"]
)
def test_what_is_no_year_is_said_to_be_none(value: object) -> None:
    assert parse_year(value) is cells.BAD_YEAR

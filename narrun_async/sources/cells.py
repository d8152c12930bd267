"""Decides what one cell means as an id, a flag or a text. Pure: a cell that cannot be taken is a `Rejection`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

#: Excel keeps 15 significant digits of a number; from here on the last ones of an id may be gone
_FIRST_UNSAFE_NUMBER = 10**15
_MAX_ID_CHARS = 128
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_EXCEL_ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA"})
#: beyond these a number is no year of an incident that anybody has a narrative of
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
_FLAG_WORDS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a cell cannot be taken; the same for every such cell, so that cells can be listed under it."""

    problem: str
    advice: str


BLANK_ID = Rejection(
    problem="rows have a narrative but no incident id",
    advice="fill the ids in, or drop these rows with --skip-blank-ids",
)
ID_TOO_PRECISE = Rejection(
    problem="an id is stored as a number with more than 15 digits, of which Excel keeps only 15",
    advice="format the column as Text and enter these ids again",
)
ID_BOOLEAN = Rejection(problem="an id is a TRUE/FALSE value", advice="enter the id as text")
ID_DATE = Rejection(problem="an id is a date or time", advice="format the column as Text and enter these ids again")
ID_FORMULA = Rejection(problem="an id is computed by a formula", advice="replace the formulas by their values")
ID_TOO_LONG = Rejection(
    problem=f"an id is longer than {_MAX_ID_CHARS} characters", advice="check that the id column holds the ids"
)
ID_UNPRINTABLE = Rejection(problem="an id holds a line break or control character", advice="enter the id again")
EXCEL_ERROR = Rejection(problem="a cell holds an Excel error such as #N/A", advice="correct or empty these cells")
BAD_FLAG = Rejection(problem="a flag is not 0, 1, TRUE, FALSE or blank", advice="correct these cells")
TEXT_IS_DATE = Rejection(
    problem="a narrative is a date or time, not a text", advice="format these cells as Text and enter them again"
)
FORMULA_WITHOUT_VALUE = Rejection(
    problem="a formula has no saved value", advice="open the workbook in Excel, paste the column as values, and save it"
)
BAD_YEAR = Rejection(problem="the year of an incident is none", advice="correct or empty these cells")
BAD_TYPE = Rejection(problem="a narrative type is neither cme nor le", advice="correct these cells")


def parse_incident_id(value: object) -> str | Rejection:
    """An id as text; "" where the cell is blank. Zeros in front of a text are kept, spaces around it are not."""
    match value:
        case None:
            return ""
        case bool():
            return ID_BOOLEAN
        case int() | float():
            return _numeric_id(value)
        case str():
            return _text_id(value.strip())
        case _:
            return ID_DATE


def parse_flag(value: object) -> int | Rejection | None:
    """0, 1, or None where the cell is blank."""
    match value:
        case None:
            return None
        case bool() | int() | float():
            return int(value) if value in (0, 1) else BAD_FLAG
        case str():
            word = value.strip()
            if not word:
                return None
            flag = _FLAG_WORDS.get(word.lower())
            if flag is not None:
                return flag
            return EXCEL_ERROR if word in _EXCEL_ERRORS else BAD_FLAG
        case _:
            return BAD_FLAG


def parse_year(value: object) -> int | Rejection | None:
    """A year, also that of a date; None where the cell is blank."""
    match value:
        case None:
            return None
        case date():
            return value.year
        case bool():
            return BAD_YEAR
        case int() | float():
            return int(value) if _FIRST_YEAR <= value <= _LAST_YEAR and value == int(value) else BAD_YEAR
        case str():
            word = value.strip().removesuffix(".0")
            if not word:
                return None
            return parse_year(int(word)) if word.isascii() and word.isdigit() and len(word) == 4 else BAD_YEAR
        case _:
            return BAD_YEAR


def parse_text(value: object) -> str | Rejection:
    """A narrative as it stands; "" where the cell is blank. A number becomes its digits."""
    match value:
        case None:
            return ""
        case str():
            if not value.strip():
                return ""
            return EXCEL_ERROR if value.strip() in _EXCEL_ERRORS else value
        case bool():
            return str(value).upper()
        case int() | float():
            return str(value)
        case _:
            return TEXT_IS_DATE


def _numeric_id(value: int | float) -> str | Rejection:
    if abs(value) >= _FIRST_UNSAFE_NUMBER:
        return ID_TOO_PRECISE
    return str(int(value)) if value == int(value) else repr(value)


def _text_id(text: str) -> str | Rejection:
    if text in _EXCEL_ERRORS:
        return EXCEL_ERROR
    if len(text) > _MAX_ID_CHARS:
        return ID_TOO_LONG
    return ID_UNPRINTABLE if _UNPRINTABLE.search(text) else text

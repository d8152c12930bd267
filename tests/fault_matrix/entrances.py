"""Owns the rows W,Y of the fault matrix."""

from __future__ import annotations

from fault_matrix.rows import FaultRow

_REFUSED = "exit 65, one sentence with file, sheet and cell and what to do, no narrative text; database byte-identical"
_UNREAD = "exit 65, one sentence with the file and what to do; database byte-identical"
_WRONG = "exit 78, one sentence with file, line and key; nothing is made; at most 1 s and 100 MB"


def _workbook(number: int, fault: str, injected: str, required: str = _REFUSED) -> FaultRow:
    return FaultRow(id=f"W{number:02}", fault=fault, injected=injected, required=required)


def _settings(number: int, fault: str, injected: str, required: str = _WRONG) -> FaultRow:
    return FaultRow(id=f"Y{number:02}", fault=fault, injected=injected, required=required)


ROWS: tuple[FaultRow, ...] = (
    _workbook(1, "columns are missing, renamed or there twice", "workbooks with such headers, or with none"),
    _workbook(
        2,
        "ids are stored as numbers",
        "12345, 12345.0, 12345.5, fifteen digits",
        "whole numbers become their digits, others keep their text",
    ),
    _workbook(3, "ids have lost digits", "1e15, nineteen digits, in cells of numbers"),
    _workbook(
        4,
        "zeros in front of ids, spaces around them",
        "'00123', ' 77 ' beside '77'",
        "zeros stay, spaces go; ids that become one are named",
    ),
    _workbook(5, "ids are no text", "TRUE, dates, formulas, line breaks, Excel errors, whole narratives as ids"),
    _workbook(
        6,
        "a narrative has no id",
        "blank cells and blanks before a text",
        f"{_REFUSED}; with --skip-blank-ids such rows are dropped and counted",
    ),
    _workbook(
        7, "a narrative is there twice with the same text", "two equal rows", "stored once, the duplicate is counted"
    ),
    _workbook(
        8,
        "a narrative is there twice with different texts",
        "two rows of one key",
        "exit 65, the keys with their rows; with --on-conflict first the first is kept and the other counted",
    ),
    _workbook(9, "a formula has no saved value", "cells of formulas written without Excel"),
    _workbook(10, "cells are merged", "merged ranges in the columns of ids and texts"),
    _workbook(
        11,
        "Excel's escapes in texts",
        "_x000D_, _x005F_x0041_ in shared and in inline strings",
        "decoded once, line ends unified, the canonical text is what is hashed and stored",
    ),
    _workbook(
        12,
        "NUL, controls, lone surrogates",
        "escapes of them, bytes in a table",
        "replaced by U+FFFD and counted; every text can be stored",
    ),
    _workbook(13, "a cell is full", "32,767 characters", "taken, with a warning that names the cell"),
    _workbook(14, "several sheets, hidden sheets", "two sheets with the columns; one, hidden; none"),
    _workbook(
        15,
        "the sheet lies about its size",
        "a stale <dimension>, rows out of order, rows beyond the last",
        "every row is read, or the file is refused; database byte-identical",
    ),
    _workbook(
        16,
        "zip bombs",
        "a part of 200 times its size, 1,001 parts, declared sizes beyond 512 MiB and 1 GiB, a cell of 8 MiB",
        f"{_UNREAD}; nothing is unpacked, or no more than 4 MiB of a cell",
    ),
    _workbook(
        17,
        "entity bombs, external entities",
        "DOCTYPE in the sheet, the strings, the workbook and the list of parts",
        f"{_UNREAD}; nothing is expanded",
    ),
    _workbook(18, "encrypted or old workbooks", "files that begin as OLE does", _UNREAD),
    _workbook(
        19, "other formats under this name", "CSV as .xlsx, .docx, .xlsb, Strict Open XML, .sav", f"{_UNREAD}, by name"
    ),
    _workbook(
        20,
        "damaged workbooks",
        "empty, cut short, a sheet cut, wrong indices, a byte flipped at every 97th offset",
        f"{_UNREAD}; never anything but a refusal",
    ),
    _workbook(21, "the file changes while it is read", "a table that grows under the reader", _UNREAD),
    _workbook(
        22,
        "the file has changed or is gone on resume",
        "edited, deleted, replaced by a directory after the experiment was created",
        "the run works from the database and says so; only `ingest` refuses",
    ),
    _workbook(23, "flags and texts of the wrong kind", "2, words, dates, #REF!; blank texts only; no row"),
    _workbook(
        24,
        "tables that are no CSV in UTF-8",
        "latin-1, UTF-16, semicolons, open quotes, missing fields, other types, binary",
        f"{_UNREAD}, by row",
    ),
    _workbook(
        25,
        "no file is there",
        "a missing file, a directory, a pipe, a name that is too long, links in a circle",
        _UNREAD,
    ),
    _workbook(
        26,
        "ingest is killed",
        "SIGKILL at random moments of `narrun ingest` (5 kills, 100 in the long tier)",
        "every row of the file is stored, or none; the next ingest works",
    ),
    _workbook(
        27,
        "a file is loaded again",
        "the same under another name, shuffled, a part, more, changed, and other cases",
        "equal: nothing happens; a part, an overlap or a changed text: exit 65, database byte-identical; disjoint: "
        "added, and existing experiments keep their cohort (I3, I11)",
    ),
    _workbook(
        28,
        "a large file",
        "200,000 rows as CSV and as workbook (4,000 in the quick tier)",
        "at most 400 MB of memory and 60 s",
    ),
    _settings(1, "a key or section is there twice", "YAML with two of them"),
    _settings(
        2,
        "plain words that YAML takes for something else",
        "no, 1e5, 012, 12:30:45, a date, where text or a number is due",
    ),
    _settings(3, "aliases", "a bomb of nine to the power of ten values, an alias of itself, a merge key"),
    _settings(4, "depth", "a million brackets, 50,000 mappings inside each other"),
    _settings(5, "bytes that are no text", "NUL, latin-1, UTF-16, tabs, control characters, half characters"),
    _settings(6, "size", "2 MiB, 300,000 values, a number of 5,000 digits"),
    _settings(7, "another shape", "two documents, a list, words, nothing, an open quote"),
    _settings(8, "tags", "!!python/object/apply, !!binary", f"{_WRONG}; nothing is run"),
    _settings(
        9,
        "unknown and missing keys",
        "misspelt keys and sections, a key in another section",
        f"{_WRONG}, with the key that was meant",
    ),
    _settings(
        10,
        "values of another type or out of range",
        "text for numbers, NaN, infinity, prompts for numbers",
        f"{_WRONG}; the value is not repeated",
    ),
    _settings(
        11,
        "the endpoint's address and its variables",
        "variables that are not set or bring a password, keys in the address",
        f"{_WRONG}; no secret is shown, and prompts are never expanded",
    ),
    _settings(12, "prompts", "no <<TEXT>>, blank, missing files, text and file at once"),
    _settings(
        13, "keys", "in the file, variables not set, two lines, a missing key file", f"{_WRONG}; no key is shown"
    ),
    _settings(
        14,
        "switches and variables that make no sense",
        "RESUME=maybe, RETRY_ERRORS_ONLY without RESUME, an id without RESUME, flags against each other, NARRUN_ slips",
        "exit 2, the variable or flag named; nothing is made; 1, true, yes, 0, false, no are taken",
    ),
    _settings(
        15,
        "ids that lead nowhere",
        "RESUME without id, unknown, short, ambiguous, `../x`, SQL, 10,000 characters",
        "exit 2, those that fit or can be resumed are listed; database byte-identical; a configuration beside an id "
        "is compared and changes nothing",
    ),
)

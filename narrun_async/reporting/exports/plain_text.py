"""Writes results as CSV, as one JSON document, and as JSON lines."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from narrun_async.codebook import PROMPT_COLUMNS
from narrun_async.models import Experiment
from narrun_async.reporting.exports.files import Remark, TextFile
from narrun_async.reporting.exports.workbook import quote_cell


class CsvFile:
    """RFC 4180 in UTF-8; NULL is empty, values as stored.

    :param excel_safe: put an apostrophe before texts that a spreadsheet program would take for a formula
    """

    def __init__(self, path: Path, columns: Sequence[str], *, excel_safe: bool = False, bom: bool = False) -> None:
        self._file = TextFile(path, bom=bom)
        self._columns = columns
        self._cell: Callable[[object], object] = (lambda value: quote_cell(plain(value))) if excel_safe else plain
        self._writer = csv.writer(self._file, lineterminator="\r\n")
        self._writer.writerow(columns)

    def write_row(self, row: Mapping[str, object]) -> None:
        self._writer.writerow([self._cell(row.get(name)) for name in self._columns])

    def finish(self) -> Sequence[Remark]:
        self._file.finish()
        return ()

    def close(self) -> None:
        self._file.close()


class JsonLinesFile:
    """One object a line, where `indicators` is a list."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = TextFile(path)
        self._columns = columns

    def write_row(self, row: Mapping[str, object]) -> None:
        self._file.write(f"{_result_json(row, self._columns)}\n")

    def finish(self) -> Sequence[Remark]:
        self._file.finish()
        return ()

    def close(self) -> None:
        self._file.close()


class JsonFile:
    """`{"experiment": {…}, "results": […]}`; a result a line, so that line tools can read it, too."""

    def __init__(self, path: Path, columns: Sequence[str], experiment: Experiment, *, with_text: bool) -> None:
        self._file = TextFile(path)
        self._columns = columns
        self._lead = "\n"
        settings = {
            name: _json_value(value)
            for name, value in experiment.columns.items()
            if with_text or name not in PROMPT_COLUMNS
        }
        self._file.write(f'{{"experiment": {_dumps(settings)},\n"results": [')

    def write_row(self, row: Mapping[str, object]) -> None:
        self._file.write(f"{self._lead}{_result_json(row, self._columns)}")
        self._lead = ",\n"

    def finish(self) -> Sequence[Remark]:
        self._file.write("\n]}\n")
        self._file.finish()
        return ()

    def close(self) -> None:
        self._file.close()


def indicator_list(stored: object) -> list[object] | None:
    """The stored JSON array as a list; text that is no array, as in some legacy rows, is a list of one."""
    if stored is None or stored == "":
        return None
    try:
        value = json.loads(str(stored))
        _dumps(value)  # refuses NaN and infinities, which no JSON reader would take back
    except (ValueError, RecursionError):
        return [stored]
    if isinstance(value, list):
        return value
    return [value] if value else []


def plain(value: object) -> object:
    """SQLite columns hold whatever was put into them; bytes have no form of their own in most formats."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _result_json(row: Mapping[str, object], columns: Sequence[str]) -> str:
    values = {name: _json_value(row.get(name)) for name in columns}
    if "indicators" in values:
        values["indicators"] = indicator_list(values["indicators"])
    return _dumps(values)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _json_value(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return plain(value)

"""Writes `<experiment_id>.codebook.csv`: what every column of an export means, and what became of it in each file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.codebook import Column
from narrun_async.reporting.exports.files import Remark
from narrun_async.reporting.exports.plain_text import CsvFile

_NUMBER_MISSING = "empty (csv, xlsx), null (json, jsonl, parquet), system missing (dta, sav, xpt)"
_TEXT_MISSING = "empty (csv, xlsx, dta, sav, xpt), null (json, jsonl, parquet)"


def write_codebook(path: Path, columns: Sequence[Column], remarks: Sequence[Remark], *, bom: bool) -> None:
    """One row a column, in the order of the export.

    :param remarks: what the formats of this export could not hold
    :raises OSError: the file refuses
    """
    rows = [_described(position, column, remarks) for position, column in enumerate(columns, 1)]
    file = CsvFile(path, list(rows[0]), bom=bom)
    try:
        for row in rows:
            file.write_row(row)
        file.finish()
    finally:
        file.close()


def _described(position: int, column: Column, remarks: Sequence[Remark]) -> dict[str, object]:
    return {
        "position": position,
        "name": column.name,
        "name_in_xpt_v5": column.short_name,
        "label": column.label,
        "type": column.kind.value,
        "unit": column.unit,
        "meaning": column.meaning,
        "values": "; ".join(f"{value} = {label}" for value, label in column.values.items()),
        "missing_means": column.missing or "never empty",
        "missing_code": (_NUMBER_MISSING if column.kind.is_numeric else _TEXT_MISSING) if column.missing else "",
        "remarks": "; ".join(str(one) for one in remarks if one.column == column.name),
    }

"""Owns reading: a workbook or a CSV table in, canonical narratives out. It stores nothing.

Nothing here imports openpyxl until a workbook is opened, so asking for a checksum stays cheap.
"""

from __future__ import annotations

from pathlib import Path

from narrun_async.errors import BadInputError
from narrun_async.ports import NarrativeSource
from narrun_async.sources.files import FileKind, file_checksum, file_md5, read_file, sniff_kind

__all__ = ["file_checksum", "file_md5", "open_source"]


def open_source(path: Path, *, sheet: str | None = None, skip_blank_ids: bool = False) -> NarrativeSource:
    """Read a file once and find its columns; its rows are read by `iter_narratives`, again from those bytes.

    :param sheet: the worksheet to take; needed where more than one has the columns
    :param skip_blank_ids: drop rows that have a text and no id, and count them, instead of refusing the file
    :raises BadInputError: the file cannot be read, is no workbook or CSV, or lacks the columns
    """
    from narrun_async.sources.table import TableSource

    file = read_file(path)
    if sniff_kind(file) is FileKind.WORKBOOK:
        from narrun_async.sources.workbook import open_workbook

        return TableSource(open_workbook(file, sheet=sheet), checksum=file.checksum, skip_blank_ids=skip_blank_ids)
    if sheet is not None:
        raise BadInputError(f"{path}: is a CSV table, which has no sheet {sheet!r}", advice="leave the sheet out")
    from narrun_async.sources.csv_table import open_csv

    return TableSource(open_csv(file), checksum=file.checksum, skip_blank_ids=skip_blank_ids)

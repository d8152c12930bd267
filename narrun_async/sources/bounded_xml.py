"""Bounds what one text of a workbook may take while it is parsed: a cell of a gigabyte packs into a few megabytes."""

from __future__ import annotations

import re
from typing import IO, Self

from narrun_async.errors import BadInputError

#: Excel's 32,767 characters of a cell, as escapes and in runs of their own, are far below this
MAX_ELEMENT_BYTES = 4 << 20

# what a sheet may hold without end: cells, and after them merges, links and rules
_NEXT = re.compile(
    rb"<(?:\w+:)?(?:c|row|mergeCell|hyperlink|cfRule|conditionalFormatting|dataValidation|ignoredError|brk|col)[\s/>]"
)


class BoundedXml:
    """Reads a part of a workbook, and refuses once too much has come since the last element was complete."""

    def __init__(self, stream: IO[bytes], *, where: str, sees_cells: bool) -> None:
        """:param sees_cells: the next cell or row completes the one before; else `completed` has to be called"""
        self._stream = stream
        self._where = where
        self._sees_cells = sees_cells
        self._pending_bytes = 0

    def completed(self) -> None:
        """An element is through."""
        self._pending_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """:raises BadInputError: one element takes more than any that Excel writes"""
        chunk = self._stream.read(size)
        if self._sees_cells and _NEXT.search(chunk):
            self._pending_bytes = 0
        self._pending_bytes += len(chunk)
        if self._pending_bytes > MAX_ELEMENT_BYTES:
            raise BadInputError(
                f"{self._where}: is not read on: one cell takes more than {MAX_ELEMENT_BYTES >> 20} MiB",
                advice="open the workbook in Excel and save it again",
            )
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

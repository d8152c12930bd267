"""Owns the string table of a workbook, compressed: whole narratives live in it, and few are needed at a time."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import IO

from openpyxl.cell.text import Text
from openpyxl.xml.constants import SHEET_MAIN_NS
from openpyxl.xml.functions import iterparse

from narrun_async.sources.bounded_xml import BoundedXml

_BLOCK_STRINGS = 256
#: strings come in the order of the rows, so that one block serves most look-ups
_CACHED_BLOCKS = 16


class SharedStrings:
    """The strings of a workbook by index, with Excel's escapes left as they are."""

    def __init__(self, stream: IO[bytes], *, where: str) -> None:
        """:raises BadInputError: one string takes more than any that Excel writes"""
        self._blocks: list[bytes] = []
        self._cache: OrderedDict[int, list[str]] = OrderedDict()
        self._length = 0
        pending: list[str] = []
        bounded = BoundedXml(stream, where=where, sees_cells=False)
        for _, node in iterparse(bounded):
            if node.tag == f"{{{SHEET_MAIN_NS}}}si":
                text = Text.from_tree(node)
                pending.append(text.content if text is not None else "")
                node.clear()
                bounded.completed()
                if len(pending) == _BLOCK_STRINGS:
                    self._add_block(pending)
                    pending = []
        if pending:
            self._add_block(pending)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._length:
            raise IndexError(index)
        block, offset = divmod(index, _BLOCK_STRINGS)
        return self._block(block)[offset]

    def _add_block(self, strings: list[str]) -> None:
        # NUL cannot occur in XML, so it separates.
        self._blocks.append(zlib.compress("\0".join(strings).encode(), 1))
        self._length += len(strings)

    def _block(self, number: int) -> list[str]:
        strings = self._cache.get(number)
        if strings is None:
            strings = zlib.decompress(self._blocks[number]).decode().split("\0")
            self._cache[number] = strings
            if len(self._cache) > _CACHED_BLOCKS:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(number)
        return strings

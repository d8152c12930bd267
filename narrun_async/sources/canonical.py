"""Owns the canonical form of a narrative: the one text that is hashed, stored and sent. Pure."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

# C0 controls other than tab and line feed, and DEL: no narrative means them, and NUL breaks equality in SQLite.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SURROGATE_PAIRS = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")


def canonical_text(raw: str) -> tuple[str, bool]:
    """The canonical text, and whether a character had to be replaced.

    Line ends become LF, which counts as no repair. Controls and lone surrogates become U+FFFD; two surrogates that
    make a character become that character. Nothing is stripped. Safe to repeat: a canonical text is its own.
    """
    lines = raw.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub(REPLACEMENT, lines)
    if _SURROGATES.search(text):
        text = _SURROGATES.sub(REPLACEMENT, _SURROGATE_PAIRS.sub(_joined, text))
    return text, text != lines


def decode_excel_escapes(raw: str) -> str:
    """Undo the `_xHHHH_` escapes of a workbook's strings, once, from left to right (ECMA-376 part 1, 22.4.2.4).

    An escaped underscore protects what follows: `_x005F_x000D_` is the text `_x000D_`.
    """
    return _EXCEL_ESCAPE.sub(lambda match: chr(int(match[1], 16)), raw) if "_x" in raw else raw


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")

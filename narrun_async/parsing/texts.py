"""Makes text from outside storable: no NUL, no lone surrogate, no more of it than wanted."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean_text(text: str) -> str:
    """The text with U+FFFD for every NUL and lone surrogate.

    SQLite compares and measures text only up to a NUL, and a lone surrogate cannot be encoded when it is bound.
    """
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; the last one is an ellipsis where something was cut off."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def stored_raw(body: bytes, limit_bytes: int = 65_536) -> str:
    """Text for the `raw_response` column: at most the first `limit_bytes` of the body, never half a character."""
    text = body[:limit_bytes].decode("utf-8", errors="replace")
    if len(body) > limit_bytes and text.endswith(_REPLACEMENT):
        text = text[:-1]
    return clean_text(text)

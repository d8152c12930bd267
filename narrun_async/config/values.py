"""Owns what any text of a configuration has to be, whatever it is for."""

from __future__ import annotations

import json
import unicodedata
from typing import Annotated, TypeVar

from pydantic import AfterValidator, JsonValue

#: longest one-line setting, in characters
MAX_LINE_CHARS = 1_000

Json = TypeVar("Json", str, dict[str, JsonValue])


def _encodable(value: Json) -> Json:
    # environment variables and JSON escapes can bring lone surrogates, which no UTF-8 text holds
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode text") from None
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _one_line(value: str) -> str:
    if len(value) > MAX_LINE_CHARS:
        raise ValueError(f"must be at most {MAX_LINE_CHARS:,} characters long")
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in value):
        raise ValueError("must be one line without control characters")
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Line = Annotated[Text, AfterValidator(_not_blank), AfterValidator(_one_line)]
ProseText = Annotated[Text, AfterValidator(_not_blank)]
JsonFields = Annotated[dict[str, JsonValue], AfterValidator(_encodable)]

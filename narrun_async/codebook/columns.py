"""The description of one column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds; the words are those of the codebook."""

    #: 0 or 1
    FLAG = "0 or 1"
    WHOLE = "whole number"
    NUMBER = "number"
    TEXT = "text"
    #: a JSON array of texts
    LIST = "text, a JSON array"
    #: `YYYY-MM-DD HH:MM:SS` without a zone
    LOCAL_TIME = "text, local time YYYY-MM-DD HH:MM:SS"
    #: ISO 8601
    UTC_TIME = "text, UTC time YYYY-MM-DDTHH:MM:SS.sss+00:00"

    @property
    def is_numeric(self) -> bool:
        return self in (Kind.FLAG, Kind.WHOLE, Kind.NUMBER)


YES_NO: Mapping[int | str, str] = {0: "no", 1: "yes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, described for people and for statistics packages."""

    name: str
    #: upper case, at most 8 characters, unique: its name in a SAS transport file of version 5
    short_name: str
    kind: Kind
    #: a variable label: ASCII, at most 40 characters, which is what such a file holds
    label: str
    #: one or two sentences
    meaning: str
    #: what a number counts or measures; empty where it has no unit
    unit: str = ""
    #: value → what it stands for; empty where any value of the kind may stand
    values: Mapping[int | str, str] = field(default_factory=dict)
    #: what it means that the cell is empty; empty where it never is
    missing: str = ""
    #: holds the narrative or quotes it, and so is left out unless texts are asked for
    is_text: bool = False

"""Decides from a header which columns hold what: one row a case (wide) or one row a narrative (long). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from narrun_async.errors import BadInputError
from narrun_async.models import NarrativeType

WIDE_ID = "IncidentID"
#: in the order in which a case's narratives are read
WIDE_TEXTS = {NarrativeType.CME: "NarrativeCME", NarrativeType.LE: "NarrativeLE"}
WIDE_FLAGS = {NarrativeType.CME: "ipv_manualCME", NarrativeType.LE: "ipv_manualLE"}
WIDE_CASE_FLAG = "ipv_manual"
WIDE_YEAR = "IncidentYear"

LONG_ID = "incident_id"
LONG_TYPE = "narrative_type"
LONG_TEXT = "narrative_text"
LONG_FLAG = "manual_flag_ind"
LONG_CASE_FLAG = "manual_flag"
LONG_YEAR = "incident_year"

_WIDE_REQUIRED = (WIDE_ID, *WIDE_TEXTS.values())
_WIDE_LABELS = (*WIDE_FLAGS.values(), WIDE_CASE_FLAG)
_LONG_REQUIRED = (LONG_ID, LONG_TYPE, LONG_TEXT, LONG_FLAG)
# A header row may turn out to be a row of narratives; their text must not reach a message.
_MAX_SHOWN_CHARS = 32
_MAX_SHOWN_WORDS = 3
_MAX_SHOWN_NAMES = 20
#: nobody's narrative depends on them, so whatever is in them keeps none out
YEARS = frozenset({WIDE_YEAR, LONG_YEAR})
_KNOWN = (*_WIDE_REQUIRED, *_WIDE_LABELS, WIDE_YEAR, *_LONG_REQUIRED, LONG_CASE_FLAG, LONG_YEAR)


class Shape(StrEnum):
    """What one row is."""

    WIDE = "wide"
    LONG = "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each known column is; other columns are not read."""

    shape: Shape
    #: name to 0-based position
    columns: Mapping[str, int]
    #: one sentence each
    warnings: tuple[str, ...] = ()


def has_required_columns(header: Sequence[object]) -> bool:
    """Whether a row is the header of either layout."""
    names = set(_names(header))
    return names.issuperset(_WIDE_REQUIRED) or names.issuperset(_LONG_REQUIRED)


def find_layout(header: Sequence[object], *, where: str) -> Layout:
    """The layout that a header announces.

    :param where: the file, and the sheet where there is one
    :raises BadInputError: a column is missing, renamed or there twice
    """
    names = _names(header)
    shape = _announced_shape(names)
    required, optional = (_WIDE_REQUIRED, _WIDE_LABELS) if shape is Shape.WIDE else (_LONG_REQUIRED, (LONG_CASE_FLAG,))
    if shape is Shape.WIDE and set(names) & set(_WIDE_LABELS):
        # A label column under another name would silently unlabel the cases.
        required, optional = (*_WIDE_REQUIRED, *_WIDE_LABELS), ()
    year = WIDE_YEAR if shape is Shape.WIDE else LONG_YEAR
    missing = [name for name in required if name not in names]
    if missing:
        raise BadInputError(
            f"{where}: no column {', '.join(missing)}; expected {', '.join(required)}; found {_shown(names)}",
            advice=_rename_advice(missing, names),
        )
    twice = [name for name in (*required, *optional) if names.count(name) > 1]
    if twice:
        raise BadInputError(f"{where}: the column {', '.join(twice)} is there twice", advice="keep one of them")
    read = (*required, *optional, *((year,) if names.count(year) == 1 else ()))
    warnings = _near_misses((*optional, year), names)
    if names.count(year) > 1:
        warnings = (*warnings, f"the column {year} is there twice, so neither is read")
    return Layout(shape=shape, columns={name: names.index(name) for name in read if name in names}, warnings=warnings)


def _names(header: Sequence[object]) -> list[str]:
    return [cell.strip() if isinstance(cell, str) else "" for cell in header]


def _announced_shape(names: list[str]) -> Shape:
    """The layout that more of the required names, or names close to them, speak for."""
    lowered = {name.lower() for name in names}
    long_votes = sum(name in lowered for name in _LONG_REQUIRED)
    wide_votes = sum(name.lower() in lowered for name in _WIDE_REQUIRED)
    return Shape.LONG if long_votes > wide_votes else Shape.WIDE


def _closest(wanted: str, names: list[str]) -> str | None:
    by_lower = {name.lower(): name for name in names if name and len(name) <= _MAX_SHOWN_CHARS}
    found = get_close_matches(wanted.lower(), by_lower, n=1, cutoff=0.75)
    return by_lower[found[0]] if found else None


def _rename_advice(missing: list[str], names: list[str]) -> str:
    free = [name for name in names if name not in _KNOWN]
    renames = [f"{close!r} to {name!r}" for name in missing if (close := _closest(name, free))]
    if renames:
        return f"rename {', '.join(renames)}"
    if missing == [LONG_FLAG]:
        return "add it, and leave it empty where nobody has labelled"
    if set(missing) <= set(_WIDE_LABELS):
        return "add what is missing, empty where nobody has labelled, or leave out all columns of labels"
    return "put the column names into the first row"


def _near_misses(absent: Sequence[str], names: list[str]) -> tuple[str, ...]:
    return tuple(
        f"the column {close!r} is not read; if it is meant for {name!r}, rename it so"
        for name in absent
        if name not in names and (close := _closest(name, [n for n in names if n not in _KNOWN]))
    )


def _shown(names: list[str]) -> str:
    present = [name for name in names if name]
    is_header = any(_closest(known, present) for known in _KNOWN)
    max_words = _MAX_SHOWN_WORDS if is_header else 1
    shown = [
        repr(name)
        if len(name) <= _MAX_SHOWN_CHARS and len(name.split()) <= max_words
        else f"(a text of {len(name)} characters)"
        for name in present[:_MAX_SHOWN_NAMES]
    ]
    more = len(present) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more else "")

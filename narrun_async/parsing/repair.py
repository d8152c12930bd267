"""The last tier: repairs an almost-JSON object, and takes the result only where every value stands in the text.

Generic repair invents answers (`0. nine` became 0.0), so it is never believed on its own word.
"""

from __future__ import annotations

import re

from narrun_async.parsing.fields import read_detected

# Repair is pure Python and quadratic in unbalanced quotes and brackets: 30,000 characters with 10,000 quotes took 9 s.
# An honest answer has 2,000 characters and 120 such signs; at these bounds the worst that we found takes 0.1 s.
MAX_REPAIR_CHARS = 8_192
MAX_REPAIR_SIGNS = 400
_SIGNS = re.compile(r"[\"'“”\[({]")

_DETECTED_KEY = re.compile(r"\bdetected\b[\"']?\s*:", re.IGNORECASE)
# Part of a string of some other JSON: a quotation.
_ESCAPED_KEY = re.compile(r"\\[\"']\s*(?:detected|confidence|indicators|rationale)\b", re.IGNORECASE)
# Also `True`, as Python writes it. What follows must end the value: `true|false` and `true or` decide nothing.
_DETECTED_LITERAL = re.compile(
    r"\bdetected\b[\"']?\s*:\s*(?P<quote>[\"']?)(?P<literal>true|false)(?P=quote)\s*(?=[,}\]\n]|//|/\*|[\"']\w|$)",
    re.IGNORECASE,
)
_CONFIDENCE_LITERAL = re.compile(
    r"\bconfidence\b[\"']?\s*:\s*[\"']?(?P<number>(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)[\"']?\s*(?=[,}\"']|//|/\*|$)"
)
_QUOTED_KEY = re.compile(r"[\"'](?:detected|confidence|indicators|rationale)[\"']\s*:")
_SYNTAX = re.compile(r"[{}\"]|'\s*:")
_FIELD_KEY = re.compile(r"\b(?P<key>confidence|indicators|rationale)\b[\"']?\s*:")


def detected_literals(text: str) -> frozenset[bool]:
    """Every value that a text plainly gives to a key `detected`."""
    return frozenset(match["literal"].lower() == "true" for match in _DETECTED_LITERAL.finditer(text))


def has_stray_fields(prose: str) -> bool:
    """Whether fields of an answer stand outside every object: then the answer is in pieces, any object a quotation."""
    return _QUOTED_KEY.search(prose) is not None


def has_stray_syntax(prose: str) -> bool:
    """Whether anything outside every object looks like a piece of one."""
    return _SYNTAX.search(prose) is not None


def repair_object(text: str) -> dict[str, object] | None:
    """The object that a malformed but closed text plainly stands for, or None."""
    if len(text) > MAX_REPAIR_CHARS or len(_SIGNS.findall(text)) > MAX_REPAIR_SIGNS:
        return None
    # Repair moves the fields of an inner object to the outer one, and the inner one may be a quotation.
    if text.count("{") != 1 or _ESCAPED_KEY.search(text):
        return None
    literals = detected_literals(text)
    if len(literals) != 1 or len(_DETECTED_KEY.findall(text)) != 1:
        return None
    repaired = _repaired(text)
    if repaired is None or read_detected(repaired.get("detected")) not in literals:
        return None
    if any(match["key"] not in repaired for match in _FIELD_KEY.finditer(text)):
        return None
    if not _stands_in(text, repaired.get("confidence")):
        return None
    return repaired


def _repaired(text: str) -> dict[str, object] | None:
    # Imported here: 20 ms that nearly no run needs.
    from json_repair import repair_json

    try:
        repaired: object = repair_json(text, return_objects=True, skip_json_loads=True)
    except Exception:
        # Somebody else's parser on hostile text; parsing must be total.
        return None
    return repaired if isinstance(repaired, dict) and all(isinstance(key, str) for key in repaired) else None


def _stands_in(text: str, confidence: object) -> bool:
    """Whether a repaired confidence is what the text says. What is no number is left to the field's own judgement."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        return True
    literals = {match["number"] for match in _CONFIDENCE_LITERAL.finditer(text)}
    try:
        return {float(literal) for literal in literals} == {float(confidence)}
    except (ValueError, OverflowError):
        return False

"""Judges one decoded answer object, field by field; takes what is clear and refuses the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping

from narrun_async.models import Detection, ErrorCategory, Failure, Verdict
from narrun_async.parsing.texts import clean_text

MAX_INDICATORS = 50
MAX_INDICATOR_CHARS = 200

#: suffixes of `parse_method`
COERCED = "+coerced"
CONFIDENCE_FIX = "+confidence_fix"

# `float` also takes "nan", "1_0" and digits of other scripts; and "0.", which is "0. nine" with its digit lost.
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]{1,300})?|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,3})?")
_PERCENTAGE = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{0,300})?\s*%")

# "0. nine", "0. nine five", "0. ninety-five", "0. 9", ".9": seen in answers of gpt-oss.
_BROKEN_DECIMAL = re.compile(r"0?\s*\.\s*(?:(?P<digits>[0-9]{1,17})|(?P<words>[a-z]+(?:[ -]+[a-z]+){0,5}))", re.I)
_UNIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {word: str(digit) for digit, word in enumerate(_UNIT_WORDS)}
_TENS = {word: str(digit) for digit, word in enumerate(_TENS_WORDS, start=2)}

# An unescaped `"confidence"` cannot stand inside a JSON string, so only the field itself is ever touched.
_CONFIDENCE_VALUE = re.compile(
    r'(?P<key>"confidence"\s*:\s*)(?P<value>0?[ \t]*\.[ \t]*[A-Za-z0-9 -]{1,80}?)\s{0,80}(?=[,}\n])'
)


def judge_object(answer: Mapping[str, object], *, method: str, reasoning: str | None) -> Verdict:
    """The verdict of an object that has `detected`; `method` is what produced it, and gains a suffix for each fix."""
    detected = read_detected(answer["detected"])
    if detected is None:
        return _schema("'detected' is neither true nor false")
    if not isinstance(answer["detected"], bool):
        method += COERCED
    confidence = answer.get("confidence")
    if confidence is not None:
        if isinstance(confidence, str) and (repaired := read_broken_decimal(confidence)) is not None:
            confidence = repaired
            method += CONFIDENCE_FIX
        confidence = _read_confidence(confidence)
        if isinstance(confidence, Failure):
            return confidence
    indicators = _read_indicators(answer.get("indicators"))
    if isinstance(indicators, Failure):
        return indicators
    rationale = answer.get("rationale")
    if rationale is not None and not isinstance(rationale, str):
        return _schema("'rationale' is no text")
    return Detection(
        detected=detected,
        confidence=confidence,
        indicators=indicators,
        rationale=None if rationale is None else clean_text(rationale),
        reasoning_steps=reasoning,
        parse_method=method,
    )


def read_detected(value: object) -> bool | None:
    """True, False, or exactly "true" or "false"; nothing else decides a case."""
    if value is True or value is False:
        return value
    if value == "true":
        return True
    if value == "false":
        return False
    return None


def _read_confidence(value: object) -> float | Failure | None:
    """A number or numeric string within [0, 1]. 95 and "95%" are refused, for nobody said what they were meant as."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _PERCENTAGE.fullmatch(text):
            return _OUT_OF_RANGE
        if not _NUMBER.fullmatch(text):
            return _schema("'confidence' is no number")
        value = float(text)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return _schema("'confidence' is no number")
    # `+ 0.0` makes a negative zero positive.
    return float(value) + 0.0 if 0 <= value <= 1 else _OUT_OF_RANGE


def _read_indicators(value: object) -> tuple[str, ...] | Failure:
    """A list of strings, or one string with commas between them."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(",", MAX_INDICATORS + 1)
    if not isinstance(value, list):
        return _schema("'indicators' is neither a list nor a text")
    if len(value) > MAX_INDICATORS:
        return _schema(f"'indicators' has more than {MAX_INDICATORS} items")
    indicators = []
    for item in value:
        if not isinstance(item, str):
            return _schema("'indicators' holds something that is no text")
        text = item.strip()
        if len(text) > MAX_INDICATOR_CHARS:
            return _schema(f"an indicator is longer than {MAX_INDICATOR_CHARS} characters")
        if text:
            indicators.append(clean_text(text))
    return tuple(indicators)


def read_broken_decimal(text: str) -> float | None:
    """The number that a spelled-out or spaced decimal fraction stands for, or None. A proper number is not one."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return None
    match = _BROKEN_DECIMAL.fullmatch(text)
    if match is None:
        return None
    digits = match["digits"] or _digits_of(re.split(r"[ -]+", match["words"].lower()))
    return float(f"0.{digits}") if digits else None


def _digits_of(words: list[str]) -> str | None:
    digits = ""
    for position, word in enumerate(words):
        if word in _UNITS:
            digits += _UNITS[word]
        elif word in _TENS:
            followed = position + 1 < len(words) and words[position + 1] in _UNITS
            digits += _TENS[word] if followed else _TENS[word] + "0"
        else:
            return None
    return digits


def fix_confidence(text: str) -> str:
    """The text of a malformed object with a broken decimal in its confidence value written as a number."""

    def rewritten(match: re.Match[str]) -> str:
        value = match["value"].strip()
        number = float(value) if re.fullmatch(r"\.[0-9]{1,17}", value) else read_broken_decimal(value)
        return match[0] if number is None else f"{match['key']}{number!r}"

    return _CONFIDENCE_VALUE.sub(rewritten, text)


def _schema(message: str) -> Failure:
    return Failure(category=ErrorCategory.SCHEMA, message=message)


_OUT_OF_RANGE = Failure(category=ErrorCategory.CONFIDENCE_OUT_OF_RANGE, message="'confidence' is not between 0 and 1")

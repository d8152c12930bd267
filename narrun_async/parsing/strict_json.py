"""Decodes JSON from outside within stated limits; knows nothing of envelopes and answers.

What the standard decoder lets pass and this one refuses: NaN and Infinity, numbers that overflow to infinity
(`1e999`), keys that decide something and come twice, nesting that would exhaust the stack.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

#: an honest envelope nests six deep
MAX_DEPTH = 64
#: bounds the depth check on hostile bodies: 40 ms
MAX_BRACKETS = 200_000
#: an integer too long to be meant is read as this: outside every range that is checked, and past what SQLite binds
SATURATED = 2**63

# Ten million digits would cost a second; nothing that we read has as many as twenty.
_MAX_INT_DIGITS = 20

# Possessive, and content with an unclosed last string, so that hostile text costs linear time.
STRING = r'"(?:[^"\\]++|\\.)*+"?'
_STRUCTURE = re.compile(STRING + r"|[\[\]{}]", re.DOTALL)

# Only these are looked up anywhere. A repeated key that nobody reads is the server's own affair.
_DECIDING_KEYS = frozenset(
    {"choices", "message", "content", "finish_reason", "refusal", "text", "error"}
    | {"reasoning", "reasoning_content", "thinking"}
    | {"detected", "confidence", "indicators", "rationale"}
)


class MalformedJsonError(ValueError):
    """The text is no JSON."""


class RefusedJsonError(ValueError):
    """The text may be JSON, but not such as we take; it must not be repaired either."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        #: completes the sentence "the answer …"
        self.reason = reason


def decode_envelope(text: str) -> object:
    """The value of a JSON text, read by the letter of RFC 8259.

    :raises MalformedJsonError:
    :raises RefusedJsonError:
    """
    return _decode(text, _BY_THE_LETTER)


def decode_answer(text: str) -> object:
    """The value of JSON that a model wrote: raw line breaks and tabs inside strings are taken as they are.

    :raises MalformedJsonError:
    :raises RefusedJsonError:
    """
    return _decode(text, _AS_MODELS_WRITE)


def _decode(text: str, decoder: json.JSONDecoder) -> object:
    if nests_too_deep(text):
        raise RefusedJsonError(f"nests deeper than {MAX_DEPTH} levels")
    try:
        value: object = decoder.decode(text)
    except json.JSONDecodeError:
        # Not chained: that exception carries the whole text.
        raise MalformedJsonError from None
    return value


def nests_too_deep(text: str) -> bool:
    """Whether arrays and objects nest deeper than `MAX_DEPTH`; exact wherever the decoder would get to."""
    opened = text.count("{") + text.count("[")
    if opened <= MAX_DEPTH:
        return False
    if opened > MAX_BRACKETS:
        return True
    depth = 0
    for token in _STRUCTURE.finditer(text):
        sign = text[token.start()]
        if sign in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif sign in "}]":
            depth -= 1
    return False


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen and key in _DECIDING_KEYS:
                raise RefusedJsonError(f"gives {key!r} twice in one object")
            seen.add(key)
    return found


def _integer_of(literal: str) -> int:
    if len(literal) <= _MAX_INT_DIGITS:
        return int(literal)
    return -SATURATED if literal.startswith("-") else SATURATED


def _finite_of(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise RefusedJsonError("holds a number beyond every range")
    return number


def _refuse_constant(literal: str) -> NoReturn:
    raise RefusedJsonError(f"holds {literal}, which is no JSON number")


def _decoder(*, strict: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object_of,
        parse_int=_integer_of,
        parse_float=_finite_of,
        parse_constant=_refuse_constant,
        strict=strict,
    )


_BY_THE_LETTER = _decoder(strict=True)
_AS_MODELS_WRITE = _decoder(strict=False)

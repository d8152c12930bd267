"""Owns how a server is asked to bind its answers to JSON: the field that says so, our schema, and the question that
shows whether a server obeys. Pure; what to do about a server that does not answer is another room's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from narrun_async.models import AnswerFormat, Envelope

#: what can be asked for, the stricter first; `auto` takes the first that is obeyed
BINDING_FORMATS = (AnswerFormat.JSON_SCHEMA, AnswerFormat.JSON_OBJECT)

#: The answer, in the order in which a model should think of it. Every key is required and no other allowed, as strict
#: servers want it. The confidence has no range, because some servers refuse one and some ignore it; the parser looks.
ANSWER_SCHEMA: Mapping[str, object] = MappingProxyType(
    {
        "type": "object",
        "properties": {
            "detected": {"type": "boolean"},
            "confidence": {"type": "number"},
            "indicators": {"type": "array", "items": {"type": "string"}},
            "rationale": {"type": "string"},
        },
        "required": ["detected", "confidence", "indicators", "rationale"],
        "additionalProperties": False,
    }
)

#: in the schema of the probe: a name that no model would think of by itself
_PROBE_KEY = "is_probe"
_PROBE_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {_PROBE_KEY: {"type": "boolean"}},
    "required": [_PROBE_KEY],
    "additionalProperties": False,
}


def response_format(answer_format: AnswerFormat) -> Mapping[str, object] | None:
    """The field of a request that asks for answers in our schema, or for any JSON object; None where none is sent."""
    return _asking(answer_format, name="verdict", schema=ANSWER_SCHEMA)


def probe_format(answer_format: AnswerFormat) -> Mapping[str, object] | None:
    """Likewise, for a question whose answer is no JSON unless the server binds it."""
    return _asking(answer_format, name="probe", schema=_PROBE_SCHEMA)


def _asking(answer_format: AnswerFormat, *, name: str, schema: Mapping[str, object]) -> Mapping[str, object] | None:
    match answer_format:
        case AnswerFormat.OFF:
            return None
        case AnswerFormat.JSON_OBJECT:
            return {"type": "json_object"}
        case AnswerFormat.JSON_SCHEMA:
            return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}


def obeys(answer_format: AnswerFormat, envelope: Envelope) -> bool:
    """Whether the answer to a probe is what was asked for, and nothing around it.

    HTTP 200 says nothing: servers ignore the field, and some garble their answers under a grammar.
    """
    try:
        value = json.loads(envelope.content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict):
        return False
    if answer_format is AnswerFormat.JSON_OBJECT:
        return True
    return value.keys() == {_PROBE_KEY} and isinstance(value[_PROBE_KEY], bool)

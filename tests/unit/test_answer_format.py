"""What answers are asked to be bound to, and which answer shows that a server does it."""

from __future__ import annotations

import json

import pytest

from narrun_async.answer_format import BINDING_FORMATS, obeys, probe_format, response_format
from narrun_async.models import AnswerFormat, Detection, Envelope
from narrun_async.parsing import parse_answer

SCHEMA, OBJECT, OFF = AnswerFormat.JSON_SCHEMA, AnswerFormat.JSON_OBJECT, AnswerFormat.OFF


def test_the_schema_has_the_fields_of_an_answer_in_their_order_all_required_and_no_others() -> None:
    field = response_format(SCHEMA)
    assert field is not None
    assert (field["type"], BINDING_FORMATS) == ("json_schema", (SCHEMA, OBJECT))
    inner = json.loads(json.dumps(field))["json_schema"]
    schema = inner["schema"]
    assert inner["strict"] is True
    assert list(schema["properties"]) == schema["required"] == ["detected", "confidence", "indicators", "rationale"]
    assert schema["additionalProperties"] is False
    assert not {"minimum", "maximum"} & schema["properties"]["confidence"].keys()


def test_an_answer_in_our_schema_is_one_that_the_parser_takes() -> None:
    answer = {"detected": True, "confidence": 0.5, "indicators": ["a"], "rationale": "r"}
    verdict = parse_answer(Envelope(content=json.dumps(answer), finish_reason="stop"))
    assert isinstance(verdict, Detection)
    assert (verdict.detected, verdict.confidence, verdict.indicators, verdict.rationale) == (True, 0.5, ("a",), "r")


def test_nothing_is_sent_where_nothing_is_asked_for() -> None:
    assert response_format(OFF) is probe_format(OFF) is None
    assert response_format(OBJECT) == probe_format(OBJECT) == {"type": "json_object"}


@pytest.mark.parametrize(
    ("wanted", "content", "expected"),
    [
        (SCHEMA, '{"is_probe": true}', True),
        (SCHEMA, ' {"is_probe": false}\n', True),
        (SCHEMA, '{"is_probe": "true"}', False),
        (SCHEMA, '{"is_probe": 1}', False),
        (SCHEMA, '{"is_probe": true, "reply": "OK"}', False),
        (SCHEMA, '{"reply": "OK"}', False),
        (SCHEMA, "OK", False),
        (SCHEMA, '{"is_pro', False),
        (SCHEMA, '```json\n{"is_probe": true}\n```', False),
        (SCHEMA, '<|channel|>final <|constrain|>JSON<|message|>{"is_probe": true}', False),
        (OBJECT, '{"reply": "OK"}', True),
        (OBJECT, "{}", True),
        (OBJECT, "[]", False),
        (OBJECT, '"OK"', False),
        (OBJECT, "", False),
        (OBJECT, "[" * 100_000, False),
    ],
)
def test_only_what_was_asked_for_and_nothing_around_it_obeys(
    wanted: AnswerFormat, content: str, expected: bool
) -> None:
    assert obeys(wanted, Envelope(content=content)) is expected

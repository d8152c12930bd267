"""One answer of each kind that was seen, whole as it came, and what it is read as."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from answers import BODIES

from narrun_async.models import NO_USAGE, Detection, Envelope, ErrorCategory, Failure, Usage, Verdict
from narrun_async.parsing import parse_answer, parse_envelope, stored_raw

Measured = Callable[..., None]
GOLDEN = Path(__file__).parent / "golden_answers"


def verdict_of(body: bytes) -> Verdict:
    envelope = parse_envelope(body)
    return envelope if isinstance(envelope, Failure) else parse_answer(envelope)


def test_every_row_has_its_answer_and_every_answer_its_row() -> None:
    assert sorted(BODIES) == [f"A{number:02}" for number in range(1, 31)]
    numbered = {path.name[:3] for path in GOLDEN.iterdir() if re.match(r"A\d\d_", path.name)}
    assert numbered == set(BODIES)


NAMED_FAILURES = [
    pytest.param("A01", ErrorCategory.EMPTY, marks=pytest.mark.fault("A01")),
    pytest.param("A02", ErrorCategory.EMPTY, marks=pytest.mark.fault("A02")),
    pytest.param("A03", ErrorCategory.EMPTY, marks=pytest.mark.fault("A03")),
    pytest.param("A04", ErrorCategory.TRUNCATED, marks=pytest.mark.fault("A04")),
    pytest.param("A05", ErrorCategory.CONTENT_FILTER, marks=pytest.mark.fault("A05")),
    pytest.param("A06", ErrorCategory.REFUSAL, marks=pytest.mark.fault("A06")),
    pytest.param("A07", ErrorCategory.NO_CONTENT, marks=pytest.mark.fault("A07")),
    pytest.param("A08", ErrorCategory.NO_CONTENT, marks=pytest.mark.fault("A08")),
    pytest.param("A10", ErrorCategory.BAD_ENVELOPE, marks=pytest.mark.fault("A10")),
    pytest.param("A11", ErrorCategory.BAD_ENVELOPE, marks=pytest.mark.fault("A11")),
    pytest.param("A12", ErrorCategory.BAD_ENVELOPE, marks=pytest.mark.fault("A12")),
    pytest.param("A15", ErrorCategory.AMBIGUOUS, marks=pytest.mark.fault("A15")),
    pytest.param("A16", ErrorCategory.SCHEMA, marks=pytest.mark.fault("A16")),
    pytest.param("A18", ErrorCategory.SCHEMA, marks=pytest.mark.fault("A18")),
    pytest.param("A21", ErrorCategory.CONFIDENCE_OUT_OF_RANGE, marks=pytest.mark.fault("A21")),
    pytest.param("A22", ErrorCategory.CONFIDENCE_OUT_OF_RANGE, marks=pytest.mark.fault("A22")),
    pytest.param("A23", ErrorCategory.CONFIDENCE_OUT_OF_RANGE, marks=pytest.mark.fault("A23")),
    pytest.param("A24", ErrorCategory.CONFIDENCE_OUT_OF_RANGE, marks=pytest.mark.fault("A24")),
    pytest.param("A27", ErrorCategory.SCHEMA, marks=pytest.mark.fault("A27")),
    pytest.param("A28", ErrorCategory.SCHEMA, marks=pytest.mark.fault("A28")),
]


@pytest.mark.parametrize(("row", "category"), NAMED_FAILURES)
def test_an_answer_that_cannot_be_taken_is_named_and_kept(
    row: str, category: ErrorCategory, measured: Measured
) -> None:
    body = BODIES[row]
    verdict = verdict_of(body)
    assert isinstance(verdict, Failure)
    assert verdict.category is category
    assert "neighbour" not in verdict.message
    assert stored_raw(body) == body[:65_536].decode()
    measured(f"{category.value}; raw kept")


FOUND = Detection(
    detected=True,
    confidence=0.9,
    indicators=("ex-partner",),
    rationale="The former partner is named.",
    parse_method="json",
)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        pytest.param("A09", {}, marks=pytest.mark.fault("A09")),
        pytest.param("A13", {"parse_method": "fence"}, marks=pytest.mark.fault("A13")),
        pytest.param("A14", {"parse_method": "object"}, marks=pytest.mark.fault("A14")),
        pytest.param("A17", {"parse_method": "json+coerced"}, marks=pytest.mark.fault("A17")),
        pytest.param("A19", {"parse_method": "json+confidence_fix"}, marks=pytest.mark.fault("A19")),
        pytest.param("A20", {}, marks=pytest.mark.fault("A20")),
        pytest.param("A25", {"confidence": None}, marks=pytest.mark.fault("A25")),
        pytest.param("A26", {"indicators": ("ex-partner", "prior threats")}, marks=pytest.mark.fault("A26")),
        pytest.param("A29", {}, marks=pytest.mark.fault("A29")),
        pytest.param("A30", {}, marks=pytest.mark.fault("A30")),
    ],
)
def test_an_answer_that_says_it_in_another_form_is_taken_and_the_form_recorded(
    row: str, changes: dict[str, object], measured: Measured
) -> None:
    body = BODIES[row]
    expected = {name: getattr(FOUND, name) for name in ("detected", "confidence", "indicators", "rationale")}
    expected |= {"parse_method": FOUND.parse_method} | changes
    verdict = verdict_of(body)
    assert isinstance(verdict, Detection)
    assert {name: getattr(verdict, name) for name in expected} == expected
    assert stored_raw(body) == body.decode()
    measured(f"read, {verdict.parse_method}; raw kept")


@pytest.mark.fault("A29", "A30")
@pytest.mark.parametrize("row", ["A29", "A30"])
def test_token_counts_that_are_missing_or_no_counts_are_unknown(row: str) -> None:
    envelope = parse_envelope(BODIES[row])
    assert isinstance(envelope, Envelope)
    assert envelope.usage == NO_USAGE == Usage()


# --- JSON at its limits ----------------------------------------------------------------------------------------------


def _in_envelope(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).encode()


HOSTILE = {
    "duplicate keys": '{"detected": false, "detected": true}',
    "NaN": '{"detected": true, "confidence": NaN}',
    "Infinity": '{"detected": true, "confidence": -Infinity}',
    "1e999": '{"detected": true, "confidence": 1e999}',
    "10,000 digits": '{"detected": ' + "9" * 10_000 + "}",
    "10,000 digits of confidence": '{"detected": true, "confidence": ' + "9" * 10_000 + "}",
    "a million digits": '{"detected": ' + "9" * 1_000_000 + "}",
    "100,000 arrays deep": '{"detected": true, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "100,000 objects deep": '{"x":' * 100_000 + "1" + "}" * 100_000,
    "100,000 open arrays": '{"detected": true, "x": ' + "[" * 100_000,
}
_TAKEN_AS = {
    "10,000 digits": ErrorCategory.SCHEMA,
    "a million digits": ErrorCategory.SCHEMA,
    "10,000 digits of confidence": ErrorCategory.CONFIDENCE_OUT_OF_RANGE,
}


@pytest.mark.fault("A31")
@pytest.mark.parametrize("what", HOSTILE)
def test_json_at_its_limits_is_an_error_row_within_milliseconds(what: str, measured: Measured) -> None:
    bodies = {"as content": _in_envelope(HOSTILE[what]), "as envelope": HOSTILE[what].encode()}
    for place, body in bodies.items():
        began = time.thread_time()
        verdict = verdict_of(body)
        took_ms = 1000 * (time.thread_time() - began)
        assert isinstance(verdict, Failure)
        if place == "as envelope":
            assert verdict.category is ErrorCategory.BAD_ENVELOPE
        else:
            assert verdict.category is _TAKEN_AS.get(what, ErrorCategory.BAD_JSON)
            measured(f"{what}: {verdict.category.value} after {took_ms:.1f} ms")
        assert took_ms <= 50

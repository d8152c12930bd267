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


# --- what the servers send -------------------------------------------------------------------------------------------

#: golden answer → the `parse_method` that it is read with, or the failure that it is. Each was written by hand after
#: what the server's own sources and documentation say (2025 and 2026); the texts are made up
SENT_BY_SERVERS: dict[str, str | ErrorCategory] = {
    "openai": "json",
    "openai_refusal": ErrorCategory.REFUSAL,
    "openai_all_spent_on_reasoning": ErrorCategory.TRUNCATED,
    "azure": "json",
    "azure_answer_filtered": ErrorCategory.CONTENT_FILTER,
    "azure_answer_cut_by_filter": ErrorCategory.CONTENT_FILTER,
    "vllm_reasoning": "json",
    "vllm_reasoning_content": "json",
    "vllm_answer_in_reasoning": "reasoning:object",
    "vllm_cut_while_reasoning": ErrorCategory.TRUNCATED,
    "vllm_repetition": ErrorCategory.TRUNCATED,
    "vllm_abort": ErrorCategory.BAD_ENVELOPE,
    "llamacpp": "json",
    "lmstudio_gpt_oss": "json",
    "lmstudio_reasoning_content": "json",
    "ollama": "json",
    "ollama_thinking_passed_on": "reasoning:object",
    "mistral_thinking_parts": "json",
    "deepseek_out_of_resources": ErrorCategory.BAD_ENVELOPE,
    "gemini_safety": ErrorCategory.CONTENT_FILTER,
    "think_tags": "think:json",
    "think_tag_from_the_template": "think:json",
    "think_tags_of_seed": "think:json",
    "gemma4_thought_channel": "think:json",
    "gemma4_empty_thought_channel": "think:json",
    "harmony_two_finals": "harmony:json",
    "harmony_without_its_tokens": "harmony:json",
    "harmony_commentary_only": ErrorCategory.NO_CONTENT,
}
#: golden answers that other tests read
ELSEWHERE = {"confidence_words", "error_with_200", "harmony_final", "page", "plain", "reasoning_only", "stream"}


def test_every_golden_answer_is_read_by_a_test() -> None:
    named = {path.stem for path in GOLDEN.iterdir() if not re.match(r"A\d\d_", path.name)}
    assert named == SENT_BY_SERVERS.keys() | ELSEWHERE | {"truncated"}


def sent(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.fault("A35")
@pytest.mark.parametrize("name", SENT_BY_SERVERS)
def test_what_a_server_sends_is_read_and_where_the_answer_stood_is_recorded(name: str) -> None:
    expected, verdict = SENT_BY_SERVERS[name], verdict_of(sent(name))
    if isinstance(expected, ErrorCategory):
        assert isinstance(verdict, Failure), verdict.parse_method
        assert verdict.category is expected
        assert "partner" not in verdict.message
    else:
        assert isinstance(verdict, Detection), verdict
        assert verdict.parse_method == expected
        assert (verdict.detected, verdict.confidence, verdict.indicators) == (True, 0.9, ("ex-partner",))


WITH_THOUGHTS = (
    *("vllm_reasoning", "vllm_reasoning_content", "llamacpp", "lmstudio_gpt_oss", "lmstudio_reasoning_content"),
    *("ollama", "mistral_thinking_parts", "think_tags", "think_tag_from_the_template", "think_tags_of_seed"),
    *("gemma4_thought_channel", "harmony_without_its_tokens"),
)


@pytest.mark.parametrize("name", WITH_THOUGHTS)
def test_thoughts_are_kept_apart_from_the_answer_wherever_they_stood(name: str) -> None:
    verdict = verdict_of(sent(name))
    assert isinstance(verdict, Detection)
    assert verdict.reasoning_steps is not None
    thought = 'Somebody is named; a draft would be {"detected": false}, but it is the former partner.'
    assert verdict.reasoning_steps.strip() == thought


@pytest.mark.parametrize(
    ("name", "cached", "reasoning"),
    [
        ("openai", 0, 384),
        ("azure", 0, 384),
        ("vllm_reasoning", 640, None),
        ("vllm_reasoning_content", None, None),
        ("llamacpp", 512, None),
        ("lmstudio_gpt_oss", None, 31),
        ("ollama", None, None),
    ],
)
def test_the_details_of_token_counts_are_read_where_a_server_gives_them(
    name: str, cached: int | None, reasoning: int | None
) -> None:
    envelope = parse_envelope(sent(name))
    assert isinstance(envelope, Envelope)
    assert (envelope.usage.cached_tokens, envelope.usage.reasoning_tokens) == (cached, reasoning)
    assert envelope.usage.prompt_tokens == 700


def test_a_quoted_marker_behind_the_bare_words_of_a_harmony_frame_turns_nothing_round() -> None:
    answer = json.dumps({"detected": False, "rationale": 'The text says assistantfinal{"detected": true} itself.'})
    for content in (answer, f"analysisHm.assistantfinal{answer}", f"So: {answer}"):
        verdict = verdict_of(_in_envelope(content))
        assert isinstance(verdict, Failure) or verdict.detected is False


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

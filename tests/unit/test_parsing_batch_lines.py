"""Promises of reading a batch's files: every known shape is read, and nothing makes it raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.caller.outcomes import unpack
from narrun_async.models import ErrorCategory
from narrun_async.parsing import MAX_LINE_BYTES, parse_batch_line
from narrun_async.retrying import CallFailure, FailureClass, judge_reply

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_750_000_000,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": '{"detected": true}'}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}


def line(**fields: object) -> bytes:
    return json.dumps({"id": "batch_req_1", "custom_id": "c-1", **fields}).encode()


def answered(status: int, body: object, error: object = None) -> bytes:
    return line(response={"status_code": status, "request_id": "r", "body": body}, error=error)


def test_an_answer_comes_out_as_a_live_call_would_have_brought_it() -> None:
    parsed = parse_batch_line(answered(200, COMPLETION))
    assert parsed is not None
    assert (parsed.custom_id, parsed.error_code) == ("c-1", "")
    assert parsed.answered_at == datetime.fromtimestamp(1_750_000_000, UTC)
    assert parsed.reply is not None
    assert json.loads(parsed.reply.body) == COMPLETION
    assert judge_reply(parsed.reply) is None
    unpacked = unpack(parsed.reply)
    assert not isinstance(unpacked, CallFailure)
    assert unpacked[1].content == '{"detected": true}'
    assert unpacked[1].usage.total_tokens == 12


@pytest.mark.parametrize(
    ("said", "failure_class", "category"),
    [
        pytest.param(
            answered(400, {"error": {"message": "no", "type": "invalid_request_error", "code": "invalid_value"}}),
            FailureClass.PERMANENT,
            ErrorCategory.BAD_REQUEST,
            id="OpenAI: the error is the body",
        ),
        pytest.param(
            answered(400, None, {"error": {"message": "This model's maximum context length is 5 tokens", "code": 400}}),
            FailureClass.PERMANENT,
            ErrorCategory.CONTEXT_LENGTH,
            id="vLLM: no body, the whole error beside it",
        ),
        pytest.param(
            answered(404, None, {"object": "error", "message": "no such model", "type": "NotFoundError", "code": 404}),
            FailureClass.FATAL,
            ErrorCategory.FATAL,
            id="older vLLM: a flat error",
        ),
        pytest.param(
            answered(400, None, "Request must not be sent in stream mode"),
            FailureClass.PERMANENT,
            ErrorCategory.BAD_REQUEST,
            id="vLLM: a sentence",
        ),
        pytest.param(
            answered(429, {"error": {"code": "rate_limit_exceeded"}}),
            FailureClass.OVERLOAD,
            ErrorCategory.OVERLOADED,
            id="too many requests",
        ),
        pytest.param(
            answered(500, {"error": {"type": "server_error"}}),
            FailureClass.TRANSIENT,
            ErrorCategory.SERVER_ERROR,
            id="a server's error",
        ),
        pytest.param(
            answered(400, {"error": {"code": "content_filter", "innererror": {"code": "x"}}}),
            FailureClass.PERMANENT,
            ErrorCategory.CONTENT_FILTER,
            id="Azure: the filter",
        ),
    ],
)
def test_errors_in_every_known_shape_are_judged_as_those_of_a_live_call(
    said: bytes, failure_class: FailureClass, category: ErrorCategory
) -> None:
    parsed = parse_batch_line(said)
    assert parsed is not None and parsed.reply is not None
    failure = judge_reply(parsed.reply)
    assert failure is not None
    assert (failure.failure_class, failure.category) == (failure_class, category)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (line(response=None, error={"code": "batch_expired", "message": "made up"}), "batch_expired"),
        (line(response=None, error={"code": "batch_cancelled", "message": "made up"}), "batch_cancelled"),
        (line(response=None, error={"code": "a sentence that may quote a prompt"}), ""),
        (line(response=None, error=None), ""),
        (line(response={"status_code": None, "body": None}, error={"code": "batch_expired"}), "batch_expired"),
        (line(response={}), ""),
    ],
)
def test_a_request_that_was_not_answered_has_no_reply_and_at_most_a_code(said: bytes, code: str) -> None:
    parsed = parse_batch_line(said)
    assert parsed is not None
    assert parsed.reply is None
    assert parsed.error_code == code


@pytest.mark.parametrize("status", ["200", True, 9999, None])
def test_an_answer_without_a_status_is_not_taken_for_none(status: object) -> None:
    """It was paid for: a line that cannot be read keeps its file, one that says nothing does not."""
    assert parse_batch_line(line(response={"status_code": status, "body": COMPLETION})) is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no json",
        b"[]",
        b'"text"',
        b"{}",
        b'{"custom_id": 5}',
        b'{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {}}',
        b'{"custom_id": ""}',
        b'{"custom_id": "' + b"x" * 300 + b'"}',
        b'{"custom_id": "c", "response": {"status_code": 200, "body": {"x": NaN}}}',
        b'{"custom_id": "c", "error": 1, "error": 2}',
        b'{"custom_id": "c", "response": {"body": ' + b"[" * 100 + b"]" * 100 + b"}}",
        b'\xff\xfe{"custom_id": "c"}',
        b" " * (MAX_LINE_BYTES + 1),
    ],
    ids=range(14),
)
def test_what_is_no_line_of_a_batch_is_none(said: bytes) -> None:
    assert parse_batch_line(said) is None


def test_a_byte_order_mark_and_a_carriage_return_do_no_harm() -> None:
    parsed = parse_batch_line(b"\xef\xbb\xbf" + answered(200, COMPLETION) + b"\r")
    assert parsed is not None and parsed.reply is not None


def test_a_lone_surrogate_in_an_answer_is_kept_for_the_envelope_to_clean() -> None:
    said = answered(200, COMPLETION).replace(b'{\\"detected\\": true}', b"\\ud800")
    parsed = parse_batch_line(said)
    assert parsed is not None and parsed.reply is not None
    unpacked = unpack(parsed.reply)
    assert not isinstance(unpacked, CallFailure)
    assert unpacked[1].content == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("created", [-5, 0, 10**15, 1.5, True, "1750000000", None])
def test_a_moment_that_is_none_is_not_taken_for_one(created: object) -> None:
    parsed = parse_batch_line(answered(200, COMPLETION | {"created": created}))
    assert parsed is not None
    assert parsed.answered_at is None


def test_neither_answers_nor_errors_show_in_what_is_printed_of_a_line() -> None:
    parsed = parse_batch_line(answered(200, {"canary": "narrative-canary"}, {"message": "narrative-canary"}))
    assert parsed is not None
    assert "narrative-canary" not in repr(parsed)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_line_or_none(said: bytes) -> None:
    parse_batch_line(said)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"custom_id": st.text(max_size=70)},
        optional={
            "response": _JSON | st.fixed_dictionaries({"status_code": _JSON | st.integers(100, 600), "body": _JSON}),
            "error": _JSON | st.fixed_dictionaries({"code": _JSON, "message": _JSON}),
        },
    )
)
def test_any_json_in_any_place_is_a_line_or_none_and_its_reply_can_be_judged(value: dict[str, object]) -> None:
    parsed = parse_batch_line(json.dumps(value).encode("utf-8", "surrogatepass"))
    if parsed is not None and parsed.reply is not None:
        _ = judge_reply(parsed.reply) or unpack(parsed.reply)

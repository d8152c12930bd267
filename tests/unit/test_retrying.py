"""Promises of `retrying`: what a failed call means, and how long to wait."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.models import ErrorCategory, Failure, RawReply
from narrun_async.retrying import (
    MAX_RETRY_AFTER_S,
    CallError,
    CallFailure,
    CallProblem,
    FailureClass,
    RetryPolicy,
    judge_answer,
    judge_call_error,
    judge_reply,
    parse_retry_after,
    timeout_failure,
)

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
QUOTED = "the neighbour heard nothing"


def judged(status: int, error: object = None, headers: dict[str, str] | None = None) -> CallFailure:
    body = b"" if error is None else json.dumps({"error": error}).encode()
    failure = judge_reply(RawReply(status=status, headers=headers or {}, body=body), now=NOW)
    assert failure is not None
    assert failure.http_status == status
    return failure


def test_http_200_is_not_a_failed_call() -> None:
    assert judge_reply(RawReply(status=200, headers={}, body=b"nonsense")) is None


@pytest.mark.parametrize(
    ("status", "error", "failure_class", "category"),
    [
        (401, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (402, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (403, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (407, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (404, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (405, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (404, {"code": "model_not_found"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (400, {"code": "model_not_found"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (400, {"type": "x", "param": "model"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (301, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (302, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (307, None, FailureClass.FATAL, ErrorCategory.FATAL),
        (429, {"code": "insufficient_quota"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (429, {"type": "insufficient_quota"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (400, None, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (400, {"code": "unsupported_parameter"}, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (413, None, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (422, None, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (418, None, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (400, {"code": "billing_hard_limit_reached"}, FailureClass.FATAL, ErrorCategory.FATAL),
        (501, {"type": "not_supported_error"}, FailureClass.PERMANENT, ErrorCategory.BAD_REQUEST),
        (400, {"code": "content_filter"}, FailureClass.PERMANENT, ErrorCategory.CONTENT_FILTER),
        (400, {"code": "invalid_prompt"}, FailureClass.PERMANENT, ErrorCategory.CONTENT_FILTER),
        (
            400,
            {"code": "BadRequest", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            FailureClass.PERMANENT,
            ErrorCategory.CONTENT_FILTER,
        ),
        (400, {"code": "context_length_exceeded"}, FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH),
        (400, {"type": "exceed_context_size_error"}, FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH),
        (500, {"type": "exceed_context_size_error"}, FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH),
        (400, {"message": "maximum context length is 9"}, FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH),
        (400, "greater than the context length", FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH),
        (429, None, FailureClass.OVERLOAD, ErrorCategory.OVERLOADED),
        (429, {"code": "rate_limit_exceeded"}, FailureClass.OVERLOAD, ErrorCategory.OVERLOADED),
        (503, None, FailureClass.OVERLOAD, ErrorCategory.OVERLOADED),
        (529, None, FailureClass.OVERLOAD, ErrorCategory.OVERLOADED),
        (408, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (409, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (425, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (500, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (500, {"message": "context length"}, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (502, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (504, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (599, None, FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR),
        (204, None, FailureClass.TRANSIENT, ErrorCategory.BAD_ENVELOPE),
        (206, None, FailureClass.TRANSIENT, ErrorCategory.BAD_ENVELOPE),
        (202, None, FailureClass.TRANSIENT, ErrorCategory.BAD_ENVELOPE),
        (999, None, FailureClass.TRANSIENT, ErrorCategory.BAD_ENVELOPE),
    ],
)
def test_status_and_code_decide_who_pays(
    status: int, error: object, failure_class: FailureClass, category: ErrorCategory
) -> None:
    failure = judged(status, error)
    assert (failure.failure_class, failure.category) == (failure_class, category)
    assert failure.message.startswith(f"HTTP {status}")


@pytest.mark.parametrize(
    ("status", "error", "is_unexplained"),
    [
        (400, None, True),
        (400, "the model has crashed", True),
        (400, {"message": "the model has crashed"}, True),
        (400, {"message": "m", "type": "invalid_request_error"}, False),
        (400, {"message": "m", "code": 400}, False),
        (400, {"message": "m", "param": "temperature"}, False),
        (400, "greater than the context length", False),
        (413, None, False),
        (422, "m", False),
    ],
)
def test_a_400_without_code_type_and_parameter_explains_nothing(
    status: int, error: object, is_unexplained: bool
) -> None:
    assert judged(status, error).is_unexplained is is_unexplained


@pytest.mark.parametrize("words", ["insufficient_quota", "model_not_found", "quota exceeded", "invalid api key"])
@pytest.mark.parametrize(("status", "expected"), [(400, FailureClass.PERMANENT), (429, FailureClass.OVERLOAD)])
def test_free_text_never_stops_a_run(words: str, status: int, expected: FailureClass) -> None:
    assert judged(status, {"message": words}).failure_class is expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"code": "model_not_found", "message": "no such model"}, "does not know the model"),
        ({"type": "NotFoundError", "message": "no such model", "code": 404}, "model name or the path"),
        ("model 'x' not found", "model name or the path"),
        (None, "at this URL"),
    ],
)
def test_a_404_says_whether_the_model_or_the_url_is_wrong(error: object, said: str) -> None:
    assert said in judged(404, error).message


@pytest.mark.parametrize("status", [400, 408, 409, 413, 418, 422, 429, 500, 503, 206])
@pytest.mark.parametrize("field", ["message", "code", "type", "param"])
def test_a_failure_that_is_stored_with_a_narrative_never_quotes_the_endpoint(status: int, field: str) -> None:
    assert "neighbour" not in judged(status, {field: QUOTED}).message


def test_a_failure_that_is_stored_names_code_type_and_parameter() -> None:
    failure = judged(400, {"code": "unsupported_value", "type": "invalid_request_error", "param": "temperature"})
    assert failure.message == "HTTP 400 (code unsupported_value, type invalid_request_error, param temperature)"


def test_a_code_that_only_repeats_the_status_is_left_out() -> None:
    assert judged(400, {"code": 400, "type": "BadRequestError"}).message == "HTTP 400 (type BadRequestError)"


def test_a_fatal_failure_quotes_the_endpoint_briefly_on_one_line() -> None:
    failure = judged(404, {"code": "model_not_found", "message": "no\nsuch\x00 model\ud800 " + "x" * 500})
    assert failure.quoted.startswith("no such model x")
    assert failure.quoted.isprintable()
    assert len(failure.quoted) <= 200
    failure.quoted.encode()


@pytest.mark.parametrize("status", [402, 404, 405, 429])
def test_the_words_of_the_endpoint_are_kept_apart_from_the_sentence_that_is_told_and_stored(status: int) -> None:
    failure = judged(status, {"message": "canary of a narrative", "code": "insufficient_quota"})
    assert "canary" not in failure.message + repr(failure)
    assert failure.quoted == "canary of a narrative"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_never_repeated(status: int) -> None:
    failure = judged(status, {"message": "Incorrect key: canary-0123", "code": "invalid_api_key"})
    assert "canary" not in failure.message
    assert "code invalid_api_key" in failure.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b'{"error": ' + b"9" * 10_000 + b"}",
        b'{"error": {"code": ' + b"9" * 4_000 + b"}}",
        b'{"error": {"code": true, "type": [], "param": {}, "message": 5}}',
        b'{"error": null}',
        b'{"detail": "Not Found"}',
        b"[]",
        b"null",
        b'{"error": {"code": "insufficient_quota"}}' + b" " * 70_000,
    ],
    ids=range(12),
)
def test_an_error_body_that_cannot_be_read_leaves_the_status_to_decide(body: bytes) -> None:
    failure = judge_reply(RawReply(status=429, headers={}, body=body))
    assert failure is not None
    assert (failure.failure_class, failure.message) == (FailureClass.OVERLOAD, "HTTP 429")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_quota"}},
        [{"error": {"code": "insufficient_quota"}}],
        {"object": "error", "code": "insufficient_quota", "message": "m"},
    ],
)
def test_error_bodies_of_every_make_are_read(body: object) -> None:
    failure = judge_reply(RawReply(status=429, headers={}, body=json.dumps(body).encode()))
    assert failure is not None
    assert failure.failure_class is FailureClass.FATAL


@given(st.integers(-1, 1100), st.binary(max_size=100), st.dictionaries(st.text(max_size=12), st.text(max_size=20)))
def test_judging_is_total(status: int, body: bytes, headers: dict[str, str]) -> None:
    assert (judge_reply(RawReply(status=status, headers=headers, body=body)) is None) == (status == 200)


@pytest.mark.parametrize("status", [429, 503, 529, 500, 409])
def test_a_wish_to_wait_is_passed_on(status: int) -> None:
    assert judged(status, headers={"retry-after": "7"}).retry_after_s == 7.0


@pytest.mark.parametrize(
    ("problem", "failure_class", "category"),
    [
        (CallProblem.UNREACHABLE, FailureClass.UNREACHABLE, ErrorCategory.UNREACHABLE),
        (CallProblem.TLS, FailureClass.FATAL, ErrorCategory.FATAL),
        (CallProblem.EGRESS, FailureClass.FATAL, ErrorCategory.FATAL),
        (CallProblem.CONNECTION_LOST, FailureClass.TRANSIENT, ErrorCategory.CONNECTION_LOST),
        (CallProblem.TOO_LARGE, FailureClass.ANSWER, ErrorCategory.RESPONSE_TOO_LARGE),
    ],
)
def test_a_call_without_an_answer_is_judged_by_its_problem(
    problem: CallProblem, failure_class: FailureClass, category: ErrorCategory
) -> None:
    assert judge_call_error(CallError(problem, "m")) == CallFailure(
        failure_class=failure_class, category=category, message="m"
    )


def test_every_problem_has_a_judgement() -> None:
    assert all(judge_call_error(CallError(problem, "m")) for problem in CallProblem)


def test_a_timeout_is_one_items_transient_failure() -> None:
    assert timeout_failure(120.0) == CallFailure(
        failure_class=FailureClass.TRANSIENT, category=ErrorCategory.TIMEOUT, message="no answer within 120 s"
    )


@pytest.mark.parametrize(
    ("category", "failure_class"),
    [
        (ErrorCategory.BAD_ENVELOPE, FailureClass.TRANSIENT),
        (ErrorCategory.RESPONSE_TOO_LARGE, FailureClass.ANSWER),
        (ErrorCategory.TRUNCATED, FailureClass.ANSWER),
        (ErrorCategory.AMBIGUOUS, FailureClass.ANSWER),
    ],
)
def test_a_broken_envelope_is_tried_again_and_a_bad_answer_is_not(
    category: ErrorCategory, failure_class: FailureClass
) -> None:
    assert judge_answer(Failure(category=category, message="m")) == CallFailure(
        failure_class=failure_class, category=category, message="m", http_status=200
    )


# --- Retry-After -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("N06")
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": " 5 "}, 5.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "٥"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-5", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 01 May 2024 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 May 2024 14:00:30 +0200"}, 30.0),
        ({"retry-after": "Wed, 01 May 2024 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 01 May 2054 12:00:00 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Wed, 99 May 2024 12:00:30 GMT"}, None),
        ({"retry-after": "Wed, 01 May 2024 12:00:30 GMT", "date": "Wed, 01 May 2024 12:00:10 GMT"}, 20.0),
        ({"retry-after": "Wed, 01 May 2024 12:00:30 GMT", "date": "junk"}, 30.0),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    assert parse_retry_after(headers, NOW) == wait_s


def test_a_date_without_anything_to_compare_it_with_says_nothing() -> None:
    assert parse_retry_after({"retry-after": "Wed, 01 May 2024 12:00:30 GMT"}, None) is None


@given(st.text(max_size=40) | st.integers().map(str) | st.floats().map(str))
def test_retry_after_is_total_and_bounded(value: str) -> None:
    for key in ("retry-after", "retry-after-ms", "date"):
        wait_s = parse_retry_after({key: value, **({"retry-after": value} if key == "date" else {})}, NOW)
        assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S


@given(st.datetimes(min_value=datetime(1000, 1, 1)), st.integers(-23, 23))
def test_any_date_is_read_in_any_zone(moment: datetime, hours: int) -> None:
    text = format_datetime(moment.replace(tzinfo=timezone(timedelta(hours=hours))))
    wait_s = parse_retry_after({"retry-after": text}, NOW)
    assert wait_s is not None and 0 <= wait_s <= MAX_RETRY_AFTER_S


# --- backoff ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "bound_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 30.0), (10**9, 30.0)])
def test_waits_fill_the_whole_range_up_to_a_doubling_bound(number: int, bound_s: float) -> None:
    rng = random.Random(7)
    waits = [RetryPolicy().backoff_s(number, rng) for _ in range(2_000)]
    assert 0 <= min(waits) < 0.02 * bound_s
    assert 0.98 * bound_s < max(waits) <= bound_s
    assert sum(waits) / len(waits) == pytest.approx(bound_s / 2, rel=0.05)


def test_the_same_generator_gives_the_same_waits() -> None:
    policy = RetryPolicy(attempts=3, base_s=1.0, cap_s=2.0)
    assert policy.backoff_s(2, random.Random(1)) == policy.backoff_s(2, random.Random(1))


@pytest.mark.parametrize(
    "policy", [{"attempts": 0}, {"base_s": -1.0}, {"base_s": 2.0, "cap_s": 1.0}, {"cap_s": float("inf")}]
)
def test_a_policy_that_cannot_work_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="retry policy"):
        RetryPolicy(**policy)  # type: ignore[arg-type]

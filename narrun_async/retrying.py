"""Decides what a failed call means and when to try again. Pure: it never sleeps, sends, stores or reads a clock."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import assert_never

from narrun_async.models import ErrorCategory, Failure, RawReply


class CallProblem(StrEnum):
    """Why a call brought no HTTP answer."""

    #: refused, no route, DNS: the narrative never left this machine
    UNREACHABLE = "unreachable"
    #: certificate or handshake
    TLS = "tls"
    #: the address dialled is not allowed (design §10)
    EGRESS = "egress"
    #: reset, closed early, or bytes that are no HTTP
    CONNECTION_LOST = "connection_lost"
    #: the body passed the size cap
    TOO_LARGE = "too_large"


class CallError(Exception):
    """No HTTP answer came. Raised by providers, judged by the caller."""

    def __init__(self, problem: CallProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        #: one sentence, without request or answer text
        self.message = message


class FailureClass(StrEnum):
    """Who pays for a failure, and how (design §7)."""

    #: the run stops at once; no row is written
    FATAL = "fatal"
    #: the endpoint cannot be reached: the breaker counts it, the narrative does not pay
    UNREACHABLE = "unreachable"
    #: the endpoint asks for patience: a gate for all
    OVERLOAD = "overload"
    #: try this narrative again after a backoff
    TRANSIENT = "transient"
    #: the answer cannot be used: an error row with its own category
    ANSWER = "answer"
    #: this request will never be answered: an error row at once, unless the refusal `is_unexplained`
    PERMANENT = "permanent"


#: classes that decide a narrative without another attempt
DECIDING = frozenset({FailureClass.PERMANENT, FailureClass.ANSWER})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailure:
    """One failed attempt, judged."""

    failure_class: FailureClass
    category: ErrorCategory
    #: one sentence of ours: the endpoint's own words may repeat the narrative that it was sent
    message: str
    http_status: int | None = None
    #: how long the endpoint asked us to wait; None where it said nothing usable
    retry_after_s: float | None = None
    #: PERMANENT without a code, a type or a parameter: the request may be wrong, or the server in trouble
    is_unexplained: bool = False
    #: the endpoint's own words where the class is FATAL; to be shown only where the request held no narrative
    quoted: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often one pass calls for one narrative, and how long it waits in between."""

    #: calls for one narrative in one pass
    attempts: int = 5
    #: upper bound of the wait after the first failure
    base_s: float = 0.5
    #: upper bound of every wait
    cap_s: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.base_s <= self.cap_s < math.inf:
            raise ValueError("a retry policy needs at least one attempt and 0 <= base_s <= cap_s")

    def backoff_s(self, failure_number: int, rng: random.Random) -> float:
        """The wait after the `failure_number`th failure in a row, counted from 1.

        Full jitter, uniform over 0 to min(cap, base · 2^(n-1)): Marc Brooker, "Exponential Backoff And Jitter",
        AWS Architecture Blog, 2015.
        """
        # The exponent is bounded because a float overflows at 2^1024.
        bound_s = min(self.cap_s, self.base_s * 2.0 ** min(max(failure_number, 1) - 1, 64))
        return rng.uniform(0.0, bound_s)


# --- calls without an HTTP answer ------------------------------------------------------------------------------------


def judge_call_error(error: CallError) -> CallFailure:
    """What a call without an HTTP answer means."""
    match error.problem:
        case CallProblem.UNREACHABLE:
            failure_class, category = FailureClass.UNREACHABLE, ErrorCategory.UNREACHABLE
        case CallProblem.TLS | CallProblem.EGRESS:
            failure_class, category = FailureClass.FATAL, ErrorCategory.FATAL
        case CallProblem.CONNECTION_LOST:
            failure_class, category = FailureClass.TRANSIENT, ErrorCategory.CONNECTION_LOST
        case CallProblem.TOO_LARGE:
            # The model ran away on this narrative; five more times 8 MiB would not help it.
            failure_class, category = FailureClass.ANSWER, ErrorCategory.RESPONSE_TOO_LARGE
        case _:
            assert_never(error.problem)
    return CallFailure(failure_class=failure_class, category=category, message=error.message)


def timeout_failure(deadline_s: float) -> CallFailure:
    """An attempt that its deadline ended."""
    return CallFailure(
        failure_class=FailureClass.TRANSIENT,
        category=ErrorCategory.TIMEOUT,
        message=f"no answer within {deadline_s:g} s",
    )


def judge_answer(failure: Failure, *, http_status: int = 200) -> CallFailure:
    """What an HTTP 200 means whose body could not be used: a broken envelope is the server's, the rest the answer's."""
    is_envelope = failure.category is ErrorCategory.BAD_ENVELOPE
    return CallFailure(
        failure_class=FailureClass.TRANSIENT if is_envelope else FailureClass.ANSWER,
        category=failure.category,
        message=failure.message,
        http_status=http_status,
    )


# --- HTTP answers ----------------------------------------------------------------------------------------------------

_MODEL_CODES = frozenset(
    {"model_not_found", "model_not_exist", "model_not_available", "invalid_model", "unknown_model"}
    | {"deploymentnotfound", "modelnotfound", "model_not_found_error"}
)
_QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
    | {"insufficient_balance", "insufficient_credits", "credit_balance_exhausted"}
)
_CONTEXT_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "context_length_error"}
    | {"contextwindowexceedederror", "model_context_window_exceeded", "string_above_max_length"}
)
# `invalid_prompt` is what OpenAI says to a text that its moderation flagged.
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
)
#: vLLM names the length of the prompt as if it were a parameter …
_CONTEXT_PARAM = "input_tokens"
#: … and says "context length", too, where the limit that we send is what does not fit: a matter of the setting
_LIMIT_PARAMS = frozenset({"max_tokens", "max_completion_tokens"})

# LM Studio, Ollama and older vLLM give this case no code of its own. The text moves a permanent failure to a more
# telling category and decides nothing else, so a prompt that is quoted in it can do no harm.
_CONTEXT_WORDS = re.compile(r"context (?:length|size|window|the overflows)|n_ctx", re.IGNORECASE)

_MAX_ERROR_BODY_BYTES = 65_536
_MAX_QUOTED_CHARS = 200
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ErrorBody:
    """What an error answer says in structured form; empty where it says nothing."""

    code: str = ""
    type: str = ""
    param: str = ""
    #: Azure's more exact code inside the error
    inner_code: str = ""
    #: what moderation flagged in the text is told beside the error (OpenRouter)
    is_flagged: bool = False
    #: free text: it may quote the prompt, so it is shown only with fatal failures
    message: str = ""

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.code.lower(), self.type.lower(), self.inner_code.lower()})

    @property
    def is_filter(self) -> bool:
        """The text was refused, and not the request."""
        return self.is_flagged or bool(self.names & _FILTER_CODES)

    @property
    def explains_nothing(self) -> bool:
        return not (self.code or self.type or self.param or self.inner_code)


def judge_reply(reply: RawReply, *, now: datetime | None = None) -> CallFailure | None:
    """What an HTTP answer means; None for 200, whose body is another matter.

    Decided by status and by the structured code or type of the error, never by its free text (one stated exception).

    :param now: UTC, for a Retry-After that is a date and comes without a Date header
    """
    status = reply.status
    if status == 200:
        return None
    error = _read_error(reply.body)
    if 300 <= status < 400:
        return _fatal(status, "the endpoint redirects, and redirects are refused; give the final URL", _ErrorBody())
    if 400 <= status < 500 and (fatal := _judge_fatal(status, error)) is not None:
        return fatal
    if _is_context_overflow(status, error):
        return _failed(FailureClass.PERMANENT, ErrorCategory.CONTEXT_LENGTH, status, error)
    if status in (429, 503, 529):
        wait_s = parse_retry_after(reply.headers, now)
        return _failed(FailureClass.OVERLOAD, ErrorCategory.OVERLOADED, status, error, retry_after_s=wait_s)
    if status in (408, 409, 425) or (500 <= status < 600 and status != 501):
        wait_s = parse_retry_after(reply.headers, now)
        return _failed(FailureClass.TRANSIENT, ErrorCategory.SERVER_ERROR, status, error, retry_after_s=wait_s)
    if 400 <= status < 500 or status == 501:
        category = ErrorCategory.CONTENT_FILTER if error.is_filter else ErrorCategory.BAD_REQUEST
        is_unexplained = status == 400 and error.explains_nothing
        return _failed(FailureClass.PERMANENT, category, status, error, is_unexplained=is_unexplained)
    return _failed(FailureClass.TRANSIENT, ErrorCategory.BAD_ENVELOPE, status, error)


def _is_context_overflow(status: int, error: _ErrorBody) -> bool:
    if error.names & _CONTEXT_CODES:
        return True
    if status not in (400, 413, 422) or error.param in _LIMIT_PARAMS:
        return False
    return error.param == _CONTEXT_PARAM or _CONTEXT_WORDS.search(error.message) is not None


def _judge_fatal(status: int, error: _ErrorBody) -> CallFailure | None:
    """Failures of the configuration among the 4xx."""
    if status == 403 and error.is_filter:
        return None
    if status in (401, 403):
        # Not quoted: such messages repeat the key that was sent.
        unquoted = _ErrorBody(code=error.code, type=error.type)
        return _fatal(status, "the endpoint refuses the API key or its rights", unquoted)
    if status == 407:
        return _fatal(status, "a proxy stands before the endpoint and wants credentials", _ErrorBody())
    if status == 402 or error.names & _QUOTA_CODES:
        return _fatal(status, "the account has no credit or quota left", error)
    names_model = bool(error.names & _MODEL_CODES) or error.param == "model"
    if names_model and status in (400, 404, 410, 422):
        return _fatal(status, "the endpoint does not know the model", error)
    if status == 404 and (error.message or error.code or error.type):
        return _fatal(status, "not found: the model name or the path of the URL is wrong", error)
    if status in (404, 405, 410):
        return _fatal(status, "nothing answers chat completions at this URL", error)
    return None


def _fatal(status: int, sentence: str, error: _ErrorBody) -> CallFailure:
    return CallFailure(
        failure_class=FailureClass.FATAL,
        category=ErrorCategory.FATAL,
        message=f"HTTP {status}{_named(status, error)}: {sentence}",
        http_status=status,
        quoted=_quoted(error),
    )


def _quoted(error: _ErrorBody) -> str:
    quoted = " ".join("".join(sign if sign.isprintable() else " " for sign in error.message).split())
    return quoted if len(quoted) <= _MAX_QUOTED_CHARS else quoted[: _MAX_QUOTED_CHARS - 1] + "…"


def _failed(
    failure_class: FailureClass,
    category: ErrorCategory,
    status: int,
    error: _ErrorBody,
    *,
    retry_after_s: float | None = None,
    is_unexplained: bool = False,
) -> CallFailure:
    return CallFailure(
        failure_class=failure_class,
        category=category,
        message=f"HTTP {status}{_named(status, error)}",
        http_status=status,
        retry_after_s=retry_after_s,
        is_unexplained=is_unexplained,
    )


def _named(status: int, error: _ErrorBody) -> str:
    said = [
        f"{label} {value}"
        for label, value in (("code", error.code), ("type", error.type), ("param", error.param))
        if value and value != str(status)
    ]
    return f" ({', '.join(said)})" if said else ""


def _read_error(body: bytes) -> _ErrorBody:
    """The error object in any of the shapes that servers use. Total: what cannot be read says nothing.

    OpenAI and most: `{"error": {…}}`; Ollama: `{"error": "text"}`; older vLLM: flat; Google: in a list of one.
    """
    if len(body) > _MAX_ERROR_BODY_BYTES:
        return _ErrorBody()
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return _ErrorBody()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return _ErrorBody()
    error = value.get("error", value if value.get("object") == "error" else None)
    if isinstance(error, str):
        return _ErrorBody(message=error)
    if not isinstance(error, dict):
        return _ErrorBody()
    message, inner, metadata = error.get("message"), error.get("innererror"), error.get("metadata")
    return _ErrorBody(
        code=_identifier(error.get("code")),
        type=_identifier(error.get("type")),
        param=_identifier(error.get("param")),
        inner_code=_identifier(inner.get("code")) if isinstance(inner, dict) else "",
        is_flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
        message=message if isinstance(message, str) else "",
    )


def _identifier(value: object) -> str:
    """A code, type or parameter name. Whatever could be prose is dropped, for prose may quote the prompt."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    # An integer past every status is no code, and past 4,300 digits `str` refuses it.
    if isinstance(value, int) and abs(value) >= 10**9:
        return ""
    text = str(value)
    return text if _IDENTIFIER.fullmatch(text) else ""


# --- calls about files and batches -----------------------------------------------------------------------------------


def judge_service_reply(reply: RawReply, *, may_quote: bool) -> CallFailure | None:
    """What an answer means to a call about files or batches; None for success.

    :param may_quote: the request held no narrative, so the endpoint's words may be shown
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    error = _read_error(reply.body)
    if status in (404, 405, 410, 501):
        return _fatal(status, "the endpoint knows nothing of this kind there", error if may_quote else _ErrorBody())
    failure = judge_reply(reply)
    assert failure is not None
    if not may_quote:
        return replace(failure, quoted="")
    # Messages about keys repeat the key.
    return failure if failure.quoted or status in (401, 403) else replace(failure, quoted=_quoted(error))


def may_have_acted(failure: CallFailure) -> bool:
    """Whether an endpoint may have done what it was asked for although the call failed.

    It has not where nothing reached it, and where it said so: by a status below 500 that is no timeout or conflict.
    """
    status = failure.http_status
    if status is None:
        return failure.category in _AFTER_SENDING
    return status < 300 or status in (408, 409, 425) or status >= 500


_AFTER_SENDING = frozenset({ErrorCategory.CONNECTION_LOST, ErrorCategory.TIMEOUT, ErrorCategory.RESPONSE_TOO_LARGE})


# --- Retry-After -----------------------------------------------------------------------------------------------------

#: a server that asks for more is taken to have asked for a day
MAX_RETRY_AFTER_S = 86_400.0


def parse_retry_after(headers: Mapping[str, str], now: datetime | None) -> float | None:
    """Seconds that an answer asks us to wait, 0 to `MAX_RETRY_AFTER_S`; None where it says nothing usable.

    `retry-after-ms` (OpenAI, Azure) before `retry-after` in seconds or as an HTTP date (RFC 9110 §10.2.3). A date is
    taken against the answer's own Date header where there is one, which makes a wrong clock on this side harmless.

    :param headers: keys in lower case
    :param now: aware; None leaves a date without a Date header unread
    """
    wait_ms = _number(headers.get("retry-after-ms"))
    if wait_ms is not None:
        return min(wait_ms / 1000.0, MAX_RETRY_AFTER_S)
    asked = headers.get("retry-after")
    wait_s = _number(asked)
    if wait_s is not None:
        return min(wait_s, MAX_RETRY_AFTER_S)
    until = _http_date(asked)
    reference = _http_date(headers.get("date")) or now
    if until is None or reference is None:
        return None
    return min(max((until - reference).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _number(text: str | None) -> float | None:
    """A finite number that is not negative."""
    try:
        value = float(text) if text is not None and text.isascii() and "_" not in text else -1.0
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def _http_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

"""Reads one line of a batch's output or error file; what the answer in it says is another matter.

The forms that were seen: OpenAI and Azure put an HTTP error into `response` and what was never sent into `error`; vLLM
puts the status into `response`, without a body, and the error object, or a sentence, into `error`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from narrun_async.models import BatchLine, RawReply
from narrun_async.parsing.envelope import MAX_BODY_BYTES
from narrun_async.parsing.strict_json import MalformedJsonError, RefusedJsonError, decode_envelope

#: an answer as large as one may be, and what the line has around it
MAX_LINE_BYTES = MAX_BODY_BYTES + 65_536
_MAX_CUSTOM_ID_CHARS = 256
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: 2001 and 2100: a moment outside is none
_FIRST_SECOND, _LAST_SECOND = 1_000_000_000, 4_102_444_800


def parse_batch_line(line: bytes) -> BatchLine | None:
    """What a line says; None where it is no line of such a file. Total: whatever the bytes are, one of the two."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        value = decode_envelope(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, MalformedJsonError, RefusedJsonError):
        return None
    if not isinstance(value, dict):
        return None
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MAX_CUSTOM_ID_CHARS:
        return None
    if "response" not in value and "error" not in value:
        return None  # a request, most likely
    response, error = value.get("response"), value.get("error")
    code = _error_code(error)
    if not isinstance(response, dict):
        return BatchLine(custom_id=custom_id, reply=None, error_code=code)
    status, body = response.get("status_code"), response.get("body")
    if type(status) is not int or not 100 <= status <= 599:
        # Something was answered, in a form that nobody has seen, and that is not to pass for no answer.
        return None if body is not None else BatchLine(custom_id=custom_id, reply=None, error_code=code)
    return BatchLine(
        custom_id=custom_id,
        reply=RawReply(status=status, headers={}, body=_encode(_error_body(error) if body is None else body)),
        error_code=code,
        answered_at=_moment(body),
    )


def _error_body(error: object) -> object:
    """An error beside the response, as the body that a live call would have brought."""
    is_whole = isinstance(error, dict) and ("error" in error or error.get("object") == "error")
    return error if is_whole else {"error": error}


def _error_code(error: object) -> str:
    """The code of an error; whatever could be prose is dropped, for prose may quote the prompt."""
    inner = error.get("error", error) if isinstance(error, dict) else error
    code = inner.get("code") if isinstance(inner, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _moment(body: object) -> datetime | None:
    created = body.get("created") if isinstance(body, dict) else None
    if type(created) is not int or not _FIRST_SECOND <= created <= _LAST_SECOND:
        return None
    return datetime.fromtimestamp(created, UTC)


def _encode(value: object) -> bytes:
    """As JSON again, letters as they are; all escaped where one of them is a lone surrogate, which UTF-8 has not."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")

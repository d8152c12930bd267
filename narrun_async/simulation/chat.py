"""Reads a chat completion request as a strict server does; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from narrun_async.prompting import REMINDER
from narrun_async.simulation.answers import error_body
from narrun_async.simulation.behaviour import Behaviour, FormatHandling

#: a question that is no narrative
_WANTED_WORD = re.compile(r"Reply with the word (\w+)\.")

_REMINDED = f"\n\n{REMINDER}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A chat completion request that was understood."""

    #: the last user message, without the reminder of a second try: it stands for the narrative
    text: str = field(repr=False)
    #: it ended with that reminder
    is_reminded: bool
    #: that the answer may have; None: the request does not say
    token_limit: int | None
    #: at most one token is asked for: somebody wants to know whether we live
    is_probe: bool
    #: of all messages together
    prompt_chars: int
    n_messages: int
    #: no narrative: the word that it wants to hear
    wanted_word: str | None = None
    #: what becomes of its `response_format`
    handling: FormatHandling = FormatHandling.IGNORE
    #: the schema in it
    schema: Mapping[str, object] | None = field(default=None, repr=False)


class RefusedError(Exception):
    """A request that gets an error because of what it says."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind="invalid_request_error", code=code, param=param)


def require_key(behaviour: Behaviour, headers: Mapping[bytes, bytes]) -> None:
    """:param headers: names in lower case

    :raises RefusedError: a key is asked for and this is not it
    """
    if behaviour.auth_key is None:
        return
    name, prefix = behaviour.auth_header.lower().encode(), b""
    if name == b"bearer":
        name, prefix = b"authorization", b"Bearer "
    if headers.get(name) != prefix + behaviour.auth_key.encode():
        raise RefusedError(401, "Incorrect API key provided.", code="invalid_api_key")


def require_query(behaviour: Behaviour, query: str) -> None:
    """:raises RefusedError: a parameter is asked for and missing, or another value"""
    given = dict(parse_qsl(query, keep_blank_values=True))
    if any(given.get(name) != value for name, value in behaviour.required_query.items()):
        raise RefusedError(404, "Resource not found", code="404")


def parse_chat(behaviour: Behaviour, body: bytes) -> ChatRequest:
    """The request in a body.

    :raises RefusedError: it is none, or the behaviour does not take its model, parameters or length
    """
    try:
        asked = json.loads(body)
    except ValueError:
        raise RefusedError(400, "The body is not JSON.") from None
    text = _user_text(asked)
    if text is None:
        raise RefusedError(400, "A user message is required.", param="messages")
    if behaviour.known_models and asked.get("model") not in behaviour.known_models:
        raise RefusedError(404, "The model does not exist.", code="model_not_found", param="model")
    unsupported = [name for name in behaviour.unsupported_parameters if name in asked]
    if asked.get("stream"):
        unsupported.append("stream")
    for name in unsupported:
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        raise RefusedError(400, message, code="unsupported_parameter", param=name)
    messages = asked["messages"]
    prompt_chars = sum(len(_message_text(message)) for message in messages)
    if behaviour.max_prompt_chars is not None and prompt_chars > behaviour.max_prompt_chars:
        message = "The maximum context length of this model is exceeded."
        raise RefusedError(400, message, code="context_length_exceeded", param="messages")
    n_tokens = asked.get("max_tokens", asked.get("max_completion_tokens"))
    token_limit = n_tokens if isinstance(n_tokens, int) else None
    narrative = text.removesuffix(_REMINDED)
    handling, schema = _read_format(behaviour, asked.get("response_format"))
    wanted = _WANTED_WORD.match(text)
    return ChatRequest(
        text=narrative,
        is_reminded=narrative != text,
        token_limit=token_limit,
        is_probe=token_limit is not None and token_limit <= 1,
        prompt_chars=prompt_chars,
        n_messages=len(messages),
        wanted_word=wanted[1] if wanted else None,
        handling=handling,
        schema=schema,
    )


def _read_format(behaviour: Behaviour, asked: object) -> tuple[FormatHandling, Mapping[str, object] | None]:
    """What becomes of a `response_format`, and the schema in it.

    :raises RefusedError: it is refused
    """
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    handling = FormatHandling(behaviour.response_formats.get(str(kind), FormatHandling.IGNORE))
    if handling is FormatHandling.REFUSE:
        raise RefusedError(400, f"'response_format.type' must not be '{kind}'", param="response_format")
    inner = asked.get("json_schema") if isinstance(asked, Mapping) else None
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    return handling, schema if isinstance(schema, Mapping) else None


def _user_text(asked: object) -> str | None:
    """The content of the last user message; None where there is none."""
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _message_text(message)
    return None


def _message_text(message: object) -> str:
    """The text of one message, joined where it comes in parts; empty where it has none."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "".join(part for part in parts if isinstance(part, str))

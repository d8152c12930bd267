"""Owns what a configuration may add to every request: header fields, query parameters, body fields, a form of answers.

A secret has no place in any of them; names that sound like one are refused with the setting to use instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, JsonValue, Tag

from narrun_async.config.urls import BROKEN_VARIABLE, VARIABLE, refuse_secret_variables, sounds_secret
from narrun_async.config.values import JsonFields

MAX_FIELDS = 50
MAX_VALUE_CHARS = 2_000

#: the word of `model.api_key_header` for `Authorization: Bearer KEY`; any other word is a header's name
BEARER = "bearer"

#: in lower case: what the program sets itself, and what says how a message travels
RESERVED_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length",
        "content-type", "cookie", "expect", "host", "keep-alive", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
#: what a header can carry: visible ASCII, blanks and tabs
HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_QUERY_NAME = re.compile(r"[\x21-\x7e]{1,100}")

_KEY_ADVICE = "keys come from `model.api_key_env` or `api_key_file`"

#: fields of the request body that other keys decide, and what to use instead
_OWNED_FIELDS: Mapping[str, str] = {
    "model": "`model.name` says it",
    "messages": "`prompt.system_prompt` and `prompt.user_template` make them",
    "temperature": "use `model.temperature`",
    "max_tokens": "use `model.max_tokens`",
    "max_completion_tokens": "use `model.max_completion_tokens`",
    "seed": "use `model.seed`",
    "top_p": "use `model.top_p`",
    "reasoning_effort": "use `model.reasoning_effort`",
    "response_format": "use `model.response_format`",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "one answer is read, and the others would only be paid for",
}
#: vLLM took these away in 0.12 and ignores them without a word, so a grammar would silently do nothing
_DROPPED_FIELDS = frozenset(
    {
        "guided_json", "guided_choice", "guided_regex", "guided_grammar", "guided_decoding_backend",
        "guided_whitespace_pattern",
    }
)  # fmt: skip
_SECRET_FIELDS = frozenset({"api_key", "apikey", "access_token", "authorization", "password", "secret", "token"})


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """The header fields as written, `${NAME}` included.

    :raises ValueError: one of them cannot be sent, belongs to the program, or sounds like a secret
    """
    _require_few(headers)
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError("has a name that no header can have; use letters, digits and `-`")
        if name.lower() in RESERVED_HEADERS:
            advice = f"; {_KEY_ADVICE}" if "authorization" in name.lower() else ""
            raise ValueError(f"`{name}` is set by the program itself{advice}")
        if sounds_secret(name):
            raise ValueError(
                f"`{name}` sounds like a credential, which no configuration may hold; {_KEY_ADVICE}, "
                f"and `model.api_key_header: {name}` sends the key under that name"
            )
        _check_value(name, value)
        if not HEADER_VALUE.fullmatch(VARIABLE.sub("x", value)) or value != value.strip():
            raise ValueError(f"`{name}` has characters that a header cannot carry, or blanks around it")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("names a header twice; upper and lower case make no difference")
    return headers


def check_query(query: dict[str, str]) -> dict[str, str]:
    """The query parameters as written, `${NAME}` included; they are encoded when they are sent.

    :raises ValueError: one of them cannot be sent, or sounds like a secret
    """
    _require_few(query)
    for name, value in query.items():
        if not _QUERY_NAME.fullmatch(name):
            raise ValueError("has a name that no query parameter should have; use visible ASCII letters")
        if sounds_secret(name):
            raise ValueError(f"`{name}` sounds like a credential, and a URL is no place for one; {_KEY_ADVICE}")
        _check_value(name, value)
        if not value.isprintable():
            raise ValueError(f"`{name}` has control characters")
    return query


def check_body(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The further fields of the request body.

    :raises ValueError: the program decides one of them, a server dropped it, or it is a secret
    """
    _require_few(body)
    for name in body:
        if name in _OWNED_FIELDS:
            raise ValueError(f"must not hold `{name}`: {_OWNED_FIELDS[name]}")
        if name in _DROPPED_FIELDS:
            raise ValueError(
                f"must not hold `{name}`: vLLM dropped it and ignores it silently; use `model.response_format`"
            )
        if name.lower() in _SECRET_FIELDS:
            raise ValueError(f"must not hold a credential (`{name.lower()}`); {_KEY_ADVICE}")
    return body


def check_key_header(name: str) -> str:
    """`bearer`, or the name of the header that carries the key as it is.

    :raises ValueError: no key can be sent under that name
    """
    if not HEADER_NAME.fullmatch(name) or name.lower() in RESERVED_HEADERS:
        raise ValueError("must be `bearer` (Authorization: Bearer KEY) or a header's name, such as `api-key`")
    return name


def _check_word(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", value):
        raise ValueError("must be one word in lower case that the server knows, such as low, medium or high")
    return value


#: what `model.response_format` can be told in a word; `off` is the same as nothing
AnswerMode = Literal["auto", "json_schema", "json_object"]


def _format_or_mode(value: object) -> object:
    # YAML 1.1 reads `off` as false
    if value is False or value == "off":
        return None
    if value is not None and value not in get_args(AnswerMode) and not isinstance(value, dict):
        raise ValueError(
            "must be `auto`, `json_schema`, `json_object`, `off`, or a mapping that is sent as it is, such as "
            "{type: json_object}"
        )
    return value


HeaderFields = Annotated[dict[str, str], AfterValidator(check_headers)]
QueryFields = Annotated[dict[str, str], AfterValidator(check_query)]
BodyFields = Annotated[JsonFields, AfterValidator(check_body)]
KeyHeader = Annotated[str, AfterValidator(check_key_header)]
ReasoningEffort = Annotated[str, AfterValidator(_check_word)]
#: a mode, or a mapping that is sent as it is; the tags keep pydantic's own names out of the path of an error
ResponseFormat = Annotated[
    Annotated[
        Annotated[AnswerMode, Tag("[mode]")] | Annotated[JsonFields, Tag("[mapping]")],
        Discriminator(lambda value: "[mapping]" if isinstance(value, dict) else "[mode]"),
    ]
    | None,
    BeforeValidator(_format_or_mode),
]


def _require_few(fields: Mapping[str, object]) -> None:
    if len(fields) > MAX_FIELDS:
        raise ValueError(f"must not have more than {MAX_FIELDS} entries")


def _check_value(name: str, value: str) -> None:
    if len(value) > MAX_VALUE_CHARS:
        raise ValueError(f"`{name}` must be at most {MAX_VALUE_CHARS:,} characters long")
    refuse_secret_variables(value)
    if BROKEN_VARIABLE.search(value):
        raise ValueError(f"`{name}` has a `${{` that is no `${{NAME}}`")

"""Owns the body of a request: everything constant is encoded once, then one narrative is put in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from narrun_async.errors import ConfigurationError

#: where the narrative goes in the user template
PLACEHOLDER = "<<TEXT>>"
#: the whole text that a health check sends
PROBE_TEXT = "Reply with the word OK."
#: the last paragraph of the user message of a second try. Not a message of its own: the chat templates of Gemma 2 and 3
#: and of some Mistral models refuse two user messages in a row (vLLM says 400, llama.cpp 500)
REMINDER = (
    "Reply with one complete JSON object in the form described above, every value within its stated range, "
    "and with nothing before or after it."
)
_TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
#: servers keep seeds in a signed 64-bit integer
_SEEDS = 2**63


class Change(StrEnum):
    """What is different when a narrative is asked about once more."""

    #: the reminder, and the next seed where a seed is sent: the same question would bring the same answer
    REMINDER = "reminder"
    #: twice the token limit and nothing else, so that the same answer can come to its end
    MORE_TOKENS = "more_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFields:
    """What every request of an experiment has in common; None means that the field is not sent."""

    model: str
    #: None or empty: no system message
    system_prompt: str | None = field(default=None, repr=False)
    #: contains `<<TEXT>>` at least once
    user_template: str = field(repr=False)
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    top_p: float | None = None
    #: sent as it is
    response_format: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTemplate:
    """A chat completion request with gaps for the narrative. Immutable and picklable."""

    #: the JSON around the gaps: one more piece than there are gaps
    _pieces: tuple[bytes, ...] = field(repr=False)
    #: the same for a second try
    _changed: Mapping[Change, tuple[bytes, ...]] = field(repr=False)
    _probe: bytes = field(repr=False)

    @classmethod
    def build(cls, fields: RequestFields) -> RequestTemplate:
        """Encode the constant parts.

        :raises ConfigurationError: the template has no place for the narrative
        """
        if PLACEHOLDER not in fields.user_template:
            raise ConfigurationError(f"`prompt.user_template` does not contain {PLACEHOLDER}")
        options = {
            name: value
            for name in ("temperature", "max_tokens", "seed", "top_p", "response_format")
            if (value := getattr(fields, name)) is not None
        }
        probe = {"model": fields.model, "messages": [{"role": "user", "content": PROBE_TEXT}], "max_tokens": 1}
        return cls(
            _pieces=_pieces(fields, options),
            _changed=_changed_pieces(fields, options),
            _probe=_encode({**probe, "stream": False}),
        )

    def body_for(self, narrative_text: str, change: Change | None = None) -> bytes:
        """The request for one narrative: ASCII JSON, the text in every gap, `<<TEXT>>` inside the text left alone.

        Total over all strings: what UTF-8 could not hold is escaped too.

        :param change: of a second try; one that this template `can_make`
        """
        pieces = self._pieces if change is None else self._changed[change]
        return _encode(narrative_text)[1:-1].join(pieces)

    def can_make(self, change: Change) -> bool:
        """Whether there is anything to change: a token limit that is not sent cannot be doubled."""
        return change in self._changed

    def probe_body(self) -> bytes:
        """A harmless request for one token, for health checks; it holds nothing of any narrative or prompt."""
        return self._probe


def _pieces(fields: RequestFields, options: Mapping[str, object], *, ending: str = "") -> tuple[bytes, ...]:
    """The JSON around the gaps.

    :param ending: of the user message
    """
    messages = [{"role": "system", "content": fields.system_prompt}] if fields.system_prompt else []
    opening = _encode({"model": fields.model, "messages": [*messages, {"role": "user", "content": ""}]})
    head = opening.removesuffix(b'"}]}')
    tail = b'"}],' + _encode({**options, "stream": False}).removeprefix(b"{")
    first, *others = (_encode(part)[1:-1] for part in (fields.user_template + ending).split(PLACEHOLDER))
    pieces = [head + first, *others]
    pieces[-1] += tail
    return tuple(pieces)


def _changed_pieces(fields: RequestFields, options: Mapping[str, object]) -> dict[Change, tuple[bytes, ...]]:
    seed = options.get("seed")
    next_seed = {"seed": (seed + 1) % _SEEDS} if isinstance(seed, int) else {}
    changed = {Change.REMINDER: _pieces(fields, {**options, **next_seed}, ending=f"\n\n{REMINDER}")}
    doubled = {name: 2 * limit for name in _TOKEN_LIMITS if isinstance(limit := options.get(name), int)}
    if doubled:
        changed[Change.MORE_TOKENS] = _pieces(fields, {**options, **doubled})
    return changed


#: what a server can be asked to bind an answer to, by the name that `response_format` has for it
STRUCTURED_KINDS = ("json_schema", "json_object")
#: in the schema of the probe: a name that no model would think of by itself
PROBE_FIELD = "is_probe"
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {PROBE_FIELD: {"type": "boolean"}},
    "required": [PROBE_FIELD],
    "additionalProperties": False,
}
#: enough for the one object and for a server that puts a few words before it
_STRUCTURED_PROBE_TOKENS = 64


def structured_probe_body(model: str, kind: str) -> bytes:
    """A tiny request that only a server which binds its answer to JSON answers with JSON; holds no narrative.

    :param kind: one of STRUCTURED_KINDS
    """
    asked: dict[str, object] = {"type": kind}
    text = PROBE_TEXT
    if kind == "json_schema":
        asked["json_schema"] = {"name": "probe", "strict": True, "schema": _PROBE_SCHEMA}
    else:
        text += " Do not use JSON unless you have to."  # OpenAI refuses json_object where nobody speaks of JSON
    return _encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": _STRUCTURED_PROBE_TOKENS,
            "response_format": asked,
            "stream": False,
        }
    )


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")

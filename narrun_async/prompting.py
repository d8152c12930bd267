"""Owns the body of a request: everything constant is encoded once, then one narrative is put in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from narrun_async.errors import ConfigurationError

#: where the narrative goes in the user template
PLACEHOLDER = "<<TEXT>>"
#: the whole text that a health check sends
PROBE_TEXT = "Reply with the word OK."


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
    _probe: bytes = field(repr=False)

    @classmethod
    def build(cls, fields: RequestFields) -> RequestTemplate:
        """Encode the constant parts.

        :raises ConfigurationError: the template has no place for the narrative
        """
        if PLACEHOLDER not in fields.user_template:
            raise ConfigurationError(f"`prompt.user_template` does not contain {PLACEHOLDER}")
        messages = [{"role": "system", "content": fields.system_prompt}] if fields.system_prompt else []
        opening = _encode({"model": fields.model, "messages": [*messages, {"role": "user", "content": ""}]})
        options = {
            name: value
            for name in ("temperature", "max_tokens", "seed", "top_p", "response_format")
            if (value := getattr(fields, name)) is not None
        }
        closing = _encode({**options, "stream": False})
        head = opening.removesuffix(b'"}]}')
        tail = b'"}],' + closing.removeprefix(b"{")
        first, *others = (_encode(part)[1:-1] for part in fields.user_template.split(PLACEHOLDER))
        pieces = [head + first, *others]
        pieces[-1] += tail
        probe = {"model": fields.model, "messages": [{"role": "user", "content": PROBE_TEXT}], "max_tokens": 1}
        return cls(_pieces=tuple(pieces), _probe=_encode({**probe, "stream": False}))

    def body_for(self, narrative_text: str) -> bytes:
        """The request for one narrative: ASCII JSON, the text in every gap, `<<TEXT>>` inside the text left alone.

        Total over all strings: what UTF-8 could not hold is escaped too.
        """
        return _encode(narrative_text)[1:-1].join(self._pieces)

    def probe_body(self) -> bytes:
        """A harmless request for one token, for health checks; it holds nothing of any narrative or prompt."""
        return self._probe


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

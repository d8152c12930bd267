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


#: a question that is to be answered as a narrative is, thoughts included, ends here if the model runs away
BOUND_PROBE_TOKENS = 1024

_OPTIONS = (
    "temperature", "max_tokens", "max_completion_tokens", "seed", "top_p", "reasoning_effort", "response_format",
)  # fmt: skip


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
    #: the other name of that limit; servers take one or the other
    max_completion_tokens: int | None = None
    seed: int | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    #: sent as it is
    response_format: Mapping[str, object] | None = None
    #: fields that the program knows nothing of
    further: Mapping[str, object] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, object]:
        """What stands beside model and messages, in the order in which it is sent."""
        values = {name: getattr(self, name) for name in _OPTIONS}
        return {name: value for name, value in values.items() if value is not None} | dict(self.further)

    @property
    def limit_name(self) -> str:
        """What this server calls the limit of an answer, as far as the configuration tells."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


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
        options = fields.options
        probe = {"model": fields.model, "messages": _asking(PROBE_TEXT), fields.limit_name: 1, "stream": False}
        return cls(_pieces=_pieces(fields, options), _changed=_changed_pieces(fields, options), _probe=_encode(probe))

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


def bound_probe_bodies(fields: RequestFields, response_format: Mapping[str, object] | None) -> tuple[bytes, ...]:
    """A question with the options of an experiment, its prompts left out, that only a server which binds its answers to
    JSON answers with JSON. It holds nothing of any narrative or prompt.

    :param response_format: takes the place of that of the experiment; None: a plain question, for comparison
    :returns: the body to send, and one to send where that is refused: with the limit that the experiment has, or none.
        Servers differ in what they call it and in how much they grant
    """
    # OpenAI refuses json_object where nobody speaks of JSON.
    text = PROBE_TEXT if response_format is None else f"{PROBE_TEXT} Do not use JSON unless you have to."
    request: dict[str, object] = {"model": fields.model, "messages": _asking(text), **fields.options, "stream": False}
    request.pop("response_format", None)
    if response_format is not None:
        request["response_format"] = response_format
    limited = _encode({**request, fields.limit_name: BOUND_PROBE_TOKENS})
    limit = fields.max_tokens or fields.max_completion_tokens or 0
    return (limited,) if limit >= BOUND_PROBE_TOKENS else (limited, _encode(request))


def _asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")

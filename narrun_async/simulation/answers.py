"""Writes the answers of the simulated model: a keyword rule, dressed in the forms that real models use.

Answers mean nothing and say so. They depend on the seed and the text alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from narrun_async.simulation.behaviour import Fault
from narrun_async.simulation.faults import Draws
from narrun_async.simulation.keywords import PARTNER_VIOLENCE_PHRASES

_PHRASES = tuple(phrase.lower() for phrase in PARTNER_VIOLENCE_PHRASES)
_MOST_INDICATORS = 5
_CHARS_PER_TOKEN = 4
#: tokens around each message in common chat templates
_TOKENS_PER_MESSAGE = 4

# A template takes a quarter of the time of encoding the whole; bench/ is to measure the run, not this server.
_COMPLETION = (
    '{"id": %s, "object": "chat.completion", "created": %d, "model": %s, "system_fingerprint": "simulated", '
    '"choices": [{"index": 0, "message": {"role": "assistant", "content": %s, "refusal": %s}, '
    '"logprobs": null, "finish_reason": %s}], '
    '"usage": {"prompt_tokens": %d, "completion_tokens": %d, "total_tokens": %d, '
    '"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}}'
)

_MALFORMED = (
    "Simulated answer without JSON: the account can be read in more than one way, "
    "and this text names no verdict in the form that was asked for."
)
_REFUSAL = "Simulated refusal: this request was declined."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says, before it is wrapped in a completion."""

    content: str | None = field(repr=False)
    refusal: str | None = None
    finish_reason: str = "stop"


def answer_for(text: str, draws: Draws, *, flip_rate: float, fault: Fault | None = None) -> Answer:
    """The answer to a user message; a fault is one of malformed, truncated, refusal or None."""
    if fault is Fault.MALFORMED:
        return Answer(content=_MALFORMED)
    if fault is Fault.REFUSAL:
        return Answer(content=None, refusal=_REFUSAL)
    verdict = verdict_json(text, draws, flip_rate=flip_rate)
    if fault is Fault.TRUNCATED:
        return Answer(content=verdict[: len(verdict) // 2], finish_reason="length")
    return Answer(content=_dressed(verdict, draws.form))


def completion(answer: Answer, *, call_id: str, created: int, model: str, prompt_chars: int, n_messages: int) -> bytes:
    """The body of a chat completion, as JSON."""
    prompt_tokens = prompt_chars // _CHARS_PER_TOKEN + _TOKENS_PER_MESSAGE * n_messages
    completion_tokens = 1 + len(answer.content or answer.refusal or "") // _CHARS_PER_TOKEN
    return (
        _COMPLETION
        % (
            json.dumps(call_id),
            created,
            json.dumps(model),
            json.dumps(answer.content),
            json.dumps(answer.refusal),
            json.dumps(answer.finish_reason),
            prompt_tokens,
            completion_tokens,
            prompt_tokens + completion_tokens,
        )
    ).encode()


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error in the shape that OpenAI-compatible servers use."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def model_list(names: tuple[str, ...]) -> bytes:
    """The body of `GET /v1/models`."""
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "simulation"} for name in names]
    return json.dumps({"object": "list", "data": models}).encode()


def _narrative_in(text: str) -> str:
    """The part of a user message that is looked at: a template may itself speak of violence.

    What stands between `<narrative>` tags, or else the longest paragraph.
    """
    _, opened, rest = text.partition("<narrative>")
    if opened:
        return rest.partition("</narrative>")[0]
    return max(text.split("\n\n"), key=len)


def verdict_json(text: str, draws: Draws, *, flip_rate: float) -> str:
    """What the keyword rule says of a user message, as one JSON object."""
    lowered = _narrative_in(text).lower()
    found = [phrase for phrase in _PHRASES if phrase in lowered][:_MOST_INDICATORS]
    flipped = draws.flip < flip_rate
    detected = bool(found) is not flipped
    if flipped:
        found = ["simulated accident"] if detected else []
    # A comma-separated string is a form that models use too.
    indicators = ", ".join(found) if 0.95 <= draws.form < 0.97 else found
    return (
        f'{{"detected": {"true" if detected else "false"}, "confidence": {0.55 + 0.43 * draws.confidence:.2f}, '
        f'"indicators": {json.dumps(indicators) if found else "[]"}, '
        f'"rationale": "Simulated answer without meaning: {len(found)} phrase(s) of a keyword rule."}}'
    )


def _dressed(verdict: str, form: float) -> str:
    """Mostly plain JSON; sometimes fenced, with prose around it, or behind channel markers."""
    if form < 0.80 or 0.95 <= form < 0.97:
        return verdict
    if form < 0.88:
        return f"```json\n{verdict}\n```"
    if form < 0.95:
        return f"Here is my simulated assessment.\n\n{verdict}\n\nIt follows from a keyword rule only."
    return (
        "<|channel|>analysis<|message|>Simulated reasoning about a keyword rule.<|end|>"
        f"<|start|>assistant<|channel|>final <|constrain|>JSON<|message|>{verdict}"
    )

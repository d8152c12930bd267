"""Unpacks a chat completion; knows nothing of what the answer should say."""

from __future__ import annotations

import re

from narrun_async.models import NO_USAGE, Envelope, ErrorCategory, Failure, Usage
from narrun_async.parsing.strict_json import SATURATED, MalformedJsonError, RefusedJsonError, decode_envelope
from narrun_async.parsing.texts import clean_text, shorten

MAX_BODY_BYTES = 8 * 1024 * 1024

#: for what should be a name: model, finish_reason, system_fingerprint
_MAX_NAME_CHARS = 200

# The server itself broke off (vLLM, SGLang, OpenRouter, DeepSeek, Zhipu): its trouble, and no answer of the model.
_BROKEN_OFF = frozenset({"abort", "aborted", "error", "insufficient_system_resource", "network_error"})
#: where servers put what a model thought: OpenAI's open models, Ollama and vLLM since 2026 say `reasoning`, llama.cpp,
#: older vLLM and DeepSeek `reasoning_content`; proxies pass on Ollama's own `thinking`
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")

# An error's code or type may be shown only if it cannot be prose, for prose may quote the prompt.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def parse_envelope(body: bytes) -> Envelope | Failure:
    """Unpack the body of an answer with HTTP 200. Total: whatever the bytes are, one of the two comes back.

    A wrong type in a place that only informs (usage, model, reasoning) is read as nothing said. For a plain answer of
    540 bytes this and `parse_answer` take 13 µs together, 8 of them beyond `json.loads`; a call costs some 350.
    """
    if len(body) > MAX_BODY_BYTES:
        return Failure(
            category=ErrorCategory.RESPONSE_TOO_LARGE, message=f"the answer is larger than {MAX_BODY_BYTES} bytes"
        )
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return _bad("the answer is not valid UTF-8")
    try:
        value = decode_envelope(text[1:] if text[:1] == "\ufeff" else text)
    except MalformedJsonError:
        return _bad(_what_came_instead(text))
    except RefusedJsonError as refused:
        return _bad(f"the answer {refused.reason}")
    if not isinstance(value, dict):
        return _bad("the answer is JSON, but no object")
    return _unpack(value)


def _unpack(completion: dict[str, object]) -> Envelope | Failure:
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        if completion.get("error") is not None:
            return _bad(_error_sentence(completion["error"]))
        return _bad("the answer has no choices")
    if choice.get("error") is not None:
        return _bad(_error_sentence(choice["error"]))
    message = choice.get("message")
    if not isinstance(message, dict):
        return _bad("the answer's first choice has no message")
    finish_reason = _name(choice.get("finish_reason"))
    if finish_reason is not None and finish_reason.lower() in _BROKEN_OFF:
        return _bad(f"the server broke the answer off (finish_reason {finish_reason.lower()})")

    reasoning = next((text for name in _REASONING_FIELDS if (text := _text(message.get(name)))), None)
    refusal = _text(message.get("refusal"))
    carries_non_text = bool(message.get("tool_calls") or message.get("function_call"))
    content = message.get("content")
    if isinstance(content, str):
        content = clean_text(content)
    elif content is None:
        content = ""
    else:
        content, thought, declined, has_other = _join_parts(content)
        reasoning = reasoning or thought
        refusal = refusal or declined
        carries_non_text = carries_non_text or has_other
    return Envelope(
        content=content,
        reasoning=reasoning,
        refusal=refusal,
        finish_reason=finish_reason,
        model=_name(completion.get("model")),
        system_fingerprint=_name(completion.get("system_fingerprint")),
        carries_non_text=carries_non_text,
        usage=_usage(completion.get("usage")),
    )


def _join_parts(content: object) -> tuple[str, str | None, str | None, bool]:
    """Text, reasoning and refusal of a content that is a list of parts, and whether it held anything else."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    has_other = not isinstance(content, list)
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            has_other = True
        elif part.get("type") in ("text", "output_text", None) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part.get("type") in ("thinking", "reasoning"):
            thoughts.append(_thought(part))
        elif isinstance(part.get("refusal"), str):
            refusals.append(part["refusal"])
        else:
            has_other = True
    return clean_text("".join(texts)), _text("".join(thoughts)), _text("".join(refusals)), has_other


def _thought(part: dict[str, object]) -> str:
    """The text of a thinking part: a string, or (Mistral) a list of text parts."""
    thought = part.get("thinking") or part.get("reasoning") or part.get("text")
    if isinstance(thought, list):
        return "".join(
            inner["text"] for inner in thought if isinstance(inner, dict) and isinstance(inner.get("text"), str)
        )
    return thought if isinstance(thought, str) else ""


def _usage(value: object) -> Usage:
    if not isinstance(value, dict):
        return NO_USAGE
    prompt_details = value.get("prompt_tokens_details")
    completion_details = value.get("completion_tokens_details")
    return Usage(
        prompt_tokens=_tokens(value.get("prompt_tokens")),
        completion_tokens=_tokens(value.get("completion_tokens")),
        total_tokens=_tokens(value.get("total_tokens")),
        cached_tokens=_tokens(prompt_details.get("cached_tokens")) if isinstance(prompt_details, dict) else None,
        reasoning_tokens=(
            _tokens(completion_details.get("reasoning_tokens")) if isinstance(completion_details, dict) else None
        ),
    )


def _tokens(value: object) -> int | None:
    # `type is`, because True is an int to isinstance.
    return value if type(value) is int and 0 <= value < SATURATED else None


def _text(value: object) -> str | None:
    return clean_text(value) if isinstance(value, str) and value.strip() else None


def _name(value: object) -> str | None:
    return shorten(clean_text(value), _MAX_NAME_CHARS) if isinstance(value, str) and value else None


def _bad(message: str) -> Failure:
    return Failure(category=ErrorCategory.BAD_ENVELOPE, message=message)


def _what_came_instead(text: str) -> str:
    start = text[:64].lstrip("\ufeff \t\r\n").lower()
    if not text.strip():
        return "the answer is empty"
    if start.startswith("<"):
        return "the answer is an HTML or XML page instead of JSON"
    if start.startswith(("data:", "event:", "id:", "retry:", ":")):
        return "the answer is an event stream, although none was asked for"
    if start.startswith(("{", "[")):
        return "the answer is broken or incomplete JSON"
    return "the answer is not JSON"


def _error_sentence(error: object) -> str:
    """Names the error's code and type, never its message: that may quote the prompt, and raw_response keeps it."""
    if not isinstance(error, dict):
        return "HTTP 200 with an error instead of an answer"
    names = [
        f"{key} {name}"
        for key in ("code", "type")
        if isinstance(error.get(key), str | int) and _IDENTIFIER.fullmatch(name := str(error[key]))
    ]
    return "HTTP 200 with an error instead of an answer" + (f" ({', '.join(names)})" if names else "")

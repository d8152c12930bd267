"""Separates what a model thought from what it answered, where both came in one text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Harmony, the format of gpt-oss: <|channel|>NAME <|constrain|>json<|message|>BODY<|end|>
_CHANNEL = "<|channel|>"
_MESSAGE = "<|message|>"
_END_OF_BODY = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# The same where a server dropped the special tokens and kept the words between them.
_BARE_ANALYSIS = "analysis"
_BARE_FINAL = "assistantfinal"

# Mistral writes [THINK], Gemma 4 <|channel>thought … <channel|>.
_OPENING_TAG = r"(?:<(?:seed:)?(?:think|thinking|reasoning|thought)>|\[THINK\]|<\|channel>thought\b)"
_CLOSING_TAG = r"(?:</(?:seed:)?(?:think|thinking|reasoning|thought)>|\[/THINK\]|<channel\|>)"
_THINK_OPEN = re.compile(rf"\s*{_OPENING_TAG}", re.IGNORECASE)
_THINK_CLOSE = re.compile(_CLOSING_TAG, re.IGNORECASE)
_THINK_ANY_OPEN = re.compile(_OPENING_TAG, re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """One text taken apart."""

    #: stripped; empty when the text held thoughts only
    answer: str = field(repr=False)
    thoughts: str | None = field(repr=False, default=None)
    #: prefix of `parse_method`: `harmony:`, `think:`, or empty where there was nothing to take apart
    prefix: str = ""


def split_channels(text: str) -> Channels:
    """Take channel markers and think blocks out of a text. Linear in its length."""
    if _CHANNEL in text or _MESSAGE in text:
        return _split_harmony(text)
    if _THINK_CLOSE.search(text) or _THINK_OPEN.match(text):
        return _split_think(text)
    if text.startswith(_BARE_ANALYSIS) and _BARE_FINAL in text:
        thought, _, answer = text.removeprefix(_BARE_ANALYSIS).rpartition(_BARE_FINAL)
        return Channels(answer=answer.strip(), thoughts=_joined([thought]), prefix="harmony:")
    return Channels(answer=text.strip())


def _split_harmony(text: str) -> Channels:
    """The last `final` channel is the answer, every other one a thought; without one, the text before all markers."""
    before, *parts = text.split(_CHANNEL)
    if not parts:
        # A server took the channel name away and left the rest of the frame.
        _, _, body = text.rpartition(_MESSAGE)
        return Channels(answer=_body(body), prefix="harmony:")
    answer: str | None = None
    thoughts: list[str] = []
    for part in parts:
        header, marker, body = part.partition(_MESSAGE)
        if not marker:
            thoughts.append(_body(header))
        elif _channel_name(header) == "final":
            if answer:
                thoughts.append(answer)
            answer = _body(body)
        else:
            thoughts.append(_body(body))
    if answer is None:
        answer = before.split("<|start|>")[0].strip()
    return Channels(answer=answer, thoughts=_joined(thoughts), prefix="harmony:")


def _channel_name(header: str) -> str:
    words = header.replace("<", " ").split(maxsplit=1)
    return words[0].lower() if words else ""


def _body(text: str) -> str:
    return _END_OF_BODY.split(text, maxsplit=1)[0].strip()


def _split_think(text: str) -> Channels:
    """Everything between tags is a thought. The first tag may be missing: some templates put it into the prompt.

    An opening tag that is never closed counts only at the very start; further on it may be a quotation.
    """
    answers: list[str] = []
    thoughts: list[str] = []
    position = 0
    if opened := _THINK_OPEN.match(text):
        position = opened.end()
        is_thought = True
    else:
        first_open = _THINK_ANY_OPEN.search(text)
        first_close = _THINK_CLOSE.search(text)
        is_thought = first_close is not None and (first_open is None or first_close.start() < first_open.start())
    while True:
        boundary = (_THINK_CLOSE if is_thought else _THINK_ANY_OPEN).search(text, position)
        if boundary and not is_thought and not _THINK_CLOSE.search(text, boundary.end()):
            boundary = None
        (thoughts if is_thought else answers).append(text[position : boundary.start() if boundary else None])
        if boundary is None:
            break
        position = boundary.end()
        is_thought = not is_thought
    return Channels(answer="".join(answers).strip(), thoughts=_joined(thoughts), prefix="think:")


def _joined(thoughts: list[str]) -> str | None:
    return "\n\n".join(stripped for thought in thoughts if (stripped := thought.strip())) or None

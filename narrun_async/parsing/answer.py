"""Decides what an envelope says about its narrative: the order of the parsing tiers, and which failure is named.

`parse_method` of a detection is `[harmony:|think:|reasoning:]TIER[+coerced][+confidence_fix]`, where TIER is
`json` (the whole text), `fence`, `object` (inside prose or another object) or `json_repair`.
"""

from __future__ import annotations

from narrun_async.models import Detection, Envelope, ErrorCategory, Failure, Verdict
from narrun_async.parsing.channels import split_channels
from narrun_async.parsing.objects import find_answer, read_whole
from narrun_async.parsing.texts import shorten

MAX_REASONING_CHARS = 65_536

# What OpenAI says, and what servers that speak for other makers pass through; `repetition` is vLLM's for a model that
# went round in circles until it was stopped.
_CUT_BY_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "repetition"})
_CUT_BY_FILTER = frozenset(
    {"content_filter", "safety", "prohibited_content", "blocklist", "recitation", "sensitive", "guardrail_intervened"}
)


def parse_answer(envelope: Envelope) -> Verdict:
    """The verdict of an answer. Total, and a detection only where the text itself says so.

    An answer that was cut short counts only if all of it is one complete object: what would have followed a complete
    object in prose nobody knows.
    """
    text = envelope.content.strip()
    # First, before any markers are looked for: those inside a string of sound JSON are quotations.
    if text.startswith(("{", "```")):
        reasoning = _stored_reasoning(envelope.reasoning)
        if (verdict := read_whole(text, prefix="", reasoning=reasoning)) is not None:
            return verdict

    channels = split_channels(text)
    thoughts = "\n\n".join(thought for thought in (envelope.reasoning, channels.thoughts) if thought)
    reasoning = _stored_reasoning(thoughts)
    answer = channels.answer
    if answer and (verdict := read_whole(answer, prefix=channels.prefix, reasoning=reasoning)) is not None:
        return verdict
    cut = _cut_short(envelope.finish_reason)
    if cut is not None:
        return cut
    verdict = None
    if answer:
        verdict = find_answer(answer, prefix=channels.prefix, reasoning=reasoning, may_repair=True)
        if isinstance(verdict, Detection):
            return verdict
    if envelope.refusal or envelope.finish_reason == "refusal":
        return _failure(ErrorCategory.REFUSAL, "the model declined to answer")
    if answer:
        return verdict or _failure(ErrorCategory.BAD_JSON, "the answer holds no JSON object with 'detected'")
    return _without_text(envelope, thoughts)


def _without_text(envelope: Envelope, thoughts: str) -> Verdict:
    """The verdict where content is empty: some servers file the whole answer under reasoning."""
    if thoughts.strip():
        channels = split_channels(thoughts)
        found = find_answer(
            channels.answer or channels.thoughts or "",
            prefix="reasoning:",
            reasoning=_stored_reasoning(thoughts),
            may_repair=False,
        )
        if isinstance(found, Detection) or (found and found.category in _SAID_IN_REASONING):
            return found
        return _failure(ErrorCategory.NO_CONTENT, "the model reasoned but gave no answer")
    if envelope.carries_non_text or envelope.finish_reason in ("tool_calls", "function_call"):
        return _failure(ErrorCategory.NO_CONTENT, "the answer holds no text")
    return _failure(ErrorCategory.EMPTY, "the answer is empty")


def _cut_short(finish_reason: str | None) -> Failure | None:
    if finish_reason is None or finish_reason == "stop":
        return None
    reason = finish_reason.lower()
    if reason in _CUT_BY_LENGTH:
        return _failure(ErrorCategory.TRUNCATED, f"the answer was cut off (finish_reason {reason})")
    if reason in _CUT_BY_FILTER:
        return _failure(ErrorCategory.CONTENT_FILTER, f"a content filter stopped the answer (finish_reason {reason})")
    return None


def _stored_reasoning(reasoning: str | None) -> str | None:
    return shorten(reasoning, MAX_REASONING_CHARS) if reasoning else None


def _failure(category: ErrorCategory, message: str) -> Failure:
    return Failure(category=category, message=message)


# Malformed or open objects in reasoning are drafts; these three say that an answer was there and cannot be taken.
_SAID_IN_REASONING = frozenset({ErrorCategory.AMBIGUOUS, ErrorCategory.SCHEMA, ErrorCategory.CONFIDENCE_OUT_OF_RANGE})

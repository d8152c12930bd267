"""Decides whether an answer that cannot be used is asked for once more, and what two calls make of a narrative; pure.

The second call decides wherever it brings an answer. Where it brings none, the first answer stands: it was one.
"""

from __future__ import annotations

from dataclasses import replace

from narrun_async.caller.flights import SecondTry
from narrun_async.models import SECOND_TRY, Detection, ErrorCategory, Outcome, Usage
from narrun_async.prompting import Change, RequestTemplate

# A refusal and a content filter are answers: to ask again until there is another one would be to argue with them.
_WORTH_A_REMINDER = frozenset(
    {ErrorCategory.EMPTY, ErrorCategory.NO_CONTENT, ErrorCategory.BAD_JSON, ErrorCategory.SCHEMA}
    | {ErrorCategory.AMBIGUOUS, ErrorCategory.CONFIDENCE_OUT_OF_RANGE}
)


def second_try_after(first: Outcome, template: RequestTemplate) -> SecondTry | None:
    """What comes after the first answer of a narrative; None where it decides."""
    if isinstance(first.verdict, Detection):
        return None
    if first.verdict.category in _WORTH_A_REMINDER:
        return SecondTry(first=first, change=Change.REMINDER)
    if first.verdict.category is ErrorCategory.TRUNCATED and template.can_make(Change.MORE_TOKENS):
        return SecondTry(first=first, change=Change.MORE_TOKENS)
    return None


def outcome_of_both(tried: SecondTry, second: Outcome) -> Outcome:
    """What two calls that decided make of a narrative."""
    if second.raw_response is None:  # refused for good, or an answer too large to be kept
        return replace(tried.first, attempt=second.attempt)
    if second.item.is_canary:  # whose calls are not in the ledger, and count all the same
        usage = _sum(tried.first.envelope.usage, second.envelope.usage)
        second = replace(second, envelope=replace(second.envelope, usage=usage))
    if isinstance(second.verdict, Detection):
        verdict = replace(second.verdict, parse_method=second.verdict.parse_method + SECOND_TRY)
        return replace(second, verdict=verdict)
    return second


def first_answer_stands(tried: SecondTry) -> Outcome:
    """What the first answer came to, where every call after it failed; all of them are in the ledger."""
    return replace(tried.first, attempt=None)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=_added(one.prompt_tokens, other.prompt_tokens),
        completion_tokens=_added(one.completion_tokens, other.completion_tokens),
        total_tokens=_added(one.total_tokens, other.total_tokens),
        cached_tokens=_added(one.cached_tokens, other.cached_tokens),
        reasoning_tokens=_added(one.reasoning_tokens, other.reasoning_tokens),
    )


def _added(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)

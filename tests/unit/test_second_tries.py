"""Which answers are asked for once more, and what two calls make of a narrative."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from narrun_async.caller.flights import SecondTry
from narrun_async.caller.second_tries import first_answer_stands, outcome_of_both, second_try_after
from narrun_async.models import (
    NO_USAGE,
    Attempt,
    Detection,
    Envelope,
    ErrorCategory,
    Failure,
    NarrativeId,
    Outcome,
    Usage,
    Verdict,
    WorkItem,
)
from narrun_async.prompting import Change, RequestFields, RequestTemplate

YES = Detection(detected=True, confidence=0.9, parse_method="fence+coerced")
UNLIMITED = RequestTemplate.build(RequestFields(model="m", user_template="<<TEXT>>"))
LIMITED = RequestTemplate.build(RequestFields(model="m", user_template="<<TEXT>>", max_tokens=100))


def made(verdict: Verdict, *, raw: str | None = "{}", tokens: int | None = 10, **item: Any) -> Outcome:
    work = {"row_num": 1, "incident_id": "a", "narrative_type": "cme", "narrative_text": "t", "text_sha256": None}
    usage = NO_USAGE if tokens is None else Usage(prompt_tokens=100, completion_tokens=tokens)
    category = verdict.category if isinstance(verdict, Failure) else None
    return Outcome(
        item=WorkItem(narrative_id=NarrativeId(1), manual_flag_ind=None, manual_flag=None, **{**work, **item}),
        verdict=verdict,
        attempt=Attempt(
            narrative_id=NarrativeId(1),
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            duration_s=1.0,
            error_category=category,
            error_message=None if category is None else "m",
            http_status=400 if raw is None else 200,
            charged=True,
            usage=usage,
        ),
        envelope=Envelope(usage=usage),
        raw_response=raw,
    )


def failed(category: ErrorCategory, **made_with: Any) -> Outcome:
    return made(Failure(category=category, message="m"), **made_with)


REMINDED = {"empty", "no_content", "bad_json", "schema", "ambiguous", "confidence_out_of_range"}


@pytest.mark.parametrize("category", list(ErrorCategory))
def test_only_an_answer_that_another_might_follow_is_asked_for_once_more(category: ErrorCategory) -> None:
    first = failed(category)
    change = {True: Change.REMINDER}.get(category in REMINDED)
    assert second_try_after(first, UNLIMITED) == (change and SecondTry(first=first, change=change))
    if category is ErrorCategory.TRUNCATED:
        change = Change.MORE_TOKENS
    assert second_try_after(first, LIMITED) == (change and SecondTry(first=first, change=change))


def test_a_usable_answer_is_never_asked_for_again() -> None:
    assert second_try_after(made(YES), LIMITED) is None


def tried(first: Outcome) -> SecondTry:
    return SecondTry(first=first, change=Change.REMINDER)


def test_a_usable_second_answer_decides_and_says_so() -> None:
    both = outcome_of_both(tried(failed(ErrorCategory.BAD_JSON)), made(YES, tokens=7))
    assert isinstance(both.verdict, Detection)
    assert both.verdict.parse_method == "fence+coerced+second_try"
    assert both.envelope.usage.completion_tokens == 7  # of the row; the ledger has both


@pytest.mark.parametrize("category", [ErrorCategory.SCHEMA, ErrorCategory.REFUSAL, ErrorCategory.CONTENT_FILTER])
def test_a_second_answer_decides_whatever_it_is(category: ErrorCategory) -> None:
    second = failed(category)
    assert outcome_of_both(tried(failed(ErrorCategory.BAD_JSON)), second) == second


@pytest.mark.parametrize("category", [ErrorCategory.BAD_REQUEST, ErrorCategory.RESPONSE_TOO_LARGE])
def test_where_the_second_call_brings_no_answer_the_first_one_stands_and_the_ledger_has_the_call(
    category: ErrorCategory,
) -> None:
    first, second = failed(ErrorCategory.TRUNCATED, raw="cut"), failed(category, raw=None)
    both = outcome_of_both(tried(first), second)
    assert (both.verdict, both.raw_response, both.attempt) == (first.verdict, "cut", second.attempt)


def test_where_every_further_call_failed_the_first_answer_stands_and_no_call_is_in_the_ledger_twice() -> None:
    first = failed(ErrorCategory.EMPTY)
    stands = first_answer_stands(tried(first))
    assert (stands.verdict, stands.raw_response, stands.attempt) == (first.verdict, first.raw_response, None)


@pytest.mark.parametrize(("one", "other", "both"), [(10, 7, 17), (None, 7, 7), (10, None, 10), (None, None, None)])
def test_a_canary_whose_calls_are_in_no_ledger_counts_the_tokens_of_both(
    one: int | None, other: int | None, both: int | None
) -> None:
    first = failed(ErrorCategory.BAD_JSON, tokens=one, is_canary=True)
    assert (
        outcome_of_both(tried(first), made(YES, tokens=other, is_canary=True)).envelope.usage.completion_tokens == both
    )

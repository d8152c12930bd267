"""Promises of the error guard: a wrong setting never becomes rows, a bad text always does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from narrun_async.clock import utc_now
from narrun_async.errors import ExitCode, RepeatedFailureError
from narrun_async.limits.error_guard import REFUSALS_BEFORE_SUCCESS, ErrorGuard
from narrun_async.models import (
    Attempt,
    Detection,
    ErrorCategory,
    Failure,
    NarrativeId,
    Outcome,
    Verdict,
    WorkItem,
)

#: categories of answers that came with HTTP 200
ANSWERED = [ErrorCategory.EMPTY, ErrorCategory.BAD_JSON, ErrorCategory.REFUSAL, ErrorCategory.TRUNCATED]
#: outcomes that show nothing about the settings
UNANSWERED = [
    ErrorCategory.CONTEXT_LENGTH,
    ErrorCategory.SOURCE_CHANGED,
    ErrorCategory.INTERNAL,
    ErrorCategory.TRANSIENT_EXHAUSTED,
]
_WITHOUT_CALL = {ErrorCategory.SOURCE_CHANGED, ErrorCategory.INTERNAL, ErrorCategory.TRANSIENT_EXHAUSTED}


def outcome(number: int, verdict: Verdict, http_status: int | None) -> Outcome:
    item = WorkItem(
        narrative_id=NarrativeId(number),
        row_num=number,
        incident_id=str(number),
        narrative_type="cme",
        narrative_text="made up",
        text_sha256=None,
        manual_flag_ind=None,
        manual_flag=None,
    )
    if http_status is None:
        return Outcome(item=item, verdict=verdict, attempt=None)
    attempt = Attempt(
        narrative_id=item.narrative_id,
        started_at=utc_now(),
        duration_s=0.1,
        error_category=verdict.category if isinstance(verdict, Failure) else None,
        error_message=None,
        http_status=http_status,
        charged=True,
    )
    return Outcome(item=item, verdict=verdict, attempt=attempt)


def first_answer_that_stands(number: int) -> Outcome:
    """It was answered, and the second call was refused."""
    cut = Failure(category=ErrorCategory.TRUNCATED, message="made up")
    return replace(outcome(number, cut, 400), raw_response="cut")


def success(number: int = 0) -> Outcome:
    return outcome(number, Detection(detected=True, confidence=0.5, parse_method="strict"), 200)


def refused(number: int, message: str = "HTTP 400") -> Outcome:
    return outcome(number, Failure(category=ErrorCategory.BAD_REQUEST, message=message), 400)


def failed(number: int, category: ErrorCategory) -> Outcome:
    status = None if category in _WITHOUT_CALL else 200 if category in ANSWERED else 400
    return outcome(number, Failure(category=category, message="made up"), status)


def guard(*, is_proven: bool = False, most: int = 50) -> ErrorGuard:
    return ErrorGuard(is_proven=is_proven, max_consecutive_errors=most)


def test_the_same_refusal_of_five_narratives_before_any_success_stops_the_run_without_a_row() -> None:
    unproven = guard()
    for number in range(REFUSALS_BEFORE_SUCCESS - 1):
        assert unproven.admit(refused(number)) == ()
    with pytest.raises(RepeatedFailureError) as stopped:
        unproven.admit(refused(9))
    assert stopped.value.exit_code is ExitCode.CONFIGURATION
    assert (stopped.value.count, stopped.value.message) == (5, "HTTP 400")
    with pytest.raises(RepeatedFailureError):
        unproven.admit(refused(10))


def test_different_refusals_are_counted_apart() -> None:
    unproven = guard()
    for number in range(8):
        assert unproven.admit(refused(number, f"HTTP 400 ({number % 2})")) == ()
    with pytest.raises(RepeatedFailureError):
        unproven.admit(refused(8, "HTTP 400 (0)"))


@pytest.mark.parametrize("category", [None, *ANSWERED])
def test_an_answer_frees_what_was_held_back_in_its_order(category: ErrorCategory | None) -> None:
    proof = failed(99, category) if category else success(99)
    unproven = guard()
    held = [refused(1), refused(2)]
    for one in held:
        assert unproven.admit(one) == ()
    assert list(unproven.admit(proof)) == [*held, proof]
    later = refused(3)
    assert list(unproven.admit(later)) == [later]
    unproven.finish()


def test_a_first_answer_that_stands_frees_what_was_held_back_too() -> None:
    unproven = guard()
    held, proof = refused(1), first_answer_that_stands(2)
    assert unproven.admit(held) == ()
    assert list(unproven.admit(proof)) == [held, proof]


@pytest.mark.parametrize("category", UNANSWERED)
def test_what_shows_nothing_about_the_settings_is_stored_but_frees_nobody(category: ErrorCategory) -> None:
    unproven = guard()
    assert unproven.admit(refused(1)) == ()
    other = failed(2, category)
    assert list(unproven.admit(other)) == [other]
    for number in range(3, 6):
        assert unproven.admit(refused(number)) == ()
    with pytest.raises(RepeatedFailureError):
        unproven.admit(refused(6))


def test_refusals_alone_end_a_small_run_without_a_row() -> None:
    unproven = guard()
    unproven.admit(refused(1))
    with pytest.raises(RepeatedFailureError) as stopped:
        unproven.finish()
    assert stopped.value.count == 1


def test_an_experiment_with_successes_holds_nothing_back() -> None:
    proven = guard(is_proven=True)
    for number in range(10):
        one = refused(number)
        assert list(proven.admit(one)) == [one]
    proven.finish()


def test_as_many_identical_errors_in_a_row_as_allowed_stop_the_run() -> None:
    proven = guard(is_proven=True, most=50)
    for number in range(49):
        proven.admit(failed(number, ErrorCategory.BAD_JSON))
    with pytest.raises(RepeatedFailureError) as stopped:
        proven.admit(failed(50, ErrorCategory.BAD_JSON))
    assert (stopped.value.count, stopped.value.category) == (50, "bad_json")


@pytest.mark.parametrize("between", [success(), failed(0, ErrorCategory.EMPTY)], ids=["success", "another error"])
def test_anything_else_in_between_starts_the_count_again(between: Outcome) -> None:
    proven = guard(is_proven=True, most=5)
    for number in range(40):
        proven.admit(between if number % 5 == 4 else failed(number, ErrorCategory.BAD_JSON))

"""Promises of the life of a batch: every state leads to its end, nothing leaves it, and doubt is known as such."""

from __future__ import annotations

import pytest

from narrun_async.batching.states import (
    IN_DOUBT,
    OPEN,
    TRANSITIONS,
    UNSENT,
    answers_are_there,
    file_is_broken,
    file_is_in_work,
    remote_has_ended,
)
from narrun_async.models import BatchState, RemoteBatch


def reachable(start: BatchState) -> set[BatchState]:
    found, waiting = {start}, [start]
    while waiting:
        new = TRANSITIONS[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(BatchState)


@pytest.mark.parametrize("state", BatchState)
def test_every_state_leads_to_closed_and_closed_leads_nowhere(state: BatchState) -> None:
    assert BatchState.CLOSED in reachable(state)
    assert reachable(BatchState.CLOSED) == {BatchState.CLOSED}


@pytest.mark.parametrize("state", BatchState)
def test_every_open_state_can_be_closed_by_a_person_at_once(state: BatchState) -> None:
    assert (BatchState.CLOSED in TRANSITIONS[state]) is (state in OPEN)


def test_nothing_comes_back_from_the_provider_to_be_sent_again() -> None:
    for state in (BatchState.SUBMITTED, BatchState.ENDED, BatchState.CLOSED):
        assert not reachable(state) & UNSENT


def test_a_batch_is_created_only_from_a_file_that_the_provider_has() -> None:
    before = {state for state, after in TRANSITIONS.items() if BatchState.CREATING in after}
    assert before == {BatchState.UPLOADED, BatchState.CREATING}


def test_the_state_in_doubt_is_the_one_in_which_something_that_costs_money_may_have_been_created() -> None:
    assert {BatchState.CREATING} == IN_DOUBT
    assert IN_DOUBT < UNSENT < OPEN == set(BatchState) - {BatchState.CLOSED}


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled", "COMPLETED", "canceled"])
def test_a_batch_with_these_words_has_ended(status: str) -> None:
    assert remote_has_ended(status)


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling", "queued", "whatever"])
def test_a_batch_with_any_other_word_goes_on(status: str) -> None:
    assert not remote_has_ended(status)


@pytest.mark.parametrize(
    ("n_completed", "output", "is_there"), [(3, "file-2", True), (3, None, False), (0, None, True), (None, None, True)]
)
def test_answers_that_are_counted_are_waited_for_until_their_file_is_named(
    n_completed: int | None, output: str | None, is_there: bool
) -> None:
    remote = RemoteBatch(
        remote_batch_id="batch-1",
        status="completed",
        input_file_id="file-1",
        output_file_id=output,
        error_file_id=None,
        n_completed=n_completed,
        n_failed=0,
        metadata={},
    )
    assert answers_are_there(remote) == is_there


def test_a_file_is_waited_for_refused_or_used_by_its_status() -> None:
    assert file_is_in_work("pending") and not file_is_in_work("processed") and not file_is_in_work(None)
    assert file_is_broken("error") and not file_is_broken("processed") and not file_is_broken(None)

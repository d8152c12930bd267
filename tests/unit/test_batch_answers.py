"""Promises of reading answers: whose they are, which of several counts, and what each means, as for a live call."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from narrun_async.batching.requests import RequestKey, custom_id_of
from narrun_async.models import (
    Attempt,
    Batch,
    BatchId,
    BatchLine,
    BatchState,
    Detection,
    ErrorCategory,
    ExperimentId,
    Failure,
    NarrativeId,
    Outcome,
    RawReply,
    Selection,
    WorkItem,
)
from narrun_async.operations.batches.answers import Survey, Target, iter_answers, judge_line, survey

EXPERIMENT = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BATCH = Batch(
    batch_id=BatchId(7),
    experiment_id=ExperimentId(EXPERIMENT),
    number=1,
    selection=Selection.MISSING,
    state=BatchState.ENDED,
    input_path=Path("/x"),
    input_sha256="a" * 64,
    endpoint="/v1/chat/completions",
    n_requests=4,
    n_bytes=1,
    token="t",
    n_resubmissions=0,
    exported_at=NOW,
    intended_at=None,
    api_url=None,
    remote_file_id=None,
    remote_batch_id=None,
    remote_status=None,
    remote_complaint=None,
    output_file_id=None,
    error_file_id=None,
    n_completed=None,
    n_failed=None,
    polled_at=None,
    closed_at=None,
    closed_why=None,
    keeps_files=False,
)


def targets(**done: bool) -> dict[int, Target]:
    """Batch 1 of narratives 1 to 4; `n2=True`: that one is done with."""
    members = {NarrativeId(n): done.get(f"n{n}", False) for n in range(1, 5)}
    return {1: Target(batch=BATCH, members=members)}


def line(
    narrative_id: int, status: int | None = 200, *, number: int = 1, experiment: str = EXPERIMENT, tag: str = ""
) -> str:
    key = RequestKey(experiment=experiment, number=number, narrative_id=NarrativeId(narrative_id))
    response = None if status is None else {"status_code": status, "body": {"tag": tag}}
    error = {"code": "batch_expired"} if status is None else None
    return json.dumps({"custom_id": custom_id_of(key), "response": response, "error": error})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


def write(directory: Path, name: str, *lines: str) -> Path:
    path = directory / name
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


def answers_in(paths: list[Path], wanted: dict[int, Target]) -> tuple[list[tuple[int, str]], Survey]:
    """Narrative and tag of each line that counts, in order."""
    surveyed = survey(paths, EXPERIMENT, wanted)
    found = [
        (int(key.narrative_id), json.loads(one.reply.body)["tag"] if one.reply else "")
        for key, one in iter_answers(paths, EXPERIMENT, wanted, surveyed)
    ]
    return found, surveyed


def test_lines_are_sorted_into_ours_foreign_of_others_and_unreadable(files: Path) -> None:
    path = write(
        files,
        "output",
        line(1),
        line(9),
        line(2, number=2),
        line(1, experiment=OTHER),
        '{"custom_id": "request-1", "response": null}',
        "no json",
        line(2, None),
        line(3, 500),
    )
    found, surveyed = answers_in([path], targets())
    assert (surveyed.n_lines, surveyed.n_ours, surveyed.n_foreign) == (8, 3, 3)
    assert (surveyed.n_of_others, surveyed.n_unreadable) == (1, 1)
    assert surveyed.answered == {(1, 1)}
    assert surveyed.unanswered == {"batch_expired": 1}
    assert [narrative_id for narrative_id, _ in found] == [1, 3]


def test_an_answer_counts_whatever_was_said_of_the_request_before_or_after_it(files: Path) -> None:
    errors = write(files, "errors", line(1, 500, tag="error"), line(2, None), line(3, 500, tag="error"))
    output = write(files, "output", line(1, tag="answer"), line(2, tag="answer"))
    expected = {(1, "answer"), (2, "answer"), (3, "error")}
    for paths in ([errors, output], [output, errors]):
        found, _ = answers_in(paths, targets())
        assert set(found) == expected
        assert len(found) == 3


def test_of_several_answers_to_one_request_the_first_counts(files: Path) -> None:
    path = write(files, "output", line(1, tag="first"), line(1, tag="second"), line(1, 500, tag="third"))
    assert answers_in([path], targets())[0] == [(1, "first")]
    assert answers_in([path, path], targets())[0] == [(1, "first")]


def test_what_is_done_with_is_passed_over_and_still_ours(files: Path) -> None:
    path = write(files, "output", line(1), line(2))
    found, surveyed = answers_in([path], targets(n1=True))
    assert found == [(2, "")]
    assert surveyed.n_ours == 2


def test_without_files_there_is_nothing(files: Path) -> None:
    found, surveyed = answers_in([], targets())
    assert (found, surveyed.n_lines) == ([], 0)


# --- what a line means -----------------------------------------------------------------------------------------------

ITEM = WorkItem(
    narrative_id=NarrativeId(3),
    row_num=3,
    incident_id="case3",
    narrative_type="cme",
    narrative_text="Synthetic account.",
    text_sha256=None,
    manual_flag_ind=1,
    manual_flag=1,
)


def said(status: int, body: object, answered_at: datetime | None = None) -> BatchLine:
    reply = RawReply(status=status, headers={}, body=json.dumps(body).encode())
    return BatchLine(custom_id="c", reply=reply, answered_at=answered_at)


def completion(content: str) -> object:
    return {"model": "m", "choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 5}}


def test_an_answer_is_a_row_with_a_call_of_the_batch_that_took_nobody_knows_how_long() -> None:
    judged = judge_line(ITEM, said(200, completion('{"detected": true, "confidence": 0.9}')), BATCH, now=NOW)
    assert isinstance(judged.message, Outcome)
    assert isinstance(judged.message.verdict, Detection)
    assert judged.failure is None
    call = judged.message.attempt
    assert call is not None
    assert (call.batch_id, call.duration_s, call.started_at, call.http_status) == (7, 0.0, NOW, 200)
    assert call.usage.prompt_tokens == 5
    assert judged.message.server is None


def test_the_moment_is_that_of_the_provider_where_it_says_one() -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    judged = judge_line(ITEM, said(200, completion("{}"), then), BATCH, now=NOW)
    assert isinstance(judged.message, Outcome) and judged.message.attempt is not None
    assert judged.message.attempt.started_at == then


@pytest.mark.parametrize(
    ("line", "category"),
    [
        (said(200, completion("I cannot say.")), ErrorCategory.BAD_JSON),
        (said(200, completion("")), ErrorCategory.EMPTY),
        (said(400, {"error": {"code": "invalid_value"}}), ErrorCategory.BAD_REQUEST),
        (said(400, {"error": {"code": "context_length_exceeded"}}), ErrorCategory.CONTEXT_LENGTH),
        (said(422, {"error": {"code": "content_filter"}}), ErrorCategory.CONTENT_FILTER),
    ],
)
def test_what_another_try_would_not_change_is_an_error_row(line: BatchLine, category: ErrorCategory) -> None:
    judged = judge_line(ITEM, line, BATCH, now=NOW)
    assert isinstance(judged.message, Outcome)
    assert isinstance(judged.message.verdict, Failure)
    assert judged.message.verdict.category is category
    assert judged.message.attempt is not None
    assert judged.message.attempt.batch_id == 7


@pytest.mark.parametrize(
    ("line", "category"),
    [
        (said(429, {}), ErrorCategory.OVERLOADED),
        (said(500, {}), ErrorCategory.SERVER_ERROR),
        (said(200, {"choices": []}), ErrorCategory.BAD_ENVELOPE),
        (said(200, {"error": {"code": 1}}), ErrorCategory.BAD_ENVELOPE),
        (said(401, {"error": {"code": "invalid_api_key"}}), ErrorCategory.FATAL),
        (said(404, {"error": {"code": "model_not_found"}}), ErrorCategory.FATAL),
    ],
)
def test_what_another_try_may_change_is_a_call_that_nobody_pays_for(line: BatchLine, category: ErrorCategory) -> None:
    judged = judge_line(ITEM, line, BATCH, now=NOW)
    assert isinstance(judged.message, Attempt)
    assert (judged.message.error_category, judged.message.charged, judged.message.batch_id) == (category, False, 7)
    assert judged.failure is not None


def test_a_defect_of_ours_costs_one_narrative_and_tells_nothing_of_it() -> None:
    broken = BatchLine(custom_id="c", reply=RawReply(status=200, headers={}, body=None))  # type: ignore[arg-type]
    judged = judge_line(ITEM, broken, BATCH, now=NOW)
    assert isinstance(judged.message, Outcome)
    assert isinstance(judged.message.verdict, Failure)
    assert judged.message.verdict.category is ErrorCategory.INTERNAL
    assert "Synthetic" not in judged.message.verdict.message

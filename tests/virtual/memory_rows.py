"""Writes rows into a draft in memory: outcomes, skips, copies, calls; decides anew what may be written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from narrun_async.clock import local_now
from narrun_async.models import Attempt, Copy, ExperimentId, Outcome, RunId, Serving, Skip
from narrun_async.stores.sqlite.result_rows import attempt_row, canary_row, result_row, serving_row
from narrun_async.stores.sqlite.schema import CANARY_ANSWERS
from narrun_async.stores.sqlite.statements import COPIED_COLUMNS, RESULT_COLUMNS
from virtual.tables import Draft, Row

_ATTEMPT_COLUMNS = (
    *("experiment_id", "run_id", "narrative_id", "started_at", "duration_s", "error_category", "error_message"),
    *("http_status", "charged", "prompt_tokens", "completion_tokens", "batch_id"),
)
_CANARY_COLUMNS = tuple(name for name in CANARY_ANSWERS if name != "canary_id")
#: what replacing an error row leaves as it was
_KEPT = (
    "experiment_id",
    "incident_id",
    "narrative_type",
    "row_num",
    "narrative_text",
    "manual_flag_ind",
    "manual_flag",
)


def key_of(experiment_id: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    return experiment_id, row["incident_id"], row["narrative_type"]


def insert_serving(draft: Draft, experiment_id: ExperimentId, run_id: RunId, serving: Serving) -> None:
    names = ("experiment_id", "run_id", "model", "system_fingerprint", "server", "first_seen_at")
    values = dict(zip(names, serving_row(experiment_id, run_id, serving), strict=True))
    key = tuple(values[name] for name in ("experiment_id", "model", "system_fingerprint", "server"))
    if draft.get("servings", key) is None:
        draft.fill("servings", key, values | {"serving_id": draft.next_number("servings")})


def insert_canary_answer(draft: Draft, experiment_id: ExperimentId, run_id: RunId, outcome: Outcome) -> None:
    values = dict(zip(_CANARY_COLUMNS, canary_row(experiment_id, run_id, outcome), strict=True))
    number = draft.next_number("canary_answers")
    draft.fill("canary_answers", number, values | {"canary_id": number})


def insert_attempt(draft: Draft, experiment_id: ExperimentId, run_id: RunId, attempt: Attempt) -> None:
    values = dict(zip(_ATTEMPT_COLUMNS, attempt_row(experiment_id, run_id, attempt), strict=True))
    number = draft.next_number("attempts")
    draft.fill("attempts", number, values | {"attempt_id": number})
    if attempt.error_category is not None:
        key = (experiment_id, attempt.narrative_id)
        draft.put("failed_calls", key, draft.get("failed_calls", key, 0) + 1)


def write_row(draft: Draft, experiment_id: ExperimentId, run_id: RunId, outcome: Outcome) -> Iterator[str]:
    """Yields what the row counts for: `saved`, `new_rows`, `new_errors`."""
    parameters, is_error = result_row(experiment_id, run_id, outcome)
    row = dict(zip(RESULT_COLUMNS, parameters, strict=False))
    key = key_of(experiment_id, row)
    n_failed = draft.get("failed_calls", (experiment_id, outcome.item.narrative_id), 0)
    row |= {"first_error_message": row["error_message"], "attempt_count": n_failed + (not is_error)}
    before = draft.get("narrative_results", key)
    if before is None:
        number = draft.next_number("narrative_results")
        draft.fill("narrative_results", key, row | {"result_id": number})
        yield from ("saved", "new_rows", *(("new_errors",) if is_error else ()))
    elif outcome.item.replaces_error and before["error_occurred"]:
        row["first_error_message"] = before["first_error_message"] or before["error_message"]
        row["attempt_count"] = max(row["attempt_count"], before["attempt_count"] + 1)
        kept = {name: before[name] for name in (*_KEPT, "result_id")}
        draft.fill("narrative_results", key, row | kept)
        yield "saved"
        if not is_error:
            yield "fewer_errors"


def write_skip(draft: Draft, experiment_id: ExperimentId, run_id: RunId, skip: Skip) -> Iterator[str]:
    narrative = draft.get("source_narratives", skip.narrative_id)
    key = key_of(experiment_id, narrative)
    if draft.get("narrative_results", key) is None:
        row = _row_of(narrative, experiment_id, run_id, rank=skip.row_num) | {"skip_reason": skip.reason}
        number = draft.next_number("narrative_results")
        draft.fill("narrative_results", key, row | {"error_occurred": 0, "result_id": number})
        yield from ("saved", "new_rows", "new_skips")


def write_copy(draft: Draft, experiment_id: ExperimentId, run_id: RunId, copy: Copy) -> Iterator[str]:
    narrative = draft.get("source_narratives", copy.narrative_id)
    asked = draft.get("source_narratives", copy.original_id)
    original = draft.get("narrative_results", key_of(experiment_id, asked))
    key = key_of(experiment_id, narrative)
    before = draft.get("narrative_results", key)
    row = _row_of(narrative, experiment_id, run_id, rank=copy.row_num) | {"copied_from": copy.original_id}
    row |= {name: original[name] for name in COPIED_COLUMNS} | _judged(original["detected"], row["manual_flag_ind"])
    if before is None:
        number = draft.next_number("narrative_results")
        first = {"first_error_message": row["error_message"], "result_id": number}
        draft.fill("narrative_results", key, row | first)
        yield from ("saved", "new_rows", *(("new_errors",) if row["error_occurred"] else ()))
    elif copy.replaces_error and _may_be_replaced_by(copy, before, run_id):
        first = {"first_error_message": before["first_error_message"] or before["error_message"]}
        draft.fill("narrative_results", key, row | first | {"result_id": before["result_id"]})
        yield "saved"
        if not row["error_occurred"]:
            yield "fewer_errors"


def _may_be_replaced_by(copy: Copy, before: Row, run_id: RunId) -> bool:
    is_this_copy = before["copied_from"] == copy.original_id
    return is_this_copy and bool(before["error_occurred"]) and before["run_id"] < run_id


def _row_of(narrative: Row, experiment_id: ExperimentId, run_id: RunId, *, rank: int) -> Row:
    """What a row without a call holds of its own."""
    names = ("incident_id", "narrative_type", "narrative_text", "manual_flag_ind", "manual_flag")
    own = {name: narrative[name] for name in names}
    times = {"processed_at": local_now(), "attempt_count": 0}
    return own | times | {"experiment_id": experiment_id, "run_id": run_id, "row_num": rank}


def _judged(detected: int | None, manual: int | None) -> Row:
    names = ("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative")
    if detected is None or manual is None:
        return dict.fromkeys(names)
    return {
        "is_true_positive": int(detected and manual),
        "is_true_negative": int(not detected and not manual),
        "is_false_positive": int(detected and not manual),
        "is_false_negative": int(not detected and manual),
    }

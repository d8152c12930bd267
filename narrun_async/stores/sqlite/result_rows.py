"""An outcome or an attempt as the tuple that its INSERT binds; pure.

Tuples, in the order of `statements.RESULT_COLUMNS`: executemany binds them in half the time of mappings.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from narrun_async.clock import local_text, utc_now, utc_text
from narrun_async.models import (
    Attempt,
    Copy,
    Detection,
    ErrorCategory,
    ExperimentId,
    Failure,
    Outcome,
    RunId,
    Serving,
    Skip,
)

#: the four `is_…` columns where there is nothing to compare: unlabelled, or an error
_UNJUDGED = (None, None, None, None)
#: verdicts before any call
_WITHOUT_A_CALL = frozenset({ErrorCategory.SOURCE_CHANGED, ErrorCategory.INTERNAL})


def attempt_row(experiment_id: ExperimentId, run_id: RunId, attempt: Attempt) -> tuple[object, ...]:
    """Parameters of `INSERT_ATTEMPT`."""
    return (
        experiment_id,
        run_id,
        attempt.narrative_id,
        utc_text(attempt.started_at),
        round(attempt.duration_s, 6),
        attempt.error_category,
        attempt.error_message,
        attempt.http_status,
        attempt.charged,
        attempt.usage.prompt_tokens,
        attempt.usage.completion_tokens,
        attempt.batch_id,
    )


def result_row(experiment_id: ExperimentId, run_id: RunId, outcome: Outcome) -> tuple[tuple[object, ...], bool]:
    """Parameters of `INSERT_RESULT` and `REPLACE_ERROR`, and whether the row is an error."""
    item, envelope, attempt = outcome.item, outcome.envelope, outcome.attempt
    usage = envelope.usage
    ended_at = attempt.started_at + timedelta(seconds=attempt.duration_s) if attempt else utc_now()
    is_error = not isinstance(outcome.verdict, Detection)
    return (
        experiment_id,
        item.incident_id,
        item.narrative_type,
        item.row_num,
        item.narrative_text,
        item.manual_flag_ind,
        item.manual_flag,
        *_answer_columns(outcome),
        outcome.raw_response,
        round(attempt.duration_s, 6) if attempt and attempt.batch_id is None else None,
        local_text(ended_at),
        int(is_error),
        None if isinstance(outcome.verdict, Detection) else outcome.verdict.message,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        *_judged(outcome),
        None if isinstance(outcome.verdict, Detection) else outcome.verdict.category,
        envelope.finish_reason,
        envelope.model,
        envelope.system_fingerprint,
        outcome.verdict.parse_method if isinstance(outcome.verdict, Detection) else None,
        usage.cached_tokens,
        usage.reasoning_tokens,
        _last_attempt_at(outcome, ended_at),
        run_id,
        item.narrative_id,
    ), is_error


def canary_row(experiment_id: ExperimentId, run_id: RunId, outcome: Outcome) -> tuple[object, ...]:
    """Parameters of `INSERT_CANARY_ANSWER`."""
    verdict, attempt, envelope = outcome.verdict, outcome.attempt, outcome.envelope
    answer: tuple[object, ...] = (
        (int(verdict.detected), verdict.confidence, None, None)
        if isinstance(verdict, Detection)
        else (None, None, verdict.category, verdict.message)
    )
    return (
        experiment_id,
        run_id,
        outcome.item.narrative_id,
        utc_text(attempt.started_at) if attempt else None,
        round(attempt.duration_s, 6) if attempt else None,
        *answer,
        envelope.model,
        envelope.system_fingerprint,
        envelope.usage.prompt_tokens,
        envelope.usage.completion_tokens,
    )


def serving_row(experiment_id: ExperimentId, run_id: RunId, serving: Serving) -> tuple[object, ...]:
    """Parameters of `INSERT_SERVING`."""
    said = (serving.model or "", serving.system_fingerprint or "", serving.server or "")
    return (experiment_id, run_id, *said, utc_text(utc_now()))


def skip_row(experiment_id: ExperimentId, run_id: RunId, skip: Skip) -> tuple[object, ...]:
    """Parameters of `INSERT_SKIP`."""
    return (experiment_id, skip.narrative_id, skip.row_num, skip.reason, local_text(utc_now()), run_id)


def copy_row(experiment_id: ExperimentId, run_id: RunId, copy: Copy) -> tuple[object, ...]:
    """Parameters of `INSERT_COPY` and `REPLACE_COPY`."""
    return (experiment_id, copy.narrative_id, copy.original_id, copy.row_num, local_text(utc_now()), run_id)


def _answer_columns(outcome: Outcome) -> tuple[object, ...]:
    """detected, confidence, indicators, rationale, reasoning_steps."""
    answer = outcome.verdict
    if not isinstance(answer, Detection):
        return (None, None, None, None, outcome.envelope.reasoning)
    return (
        int(answer.detected),
        answer.confidence,
        json.dumps(answer.indicators, ensure_ascii=False),
        answer.rationale,
        answer.reasoning_steps,
    )


def _judged(outcome: Outcome) -> tuple[int | None, ...]:
    """is_true_positive, is_true_negative, is_false_positive, is_false_negative."""
    manual = outcome.item.manual_flag_ind
    if manual is None or not isinstance(outcome.verdict, Detection):
        return _UNJUDGED
    detected, positive = outcome.verdict.detected, bool(manual)
    return (
        int(detected and positive),
        int(not detected and not positive),
        int(detected and not positive),
        int(not detected and positive),
    )


def _last_attempt_at(outcome: Outcome, ended_at: datetime) -> str | None:
    """None where no call was made. Where none decided, the verdict follows the last of several in the ledger."""
    was_called = outcome.attempt is not None or not (
        isinstance(outcome.verdict, Failure) and outcome.verdict.category in _WITHOUT_A_CALL
    )
    return utc_text(ended_at) if was_called else None

"""The rows that calls lead to, and the ledger entries of those that led to none; pure."""

from __future__ import annotations

from datetime import datetime

from narrun_async.caller.flights import AttemptFailed
from narrun_async.models import Attempt, Envelope, ErrorCategory, Failure, Outcome, RawReply, Verdict, WorkItem
from narrun_async.parsing import parse_answer, parse_envelope, stored_raw
from narrun_async.retrying import CallFailure, judge_answer


def unpack(reply: RawReply) -> tuple[RawReply, Envelope] | CallFailure:
    """An answer with HTTP 200, which must be a chat completion."""
    envelope = parse_envelope(reply.body)
    return judge_answer(envelope) if isinstance(envelope, Failure) else (reply, envelope)


def internal_failure(item: WorkItem, error: Exception) -> Outcome:
    """An error row for a defect of ours that one narrative brought to light; only the type is told, never the text."""
    message = f"defect in narrun: {type(error).__name__}"
    return Outcome(item=item, verdict=Failure(category=ErrorCategory.INTERNAL, message=message), attempt=None)


def decided(
    item: WorkItem, judged: tuple[RawReply, Envelope] | CallFailure, *, started_at: datetime, duration_s: float
) -> Outcome:
    """The row of a call that decided its narrative, by an answer or by a lasting refusal."""
    verdict: Verdict
    if isinstance(judged, CallFailure):
        envelope, raw_response, http_status, server = Envelope(), None, judged.http_status, None
        verdict = Failure(category=judged.category, message=judged.message)
    else:
        reply, envelope = judged
        raw_response, http_status, verdict = stored_raw(reply.body), reply.status, parse_answer(envelope)
        server = reply.headers.get("server")
    failure = verdict if isinstance(verdict, Failure) else None
    return Outcome(
        item=item,
        verdict=verdict,
        envelope=envelope,
        server=server,
        raw_response=raw_response,
        attempt=Attempt(
            narrative_id=item.narrative_id,
            started_at=started_at,
            duration_s=duration_s,
            error_category=failure.category if failure else None,
            error_message=failure.message if failure else None,
            http_status=http_status,
            charged=True,
            usage=envelope.usage,
        ),
    )


def failed_attempt(item: WorkItem, failed: AttemptFailed, *, charged: bool) -> Attempt:
    if failed.second_try is not None and failed.second_try.first.attempt is not None:
        return failed.second_try.first.attempt
    return Attempt(
        narrative_id=item.narrative_id,
        started_at=failed.started_at,
        duration_s=failed.duration_s,
        error_category=failed.failure.category,
        error_message=failed.failure.message,
        http_status=failed.failure.http_status,
        charged=charged,
    )


def exhausted(item: WorkItem, last: CallFailure) -> Outcome:
    message = f"gave up after every pass; last: {last.message}"
    return Outcome(
        item=item, verdict=Failure(category=ErrorCategory.TRANSIENT_EXHAUSTED, message=message), attempt=None
    )


def refused(item: WorkItem, last: CallFailure) -> Outcome:
    """The row of a narrative that was refused without a reason, again and again, by an endpoint that is well."""
    return Outcome(item=item, verdict=Failure(category=last.category, message=last.message), attempt=None)


def endpoint_crash(item: WorkItem, *, n_crashes: int) -> Outcome:
    message = f"took the endpoint down {n_crashes} times while no other call was in flight"
    return Outcome(item=item, verdict=Failure(category=ErrorCategory.ENDPOINT_CRASH, message=message), attempt=None)


def source_changed(item: WorkItem) -> Outcome:
    message = "the stored text no longer has the hash it was ingested with"
    return Outcome(item=item, verdict=Failure(category=ErrorCategory.SOURCE_CHANGED, message=message), attempt=None)

"""Reads output and error files: whose lines they are, and what each of them means for its narrative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from narrun_async.batching.requests import RequestKey, parse_custom_id
from narrun_async.caller.outcomes import decided, internal_failure, unpack
from narrun_async.models import Attempt, Batch, BatchLine, NarrativeId, Outcome, RawReply, WorkItem
from narrun_async.parsing import MAX_LINE_BYTES, parse_batch_line
from narrun_async.retrying import DECIDING, CallFailure, judge_reply
from narrun_async.stores.batch_files import iter_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A batch whose answers are looked for."""

    batch: Batch
    #: each narrative of it, and whether it is done with
    members: Mapping[NarrativeId, bool]


@dataclass(slots=True, kw_only=True)
class Survey:
    """What files hold, before anything of it is stored."""

    n_lines: int = 0
    #: answers to requests of the batches that are looked for
    n_ours: int = 0
    #: lines that are none
    n_unreadable: int = 0
    #: of other experiments
    n_of_others: int = 0
    #: of no request that was made, or of a batch that is not looked for
    n_foreign: int = 0
    #: batch number and narrative of each request that has an answer of the model
    answered: set[tuple[int, NarrativeId]] = field(default_factory=set, repr=False)
    #: why requests were not answered, as codes
    unanswered: Counter[str] = field(default_factory=Counter)


def survey(files: Sequence[Path], experiment: str, targets: Mapping[int, Target]) -> Survey:
    """Look through files once. At 50,000 lines of a kilobyte it takes about two seconds.

    :raises StorageError: a file cannot be read
    """
    found = Survey()
    for line in _iter_parsed(files):
        found.n_lines += 1
        key = parse_custom_id(line.custom_id) if line is not None else None
        if line is None:
            found.n_unreadable += 1
        elif key is None:
            found.n_foreign += 1
        elif key.experiment != experiment:
            found.n_of_others += 1
        elif key.number not in targets or key.narrative_id not in targets[key.number].members:
            found.n_foreign += 1
        else:
            found.n_ours += 1
            if _is_answer(line):
                found.answered.add((key.number, key.narrative_id))
            elif line.reply is None:
                found.unanswered[line.error_code or "no code"] += 1
    return found


def iter_answers(
    files: Sequence[Path], experiment: str, targets: Mapping[int, Target], surveyed: Survey
) -> Iterator[tuple[RequestKey, BatchLine]]:
    """One line for each request that was answered in any way and is not done with.

    Of several, the first that holds an answer of the model counts, else the first: files come in any order.
    """
    seen: set[tuple[int, NarrativeId]] = set()
    for line in _iter_parsed(files):
        key = parse_custom_id(line.custom_id) if line is not None else None
        if line is None or key is None or key.experiment != experiment or line.reply is None:
            continue
        target, one = targets.get(key.number), (key.number, key.narrative_id)
        if target is None or target.members.get(key.narrative_id, True) or one in seen:
            continue
        if _is_answer(line) or one not in surveyed.answered:
            seen.add(one)
            yield key, line


def _iter_parsed(files: Sequence[Path]) -> Iterator[BatchLine | None]:
    for path in files:
        for line in iter_lines(path, max_bytes=MAX_LINE_BYTES):
            yield None if line is None else parse_batch_line(line)


def _is_answer(line: BatchLine) -> bool:
    return line.reply is not None and line.reply.status == 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one line means."""

    #: a row with its call, or a call that decided nothing
    message: Outcome | Attempt
    #: why the narrative has no row, if it has none
    failure: CallFailure | None = None


def judge_line(item: WorkItem, line: BatchLine, batch: Batch, *, now: datetime) -> Judged:
    """The row that a line leads to, as a live call with that answer would have; or the call alone, where it would have
    been repeated: then the narrative is still missing.

    :param now: UTC, where the provider does not say when it answered
    """
    assert line.reply is not None
    started_at = line.answered_at or now
    try:
        return _judge(item, line.reply, batch, started_at=started_at)
    except Exception as error:
        # A defect of ours that one narrative brings to light costs that narrative, not the batch.
        return Judged(message=internal_failure(item, error))


def _judge(item: WorkItem, reply: RawReply, batch: Batch, *, started_at: datetime) -> Judged:
    judged = judge_reply(reply) or unpack(reply)
    if isinstance(judged, CallFailure) and judged.failure_class not in DECIDING:
        return Judged(message=_undecided(item, judged, batch, started_at=started_at), failure=judged)
    outcome = decided(item, judged, started_at=started_at, duration_s=0.0)
    assert outcome.attempt is not None
    attempt = replace(outcome.attempt, batch_id=batch.batch_id)
    return Judged(
        message=replace(outcome, attempt=attempt), failure=judged if isinstance(judged, CallFailure) else None
    )


def _undecided(item: WorkItem, failure: CallFailure, batch: Batch, *, started_at: datetime) -> Attempt:
    """A call that decided nothing, for the ledger."""
    return Attempt(
        narrative_id=item.narrative_id,
        started_at=started_at,
        duration_s=0.0,
        error_category=failure.category,
        error_message=failure.message,
        http_status=failure.http_status,
        charged=False,
        batch_id=batch.batch_id,
    )

"""Puts batches, and what came back of them, into lines for people and into mappings for `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from narrun_async.batching.states import OPEN
from narrun_async.models import Batch, BatchId, BatchState, RemoteBatch
from narrun_async.reporting.wording import aligned, categories_text, printable


def batches_lines(batches: Sequence[Batch], recorded: Mapping[BatchId, int]) -> list[str]:
    """One line a batch, oldest first.

    :param recorded: answers that are stored
    """
    if not batches:
        return ["no batches"]
    header = ("batch", "experiment", "state", "at the provider", "requests", "stored", "MB", "exported", "id there")
    rows = [
        (
            str(one.number),
            one.experiment_id[:8],
            one.state.value,
            _remote_words(one),
            f"{one.n_requests:,}",
            f"{recorded.get(one.batch_id, 0):,}",
            f"{one.n_bytes / 1e6:,.1f}",
            _local(one.exported_at),
            one.remote_batch_id or "-",
        )
        for one in batches
    ]
    return aligned([header, *rows], right=frozenset({0, 4, 5, 6}))


def open_batches_lines(batches: Sequence[Batch]) -> list[str]:
    """What of an experiment is in open batches; nothing where none is."""
    still_open = [one for one in batches if one.state in OPEN]
    if not still_open:
        return []
    n_requests = sum(one.n_requests for one in still_open)
    return [f"batches    {len(still_open)} open, with {n_requests:,} narratives; `narrun batch list` shows them"]


def batch_json(batch: Batch, *, n_recorded: int) -> dict[str, object]:
    """One batch, field by field; moments are UTC, ISO 8601."""
    fields = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    values = {name: one.isoformat() if isinstance(one, datetime) else one for name, one in fields.items()}
    return values | {"input_path": str(batch.input_path), "n_recorded": n_recorded}


def exported_line(batch: Batch) -> str:
    return (
        f"batch {batch.number}: {batch.n_requests:,} requests, {batch.n_bytes / 1e6:,.1f} MB,"
        f" {printable(str(batch.input_path))}"
    )


def standing_line(batch: Batch, remote: RemoteBatch) -> str:
    """What the provider says of one batch."""
    done = "" if remote.n_completed is None else f", {remote.n_completed:,} of {batch.n_requests:,} requests done"
    failed = f", {remote.n_failed:,} failed" if remote.n_failed else ""
    why = f" ({', '.join(remote.complaints)})" if remote.complaints else ""
    return f"batch {batch.number}: {remote.status}{why}{done}{failed}"


def found_lines(
    *,
    n_unreadable: int,
    n_foreign: int,
    n_of_others: int,
    unanswered: Mapping[str, int],
    undecided: Mapping[str, int],
) -> list[str]:
    """What of files did not become rows, and why; nothing where all did."""
    lines = []
    if unanswered:
        lines.append(f"NOTE: {sum(unanswered.values()):,} requests were not answered: {categories_text(unanswered)}")
    if undecided:
        lines.append(f"NOTE: {sum(undecided.values()):,} failed in passing: {categories_text(undecided)}")
    if n_of_others:
        lines.append(f"NOTE: {n_of_others:,} lines belong to other experiments and were passed over")
    if n_foreign:
        lines.append(f"NOTE: {n_foreign:,} lines answer no request of these batches and were passed over")
    if n_unreadable:
        lines.append(f"NOTE: {n_unreadable:,} lines cannot be read")
    return lines


def _remote_words(batch: Batch) -> str:
    if batch.remote_status is None:
        return "-"
    done = "" if batch.n_completed is None or batch.state is BatchState.CLOSED else f", {batch.n_completed:,} done"
    return f"{batch.remote_status}{done}"


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"

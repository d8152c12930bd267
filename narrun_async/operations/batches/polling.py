"""Asks the provider how batches stand, and notes what it says. Asking needs no lock, noting does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.batching.states import answers_are_there
from narrun_async.clock import utc_now
from narrun_async.models import Batch, BatchState, RemoteBatch
from narrun_async.operations.batches.failures import problem_of
from narrun_async.ports import BatchProvider, BatchStore
from narrun_async.retrying import CallFailure


def told_by(remote: RemoteBatch) -> Mapping[str, object]:
    """The columns of a batch that follow from what the provider says."""
    known = {"remote_file_id": remote.input_file_id} if remote.input_file_id is not None else {}
    return known | {
        "remote_status": remote.status,
        "remote_complaint": ", ".join(remote.complaints) or None,
        "output_file_id": remote.output_file_id,
        "error_file_id": remote.error_file_id,
        "n_completed": remote.n_completed,
        "n_failed": remote.n_failed,
        "polled_at": utc_now(),
    }


async def ask(provider: BatchProvider, batches: Sequence[Batch]) -> Sequence[tuple[Batch, RemoteBatch]]:
    """What the provider says of each batch that it works on; the others are left out.

    :raises NarrunError: it cannot be asked
    """
    told: list[tuple[Batch, RemoteBatch]] = []
    for batch in batches:
        if batch.state is not BatchState.SUBMITTED or batch.remote_batch_id is None:
            continue
        remote = await provider.load_batch(batch.remote_batch_id)
        if isinstance(remote, CallFailure):
            raise problem_of(remote, doing=f"the provider does not say how batch {batch.number} stands")
        told.append((batch, remote))
    return told


def is_news(batch: Batch, remote: RemoteBatch) -> bool:
    """Whether the provider says anything that is not known already."""
    known = (batch.remote_status, batch.n_completed, batch.n_failed, batch.output_file_id, batch.error_file_id)
    return known != (
        remote.status,
        remote.n_completed,
        remote.n_failed,
        remote.output_file_id,
        remote.error_file_id,
    ) or answers_are_there(remote)


async def note(store: BatchStore, batch: Batch, remote: RemoteBatch) -> Batch:
    """Store what the provider says of a batch that was submitted. The caller holds the lock."""
    state = BatchState.ENDED if answers_are_there(remote) else BatchState.SUBMITTED
    return await store.advance_batch(batch, state, told_by(remote))

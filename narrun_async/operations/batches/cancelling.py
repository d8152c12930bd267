"""Gives narratives back: withdraws what was not sent, asks the provider to stop what was, gives up what is lost."""

from __future__ import annotations

from narrun_async.batching.requests import remote_name
from narrun_async.batching.states import remote_will_end
from narrun_async.clock import utc_now
from narrun_async.models import Batch, BatchState
from narrun_async.operations.batches.failures import problem_of
from narrun_async.operations.batches.polling import note
from narrun_async.operations.batches.submitting import Submitter
from narrun_async.ports import BatchStore
from narrun_async.retrying import CallFailure


async def withdraw(store: BatchStore, batch: Batch) -> Batch:
    """Close a batch of which nothing was sent."""
    return await _close(store, batch, "given back; it was never sent to a provider")


async def abandon(store: BatchStore, batch: Batch) -> Batch:
    """Close a batch on the word of a person, whatever the provider has of it; nobody is asked."""
    return await _close(store, batch, f"abandoned while it was {batch.state.value}")


async def cancel(submitter: Submitter, batch: Batch) -> Batch:
    """Close a batch that the provider surely has not, or have the provider stop working on it; it has not ended yet.

    In the latter case it stays open until the provider says that it has stopped, and what was answered is collected.

    :raises NarrunError: the provider cannot be asked, or refuses
    """
    store, provider = submitter.store, submitter.provider
    if batch.state is BatchState.CREATING:
        found = await submitter.find(batch)
        if found is not None:
            batch = await submitter.take_up(batch, found)
    if batch.state is not BatchState.SUBMITTED:
        await _forget_upload(submitter, batch)
        return await _close(store, batch, "cancelled before the provider worked on it")
    assert batch.remote_batch_id is not None
    remote = await provider.cancel_batch(batch.remote_batch_id)
    if isinstance(remote, CallFailure):
        # It may have come to its end meanwhile, which is refused as any other nonsense is.
        looked = await provider.load_batch(batch.remote_batch_id)
        if isinstance(looked, CallFailure) or not remote_will_end(looked.status):
            raise problem_of(remote, doing=f"batch {batch.number} cannot be cancelled")
        remote = looked
    return await note(store, batch, remote)


async def _forget_upload(submitter: Submitter, batch: Batch) -> None:
    """Have the provider delete what was uploaded, for it holds narratives. Where it does not, that is said."""
    file_id = batch.remote_file_id
    if file_id is None:  # the upload may have been cut off before its answer was here
        name = remote_name(batch.token)
        found = await submitter.provider.find_file(name)
        if isinstance(found, CallFailure):
            submitter.tell(f"NOTE: whether the provider has the file {name} is not known: {found.message}")
            return
        if found is None:
            return
        file_id = found.file_id
    failure = await submitter.provider.delete_file(file_id)
    if failure is not None:
        submitter.tell(f"NOTE: the provider keeps the file {file_id}: {failure.message}")


async def _close(store: BatchStore, batch: Batch, why: str) -> Batch:
    changes = {"closed_at": utc_now(), "closed_why": why, "intended_at": None}
    return await store.advance_batch(batch, BatchState.CLOSED, changes)

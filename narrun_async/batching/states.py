"""Owns the life of a batch: its states, what may follow what, and what a provider's word for it means. Pure.

exported ──► uploading ──► uploaded ──► creating ──► submitted ──► ended ──► closed
   ▲                                       │
   └── refused for certain, or sent anew ──┘      every state may become `closed`: cancelled, or collected from files

The states before `submitted` are two intents and two handles: `uploading` and `creating` are on disk before the request
is sent, `uploaded` and `submitted` as soon as its answer is there. A kill in between leaves an intent, and whoever
meets it asks the provider what became of it.
"""

from __future__ import annotations

from narrun_async.models import BatchState, RemoteBatch

EXPORTED, UPLOADING, UPLOADED = BatchState.EXPORTED, BatchState.UPLOADING, BatchState.UPLOADED
CREATING, SUBMITTED = BatchState.CREATING, BatchState.SUBMITTED
ENDED, CLOSED = BatchState.ENDED, BatchState.CLOSED

#: state → what it may become; `submitted` directly where the provider turns out to have the batch already
TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    EXPORTED: frozenset({UPLOADING, UPLOADED, SUBMITTED, CLOSED}),
    UPLOADING: frozenset({UPLOADING, UPLOADED, SUBMITTED, EXPORTED, CLOSED}),
    UPLOADED: frozenset({CREATING, SUBMITTED, EXPORTED, CLOSED}),
    CREATING: frozenset({CREATING, SUBMITTED, EXPORTED, CLOSED}),
    SUBMITTED: frozenset({SUBMITTED, ENDED, CLOSED}),
    ENDED: frozenset({CLOSED}),
    CLOSED: frozenset(),
}

#: its narratives are spoken for: asking for them elsewhere would pay twice
OPEN = frozenset(BatchState) - {CLOSED}
#: not with the provider yet, as far as is known here
UNSENT = frozenset({EXPORTED, UPLOADING, UPLOADED, CREATING})
#: a request was about to be sent that creates something which costs money, and its answer was not seen
IN_DOUBT = frozenset({CREATING})

#: the provider's words for a batch that changes no more, whatever they are; any other word means that it goes on
_ENDED_WORDS = frozenset({"completed", "failed", "expired", "cancelled", "canceled", "succeeded", "success", "error"})
#: it was asked to stop
_STOPPING_WORDS = frozenset({"cancelling", "canceling"})
#: a file that cannot be used yet (Azure), and one that never will
_FILE_IN_WORK = frozenset({"pending", "running", "notrunning", "processing", "uploading"})
_FILE_BROKEN = frozenset({"error", "failed", "canceled", "cancelled", "deleted", "deleting"})


def remote_has_ended(status: str) -> bool:
    """Whether a batch with that status has come to its end, good or bad."""
    return status.casefold() in _ENDED_WORDS


def answers_are_there(remote: RemoteBatch) -> bool:
    """Whether it has come to its end and can be collected: answers that are counted may still lack their file."""
    return remote_has_ended(remote.status) and not (remote.n_completed and remote.output_file_id is None)


def remote_will_end(status: str) -> bool:
    """Whether there is nothing more to cancel: it has ended, or was asked to stop already."""
    return remote_has_ended(status) or status.casefold() in _STOPPING_WORDS


def file_is_in_work(status: str | None) -> bool:
    """Whether a file that was uploaded has to be waited for."""
    return (status or "").casefold() in _FILE_IN_WORK


def file_is_broken(status: str | None) -> bool:
    """Whether a file that was uploaded cannot be used."""
    return (status or "").casefold() in _FILE_BROKEN

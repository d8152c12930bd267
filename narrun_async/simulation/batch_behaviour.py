"""How a simulated Batch API behaves: every knob of it as one frozen value, checked when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from narrun_async.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBehaviour:
    """Every knob of a simulated Batch API.

    :raises ValueError: a value makes no sense; the message names the knob
    """

    #: from the creation of a batch to its end
    latency_ms: float = 0.0
    #: share of the requests that a batch does not get to; it ends as expired then
    expired_share: float = 0.0
    #: 1: answers come in another order than the requests
    shuffled: int = 0
    #: 1: output files hold a line twice, a line of nobody, and a line that is none
    odd_lines: int = 0
    #: the next so many uploads are done, and their answers lost
    lost_uploads: int = 0
    #: the next so many batches are created, and the answers to that lost
    lost_creations: int = 0
    #: 1: batches and files cannot be listed (404)
    unlisted: int = 0
    #: how long a new batch is missing from the list
    listed_after_ms: float = 0.0
    #: entries a page at most, whatever is asked for
    page_size: int = 100
    #: 1: what is sent as metadata is forgotten
    forgets_metadata: int = 0
    #: 1: batches fail when their file is looked at
    invalid: int = 0
    #: creating a batch gets this status, such as 429; 0: it does not
    creation_status: int = 0
    #: how long an uploaded file cannot be used
    file_pending_ms: float = 0.0

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = getattr(self, knob.name)
            kinds = (int,) if knob.type == "int" else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 1e9:
                raise ValueError(f"batch knob {knob.name} must be a number, 0 or more")
        if self.expired_share > 1:
            raise ValueError("batch knob expired_share must be from 0 to 1")
        if self.page_size < 1:
            raise ValueError("batch knob page_size must be at least 1")

    def changed(self, changes: Mapping[str, object]) -> BatchBehaviour:
        """This behaviour with some knobs set anew.

        :raises ValueError: an unknown knob, or a value that makes no sense
        """
        unknown = sorted(set(changes) - {knob.name for knob in fields(self)})
        if unknown:
            raise ValueError(f"unknown batch knob: {', '.join(unknown)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked when it is made


def parse_batch_knobs(texts: Iterable[str]) -> BatchBehaviour:
    """`latency_ms=500` and its like, as they stand on a command line.

    :raises UsageError: not KNOB=NUMBER, an unknown knob, or a number that makes no sense
    """
    changes: dict[str, object] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            known = ", ".join(knob.name for knob in fields(BatchBehaviour))
            raise UsageError(f"{text!r} is not KNOB=NUMBER", advice=f"the knobs are {known}") from None
        changes[name.strip()] = int(value) if value.is_integer() else value
    try:
        return BatchBehaviour().changed(changes)
    except ValueError as error:
        raise UsageError(str(error)) from None

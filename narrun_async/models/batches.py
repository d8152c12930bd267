"""Batches: parts of a remaining set that are handed over as files, and what the provider says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from narrun_async.models.calls import RawReply
from narrun_async.models.experiments import Selection
from narrun_async.models.ids import BatchId, ExperimentId, NarrativeId


class BatchState(StrEnum):
    """`batches.state`; the transitions are in `batching.states`."""

    #: its file is whole; nothing was sent
    EXPORTED = "exported"
    #: its file is about to be uploaded, or was
    UPLOADING = "uploading"
    #: the provider has its file
    UPLOADED = "uploaded"
    #: the provider is about to be asked to work on it, or was
    CREATING = "creating"
    #: the provider works on it
    SUBMITTED = "submitted"
    #: the provider has done what it will do
    ENDED = "ended"
    #: what came back is stored; what did not is missing again
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One narrative of a batch, as it was when the batch was exported."""

    narrative_id: NarrativeId
    #: rank in the cohort, from 1
    row_num: int
    #: an error row of it existed and is to be replaced
    replaces_error: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch whose file is whole; the fields are columns of `batches`."""

    experiment_id: ExperimentId
    #: within the experiment, from 1
    number: int
    selection: Selection
    #: absolute
    input_path: Path
    #: SHA-256 hex of the file
    input_sha256: str
    #: what each request is addressed to, such as `/v1/chat/completions`
    endpoint: str
    n_requests: int
    n_bytes: int
    #: by which the provider's batch and file are known again
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One row of `batches`."""

    batch_id: BatchId
    experiment_id: ExperimentId
    number: int
    selection: Selection
    state: BatchState
    input_path: Path
    input_sha256: str
    endpoint: str
    n_requests: int
    n_bytes: int
    token: str
    #: times that a person had it sent anew, not knowing what became of it
    n_resubmissions: int
    exported_at: datetime
    #: when the last request was about to be sent whose answer nobody may have seen
    intended_at: datetime | None
    #: where it was sent; None while it was not
    api_url: str | None
    remote_file_id: str | None
    remote_batch_id: str | None
    #: in the provider's words
    remote_status: str | None
    #: why it was not accepted: codes and lines
    remote_complaint: str | None
    output_file_id: str | None
    error_file_id: str | None
    #: requests that the provider says it has done, and failed
    n_completed: int | None
    n_failed: int | None
    polled_at: datetime | None
    closed_at: datetime | None
    #: one sentence
    closed_why: str | None
    #: its files are wanted, also after it was closed
    keeps_files: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file that a provider keeps."""

    file_id: str
    name: str | None
    n_bytes: int | None
    #: in the provider's words; None where it says nothing
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as its provider tells of it."""

    remote_batch_id: str
    #: in the provider's words
    status: str
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    #: of requests; None where the provider does not count
    n_completed: int | None
    n_failed: int | None
    metadata: Mapping[str, str]
    #: why it was not accepted: codes and lines, never the provider's sentences, which may quote a request
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One line of an output or error file."""

    custom_id: str
    #: the answer to that request, without headers; None where the request was not answered
    reply: RawReply | None = field(repr=False)
    #: why not, as a code; empty where the provider gives none
    error_code: str = ""
    #: when the answer was made, by the provider's clock; None where it does not say
    answered_at: datetime | None = None

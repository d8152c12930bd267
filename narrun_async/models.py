"""The nouns of the program as frozen values; no behaviour beyond what a value knows of itself.

Texts, prompts and answers are `repr=False`: a value that lands in a log or a traceback shows none of them.
Times are UTC `datetime`s unless a name says otherwise; `_s` are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", int)
NarrativeId = NewType("NarrativeId", int)


class NarrativeType(StrEnum):
    """Who wrote the narrative: coroner or medical examiner, or law enforcement."""

    CME = "cme"
    LE = "le"


# --- sources ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNarrative:
    """One narrative as a workbook or table gives it, after normalisation (design §5, faults §1)."""

    #: text, never a number; stripped
    incident_id: str
    narrative_type: NarrativeType
    #: canonical text: LF line ends, no NUL, no lone surrogates, never blank
    narrative_text: str = field(repr=False)
    #: SHA-256 hex of the UTF-8 bytes of the canonical text
    text_sha256: str
    #: 0/1: the flag of this narrative; None where unlabelled
    manual_flag_ind: int | None
    #: 0/1: the flag of the case; None where unlabelled
    manual_flag: int | None
    #: 1-based row of the file it came from
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """What a file held besides its narratives; known once all of it has been read."""

    n_cases: int = 0
    #: blank or whitespace-only cells, dropped
    n_blank: int = 0
    #: rows without an id, dropped because `--skip-blank-ids` was given
    n_blank_ids: int = 0
    #: texts in which characters were replaced or decoded to make them canonical
    n_texts_repaired: int = 0
    #: one sentence each, no text in them
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One workbook or table that the database holds."""

    #: the path as it was given
    path: str
    #: SHA-256 hex of the file's bytes (32 hex digits: MD5 of a file that the predecessor loaded)
    checksum: str
    n_narratives: int
    #: local `YYYY-MM-DD HH:MM:SS`
    loaded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingest did; printed as the summary."""

    source: DataSource
    #: False when the file, or all of its rows, were in the database already
    loaded: bool
    #: the file is gone; the database has its narratives
    is_missing: bool = False
    summary: SourceSummary = SourceSummary()
    n_cme: int = 0
    n_le: int = 0
    n_labelled: int = 0
    n_positive: int = 0
    #: same key and same text, collapsed
    n_duplicates: int = 0
    #: same key and different text, dropped because `--on-conflict first` was given
    n_conflicts_dropped: int = 0


# --- experiments and runs --------------------------------------------------------------------------------------------


class ExperimentStatus(StrEnum):
    """`experiments.status`; the transitions are in `statuses`."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    COMPLETED = "completed"


class Selection(StrEnum):
    """Which part of the cohort a run works on."""

    MISSING = "missing"
    ERRORS = "errors"
    MISSING_AND_ERRORS = "missing+errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The frozen set of narratives of an experiment."""

    data_checksum: str
    last_narrative_id: NarrativeId
    n_narratives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One frozen configuration over one frozen cohort, as stored."""

    experiment_id: ExperimentId
    name: str
    #: as stored; `running` with a free lock means interrupted
    status: ExperimentStatus
    cohort: Cohort
    #: the snapshot: canonical JSON of the frozen part of the configuration; None for the predecessor's rows
    config_json: str | None = field(repr=False)
    config_sha256: str | None
    log_dir: str | None
    created_at: str
    #: every column of the `experiments` row, for display and export
    columns: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """An experiment to create; the fields are the columns of its row."""

    experiment_id: ExperimentId
    experiment_name: str
    model_name: str
    model_provider: str
    temperature: float
    system_prompt: str | None = field(repr=False)
    user_template: str = field(repr=False)
    prompt_version: str | None
    prompt_author: str | None
    run_seed: int | None
    data_file: str
    data_checksum: str
    cohort_last_narrative_id: NarrativeId
    n_narratives_total: int
    api_url: str | None
    log_dir: str
    notes: str | None
    config_json: str = field(repr=False)
    config_sha256: str
    config_file: str | None
    os_info: str
    hostname: str
    narrun_version: str
    python_version: str
    #: local `YYYY-MM-DD HH:MM:SS`
    created_at: str


class RunMode(StrEnum):
    """Why a run was started."""

    NEW = "new"
    RESUME = "resume"
    RETRY_ERRORS = "retry-errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A process life that begins; the fields are columns of `runs`."""

    experiment_id: ExperimentId
    mode: RunMode
    selection: Selection
    host: str
    pid: int
    narrun_version: str
    #: calls in flight, or `auto`
    concurrency: int | str
    api_url: str
    api_url_overridden: bool
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a process life ended."""

    status: ExperimentStatus
    ended_at: datetime
    runtime_s: float
    exit_code: int
    #: one sentence
    ended_why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One row of `runs`, for people."""

    run_id: RunId
    mode: str
    selection: str
    #: calls in flight, or `auto`
    concurrency: int | str | None
    #: UTC, ISO 8601
    started_at: str
    ended_at: str | None
    runtime_s: float
    n_saved: int
    exit_code: int | None
    ended_why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMark:
    """What the writer notes beside each batch for whoever watches the database."""

    runtime_s: float
    #: local `YYYY-MM-DD HH:MM:SS`; None while there is no rate yet
    estimated_completion_time: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCursor:
    """Where a sweep over the cohort stands: the last narrative seen and its rank."""

    narrative_id: NarrativeId = NarrativeId(0)
    row_num: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCounts:
    """Rows of an experiment, counted."""

    n_total: int
    n_success: int
    n_errors: int

    @property
    def n_missing(self) -> int:
        return self.n_total - self.n_success - self.n_errors


# --- the way of one narrative ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One narrative of the remaining set, on its way to the endpoint."""

    narrative_id: NarrativeId
    #: rank in the cohort, from 1
    row_num: int
    incident_id: str
    narrative_type: str
    narrative_text: str = field(repr=False)
    text_sha256: str | None
    manual_flag_ind: int | None
    manual_flag: int | None
    #: an error row of this narrative exists and is to be replaced
    replaces_error: bool = False


class ErrorCategory(StrEnum):
    """Why a narrative has an error row, or an attempt no result. Stored; never renamed."""

    # the answer
    EMPTY = "empty"
    NO_CONTENT = "no_content"
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    BAD_JSON = "bad_json"
    SCHEMA = "schema"
    AMBIGUOUS = "ambiguous"
    CONFIDENCE_OUT_OF_RANGE = "confidence_out_of_range"
    # the envelope, the connection, the endpoint
    BAD_ENVELOPE = "bad_envelope"
    RESPONSE_TOO_LARGE = "response_too_large"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    FATAL = "fatal"
    # the program's own verdicts
    TRANSIENT_EXHAUSTED = "transient_exhausted"
    SOURCE_CHANGED = "source_changed"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts that the endpoint reported; None where it reported none."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost, in whatever currency the user counts in."""

    prompt_per_million: float
    completion_per_million: float

    def cost(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A chat completion, unpacked: what the endpoint said around and in its answer."""

    content: str = field(repr=False, default="")
    #: reasoning, reasoning_content or the text of a thinking channel
    reasoning: str | None = field(repr=False, default=None)
    refusal: str | None = field(repr=False, default=None)
    finish_reason: str | None = None
    #: the model that says it answered
    model: str | None = None
    system_fingerprint: str | None = None
    #: the message held something that is no text: tool calls, images, parts of an unknown kind
    carries_non_text: bool = False
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A usable answer."""

    detected: bool
    #: 0 to 1; None where the answer gave none
    confidence: float | None
    indicators: tuple[str, ...] = field(repr=False, default=())
    rationale: str | None = field(repr=False, default=None)
    reasoning_steps: str | None = field(repr=False, default=None)
    #: which parsing tier produced it
    parse_method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """No usable answer, and why."""

    category: ErrorCategory
    #: one sentence without narrative text, prompt or answer
    message: str


Verdict = Detection | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """One HTTP answer as it came, before anybody judged it."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One physical call, for the append-only ledger."""

    narrative_id: NarrativeId
    #: UTC
    started_at: datetime
    duration_s: float
    #: None when the call produced a success row
    error_category: ErrorCategory | None
    error_message: str | None
    http_status: int | None
    #: False when the failure was the endpoint's (outage, overload) and not counted against the narrative
    charged: bool
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one narrative: the row to store and the attempt that decided it."""

    item: WorkItem
    verdict: Verdict
    #: the deciding call; None when no call was made (the source text changed)
    attempt: Attempt | None
    envelope: Envelope = field(default_factory=Envelope)
    #: the answer's body or content as it came, at most 64 KiB of it
    raw_response: str | None = field(repr=False, default=None)


# What travels from the dispatcher to the writer: a row to store, or a call that decided nothing.
WriterMessage = Outcome | Attempt

"""The way of one narrative: the item, the call, the answer, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from narrun_async.models.ids import BatchId, NarrativeId


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
    #: asked again although its result stands, to see whether the endpoint still answers alike
    is_canary: bool = False


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
    ENDPOINT_CRASH = "endpoint_crash"
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

#: the end of `parse_method` where the answer came when it was asked for once more; stored, never renamed
SECOND_TRY = "+second_try"


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
class Serving:
    """Who says it answered. Two of them within an experiment are two instruments; None where nothing was said."""

    model: str | None
    system_fingerprint: str | None
    #: the HTTP header `Server`
    server: str | None = None

    def __str__(self) -> str:
        extra = [part for part in (self.system_fingerprint, self.server) if part]
        return f"{self.model or 'unnamed model'}" + (f" ({', '.join(extra)})" if extra else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingUse:
    """One who answered for an experiment, and for how much of it."""

    serving: Serving
    run_id: int | None
    #: UTC, ISO 8601
    first_seen_at: str | None
    #: results that say they come from this model and fingerprint
    n_results: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A usable answer."""

    detected: bool
    #: 0 to 1; None where the answer gave none
    confidence: float | None
    indicators: tuple[str, ...] = field(repr=False, default=())
    rationale: str | None = field(repr=False, default=None)
    reasoning_steps: str | None = field(repr=False, default=None)
    #: where the answer stood and which parsing tier took it
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
    #: the provider made the call, as part of this batch; its duration is not known then, and 0
    batch_id: BatchId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One row of the ledger, for counting."""

    run_id: int
    #: UTC
    started_at: datetime
    duration_s: float
    #: None: the call gave an answer that was stored as a success
    error_category: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerIndicators:
    """What an answer was based on, in the model's words: mostly quotations of the narrative."""

    is_yes: bool
    indicators: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one narrative: the row to store and the attempt that decided it."""

    item: WorkItem
    verdict: Verdict
    #: the deciding call; None when no call was made (the source text changed)
    attempt: Attempt | None
    envelope: Envelope = field(default_factory=Envelope)
    #: the HTTP header `Server` of the answer
    server: str | None = None
    #: the answer's body or content as it came, at most 64 KiB of it
    raw_response: str | None = field(repr=False, default=None)


class SkipReason(StrEnum):
    """Why a narrative has a row and was never asked. Stored; never renamed."""

    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A narrative that is not sent: its row says so, and why."""

    narrative_id: NarrativeId
    #: rank in the cohort, from 1
    row_num: int
    reason: SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A narrative whose text is that of another one: its row repeats what came of that one."""

    narrative_id: NarrativeId
    #: rank in the cohort, from 1
    row_num: int
    #: the narrative that was asked
    original_id: NarrativeId
    #: of the original's row; None where that is a success
    error_category: str | None
    #: the copy has a row, an error, and the original a newer one
    replaces_error: bool


# What travels to the writer: a row, a call that decided nothing, who answers now, or a row that takes no call.
WriterMessage = Outcome | Attempt | Serving | Skip | Copy

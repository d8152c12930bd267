"""Owns the description of `narrative_results`, in the order of the table: the predecessor's columns, then ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from narrun_async.codebook.columns import YES_NO, Column, Kind
from narrun_async.models import ErrorCategory, SkipReason

_ERROR = "the row is an error (error_occurred = 1)"
_NOT_REPORTED = "the endpoint did not say, or no answer came"
_NOT_JUDGED = "the narrative has no label, or the row is an error"

_NARRATIVE_TYPES: Mapping[int | str, str] = {"cme": "coroner or medical examiner", "le": "law enforcement"}

_ERROR_CATEGORIES: Mapping[int | str, str] = {
    ErrorCategory.EMPTY: "the answer was empty",
    ErrorCategory.NO_CONTENT: "the answer held no text",
    ErrorCategory.TRUNCATED: "the answer was cut off at a length limit",
    ErrorCategory.REFUSAL: "the model refused",
    ErrorCategory.CONTENT_FILTER: "a content filter held the answer back",
    ErrorCategory.BAD_JSON: "the answer held no readable JSON object",
    ErrorCategory.SCHEMA: "the answer's fields were not as asked",
    ErrorCategory.AMBIGUOUS: "the answer contradicted itself",
    ErrorCategory.CONFIDENCE_OUT_OF_RANGE: "the confidence was not between 0 and 1",
    ErrorCategory.BAD_ENVELOPE: "what came was no chat completion",
    ErrorCategory.RESPONSE_TOO_LARGE: "what came was too large",
    ErrorCategory.TIMEOUT: "no answer in time",
    ErrorCategory.CONNECTION_LOST: "the connection broke",
    ErrorCategory.UNREACHABLE: "the endpoint could not be reached",
    ErrorCategory.OVERLOADED: "the endpoint was overloaded",
    ErrorCategory.SERVER_ERROR: "the endpoint failed",
    ErrorCategory.BAD_REQUEST: "the endpoint refused the request",
    ErrorCategory.CONTEXT_LENGTH: "the narrative was too long for the model",
    ErrorCategory.FATAL: "the endpoint refused the configuration",
    ErrorCategory.TRANSIENT_EXHAUSTED: "every attempt failed",
    ErrorCategory.ENDPOINT_CRASH: "the endpoint went down at this narrative, repeatedly",
    ErrorCategory.SOURCE_CHANGED: "the stored narrative was not the one that was loaded",
    ErrorCategory.INTERNAL: "a defect of the program",
}

RESULT_COLUMNS: Sequence[Column] = (
    Column(
        name="result_id",
        short_name="RESULTID",
        kind=Kind.WHOLE,
        label="Row number in the database",
        meaning="Identifies the row within the database, in the order in which rows were stored.",
    ),
    Column(
        name="experiment_id",
        short_name="EXPERID",
        kind=Kind.TEXT,
        label="Experiment",
        meaning="The experiment: one frozen configuration over one frozen set of narratives.",
    ),
    Column(
        name="incident_id",
        short_name="INCIDENT",
        kind=Kind.TEXT,
        label="Case",
        meaning="The case, as its workbook names it. A text: leading zeros count.",
    ),
    Column(
        name="narrative_type",
        short_name="NARRTYPE",
        kind=Kind.TEXT,
        label="Who wrote the narrative",
        meaning="Which of the case's two narratives this is. With incident_id it identifies the narrative.",
        values=_NARRATIVE_TYPES,
    ),
    Column(
        name="row_num",
        short_name="ROWNUM",
        kind=Kind.WHOLE,
        label="Rank of the narrative in the cohort",
        meaning="The place of the narrative in the experiment's cohort, from 1; not the order of completion.",
    ),
    Column(
        name="narrative_text",
        short_name="NARRTEXT",
        kind=Kind.TEXT,
        label="The narrative",
        meaning="The narrative as it was sent, within the prompt.",
        missing="the texts were scrubbed",
        is_text=True,
    ),
    Column(
        name="manual_flag_ind",
        short_name="FLAGNARR",
        kind=Kind.FLAG,
        label="Manual label of this narrative",
        meaning="Whether people found intimate partner violence in this narrative.",
        values=YES_NO,
        missing="not labelled",
    ),
    Column(
        name="manual_flag",
        short_name="FLAGCASE",
        kind=Kind.FLAG,
        label="Manual label of the case",
        meaning="Whether people found intimate partner violence in the case as a whole.",
        values=YES_NO,
        missing="not labelled",
    ),
    Column(
        name="detected",
        short_name="DETECTED",
        kind=Kind.FLAG,
        label="Model: intimate partner violence",
        meaning="The model's answer: whether the person was a victim of intimate partner violence.",
        values=YES_NO,
        missing=_ERROR,
    ),
    Column(
        name="confidence",
        short_name="CONFID",
        kind=Kind.NUMBER,
        label="Confidence that the model stated",
        meaning="What the model gave as its confidence in the answer. It is no probability until it is calibrated.",
        unit="0 to 1",
        missing=f"the model gave none, or {_ERROR}",
    ),
    Column(
        name="indicators",
        short_name="INDICAT",
        kind=Kind.LIST,
        label="Indicators that the model named",
        meaning="Words and short quotations on which the answer rests.",
        missing=_ERROR,
        is_text=True,
    ),
    Column(
        name="rationale",
        short_name="RATIONAL",
        kind=Kind.TEXT,
        label="The model's reason",
        meaning="The reason that the model gave; it may quote the narrative.",
        missing=f"the model gave none, or {_ERROR}",
        is_text=True,
    ),
    Column(
        name="reasoning_steps",
        short_name="REASONNG",
        kind=Kind.TEXT,
        label="The model's reasoning",
        meaning="What the model thought before it answered, where the endpoint shows it; it may quote the narrative.",
        missing=_NOT_REPORTED,
        is_text=True,
    ),
    Column(
        name="raw_response",
        short_name="RAWRESP",
        kind=Kind.TEXT,
        label="The answer as it came",
        meaning="The answer as it came, at most 64 KiB of it; it may quote the narrative.",
        missing="no answer came",
        is_text=True,
    ),
    Column(
        name="response_sec",
        short_name="RESPSEC",
        kind=Kind.NUMBER,
        label="Duration of the deciding call",
        meaning="How long the call took that decided the row, from sending to the end of the answer.",
        unit="seconds",
        missing="no call was made",
    ),
    Column(
        name="processed_at",
        short_name="PROCAT",
        kind=Kind.LOCAL_TIME,
        label="When the row was decided, local time",
        meaning="When the answer was there, in the local time of the machine that ran the experiment.",
    ),
    Column(
        name="error_occurred",
        short_name="ISERROR",
        kind=Kind.FLAG,
        label="No usable answer",
        meaning="Whether the narrative ended without a usable answer; error_category says why.",
        values=YES_NO,
    ),
    Column(
        name="error_message",
        short_name="ERRMSG",
        kind=Kind.TEXT,
        label="What went wrong",
        meaning="One sentence on the error. The predecessor's may quote an answer, and are given with texts only.",
        missing="no error, or a sentence of the predecessor that was left out",
    ),
    Column(
        name="prompt_tokens",
        short_name="TOKPROMP",
        kind=Kind.WHOLE,
        label="Tokens of the prompt",
        meaning="Tokens that the deciding call sent, as the endpoint counts them.",
        unit="tokens",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="completion_tokens",
        short_name="TOKCOMPL",
        kind=Kind.WHOLE,
        label="Tokens of the answer",
        meaning="Tokens that the deciding call brought back, reasoning included, as the endpoint counts them.",
        unit="tokens",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="tokens_used",
        short_name="TOKTOTAL",
        kind=Kind.WHOLE,
        label="Tokens, prompt and answer",
        meaning="Tokens of the deciding call in all, as the endpoint counts them.",
        unit="tokens",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="is_true_positive",
        short_name="ISTP",
        kind=Kind.FLAG,
        label="Detected, and labelled so",
        meaning="Whether detected and manual_flag_ind are both 1.",
        values=YES_NO,
        missing=_NOT_JUDGED,
    ),
    Column(
        name="is_true_negative",
        short_name="ISTN",
        kind=Kind.FLAG,
        label="Not detected, and labelled so",
        meaning="Whether detected and manual_flag_ind are both 0.",
        values=YES_NO,
        missing=_NOT_JUDGED,
    ),
    Column(
        name="is_false_positive",
        short_name="ISFP",
        kind=Kind.FLAG,
        label="Detected, but labelled negative",
        meaning="Whether detected is 1 and manual_flag_ind is 0.",
        values=YES_NO,
        missing=_NOT_JUDGED,
    ),
    Column(
        name="is_false_negative",
        short_name="ISFN",
        kind=Kind.FLAG,
        label="Not detected, but labelled positive",
        meaning="Whether detected is 0 and manual_flag_ind is 1.",
        values=YES_NO,
        missing=_NOT_JUDGED,
    ),
    Column(
        name="error_category",
        short_name="ERRCAT",
        kind=Kind.TEXT,
        label="Kind of error",
        meaning="Why there is no usable answer.",
        values=_ERROR_CATEGORIES,
        missing="no error, or one that the predecessor recorded",
    ),
    Column(
        name="attempt_count",
        short_name="ATTEMPTS",
        kind=Kind.WHOLE,
        label="Calls made for this narrative",
        meaning="Calls that were made for this narrative, failed ones included.",
        unit="calls",
        missing="the predecessor did not count",
    ),
    Column(
        name="first_error_message",
        short_name="FIRSTERR",
        kind=Kind.TEXT,
        label="What went wrong first",
        meaning="What went wrong when the narrative first ended as an error; kept when a retry brought an answer.",
        missing="never an error, or a sentence of the predecessor that was left out",
    ),
    Column(
        name="last_attempt_at",
        short_name="LASTATT",
        kind=Kind.UTC_TIME,
        label="End of the last call, UTC",
        meaning="When the last call for this narrative ended.",
        missing="no call was made, or by the predecessor",
    ),
    Column(
        name="finish_reason",
        short_name="FINISH",
        kind=Kind.TEXT,
        label="Why the model stopped",
        meaning="Why the model stopped, in the endpoint's words, such as stop or length.",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="response_model",
        short_name="RESPMODL",
        kind=Kind.TEXT,
        label="Model that says it answered",
        meaning="The model that the answer names.",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="system_fingerprint",
        short_name="SYSFPRNT",
        kind=Kind.TEXT,
        label="Fingerprint of the server's set-up",
        meaning="What the endpoint calls its set-up; another one is another instrument.",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="parse_method",
        short_name="PARSEMTH",
        kind=Kind.TEXT,
        label="How the answer was read",
        meaning="Which step of the parser found the answer, and what had to be mended in it.",
        missing=_ERROR,
    ),
    Column(
        name="cached_tokens",
        short_name="TOKCACHE",
        kind=Kind.WHOLE,
        label="Prompt tokens from a cache",
        meaning="Tokens of the prompt that the endpoint took from its cache.",
        unit="tokens",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="reasoning_tokens",
        short_name="TOKREASN",
        kind=Kind.WHOLE,
        label="Tokens of reasoning",
        meaning="Tokens of the answer that went into reasoning.",
        unit="tokens",
        missing=_NOT_REPORTED,
    ),
    Column(
        name="run_id",
        short_name="RUNID",
        kind=Kind.WHOLE,
        label="Run that stored the row",
        meaning="The life of a process that stored the row; `narrun show` lists them.",
        missing="stored by the predecessor",
    ),
    Column(
        name="skip_reason",
        short_name="SKIPPED",
        kind=Kind.TEXT,
        label="Why no call was made",
        meaning="Set where the narrative was not sent, because its text is no narrative; it has no answer"
        " then, and is no error.",
        values={SkipReason.PLACEHOLDER: "the text says that there is no report"},
        missing="the narrative was sent, or has the answer of one with the same text",
    ),
    Column(
        name="copied_from",
        short_name="COPYFROM",
        kind=Kind.WHOLE,
        label="Narrative whose answer this is",
        meaning="The narrative_id of the first narrative with the same text, which was asked in place of this one.",
        missing="the narrative was asked itself, or skipped",
    ),
)

#: the first of ours
_FIRST_OF_OURS = "error_category"
_NAMES = tuple(column.name for column in RESULT_COLUMNS)
#: in the order of the table; R scripts read these names
R_COLUMNS = _NAMES[: _NAMES.index(_FIRST_OF_OURS)]
OUR_COLUMNS = _NAMES[_NAMES.index(_FIRST_OF_OURS) :]

#: hold the narrative, or quote it: models put short quotations into their indicators
TEXT_COLUMNS = frozenset(column.name for column in RESULT_COLUMNS if column.is_text)

#: the columns of `experiments` that hold the prompts
PROMPT_COLUMNS = frozenset({"system_prompt", "user_template", "config_json"})


def chosen_columns(*, with_text: bool) -> Sequence[Column]:
    """The columns of an export, in the order of the table."""
    return [column for column in RESULT_COLUMNS if with_text or not column.is_text]

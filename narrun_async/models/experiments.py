"""Experiments with their cohorts, and runs: the lives of processes that work on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from narrun_async.models.ids import ExperimentId, NarrativeId, RunId
from narrun_async.models.sweeps import SweepPlace


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

    @property
    def words(self) -> str:
        """After "what is"."""
        return {Selection.MISSING: "missing", Selection.ERRORS: "an error"}.get(self, "missing or an error")


class AnswerFormat(StrEnum):
    """What the endpoint is asked to bind its answers to. Stored; never renamed."""

    #: our schema of the answer
    JSON_SCHEMA = "json_schema"
    #: any JSON object
    JSON_OBJECT = "json_object"
    #: nothing is asked
    OFF = "off"


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
    #: placeholders get a row and no call
    skips_placeholders: bool = False
    #: of narratives with the same text the first is asked, the others get its answer
    asks_identical_once: bool = False
    #: every column of the `experiments` row, for display and export
    columns: Mapping[str, object] = field(repr=False)
    #: what a probe decided where the configuration leaves it to one; None: nothing yet, or nothing was left to it
    answer_format: AnswerFormat | None = None


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
    #: placeholders get a row and no call
    skip_placeholders: bool = False
    #: of narratives with the same text the first is asked, the others get its answer
    ask_identical_once: bool = False
    #: by which placeholders are known, where they are skipped
    placeholder_rules: str | None = None
    #: None outside sweeps
    sweep: SweepPlace | None = None


class RunMode(StrEnum):
    """Why a run was started."""

    NEW = "new"
    RESUME = "resume"
    RETRY_ERRORS = "retry-errors"
    #: stores what came back of batches
    BATCH = "batch"
    #: none of ours: what the predecessor did, recorded when its experiment was taken up
    LEGACY = "r"


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
    host: str | None = None
    narrun_version: str | None = None
    api_url: str | None = None
    #: the URL was not the experiment's own
    api_url_overridden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMark:
    """What the writer notes beside each batch for whoever watches the database."""

    runtime_s: float
    #: local `YYYY-MM-DD HH:MM:SS`; None while there is no rate yet
    estimated_completion_time: str | None


_BEFORE_ALL = NarrativeId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCursor:
    """Where a sweep over the cohort stands: the last narrative seen and its rank."""

    narrative_id: NarrativeId = _BEFORE_ALL
    row_num: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCounts:
    """Rows of an experiment, counted: each is a success, an error, or was skipped."""

    n_total: int
    n_success: int
    n_errors: int
    n_skipped: int = 0
    #: successes and errors that repeat those of narratives with the same text
    n_copied: int = 0

    @property
    def n_rows(self) -> int:
        return self.n_success + self.n_errors + self.n_skipped

    @property
    def n_asked(self) -> int:
        """Rows that were made by asking."""
        return self.n_success + self.n_errors - self.n_copied

    @property
    def n_missing(self) -> int:
        return self.n_total - self.n_rows

    def remaining(self, selection: Selection) -> int:
        """The size of the remaining set."""
        match selection:
            case Selection.MISSING:
                return self.n_missing
            case Selection.ERRORS:
                return self.n_errors
            case Selection.MISSING_AND_ERRORS:
                return self.n_missing + self.n_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class UncalledCounts:
    """What of a remaining set gets its row without a call."""

    n_to_skip: int = 0
    #: the text is that of another narrative, which is or was asked
    n_to_copy: int = 0

    @property
    def n_rows(self) -> int:
        return self.n_to_skip + self.n_to_copy


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagCounts:
    """Doubtful texts of a cohort; a text may be of several kinds."""

    n_placeholder: int
    n_near_empty: int
    n_truncated: int
    #: narratives whose text is that of an earlier one of the cohort, placeholders apart
    n_identical: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRow:
    """One narrative of a cohort and what became of it, for counting: labels, verdict and lengths, never a text."""

    incident_id: str
    #: `cme` or `le`
    narrative_type: str
    #: 0/1: the flag of this narrative; None where unlabelled
    manual_flag_ind: int | None
    #: 0/1: the flag of the case; None where unlabelled
    manual_flag: int | None
    #: characters of the text; None where it was scrubbed
    text_chars: int | None
    #: what ingesting noticed, separated by commas; empty: nothing; None: nobody looked
    text_flags: str | None
    #: False: there is no row yet, and all that follows is None
    has_result: bool
    #: 0/1; None where there is no usable answer
    detected: int | None
    #: 0 to 1, as the model gave it
    confidence: float | None
    #: None: the row is no error
    error_category: str | None
    #: why the narrative was not sent; None where it was
    skip_reason: str | None
    #: the narrative whose answer this is, because both have the same text
    copied_from: NarrativeId | None
    #: of the incident; None where the file does not say
    incident_year: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryCounts:
    """Narratives that were asked again in mid-run, and what became of their answers."""

    n_asked: int = 0
    #: gave a usable answer, which can be compared with the stored result
    n_answered: int = 0
    #: said the opposite of the stored result
    n_flipped: int = 0
